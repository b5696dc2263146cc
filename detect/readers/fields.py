"""Which field of a record holds the document, and that field's value as text, turns or token ids.

Without a name from the user these are tried, in order: chats (which say who wrote what), texts, token ids. A name
counts only where its value is of the right type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from detect.readers.batch import Broken, Inspected, ReadOptions, Source, Tally
from detect.text.encode import Ids

CHAT_FIELDS = ("messages", "conversations", "conversation", "chat")
TEXT_FIELDS = ("text", "content", "response", "output", "completion", "answer", "generated_text", "generation")
TOKEN_FIELDS = ("token_ids", "input_ids", "tokens", "ids")
CANDIDATES = (
    *((name, "messages") for name in CHAT_FIELDS),
    *((name, "text") for name in TEXT_FIELDS),
    *((name, "tokens") for name in TOKEN_FIELDS),
)
ASSISTANTS = frozenset({"assistant", "gpt", "model", "bot", "chatbot", "ai"})
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value")
# A turn with one of these calls a tool and needs no text.
CALL_KEYS = ("tool_calls", "function_call")

_MAX_TOKEN = 2**32 - 1


def lookup(record: dict[str, Any], column: str) -> Any:
    """Find a field; dots go into nested objects, or belong to the name where there is no such object."""
    value: Any = record
    for name in column.split("."):
        if not isinstance(value, dict) or name not in value:
            break
        value = value[name]
    else:
        return value
    if column in record:
        return record[column]
    raise Broken(f"has no field {column!r}")


def kind_of(value: Any) -> str | None:
    """Tell what a field holds: "text", "messages", "tokens", or None where that can't be seen."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "messages" if any(isinstance(value.get(key), list) for key in CONTENT_KEYS) else None
    if isinstance(value, list) and value:
        if isinstance(value[0], dict):
            return "messages"
        if isinstance(value[0], int) and not isinstance(value[0], bool):
            return "tokens"
    return None


def choose(records: Sequence[dict[str, Any]], field: str | None) -> tuple[str, str]:
    """Choose column and kind from a file's first records.

    Raises
    ------
    Broken
        No field fits.
    """
    for name, wanted in CANDIDATES if field is None else [(field, None)]:
        for value in _values(records, name):
            kind = kind_of(value)
            if kind is not None and wanted in (kind, None):
                return name, kind
    for name in TOKEN_FIELDS if field is None else [field]:  # nothing but empty lists
        if any(value == [] for value in _values(records, name)):
            return name, "tokens"
    raise no_field(dict.fromkeys(key for record in records for key in record), field)


def no_field(names: Iterable[str], field: str | None) -> Broken:
    """Say that no field fits, and which there are."""
    names = list(names)
    seen = ", ".join(repr(name[:40]) for name in names[:12]) + (", ..." if len(names) > 12 else "")
    if field is None:
        return Broken(f"has no field that looks like a document; name one with --field (its fields: {seen or 'none'})")
    return Broken(f"has no text, chat or token ids in field {field!r}; name another with --field (its fields: {seen})")


def _values(records: Sequence[dict[str, Any]], name: str) -> Iterable[Any]:
    for record in records:
        try:
            yield lookup(record, name)
        except Broken:
            continue


def as_text(value: Any, column: str) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise _wrong(value, column, "text")
    return value


def as_tokens(value: Any, column: str) -> Ids:
    """Return a list of token ids as an array."""
    if not isinstance(value, list):
        raise _wrong(value, column, "a list of token ids")
    for index, token in enumerate(value):
        if not isinstance(token, int) or isinstance(token, bool):
            raise Broken(f"has {_name_of(token)} among its token ids ({column!r}, position {index})")
        if not 0 <= token <= _MAX_TOKEN:
            shown = token if abs(token) < 1 << 64 else "a number"
            raise Broken(f"has token id {shown} outside 0 .. 2^32 - 1 ({column!r}, position {index})")
    return np.array(value, np.uint32)


