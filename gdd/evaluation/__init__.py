"""Train fresh students on any set and report their accuracy on real test data."""
