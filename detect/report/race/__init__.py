"""What a race readout says, to people who decide and to those who check."""
