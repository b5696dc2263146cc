"""Arrow arrays as batches: token lists through numpy, texts and chats as Python values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from detect.readers.batch import BATCH_BYTES, BATCH_TOKENS, Batch, Broken, Draft, ReadOptions, Source
from detect.readers.fields import CONTENT_KEYS, as_text, as_tokens, as_turns, own_id, wanted_roles
from detect.readers.stream import arrow
from detect.text.encode import Ids, TokenBatch

_UNPACKED_ROWS = 1 << 12  # at a time, of arrays whose size isn't known before they are unpacked


def kind_of_type(kind: Any) -> str | None:
    """Tell what a column of an Arrow type holds: "text", "messages", "tokens", or None."""
    t = arrow("Arrow").types
    if kind is None:
        return None
    if t.is_dictionary(kind):
        return "text" if kind_of_type(kind.value_type) == "text" else None
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return "text"
    if t.is_binary(kind) or t.is_large_binary(kind):  # text of writers that don't say so
        return "text"
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return "tokens" if t.is_integer(kind.value_type) else "messages" if t.is_struct(kind.value_type) else None
    if t.is_struct(kind):
        return "messages" if any(field.name in CONTENT_KEYS and t.is_list(field.type) for field in kind) else None
    return None


def batches_of(documents: Any, ids: Any, first: int, source: Source, options: ReadOptions) -> Iterator[Batch]:
    """Turn the arrays of some rows into batches; ``first`` is the number of the first row within its piece."""
    for start, array in _parts(documents, source.kind):
        own = ids.slice(start, len(array)) if ids is not None else None
        make = _token_batch if source.kind == "tokens" else _text_batch
        yield make(array, own, first + start, source, options)


def _parts(array: Any, kind: str) -> Iterator[tuple[int, Any]]:
    """Slices of bearable size, plain lists and strings, with where each starts."""
    pa = arrow("Arrow")
    t = pa.types
    if t.is_dictionary(array.type) or t.is_string_view(array.type):
        for start in range(0, len(array), _UNPACKED_ROWS):
            unpacked = array.slice(start, _UNPACKED_ROWS).cast(pa.large_string())
            yield from ((start + inner, part) for inner, part in _parts(unpacked, kind))
        return
    limit = BATCH_BYTES
    if kind == "tokens":
        limit = BATCH_TOKENS * array.type.value_type.bit_width // 8
    waiting = [(0, array)]
    while waiting:
        start, part = waiting.pop()
        if len(part) > 1 and part.nbytes > limit:
            half = len(part) // 2
            waiting += [(start + half, part.slice(half)), (start, part.slice(0, half))]
        else:
            yield start, part


def _text_batch(array: Any, ids: Any, first: int, source: Source, options: ReadOptions) -> Batch:
    draft = Draft(source.kind, options.skip_errors)
    roles = wanted_roles(options.roles)
    own = _own_ids(ids, len(array))
    for index, value in enumerate(_values(array)):
        try:
            if isinstance(value, Broken):
                raise value
            if source.kind == "messages":
                draft.add(first + index, as_turns(value, source.column, roles), own[index])
            else:
                draft.add(first + index, as_text(value, source.column), own[index])
        except Broken as error:
            draft.skip(first + index, error.reason)
    return draft.batch(first + len(array))


def _token_batch(array: Any, ids: Any, first: int, source: Source, options: ReadOptions) -> Batch:
    tokens, lengths, broken = _tokens(array, source.column)
    draft = Draft(source.kind, options.skip_errors)
    for row, reason in broken.items():
        draft.skip(first + row, reason)
    own = _own_ids(ids, len(array))
    rows = np.arange(len(array))
    if broken:
        keep = np.ones(len(array), np.bool_)
        keep[list(broken)] = False
        tokens, lengths, rows = tokens[np.repeat(keep, lengths)], lengths[keep], rows[keep]
        own = [own[row] for row in rows.tolist()]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    batch = TokenBatch(tokens, offsets)
    return Batch(None, batch, np.arange(len(rows)), first + rows, own, draft.skipped, first + len(array))


def _tokens(array: Any, column: str) -> tuple[Ids, Any, dict[int, str]]:
    """All rows' token ids one after the other, the rows' lengths, and what is wrong with some, in order."""
    pa = arrow("Arrow")
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.large_list(array.type.value_type))
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    offsets -= offsets[0]
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
    return numbers.astype(np.uint32), np.diff(offsets), reasons


def _reason(value: Any, column: str) -> str:
    try:
        as_tokens(value, column)
    except Broken as error:
        return error.reason
    raise AssertionError("a row counted as broken has nothing wrong with it")


def _values(array: Any) -> list[Any]:
    """Python values of an array; a `Broken` stands for one that isn't UTF-8."""
    pa = arrow("Arrow")
    t = pa.types
    if t.is_binary(array.type) or t.is_large_binary(array.type):
        return [_decoded(value) for value in array.to_pylist()]
    try:
        if t.is_string(array.type) or t.is_large_string(array.type):
            values: list[Any] = array.to_numpy(zero_copy_only=False).tolist()  # ten times faster than to_pylist
            return values
        return list(array.to_pylist())
    except (UnicodeDecodeError, pa.ArrowException):
        return [_value(item) for item in array]


def _value(item: Any) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError as error:
        return Broken(f"is not UTF-8 (byte {error.start + 1})")


def _decoded(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        return Broken(f"is not UTF-8 (byte {error.start + 1})")


def _own_ids(array: Any, count: int) -> list[str | None]:
    return [None] * count if array is None else [own_id(value) for value in _values(array)]
