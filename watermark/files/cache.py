"""The user's folder for what can be made again at any time: the demo model, and what models have read."""

from __future__ import annotations

import os
from pathlib import Path

from watermark.errors import MachineError


def cache_root() -> Path:
    """`$DYETRACE_CACHE`, else `$XDG_CACHE_HOME/dyetrace`, else `~/.cache/dyetrace`.

    Raises
    ------
    MachineError
        This user has no home folder, and no variable names another one.
    """
    try:
        if chosen := os.environ.get("DYETRACE_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dyetrace"
    except RuntimeError:
        raise MachineError("this user has no home folder; set DYETRACE_CACHE to a folder that you can write") from None
