"""What reports of checks of a server say, and how they are drawn."""
