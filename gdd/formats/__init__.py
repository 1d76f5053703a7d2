"""Sets in other programs' formats."""
