"""Check a report without any key: that its files are whole and belong together, who signed it, and its numbers.

What can't be checked without the key is whether the totals are those of the inputs; `dyetrace recompute` with the key
gives them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from detect.records.code_hash import code_sha256
from detect.records.how_to_check import in_words
from detect.records.reading import parse_report, portable, printed, read_bytes, written
from detect.records.report import Report
from detect.records.results import Check
from detect.report.kinds import kind_of
from detect.report.signature import check_signature, load_public_key, read_signature, signature_path
from detect.report.verify.checks import NotDone, check
from detect.report.verify.words import by_this_code
from watermark.errors import EvidenceError


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
    """Check a report of whatever kind.

    Parameters
    ----------
    path
        report.json; its signature and the files that it names are looked for beside it.
    public_key
        File with the public key that must have signed it. Without one a signature is checked against the key that
        the signature itself names.
    inputs
        Folder that the files are in that were read; without one they are not looked at.

    Raises
    ------
    DyetraceError
        There is no such report, or the public key can't be read. What is wrong with the report is no error but a
        failed check.
    """
    data = read_bytes(path)
    signer = None if public_key is None else load_public_key(public_key)
    records: list[Report] = []
    checks = [
        check("record", lambda: _record(path, data, records)),
        check("signature", lambda: _signature(path, data, signer)),
    ]
    for record in records:
        checks.append(check("code", lambda: _code(record)))  # noqa: B023 (it looks at once)
        checks += kind_of(record).checks(record, path, inputs)
    return Verification(tuple(checks))


def _record(path: Path, data: bytes, found: list[Report]) -> str:
    """Read the record; its bytes must be those that it would be written or printed as."""
    record = parse_report(data, path)
    found.append(record)
    _date(record.created)
    said, plain = msgspec.json.decode(data), portable(record)
    if data in _encoded(said):  # whatever the order of its fields: an older release printed them in another one
        if written(said) == written(plain):
            return "it is whole and does not contradict itself"
        if written(said) == written(_without_newer(plain, said)):
            return "it is whole and does not contradict itself, as an older release wrote it (it lacks newer fields)"
    raise EvidenceError("report.json is not written as dyetrace writes it: it was changed by hand or by a program")


def _encoded(plain: Any) -> tuple[bytes, ...]:
    return written(plain), printed(plain), printed(plain, one_line=True)


def _without_newer(value: Any, like: Any) -> Any:
    """Leave out fields that the report lacks: an older release wrote it, and they have their defaults."""
    if isinstance(value, dict) and isinstance(like, dict):
        return {name: _without_newer(one, like[name]) for name, one in value.items() if name in like}
    if isinstance(value, list) and isinstance(like, list) and len(value) == len(like):
        return [_without_newer(one, other) for one, other in zip(value, like, strict=True)]
    return value


def _date(created: str) -> None:
    """Refuse what is no date; older reports may have none."""
    try:
        datetime.fromisoformat(created or "2026-01-01")
    except ValueError:
        raise EvidenceError(f"the date on record, {created!r}, is none: it was changed") from None


def _code(record: Report) -> str:
    """Whether this program is the one that made the report; another one may well get the same numbers."""
    if record.made is None:
        raise NotDone("which code made the report is not on record: an older release wrote it")
    if not by_this_code(record):
        raise NotDone(
            f"other code made the report (SHA-256 {record.made.code_sha256}) than checks it here ({code_sha256()}), "
            "which need not change any number"
        )
    if record.how_to_check != in_words(record):
        raise EvidenceError("what report.json says of how to check it is not what this code writes: it was changed")
    return f"the same code made the report as checks it here (SHA-256 {record.made.code_sha256})"


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
