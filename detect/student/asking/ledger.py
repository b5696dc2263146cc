"""The ledger of a trace: every request and every raw answer, written before it is used, each row chained to the last.

It is an ordinary SQLite file that anybody can read. What was paid for is never asked again, and a row that was changed,
added or removed afterwards breaks the chain of hashes whose last link the report carries.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from watermark.errors import DyetraceError, EvidenceError, MachineError, refused_write

Kind = Literal["plan", "asked", "answered", "failed"]

LEDGER_FILE = "ledger.sqlite"
"""Its name in the folder of a trace's report."""

_APPLICATION_ID, _LAYOUT = 0x44595452, 1
_GENESIS = "0" * 64
_PACK_FROM = 4096  # bytes; shorter payloads are kept as they are
_LARGEST = 1 << 30

# RAISE in a trigger stops REPLACE as well, which would delete without asking a DELETE trigger.
_SCHEMA = (
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, plan TEXT NOT NULL, "
    "asked INTEGER, tokens INTEGER NOT NULL, time TEXT NOT NULL, meta TEXT NOT NULL, payload BLOB NOT NULL, "
    "packed INTEGER NOT NULL, hash TEXT NOT NULL)",
    "CREATE INDEX entries_by_key ON entries (key, kind)",
    "CREATE INDEX entries_by_asked ON entries (asked)",
    "CREATE TRIGGER entries_in_order BEFORE INSERT ON entries "
    "WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM entries) "
    "BEGIN SELECT RAISE(ABORT, 'entries are appended in order'); END",
    "CREATE TRIGGER entries_never_change BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END",
    "CREATE TRIGGER entries_never_go BEFORE DELETE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END",
)
_COLUMNS = "number, kind, key, plan, asked, tokens, time, meta, payload, packed, hash"


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry to be appended.

    Attributes
    ----------
    kind
        "plan" (its payload is the plan), "asked" (a request that is about to be sent), and what became of it:
        "answered", or "failed", which may be asked again.
    key
        Names the request (`detect.student.asking.plan.request_key`); of a plan its SHA-256.
    plan
        SHA-256 of the plan on whose behalf it was asked.
    tokens
        Of a request the most that it can cost, of its outcome what it did cost.
    meta
        What else is known: sample numbers; status, some headers and duration of an answer.
    payload
        The request's or the response's body, as it was on the wire.
    asked
        Of an outcome, the number of the request's entry.
    """

    kind: Kind
    key: str
    plan: str
    tokens: int
    meta: dict[str, Any]
    payload: bytes = b""
    asked: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger; see `Draft` for what is not explained here.

    Attributes
    ----------
    number
        From 1, without gaps.
    time
        UTC, by the analyst's clock.
    hash
        SHA-256 over the previous entry's hash, a line feed, and this entry as a JSON array (`chained_hash`).
    """

    number: int
    kind: str
    key: str
    plan: str
    asked: int | None
    tokens: int
    time: str
    meta: dict[str, Any]
    payload: bytes
    hash: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What a plan has cost so far: requests sent (retries included), and tokens, unknown outcomes at their most."""

    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Standing:
    """When a plan was entered, as which entry, and when its first request followed (None: not yet)."""

    number: int
    entered: str
    first_query: str | None


@dataclass(frozen=True, slots=True)
class Chain:
    """A ledger whose every row was recomputed: its length, its last hash, and the plans that it holds."""

    entries: int
    head: str
    plans: dict[str, Standing]


def chained_hash(previous: str, fields: Sequence[Any], payload: bytes) -> str:
    """SHA-256 (hex) over ``previous`` (hex), a line feed, and the JSON array of ``fields`` and the payload's SHA-256.

    Parameters
    ----------
    fields
        Number, kind, key, plan, asked, tokens, time and meta (the JSON text) as they stand in the table.
    """
    row = msgspec.json.encode([*fields, hashlib.sha256(payload).hexdigest()])
    return hashlib.sha256(previous.encode() + b"\n" + row).hexdigest()


class Ledger:
    """An open ledger. Its methods may be called from any thread.

    Parameters
    ----------
    path
        The file; it is made, readable by its owner alone, where there is none.
    write
        Append to it: one process at a time may. Without it an existing file is only read.

    Raises
    ------
    DyetraceError
        The file is damaged, is no ledger, or is in use by another trace.
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._held: int | None = None
        if not write and not path.is_file():
            raise DyetraceError(f"there is no ledger {path}; give the file that the trace wrote")
        if write:
            self._held = _hold(path)
        try:
            with _readable(path):
                self._database = _connect(path, write)
                try:
                    _check_layout(self._database, path, write)
                    self._head = self._last()
                except BaseException:
                    self._database.close()
                    raise
        except BaseException:
            self._release()
            raise

    @property
    def head(self) -> str:
        """The last entry's hash, 64 hex digits; zeros when the ledger is empty."""
        return self._head[1]

    def append(self, drafts: Sequence[Draft]) -> list[int]:
        """Append entries in one transaction and return their numbers once they are on the disk."""
        with self._guard, _readable(self.path):
            number, head = self._head
            rows = []
            for draft in drafts:
                number += 1
                meta = msgspec.json.encode(draft.meta, order="sorted").decode()
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                fields = (number, draft.kind, draft.key, draft.plan, draft.asked, draft.tokens, now, meta)
                head = chained_hash(head, fields, draft.payload)
                packed = len(draft.payload) >= _PACK_FROM
                body = zlib.compress(draft.payload, 1) if packed else draft.payload
                rows.append((*fields, body, int(packed), head))
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany(f"INSERT INTO entries ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
                self._database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise
            self._head = (number, head)
            return [row[0] for row in rows]

    def enter_plan(self, sha256: str, plan: bytes) -> Standing:
        """Put a plan on record, unless it is already, and say since when."""
        if self._rows("WHERE kind = 'plan' AND key = ? LIMIT 1", (sha256,)) == []:
            self.append([Draft(kind="plan", key=sha256, plan=sha256, tokens=0, meta={}, payload=plan)])
        return self.standing(sha256)

    def standing(self, plan: str) -> Standing:
        """When a plan was entered and first asked for."""
        entered = self._rows("WHERE kind = 'plan' AND key = ? ORDER BY number LIMIT 1", (plan,))
        if not entered:
            raise DyetraceError(f"ledger {self.path} holds no plan {plan}; give the ledger of this plan's trace")
        asked = self._rows("WHERE kind = 'asked' AND plan = ? ORDER BY number LIMIT 1", (plan,))
        return Standing(entered[0].number, entered[0].time, asked[0].time if asked else None)

    def answer(self, key: str) -> Entry | None:
        """The answer to a request, where there is one."""
        found = self._rows("WHERE key = ? AND kind = 'answered' ORDER BY number LIMIT 1", (key,))
        return found[0] if found else None

    def last_failure(self, key: str) -> Entry | None:
        """What last became of a request that has no answer; None where nothing is on record."""
        found = self._rows("WHERE key = ? AND kind = 'failed' ORDER BY number DESC LIMIT 1", (key,))
        return found[0] if found else None

    def answered_before(self, number: int) -> int:
        """How many answers, to whichever plan, stood in the ledger before entry ``number``."""
        with self._guard, _readable(self.path):
            (count,) = self._database.execute(
                "SELECT count(*) FROM entries WHERE kind = 'answered' AND number < ?", (number,)
            ).fetchone()
        return int(count)

    def asked_at(self, number: int) -> str:
        """When the request was sent that entry ``number`` answers."""
        (answered,) = self._rows("WHERE number = ?", (number,))
        asked = self._rows("WHERE number = ?", (answered.asked,))
        return asked[0].time if asked else answered.time

    def spent(self, plan: str) -> Spent:
        """What a plan's requests have cost, those included whose outcome a crash left unknown."""
        with self._guard, _readable(self.path):
            (requests,) = self._database.execute(
                "SELECT count(*) FROM entries WHERE kind = 'asked' AND plan = ?", (plan,)
            ).fetchone()
            (known,) = self._database.execute(
                "SELECT coalesce(sum(tokens), 0) FROM entries WHERE kind IN ('answered', 'failed') AND plan = ?",
                (plan,),
            ).fetchone()
            (unknown,) = self._database.execute(
                "SELECT coalesce(sum(tokens), 0) FROM entries AS a WHERE kind = 'asked' AND plan = ? "
                "AND NOT EXISTS (SELECT 1 FROM entries AS b WHERE b.asked = a.number)",
                (plan,),
            ).fetchone()
        return Spent(requests, known + unknown)

    def entries(self) -> Iterator[Entry]:
        """All entries, in order."""
        for row in self.rows():
            yield _entry(row, self.path)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """All rows of the table as they stand there, in order."""
        last = 0
        while rows := self._select("WHERE number > ? ORDER BY number LIMIT 64", (last,)):
            yield from rows
            last = rows[-1][0]

    def close(self) -> None:
        """Leave one whole file behind: what stands in SQLite's write-ahead log moves into it."""
        with self._guard:
            try:
                self._database.close()
            finally:
                self._release()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, where: str, values: tuple[Any, ...]) -> list[Entry]:
        return [_entry(row, self.path) for row in self._select(where, values)]

    def _select(self, where: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._guard, _readable(self.path):
            return self._database.execute(f"SELECT {_COLUMNS} FROM entries {where}", values).fetchall()

    def _last(self) -> tuple[int, str]:
        row = self._database.execute("SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else (0, _GENESIS)

    def _release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def verify_chain(path: Path, take: Callable[[Entry], None] = lambda _: None) -> Chain:
    """Recompute every hash of a ledger, and hand over each entry that fits.

    Raises
    ------
    DyetraceError
        The chain is broken (the first entry that doesn't fit is named), or the file is damaged.
    """
    ledger = Ledger(path, write=False)
    try:
        return _verified(ledger, take)
    finally:
        ledger.close()


def _verified(ledger: Ledger, take: Callable[[Entry], None]) -> Chain:
    head, number = _GENESIS, 0
    plans: dict[str, Standing] = {}
    asked: dict[int, str] = {}
    for number, row in enumerate(ledger.rows(), 1):
        entry = _entry(row, ledger.path)
        where = f"ledger {ledger.path} was changed after it was written: entry {entry.number}"
        if entry.number != number:
            raise EvidenceError(f"{where} stands where {number} belongs; restore the file from a backup")
        head = chained_hash(head, row[:8], entry.payload)
        if head != entry.hash:
            raise EvidenceError(f"{where} does not fit its hash; restore the file from a backup")
        if entry.kind == "plan":
            if hashlib.sha256(entry.payload).hexdigest() != entry.key:
                raise EvidenceError(f"{where} is a plan with another hash; restore the file from a backup")
            plans.setdefault(entry.key, Standing(number, entry.time, None))
        elif entry.kind == "asked":
            asked[number] = entry.key
            known = plans.get(entry.plan)
            if known is not None and known.first_query is None:
                plans[entry.plan] = Standing(known.number, known.entered, entry.time)
        elif entry.asked is None or asked.pop(entry.asked, None) != entry.key:
            raise EvidenceError(f"{where} is an outcome of no request; restore the file from a backup")
        take(entry)
    return Chain(number, head, plans)


def _hold(path: Path) -> int:
    """Make the file where there is none, and keep other traces away from it; SQLite's own locks don't last."""
    import fcntl

    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        held = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise refused_write(f"cannot write ledger {path}", error) from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise MachineError(f"another trace is using ledger {path}; wait for it, or give this one its own") from None
    return held


def _connect(path: Path, write: bool) -> sqlite3.Connection:
    address = path.absolute().as_uri() + ("?mode=rw" if write else "?mode=ro")
    if not write and not path.with_name(path.name + "-wal").exists():
        # No log means that nobody writes: then a read-only folder will do, and nothing is left beside the file.
        address += "&immutable=1"
    database = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        if write:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
    except BaseException:
        database.close()
        raise
    return database


def _check_layout(database: sqlite3.Connection, path: Path, write: bool) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (layout,) = database.execute("PRAGMA user_version").fetchone()
    (objects,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if write and (application, layout, objects) == (0, 0, 0):
        database.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {_LAYOUT}")
        database.execute("COMMIT")
        return
    if application != _APPLICATION_ID:
        raise DyetraceError(f"{path} is a SQLite file of something else, not a ledger; give another path")
    if layout != _LAYOUT:
        raise DyetraceError(
            f"ledger {path} has version {layout}, but this dyetrace reads version {_LAYOUT}; "
            "use the release that wrote it"
        )
    found = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")]
    if sorted(found) != sorted(_SCHEMA):
        raise EvidenceError(
            f"the tables of ledger {path} were changed, so nothing protects its entries; restore the file from a backup"
        )


def _entry(row: tuple[Any, ...], path: Path) -> Entry:
    number, kind, key, plan, asked, tokens, time, meta, payload, packed, own = row
    try:
        body = _unpacked(payload) if packed else bytes(payload)
        return Entry(number, kind, key, plan, asked, tokens, time, msgspec.json.decode(meta, type=dict), body, own)
    except (zlib.error, msgspec.MsgspecError, TypeError, UnicodeDecodeError) as error:
        raise EvidenceError(
            f"entry {number} of ledger {path} is damaged ({type(error).__name__}); restore the file from a backup"
        ) from None


def _unpacked(payload: bytes) -> bytes:
    stream = zlib.decompressobj()
    body = stream.decompress(payload, _LARGEST)
    if not stream.eof:
        raise zlib.error("cut short, or larger than any answer")
    return body


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """One line for whatever SQLite says of a file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise MachineError(f"cannot use ledger {path}: {error}; check the disk and the file's permissions") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        # sqlite3 raises the latter itself, where a message of SQLite's quotes damaged text.
        reason = "its text is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise DyetraceError(
            f"{path} is damaged or no ledger ({reason}); restore it from a backup, or give another path"
        ) from None
