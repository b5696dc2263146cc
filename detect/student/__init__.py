"""Tracing the mark into a student model, from its weights or through its endpoint."""
