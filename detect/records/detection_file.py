"""The record as a JSON file: reading and writing it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from detect.records.detection import RECORD_VERSION, Record
from watermark.errors import DyetraceError, EvidenceError
from watermark.files import write_atomically

_FORMAT = "dyetrace-detection"


class _Header(msgspec.Struct, frozen=True):
    format: str
    version: int


def encode_record(record: msgspec.Struct) -> bytes:
    """Encode the record as indented JSON with sorted keys and a newline at the end.

    Raises
    ------
    DyetraceError
        A number is not finite: JSON has no such numbers, and a null in its place would read as "no p-value".
    """
    return msgspec.json.format(msgspec.json.encode(portable(record), order="sorted"), indent=2) + b"\n"


def write_record(path: Path, record: Record) -> None:
    """Write the record to a file: whole, or not at all."""
    write_atomically(path, encode_record(record))


def read_record(path: Path) -> Record:
    """Read a record.

    Raises
    ------
    DyetraceError
        No such file, not JSON, not a record, a record of another version, or one that contradicts itself.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DyetraceError(
            f"cannot read record {path}: {error.strerror}; write one with `dyetrace detect -o FOLDER`"
        ) from None
    return parse_record(data, path)


def parse_record(data: bytes, path: Path) -> Record:
    """`read_record` of bytes that were read from ``path``."""
    try:
        header = msgspec.json.decode(data, type=_Header)
        if header.format != _FORMAT:
            raise DyetraceError(f"{path} is not a detection record: its format is {header.format!r}, not {_FORMAT!r}")
        if header.version != RECORD_VERSION:
            raise DyetraceError(
                f"record {path} has version {header.version}, but this dyetrace reads version "
                f"{RECORD_VERSION}; use the release that wrote it"
            )
        record = msgspec.json.decode(data, type=Record)
    except msgspec.ValidationError as error:
        raise DyetraceError(f"{path} is not a detection record: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DyetraceError(f"record {path} is not whole JSON ({error}); restore it, or write it anew") from None
    _check(record, path)
    return record


def _check(record: Record, path: Path) -> None:
    """Refuse what the types allow and no detection writes."""

    def refuse(what: str) -> NoReturn:
        raise EvidenceError(f"record {path} was damaged or altered: {what}; restore it")

    if not 0 < record.alpha < 1:
        refuse(f"alpha must lie in (0, 1) (got {record.alpha})")
    for i, document in enumerate(record.documents):
        log10_ps = [document.log10_pvalue, document.log10_pvalue_corpus]
        log10_ps.append(document.aware.log10_pvalue if document.aware else None)
        if any(log10_p is not None and log10_p > 0 for log10_p in log10_ps):
            refuse(f"log10 p-values of documents[{i}] must be 0 or less (got {log10_ps})")
        if document.found and document.log10_pvalue is None:
            refuse(f"documents[{i}] is found, but has no p-value")
        view = document.view
        if view is not None and len(view.texts) != len(view.pvalues):
            refuse(f"documents[{i}].view has {len(view.texts)} texts but {len(view.pvalues)} pvalues")
        if view is not None and not record.quotes and any(view.texts):
            refuse(f"it quotes nothing, and yet documents[{i}].view has texts")
        if view is not None and not all(p is None or 0 <= p <= 1 for p in view.pvalues):
            refuse(f"documents[{i}].view.pvalues must lie in 0 .. 1")


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
