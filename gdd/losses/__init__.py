"""Formulas only: no weights between them, no steps, no randomness of their own."""
