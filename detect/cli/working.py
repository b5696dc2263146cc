"""What a command tells people, on standard error.

What it is doing is a bar where people watch, else a line at least every 30 seconds. The command says what it begins
(`doing`), and with it how far it is where that can be counted. The rest is done by a thread of its own, since one step
alone may take minutes.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any

import click

SECONDS_BETWEEN_LINES = 30.0


def say(message: str) -> None:
    """Tell people; standard output stays for results. Where nobody can be told, the work goes on all the same."""
    with contextlib.suppress(OSError):
        click.echo(message, err=True)


def note(message: str) -> None:
    """Tell people what is being done or was made, unless they asked for silence (--quiet)."""
    if _Current.working is None or not _Current.working.quiet:
        say(message)


class Working:
    """Tells what is being done while the block runs.

    Parameters
    ----------
    quiet
        Whether to say nothing at all.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._what, self._done, self._total, self._unit = "working", 0, 0, ""
        self._since = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: Any = None
        self._before: Working | None = None

    def __enter__(self) -> Working:
        self._before, _Current.working = _Current.working, self
        if not self.quiet and not is_watched():
            self._thread = threading.Thread(target=self._tell, name="dyetrace-working", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        _Current.working = self._before
        self._over.set()
        self.rest()
        if self._thread is not None:
            self._thread.join()

    def begin(self, what: str, done: int, total: int, unit: str) -> None:
        """Take down what is being done, and how far it is."""
        if what != self._what:
            self._what, self._since = what, time.monotonic()
            self.rest()
        self._done, self._total, self._unit = done, total, unit
        if what and not self.quiet and is_watched():
            self._draw()

    def rest(self) -> None:
        """Take the bar away: something else is to be printed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self) -> None:
        """One bar, which only moves where there is nothing to count."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        if self._bar is None:
            times = TimeRemainingColumn() if self._total else TimeElapsedColumn()
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counted]}"), times)
            # What goes to standard output is no business of a bar on standard error.
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._bar.add_task(self._what, total=self._total or None, counted="")
            self._bar.start()
        self._bar.update(0, completed=self._done, total=self._total or None, counted=self._counted())

    def _tell(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_LINES):
            if not self._what:
                continue
            counted = self._counted()
            minutes, seconds = divmod(round(time.monotonic() - self._since), 60)
            after = f"after {minutes}:{seconds:02} minutes"
            say(f"{self._what}: {f'{counted} {after}' if counted else f'still at it {after}'}")

    def _counted(self) -> str:
        return f"{self._done:,} of {self._total:,}{self._unit and ' '}{self._unit}" if self._total else ""


class _Current:
    """The command that runs in this process, if it tells what it does."""

    working: Working | None = None


def doing(what: str, done: int = 0, total: int = 0, unit: str = "") -> None:
    """Say what is being done now, and how far it is; without a total it can't be counted.

    Nothing is done between the rounds of a canary: then ``what`` is empty, and nothing is said.
    """
    if _Current.working is not None:
        _Current.working.begin(what, done, total, unit)


def rest() -> None:
    """Take the bar away before something is printed."""
    if _Current.working is not None:
        _Current.working.rest()


def is_watched() -> bool:
    """Whether standard error is a terminal, where people watch."""
    return sys.stderr is not None and sys.stderr.isatty()
