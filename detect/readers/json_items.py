"""JSON that is not a record on each line: arrays, objects one after the other, and objects that hold lists of records.

A scanner finds where the records begin and end, without reading what is in them, so that a file of any size is read
in blocks.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from detect.readers import records
from detect.readers.batch import (
    BATCH_BYTES,
    MAX_DOCUMENT,
    Batch,
    Broken,
    Inspected,
    Piece,
    ReadOptions,
    Source,
    one_line,
)
from detect.readers.passed import Passed
from detect.readers.records import Item
from detect.readers.start import first_items, lost
from detect.readers.stream import BOM, begin, damage_of, opened
from watermark.backends.numba_backend import jit

Ints = npt.NDArray[np.int64]
Shape = Literal["values", "array", "members", "keyed", "columns"]
"""Where records are: values one after the other, elements of arrays, elements of the lists in an object, the members
of an object, or the rows of an object of columns.
"""

HEAD = 1 << 16
_SPANS = 1 << 14
_LOOKED_AT = 8  # elements from which a list is judged
_FEW_KEYED_CHATS = 3
_SHORT = 32  # characters beside lists of records that are no text yet
_COLON, _SURPLUS, _BRACE = -1, -2, ord("{")
_SPEAKERS = ("role", "from", "speaker")
_SAYINGS = ("content", "value", "parts", "text", "reasoning_content", "tool_calls")
# Lists in what interfaces answer, and in chats: parts of one record.
_PARTS = frozenset("choices candidates output outputs contents content parts messages conversations tools".split())
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|["\[\]{},]', re.DOTALL)


@dataclass(frozen=True)
class Layout:
    """How records lie in a file.

    Attributes
    ----------
    shape
        Where they are.
    strings
        Of members: texts in lists are documents, as there are no records.
    about
        Of members: names of lists that hold no records, but say something about them.
    """

    shape: Shape
    strings: bool = False
    about: frozenset[str] = frozenset()


def inspect(path: str, compression: str, options: ReadOptions) -> Inspected:
    """Columns and id column of a file, from its first records.

    Raises
    ------
    Broken
        None of them is a record, or no field fits.
    """
    return records.inspect(first_items(items(path, compression, Passed(), records.SAMPLE_BYTES)), options)


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """Batches of a file: one for each few MB."""
    if piece.start > 0:
        return
    passed = Passed()
    yield from passed.on(records.read(items(source.path, source.compression, passed), source, options), source)


def items(path: str, compression: str, passed: Passed, size: int = BATCH_BYTES) -> Iterator[list[Item]]:
    """All records in blocks, as `records.read` takes them; what is passed over is counted.

    Raises
    ------
    Broken
        The rest can't be read; ``record`` is the number of the first record of it.
    """
    found = os.stat(path)
    layout = _layout(path, compression, found.st_size, found.st_mtime_ns)
    return _items(path, compression, _Taker(layout, passed), size)


def layout_of(path: str, compression: str) -> Layout:
    """How a file's records lie in it, by its beginning, and by where its first object ends."""
    with opened(path, compression) as stream:
        begin(stream)
        head = stream.read(HEAD)
    first, alone = mended(head)
    if isinstance(first, list):
        return Layout("values" if _is_chat(first) else "array")
    if not isinstance(first, dict):
        return Layout("array" if head.lstrip()[:1] == b"[" else "values")
    layout = _of_object(first)
    if layout.shape == "values" or alone is False or (alone is None and not _alone(path, compression)):
        return Layout("values")
    return layout


@lru_cache(maxsize=1 << 8)
def _layout(path: str, compression: str, _bytes: int, _mtime_ns: int) -> Layout:
    """As `layout_of`, found once for the pieces and fields of a file."""
    return layout_of(path, compression)


def is_one_object(head: bytes) -> bool:
    """Whether a file, all of it, is one object that holds records, and is none itself."""
    first, alone = mended(head)
    return alone is True and isinstance(first, dict) and _of_object(first).shape != "values"


