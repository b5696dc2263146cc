"""Secret keys: their derivation, and what may be said of them in public.

Every key is 32 bytes. Keys below the master are derived with keyed BLAKE2b (RFC 7693) under one personalisation
string per purpose, so that a derived key says nothing about its parent or its siblings.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from watermark.errors import DyetraceError
from watermark.keys.foreign import ForeignKey

KEY_BYTES = 32

Purpose = Literal[
    "epoch", "global", "tenant", "selector", "subkey", "context", "decoy", "ledger", "placebo", "coin", "pairs"
]


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


AnyKey = SecretKey | TenantKey | ForeignKey
"""What a key file may hold."""
