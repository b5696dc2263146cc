"""The process that local workers are forked from: it loads packages and machine code once, and they share its memory.

Importing this module is quick, so that a command can start the server before it does anything else.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import BaseContext
from typing import Any

from detect.interruption import ends
from watermark.interruption import held

_PRELOAD = "detect.corpus.engines.warm"


def start_early() -> BaseContext:
    """Start the server, which gets ready while the caller goes on; returns the context that workers start in."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    resource_tracker.ensure_running()  # it unblocks the signals that it has blocked itself
    with _deaf_to_interrupts():
        forkserver.ensure_running()
    ends(_end_server)
    return context


def _end_server(at_once: bool) -> None:
    """End the server, which would first load all its packages where it has only begun to, and remove its socket."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGTERM)
        if at_once:  # else multiprocessing does so itself
            shutil.rmtree(util.get_temp_dir(), ignore_errors=True)


def end_with_parent() -> None:
    """End this worker when the process that asked for it is gone, however it went: nobody would take its results.

    The fork server lives as long as its last worker, so that it ends as well.
    """
    parents = [multiprocessing.parent_process()]
    if (beside := sys.modules.get("multiprocess")) is not None:  # datatrove's own copy of multiprocessing
        parents.append(beside.parent_process())
    for parent in parents:
        if parent is not None:
            threading.Thread(target=_end_after, args=(parent,), name="dyetrace-parent", daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)  # no cleaning up: what is unfinished has a name of its own, and the next scan removes it


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """An interrupt from the keyboard reaches the whole process group; ending workers is their parent's business.

    What is started in here inherits that it is ignored, and so do all its forks. One that comes meanwhile is not lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        with _handling_interrupts(signal.SIG_IGN):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def interrupts_afterwards() -> Iterator[None]:
    """Put off interrupts to the end of the block: a worker that is half started would be left behind."""
    noted: list[int] = []
    with held():
        with _handling_interrupts(lambda number, _: noted.append(number)):
            yield
        if noted:
            signal.raise_signal(noted[0])


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