def mended(head: bytes) -> tuple[Any, bool | None]:
    """Parse the first value of a file of which the beginning is given, as far as it goes.

    Returns
    -------
    tuple
        The value, whole or with all that is whole in it; None where it is no array or object, or broken. And whether
        nothing follows it; None where its end isn't in ``head``.
    """
    closers: list[str] = []
    cut, end = 0, 0
    for match in _TOKEN.finditer(head):
        token = match[0]
        if token == b'"':  # a text that goes on beyond the end
            break
        if token in b"[{":
            closers.append("]" if token == b"[" else "}")
            cut = match.end()
        elif token in b"]}":
            if not closers:
                return None, None
            closers.pop()
            cut = match.end()
            if not closers:
                end = match.end()
                break
        elif token == b"," and closers:
            cut = match.start()
    text = head[:cut].decode(errors="replace").lstrip()
    try:
        return json.loads(text + "".join(reversed(closers)), strict=False), (not head[end:].strip() if end else None)
    except (ValueError, RecursionError):
        return None, None


def _alone(path: str, compression: str) -> bool:
    """Whether a file's first value is its only one."""
    state = _new_state()
    spans = np.empty((_SPANS, 3), np.int64)
    with opened(path, compression) as stream:
        begin(stream)
        values = 0
        while data := stream.read(BATCH_BYTES):
            state[_START] = min(state[_START], 0)
            view, at = np.frombuffer(data, np.uint8), 0
            while at < len(data):
                at, count = _scan(view, at, 0, 0, 0, state, spans)
                values += count
                if values > 1 or (values == 1 and state[_START] != _NONE):
                    return False
    return True


def _of_object(first: dict[str, Any]) -> Layout:
    """How records lie in an object that may be one itself."""
    values = list(first.values())
    if values and all(isinstance(value, dict) for value in values):
        if all("0" in value and all(map(str.isdecimal, value)) for value in (values[:-1] or values)):
            return Layout("columns")
        if len(values) > 1 and 2 * len(set(values[0]) & set(values[1])) >= max(1, min(len(values[0]), len(values[1]))):
            return Layout("keyed")
    if len(values) >= _FEW_KEYED_CHATS and all(isinstance(value, list) and _is_chat(value) for value in values[:-1]):
        return Layout("keyed")
    if len(values) > 1 and all(isinstance(value, str) for value in values) and all(map(str.isdecimal, first)):
        return Layout("keyed")
    lists = {name: value for name, value in first.items() if isinstance(value, list) and value}
    if any(key in first for key in _SPEAKERS) or str(first.get("object", "")).startswith(
        ("chat.", "response", "text_")
    ):
        return Layout("values")
    held = {name: value for name, value in lists.items() if _holds_records(name, value)}
    if held:
        sizes = {name: _letters(value) for name, value in held.items()}
        if _letters(first) - sum(sizes.values()) > max(_SHORT, sum(sizes.values())):
            return Layout("values")  # a record, in which there are lists
        main = held[max(sizes, key=lambda name: sizes[name])]
        others = (name for name, value in held.items() if not value[0].keys() & main[0].keys())
        return Layout("members", about=frozenset(name for name in others if 4 * sizes[name] < max(sizes.values())))
    # {"version": 1, "data": ["...", ...]}: of any other name it may be one record of several texts.
    if list(lists) == ["data"] and all(isinstance(text, str) for text in lists["data"]):
        return Layout("members", strings=True)
    return Layout("values")


