"""Records as documents: items of any container, JSON or parsed, become batches of the field that was chosen.

An item is the JSON of a record, decoded by msgspec and, where that fails, with care and a reason; or a record that its
container has parsed already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from detect.readers.batch import MAX_DOCUMENT, Batch, Broken, Draft, Inspected, ReadOptions, Source, one_line
from detect.readers.fields import as_text, as_tokens, as_turns, choose, lookup, own_id, wanted_roles
from detect.text.encode import Ids

Item = bytes | dict[str, Any] | Broken
"""JSON of a record (blank: none), a parsed record, or why one can't be read."""

SAMPLE_ITEMS = 64
SAMPLE_BYTES = 1 << 18
"""How much of a file's beginning is looked at to choose a field."""

_TYPES = {"text": str, "tokens": list[int], "messages": Any}
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
    field = options.fields[0] if options.fields else None
    column, kind = choose(records, field) if records else (field or "", "text")
    id_column = options.id_field or ("id" if any("id" in record for record in records) else None)
    return Inspected(((column, kind),), id_column if id_column != column else None)


def read(blocks: Iterator[Sequence[Item]], source: Source, options: ReadOptions) -> Iterator[Batch]:
    """A batch of each block of items.

    Parameters
    ----------
    blocks
        A few MB each. Where one raises `Broken`, the rest can't be read; its ``record`` is the number of the first
        item of it.
    """
    decode, from_record = _decoders(source, options)
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
        for number, item in enumerate(block, seen):
            try:
                if not isinstance(item, bytes) or len(item) > MAX_DOCUMENT:  # and so, perhaps, cut short
                    raise Broken("")
                document, own = decode(item)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Broken):
                try:
                    record = parsed(item)
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
    if not isinstance(record, dict):
        raise Broken("is JSON, but not an object with fields")
    return record
