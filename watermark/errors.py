"""What can go wrong and is said in one line; each kind ends the command with a status of its own (`detect.cli`)."""

from __future__ import annotations

import errno


class DyetraceError(ValueError):
    """Bad input from the user. The message is a single line that says what, where and how to fix it."""


class EvidenceError(DyetraceError):
    """What was checked doesn't hold: a report, commitment or signature was changed, or a number isn't reproduced."""


class UndecidedError(DyetraceError):
    """The run was as it should be, and can't tell: there was too little to look at."""


class MachineError(DyetraceError):
    """The input is good and the machine refuses: disk, memory, network, or a package that isn't installed."""


_BAD_PATHS = frozenset(
    [
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
        errno.EILSEQ,
    ]
)


def refused_write(what: str, error: OSError) -> DyetraceError:
    """Why something can't be written: by its path, which is bad input, or by the machine.

    Parameters
    ----------
    what
        "cannot write out/report.json": what was tried, and where.
    error
        What the system said.
    """
    kind = DyetraceError if error.errno in _BAD_PATHS else MachineError
    return kind(f"{what}: {error.strerror or error}")


_NO_MEMORY = ("allocate memory", "out of memory", "failed to map segment", "not enough memory")


def missing_of_machine(error: BaseException) -> str | None:
    """What the machine lacks, if that is what an error of another package says: memory, or a package that loads."""
    if isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, ImportError)) and any(words in str(error) for words in _NO_MEMORY)
    ):  # torch and the dynamic loader say so in words alone
        return "there is not enough memory for this; free some, or give it less at once"
    own = isinstance(error, ImportError) and (error.name or "").partition(".")[0] in ("detect", "watermark")
    if isinstance(error, ImportError) and not own:
        reason = " ".join(str(error).split())[:300]
        return f"cannot load a package ({reason}); install dyetrace anew with all it needs"
    return None
