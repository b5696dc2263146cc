"""The primitive of `watermark.prf` for each array library; every backend is bit-identical on the shared test vectors."""
