"""Folders that dyetrace makes among a user's files: its own work folders, and reports that are published whole."""
