"""Secret keys: their derivation, their files, and what may be said of them in public.

Every key is 32 bytes. Keys below the master are derived with keyed BLAKE2b (RFC 7693) under one personalisation
string per purpose, so that a derived key says nothing about its parent or its siblings.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from watermark.errors import DyetraceError
from watermark.files import write_private
from watermark.foreign_key import ForeignKey

KEY_BYTES = 32
_PREFIX = "dyetrace-key-v1"

Purpose = Literal["epoch", "global", "tenant", "selector", "subkey", "context", "decoy", "ledger", "placebo"]


class SecretKey:
    """32 secret bytes that never show in ``repr``, never pickle, and compare in constant time."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise DyetraceError(
                f"a key must hold {KEY_BYTES} bytes (got {len(secret)}); make one with `dyetrace keygen`"
            )
        self._secret = bytes(secret)

    @classmethod
    def generate(cls) -> SecretKey:
        """Return a fresh key from the operating system's generator."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def derive(self, purpose: Purpose, message: str | int | bytes = b"") -> SecretKey:
        """Return the key for ``purpose`` and ``message``: BLAKE2b-256 keyed by this key (RFC 7693, section 2.5)."""
        data = message if isinstance(message, bytes) else str(message).encode()
        person = f"dyt:{purpose}".encode().ljust(16, b"\0")
        return SecretKey(hashlib.blake2b(data, key=self._secret, digest_size=KEY_BYTES, person=person).digest())

    @property
    def fingerprint(self) -> str:
        """32 hex digits that name the key in public: BLAKE2b-128 keyed by the key, which reveals nothing else."""
        return hashlib.blake2b(b"", key=self._secret, digest_size=16, person=b"dyt:fingerprint\0").hexdigest()

    @property
    def words(self) -> npt.NDArray[np.uint32]:
        """The key as the cipher's 8 little-endian words, shape (8,) (RFC 8439, section 2.3)."""
        return np.frombuffer(self._secret, dtype="<u4").astype(np.uint32)

    def commit(self, message: bytes) -> str:
        """Return SHA-256 over ``message`` and this key, hex (see `watermark.commitment`)."""
        return hashlib.sha256(message + self._secret).hexdigest()

    def reveal_hex(self) -> str:
        """Return the secret itself; only for writing key files."""
        return self._secret.hex()

    def __repr__(self) -> str:
        return "SecretKey(<redacted>)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretKey) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __copy__(self) -> SecretKey:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SecretKey:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretKey cannot be pickled: pass a key source (file:, env:, cmd:) instead")


MarkingKey = SecretKey | ForeignKey
"""What words are made with: a key of ours, or that of a foreign format."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one epoch that one party holds: the owner holds all, an outside expert perhaps one tenant's.

    Attributes
    ----------
    master_fingerprint
        Names the master key; a spec carries the same string.
    selector
        Keys the bit of a context that says whether the global or the tenant's key marks the next token.
    global_key
        The mark that every tenant's text shares, or None where only a tenant's key was handed over. For a foreign
        format it is that format's key, and there are no tenants.
    tenants
        Tenant name to tenant key.
    """

    master_fingerprint: str
    selector: SecretKey
    global_key: MarkingKey | None
    tenants: dict[str, SecretKey]

    @classmethod
    def from_master(cls, master: SecretKey, epoch: int = 0, tenants: tuple[str, ...] = ()) -> KeyRing:
        """Derive the ring of ``epoch`` for the named tenants."""
        root = master.derive("epoch", epoch)
        for name in tenants:
            check_tenant_name(name)
        return cls(
            master.fingerprint,
            root.derive("selector"),
            root.derive("global"),
            {name: root.derive("tenant", name) for name in tenants},
        )

    @classmethod
    def from_foreign(cls, key: ForeignKey) -> KeyRing:
        """The ring of a foreign format: its one key marks every context, so that nothing is ever selected."""
        return cls(key.fingerprint, SecretKey(bytes(KEY_BYTES)), key, {})


@dataclass(frozen=True, slots=True)
class TenantKey:
    """What an outside expert gets: one tenant's key of one epoch, and the selector; nothing about any other account."""

    tenant: str
    epoch: int
    master_fingerprint: str
    selector: SecretKey
    key: SecretKey

    @classmethod
    def from_master(cls, master: SecretKey, tenant: str, epoch: int = 0) -> TenantKey:
        """Derive the key of ``tenant`` in ``epoch``."""
        ring = KeyRing.from_master(master, epoch, (tenant,))
        return cls(tenant, epoch, ring.master_fingerprint, ring.selector, ring.tenants[tenant])

    def ring(self) -> KeyRing:
        """The ring that holds this tenant alone."""
        return KeyRing(self.master_fingerprint, self.selector, None, {self.tenant: self.key})


def check_tenant_name(name: str) -> None:
    """Raise DyetraceError unless ``name`` is 1 to 128 printable characters without white space or colon."""
    if not 1 <= len(name) <= 128 or not name.isprintable() or any(c.isspace() or c == ":" for c in name):
        raise DyetraceError(
            f"tenant name {name!r} is not allowed: use 1 to 128 printable characters, no white space, no colon"
        )


def _checksum(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=4).hexdigest()


AnyKey = SecretKey | TenantKey | ForeignKey
"""What a key file may hold."""


