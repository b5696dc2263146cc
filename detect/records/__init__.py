"""What reports hold: a record for each kind, the files they are read from and written to, and what no run writes."""
