"""Classifiers by registry name, and the conditional generator and discriminator."""
