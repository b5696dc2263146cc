"""Folders that dyetrace makes for itself among a user's files: each has a mark in it that says whose it is.

Nothing outside such a folder is ever removed, and in one only what bears the name of something that dyetrace puts in.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from watermark.errors import DyetraceError
from watermark.files.writing import write_atomically

MARK = "DYETRACE"
"""Name of the file that says whose folder it is."""

SCRATCH = r"\.dyetrace-[a-z0-9_]{8}"
"""Names of files that `write_atomically` is writing."""


def claim(folder: Path, content: bytes, advice: str) -> None:
    """Make a folder and mark it, or find it marked.

    Parameters
    ----------
    folder
        Where.
    content
        That of the mark.
    advice
        What to do where something else is there.

    Raises
    ------
    DyetraceError
        What is there was not made by dyetrace.
    OSError
        It can't be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = folder / MARK
    is_folder = stat.S_ISDIR(folder.lstat().st_mode)
    if is_folder and is_plain(mark) and mark.read_bytes() == content:
        return
    if not is_folder or not all(re.fullmatch(SCRATCH, name) for name in os.listdir(folder)):
        raise DyetraceError(f"{folder} is there already and was not made by dyetrace; {advice}")
    folder.chmod(0o700)
    write_atomically(mark, content, 0o600)


def release(folder: Path) -> None:
    """Remove the mark, and the folder with it, if nothing else is in it."""
    with contextlib.suppress(OSError):
        if os.listdir(folder) == [MARK]:
            (folder / MARK).unlink()
            folder.rmdir()


def remove_plain(path: Path) -> None:
    """Remove a plain file, and nothing of another kind."""
    with contextlib.suppress(OSError):
        if is_plain(path):
            path.unlink()


def is_plain(path: Path) -> bool:
    """Whether this is a file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
