"""Check a report without any key: that its files are whole and belong together, who signed it, and its numbers.

What can't be checked without the key is whether the totals are those of the inputs; `dyetrace scan` with the key gives
them again, and for a trace `dyetrace recompute`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any, Literal

import msgspec

from detect.records.code_hash import code_sha256
from detect.records.detection import Record
from detect.records.reading import encode_record, parse_report, read_bytes
from detect.records.recorded_inputs import within
from detect.records.scan import FileHash, ScanRecord
from detect.records.trace import TraceRecord
from detect.report.checking import how_to_check, in_words
from detect.report.signature import check_signature, load_public_key, read_signature, signature_path
from detect.report.verify import detection as verify_detection
from detect.report.verify import ledger as verify_ledger
from detect.report.verify import numbers as verify_numbers
from detect.report.verify import trace as verify_trace
from detect.report.verify import words as verify_words
from detect.report.verify.documents import Rows, read_hits, read_rows, read_skipped
from detect.report.verify.numbers import NotDone
from watermark.errors import DyetraceError, EvidenceError

Outcome = Literal["ok", "failed", "not done"]
_CHUNK = 1 << 22
_SCAN_FILES = frozenset(["documents.parquet", "hits.jsonl", "skipped.jsonl"])
_TRACE_FILES = frozenset(["evidence.npz"])


@dataclass(frozen=True, slots=True)
class _InputFile:
    """A file that was read, with its length where the record has it."""

    name: str
    sha256: str
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, how it came out, and a line about it."""

    name: str
    outcome: Outcome
    line: str


@dataclass(frozen=True, slots=True)
class Verification:
    """All that was looked at."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """What does not hold."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    @property
    def holds(self) -> bool:
        """Whether nothing failed; what was not done says nothing."""
        return not self.failed


def verify_report(path: Path, *, public_key: Path | None = None, inputs: Path | None = None) -> Verification:
    """Check a report of a detection, a scan or a trace.

    Parameters
    ----------
    path
        report.json; its signature and the files that it names are looked for beside it.
    public_key
        File with the public key that must have signed it. Without one a signature is checked against the key that
        the signature itself names.
    inputs
        Folder that the scanned files, or a trace's texts, are in; without one they are not looked at.

    Raises
    ------
    DyetraceError
        There is no such report, or the public key can't be read. What is wrong with the report is no error but a
        failed check.
    """
    data = read_bytes(path)
    signer = None if public_key is None else load_public_key(public_key)
    signature = _check("signature", lambda: _signature(path, data, signer))
    records: list[ScanRecord | TraceRecord | Record] = []
    checks = [_check("record", lambda: _record(path, data, records)), signature]
    if records:
        record = records[0]
        checks.append(_check("code", lambda: _code(record)))
        unnamed = isinstance(record, ScanRecord) and not record.quotes
        checks.append(_check("inputs", lambda: _inputs(_input_files(record), inputs, _folders_read(record), unnamed)))
        if isinstance(record, ScanRecord):
            checks += _scan_checks(path, record)
        else:
            checks += _trace_checks(path, record) if isinstance(record, TraceRecord) else _detection_checks(record)
    return Verification(tuple(checks))


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except NotDone as reason:
        return Check(name, "not done", str(reason))
    except DyetraceError as error:
        return Check(name, "failed", " ".join(str(error).split()))


def _record(path: Path, data: bytes, found: list[ScanRecord | TraceRecord | Record]) -> str:
    """Read the record; its bytes must be those that it would be written as."""
    record = parse_report(data, path)
    found.append(record)
    again = encode_record(record)
    _date(found[0].created)
    if again == data:
        return "it is whole and does not contradict itself"
    if _without_newer(again, data) == data:
        return "it is whole and does not contradict itself, as an older release wrote it (it lacks newer fields)"
    raise EvidenceError("report.json is not written as dyetrace writes it: it was changed by hand or by a program")


def _date(created: str) -> None:
    """Refuse what is no date; reports of older scans have none."""
    try:
        datetime.fromisoformat(created or "2026-01-01")
    except ValueError:
        raise EvidenceError(f"the date on record, {created!r}, is none: it was changed") from None


def _code(record: ScanRecord | TraceRecord | Record) -> str:
    """Whether this program is the one that made the report; another one may well get the same numbers."""
    if record.made is None:
        raise NotDone("which code made the report is not on record: an older release wrote it")
    if record.made.code_sha256 == code_sha256():
        if record.how_to_check != in_words(how_to_check(record)):
            raise EvidenceError("what report.json says of how to check it is not what this code writes: it was changed")
        return f"the same code made the report as checks it here (SHA-256 {record.made.code_sha256})"
    raise NotDone(
        f"other code made the report (SHA-256 {record.made.code_sha256}) than checks it here ({code_sha256()}), which "
        "need not change any number"
    )


