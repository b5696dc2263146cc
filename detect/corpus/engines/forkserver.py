"""The process that local workers are forked from: it loads packages and machine code once, and they share its memory.

Importing this module is quick, so that a command can start the server before it does anything else.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

_PRELOAD = "detect.corpus.engines.warm"


def fork_context() -> BaseContext:
    """How workers are started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    return context


def start_early() -> None:
    """Start the server now; it gets ready while the caller goes on."""
    fork_context()
    forkserver.ensure_running()
