"""What of a scan's plan and results stands in a report that quotes nothing of the corpus.

Texts go, and what may tell of them: the ids that records bear; the names of files that were found below a folder or by
a pattern, of fields that aren't read, and of unusual roles in chats (they get numbers); and the names of fields in what
a reader says of a broken record. Hashes, places and lengths stay, and so do the paths that the command was given: they
are the analyst's own words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from detect.corpus.gather import Gathered, added
from detect.corpus.work import Plan
from detect.readers import Source
from detect.readers.turns import ASSISTANTS, OTHERS, words_of
from detect.records.scan import Hit
from detect.records.seen import TurnCount

_FIELDS = re.compile(r" ?\(its fields: .*\)", re.DOTALL)


def without_names(plan: Plan, given: Collection[str]) -> Plan:
    """The plan with numbers in place of the names of files and fields, but for those that were given or are read."""
    return msgspec.structs.replace(plan, sources=nameless(plan.sources, plan.settings.read.fields, given))


def nameless(sources: Sequence[Source], named: Collection[str], given: Collection[str]) -> list[Source]:
    """The same of a plan's sources, of which fields were ``named`` and paths ``given``."""
    numbers: dict[str, int] = {}  # of files: several fields of one may be read
    hidden = []
    for source in sources:
        number = numbers.setdefault(source.path, len(numbers) + 1)
        name = source.name if source.name in given else f"file {number}"
        columns = tuple(
            seen if seen.read or seen.name in named else msgspec.structs.replace(seen, name=f"field {i}")
            for i, seen in enumerate(source.columns, 1)
        )
        hidden.append(msgspec.structs.replace(source, name=name, columns=columns))
    return hidden


def without_fields(gathered: Sequence[Gathered]) -> list[Gathered]:
    """What was gathered, with no field's name in the reasons of broken records, and no role that is a name."""
    names: dict[str, str] = {}
    return [
        msgspec.structs.replace(
            done,
            skipped=[(record, _bare(reason)) for record, reason in done.skipped],
            turns=added(_usual(one, names) for one in done.turns),
        )
        for done in gathered
    ]


def _usual(one: TurnCount, names: dict[str, str]) -> TurnCount:
    """A count under a role and a part that tell nothing: usual ones as they are, others numbered or put together."""
    role, part = one.role, one.part
    if words_of(role) - ASSISTANTS - OTHERS or not role.isascii():
        role = names.setdefault(role, f"role {len(names) + 1}")
    if part not in ("text", "reasoning", "tools"):
        part = "other"
    return msgspec.structs.replace(one, role=role, part=part)


def unread(files: Sequence[tuple[str, str]], given: Collection[str]) -> list[tuple[str, str]]:
    """Names and reasons of files that could not be read."""
    return [
        (name if name in given else f"unreadable file {number + 1}", _bare(reason))
        for number, (name, reason) in enumerate(files)
    ]


def without_text(hits: Sequence[Hit]) -> list[Hit]:
    """The hits without excerpts and ids."""
    return [msgspec.structs.replace(hit, id=None, excerpt="") for hit in hits]


def _bare(reason: str) -> str:
    return _FIELDS.sub("", reason)
