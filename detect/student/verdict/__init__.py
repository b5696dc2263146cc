"""From weighted tuples to a trace's verdict."""
