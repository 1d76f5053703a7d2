"""Loops that change weights: a classifier, the pools, the GAN and its refinement, and matching."""
