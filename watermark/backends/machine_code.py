"""Where numba keeps machine code between runs: beside the package, else in a folder of the user's, else nowhere.

numba itself refuses to make a function that it is to keep where neither the package's folder nor the user's home can be
written, as in containers and services. Code that others could put there would be run, so a folder under the common
temporary one is used only where it is this user's alone.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba

_log = logging.getLogger("dyetrace")


def keep(function: Any) -> None:
    """Keep a compiled function's machine code on disk, wherever that is possible; else it is made in every process."""
    try:
        function.enable_caching()
    except RuntimeError:  # numba's own places can't be written
        folder = _folder()
        if folder is None:
            return
        with _as_numba_folder(folder):
            try:
                function.enable_caching()
            except RuntimeError:
                return
    _forgive(function._cache)


def _forgive(cache: Any) -> None:
    """A disk that is full by now costs the machine code, and not the work."""
    save: Callable[..., None] = cache.save_overload

    def save_if_possible(*compiled: Any) -> None:
        with contextlib.suppress(OSError):
            save(*compiled)

    cache.save_overload = save_if_possible


@lru_cache(maxsize=1)
def _folder() -> Path | None:
    """A folder that this process can write and nobody else can: chosen once, with one warning where there is none."""
    for candidate in _candidates():
        with contextlib.suppress(OSError):
            candidate.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = candidate.lstat()
            alone = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o022
            if alone:
                tempfile.TemporaryFile(dir=candidate).close()
                return candidate
    if multiprocessing.parent_process() is None:  # workers need not say it again
        _log.warning(
            "no folder for machine code can be written, so each start takes up to a minute; set DYETRACE_CACHE to "
            "one that is yours"
        )
    return None


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("DYETRACE_CACHE"):
        yield Path(os.path.expanduser(chosen)) / "machine-code"
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        yield Path(os.path.expanduser(chosen)) / "dyetrace" / "machine-code"
    with contextlib.suppress(OSError):  # there may be no temporary folder either
        yield Path(tempfile.gettempdir()) / f"dyetrace-{os.getuid()}"


@contextlib.contextmanager
def _as_numba_folder(folder: Path) -> Iterator[None]:
    """numba reads the setting when a function is made, and others' functions keep their own places."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