def wanted_roles(roles: Sequence[str]) -> frozenset[str]:
    """Names of roles to read, in lower case."""
    wanted = frozenset(role.casefold() for role in roles)
    return wanted | ASSISTANTS if "assistant" in wanted else wanted


def as_turns(value: Any, column: str, roles: frozenset[str]) -> list[str]:
    """Return the texts of the turns of ``roles``: one for each turn, or for each of its parts."""
    if isinstance(value, dict):
        value = _transposed(value, column)
    if not isinstance(value, list):
        raise _wrong(value, column, "a list of messages")
    texts: list[str] = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            raise Broken(f"has {_name_of(turn)} as message {number} of {column!r}, not an object")
        role = _first(turn, ROLE_KEYS)
        if not isinstance(role, str):
            raise Broken(f"has a message without 'role' or 'from' ({column!r}, message {number})")
        content = _first(turn, CONTENT_KEYS)
        if content is None and not any(key in turn for key in (*CONTENT_KEYS, *CALL_KEYS)):
            raise Broken(f"has a message without 'content' or 'value' ({column!r}, message {number})")
        if content is None or role.casefold() not in roles:
            continue
        texts.extend(_parts(content, column, number))
    return texts


def _transposed(value: dict[str, Any], column: str) -> list[dict[str, Any]]:
    """One object for each turn from one list for each key, as `datasets` stores a sequence of objects."""
    lists = {key: items for key, items in value.items() if items is not None}
    if not all(isinstance(items, list) for items in lists.values()) or len({len(x) for x in lists.values()}) > 1:
        raise _wrong(value, column, "a list of messages")
    return [dict(zip(lists, turn, strict=True)) for turn in zip(*lists.values(), strict=True)]


def _first(turn: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _parts(content: Any, column: str, number: int) -> list[str]:
    if isinstance(content, str):
        return [as_text(content, column)]
    if not isinstance(content, list):
        raise Broken(f"has {_name_of(content)} as content of message {number} of {column!r}, not text")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(as_text(part, column))
        elif not isinstance(part, dict):
            raise Broken(f"has {_name_of(part)} among the parts of message {number} of {column!r}")
        elif part.get("type", "text") in ("text", "output_text", None):
            if not isinstance(part.get("text"), str):
                raise Broken(f"has a part without 'text' in message {number} of {column!r}")
            texts.append(as_text(part["text"], column))
    return texts


def own_id(value: Any) -> str | None:
    """A record's own id as text; None where it has none, or not a text or number."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def _wrong(value: Any, column: str, wanted: str) -> Broken:
    return Broken(f"has {_name_of(value)} in field {column!r}, not {wanted}")


def _name_of(value: Any) -> str:
    if value is None:
        return "null"
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a value")


def inspected(
    records: Sequence[dict[str, Any]], options: ReadOptions, kinds: Mapping[str, str] | None = None
) -> Inspected:
    """Choose fields by a file's first records, whose values are as JSON has them (columnar files: `to_pylist`).

    Parameters
    ----------
    records
        The first ones, some dozens; none at all is no error where ``kinds`` says what there is.
    kinds
        Of columns that a schema names, by their full name: what they would hold, for those in which no record has
        anything.

    Raises
    ------
    Broken
        No field fits, or one that was named is not there.
    """
    raise NotImplementedError


def converter(source: Source, options: ReadOptions) -> Callable[[Any, Tally], Any]:
    """How a value of the source's column becomes a document for `Draft.add`, whose tally it is given.

    A text for kind "text", a list of texts for "messages", an array for "tokens". Null is an empty document where the
    file's other fields are read as well (`others_read`), and broken otherwise.

    Raises
    ------
    Broken
        Raised by what is returned: the value is none of this kind.
    """
    raise NotImplementedError


def others_read(source: Source) -> bool:
    """Whether further fields of the same file are read, so that this one may be missing from a record."""
    return sum(column.read for column in source.columns) > 1
