"""The `dyetrace` command: `start` begins it, `main` runs it, and every command has a module of its own."""

TRACEBACK_VARIABLE = "DYETRACE_TRACEBACK"
"""Set it to have the details of a fault of dyetrace itself printed."""
