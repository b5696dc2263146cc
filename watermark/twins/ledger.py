"""The private ledger of pairs: append-only, chained by hashes, encrypted under the owner's twin key.

What was appended is on the disk when `TwinLedger.append` returns. A process that is killed at any byte loses the pair
that it was writing and no other. Accounts and months can be erased for good, and the hashes stay
(`watermark.twins.data_keys`), so that what was published of the ledger holds on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from watermark.errors import DyetraceError, EvidenceError, MachineError, refused_write
from watermark.files.writing import write_atomically
from watermark.interruption import held
from watermark.keys.secret import SecretKey
from watermark.twins.data_keys import DataKeys, keys_path, sync_folder
from watermark.twins.frames import (
    HASH_BYTES,
    HEAD_BYTES,
    LARGEST_SEALED,
    LEVELS,
    NAME_BYTES,
    NONCE_BYTES,
    Frame,
    FrameHead,
    Heads,
    associated,
    chained,
    encode_header,
    frame_head,
    frames,
    new_header,
    read_header,
)
from watermark.twins.merkle import leaf_hash, merkle_root
from watermark.twins.pair import Pair

SALT_BYTES = 32
_GCM_TAG = 16


@dataclass(frozen=True, slots=True)
class Stored:
    """A pair as the ledger has it.

    Attributes
    ----------
    number
        From 1, in the order of appending.
    leaf
        Its leaf hash: SHA-256 over a zero byte, the salt and `canonical` JSON.
    salt
        32 random bytes, without which the hash says nothing of the pair.
    pair
        The pair.
    """

    number: int
    leaf: bytes
    salt: bytes
    pair: Pair


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure takes away: pairs, and by account and month how many."""

    pairs: int
    parts: dict[tuple[str | None, str], int]


