"""What all forms of a report are drawn with."""
