"""The primitive of `watermark.prf` for each array library, bit-identical on the shared test vectors."""
