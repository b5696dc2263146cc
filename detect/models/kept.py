"""What models have read, kept in the user's cache for every later command: a served answer is read once by a model.

Entries are named by hashes of the model, the number format and the text, and hold token ids and probabilities. They
tell a good deal of private text, so they are their user's alone. Any of them may be removed at any time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from detect.folders.own import SCRATCH, claim
from watermark.errors import DyetraceError
from watermark.files.cache import cache_root

FOLDER = "predictions"
MOST_BYTES = 4 << 30
"""Beyond this the entries that were not used for longest are removed, but none of the last day."""

_MARKED = b"What models have read for dyetrace, in one folder for each model and text; all of it may be removed.\n"
_ENTRY = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}-\d+-\d+")
_DAY = 24 * 3600.0


def kept_folder(most_bytes: int = MOST_BYTES) -> Path | None:
    """The folder of predictions, made and tidied; None where this user can't have one, so that nothing is kept.

    Parameters
    ----------
    most_bytes
        What all entries together may take.
    """
    with contextlib.suppress(OSError, DyetraceError):
        folder = cache_root() / FOLDER
        claim(folder, _MARKED, "move it away")
        if folder.lstat().st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK):
            folder.chmod(0o700)
            _tidy(folder, most_bytes)
            return folder
    return None


def _tidy(folder: Path, most_bytes: int) -> None:
    """Remove the entries that were not used for longest where there are too many, and what killed runs left."""
    entries = []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may remove it meanwhile
            if _ENTRY.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                files = [(file, file.lstat()) for file in entry.iterdir()]
                for file, state in files:
                    if re.fullmatch(SCRATCH, file.name) and time.time() - state.st_mtime > _DAY:
                        file.unlink()
                entries.append((entry.stat().st_mtime, sum(state.st_size for _, state in files), entry))
            elif re.fullmatch(SCRATCH, entry.name) and time.time() - entry.lstat().st_mtime > _DAY:
                entry.unlink()
    left = sum(size for _, size, _ in entries)
    for used, size, entry in sorted(entries, key=lambda one: (one[0], one[2].name)):
        if left <= most_bytes or time.time() - used < _DAY:
            break
        shutil.rmtree(entry, ignore_errors=True)
        left -= size
