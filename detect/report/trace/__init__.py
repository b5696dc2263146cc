"""What reports of traces say, and how they are drawn."""
