"""Ctrl-C and SIGTERM in the `dyetrace` command: one line that says what is kept, a status, and nothing half done.

Importing this is quick, as it comes before everything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, NoReturn

from watermark.interruption import must_unwind, put_off, written

_OWN = ".dyetrace-"  # begins the names of what is dyetrace's business alone
PATIENCE = 3.0
"""Seconds that cleaning up may take before another Ctrl-C ends it."""
_AGAIN = 0.02


class _State:
    """What the process knows of its interruption."""

    others: ClassVar[list[Callable[[bool], None]]] = []

    left: str | Callable[[], str] | None = None
    signal: int | None = None
    since = 0.0
    told = False


def begin() -> None:
    """Take the signals over, unless whoever started this process wants them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _handle)
    sys.unraisablehook = _unraisable
    threading.excepthook = _in_thread


def end() -> None:
    """Leave the rest to the interpreter: the work is done, and its status stands."""
    if came():
        _end_others(False)
    if signal.getsignal(signal.SIGINT) is _handle:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if signal.getsignal(signal.SIGTERM) is _handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leaves(what: str | Callable[[], str] | None) -> None:
    """From here on an interrupt leaves this behind: "12 answers are kept in a.partial: the same command goes on".

    By default (None) it leaves the files that were written up to then, each of them whole.
    """
    _State.left = what


def ends(other: Callable[[bool], None]) -> None:
    """Have ``other`` called when an interrupt ends this process: it ends one that this process has started.

    It is told whether this process ends at once, so that nothing else is cleaned up after it.
    """
    if other not in _State.others:
        _State.others.append(other)


def _end_others(at_once: bool) -> None:
    for other in _State.others:
        with contextlib.suppress(Exception):
            other(at_once)


def came() -> bool:
    """Whether there was an interrupt: whatever is raised after it is raised because of it."""
    return _State.signal is not None


def status() -> int:
    """128 and the number of the signal, as shells have it."""
    return 128 + int(_State.signal or signal.SIGINT)


def line() -> str:
    """What is said of it: that the command was cut off, and what it leaves."""
    word = "terminated" if _State.signal == signal.SIGTERM else "interrupted"
    left = _State.left() if callable(_State.left) else _State.left or _written()
    return f"dyetrace: {word}; {' '.join(left.split())}"


def _written() -> str:
    paths = [path for path in written() if _OWN not in path]
    if not paths:
        return "nothing was written; run the same command again"
    return f"{', '.join(paths)} {'is' if len(paths) == 1 else 'are'} there and whole"


def told() -> bool:
    """Whether it was said."""
    return _State.told


def tell() -> None:
    """Say it once, by no file object: what was cut off may have been using it."""
    if _State.told:
        return
    _State.told = True
    with contextlib.suppress(OSError):
        # A bar may stand there, which hides the cursor.
        before = "\r\x1b[?25h\x1b[K" if os.isatty(2) else ""
        os.write(2, f"{before}{line()}\n".encode("utf-8", "backslashreplace"))


def _handle(number: int, frame: FrameType | None) -> None:
    if put_off(number):
        return
    if _State.signal is not None:
        if time.monotonic() - _State.since > PATIENCE:
            _end_at_once()
        return  # it is being cleaned up
    _State.signal, _State.since = number, time.monotonic()
    if _is_importing(frame) and not must_unwind():
        _end_at_once()
    if (logs := sys.modules.get("logging")) is not None:
        logs.disable(logs.CRITICAL)
    if not _cancel_tasks():
        raise KeyboardInterrupt


def _end_at_once() -> NoReturn:
    tell()
    _end_others(True)
    os._exit(status())


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a package is being loaded: what is raised there may get lost in other people's code."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _cancel_tasks() -> bool:
    """End an event loop that runs here as it ends itself, by cancelling; return whether one runs."""
    asyncio: Any = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()
    if loop is None:
        return False

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    loop.call_soon_threadsafe(cancel)
    return True


def _unraisable(lost: Any) -> None:
    """What was raised where nothing can be raised; an interrupt that got lost so is sent again."""
    if _State.signal is None:
        sys.__unraisablehook__(lost)
    elif issubclass(lost.exc_type, KeyboardInterrupt) and not _State.told:
        number, _State.signal = _State.signal, None
        again = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()


def _in_thread(lost: Any) -> None:
    if _State.signal is None:
        threading.__excepthook__(lost)
