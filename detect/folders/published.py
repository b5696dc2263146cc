"""The folder that a report is written to: it holds one report, whole or not at all, and what isn't a report's stays.

New files are made in a folder of their own inside (`STAGE`). When all are there a list of what goes and what comes is
written beside them, and from then on the change is decided: the old report.json goes first and the new one comes last,
so that files of two reports never lie beside each other under one report.json. Whatever cuts that off, the next command
that writes here ends it first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from detect.folders.own import SCRATCH, claim, is_plain, release, remove_plain
from watermark.errors import DyetraceError, MachineError, refused_write
from watermark.files.writing import make_folder, write_atomically
from watermark.interruption import held, wrote

REPORT = "report.json"
SIGNATURE = "report.json.sig"
DETECTION_FORMAT, SCAN_FORMAT, TRACE_FORMAT = "dyetrace-detection", "dyetrace-scan", "dyetrace-trace"
TWINS_FORMAT, RACE_FORMAT = "dyetrace-twins", "dyetrace-race"
_KINDS = {
    DETECTION_FORMAT: "a detection",
    SCAN_FORMAT: "a scan",
    TRACE_FORMAT: "a trace",
    TWINS_FORMAT: "a test by twins",
    RACE_FORMAT: "a race readout",
    "dyetrace-power-plan": "a plan of power",
    "dyetrace-serve-check": "a check of a server",
}


def _says_of_what(data: bytes) -> bool:
    return b"\nDrawn by dyetrace from the report with SHA-256 " in data


# What is drawn from a report or written about it, and how to tell that dyetrace did so.
_DRAWN: dict[str, Callable[[bytes], bool]] = {
    "report.html": lambda data: b"<title>dyetrace " in data,
    "report.pdf": lambda data: data.startswith(b"%PDF") and b"dyetrace" in data,
    "report.txt": _says_of_what,
    "report.md": _says_of_what,
    "run.json": lambda data: b'"stages"' in data and b'"engine"' in data,
    SIGNATURE: lambda data: b'"dyetrace-report-signature"' in data,
}
DRAWINGS = ("report.html", "report.pdf", "report.txt", "report.md")
# What belongs to a report, if its report.json says so.
_LISTED = ("documents.parquet", "hits.jsonl", "skipped.jsonl", "evidence.npz", "twins.npz", "race.npz")
NAMES = (REPORT, *_LISTED, *_DRAWN)
"""All names that a report's files may have."""
_WRITTEN = {
    DETECTION_FORMAT: frozenset[str](),
    SCAN_FORMAT: frozenset(["documents.parquet", "hits.jsonl", "skipped.jsonl", "run.json"]),
    TRACE_FORMAT: frozenset(["evidence.npz"]),
    TWINS_FORMAT: frozenset(["twins.npz"]),
    RACE_FORMAT: frozenset(["race.npz"]),
}

STAGE = ".dyetrace-report"
_CHANGE = "change.json"
_MARKED = b"Files of a report that `dyetrace` is writing to the folder around this one.\n"


class Unwritten(MachineError):
    """A report was made that could not be written: ``record`` is all of it that there is."""

    def __init__(self, record: Any, reason: str) -> None:
        super().__init__(reason)
        self.record = record


class _File(msgspec.Struct, frozen=True):
    name: str


