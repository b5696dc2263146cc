"""What readers take and give: options, sources, their pieces, batches of documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from detect.records.seen import ColumnSeen, TurnCount
from detect.text.encode import TokenBatch
from watermark.errors import DyetraceError

I64 = NDArray[np.int64]

BATCH_BYTES = 4 << 20  # of text, or of a file's lines, in a batch
BATCH_TOKENS = 1 << 19
MAX_DOCUMENT = 256 << 20  # bytes of a line or a plain text file; longer ones are broken, so that memory stays bounded


Form = Literal["jsonl", "json", "csv", "warc", "tar", "parquet", "arrow", "text"]
"""What a file is, apart from its compression."""


class ReadOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How documents are found in files.

    Attributes
    ----------
    form
        What the files are; "auto" goes by their endings and first bytes.
    fields
        The fields or columns that hold documents, with dots for nested ones; the documents of several stay apart. None
        chooses by names and sizes (see `detect.readers.choice`).
    id_field
        The field that holds the record's own id; None takes "id" where there is one.
    roles
        Whose turns of chats are read, in any case; "assistant" stands for every usual name of an assistant
        (`detect.readers.turns.is_read`).
    leave_out
        Parts of the wanted turns that are not read: "reasoning", "tools" (arguments of calls).
    skip_errors
        List broken records and unreadable files instead of refusing them.
    """

    form: Form | Literal["auto"] = "auto"
    fields: tuple[str, ...] = ()
    id_field: str | None = None
    roles: tuple[str, ...] = ("assistant",)
    leave_out: tuple[Literal["reasoning", "tools"], ...] = ()
    skip_errors: bool = False


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file to read.

    Attributes
    ----------
    path
        What to open.
    name
        For reports: as given, or below the given folder.
    form
        What it is.
    compression
        "", "gzip", "zstd", "bz2" or "xz", by the file's first bytes.
    column, kind
        The field or column that is read ("" for plain text) and what it holds: "text", "messages" (also lists of texts)
        or "tokens". A file of which several fields are read stands for as many sources.
    id_column
        The field with the record's own id.
    bytes, mtime_ns
        Size and time of change when it was found.
    columns
        All fields of its first records that may hold documents.
    """

    path: str
    name: str
    form: str
    compression: str
    column: str
    kind: str
    id_column: str | None
    bytes: int
    mtime_ns: int
    columns: tuple[ColumnSeen, ...] = ()


@dataclass(frozen=True)
class Inspected:
    """What a file's first records show.

    Attributes
    ----------
    chosen
        (column, kind) of each field that is read, at least one.
    id_column
        As for `Source`.
    columns
        As for `Source`.
    """

    chosen: tuple[tuple[str, str], ...]
    id_column: str | None
    columns: tuple[ColumnSeen, ...] = ()


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a source that can be read on its own: [start, stop).

    JSONL: the lines that start in this range of bytes (a compressed file is one piece). Parquet: row groups. Arrow:
    record batches. Text: 0, 1.
    """

    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Consecutive documents of a piece.

    Attributes
    ----------
    texts
        One for each row (kinds "text" and "messages"; always valid Unicode), or None.
    tokens
        One row for each document (kind "tokens"), or None.
    row_document
        (rows,), ascending: index within this batch of the document that a row belongs to. A chat has a row for each
        turn that is read, or for each of its parts of text: turns are never joined. It may have none.
    records
        (documents,): number of each document's record within the piece, from 0. In JSONL every physical line counts,
        blank ones too.
    ids
        The documents' own ids, never "".
    skipped
        Broken records: number within the piece, and what is wrong.
    seen
        Records of the piece consumed up to the end of this batch.
    turns
        Of chats: which parts of whose turns there were.
    """

    texts: list[str] | None
    tokens: TokenBatch | None
    row_document: I64
    records: I64
    ids: list[str | None]
    skipped: list[tuple[int, str]]
    seen: int
    turns: tuple[TurnCount, ...] = ()


class BrokenRecord(DyetraceError):
    """A record that cannot be read.

    Attributes
    ----------
    record
        Its number within the piece, from 0.
    reason
        What is wrong with it.
    """

    def __init__(self, message: str, record: int, reason: str) -> None:
        super().__init__(message)
        self.record = record
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., BrokenRecord], tuple[str, int, str]]:
        """Rebuild it in another process: the default passes the message alone."""
        return BrokenRecord, (str(self), self.record, self.reason)


class Broken(Exception):
    """Why a value, record or file cannot be read; goes on from "line 5 ..."."""

    def __init__(self, reason: str, record: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.record = record


_MOST_PARTS = 200  # kinds of parts that a tally tells apart; beyond are those of roles that somebody made up


class Tally:
    """Counts of parts of turns: whose, which, and whether they were read."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, bool], list[int]] = {}

    def add(self, role: str, part: str, read: bool, characters: int) -> None:
        """Count a part; names that are too many are counted together as "..."."""
        found = self._counts.get((role, part, read))
        if found is None:
            key = (role, part, read) if len(self._counts) < _MOST_PARTS else ("...", "...", read)
            found = self._counts.setdefault(key, [0, 0])
        found[0] += 1
        found[1] += characters

    def counts(self) -> tuple[TurnCount, ...]:
        """All counts, by role and part."""
        return tuple(TurnCount(*key, *self._counts[key]) for key in sorted(self._counts))


@dataclass
class Draft:
    """A batch that is being filled; ``documents`` are texts, lists of turns' texts or arrays of token ids."""

    kind: str
    skip_errors: bool
    documents: list[Any] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def add(self, record: int, document: Any, own_id: str | None) -> None:
        """Take a document."""
        self.documents.append(document)
        self.records.append(record)
        self.ids.append(own_id)

    def skip(self, record: int, reason: str) -> None:
        """List a broken record, or refuse it."""
        if not self.skip_errors:
            raise Broken(reason, record)
        self.skipped.append((record, reason))

    def batch(self, seen: int) -> Batch:
        """Return what was filled in."""
        texts, tokens, row_document = None, None, np.arange(len(self.documents))
        if self.kind == "tokens":
            tokens = TokenBatch.of(self.documents)
        elif self.kind == "messages":
            texts = [text for turns in self.documents for text in turns]
            row_document = np.repeat(row_document, [len(turns) for turns in self.documents])
        else:
            texts = self.documents
        records, turns = np.array(self.records, np.int64), self.tally.counts()
        return Batch(texts, tokens, row_document, records, self.ids, self.skipped, seen, turns)


def one_line(message: object) -> str:
    """Text of others as one line that is safe to print and of bearable length."""
    text = " ".join(str(message).split())
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
