"""The one exception for bad input: its message is a single line that says what, where and how to fix it."""


class DyetraceError(ValueError):
    """Bad input from the user; the command line prints it as one line and exits with status 2."""
