"""JSON lines: a record on each line."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from detect.readers import records
from detect.readers.batch import Batch, Inspected, Piece, ReadOptions, Source
from detect.readers.start import first_items
from detect.readers.stream import lines, newlines_before


def inspect(path: str, compression: str, size: int, options: ReadOptions) -> Inspected:
    """Columns and id column of a file, from its first lines.

    Raises
    ------
    Broken
        None of them is a record, or no field fits. An empty file is no error.
    """
    piece = Piece(0, min(size, records.SAMPLE_BYTES))
    return records.inspect(first_items(lines(path, compression, piece, records.SAMPLE_BYTES)), options)


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
    yield from records.read(lines(source.path, source.compression, piece), source, options)
