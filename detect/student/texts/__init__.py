"""Texts of a trace: whether they are what they are taken for and complete, and how often contexts were served."""
