"""Tables as text: CSV and TSV, whose first line names the columns and says by what they are separated.

Values may be quoted as RFC 4180 says, with separators and ends of lines in them. A scanner finds where they end, so
that tables of any length and width are read in bounded memory, and only the columns that are needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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
from detect.readers.records import Item
from detect.readers.start import first_items, lost
from detect.readers.stream import begin, damage_of, opened
from watermark.backends.numba_backend import jit

Ints = npt.NDArray[np.int64]

_NAME = 200  # characters of a column's name; longer ones are text
_SEPARATORS = b"\t,;|"
_NO_BYTE = 256
_ABOVE = re.compile(rb'[\r\n]*(?:"?sep=([\t,;|])"?[\r\n]+)?[\r\n]*', re.IGNORECASE)
_MOST = 1 << 14  # values found at a time
_UNREAD = b"...", b""  # for a value that isn't needed: something, nothing

# Where the scanner is: at the start of a value, in a bare one, in a quoted one, behind a quote in it.
_START, _BARE, _QUOTED, _BEHIND = range(4)
# What a value is: quoted, the last one of its row, quoted and then not ended.
_IS_QUOTED, _IS_LAST, _IS_BAD = 1, 2, 4


def inspect(path: str, compression: str, options: ReadOptions) -> Inspected:
    """Columns and id column of a table, from its first rows.

    Raises
    ------
    Broken
        Its first line does not name its columns, or no column fits.
    """
    return records.inspect(first_items(_items(path, compression, None, records.SAMPLE_BYTES)), options)


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """Batches of a table: one for each few MB."""
    if piece.start > 0:
        return
    read = [seen.name for seen in source.columns if seen.read]
    needed = None if any("." in name for name in read) else {*read, source.column, source.id_column}
    yield from records.read(_items(source.path, source.compression, needed), source, options)


@jit()
def _scan(
    data: npt.NDArray[np.uint8], at: int, separator: int, newline: int, state: Ints, values: Ints
) -> tuple[int, int]:
    """Find values from ``at`` on until the data end or ``values`` is full; returns where it stopped and how many.

    Parameters
    ----------
    state
        (3,), changed: where the scanner is, where the value under way begins, and what it is.
    values
        (n, 3), filled: start, end and what it is of each value.
    """
    where, start, what = state
    count, size = 0, len(data)
    i = at
    while i < size and count < len(values):
        c = data[i]
        if where == 2:
            while i < size and data[i] != 34:
                i += 1
            if i < size:
                where = 3
                i += 1
            continue
        if where == 0:
            start = i
            if c == 34:
                where, what = 2, 1
                i += 1
                continue
            where, what = 1, 0
        elif where == 3 and c == 34:
            where = 2
            i += 1
            continue
        if where == 1:
            while i < size and data[i] != separator and data[i] != newline:
                i += 1
            if i == size:
                break
            c = data[i]
        elif c != separator and c != newline:
            if c != 13:  # which may belong to the end of the row
                what |= 4
                where = 1
            i += 1
            continue
        end = i - 1 if c == 10 and i > start and data[i - 1] == 13 else i
        values[count, 0], values[count, 1], values[count, 2] = start, end, what | (0 if c == separator else 2)
        count += 1
        where, start, what = 0, i + 1, 0
        i += 1
    state[0], state[1], state[2] = where, start, what
    return i, count


def items(path: str, compression: str) -> Iterator[list[Item]]:
    """All rows with all their fields, in blocks, as `records.read` takes them."""
    return _items(path, compression, None)


def _items(
    path: str, compression: str, needed: set[str | None] | None, size: int = BATCH_BYTES
) -> Iterator[list[Item]]:
    """Rows as records, in blocks.

    Parameters
    ----------
    needed
        Names of columns that records must have; None: all.

    Raises
    ------
    Broken
        The rest can't be read; ``record`` is the number of the first row of it.
    """
    rows = _Rows(needed)
    state, values = np.zeros(3, np.int64), np.empty((_MOST, 3), np.int64)
    count, rest = 0, b""
    row: list[bytes | None] = []
    with opened(path, compression) as stream:
        separator, newline, skipped = _marks(begin(stream))
        stream.read(skipped)
        while data := stream.read(max(size, len(rest))):
            at, data = len(rest), rest + data
            state[1] = 0
            view = np.frombuffer(data, np.uint8)
            while at < len(data):
                at, found = _scan(view, at, separator, newline, state, values)
                block: list[Item] = []
                for start, end, what in values[:found].tolist():
                    row.append(_value(data, start, end, what) if rows.wants(len(row)) else _UNREAD[start == end])
                    if what & _IS_LAST:
                        rows.take(row, block)
                        row = []
                if block:
                    count += len(block)
                    yield block
            rest = data[state[1] :] if state[0] in (_BARE, _QUOTED, _BEHIND) else b""
            if len(rest) > MAX_DOCUMENT:
                raise lost(f"a value is longer than {MAX_DOCUMENT >> 20} MiB, perhaps for want of a quote", count)
        damage = damage_of(stream)
    if not damage and (row or rest):  # a last row without an end
        block = []
        cut = _IS_BAD if state[0] == _QUOTED else int(state[2])
        rest = rest.removesuffix(b"\r")
        rows.take([*row, _value(rest, 0, len(rest), cut | (_IS_QUOTED if state[0] == _BEHIND else 0))], block)
        count += len(block)
        yield block
    if damage:
        raise lost(damage, count)


def _marks(head: bytes) -> tuple[int, int, int]:
    """The bytes that separate values and end rows, and how many bytes stand before the names of the columns.

    What comes up most often between the names separates values, or what a line "sep=;" before them says, which
    spreadsheets write. Where nothing does the table has one column.

    Raises
    ------
    Broken
        The first line names one column, and rows have more.
    """
    above = _ABOVE.match(head)
    start = above.end() if above else 0
    bare = re.sub(rb'"(?:[^"]|"")*"', b'""', head[start:])
    newline = b"\r" if b"\r" in bare and b"\n" not in bare else b"\n"
    line, _, rest = bare.partition(newline)
    if above and above[1]:
        return above[1][0], newline[0], start
    best = max(_SEPARATORS, key=lambda byte: line.count(bytes([byte])))
    if best in line:
        return best, newline[0], start
    if re.search(rb'^[^"\s]*[\t,;|]"', rest, re.MULTILINE):
        raise Broken(
            "has one column by its first line, and more in the lines below; the first line must name the columns: "
            "take away what stands above it"
        )
    return _NO_BYTE, newline[0], start


def _value(data: bytes, start: int, end: int, what: int) -> bytes | None:
    """A value without its quotes; None where it is damaged."""
    if what & _IS_BAD:
        return None
    if not what & _IS_QUOTED:
        return data[start:end]
    value = data[start + 1 : end - 1]
    return value.replace(b'""', b'"') if b'"' in value else value


class _Rows:
    """From rows to records: the first row names the columns."""

    def __init__(self, needed: set[str | None] | None) -> None:
        self._needed = needed
        self._names: list[str] = []
        self._wanted: list[bool] = []

    def wants(self, column: int) -> bool:
        """Whether a column's values are needed."""
        return column >= len(self._wanted) or self._wanted[column]

    def take(self, row: Sequence[bytes | None], block: list[Item]) -> None:
        """Add a row as a record; a blank line is none.

        Raises
        ------
        Broken
            It is the first one, and does not name the columns.
        """
        blank = row == [b""]
        if not self._names:
            if not blank:
                self._names = _names(row)
                self._wanted = [self._needed is None or name in self._needed for name in self._names]
            return
        if len(row) != len(self._names):
            values = "1 value" if len(row) == 1 else f"{len(row)} values"
            wrong = Broken(f"has {values} where the table has {len(self._names)} columns")
            block.append(b"" if blank else wrong)
            return
        record: dict[str, str] = {}
        for name, value, wanted in zip(self._names, row, self._wanted, strict=True):
            if value is None:
                block.append(
                    Broken("has a value with a quote that does not end it (quotes in quoted values must be doubled)")
                )
                return
            if wanted:
                try:
                    record[name] = value.decode()
                except UnicodeDecodeError as error:
                    block.append(Broken(f"is not UTF-8 (byte {error.start + 1} of column {one_line(name)!r})"))
                    return
        block.append(b"" if blank and not record[self._names[0]] else record)


def _names(row: Sequence[bytes | None]) -> list[str]:
    """Names of columns.

    Raises
    ------
    Broken
        They are text rather than names, or not each another.
    """
    found = [(name or b"").decode(errors="replace").strip() for name in row]
    if None in row or any(len(name) > _NAME or "\n" in name for name in found):
        raise Broken("has text in its first line, not the names of its columns; add a line that names them")
    names = [name or f"column {place}" for place, name in enumerate(found, 1)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Broken(f"has two columns of the name {one_line(twice)!r}; give each another name in the first line")
    return names
