"""Whether a server's answers carry the mark: `dyetrace serve-check`."""