def format_key(key: AnyKey) -> str:
    """Return the one line of a key file: prefix, kind, fields, and a checksum that catches truncation."""
    if isinstance(key, SecretKey):
        body = f"{_PREFIX}:master:{key.reveal_hex()}"
    elif isinstance(key, ForeignKey):
        body = f"{_PREFIX}:foreign:{key.fields()}"
    else:
        secret = key.key.reveal_hex() + key.selector.reveal_hex()
        body = f"{_PREFIX}:tenant:{key.tenant}:{key.epoch}:{key.master_fingerprint}:{secret}"
    return f"{body}:{_checksum(body)}"


def parse_key(line: str, where: str) -> AnyKey:
    """Read `format_key`'s line, or 64 bare hex digits (a master key as a KMS prints it).

    Raises
    ------
    DyetraceError
        The text is not a key or is damaged; the message names ``where`` and shows nothing of the text.
    """
    text = line.strip()
    if len(text) == 2 * KEY_BYTES and _is_hex(text):
        return SecretKey(bytes.fromhex(text))
    if not text.startswith(_PREFIX + ":"):
        raise DyetraceError(
            f"{where} holds no dyetrace key ({len(text)} characters; expected '{_PREFIX}:...' or 64 hex digits); "
            "make one with `dyetrace keygen`"
        )
    body, _, checksum = text.rpartition(":")
    fields = body.split(":")
    if _checksum(body) != checksum:
        raise DyetraceError(
            f"the key in {where} is damaged or cut short (its checksum differs); restore it from a backup"
        )
    try:
        if len(fields) == 3 and fields[1] == "master":
            return SecretKey(bytes.fromhex(fields[2]))
        if len(fields) == 6 and fields[1] == "tenant":
            secret = bytes.fromhex(fields[5])
            selector = SecretKey(secret[KEY_BYTES:])
            return TenantKey(fields[2], int(fields[3]), fields[4], selector, SecretKey(secret[:KEY_BYTES]))
        if len(fields) == 5 and fields[1] == "foreign":
            return ForeignKey.from_fields(fields[2], fields[3], fields[4])
    except ValueError:
        raise DyetraceError(
            f"the key in {where} is damaged (its fields do not hold a key); restore it from a backup"
        ) from None
    raise DyetraceError(f"the key in {where} is of a kind this version does not know; update dyetrace")


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdefABCDEF" for c in text)


def _looks_like_key(text: str) -> bool:
    return text.startswith(_PREFIX) or (len(text) == 2 * KEY_BYTES and _is_hex(text))


def write_key_file(path: Path, key: AnyKey) -> None:
    """Write a key file that only its owner can read (0600); an existing file is never overwritten."""
    write_private(path, f"{format_key(key)}\n".encode(), what="key file")


def source_path(source: str) -> Path | None:
    """The file that a key's source reads, so that no output goes there; None for other sources."""
    kind, _, rest = source.partition(":")
    return Path(os.path.expanduser(rest)) if kind == "file" and rest else None


def load_key(source: str) -> AnyKey:
    """Load a key from ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND`` (any command that prints it: a KMS client).

    Raises
    ------
    DyetraceError
        The source cannot be read, is open to others, or holds no intact key.
    """
    text, where = read_source(source, "key", _looks_like_key)
    return parse_key(text, where)


def read_source(source: str, what: str, looks_like_key: Callable[[str], bool]) -> tuple[str, str]:
    """The text at a key's source, and what messages call the place.

    Parameters
    ----------
    source
        ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``.
    what
        What is kept there, for messages.
    looks_like_key
        Whether a text is a key itself, pasted by mistake: then nothing of it is said.

    Raises
    ------
    DyetraceError
        The source cannot be read, or is open to others.
    """
    kind, _, rest = source.partition(":")
    if kind != "cmd" and looks_like_key(rest):
        kind = ""
    if kind == "file" and rest:
        return _read_private(Path(os.path.expanduser(rest))), f"file {rest}"
    if kind == "env" and rest:
        if rest not in os.environ:
            raise DyetraceError(f"environment variable {rest} is not set; export the {what} in it or use file:PATH")
        return os.environ[rest], f"environment variable {rest}"
    if kind == "cmd" and rest:
        return _run(rest), "the output of the key command"
    raise DyetraceError(f"{what} source not understood; allowed are file:PATH, env:NAME and cmd:COMMAND")


def load_master(source: str) -> SecretKey:
    """Load a key that must be a master key."""
    key = load_owner_key(source)
    if isinstance(key, ForeignKey):
        raise DyetraceError(
            f"this needs a master key of dyetrace, but the source holds a {key.format} key, which only reads marks"
        )
    return key


def load_owner_key(source: str) -> MarkingKey:
    """Load a key that a spec can be of: a master key, or a foreign format's."""
    key = load_key(source)
    if isinstance(key, TenantKey):
        raise DyetraceError(f"this needs the master key, but the source holds the key of tenant {key.tenant!r}")
    return key


def _read_private(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise DyetraceError(
                    f"key file {path} can be read by others (mode {mode & 0o777:04o}); run: chmod 600 {path}"
                )
            return file.read(4096)
    except OSError as error:
        raise DyetraceError(f"cannot read key file {path}: {error.strerror}") from None


def _run(command: str) -> str:
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise DyetraceError(f"the key command could not be run ({type(error).__name__}); check it in a shell") from None
    if done.returncode != 0:
        raise DyetraceError(f"the key command ended with status {done.returncode}; check it in a shell")
    return done.stdout
