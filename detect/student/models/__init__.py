"""Suspect models: loaded whole, tested for soundness, read one distribution at a time."""
