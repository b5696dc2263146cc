"""Arrow arrays as batches of documents: token lists through numpy, all else as Python values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from detect.readers.arrow_values import bounds, cut, extension_of, is_list, is_text, readable, values_of
from detect.readers.batch import BATCH_BYTES, BATCH_TOKENS, I64, Batch, Broken, Draft, ReadOptions, Source, Tally
from detect.readers.choice import watcher
from detect.readers.fields import as_tokens, converter, lookup, others_read, own_id
from detect.readers.records import WATCHED
from detect.readers.stream import arrow
from detect.readers.turns import CONTENT_KEYS
from detect.text.encode import Ids, TokenBatch


def kind_of(field: Any) -> str | None:
    """Tell what a column or a field of a struct would hold, by its type: "text", "messages", "tokens", or None."""
    pa = arrow("Arrow")
    t = pa.types
    kind, extension = field.type, extension_of(field)
    if extension and not readable(extension, kind):
        return None
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return kind_of(pa.field("", kind.value_type))
    if is_text(kind):
        return "text"
    if is_list(kind):
        inner = kind.value_field
        if t.is_integer(inner.type) and not extension_of(inner):
            return "tokens"
        return "messages" if t.is_struct(inner.type) or t.is_map(inner.type) or kind_of(inner) else None
    if t.is_struct(kind):
        return "messages" if any(inner.name in CONTENT_KEYS and is_list(inner.type) for inner in kind) else None
    return None


def kinds_of(schema: Any) -> dict[str, str]:
    """What the columns of a schema would hold, those of structs too, by their full names."""
    found = {}
    waiting = [(field.name, field) for field in reversed(list(schema))]
    while waiting:
        name, field = waiting.pop()
        kind = kind_of(field)
        if kind is not None:
            found[name] = kind
        elif arrow("Arrow").types.is_struct(field.type):
            waiting += [(f"{name}.{inner.name}", inner) for inner in reversed(list(field.type))]
    return found


def head_of(names: list[str], column: str) -> str | None:
    """The column of the file in which a column or a path to something within one lies; None where there is none."""
    if column in names:
        return column
    parts = column.split(".")
    heads = (".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
    return next((head for head in heads if head in names), None)


def has_column(schema: Any, column: str) -> bool:
    """Whether there is a column of this name or, as far as types can tell, something at this path."""
    head = head_of(list(schema.names), column)
    if head is None:
        return False
    kind, t = schema.field(head).type, arrow("Arrow").types
    for name in column[len(head) + 1 :].split(".") if column != head else ():
        if not t.is_struct(kind):
            return not t.is_primitive(kind) and not is_text(kind)
        if kind.get_field_index(name) < 0:
            return False
        kind = kind.field(name).type
    return True


def batches_of(rows: Any, first: int, source: Source, options: ReadOptions) -> Iterator[Batch]:
    """Turn some rows into batches.

    Parameters
    ----------
    rows
        A record batch that has the columns of ``source``.
    first
        Number of its first row within its piece.
    """
    here = _found(rows, source.column)
    array, field, rest = here
    watch = watcher(source, options)
    watched = {name: rows.column(name) for name in watched_columns(rows.schema, source)} if watch else {}
    ids = _found(rows, source.id_column) if source.id_column else None
    others = [_found(rows, column) for column in other_columns(source)]
    whole = source.kind == "tokens" and not rest and _is_tokens(field)
    limit = BATCH_TOKENS * array.type.value_type.bit_width // 8 if whole else BATCH_BYTES
    for start, part in cut(array, limit):
        count = len(part)
        own: list[str | None] = [own_id(value) for value in _values(ids, start, count)] if ids else []
        own = own or [None] * count
        missing = dict.fromkeys(_missing(here, others, start, count), _nothing_in(source.column)) if others else {}
        draft = Draft(source.kind, options.skip_errors)
        if watch:
            for record in _records(watched, rows.schema, start, count):
                watch(record, draft.tally)
        if whole:
            yield _token_batch(part, own, first + start, source, draft, missing)
        else:
            values = _values(here, start, count)
            for row, reason in missing.items():
                values[row] = Broken(reason)
            yield _value_batch(values, own, first + start, converter(source, options), draft)


def _found(rows: Any, column: str) -> tuple[Any, Any, str]:
    """An array of rows, its field, and the rest of the path that leads on within its values.

    Structs are gone into here, so that only what is wanted becomes Python values; the names in what comes after a
    list, a map or JSON are looked up in each value.
    """
    pa = arrow("Arrow")
    head = head_of(rows.schema.names, column) or column
    array, field = rows.column(head), rows.schema.field(head)
    rest = column[len(head) + 1 :]
    while rest and pa.types.is_struct(field.type):
        name = rest.split(".")[0]
        number = field.type.get_field_index(name)
        if number < 0:
            break
        # with the nulls of the struct itself
        array, field, rest = array.flatten()[number], field.type.field(number), rest[len(name) + 1 :]
    return array, field, rest


def other_columns(source: Source) -> list[str]:
    """Further columns of the same file that are read, so that a row may have nothing in this one."""
    return [seen.name for seen in source.columns if seen.read and seen.name != source.column]


def watched_columns(schema: Any, source: Source) -> list[str]:
    """Columns in which the first rows had nothing, though text may stand there further down."""
    known = {seen.name for seen in source.columns if seen.read or seen.records}
    known |= {name.split(".")[0] for name in known}
    return [field.name for field in schema if field.name not in known and _may_hold_text(field.type)]


def _may_hold_text(kind: Any) -> bool:
    pa = arrow("Arrow")
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _may_hold_text(kind.storage_type)
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind) or is_list(kind):
        return _may_hold_text(kind.value_type)
    if t.is_struct(kind):
        return any(_may_hold_text(field.type) for field in kind)
    return is_text(kind) or (t.is_map(kind) and _may_hold_text(kind.item_type))


def _records(columns: dict[str, Any], schema: Any, start: int, count: int) -> Iterator[dict[str, Any]]:
    """What stands in some columns, of one row in so many."""
    parts = {name: array.slice(start, count) for name, array in columns.items()}
    parts = {name: part for name, part in parts.items() if part.null_count < count}
    for row in range(0, count if parts else 0, WATCHED):
        values = {name: values_of(part.slice(row, 1), schema.field(name))[0] for name, part in parts.items()}
        yield {name: value for name, value in values.items() if not isinstance(value, Broken)}


def _values(found: tuple[Any, Any, str], start: int, count: int) -> list[Any]:
    """The values of some rows; None where a path leads to nothing."""
    array, field, rest = found
    values = values_of(array.slice(start, count), field)
    return [_within(value, rest) for value in values] if rest else values


def _missing(here: tuple[Any, Any, str], others: list[tuple[Any, Any, str]], start: int, count: int) -> list[int]:
    """Rows that have nothing in this column, nor in the others."""
    array, _, rest = here
    if not rest and not array.slice(start, count).null_count:
        return []
    columns = [_values(found, start, count) for found in (here, *others)]
    return [row for row, values in enumerate(zip(*columns, strict=True)) if _is_empty(values)]


def _is_empty(values: tuple[Any, ...]) -> bool:
    return values[0] is None and all(value in (None, "", []) for value in values[1:])


def _nothing_in(column: str) -> str:
    return f"has nothing in {column!r}, nor in the other fields that are read"


def _within(value: Any, path: str) -> Any:
    if value is None or isinstance(value, Broken):
        return value
    try:
        return lookup({"value": value}, f"value.{path}")
    except Broken:
        return None


def _value_batch(
    values: list[Any], own: list[str | None], first: int, convert: Callable[[Any, Tally], Any], draft: Draft
) -> Batch:
    for index, value in enumerate(values):
        try:
            if isinstance(value, Broken):
                raise value
            draft.add(first + index, convert(value, draft.tally), own[index])
        except Broken as error:
            draft.skip(first + index, error.reason)
    return draft.batch(first + len(values))


def _is_tokens(field: Any) -> bool:
    inner = field.type.value_field if is_list(field.type) and not extension_of(field) else None
    return inner is not None and arrow("Arrow").types.is_integer(inner.type) and not extension_of(inner)


def _token_batch(
    array: Any, own: list[str | None], first: int, source: Source, draft: Draft, missing: dict[int, str]
) -> Batch:
    tokens, lengths, broken = _tokens(array, source.column)
    if others_read(source):  # a null list may stand for a record that has another field
        null = array.is_null().to_pylist()
        broken = {row: reason for row, reason in broken.items() if not null[row]} | missing
        broken = dict(sorted(broken.items()))
    for row, reason in broken.items():
        draft.skip(first + row, reason)
    rows = np.arange(len(array))
    if broken:
        keep = np.ones(len(array), np.bool_)
        keep[list(broken)] = False
        tokens, lengths, rows = tokens[np.repeat(keep, lengths)], lengths[keep], rows[keep]
        own = [own[row] for row in rows.tolist()]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    batch = TokenBatch(tokens, offsets)
    seen, turns = first + len(array), draft.tally.counts()
    return Batch(None, batch, np.arange(len(rows)), first + rows, own, draft.skipped, seen, turns)


def _tokens(array: Any, column: str) -> tuple[Ids, I64, dict[int, str]]:
    """All rows' token ids one after the other, the rows' lengths, and what is wrong with some, in order."""
    values, starts, stops = bounds(array)
    lengths = stops - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    full = lengths > 0
    shift = (starts - offsets[:-1])[full]
    if (shift == shift[:1]).all():
        values = values.slice(int(shift[0]) if len(shift) else 0, int(offsets[-1]))
    else:  # lists in another order, some of them perhaps twice, or with something between them
        values = values.take(arrow("Arrow").array(np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])))
    bad = np.zeros(len(values), np.bool_)
    if values.null_count:
        bad = values.is_null().to_numpy(zero_copy_only=False)
        values = values.fill_null(0)
    numbers = values.to_numpy(zero_copy_only=False)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= 2**32):
        bad = bad | (numbers < 0) | (numbers >= 2**32)
    broken = set(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)).tolist()) if array.null_count else set()
    broken |= set((np.searchsorted(offsets, np.flatnonzero(bad), side="right") - 1).tolist())
    reasons = {row: _reason(array[row].as_py(), column) for row in sorted(broken)}
    return numbers.astype(np.uint32), lengths, reasons


def _reason(value: Any, column: str) -> str:
    try:
        as_tokens(value, column)
    except Broken as error:
        return error.reason
    raise AssertionError("a row counted as broken has nothing wrong with it")
