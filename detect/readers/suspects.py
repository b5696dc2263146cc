"""Suspect documents from a file or standard input: one plain text, or JSONL with a text or token ids on each line."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from detect.records.detection import Input
from watermark.errors import DyetraceError

Format = Literal["auto", "text", "jsonl"]


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
    """

    name: str
    text: str | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    place: str = ""

    @property
    def unquoted(self) -> str:
        """What to call it in a report that quotes nothing."""
        return self.place or self.name


class _Line(msgspec.Struct, frozen=True):
    """The fields of a JSONL record that matter here; a suspect's records may hold any others."""

    id: str | int | None = None
    text: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


def read_suspects(source: str, form: Format = "auto", text_field: str = "text") -> tuple[list[Suspect], Input]:
    """Read all documents of ``source`` (a path, or "-" for standard input), and the file's hash and size.

    Raises
    ------
    DyetraceError
        The file cannot be read, is not UTF-8, is empty, or a line is broken (its number is named).
    """
    data = _read(source)
    found = Input(name=source, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    where = "standard input" if source == "-" else source
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DyetraceError(f"{where} is not UTF-8 text (byte {error.start}); convert it first") from None
    if not text.strip():
        raise DyetraceError(f"{where} is empty: there is nothing to test")
    if form == "jsonl" or (form == "auto" and _looks_like_jsonl(source, text)):
        return _read_lines(text, where, text_field), found
    return [Suspect(where, text)], found


def from_text_alone(suspect: Suspect) -> Suspect:
    """The same document as a stranger would have it: its text, without token ids or prompt."""
    if suspect.text is None:
        raise DyetraceError(f"{suspect.name} has no text to encode; leave --from-text out")
    return Suspect(suspect.name, suspect.text, place=suspect.place)


def _read(source: str) -> bytes:
    if source == "-":
        if sys.stdin is None:
            raise DyetraceError("standard input is closed; give the text there, or a file")
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read {source}: {error.strerror}") from None


def _looks_like_jsonl(source: str, text: str) -> bool:
    return source.endswith((".jsonl", ".ndjson")) or (source == "-" and text.lstrip().startswith('{"'))


def _read_lines(text: str, where: str, text_field: str) -> list[Suspect]:
    suspects = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line, type=dict[str, Any])
            record = msgspec.convert(fields | {"text": fields.get(text_field)}, _Line)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DyetraceError(f"{where}, line {number}: {error}; mend or remove the line") from None
        suspects.append(_suspect(record, f"{where}, line {number}", number, text_field))
    return suspects


def _suspect(record: _Line, place: str, number: int, text_field: str) -> Suspect:
    if record.text is None and record.token_ids is None:
        raise DyetraceError(
            f"{place} has neither a {text_field!r} nor a 'token_ids' field; name yours with --text-field"
        )
    name = f"line {number}" if record.id is None else f"line {number} ({record.id})"
    for ids in (record.token_ids, record.prompt_token_ids):
        if ids is not None and not all(0 <= token < 2**32 for token in ids):
            raise DyetraceError(f"{place} has a token id outside 0 .. 2^32 - 1")
    return Suspect(name, record.text, record.token_ids, record.prompt_token_ids, f"line {number}")
