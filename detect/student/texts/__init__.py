"""What a suspect reads, which of its positions count, and how often contexts were served."""
