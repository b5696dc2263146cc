"""Where the `dyetrace` command begins: signals are taken over before anything that takes time is loaded."""

from __future__ import annotations

import os
import sys
from typing import Any

from detect import interruption
from detect.cli import TRACEBACK_VARIABLE

INTERNAL, MACHINE = 1, 5
"""Statuses of `detect.cli.statuses`, which may be among what can't be loaded."""


def main() -> Any:
    """Run the command.

    Raises
    ------
    SystemExit
        With a status of `detect.cli.statuses`.
    """
    interruption.begin()
    try:
        from detect.cli.main import main as run
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        sys.stderr.write(f"dyetrace: {_unloaded(error)}\n")
        raise SystemExit(MACHINE if isinstance(error, ImportError) else INTERNAL) from None
    except KeyboardInterrupt:
        _end_interrupted()
    try:
        try:
            return run()
        finally:
            interruption.end()
    except KeyboardInterrupt:  # of the command, or just as it ended
        _end_interrupted()


def _end_interrupted() -> None:
    interruption.tell()
    raise SystemExit(interruption.status()) from None


def _unloaded(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"cannot load its packages ({' '.join(str(error).split())}); install dyetrace anew with all it needs"
    return (
        f"internal error: {type(error).__name__} while its packages were loaded; this is a fault of dyetrace, not of "
        f"your input; run it again with {TRACEBACK_VARIABLE}=1 for the details and report them"
    )
