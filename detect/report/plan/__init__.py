"""What reports of power plans say, and how they are drawn."""
