"""Twins: pairs and questions that a verdict needs, on students of several kinds, and how often innocents are hit."""