def _without_newer(again: bytes, data: bytes) -> bytes:
    """The bytes without fields that the record lacks: an older release wrote it, and they have their defaults."""

    def thinned(value: Any, like: Any) -> Any:
        if isinstance(value, dict) and isinstance(like, dict):
            return {name: thinned(one, like[name]) for name, one in value.items() if name in like}
        if isinstance(value, list) and isinstance(like, list) and len(value) == len(like):
            return [thinned(one, other) for one, other in zip(value, like, strict=True)]
        return value

    kept = thinned(msgspec.json.decode(again), msgspec.json.decode(data))
    return msgspec.json.format(msgspec.json.encode(kept, order="sorted"), indent=2) + b"\n"


def _signature(path: Path, data: bytes, signer: bytes | None) -> str:
    beside = signature_path(path)
    if not beside.exists():
        if signer is not None:
            raise EvidenceError(f"there is no signature ({beside.name}), though a public key was given")
        raise NotDone(
            "not signed: changed names, dates, versions, arguments, or last digits in report.json can't be noticed"
        )
    signature = read_signature(beside)
    check_signature(signature, data, signer or bytes.fromhex(signature.public_key))
    if signer is not None:
        return f"signed by the key given ({signature.public_key})"
    return (
        f"signed by the key {signature.public_key}, which the signature itself names: it tells who signed only if you "
        "know this key from elsewhere (give it with --public-key)"
    )


def _input_files(record: ScanRecord | TraceRecord | Record) -> list[_InputFile]:
    """What was read, but for models: a trace doesn't say how long its texts are, and a plan's prompts are no file."""
    if isinstance(record, TraceRecord):
        plan = None if record.plan is None else record.plan.sha256
        texts = [_InputFile(r.name, r.sha256, None) for r in record.readings if r.sha256 != plan]
        served = (
            [] if record.served is None else [_InputFile(record.served.name, record.served.sha256, record.served.bytes)]
        )
        return [*texts, *served]
    return [_InputFile(source.name, source.sha256, source.bytes) for source in record.inputs]


def _inputs(inputs: list[_InputFile], folder: Path | None, read: Sequence[str], unnamed: bool) -> str:
    if folder is None:
        raise NotDone("the files that were read were not looked at: give their folder with --inputs")
    if not folder.is_dir():
        raise DyetraceError(f"{folder} is not a folder")
    for source in inputs:
        found = _by_hash(folder, source) if unnamed else _find(folder, source.name, read)
        if found is None:
            raise DyetraceError(f"{source.name} is not in {folder}")
        _compare(found, source.name, source.sha256, source.bytes)
    return f"all {len(inputs):,} inputs have the SHA-256 on record"


def _find(folder: Path, name: str, read: Sequence[str]) -> Path | None:
    """The file in the folder by its whole name on record, or else by as much of its end as there is; never outside."""
    below = (str(PurePath(one, name)) for one in read)
    return next((path for one in (*below, name) for path in within(folder, one) if path.is_file()), None)


def _by_hash(folder: Path, source: _InputFile) -> Path | None:
    """A file below the folder with this SHA-256: reports without quotes don't name those that a scan found."""
    sizes = ((path, path.stat().st_size) for path in sorted(folder.rglob("*")) if path.is_file())
    alike = (path for path, size in sizes if source.bytes in (None, size))
    return next((path for path in alike if _sha256(path) == source.sha256), None)


