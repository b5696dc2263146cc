"""The files that a report names: those beside it, and those that were read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from detect.records.recorded_inputs import file_sha256, with_hash, within
from detect.records.scan import FileHash
from detect.report.verify.checks import NotDone
from watermark.errors import DyetraceError, EvidenceError


@dataclass(frozen=True, slots=True)
class Read:
    """A file that was read, with its length where the record has it."""

    name: str
    sha256: str
    bytes: int | None


def inputs(files: Sequence[Read], folder: Path | None, *, below: Sequence[str] = (), named: bool = True) -> str:
    """The files that were read have the SHA-256 on record.

    Parameters
    ----------
    files
        All of them.
    folder
        Where to look for them.
    below
        Folders that names may start in.
    named
        Whether they may be looked for by their names; reports without quotes don't tell those that a scan found.
    """
    if folder is None:
        raise NotDone("the files that were read were not looked at: give their folder with --inputs")
    if not folder.is_dir():
        raise DyetraceError(f"{folder} is not a folder")
    for source in files:
        names = (*(str(PurePath(one, source.name)) for one in below), source.name) if named else ()
        if with_hash(folder, names, source.sha256, source.bytes) is None:
            alike = (path for name in names for path in within(folder, name) if path.is_file())
            if (other := next(alike, None)) is None:
                raise DyetraceError(f"{source.name} is not in {folder}")
            _compare(other, source)
    return f"all {len(files):,} inputs have the SHA-256 on record"


def beside(folder: Path, listed: Sequence[FileHash], needed: frozenset[str]) -> str:
    """The files beside the report are those that it lists, and all that are needed are listed."""
    for file in listed:
        if PurePath(file.name).name != file.name:
            raise DyetraceError(f"the report lists a file outside its folder: {file.name!r}")
        _compare(folder / file.name, Read(file.name, file.sha256, file.bytes))
    missing = needed - {file.name for file in listed}
    if missing:
        raise DyetraceError(f"the report does not list {' and '.join(sorted(missing))}")
    return f"the SHA-256 and size on record are those of {', '.join(file.name for file in listed)}"


def _compare(path: Path, source: Read) -> None:
    if not path.is_file():
        raise DyetraceError(f"{source.name} is missing")
    found = file_sha256(path)
    if source.bytes not in (None, path.stat().st_size) or found != source.sha256:
        raise EvidenceError(f"{source.name} is not the file of the report: SHA-256 {found}, not {source.sha256}")
