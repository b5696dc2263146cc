"""Where the files are that a report names: one rule for everything that reads them again."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, TypeVar

import msgspec

from watermark.errors import DyetraceError

_Request = TypeVar("_Request", bound=msgspec.Struct)


def recorded_request(arguments: dict[str, Any], form: type[_Request]) -> _Request:
    """What a report's run was asked for, of which its arguments on record say what can be said in JSON.

    Parameters
    ----------
    arguments
        As they stand in the report; those that ``form`` lacks are passed over.
    form
        What is needed.

    Raises
    ------
    DyetraceError
        One is missing or of another kind: a program made the report without saying how, or it was changed.
    """
    try:
        return msgspec.convert(arguments, form)
    except msgspec.ValidationError as error:
        raise DyetraceError(
            f"the arguments on record don't say how this report was made ({error}); a program that made it by its own "
            "calls must make it again, or put its arguments on record"
        ) from None


def recorded_path(name: str, folder: Path | None, report: Path, hashes: Collection[str] = ()) -> Path:
    """Find a file, folder or glob that a report names.

    Parameters
    ----------
    name
        As the report has it: as it was given to the command, relative or not.
    folder
        What ``--inputs`` says: it is looked for there alone, by its whole name or as much of its end as is there, and
        where one hash is on record by that (`with_hash`). Without it relative names are looked for from the current
        folder, then from the report's and those above it.
    report
        The report's path.
    hashes
        SHA-256 on record. A file with another one is passed over as long as there may be a better one.

    Raises
    ------
    DyetraceError
        There is none.
    """
    found = [path for path in _candidates(name, folder, report) if _is_there(path)]
    best = next((path for path in found if not hashes or not path.is_file() or file_sha256(path) in hashes), None)
    if best is None and folder is not None and len(hashes) == 1:
        best = with_hash(folder, (), next(iter(hashes)))
    if best is not None or found:
        return best or found[0]
    if folder is not None:
        raise DyetraceError(f"{name} is not in {folder}; give the folder that the report's inputs are in with --inputs")
    raise DyetraceError(
        f"cannot find {name}, which the report names, from here or from {report.absolute().parent}; give the folder "
        "that the report's inputs are in with --inputs"
    )


def with_hash(folder: Path, names: Iterable[str], sha256: str, size: int | None = None) -> Path | None:
    """The file in a folder that has the SHA-256 on record: one of its names there, or else any, wherever it lies."""
    named = (path for name in names for path in within(folder, name) if path.is_file())
    others = (path for path in sorted(folder.rglob("*")) if _may_be(path, size))
    return next((path for path in chain(named, others) if file_sha256(path) == sha256), None)


def _may_be(path: Path, size: int | None) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK) and size in (None, path.stat().st_size)
    except OSError:
        return False


def within(folder: Path, name: str) -> Iterator[Path]:
    """Paths in a folder by a name's whole, then by ever less of its end; none of them leads out of it.

    Last comes the folder itself, where it bears the name of the folder that was read.
    """
    parts = [part for part in PurePath(name).parts if part not in ("..", "/", "\\")]
    yield from (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    if not parts or folder.absolute().name == parts[-1]:
        yield folder


def _candidates(name: str, folder: Path | None, report: Path) -> Iterator[Path]:
    if folder is not None:
        if not folder.is_dir():
            raise DyetraceError(f"--inputs {folder} is not a folder")
        yield from within(folder, name)
        return
    yield Path(name)
    for above in report.absolute().parents:
        yield above / name


def _is_there(path: Path) -> bool:
    text = str(path)  # pipes and devices are no inputs of a report: nobody could read them twice
    if glob.has_magic(text) and next(glob.iglob(text, recursive=True), None) is not None:
        return True
    return path.is_file() or path.is_dir()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex; DyetraceError where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DyetraceError(f"cannot read {path}: {error.strerror}") from None
