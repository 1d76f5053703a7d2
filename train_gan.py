"""Pretrain the conditional GAN. See `--help`."""

from gdd.cli import script

if __name__ == "__main__":
    script("train-gan", program="train_gan.py")
