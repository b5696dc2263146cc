"""What reports of corpus scans say, and how they are drawn."""
