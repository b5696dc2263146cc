"""The race readout: whether a suspect goes on as the key chose where answers were served, read at their prefixes."""
