"""How many questions a race readout takes, on students of several kinds, and how often innocents are hit."""
