"""Schemes: how a distribution is marked, what a token scores, and the law of that score."""
