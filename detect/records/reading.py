"""Reports as JSON files: one reader and one writer for every kind.

A record that is read is whole, of a version that this release knows, and does not contradict itself: what its type
allows and no run writes is refused (`detect.records.contradictions`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from detect.records.contradictions import detection, power_plan, race, scan, server_check, trace, twins
from detect.records.detection import RECORD_VERSION, Record
from detect.records.power_plan import PLAN_VERSION, PowerPlan
from detect.records.race import RACE_VERSION, RaceRecord
from detect.records.report import Report, versions
from detect.records.scan import SCAN_VERSION, ScanRecord
from detect.records.server_check import CHECK_VERSION, ServeCheck
from detect.records.trace import TRACE_VERSION, TraceRecord
from detect.records.twins import TWINS_VERSION, TwinRecord
from watermark.errors import DyetraceError, EvidenceError
from watermark.files.writing import write_atomically

_R = TypeVar("_R", bound=Report)


@dataclass(frozen=True, slots=True)
class Form(Generic[_R]):
    """How one kind of record is written.

    Attributes
    ----------
    record
        Its type.
    format, version
        What it says of itself, first of all.
    name
        What readers call it: "a scan".
    contradictions
        What the type allows and no run writes, a few words each.
    """

    record: type[_R]
    format: str
    version: int
    name: str
    contradictions: Callable[[_R], Iterator[str]]


FORMS: tuple[Form[Any], ...] = (
    Form(Record, "dyetrace-detection", RECORD_VERSION, "a detection", detection.contradictions),
    Form(ScanRecord, "dyetrace-scan", SCAN_VERSION, "a scan", scan.contradictions),
    Form(TraceRecord, "dyetrace-trace", TRACE_VERSION, "a trace", trace.contradictions),
    Form(PowerPlan, "dyetrace-power-plan", PLAN_VERSION, "a plan of power", power_plan.contradictions),
    Form(ServeCheck, "dyetrace-serve-check", CHECK_VERSION, "a check of a server", server_check.contradictions),
    Form(TwinRecord, "dyetrace-twins", TWINS_VERSION, "a test by twins", twins.contradictions),
    Form(RaceRecord, "dyetrace-race", RACE_VERSION, "a race readout", race.contradictions),
)
"""All kinds of reports."""


class _Header(msgspec.Struct, frozen=True):
    format: str
    version: int
    versions: dict[str, Any] = {}


def form_of(record: type[_R]) -> Form[_R]:
    """How records of this type are written."""
    return next(form for form in FORMS if form.record is record)


def encode_record(record: msgspec.Struct) -> bytes:
    """Encode a record as indented JSON with sorted keys and a newline at the end.

    Raises
    ------
    DyetraceError
        A number is not finite: JSON has no such numbers, and a null in its place would read as "no p-value".
    """
    return written(portable(record))


def written(plain: Any) -> bytes:
    """Encode plain objects as files hold them: indented, with sorted keys."""
    return msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=2) + b"\n"


def printed(plain: Any, *, one_line: bool = False) -> bytes:
    """Encode plain objects as commands print them: fields in the order in which they are documented."""
    data = msgspec.json.encode(plain)
    return (data if one_line else msgspec.json.format(data, indent=2)) + b"\n"


def write_record(path: Path, record: Report) -> None:
    """Write a record to a file: whole, or not at all."""
    write_atomically(path, encode_record(record))


def read_report(path: Path) -> tuple[bytes, Report]:
    """Read a report of whatever kind: its bytes, and what they say.

    Raises
    ------
    DyetraceError
        No such file, not JSON, no report, one that a newer release wrote, or one that contradicts itself.
    """
    data = read_bytes(path)
    return data, parse_report(data, path)


def read_record(kind: type[_R], path: Path) -> _R:
    """Read a report of one kind.

    Raises
    ------
    DyetraceError
        As `read_report` has it, or it is of another kind.
    """
    return parse_record(kind, read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Read the bytes of a report, with a clear error."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read record {path}: {error.strerror}; give the report.json of a report") from None


def parse_report(data: bytes, path: Path) -> Report:
    """`read_report` of bytes that were read from ``path``."""
    header = _decode(data, path, _Header, "a report")
    form = next((form for form in FORMS if form.format == header.format), None)
    if form is None:
        raise DyetraceError(
            f"{path} is not a report that this dyetrace reads: its format is {header.format!r}{_writer(header)}"
        )
    record: Report = _parse(data, path, header, form)
    return record


def parse_record(kind: type[_R], data: bytes, path: Path) -> _R:
    """`read_record` of bytes that were read from ``path``."""
    form = form_of(kind)
    header = _decode(data, path, _Header, f"the report of {form.name}")
    if header.format != form.format:
        raise DyetraceError(
            f"{path} is not the report of {form.name}: its format is {header.format!r}, not {form.format!r}"
        )
    return _parse(data, path, header, form)


def _parse(data: bytes, path: Path, header: _Header, form: Form[_R]) -> _R:
    if header.version != form.version:
        raise DyetraceError(
            f"record {path} has version {header.version}, but this dyetrace reads version {form.version}; use the "
            f"release that wrote it{_writer(header)}"
        )
    record = _decode(data, path, form.record, f"the report of {form.name}", _writer(header))
    for what in form.contradictions(record):
        raise EvidenceError(f"record {path} was damaged or altered: {what}; restore it")
    return record


_S = TypeVar("_S")


def _decode(data: bytes, path: Path, kind: type[_S], name: str, writer: str = "") -> _S:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise DyetraceError(f"{path} is not {name}: {error}{writer}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DyetraceError(f"record {path} is not whole JSON ({error}); restore it, or write it anew") from None


def _writer(header: _Header) -> str:
    """The release that wrote a record, where it says that it is another one than this."""
    wrote, this = header.versions.get("dyetrace"), versions().get("dyetrace")
    return f" (dyetrace {wrote!s:.40} wrote it, this is {this})" if wrote and wrote != this else ""


def portable(record: msgspec.Struct) -> Any:
    """Plain objects that JSON can carry: finite numbers, and lone surrogates (of file names) as escapes."""

    def walk(value: Any, where: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise DyetraceError(f"record: {where.lstrip('.')} must be a finite number (got {value}); this is a bug")
        if isinstance(value, str):
            return value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, dict):
            return {walk(key, where): walk(item, f"{where}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return value

    return walk(msgspec.to_builtins(record), "")
