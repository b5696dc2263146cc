"""Which fields of the files are read, and which are not, as it is said before a scan and stands in its report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from detect.readers import ReadOptions, Source
from detect.records.seen import ColumnSeen, TurnCount
from detect.records.written import clean, counted
from watermark.errors import DyetraceError

_KINDS_OF_FILES = 6  # that are told apart in words
_FIELDS, _TURNS = 8, 8  # not read, that are named
_NAME, _PATH = 60, 200  # characters of the name of a field, or of a file


class FieldsRead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files alike in the fields that they have and of which the same are read.

    Attributes
    ----------
    files, first
        How many, and the name of the first.
    columns
        Their fields, with the sizes of all files' first records added up.
    """

    files: int
    first: str
    columns: list[ColumnSeen]


class _File(Protocol):
    """What is known of a file that is read."""

    @property
    def name(self) -> str:
        """As reports name it."""

    @property
    def columns(self) -> Sequence[ColumnSeen]:
        """Its fields."""


def fields_read(files: Iterable[_File]) -> list[FieldsRead]:
    """Files with fields put together that have the same ones, in the order in which they come up.

    Parameters
    ----------
    files
        Sources or inputs of a record; those of the same name are fields of one file.
    """
    groups: dict[tuple[tuple[str, str, bool], ...], FieldsRead] = {}
    for file in {file.name: file for file in files}.values():
        if not file.columns:
            continue
        alike = tuple((column.name, column.kind, column.read) for column in file.columns)
        known = groups.get(alike)
        if known is None:
            groups[alike] = FieldsRead(files=1, first=file.name, columns=list(file.columns))
            continue
        sums = [
            msgspec.structs.replace(a, records=a.records + b.records, characters=a.characters + b.characters)
            for a, b in zip(known.columns, file.columns, strict=True)
        ]
        groups[alike] = FieldsRead(files=known.files + 1, first=known.first, columns=sums)
    return list(groups.values())


def fields_lines(found: Sequence[FieldsRead]) -> Iterator[str]:
    """Say of each kind of files which fields are read, and how large all are in the files' first records."""
    for group in found[:_KINDS_OF_FILES]:
        files = clean(group.first, _PATH) + (f" and {counted(group.files - 1, 'file')} like it" * (group.files > 1))
        read = ", ".join(_said(column) for column in group.columns if column.read)
        left = sorted((c for c in group.columns if not c.read and c.kind), key=lambda c: -c.characters)
        line = f"{files}: reads {read}"
        if left:
            more = f" and {len(left) - _FIELDS} more" if len(left) > _FIELDS else ""
            line += f"; not {', '.join(map(_said, left[:_FIELDS]))}{more}"
        missing = [f"'{clean(c.name, _NAME)}'" for c in group.columns if not c.kind]
        yield line + (f"; there is no {' or '.join(missing)}" if missing else "")
    if len(found) > _KINDS_OF_FILES:
        yield f"files with {len(found) - _KINDS_OF_FILES} more sets of fields"


def _said(column: ColumnSeen) -> str:
    if column.kind == "other":
        return f"'{clean(column.name, _NAME)}' (nothing that can be read, in {counted(column.records, 'record')})"
    unit = "token ids" if column.kind == "tokens" else "characters"
    kind = {"tokens": "", "messages": "chats or lists: "}.get(column.kind, "")
    return f"'{clean(column.name, _NAME)}' ({kind}{column.characters:,} {unit} in {counted(column.records, 'record')})"


def turns_lines(turns: Sequence[TurnCount]) -> Iterator[str]:
    """Say which parts of whose turns were read, and which were not."""
    if not turns:
        return
    for word, read in (("read", True), ("not read", False)):
        mine = sorted((one for one in turns if one.read == read), key=lambda one: (-one.count, one.role, one.part))
        if mine:
            more = f" and {len(mine) - _TURNS} other parts" if len(mine) > _TURNS else ""
            yield f"turns {word}: {', '.join(map(_turn, mine[:_TURNS]))}{more}"
        elif read:
            yield "turns read: none"


def _turn(one: TurnCount) -> str:
    whose = f"'{clean(one.role)}' " if one.role else ""
    return f"{whose}{clean(one.part)} {one.count:,} times, {one.characters:,} characters"


def check_named(sources: Sequence[Source], options: ReadOptions) -> None:
    """Refuse a field that was named and is in none of the files.

    Raises
    ------
    DyetraceError
        There is one.
    """
    read = {source.column for source in sources}
    for name in options.fields:
        if name not in read and any(source.form != "text" for source in sources if source.bytes):
            raise DyetraceError(
                f"no file has text, chats or token ids in field {clean(name, _NAME)!r} in its first records; name "
                "another with --field"
            )
