"""The commands that trace the mark into a student model."""
