"""Distil a dataset, by refining a pretrained GAN or by matching, and score the result. See `--help`."""

from gdd.cli import script

if __name__ == "__main__":
    script("distill", program="distill.py")
