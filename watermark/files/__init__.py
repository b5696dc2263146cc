"""Files: written whole or not at all, long outputs, and JSON with a version."""
