"""Every record of one file as a parsed object, whatever the file is: for readers that need several fields of a record.

A corpus is read by `detect.readers.sources` instead, field by field and in bounded memory.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from detect.readers import columnar, csv, json_items, records, tar, warc
from detect.readers.batch import Broken, Piece, ReadOptions, Source, Tally, one_line
from detect.readers.fields import converter, lookup, others_read
from detect.readers.find import find_sources
from detect.readers.passed import Passed
from detect.readers.plain import text_of
from detect.readers.records import Item
from detect.readers.sources import place
from detect.readers.stream import lines
from watermark.errors import DyetraceError

Record = dict[str, Any]

_OF_SCANS = re.compile(r"name (one|another) with --field")
_LOOKED_AT = 64  # records in which the usual fields are looked for


def sources_of(
    path: str, options: ReadOptions, name_field: str = "call the field with the text 'text'"
) -> list[Source]:
    """The one file at a path, looked at: a source for each of its fields that is read.

    Parameters
    ----------
    name_field
        What to do where no field is found, as the command has it.

    Raises
    ------
    DyetraceError
        It is a folder, can't be read, or holds nothing that looks like a document.
    """
    if os.path.isdir(path):
        raise DyetraceError(f"cannot read {one_line(path)}: it is a folder; give one file")
    try:
        return find_sources([glob.escape(path)], options)[0]
    except DyetraceError as error:
        raise DyetraceError(_OF_SCANS.sub(name_field, str(error))) from None


def records_of(source: Source, tally: Tally | None = None) -> Iterator[tuple[int, Record]]:
    """Number (from 0) and fields of each record; of plain text one record with the field "text".

    Parameters
    ----------
    tally
        Counts what the file holds beside records, and is passed over.

    Raises
    ------
    DyetraceError
        A record can't be read; its place is named.
    """
    number = 0
    try:
        for number, item in enumerate(_items(source, Passed(tally))):
            record = records.parsed(item)
            if record is not None:
                yield number, record
    except Broken as error:
        # Of a file that is damaged the error knows how far it went.
        advice = "" if source.form == "text" else "; mend or remove it"
        raise DyetraceError(f"{place(source, error.record or number)} {error.reason}{advice}") from None
    except OSError as error:
        raise DyetraceError(f"cannot read {one_line(source.name)}: {one_line(error.strerror or error)}") from None


def has_usual_fields(found: Sequence[tuple[int, Record]]) -> bool:
    """Whether any of the first records has a text or token ids where `dyetrace generate` writes them."""
    names = ("text", "token_ids")
    return any(record.get(name) not in (None, "", []) for _, record in found[:_LOOKED_AT] for name in names)


def documents_of(record: Record, source: Source, number: int, tally: Tally) -> list[tuple[str, str | list[int]]]:
    """The documents of a record by the field that was chosen: where each is within the record, and its text or ids.

    A chat is several, one for each text of the turns that are read; where there is one alone its place is "". All parts
    of its turns are counted in ``tally``, read or not.

    Raises
    ------
    DyetraceError
        The field holds something else.
    """
    several = others_read(source)
    try:
        value = converter(source, ReadOptions())(lookup(record, source.column), tally)
    except Broken as error:
        if several:  # another field of the record is read as well
            return []
        raise DyetraceError(f"{place(source, number)} {error.reason}; mend or remove it") from None
    where = f", {one_line(source.column)}" if several else ""
    if source.kind == "tokens":
        return [(where, value.tolist())]
    texts = [value] if source.kind == "text" else value
    return [(where + (f", part {part}" if len(texts) > 1 else ""), text) for part, text in enumerate(texts, 1)]


def _items(source: Source, passed: Passed) -> Iterator[Item]:
    path, compression = source.path, source.compression
    if source.form == "text":
        yield {"text": text_of(source)}
        return
    if source.form in ("parquet", "arrow"):
        yield from columnar.items(source)
        return
    if source.form == "jsonl":
        blocks: Iterator[Any] = lines(path, compression, Piece(0, source.bytes))
    elif source.form == "json":
        blocks = json_items.items(path, compression, passed)
    elif source.form == "csv":
        blocks = csv.items(path, compression)
    else:
        blocks = (warc if source.form == "warc" else tar).items(path, compression, passed)
    for block in blocks:
        yield from block
