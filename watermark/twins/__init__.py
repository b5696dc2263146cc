"""Twins: two answers to one request, of which a secret coin says which one is served; the other is kept."""
