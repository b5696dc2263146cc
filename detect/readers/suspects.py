"""Suspect documents of one file as the command line takes them: plain text, or records of any form that is read.

Nothing is cut, stripped or normalised: a p-value is about the text as it was given. A chat is several documents, one
for each text of the turns that are read, as contexts never cross from one to the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from detect.readers.batch import Broken, Form, ReadOptions, Source, Tally, one_line
from detect.readers.fields import lookup, own_id
from detect.readers.given import plain_file, shown
from detect.readers.rows import Record, documents_of, has_usual_fields, records_of, sources_of
from detect.readers.sources import place, sha256_of
from detect.records.detection import Input
from watermark.errors import DyetraceError

Format = Form | Literal["auto"]

TEXT_FIELD = "text"
"""The field that holds the text where nothing else is asked for."""
_USUAL = (TEXT_FIELD, "token_ids", "prompt_token_ids")
_ROLES = 8  # named where no turn is read


@dataclass(frozen=True, slots=True)
class Suspect:
    """One document to test.

    Attributes
    ----------
    name
        "FILE", or "line N" with the record's own id.
    text
        None where token ids were given instead.
    token_ids, prompt_token_ids
        Where the record has them.
    place
        ``name`` without the record's own id, which may be a title; "" where there is none in it.
    field
        The record's field that was read.
    """

    name: str
    text: str | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    place: str = ""
    field: str = ""

    @property
    def unquoted(self) -> str:
        """What to call it in a report that quotes nothing."""
        return self.place or self.name


class _Usual(msgspec.Struct, frozen=True):
    """The usual fields of a record; it may hold any others."""

    text: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


def read_suspects(
    source: str, form: Format = "auto", text_field: str = TEXT_FIELD, tally: Tally | None = None
) -> tuple[list[Suspect], Input]:
    """Read all documents of ``source`` (a path, or "-" for standard input), and the file's hash and size.

    Parameters
    ----------
    form
        What the file is; "auto" goes by what is in it.
    text_field
        The field that holds the text. Where the usual one is in none of the first records, and no token ids either,
        a field is chosen as a scan does (`detect.readers.choice`).
    tally
        Counts all parts of the turns of chats, read or not.

    Raises
    ------
    DyetraceError
        The file cannot be read, is not UTF-8, is empty, or a record is broken (its place is named).
    """
    with plain_file(source) as path:
        where = shown(source)
        if not os.path.getsize(path):
            raise DyetraceError(f"{where} is empty: there is nothing to test")
        fields = () if text_field == TEXT_FIELD else (text_field,)
        try:
            sources = sources_of(path, ReadOptions(form=form, fields=fields), "name one with --text-field")
        except DyetraceError as error:
            raise DyetraceError(str(error).replace(path, where)) from None
        sources = [msgspec.structs.replace(one, name=where) for one in sources]
        read = Input(name=source, sha256=sha256_of(sources[0]), bytes=sources[0].bytes)
        tally = tally or Tally()
        records = list(records_of(sources[0], tally))
    if sources[0].form == "text":
        text = records[0][1]["text"]
        if not text.strip():
            raise DyetraceError(f"{where} is empty: there is nothing to test")
        return [Suspect(where, text)], read
    usual = text_field != TEXT_FIELD or has_usual_fields(records)
    if usual:
        for one in sources if text_field == TEXT_FIELD else ():
            _left(records, one, tally)
        return [_usual(record, sources[0], number, text_field) for number, record in records], read
    found = [one for number, record in records for each in sources for one in _chosen(record, each, number, tally)]
    if not found:
        there = ", ".join(f"{one.role!r} ({one.part}: {one.count:,})" for one in tally.counts()[:_ROLES])
        raise DyetraceError(
            f"{where} has no text that is read in {one_line(sources[0].column)!r}; its turns are "
            f"{one_line(there) or 'none'}: name another field with --text-field"
        )
    return found, read


def from_text_alone(suspect: Suspect) -> Suspect:
    """The same document as a stranger would have it: its text, without token ids or prompt."""
    if suspect.text is None:
        raise DyetraceError(f"{suspect.name} has no text to encode; leave --from-text out")
    return replace(suspect, token_ids=None, prompt_token_ids=None)


def _usual(record: Record, source: Source, number: int, text_field: str) -> Suspect:
    """A record with the usual fields, as `dyetrace generate` writes them."""
    where = place(source, number)
    try:
        value = lookup(record, text_field)
    except Broken:
        value = None
    usual = {name: record.get(name) for name in ("token_ids", "prompt_token_ids")}
    try:
        found = msgspec.convert(usual | {"text": value}, _Usual)
    except msgspec.MsgspecError as error:
        raise DyetraceError(f"{where}: {error}; mend or remove it") from None
    if found.text is None and found.token_ids is None:
        raise DyetraceError(
            f"{where} has neither a {text_field!r} nor a 'token_ids' field; name yours with --text-field"
        )
    for ids in (found.token_ids, found.prompt_token_ids):
        if ids is not None and not all(0 <= token < 2**32 for token in ids):
            raise DyetraceError(f"{where} has a token id outside 0 .. 2^32 - 1")
    short = _short(source, number)
    return Suspect(_named(short, record), found.text, found.token_ids, found.prompt_token_ids, short, text_field)


def _left(records: list[tuple[int, Record]], source: Source, tally: Tally) -> None:
    """Count what stands in a field that a scan would read beside the usual ones."""
    if source.column in _USUAL:
        return
    for _, record in records:
        try:
            value = lookup(record, source.column)
        except Broken:
            continue
        if value:
            tally.add("", f"field {source.column}", False, len(value) if isinstance(value, str) else 0)


def _chosen(record: Record, source: Source, number: int, tally: Tally) -> Iterator[Suspect]:
    """The documents of a record by a field that was chosen."""
    for within, document in documents_of(record, source, number, tally):
        short = _short(source, number) + within
        text = document if isinstance(document, str) else None
        ids = None if isinstance(document, str) else document
        yield Suspect(_named(short, record, source.id_column or "id"), text, ids, None, short, source.column)


def _short(source: Source, number: int) -> str:
    """The place of a record within its file: "line 5"."""
    return place(source, number).removeprefix(f"{one_line(source.name)}, ")


def _named(place: str, record: Record, field: str = "id") -> str:
    try:
        own = own_id(lookup(record, field))
    except Broken:
        own = None
    return place if own is None else f"{place} ({own})"
