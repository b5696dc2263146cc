"""Ctrl-C and SIGTERM at moments that can't bear them: steps that must not be half done, and what is to be removed.

Whatever takes the signals (`detect.interruption` in the `dyetrace` command) asks here; in a process where nobody does,
both blocks do nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import ClassVar


class _Moment:
    """Where the main thread is, which alone is interrupted."""

    held = 0
    unwinding = 0
    waiting: int | None = None
    written: ClassVar[list[str]] = []


@contextmanager
def held() -> Iterator[None]:
    """Put an interrupt off to the end of the block, which is short: a file and its name, two files of one pair."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Moment.held += 1
    try:
        yield
    finally:
        _Moment.held -= 1
        number = _Moment.waiting
        if number is not None and not _Moment.held:
            _Moment.waiting = None
            signal.raise_signal(number)


@contextmanager
def unwinding() -> Iterator[None]:
    """Have an interrupt in this block raised at any rate, as something is to be removed when the block is left.

    Elsewhere the process may end at once where an exception could get lost, as in the middle of an import.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Moment.unwinding += 1
    try:
        yield
    finally:
        _Moment.unwinding -= 1


def wrote(path: str | PathLike[str]) -> None:
    """Note an output that is whole by now and will stay, in the block that made it so."""
    _Moment.written.append(fspath(path))


def written() -> list[str]:
    """The outputs of this process that are whole."""
    return list(dict.fromkeys(_Moment.written))


def forget_written() -> None:
    """Begin anew: a process may run several commands."""
    _Moment.written.clear()


def put_off(number: int) -> bool:
    """Whether a signal has to wait; it is raised again at the end of the block."""
    if not _Moment.held:
        return False
    if _Moment.waiting is None:
        _Moment.waiting = number
    return True


def must_unwind() -> bool:
    """Whether something is to be removed."""
    return _Moment.unwinding > 0
