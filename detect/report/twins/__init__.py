"""What a test by twins says, to people who decide and to those who check."""
