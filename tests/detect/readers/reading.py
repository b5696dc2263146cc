"""Files as the tests write them, and what is read from them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detect.readers import Batch, Piece, ReadOptions, Source, find_sources, read, split

SKIP = ReadOptions(skip_errors=True)


def write(path: Path, data: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def jsonl(*records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def source_of(path: str | Path, options: ReadOptions | None = None) -> Source:
    [source], skipped = find_sources([str(path)], options or ReadOptions())
    assert not skipped
    return source


def batches(source: Source, options: ReadOptions | None = None, pieces: Iterable[Piece] | None = None) -> list[Batch]:
    """All batches, each of them checked for what every batch promises."""
    found = []
    for piece in split(source) if pieces is None else pieces:
        seen = 0
        for batch in read(source, piece, options or ReadOptions()):
            rows = len(batch.texts if batch.texts is not None else batch.tokens or ())
            assert len(batch.row_document) == rows
            assert (batch.row_document[1:] >= batch.row_document[:-1]).all()
            assert len(batch.records) == len(batch.ids)
            numbers = [*batch.records.tolist(), *(number for number, _ in batch.skipped)]
            assert all(seen <= number < max(batch.seen, seen + 1) for number in numbers)
            assert len(set(numbers)) == len(numbers)
            assert batch.seen >= seen
            seen = batch.seen
            found.append(batch)
    return found


def documents(source: Source, options: ReadOptions | None = None, pieces: Iterable[Piece] | None = None) -> list[Any]:
    """Every document: its text, its turns' texts or its token ids."""
    found: list[Any] = []
    for batch in batches(source, options, pieces):
        if batch.tokens is not None:
            found += [row.tolist() for row in batch.tokens]
        elif source.kind == "text":
            found += batch.texts or []
        else:
            first = len(found)
            found += [[] for _ in batch.records]
            for document, text in zip(batch.row_document.tolist(), batch.texts or [], strict=True):
                found[first + document].append(text)
    return found


def skipped(source: Source, options: ReadOptions = SKIP) -> list[tuple[int, str]]:
    """Broken records of a source that is one piece."""
    [piece] = split(source)
    return [entry for batch in batches(source, options, [piece]) for entry in batch.skipped]


def ids(source: Source) -> list[str | None]:
    return [name for batch in batches(source) for name in batch.ids]
