"""Where the `dyetrace` command begins: signals are taken over before anything that takes time is loaded."""

from __future__ import annotations

from typing import Any

from detect import interruption


def main() -> Any:
    """Run the command.

    Raises
    ------
    SystemExit
        With the status of `detect.cli.statuses`.
    """
    interruption.begin()
    try:
        from detect.cli import main as run

        return run()
    except KeyboardInterrupt:
        interruption.tell()
        raise SystemExit(interruption.status()) from None
    finally:
        interruption.end()
