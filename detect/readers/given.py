"""A file as it was given: a path, standard input, or a pipe, which can be read only once."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watermark.errors import DyetraceError, MachineError, refused_write


def shown(source: str) -> str:
    """What to call it."""
    return "standard input" if source == "-" else source


@contextmanager
def plain_file(source: str) -> Iterator[str]:
    """The path of a file that can be read more than once: of standard input and of pipes a copy, removed again.

    Parameters
    ----------
    source
        A path, or "-" for standard input.

    Raises
    ------
    DyetraceError
        It can't be read.
    MachineError
        There is no room for the copy.
    """
    if source != "-":
        try:
            if os.path.isdir(source) or stat.S_ISREG(os.stat(source).st_mode):
                yield source
                return
        except OSError as error:
            raise DyetraceError(f"cannot read {source}: {error.strerror}") from None
    if source == "-" and sys.stdin is None:
        raise DyetraceError("standard input is closed; give what is to be read there, or a file")
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read {source}: {error.strerror}") from None
    try:
        with tempfile.NamedTemporaryFile() as copy:
            copy.write(data)
            copy.flush()
            yield copy.name
    except OSError as error:
        raise MachineError(str(refused_write("cannot keep a copy of what is read only once", error))) from None
