"""What can be done with any source: cut it into pieces, read a piece, hash the file, name a place in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from detect.readers import columnar, csv, json_items, jsonl, plain, tar, warc
from detect.readers.batch import Batch, Broken, BrokenRecord, Piece, ReadOptions, Source, one_line
from detect.readers.stream import check_unchanged, sha256_of
from watermark.errors import DyetraceError

__all__ = ["place", "read", "sha256_of", "split"]

_READ: dict[str, Callable[[Source, Piece, ReadOptions], Iterator[Batch]]] = {
    "jsonl": jsonl.read,
    "json": json_items.read,
    "csv": csv.read,
    "warc": warc.read,
    "tar": tar.read,
    "text": plain.read,
}
_WHOLE = frozenset(_READ) - {"jsonl"}
"""Forms that are read from their beginning on, as one piece."""
UNITS = {"jsonl": "line", "json": "element", "csv": "row", "warc": "record", "tar": "record"}
"""What a record is called in a form; in all others it is a row."""


def split(source: Source, target_bytes: int = 16 << 20) -> list[Piece]:
    """Cut a source into pieces of about ``target_bytes``, without reading it whole.

    Raises
    ------
    DyetraceError
        The file has changed since it was found.
    """
    check_unchanged(source)
    try:
        if source.form in _WHOLE:
            return [Piece(0, 1)] if source.bytes or source.form == "text" else []
        return jsonl.split(source, target_bytes) if source.form == "jsonl" else columnar.split(source, target_bytes)
    except Broken as error:
        raise DyetraceError(f"{one_line(source.name)} {error.reason}") from None


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """Read a piece as batches of a few MB of text or half a million tokens.

    Raises
    ------
    BrokenRecord
        A record cannot be read and ``options.skip_errors`` is off.
    DyetraceError
        The file has changed since it was found.
    """
    check_unchanged(source)
    try:
        yield from _READ.get(source.form, columnar.read)(source, piece, options)
    except Broken as error:
        where = place(source, _records_before(source, piece) + error.record)
        message = f"{where} {error.reason}; mend it, or skip broken records with --on-error skip"
        raise BrokenRecord(message, error.record, error.reason) from None
    except OSError as error:
        raise DyetraceError(f"cannot read {one_line(source.name)}: {one_line(error.strerror or error)}") from None


def place(source: Source, record: int) -> str:
    """Name a record of a source (counted from 0) as "data.jsonl, line 17" or "data.parquet, row 5"."""
    name = one_line(source.name)
    return name if source.form == "text" else f"{name}, {UNITS.get(source.form, 'row')} {record + 1}"


def _records_before(source: Source, piece: Piece) -> int:
    if source.form in _WHOLE or piece.start == 0:
        return 0
    if source.form == "jsonl":
        return jsonl.records_before(source, piece)
    return columnar.records_before(source, piece)
