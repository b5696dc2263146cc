"""What of a scan's plan and results stands in a report that quotes nothing of the corpus.

Texts go, and what may tell of them: the ids that records bear, the names of files that were found below a folder or by
a pattern (they get numbers), and the names of fields in what a reader says of a broken record. Hashes, places and
lengths stay, and so do the paths that the command was given: they are the analyst's own words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from detect.corpus.gather import Gathered
from detect.corpus.work import Plan
from detect.records.scan import Hit

_FIELDS = re.compile(r" ?\(its fields: .*\)", re.DOTALL)


def without_names(plan: Plan, given: Collection[str]) -> Plan:
    """The plan with numbers in place of files' names, but for those that were given."""
    sources = [
        source if source.name in given else msgspec.structs.replace(source, name=f"file {number + 1}")
        for number, source in enumerate(plan.sources)
    ]
    return msgspec.structs.replace(plan, sources=sources)


def without_fields(gathered: Sequence[Gathered]) -> list[Gathered]:
    """What was gathered, with no field's name in the reasons of broken records."""
    return [
        msgspec.structs.replace(done, skipped=[(record, _bare(reason)) for record, reason in done.skipped])
        for done in gathered
    ]


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
