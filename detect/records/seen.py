"""What a reader saw in a file beside what it read: the fields that hold text, and the parts of turns of chats."""

from __future__ import annotations

import msgspec


class ColumnSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field of a file's first records that may hold documents.

    Attributes
    ----------
    name
        Of the field, with dots for nested ones and "*" for every entry of a list.
    kind
        What it holds: "text", "messages" (also lists of texts) or "tokens"; "other" where it is none of these and may
        be text all the same (bytes that are not UTF-8, types that nobody here knows); "" where nothing was seen in it.
    records
        How many of the records that were looked at have something there.
    characters
        In all of these together; token ids count as one each.
    read
        Whether it was chosen.
    """

    name: str
    kind: str
    records: int
    characters: int
    read: bool


class TurnCount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a part of turns of one role came up.

    Attributes
    ----------
    role
        As written; "" where turns say no role.
    part
        "text", "reasoning", "tools" (arguments of calls), or what else there was ("image", "field NAME", ...).
    read
        Whether it was read.
    count, characters
        Parts, and what they hold.
    """

    role: str
    part: str
    read: bool
    count: int
    characters: int
