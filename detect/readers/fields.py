"""Values of a record's fields as documents: where they stand, and as text, turns or token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detect.readers.batch import Broken, ReadOptions, Source, Tally
from detect.readers.turns import (
    name_of,
    turns_of,
    wanted,
    wrong,
)
from detect.text.encode import Ids

_MAX_TOKEN = 2**32 - 1


def lookup(record: dict[str, Any], column: str) -> Any:
    """Find a field; dots go into objects and lists ("choices.0.text", "choices.*.text"), or belong to the name.

    Raises
    ------
    Broken
        There is none.
    """
    try:
        return _below(record, column.split("."))
    except KeyError:
        if column in record:
            return record[column]
        raise Broken(f"has no field {column!r}") from None


def _dotted(value: dict[str, Any], names: Sequence[str]) -> int:
    """How many of the names together are one key, which has dots in it; 0 where none are."""
    return next((count for count in range(len(names), 1, -1) if ".".join(names[:count]) in value), 0)


def _below(value: Any, names: Sequence[str]) -> Any:
    for number, name in enumerate(names):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, dict) and (known := _dotted(value, names[number:])):
            return _below(value[".".join(names[number : number + known])], names[number + known :])
        elif isinstance(value, list) and name.lstrip("-").isdecimal() and -len(value) <= int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, list | dict) and name == "*":
            rest = names[number + 1 :]
            found: list[Any] = []
            for one in value if isinstance(value, list) else value.values():
                try:
                    inner = _below(one, rest)
                except KeyError:
                    continue
                found += inner if "*" in rest else [inner]
            if value and not found:
                raise KeyError(name)
            return found
        else:
            raise KeyError(name)
    return value


def as_text(value: Any, column: str) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise wrong(value, column, "text")
    return value


def as_tokens(value: Any, column: str) -> Ids:
    """Return a list of token ids as an array."""
    if not isinstance(value, list):
        raise wrong(value, column, "a list of token ids")
    for index, token in enumerate(value):
        if not isinstance(token, int) or isinstance(token, bool):
            raise Broken(f"has {name_of(token)} among its token ids ({column!r}, position {index})")
        if not 0 <= token <= _MAX_TOKEN:
            shown = token if abs(token) < 1 << 64 else "a number"
            raise Broken(f"has token id {shown} outside 0 .. 2^32 - 1 ({column!r}, position {index})")
    return np.array(value, np.uint32)


def own_id(value: Any) -> str | None:
    """A record's own id as text; None where it has none, or not a text or number."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def converter(source: Source, options: ReadOptions) -> Callable[[Any, Tally], Any]:
    """How a value of the source's column becomes a document for `Draft.add`, whose tally it is given.

    A text for kind "text", a list of texts for "messages", an array for "tokens". Null is an empty document where the
    file's other fields are read as well (`others_read`), and broken otherwise. Among "messages" a text that is no chat
    is a text.

    Raises
    ------
    Broken
        Raised by what is returned: the value is none of this kind.
    """
    column, want, others = source.column, wanted(options), others_read(source)
    if source.kind == "messages":

        def turns(value: Any, tally: Tally) -> Any:
            if others and value is None:
                return []
            try:
                return turns_of(value, column, want, tally)
            except Broken:
                if isinstance(value, str):  # a text among chats
                    return turns_of([value], column, want, tally)
                raise

        return turns
    convert: Callable[[Any, str], Any] = as_text if source.kind == "text" else as_tokens
    nothing: Any = "" if source.kind == "text" else []
    return lambda value, _: convert(nothing if others and value is None else value, column)


def others_read(source: Source) -> bool:
    """Whether further fields of the same file are read, so that this one may be missing from a record."""
    return sum(column.read for column in source.columns) > 1
