"""Prompts of a file: one a line of plain text, or a field of records of any form that is read.

Paid answers hang on it, so a file that doesn't say clearly what its prompts are is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from detect.readers.batch import Broken, Form, ReadOptions, Source, Tally
from detect.readers.fields import lookup
from detect.readers.given import plain_file, shown
from detect.readers.rows import Record, records_of, sources_of
from detect.readers.sources import place
from detect.readers.turns import PROMPTS, Wanted, turns_of, words_of
from watermark.errors import DyetraceError

FIELD = "prompt"
_ASKERS = Wanted(frozenset({"user", "human"}), reasoning=False, tools=False)
_CHATS = ("messages", "conversations", "conversation", "chat")
_LOOKED_AT = 64
_BEGUN = re.compile(r'\s*(?:(?P<object>\{\s*")|\[\s*(?:[\[{"]|$))')
"""How JSON begins, and what a prompt hardly ever does."""


def read_prompts(source: str, tell: Callable[[str], None] | None = None) -> list[str]:
    """Read prompts.

    Parameters
    ----------
    source
        A path, or "-" for standard input. Plain text has one prompt on each line. Of records the field "prompt" is
        taken; where there is none, the one field whose name is that of a prompt (question, instruction, ...), or the
        user's turn of chats that have one.
    tell
        Takes a line that says which other field was taken.

    Raises
    ------
    DyetraceError
        The file can't be read, holds no prompt, or a record has none.

    Examples
    --------
    >>> read_prompts("tests/golden/answers.jsonl")[0]
    'Number 0.'
    """
    where = shown(source)
    path = source
    try:
        with plain_file(source) as path:
            first, records = _read(path)
    except DyetraceError as error:
        raise DyetraceError(f"cannot read prompts: {str(error).replace(path, where)}") from None
    if first.form == "text":
        found = [line for line in records[0][1]["text"].replace("\r\n", "\n").split("\n") if line.strip()]
    else:
        field = _field([record for _, record in records[:_LOOKED_AT]], where, first.form)
        if field != FIELD and tell is not None:
            tell(f"{where} has no field {FIELD!r}: the prompts are taken from {field!r}")
        found = [_prompt(record, field, first, number, where) for number, record in records]
    if not found:
        raise DyetraceError(f"{where} holds no prompt; give one a line, or records with a {FIELD!r} field")
    return found


def _read(path: str) -> tuple[Source, list[tuple[int, Record]]]:
    """The file and its records; JSON that is broken is not taken for prompts."""
    how = f"call that with the prompt {FIELD!r}"
    first = sources_of(path, ReadOptions(roles=("user",)), how)[0]
    records = list(records_of(first))
    if first.form == "text" and (begun := _BEGUN.match(records[0][1]["text"])):
        form: Form = "jsonl" if begun["object"] else "json"
        first = sources_of(path, ReadOptions(form=form, roles=("user",)), how)[0]
        records = list(records_of(first))
    return first, records


def _field(records: list[Record], where: str, form: str) -> str:
    """The field that holds the prompts."""
    names = list(dict.fromkeys(name for record in records for name in record))
    if FIELD in names or not names:
        return FIELD
    like = [name for name in names if words_of(name) & PROMPTS and all(_is_text(record, name) for record in records)]
    chats = [name for name in names if name in _CHATS]
    texts = ["text"] if names == ["text"] and form == "json" else []  # a list of texts alone
    for candidates in (like, chats, texts):
        if len(candidates) == 1:
            return candidates[0]
    raise DyetraceError(
        f"{where} has no field {FIELD!r}, and its fields don't say which of them it is "
        f"({', '.join(repr(name[:40]) for name in names[:12])}); call it {FIELD!r}"
    )


def _is_text(record: Record, name: str) -> bool:
    return isinstance(record.get(name), str)


def _prompt(record: Record, field: str, source: Source, number: int, where: str) -> str:
    at = place(source, number).replace(source.name, where)
    try:
        value: Any = lookup(record, field)
        texts = [value] if isinstance(value, str) else turns_of(value, field, _ASKERS, Tally())
        if len(texts) != 1:
            raise Broken(f"has {len(texts)} turns of the user in {field!r}; a prompt is one")
    except Broken as error:
        raise DyetraceError(f"{at} {error.reason}; each record needs a {FIELD!r} field") from None
    if not texts[0].strip():
        raise DyetraceError(f"{at} has an empty prompt; leave the record out")
    return texts[0]
