"""Commands that stop at a moment of a test's choosing, which so need not be hit: they send themselves SIGSTOP.

python -m tests.stopping PART COUNT WORDS...: `dyetrace WORDS`, stopped once its own process has made, renamed or
written to a path that PART stands in COUNT times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def command(part: str, count: int, *words: object) -> list[str]:
    """What a `subprocess.Popen` takes."""
    return [sys.executable, "-m", "tests.stopping", part, str(count), *map(str, words)]


def wait_until_stopped(process: subprocess.Popen[Any]) -> None:
    """Wait for the moment."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise AssertionError(f"it ended, wait status {status}: {process.communicate()[1]}")


def _stop_after(part: str, count: int) -> None:
    left = [count]

    def stopping(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            done = real(*given, **more)
            paths = [os.readlink(f"/proc/self/fd/{given[0]}")] if name == "write" else [str(path) for path in given]
            if any(part in path for path in paths):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGSTOP)
            return done

        return call

    for name in ("mkdir", "rename", "replace", "write"):
        setattr(os, name, stopping(name, getattr(os, name)))


if __name__ == "__main__":
    _stop_after(sys.argv[1], int(sys.argv[2]))
    del sys.argv[1:3]
    from detect.cli.start import main

    main()