def _letters(value: Any) -> int:
    """Characters of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_letters, inner))


def _holds_records(name: str, value: list[Any]) -> bool:
    """Whether a list in an object holds records, and not the turns or parts of one."""
    return name.casefold() not in _PARTS and isinstance(value[0], dict) and not _is_turn(value[0])


def _is_turn(value: Any) -> bool:
    """Whether a value is a turn of a chat, and no record of its own, as those with ids are."""
    return (
        isinstance(value, dict)
        and any(isinstance(value.get(key), str) for key in _SPEAKERS)
        and any(key in value for key in _SAYINGS)
        and not any(key.casefold().endswith("id") and key != "tool_call_id" for key in value)
    )


def _is_chat(value: list[Any]) -> bool:
    """Whether a list is one chat: turns of more than one speaker, or one turn."""
    turns = value[:_LOOKED_AT]
    if not turns or not all(map(_is_turn, turns[:-1] or turns)):  # the last one may be cut short
        return False
    said_by = {turn.get(key) for turn in turns if isinstance(turn, dict) for key in _SPEAKERS if key in turn}
    return len(said_by) > 1 or len(value) == 1


# What the scanner knows between two blocks: brackets that were opened, brackets inside the item under way, whether it
# is in a string, behind a backslash, in a number or word; and where the item under way began.
_LEVEL, _INNER, _STRING, _ESCAPED, _WORD, _START, _KIND = range(7)
_NONE = -1


def _new_state() -> Ints:
    state = np.zeros(7, np.int64)
    state[_START] = _NONE
    return state


@jit()
def _scan(
    data: npt.NDArray[np.uint8], at: int, lists: int, objects: int, inner_lists: int, state: Ints, spans: Ints
) -> tuple[int, int]:
    """Find items from ``at`` on until the data end or ``spans`` is full; returns where it stopped and how many.

    Parameters
    ----------
    lists, objects, inner_lists
        Whether arrays and objects at the top, and arrays in such objects, are opened; others are items as a whole.
    spans
        (n, 3), filled: start, end and level of items; level -1 is a colon behind an item, -2 a bracket too many.
    """
    level, inner, string, escaped, word, start, kind = state
    count, size, room = 0, len(data), len(spans) - 4
    i = at
    while i < size and count < room:
        c = data[i]
        if string:
            if escaped:
                escaped = 0
                i += 1
                continue
            while i < size:
                c = data[i]
                if c == 34:
                    break
                i += 2 if c == 92 else 1
            if i >= size:  # a backslash may be the last byte that there is
                escaped, i = i - size, size
                break
            string = 0
            if inner == 0:
                spans[count, 0], spans[count, 1], spans[count, 2] = start, i + 1, level
                count += 1
                start = -1
            i += 1
            continue
        if inner:
            if c == 34:
                string = 1
            elif c == 123 or c == 91:
                inner += 1
            elif c == 125 or c == 93:
                inner -= 1
                if inner == 0:
                    spans[count, 0], spans[count, 1], spans[count, 2] = start, i + 1, level
                    count += 1
                    start = -1
            i += 1
            continue
        blank = c == 32 or c == 10 or c == 13 or c == 9
        if word:
            if not (blank or c == 44 or c == 58 or c == 34 or c == 123 or c == 91 or c == 125 or c == 93):
                i += 1
                continue
            spans[count, 0], spans[count, 1], spans[count, 2] = start, i, level
            count += 1
            word, start = 0, -1
        if blank or c == 44:
            i += 1
        elif c == 58:
            spans[count, 0], spans[count, 1], spans[count, 2] = i, i + 1, -1
            count += 1
            i += 1
        elif c == 34:
            start, string = i, 1
            i += 1
        elif c == 123 or c == 91:
            opened = False
            if level == 0:
                opened = (lists != 0) if c == 91 else (objects != 0)
                kind = c
            elif level == 1 and kind == 123:
                opened = c == 91 and inner_lists != 0
            if opened:
                level += 1
            else:
                start, inner = i, 1
            i += 1
        elif c == 125 or c == 93:
            if level == 0:
                spans[count, 0], spans[count, 1], spans[count, 2] = i, i + 1, -2
                count += 1
            else:
                level -= 1
            i += 1
        else:
            start, word = i, 1
            i += 1
    state[0], state[1], state[2], state[3], state[4], state[5], state[6] = (
        level,
        inner,
        string,
        escaped,
        word,
        start,
        kind,
    )
    return i, count


_OPENED = {"values": (0, 0, 0), "array": (1, 0, 0), "keyed": (0, 1, 0), "members": (0, 1, 1), "columns": (0, 0, 0)}


def _items(path: str, compression: str, taker: _Taker, size: int) -> Iterator[list[Item]]:
    """Blocks of items.

    Raises
    ------
    Broken
        The rest can't be read; ``record`` is the number of the first item of it.
    """
    if taker.layout.shape == "columns":
        yield from _rows(path, compression)
        return
    opens = _OPENED[taker.layout.shape]
    state, spans = _new_state(), np.empty((_SPANS, 3), np.int64)
    count, too_long, rest = 0, False, b""
    with opened(path, compression) as stream:
        begin(stream)
        while data := stream.read(max(size, len(rest))):
            at, data = len(rest), rest + data
            state[_START] = min(state[_START], 0)  # where the item under way begins in these data, if there is one
            view = np.frombuffer(data, np.uint8)
            while at < len(data):
                at, found = _scan(view, at, *opens, state, spans)
                bounds: list[tuple[int, int, int]] = spans[:found].tolist()
                surplus = next((place for place, bound in enumerate(bounds) if bound[2] == _SURPLUS), None)
                block: list[Item] = []
                if too_long and bounds:
                    bounds, too_long = bounds[1:], False
                    taker.take(Broken(f"is longer than {MAX_DOCUMENT >> 20} MiB"), 2, block)
                taker.take_all(data, bounds[:surplus], block)
                if block:
                    count += len(block)
                    yield block
                if surplus is not None:
                    raise lost("there is a bracket too many", count)
            rest = data[state[_START] :] if state[_START] != _NONE else b""
            if len(rest) > MAX_DOCUMENT:
                too_long, rest = True, b""
        damage = damage_of(stream)
    block = []
    if state[_WORD] and not damage:
        taker.take(rest, int(state[_LEVEL]), block)
    elif not damage and state[_LEVEL] + state[_INNER] + state[_STRING]:
        damage = "it ends before its last bracket, as if cut short"
    taker.close(block)
    if block:
        count += len(block)
        yield block
    if damage:
        raise lost(damage, count)


class _Taker:
    """From what the scanner finds to items: elements as records, members with their names."""

    def __init__(self, layout: Layout, passed: Passed) -> None:
        self.layout = layout
        self.passed = passed
        self._name, self._about = b"", False
        self._last = b""  # at level 1: a name where a colon follows, else the value of the last name

    def take_all(self, data: bytes, bounds: Sequence[tuple[int, int, int]], block: list[Item]) -> None:
        """Add the items between these bounds."""
        if self.layout.shape in ("values", "array"):
            block += [
                data[start:end] if data[start] == _BRACE else _wrapped(data[start:end])
                for start, end, level in bounds
                if level != _COLON
            ]
            return
        for start, end, level in bounds:
            self.take(data[start:end], level, block)

    def take(self, value: bytes | Broken, level: int, block: list[Item]) -> None:
        """Add what is known to be an item once this value is there."""
        if self.layout.shape in ("values", "array") or isinstance(value, Broken):
            block.append(value if isinstance(value, Broken) else _wrapped(value))
            return
        if level == _COLON:
            self._name, self._last = self._last, b""
            self._about = bool(self.layout.about) and _name_of(self._name) in self.layout.about
            return
        self.close(block)
        if level == 1:
            self._last = value
        elif level == 0 or (value[:1] == b"{" and not self._about) or (self.layout.strings and value[:1] == b'"'):
            block.append(_wrapped(value))
        else:
            self._pass_over(value)

    def close(self, block: list[Item]) -> None:
        """Take the last value of an object."""
        if self._last:
            if self.layout.shape == "keyed":
                block.append(_named(self._name, self._last))
            else:
                self._pass_over(self._last)
        self._last = b""

    def _pass_over(self, value: bytes) -> None:
        if value[:1] in (b'"', b"{", b"["):
            self.passed.add(f"member {one_line(_name_of(self._name))[:40]}", len(value))


def _name_of(name: bytes) -> str:
    try:
        return str(json.loads(name))
    except ValueError:
        return name.decode(errors="replace")


def _wrapped(value: bytes) -> bytes:
    """JSON of a record: of an object itself; of a text, a list of turns or texts, or token ids, with a field's name."""
    first = value[:1]
    if first == b'"':
        return b'{"text":' + value + b"}"
    if first == b"[":
        inner = value[1:64].lstrip()[:1]
        return (b'{"token_ids":' if inner in b"0123456789" and inner else b'{"messages":') + value + b"}"
    return value


