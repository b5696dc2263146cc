"""Every record of one file as a parsed object, whatever the file is: for readers that need several fields of a record.

A corpus is read by `detect.readers.sources` instead, field by field and in bounded memory.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import Any

from detect.readers import csv, json_items, records, tar, warc
from detect.readers.arrow_values import values_of
from detect.readers.batch import Broken, Piece, ReadOptions, Source, one_line
from detect.readers.columnar import record_batches
from detect.readers.find import find_sources
from detect.readers.passed import Passed
from detect.readers.plain import text_of
from detect.readers.records import Item
from detect.readers.sources import place
from detect.readers.stream import lines
from watermark.errors import DyetraceError

Record = dict[str, Any]


def sources_of(path: str, options: ReadOptions) -> list[Source]:
    """The one file at a path, looked at: a source for each of its fields that is read.

    Raises
    ------
    DyetraceError
        It is a folder, can't be read, or holds nothing that looks like a document.
    """
    if os.path.isdir(path):
        raise DyetraceError(f"cannot read {one_line(path)}: it is a folder; give one file")
    sources, _ = find_sources([glob.escape(path)], options)
    return sources


def records_of(source: Source) -> Iterator[tuple[int, Record]]:
    """Number (from 0) and fields of each record; of plain text one record with the field "text".

    Raises
    ------
    DyetraceError
        A record can't be read; its place is named.
    """
    number = 0
    try:
        for number, item in enumerate(_items(source)):
            record = records.parsed(item)
            if record is not None:
                yield number, record
    except Broken as error:
        # Of a file that is damaged the error knows how far it went.
        advice = "" if source.form == "text" else "; mend or remove it"
        raise DyetraceError(f"{place(source, error.record or number)} {error.reason}{advice}") from None
    except OSError as error:
        raise DyetraceError(f"cannot read {one_line(source.name)}: {one_line(error.strerror or error)}") from None


def _items(source: Source) -> Iterator[Item]:
    path, compression = source.path, source.compression
    if source.form == "text":
        yield {"text": text_of(source)}
        return
    if source.form in ("parquet", "arrow"):
        for schema, batch in record_batches(source):
            columns = [values_of(column, schema.field(i)) for i, column in enumerate(batch.columns)]
            for row in zip(*columns, strict=True):
                broken = next((value for value in row if isinstance(value, Broken)), None)
                yield broken or {
                    name: value for name, value in zip(schema.names, row, strict=True) if value is not None
                }
        return
    if source.form == "jsonl":
        blocks: Iterator[Any] = lines(path, compression, Piece(0, source.bytes))
    elif source.form == "json":
        blocks = json_items.items(path, compression)
    elif source.form == "csv":
        blocks = csv.items(path, compression)
    else:
        blocks = (warc if source.form == "warc" else tar).items(path, compression, Passed())
    for block in blocks:
        yield from block
