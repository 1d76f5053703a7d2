"""Distil a dataset: stage 1 if needed, stage 2, and the score. See `--help`."""

from gdd.cli import script

if __name__ == "__main__":
    script("distill", program="distill.py")
