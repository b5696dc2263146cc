"""Null distributions: exact tails in log space, sums, e-values, and what many tests cost together."""
