"""The data keys of a ledger of pairs: one per account and month, sealed under the owner's key, in a file beside it.

Erasing is deleting keys (crypto-shredding): what was sealed under them can't be read by anybody from then on, while the
ledger's frames and their hashes stay as they are. A line is a key; new ones are appended, and an erasure writes the
whole file anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from watermark.errors import DyetraceError, EvidenceError, MachineError, refused_write
from watermark.files.writing import write_atomically
from watermark.interruption import held
from watermark.keys.secret import KEY_BYTES, SecretKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class _First(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first line."""

    format: Literal["dyetrace-twin-keys"] = "dyetrace-twin-keys"
    version: Literal[1] = 1
    identity: str


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A data key: its random name, its month, the sealed key and account (null: erased), and when it was erased."""

    id: str
    month: str
    sealed: str | None = None
    erased: str | None = None


def keys_path(ledger: Path) -> Path:
    """Where the data keys of a ledger are: beside it, with ".keys" added."""
    return ledger.parent / f"{ledger.name}.keys"


def cipher(key: bytes) -> AESGCM:
    """AES-256-GCM (NIST SP 800-38D) under a key.

    Raises
    ------
    MachineError
        The library is not installed.
    """
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise MachineError("ledgers of twins need cryptography: pip install 'dyetrace[twins]'") from None
    return AESGCM(key)


class DataKeys:
    """The data keys of one ledger, as its file had them when it was last read.

    Parameters
    ----------
    ledger, identity
        The ledger's path, and the identity in its header.
    secret
        The owner's twin key; without it keys can be counted and not used.

    Raises
    ------
    DyetraceError
        The file is missing, of another ledger, or damaged.
    """

    def __init__(self, ledger: Path, identity: str, secret: SecretKey | None) -> None:
        self.path = keys_path(ledger)
        self._ledger, self._identity = ledger, identity
        self._wrap = None if secret is None else cipher(bytes.fromhex(secret.derive("pairs", "wrap").reveal_hex()))
        self._lines: dict[str, _Line] = {}
        self._seen: tuple[int, int] = (-1, -1)
        self._opened: dict[str, tuple[AESGCM, str | None]] = {}
        self._current: dict[tuple[str | None, str], str] = {}
        self._months: set[str] = set()
        with self._locked(write=False) as descriptor:
            self._load(descriptor)

    @staticmethod
    def create(ledger: Path, identity: str) -> None:
        """Make the file of a ledger that has no pair yet."""
        first = msgspec.json.encode(_First(identity=identity)) + b"\n"
        write_atomically(keys_path(ledger), first, 0o600, replace=False)
        sync_folder(ledger.parent)

    @property
    def months(self) -> dict[str, str]:
        """The month of each data key by the key's name, erased ones included."""
        return {line.id: line.month for line in self._lines.values()}

    @property
    def erased(self) -> frozenset[str]:
        """Names of the keys that were erased."""
        return frozenset(line.id for line in self._lines.values() if line.sealed is None)

    def opened(self, name: str) -> tuple[AESGCM, str | None] | None:
        """A data key and its account by the key's name; None where it was erased.

        Raises
        ------
        EvidenceError
            There is no such key, or it was changed.
        """
        found = self._opened.get(name)
        if found is None:
            line = self._lines.get(name)
            if line is None:
                raise EvidenceError(
                    f"{self.path} lacks a key that ledger {self._ledger} needs; restore both files from one backup"
                )
            if line.sealed is None:
                return None
            found = self._opened[name] = self._unsealed(line)
        return found

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Keep others from changing the file in this block, which sees what they did before."""
        with self._locked(write=True) as descriptor:
            status = os.fstat(descriptor)
            if (status.st_ino, status.st_size) != self._seen:
                self._load(descriptor)
            self._descriptor = descriptor
            yield

    def of(self, account: str | None, month: str) -> tuple[str, AESGCM]:
        """Name and key for pairs of an account and month, a new one where there is none; inside `current`."""
        if month not in self._months:
            for line in self._lines.values():
                if line.month == month and line.sealed is not None:
                    _, owner = self.opened(line.id)  # type: ignore[misc]  # not erased
                    self._current[owner, month] = line.id
            self._months.add(month)
        name = self._current.get((account, month))
        if name is None:
            name = self._current[account, month] = self._add(account, month)
        return name, self._opened[name][0]

    def erase(self, chosen: Callable[[str | None, str], bool]) -> None:
        """Delete every key whose account and month are chosen."""
        with held(), self.current():
            lines = []
            for line in self._lines.values():
                found = None if line.sealed is None else self.opened(line.id)
                if found is not None and chosen(found[1], line.month):
                    now = datetime.now(UTC).isoformat(timespec="seconds")
                    line = _Line(id=line.id, month=line.month, erased=now)
                lines.append(line)
            first = _First(identity=self._identity)
            data = b"".join(msgspec.json.encode(line) + b"\n" for line in [first, *lines])
            write_atomically(self.path, data, 0o600)
            sync_folder(self.path.parent)
            _overwrite(self._descriptor)
        with self._locked(write=False) as descriptor:
            self._load(descriptor)

    def _add(self, account: str | None, month: str) -> str:
        name, key = secrets.token_hex(16), secrets.token_bytes(KEY_BYTES)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._wrapping.encrypt(nonce, key + json.dumps(account).encode(), self._bound(name, month))
        line = _Line(id=name, month=month, sealed=sealed.hex())
        end = os.fstat(self._descriptor).st_size
        try:
            left = memoryview(msgspec.json.encode(line) + b"\n")
            while left:
                left = left[os.pwrite(self._descriptor, left, os.fstat(self._descriptor).st_size) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, end)
            raise refused_write(f"cannot write {self.path}", error) from None
        status = os.fstat(self._descriptor)
        self._seen = (status.st_ino, status.st_size)
        self._lines[name], self._opened[name] = line, (cipher(key), account)
        return name

    def _load(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        data = os.pread(descriptor, status.st_size, 0)
        first, *rest = data.split(b"\n")
        rest, unfinished = rest[:-1], rest[-1] if rest else b""
        size = len(data) - len(unfinished)
        if unfinished and _is_writable(descriptor):
            os.ftruncate(descriptor, size)  # a key that no pair was sealed under yet
        try:
            identity = msgspec.json.decode(first, type=_First).identity
            lines = [msgspec.json.decode(line, type=_Line) for line in rest]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise EvidenceError(f"{self.path} is damaged ({error}); restore it from a backup") from None
        if identity != self._identity:
            raise DyetraceError(f"{self.path} has the keys of another ledger than {self._ledger}; put its own there")
        self._lines = {line.id: line for line in lines}
        self._seen = (status.st_ino, size)
        self._opened.clear()
        self._current.clear()
        self._months.clear()

    def _unsealed(self, line: _Line) -> tuple[AESGCM, str | None]:
        from cryptography.exceptions import InvalidTag

        wrapping = self._wrapping
        try:
            sealed = bytes.fromhex(line.sealed or "")
            nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            plain = wrapping.decrypt(nonce, body, self._bound(line.id, line.month))
        except (InvalidTag, ValueError):
            raise EvidenceError(
                f"{self.path} is damaged: its key of {line.month[:7]} can't be opened; restore it from a backup"
            ) from None
        return cipher(plain[:KEY_BYTES]), json.loads(plain[KEY_BYTES:])

    @property
    def _wrapping(self) -> AESGCM:
        if self._wrap is None:
            raise DyetraceError(f"reading the pairs of ledger {self._ledger} needs the twin key; give --twin-key")
        return self._wrap

    def _bound(self, name: str, month: str) -> bytes:
        return f"{self._identity}:{name}:{month}".encode()

    @contextlib.contextmanager
    def _locked(self, *, write: bool) -> Iterator[int]:
        """The file, held: an erasure puts another one in its place, and then that one is held."""
        import fcntl  # not on Windows

        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR if write else os.O_RDONLY)
            except FileNotFoundError:
                raise DyetraceError(
                    f"{self.path} is missing, without which no pair of {self._ledger} can be read; restore it"
                ) from None
            except OSError as error:
                raise refused_write(f"cannot open {self.path}", error) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
                try:
                    is_same = os.path.samestat(os.fstat(descriptor), os.stat(self.path))
                except FileNotFoundError:
                    is_same = False
                if is_same:
                    yield descriptor
                    return
            finally:
                os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk."""
    with contextlib.suppress(OSError):  # file systems that can't say so
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_writable(descriptor: int) -> bool:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


def _overwrite(descriptor: int) -> None:
    """Put zeros over a file that has lost its name, so that erased keys don't wait on the disk for the next file."""
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
