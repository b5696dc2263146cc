"""Whether a report holds: everything that can be checked without a key."""
