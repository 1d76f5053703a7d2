"""Stage 1: pretrain the conditional GAN. See `--help`."""

import sys

from gdd.cli import script

if __name__ == "__main__":
    sys.exit(script("train-gan", "train_gan.py"))