def _folders_read(record: ScanRecord | TraceRecord | Record) -> Sequence[str]:
    """What a scan was given: names of its inputs start below these folders."""
    paths: Any = record.arguments.get("paths") if isinstance(record, ScanRecord) else None
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def _compare(path: Path, name: str, sha256: str, size: int | None = None) -> None:
    if not path.is_file():
        raise DyetraceError(f"{name} is missing")
    found = _sha256(path)
    if (size is not None and path.stat().st_size != size) or found != sha256:
        raise EvidenceError(f"{name} is not the file of the report: SHA-256 {found}, not {sha256}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise DyetraceError(f"cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()


def _words(record: ScanRecord | TraceRecord | Record, unreadable: Callable[[], int]) -> list[Check]:
    """What the report says of its answer, where the code that said it is this one."""
    if record.made is None or record.made.code_sha256 != code_sha256():
        return []
    return [_check("assumptions", lambda: verify_words.assumptions(record, unreadable()))]


def _detection_checks(record: Record) -> list[Check]:
    looks: list[tuple[str, Callable[[Record], str]]] = [
        ("specs", verify_detection.specs),
        ("keys", verify_detection.keys),
        ("answer", verify_detection.answer),
        ("controls", verify_detection.controls),
    ]
    checks = [_check(name, lambda look=look: look(record)) for name, look in looks]  # type: ignore[misc]
    checks += _words(record, lambda: 0)
    totals = "whether the totals are those of the texts takes the key: `dyetrace recompute`"
    return [*checks, Check("totals", "not done", totals)]


def _trace_checks(path: Path, record: TraceRecord) -> list[Check]:
    looks: list[tuple[str, Callable[[TraceRecord], str]]] = [
        ("spec", verify_trace.spec),
        ("keys", verify_trace.keys),
        ("answer", verify_trace.answer),
        ("identification", verify_trace.identification),
        ("controls", verify_trace.controls),
        ("forecasts", verify_trace.forecasts),
        ("plan", verify_trace.plan),
    ]
    files = _check("files", lambda: _files(path.parent, record.files, _TRACE_FILES))
    answers = _check("ledger", lambda: verify_ledger.ledger(record, path.parent))
    totals = "whether the totals are those of evidence.npz takes the key: `dyetrace recompute`"
    checks = [_check(name, lambda look=look: look(record)) for name, look in looks]  # type: ignore[misc]
    checks += _words(record, lambda: 0)
    evidence = Check("evidence", "not done", "the file is not that of the report")
    if files.outcome == "ok":
        evidence = _check("evidence", lambda: verify_trace.evidence(record, path.parent))
    return [files, *checks, evidence, answers, Check("totals", "not done", totals)]


def _scan_checks(path: Path, record: ScanRecord) -> list[Check]:
    files = _check("files", lambda: _files(path.parent, record.files, _SCAN_FILES))
    specs = _check("specs", lambda: verify_numbers.specs(record))
    checks = [files, specs]
    for name, look in (("keys", verify_numbers.keys), ("answer", verify_numbers.answer)):
        checks.append(_check(name, lambda look=look: look(record)))  # type: ignore[misc]
    checks.append(_check("controls", lambda: verify_numbers.controls(record)))
    if files.outcome == "ok":
        checks += _words(record, lambda: sum(row.record is None for row in read_skipped(path.parent / "skipped.jsonl")))
    return checks + _table_checks(path.parent, record, files.outcome == "ok")


def _files(folder: Path, listed: list[FileHash], needed: frozenset[str]) -> str:
    for file in listed:
        if PurePath(file.name).name != file.name:
            raise DyetraceError(f"the report lists a file outside its folder: {file.name!r}")
        _compare(folder / file.name, file.name, file.sha256, file.bytes)
    missing = needed - {file.name for file in listed}
    if missing:
        raise DyetraceError(f"the report does not list {' and '.join(sorted(missing))}")
    return f"the SHA-256 and size on record are those of {', '.join(file.name for file in listed)}"


def _table_checks(folder: Path, record: ScanRecord, whole: bool) -> list[Check]:
    """Checks against documents.parquet and hits.jsonl, which must be the report's for these to mean anything."""
    looks: list[tuple[str, Callable[[ScanRecord, Rows], str]]] = [
        ("documents", verify_numbers.documents),
        ("document p-values", verify_numbers.document_pvalues),
        ("keys and documents", verify_numbers.keys_of_documents),
        ("discoveries", verify_numbers.discoveries),
        ("histogram", verify_numbers.histogram),
        ("shares", verify_numbers.shares),
    ]
    names = [*(name for name, _ in looks), "hits", "skipped"]
    if not whole:
        return [Check(name, "not done", "the files are not those of the report") for name in names]
    try:
        rows = read_rows(folder / "documents.parquet", record)
    except NotDone as reason:
        return [Check(name, "not done", str(reason)) for name in names]
    except DyetraceError as error:
        return [Check(names[0], "failed", str(error))]
    checks = [_check(name, lambda look=look: look(record, rows)) for name, look in looks]  # type: ignore[misc]
    return [
        *checks,
        _check("hits", lambda: verify_numbers.hits(record, rows, read_hits(folder / "hits.jsonl"))),
        _check("skipped", lambda: verify_numbers.skipped(record, read_skipped(folder / "skipped.jsonl"))),
    ]
