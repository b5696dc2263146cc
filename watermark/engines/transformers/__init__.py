"""The hook in transformers: a processor for `generate`, and one for continuous batching."""
