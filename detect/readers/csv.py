"""Tables as text: CSV and TSV, whose first line names the columns and says by what they are separated."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from detect.readers import records
from detect.readers.batch import BATCH_BYTES, Batch, Broken, Inspected, Piece, ReadOptions, Source, one_line
from detect.readers.records import Item
from detect.readers.start import first_items, lost
from detect.readers.stream import BOM, damage_of, opened

_LONGEST = 32 << 20  # characters of a value: the parser takes four bytes for each
_LINE = 64 << 20
_NAME = 200  # characters of a column's name; longer ones are text
_SEPARATORS = "\t,;|"
_UNPAIRED = re.compile(r"[\ud800-\udfff]")


def inspect(path: str, compression: str, options: ReadOptions) -> Inspected:
    """Columns and id column of a table, from its first rows.

    Raises
    ------
    Broken
        Its first line does not name its columns, or no column fits.
    """
    return records.inspect(first_items(items(path, compression, records.SAMPLE_BYTES)), options)


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """Batches of a table: one for each few MB."""
    if piece.start == 0:
        yield from records.read(items(source.path, source.compression), source, options)


def items(path: str, compression: str, size: int = BATCH_BYTES) -> Iterator[list[Item]]:
    """Rows as records, in blocks.

    Raises
    ------
    Broken
        The rest can't be read; ``record`` is the number of the first row of it.
    """
    # The library's own limit is 128 KiB and the same for all that use it: it is widened, never narrowed.
    csv.field_size_limit(max(_LONGEST, csv.field_size_limit()))
    with opened(path, compression) as stream:
        lines = _Lines(stream)
        rows = csv.reader(lines, delimiter=lines.separator(), strict=True)
        names: list[str] = []
        count, filled, start = 0, 0, 0
        block: list[Item] = []
        while True:
            line = lines.number + 1
            item: Item = b""
            try:
                row = next(rows, None)
            except csv.Error as error:
                row, item = [], Broken(f"is no row of a table: {error} (line {line})")
            else:
                item = _record(names, row, line) if names and row is not None else item
            if row is None or lines.damage:
                break
            if not names:
                names = _names(row)
                if isinstance(item, Broken):
                    raise item
                continue
            block.append(item)
            filled += lines.bytes - start
            start = lines.bytes
            if filled >= size:
                yield block
                count += len(block)
                block, filled = [], 0
        damage = damage_of(stream) or lines.damage
    count += len(block)
    yield block
    if damage:
        raise lost(damage, count)


class _Lines:
    """Lines of a table for the parser, with bytes that are no UTF-8 kept as unpaired surrogates."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._first: str | None = None
        self.number = 0
        self.bytes = 0
        self.damage = ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        """The next one, with its end."""
        if self._first is not None:
            line, self._first = self._first, None
        else:
            line = self._read()
        if not line:
            raise StopIteration
        self.number += 1
        return line

    def _read(self) -> str:
        line = self._stream.readline(_LINE)
        if not line.endswith(b"\n") and damage_of(self._stream):
            self.damage = damage_of(self._stream)
            return ""
        self.bytes += len(line)
        return line.decode(errors="surrogateescape")

    def separator(self) -> str:
        """What separates the names in the first line: the likely one that comes up most often outside of quotes."""
        line = self._first = self._read().removeprefix(BOM.decode())
        bare = re.sub(r'"(?:[^"]|"")*"', "", line)
        return max(_SEPARATORS, key=bare.count) if any(map(bare.count, _SEPARATORS)) else ","


def _names(row: list[str]) -> list[str]:
    """Names of columns, each another.

    Raises
    ------
    Broken
        They are text rather than names, or not each another.
    """
    if any(len(name) > _NAME or "\n" in name.strip() for name in row):
        raise Broken("has text in its first line, not the names of its columns; add a line that names them")
    names = [name.strip() or f"column {place}" for place, name in enumerate(row, 1)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Broken(f"has two columns of the name {one_line(twice)!r}; give each another name in the first line")
    return names


def _record(names: list[str], row: list[str], line: int) -> Item:
    """A row as a record; blank lines are none."""
    if len(row) != len(names):
        if not row:
            return b""
        values = "1 value" if len(row) == 1 else f"{len(row)} values"
        return Broken(f"has {values} where the table has {len(names)} columns (line {line})")
    record: dict[str, Any] = dict(zip(names, row, strict=True))
    for value in row:
        if not value.isascii() and _UNPAIRED.search(value):
            return Broken(f"is not UTF-8 (line {line})")
    return record
