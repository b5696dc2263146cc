"""Language models in local folders, the demo model, and tokenizers."""
