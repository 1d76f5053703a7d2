"""Distil an image dataset into a small conditional generator, and prove what the distilled data is worth."""

__version__ = "0.1.0"