class _Header(msgspec.Struct, frozen=True):
    format: str
    files: list[_File] = []


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is decided: files that go, with their SHA-256, and those that come."""

    gone: dict[str, str]
    new: dict[str, str]


def check_folder(output: Path, kind: str | None, *, inputs: Iterable[str | Path] = (), force: bool = False) -> None:
    """Refuse an output folder before any work is done for it.

    Parameters
    ----------
    output
        The folder, which need not be there yet.
    kind
        Of the report that will go there, as its ``format`` says; None where only drawings will.
    inputs
        Files and folders that the command reads.
    force
        Whether a signed report, or one of another kind, may be replaced.

    Raises
    ------
    DyetraceError
        It can't be written, is read by the same command, or holds what must not be replaced.
    """
    _check_writable(output)
    _check_apart(output, inputs)
    if not output.is_dir():
        return
    with _held(output):
        if kind is None:
            return
        own = _own(output, _WRITTEN.get(kind, frozenset()))
        if REPORT not in own:
            return
        old = _header(output / REPORT).format
        if old != kind and not force:
            raise DyetraceError(
                f"{output} holds the report of {_KINDS[old]}, and one folder holds one report: give another folder "
                "with -o, or replace that report with --force"
            )
        if SIGNATURE in own and not force:
            raise DyetraceError(
                f"{output} holds a signed report; give another folder with -o, or replace that report with --force"
            )


def replace_report(output: Path, files: Mapping[str, bytes]) -> None:
    """Put a whole report into a folder; all files of an older one go, and no others.

    Parameters
    ----------
    output
        The folder, which is made if it isn't there.
    files
        Names and contents; report.json is among them.

    Raises
    ------
    DyetraceError
        It can't be written, or a file that isn't dyetrace's has the name of one of a report's. Then the older report
        is as it was.
    """
    make_folder(output)
    with _held(output), held():
        gone = {name: _sha256(output / name) for name in _own(output, files)}
        stage = output / STAGE
        _claim(stage)
        try:
            for name, data in files.items():
                write_atomically(stage / name, data)
            new = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            write_atomically(stage / _CHANGE, msgspec.json.encode(_Change(gone, new)), 0o600)
        except BaseException as error:
            _clear(stage)
            if isinstance(error, OSError):
                raise refused_write(f"cannot write to {output}", error) from None
            raise
        try:
            _finish(output)
        except OSError as error:
            raise refused_write(f"cannot write to {output}", error) from None
        wrote(output / REPORT)


def add_drawings(output: Path, report: bytes | None, files: Mapping[str, bytes], *, force: bool = False) -> None:
    """Write what was drawn from a report to the folder that holds it, or to one that holds none.

    Parameters
    ----------
    output
        The folder.
    report
        The bytes of the report that it was drawn from.
    files
        Names and contents.
    force
        Whether drawings that lie without their report may be replaced.

    Raises
    ------
    DyetraceError
        Another report lies there, or drawings of nobody knows what.
    """
    make_folder(output)
    with _held(output), held():
        if (output / REPORT).exists():
            _own(output, files)
            if report is not None and (output / REPORT).read_bytes() != report:
                raise DyetraceError(
                    f"{output} holds another report, and drawings of this one don't belong beside it; give another "
                    "folder with -o"
                )
        else:
            _clear_drawings(output, force)
        for name, data in files.items():
            write_atomically(output / name, data)


def _clear_drawings(output: Path, force: bool) -> None:
    """Make room for drawings of a report that isn't there itself."""
    old = [name for name in DRAWINGS if os.path.lexists(output / name)]
    for name in old:
        if not (is_plain(output / name) and _DRAWN[name](_read(output / name))):
            raise _foreign(output / name)
    if old and not force:
        raise DyetraceError(
            f"{output} holds {', '.join(old)} already and no report.json, so that may be of another report; draw all "
            "forms at once, or replace what is there with --force"
        )
    for name in old:
        remove_plain(output / name)


def drawn_from(report: bytes) -> bytes:
    """The line at the end of a drawing as text, which says what it was drawn from."""
    return f"\nDrawn by dyetrace from the report with SHA-256 {hashlib.sha256(report).hexdigest()}.\n".encode()


