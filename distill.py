"""Distil a dataset: stage 1 if needed, stage 2, and the score. See `--help`."""

import sys

from gdd.cli import script

if __name__ == "__main__":
    sys.exit(script("distill", "distill.py"))