class TwinLedger:
    """An open ledger; see `open`. Its methods may be called from any thread.

    Attributes
    ----------
    path, header
        The file and what it says of itself.
    unfinished
        Bytes at the end of a pair that a killed writer left; when opened for writing they were cut off.
    """

    def __init__(self, path: Path, secret: SecretKey | None, *, write: bool) -> None:
        self.path, self.write = path, write
        self._secret = secret
        self._guard = threading.RLock()
        self._heads, self._starts, self._names = Heads(), array("Q"), set[bytes]()
        self._descriptor = os.open(path, os.O_RDWR if write else os.O_RDONLY)
        try:
            if write:
                _hold(self._descriptor, path)
            with open(self._descriptor, "rb", buffering=1 << 20, closefd=False) as file:
                self.header, self._genesis = read_header(file, path)
                self._head, self._end = self._genesis, file.tell()
                self._check_key()
                for frame in frames(file, path, self._head):
                    self._take(frame.head, frame.start)
                    self._head, self._end = frame.hash, frame.start + len(frame.raw)
            self.unfinished = os.fstat(self._descriptor).st_size - self._end
            if write and self.unfinished:
                os.ftruncate(self._descriptor, self._end)
                os.fsync(self._descriptor)
            if write and not self._heads and not keys_path(path).exists():
                DataKeys.create(path, self.header.identity)
            self._keys = DataKeys(path, self.header.identity, secret)
        except BaseException:
            os.close(self._descriptor)
            raise

    @classmethod
    def open(cls, path: Path, secret: SecretKey | None, write: bool = False) -> Self:
        """Open a ledger, to be closed by `close` or by leaving a ``with`` block.

        Parameters
        ----------
        path
            The file. With ``write`` it is made, readable by its owner alone, where there is none.
        secret
            The owner's twin key. Without it hashes and counts can be read, and no pair.
        write
            Append to it: one process at a time may. Others may read and erase meanwhile.

        Raises
        ------
        DyetraceError
            There is none, or it is of another key or no ledger of pairs.
        EvidenceError
            It was changed or is damaged; the message says where.
        MachineError
            Another process is writing to it, or the disk refuses.

        Examples
        --------
        >>> import tempfile
        >>> from watermark.twins.pair import TwinAnswer, new_nonce
        >>> path, key = Path(tempfile.mkdtemp()) / "twins.ledger", SecretKey.generate()
        >>> both = TwinAnswer(text="Because of Rayleigh."), TwinAnswer(text="Blue light scatters most.")
        >>> pair = Pair(id=new_nonce(), made="2026-11-30T00:00:00Z", request={"prompt": "Why?"}, answers=both, served=1)
        >>> with TwinLedger.open(path, key, write=True) as ledger:
        ...     leaf = ledger.append(pair)
        >>> with TwinLedger.open(path, key) as ledger:
        ...     list(ledger.pairs()) == [pair], ledger.root() == leaf
        (True, True)
        """
        if write and secret is None:
            raise DyetraceError(f"writing to ledger {path} needs the twin key")
        if write and secret is not None and not os.path.lexists(path):
            if os.path.lexists(keys_path(path)) and not os.path.lexists(path):  # nor was it made just now
                raise DyetraceError(
                    f"{keys_path(path)} is there without its ledger {path}; restore that, or choose another path"
                )
            try:
                write_atomically(path, encode_header(new_header(secret.fingerprint)), 0o600, replace=False)
            except DyetraceError:
                if not os.path.lexists(path):  # else another process was quicker
                    raise
            sync_folder(path.parent)
        try:
            return cls(path, secret, write=write)
        except OSError as error:
            raise refused_write(f"cannot open ledger {path}", error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def key_fingerprint(self) -> str:
        """Names the owner's twin key."""
        return self.header.key_fingerprint

    @property
    def count(self) -> int:
        """Pairs in all, erased ones included."""
        return len(self._heads)

    @property
    def head(self) -> str:
        """The chain's last hash, 64 hex digits: SHA-256 over the hash before it and the last frame."""
        return self._head.hex()

    @property
    def erased(self) -> int:
        """Pairs that were erased."""
        gone = self._keys.erased
        return sum(head.key.hex() in gone for head in self._heads)

    @property
    def levels(self) -> dict[str, int]:
        """Pairs by level, erased ones included."""
        return dict(Counter(LEVELS[head.level] for head in self._heads))

    @property
    def months(self) -> dict[str, int]:
        """Pairs by month ("2026-11"), erased ones included."""
        of = self._keys.months
        return dict(sorted(Counter(of[head.key.hex()] for head in self._heads).items()))

    def leaves(self, first: int | None = None) -> list[bytes]:
        """Leaf hashes in the order of appending: of all pairs, or of the first so many."""
        return [head.leaf for head in self._heads[:first]]

    def root(self, first: int | None = None) -> str:
        """Merkle root over all pairs, erased ones included, or over the first so many; hex."""
        return merkle_root(self.leaves(first)).hex()

    def accounts(self) -> dict[str | None, int]:
        """Pairs by account, without erased ones."""
        found = Counter[str | None]()
        for head in self._heads:
            opened = self._keys.opened(head.key.hex())
            if opened is not None:
                found[opened[1]] += 1
        return dict(found)

    def __contains__(self, pair_id: object) -> bool:
        """Whether a pair of this id was ever appended, erased or not."""
        return isinstance(pair_id, str) and self._name(pair_id) in self._names

    def pairs(self) -> Iterator[Pair]:
        """All pairs in the order of appending, without erased ones."""
        for stored in self.stored():
            yield stored.pair

    def stored(self, ids: Iterable[str] | None = None) -> Iterator[Stored]:
        """All pairs with their salts and leaf hashes, or those of some ids, without erased ones.

        Raises
        ------
        EvidenceError
            A pair can't be read though it was not erased.
        """
        names = None if ids is None else {self._name(pair_id) for pair_id in ids}
        for number in range(1, len(self._heads) + 1):
            if names is None or self._heads[number - 1].name in names:
                stored = self._read(number)
                if stored is not None:
                    yield stored

    def append(self, pair: Pair, *, sync: bool = True) -> str:
        """Append a pair and return its leaf hash, hex.

        With ``sync`` the pair is on the disk on return. Without, it survives the death of this process, and a power
        cut once `sync` has returned.

        Raises
        ------
        DyetraceError
            Its id is in the ledger already, or it can't be written as JSON.
        MachineError
            The disk refuses; the ledger is as it was before.
        """
        (leaf,) = self.append_many([pair], sync=sync)
        return leaf

    def append_many(self, pairs: Sequence[Pair], *, sync: bool = True) -> list[str]:
        """Append several pairs with one wait for the disk; see `append`."""
        if not self.write:
            raise DyetraceError(f"ledger {self.path} was opened for reading alone")
        bodies = [canonical(pair) for pair in pairs]
        names = [self._name(pair.id) for pair in pairs]
        with self._guard, held(), self._keys.current():
            if len(set(names)) < len(names) or not self._names.isdisjoint(names):
                raise DyetraceError(f"ledger {self.path} has a pair of this id already, and a coin is tossed once")
            before, data, heads = self._head, b"", []
            for pair, body, name in zip(pairs, bodies, names, strict=True):
                key, sealing = self._keys.of(pair.account, month_of(pair))
                salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
                head = FrameHead(
                    SALT_BYTES + len(body) + _GCM_TAG,
                    LEVELS.index(pair.level),
                    leaf_hash(salt + body),
                    name,
                    bytes.fromhex(key),
                    nonce,
                )
                clear = frame_head(head)
                frame = clear + sealing.encrypt(nonce, salt + body, associated(clear, before))
                before = chained(before, frame)
                heads.append((head, self._end + len(data)))
                data += frame + before
            self._write(data, sync)
            self._head, self._end = before, self._end + len(data)
            for head, start in heads:
                self._take(head, start)
        return [head.leaf.hex() for head, _ in heads]

    def sync(self) -> None:
        """Return when all that was appended is on the disk."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise MachineError(f"cannot write ledger {self.path}: {error.strerror}") from None

    def erasable(self, account: str | None = None, before: date | None = None) -> Erasure:
        """What `erase` would take away."""
        chosen = _chosen(account, before)
        months, parts = self._keys.months, Counter[tuple[str | None, str]]()
        for head in self._heads:
            name = head.key.hex()
            opened = self._keys.opened(name)
            if opened is not None and chosen(opened[1], months[name]):
                parts[opened[1], months[name]] += 1
        return Erasure(parts.total(), dict(parts))

    def erase(self, account: str | None = None, before: date | None = None) -> Erasure:
        """Delete the data keys of an account, of all months that ended before a date, or of both at once.

        Nobody can read those pairs from then on, not even with the twin key; copies of the key file in backups have to
        be deleted as well. Hashes, root and head stay. It may run while another process appends.

        Raises
        ------
        DyetraceError
            Neither account nor date is given, or there is no key.
        """
        with self._guard:
            lost = self.erasable(account, before)
            self._keys.erase(_chosen(account, before))
        return lost

    def close(self) -> None:
        """Close the file; others may write to it."""
        with self._guard:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _check_key(self) -> None:
        if self._secret is not None and self._secret.fingerprint != self.header.key_fingerprint:
            raise DyetraceError(
                f"wrong key: ledger {self.path} is of twin key {self.header.key_fingerprint}, and this key is "
                f"{self._secret.fingerprint}; give the key that it was made with"
            )

    def _take(self, head: FrameHead, start: int) -> None:
        self._heads.append(head)
        self._starts.append(start)
        self._names.add(head.name)

    def _read(self, number: int) -> Stored | None:
        head, start = self._heads[number - 1], self._starts[number - 1]
        opened = self._keys.opened(head.key.hex())
        if opened is None:
            return None
        from cryptography.exceptions import InvalidTag

        where = f"pair {number} of ledger {self.path} (at byte {start:,})"
        try:
            raw = os.pread(self._descriptor, HEAD_BYTES + head.sealed + HASH_BYTES, start)
            before = self._genesis if number == 1 else os.pread(self._descriptor, HASH_BYTES, start - HASH_BYTES)
        except OSError as error:
            raise MachineError(f"cannot read ledger {self.path}: {error.strerror}") from None
        frame = Frame(number, start, raw, before)
        try:
            plain = opened[0].decrypt(head.nonce, frame.sealed, frame.associated)
        except InvalidTag:
            raise EvidenceError(f"{where} can't be opened: it was changed; restore the file from a backup") from None
        salt, body = plain[:SALT_BYTES], plain[SALT_BYTES:]
        try:
            pair = parse_pair(body)
        except ValueError as error:
            raise EvidenceError(f"{where} holds no pair ({error}); it was not written by this dyetrace") from None
        if leaf_hash(plain) != head.leaf or self._name(pair.id) != head.name:
            raise EvidenceError(f"{where} is not the pair that its hash is of; restore the file from a backup")
        return Stored(number, head.leaf, salt, pair)

    def _name(self, pair_id: str) -> bytes:
        if self._secret is None:
            raise DyetraceError(f"looking for a pair in ledger {self.path} needs the twin key; give --twin-key")
        key = bytes.fromhex(self._secret.derive("pairs", "name").reveal_hex())
        return hashlib.blake2b(pair_id.encode("utf-8", "surrogatepass"), key=key, digest_size=NAME_BYTES).digest()

    def _write(self, data: bytes, sync: bool) -> None:
        try:
            left, at = memoryview(data), self._end
            while left:
                written = os.pwrite(self._descriptor, left, at)
                left, at = left[written:], at + written
            if sync:
                os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise MachineError(
                f"cannot write ledger {self.path}: {error.strerror}; the pairs before this one are kept"
            ) from None


def canonical(pair: Pair) -> bytes:
    """A pair as the JSON that its hash is over: keys sorted, no white space, ASCII.

    Raises
    ------
    DyetraceError
        Its id, time or request can't be kept.
    """
    try:
        plain = msgspec.to_builtins(pair)
        made = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
        if msgspec.to_builtins(parse_pair(made)) != plain:
            raise ValueError("JSON would change it")
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        raise DyetraceError(f"a pair can't be kept: {error}") from None
    if len(made) + SALT_BYTES + _GCM_TAG > LARGEST_SEALED:
        raise DyetraceError(f"a pair can't be kept: it has {len(made):,} bytes, and {LARGEST_SEALED:,} is the most")
    return made


def parse_pair(data: bytes) -> Pair:
    """Read `canonical` JSON.

    Raises
    ------
    ValueError
        It is no pair.
    """
    try:
        pair = msgspec.convert(json.loads(data), Pair)
    except (RecursionError, msgspec.MsgspecError) as error:
        raise ValueError("nested too deeply" if isinstance(error, RecursionError) else str(error)) from None
    if len(pair.id) != 32 or pair.id != bytes.fromhex(pair.id).hex():
        raise ValueError("its id is not 32 hex digits")
    month_of(pair)
    return pair


def month_of(pair: Pair) -> str:
    """The month in UTC when a pair was made, "2026-11".

    Raises
    ------
    ValueError
        ``made`` is no time.
    """
    try:
        made = datetime.fromisoformat(pair.made)
        made = made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)
    except OverflowError:
        raise ValueError("its time is out of range") from None
    if not 1970 <= made.year <= 9000:
        raise ValueError("its time is out of range")
    return f"{made:%Y-%m}"


def is_twin_ledger(path: Path) -> bool:
    """Whether there is a file that begins as every ledger of pairs does."""
    try:
        with path.open("rb") as file:
            read_header(file, path)
    except (OSError, DyetraceError):
        return False
    return True


def _chosen(account: str | None, before: date | None) -> Any:
    if account is None and before is None:
        raise DyetraceError("say what to erase: an account, or everything before a date")

    def chosen(owner: str | None, month: str) -> bool:
        year, number = map(int, month.split("-"))
        over = date(year + number // 12, number % 12 + 1, 1)
        return (account is None or owner == account) and (before is None or over <= before)

    return chosen


def _hold(descriptor: int, path: Path) -> None:
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MachineError(
            f"ledger {path} is being written to by another process; wait for it, or give this one its own"
        ) from None
