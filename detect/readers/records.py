"""Records as documents: items of any container, JSON or parsed, become batches of the field that was chosen.

An item is the JSON of a record, decoded by msgspec and, where that fails, with care and a reason; or a record that its
container has parsed already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from detect.readers.batch import (
    MAX_DOCUMENT,
    Batch,
    Broken,
    Draft,
    Inspected,
    ReadOptions,
    Source,
    Tally,
    one_line,
)
from detect.readers.choice import inspected, watcher
from detect.readers.fields import as_tokens, converter, lookup, others_read, own_id
from detect.text.encode import Ids

Item = bytes | dict[str, Any] | Broken
"""JSON of a record (blank: none), a parsed record, or why one can't be read."""

SAMPLE_ITEMS = 64
SAMPLE_BYTES = 1 << 18
"""How much of a file's beginning is looked at to choose a field."""

WATCHED = 100
"""Of so many records one is looked at for fields that the first ones did not have."""

_GENERIC = msgspec.json.Decoder(dict[str, Any])
_TYPES: dict[str, Any] = {"text": str, "tokens": list[int], "messages": Any}
# Escapes in JSON: surrogate pairs, unpaired surrogates (group 1), all others.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(u[dD][89a-fA-F]\w\w)|.)", re.DOTALL)

Document = tuple[Any, str | None]  # and the record's own id


def inspect(items: Iterable[Item], options: ReadOptions) -> Inspected:
    """Columns and id column of a file, from its first items.

    Raises
    ------
    Broken
        None of them is a record, or no field fits. No items at all are no error.
    """
    records: list[dict[str, Any]] = []
    first_problem: Broken | None = None
    for number, item in enumerate(items):
        try:
            record = parsed(item)
        except Broken as error:
            first_problem = first_problem or Broken(f"{error.reason} (line {number + 1})")
        else:
            records += [record] if record is not None else []
    if not records and first_problem:
        raise first_problem
    if not records:  # an empty file
        return Inspected(((options.fields[0] if options.fields else "", "text"),), options.id_field)
    return inspected(records, options)


def read(blocks: Iterator[Sequence[Item]], source: Source, options: ReadOptions) -> Iterator[Batch]:
    """A batch of each block of items.

    Parameters
    ----------
    blocks
        A few MB each. Where one raises `Broken`, the rest can't be read; its ``record`` is the number of the first
        item of it.
    """
    decode, from_record = _decoders(source, options)
    watch = watcher(source, options)
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
        if watch is not None:
            _look(block, watch, draft.tally)
        for number, item in enumerate(block, seen):
            try:
                if isinstance(item, bytes) and len(item) <= MAX_DOCUMENT:  # longer ones are, perhaps, cut short
                    document, own = decode(item, draft.tally)
                elif isinstance(item, dict):
                    document, own = from_record(item, draft.tally)
                else:
                    raise Broken("")
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Broken):
                try:
                    record = parsed(item)
                    if record is None:
                        continue
                    document, own = from_record(record, draft.tally)
                except Broken as error:
                    draft.skip(number, error.reason)
                    continue
            draft.add(number, document, own)
        seen += len(block)
        yield draft.batch(seen)


def _look(block: Sequence[Item], watch: Callable[[dict[str, Any], Tally], None], tally: Tally) -> None:
    """Look at some records of a block; what is wrong with them shows when they are read."""
    for item in block[::WATCHED]:
        with suppress(Broken, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            watch(_GENERIC.decode(item) if isinstance(item, bytes) else parsed(item) or {}, tally)


def _decoders(
    source: Source, options: ReadOptions
) -> tuple[Callable[[bytes, Tally], Document], Callable[[dict[str, Any], Tally], Document]]:
    """Two ways to a document: fast, from a line without faults; and from any parsed record, with reasons."""
    column, id_column, convert = source.column, source.id_column, converter(source, options)
    others = [seen.name for seen in source.columns if seen.read and seen.name != column] if others_read(source) else []

    def from_record(record: dict[str, Any], tally: Tally) -> Document:
        document = convert(_one_of(record, column, others), tally)
        try:
            return document, own_id(lookup(record, id_column)) if id_column else None
        except Broken:
            return document, None

    if any(mark in name for mark in ".*" for name in (column, id_column or "")):
        return lambda line, tally: from_record(_GENERIC.decode(line), tally), from_record

    names = {"document": column} | ({"own": id_column} if id_column else {})
    kind: Any = _TYPES[source.kind]
    document = ("document", kind | None, None) if others else ("document", kind)
    line_type = msgspec.defstruct("Line", [document, ("own", Any, None)], rename=names, gc=False)
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(line_type).decode
    parts: Callable[[Any], tuple[Any, Any]] = attrgetter("document", "own")

    def from_line(line: bytes, tally: Tally) -> Document:
        value, own = parts(decode(line))
        if value is None:  # of one of several fields
            return from_record(_GENERIC.decode(line), tally)
        if source.kind == "messages":
            return convert(value, tally), own_id(own)
        # msgspec has checked texts and lists of integers already.
        return value if source.kind == "text" else _array(value, column), own_id(own)

    return from_line, from_record


def _one_of(record: dict[str, Any], column: str, others: Sequence[str]) -> Any:
    """The value of a field; None where the record has nothing there, and something in another field that is read."""
    try:
        value = lookup(record, column)
    except Broken:
        if not others:
            raise
        value = None
    if value is None and others and not any(_has(record, name) for name in others):
        raise Broken(f"has nothing in {column!r}, nor in the other fields that are read")
    return value


def _has(record: dict[str, Any], name: str) -> bool:
    try:
        return lookup(record, name) not in (None, "", [])
    except Broken:
        return False


def _array(tokens: list[int], column: str) -> Ids:
    try:
        return np.array(tokens, np.uint32)
    except OverflowError:
        return as_tokens(tokens, column)  # names the first one that is out of range


def parsed(item: Item) -> dict[str, Any] | None:
    """Parse an item that may be at fault; None where it is blank. NaN and unpaired surrogates (as U+FFFD) may pass.

    Raises
    ------
    Broken
        It is no record.
    """
    if isinstance(item, Broken):
        raise item
    if isinstance(item, dict):
        return item
    line = item
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
    if isinstance(record, str):  # a text alone
        return {"text": record}
    if not isinstance(record, dict):
        raise Broken("is JSON, but not an object with fields")
    return record
