"""The process that local workers are forked from: it loads packages and machine code once, and they share its memory.

Importing this module is quick, so that a command can start the server before it does anything else.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from typing import Any

_PRELOAD = "detect.corpus.engines.warm"


def start_early() -> BaseContext:
    """Start the server, which gets ready while the caller goes on; returns the context that workers start in."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    with _deaf_to_interrupts():
        forkserver.ensure_running()
    return context


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """An interrupt from the keyboard reaches the whole process group; ending workers is their parent's business.

    What is started in here inherits that it is ignored, and so do all its forks.
    """
    with _handling_interrupts(signal.SIG_IGN):
        yield


@contextmanager
def interrupts_afterwards() -> Iterator[None]:
    """Put off interrupts to the end of the block: a worker that is half started would be left behind."""
    noted: list[int] = []
    with _handling_interrupts(lambda number, _: noted.append(number)):
        yield
    if noted:
        raise KeyboardInterrupt


@contextmanager
def _handling_interrupts(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted, and only it may set handlers
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