def _check_writable(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise DyetraceError(f"{output} is a file, and a report needs a folder; give another path with -o")
    above = output.absolute()
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise DyetraceError(f"cannot make folder {output}: {above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise MachineError(f"cannot write to {output}: Permission denied")


def _check_apart(output: Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to write a report where the command reads, or the next run would read this one's answer."""
    target = os.path.realpath(output)
    for given in inputs:
        source = os.path.realpath(given)
        if os.path.isdir(source) and (target + os.sep).startswith(os.path.join(source, "")):
            raise DyetraceError(
                f"the report would go into {given}, which is read as a whole, and be read itself the next time; give a "
                "folder outside with -o"
            )
        if os.path.dirname(source) == target and os.path.basename(source) in NAMES:
            raise DyetraceError(
                f"{given} is read by this command and would be replaced by its report; give another folder with -o"
            )


def _own(output: Path, writing: Collection[str]) -> list[str]:
    """Names of the report's files that are there, all of which are dyetrace's.

    Somebody's own file is refused where one of those names in ``writing``, or a drawing that would seem to be of the
    new report, and is left alone elsewhere.
    """
    present = [name for name in NAMES if os.path.lexists(output / name)]
    listed = {file.name for file in _header(output / REPORT).files} if REPORT in present else set()
    found = []
    for name in present:
        path = output / name
        own = REPORT in present and is_plain(path)
        if name in _LISTED:
            own = own and name in listed
        elif name in _DRAWN:
            own = own and _DRAWN[name](_read(path))
        if own:
            found.append(name)
        elif name in writing or name in (REPORT, SIGNATURE, *DRAWINGS):
            raise _foreign(path)
    return found


def _foreign(path: Path) -> DyetraceError:
    return DyetraceError(
        f"{path} is there already and is not known to be dyetrace's, so it is never replaced; move it away, or give "
        "another folder with -o"
    )


def _header(path: Path) -> _Header:
    """What a report.json says of itself."""
    try:
        found = msgspec.json.decode(_read(path), type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _Header("")
    if found.format not in _KINDS:
        raise DyetraceError(
            f"{path} is there already and is no report of dyetrace's, so it is never replaced; move it away, or give "
            "another folder with -o"
        )
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes() if is_plain(path) else b""
    except OSError as error:
        raise DyetraceError(f"cannot read {path}: {error.strerror}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _held(output: Path) -> Iterator[None]:
    """Keep other commands from writing a report here, and end what a killed one had decided."""
    import fcntl

    try:
        descriptor = os.open(output, os.O_RDONLY)
    except OSError as error:
        raise DyetraceError(f"cannot read folder {output}: {error.strerror}") from None
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            with held():
                _finish(output)
        except OSError as error:
            raise refused_write(f"cannot write to {output}", error) from None
        yield
    finally:
        os.close(descriptor)


def _claim(stage: Path) -> None:
    try:
        claim(stage, _MARKED, "rename it, or give another folder with -o")
    except OSError as error:
        raise refused_write(f"cannot write to {stage.parent}", error) from None


def _finish(output: Path) -> None:
    """Carry out a change that is decided; drop one that is not."""
    stage = output / STAGE
    if not os.path.lexists(stage):
        return
    _claim(stage)
    change = _decided(stage)
    if change is not None:
        for name, digest in change.gone.items():  # report.json is the first
            same = change.new.get(name) == digest
            if not same and is_plain(output / name) and _sha256(output / name) == digest:
                remove_plain(output / name)
        for name in sorted(change.new, key=lambda name: name == REPORT):
            _place(stage / name, output / name, change.new[name])
        remove_plain(stage / _CHANGE)
    _clear(stage)


def _decided(stage: Path) -> _Change | None:
    """What was decided; a list that names anything but a report's own files (who sent this folder?) decides nothing."""
    try:
        change = msgspec.json.decode(_read(stage / _CHANGE), type=_Change)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return change if {*change.gone, *change.new} <= {*NAMES} else None


def _place(source: Path, target: Path, digest: str) -> None:
    if not source.exists():  # it was placed before the change was cut off
        return
    if os.path.lexists(target) and not (is_plain(target) and _sha256(target) == digest):
        raise DyetraceError(f"{target} has come there while a report was being written; move it away and try again")
    try:
        os.replace(source, target)
    except OSError as error:
        raise refused_write(f"cannot write {target}", error) from None


def _clear(stage: Path) -> None:
    for name in os.listdir(stage):
        if name in (_CHANGE, *NAMES) or re.fullmatch(SCRATCH, name):
            remove_plain(stage / name)
    release(stage)
