"""Loops that change weights: one classifier, the network pool, stage 1 and stage 2."""