def _named(name: bytes, value: bytes) -> bytes:
    """JSON of a record with its name as its id, where it has none of its own, which counts as the later one."""
    record = _wrapped(value)
    if record[:1] != b"{":
        return record
    return b'{"id":' + name + (b"}" if record[1:].lstrip()[:1] == b"}" else b"," + record[1:])


def _rows(path: str, compression: str) -> Iterator[list[Item]]:
    """Records of an object of columns, as pandas writes it: {"text": {"0": ..., "1": ...}, ...}."""
    with opened(path, compression) as stream:
        data = stream.read(MAX_DOCUMENT + 1)
        damage = damage_of(stream)
    if len(data) > MAX_DOCUMENT:
        raise Broken(
            f"has its columns one after the other and is longer than {MAX_DOCUMENT >> 20} MiB; write a record on each "
            "line (in pandas: to_json(..., orient='records', lines=True))"
        )
    try:
        columns = records.parsed(data.removeprefix(BOM)) or {}
    except Broken as error:
        raise Broken(f"cannot be read: {damage or error.reason}; get the file again") from None
    found: Sequence[Item] = [
        {name: column.get(row) for name, column in columns.items()} for row in next(iter(columns.values()))
    ]
    rows = iter(found)
    while block := list(islice(rows, 1 << 12)):
        yield block
