"""JSON lines: a record on each line, decoded by msgspec and, where that fails, with care and a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from detect.readers.batch import MAX_DOCUMENT, Batch, Broken, Draft, Piece, ReadOptions, Source, one_line
from detect.readers.fields import as_text, as_tokens, as_turns, choose, lookup, own_id, wanted_roles
from detect.readers.stream import lines, newlines_before
from detect.text.encode import Ids

_SAMPLE_LINES = 64
_SAMPLE_BYTES = 1 << 18

_TYPES = {"text": str, "tokens": list[int], "messages": Any}
# Escapes in JSON: surrogate pairs, unpaired surrogates (group 1), all others.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(u[dD][89a-fA-F]\w\w)|.)", re.DOTALL)

Document = tuple[Any, str | None]  # and the record's own id


def inspect(path: str, compression: str, size: int, options: ReadOptions) -> tuple[str, str, str | None]:
    """Column, kind and id column of a file, from its first lines.

    Raises
    ------
    Broken
        None of them is a record, or no field fits. An empty file is no error.
    """
    records: list[dict[str, Any]] = []
    first_problem: Broken | None = None
    try:
        start = next(lines(path, compression, Piece(0, min(size, _SAMPLE_BYTES)), _SAMPLE_BYTES), [])
    except Broken as error:
        start, first_problem = [], error
    for number, line in enumerate(start[:_SAMPLE_LINES]):
        try:
            record = _parse(line)
        except Broken as error:
            first_problem = first_problem or Broken(f"{error.reason} (line {number + 1})")
        else:
            records += [record] if record is not None else []
    if not records and first_problem:
        raise first_problem
    column, kind = choose(records, options.field) if records else (options.field or "", "text")
    id_column = options.id_field or ("id" if any("id" in record for record in records) else None)
    return column, kind, id_column if id_column != column else None


def split(source: Source, target_bytes: int) -> list[Piece]:
    """Equal ranges of bytes of about the wanted size; one for a compressed file."""
    if source.bytes == 0:
        return []
    count = 1 if source.compression else max(1, round(source.bytes / target_bytes))
    edges = [source.bytes * i // count for i in range(count + 1)]
    return [Piece(start, stop) for start, stop in pairwise(edges) if stop > start]


def records_before(source: Source, piece: Piece) -> int:
    """Lines that start before the piece."""
    if piece.start == 0:
        return 0
    # The line that is under way at the piece's start is among them, whether or not it ends there.
    return newlines_before(source.path, piece.start - 1) + 1


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """Batches of a piece: one for each few MB of lines."""
    decode, from_record = _decoders(source, options)
    blocks = lines(source.path, source.compression, piece)
    seen = 0
    while True:
        draft = Draft(source.kind, options.skip_errors)
        try:
            block = next(blocks)
        except StopIteration:
            return
        except Broken as error:
            draft.skip(error.record, error.reason)
            yield draft.batch(error.record)
            return
        for number, line in enumerate(block, seen):
            try:
                if len(line) > MAX_DOCUMENT:  # and so, perhaps, cut short
                    raise Broken("")
                document, own = decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Broken):
                try:
                    record = _parse(line)
                    if record is None:
                        continue
                    document, own = from_record(record)
                except Broken as error:
                    draft.skip(number, error.reason)
                    continue
            draft.add(number, document, own)
        seen += len(block)
        yield draft.batch(seen)


def _decoders(
    source: Source, options: ReadOptions
) -> tuple[Callable[[bytes], Document], Callable[[dict[str, Any]], Document]]:
    """Two ways to a document: fast, from a line without faults; and from any parsed record, with reasons."""
    column, id_column, roles = source.column, source.id_column, wanted_roles(options.roles)
    convert: Callable[[Any], Any] = {
        "text": lambda value: as_text(value, column),
        "tokens": lambda value: as_tokens(value, column),
        "messages": lambda value: as_turns(value, column, roles),
    }[source.kind]

    def from_record(record: dict[str, Any]) -> Document:
        document = convert(lookup(record, column))
        try:
            return document, own_id(lookup(record, id_column)) if id_column else None
        except Broken:
            return document, None

    if "." in column or "." in (id_column or ""):
        generic = msgspec.json.Decoder(dict[str, Any])
        return lambda line: from_record(generic.decode(line)), from_record

    names = {"document": column} | ({"own": id_column} if id_column else {})
    line_type = msgspec.defstruct(
        "Line", [("document", _TYPES[source.kind]), ("own", Any, None)], rename=names, gc=False
    )
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(line_type).decode
    parts: Callable[[Any], tuple[Any, Any]] = attrgetter("document", "own")
    # msgspec has checked texts and lists of integers already.
    from_checked = convert
    if source.kind != "messages":
        from_checked = (lambda value: value) if source.kind == "text" else (lambda value: _array(value, column))

    def from_line(line: bytes) -> Document:
        value, own = parts(decode(line))
        return from_checked(value), own_id(own)

    return from_line, from_record


def _array(tokens: list[int], column: str) -> Ids:
    try:
        return np.array(tokens, np.uint32)
    except OverflowError:
        return as_tokens(tokens, column)  # names the first one that is out of range


def _parse(line: bytes) -> dict[str, Any] | None:
    """Parse a line that may be at fault; None where it is blank. NaN and unpaired surrogates (as U+FFFD) may pass."""
    if not line or line.isspace():
        return None
    if len(line) > MAX_DOCUMENT:
        raise Broken(f"is longer than {MAX_DOCUMENT >> 20} MiB")
    try:
        text = line.decode()
        record = json.loads(_ESCAPE.sub(lambda m: "\\ufffd" if m[1] else m[0], text) if "\\" in text else text)
    except UnicodeDecodeError as error:
        raise Broken(f"is not UTF-8 (byte {error.start + 1} of the line)") from None
    except json.JSONDecodeError as error:
        raise Broken(f"is not JSON: {error.msg} (character {error.pos + 1})") from None
    except RecursionError:
        raise Broken("is nested too deeply") from None
    except ValueError as error:
        raise Broken(f"is not JSON: {one_line(error)}") from None
    if not isinstance(record, dict):
        raise Broken("is JSON, but not an object with fields")
    return record
