"""The secret key of a foreign mark: the numbers of another system's configuration, guarded like our own keys."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, NoReturn

from watermark.errors import DyetraceError

NativeKey = tuple[int, ...]
"""The key as the other system holds it: one integer, two for a pair, thirty for SynthID's layers."""

SALT_BYTES = 16


class ForeignKey:
    """A native key of a named format that never shows in ``repr``, never pickles, and compares in constant time.

    Such keys are often short (32 bits, or a default that everyone knows), so that a plain hash of one could be undone
    by trying them all. Fingerprint and commitment are therefore salted; the salt is kept in the key file.

    Parameters
    ----------
    format
        Name of the format, such as "vllm-gumbel".
    native
        The integers, in the system's order.
    salt
        16 bytes; drawn at random for a key that is imported, None.
    """

    __slots__ = ("_native", "_salt", "format")

    def __init__(self, format: str, native: NativeKey, salt: bytes | None = None) -> None:
        if salt is not None and len(salt) != SALT_BYTES:
            raise DyetraceError(f"a foreign key's salt must hold {SALT_BYTES} bytes (got {len(salt)})")
        self.format = format
        self._native = tuple(int(number) for number in native)
        self._salt = secrets.token_bytes(SALT_BYTES) if salt is None else bytes(salt)

    @property
    def native(self) -> NativeKey:
        """The integers themselves; only for computing words."""
        return self._native

    @property
    def _secret(self) -> bytes:
        return self._salt + self.reveal_hex().encode()

    @property
    def fingerprint(self) -> str:
        """32 hex digits that name the key in public: BLAKE2b-128 keyed by the salt, which reveals nothing else."""
        data = f"{self.format}:{self.reveal_hex()}".encode()
        return hashlib.blake2b(data, key=self._salt, digest_size=16, person=b"dyt:foreign\0\0\0\0\0").hexdigest()

    def commit(self, message: bytes) -> str:
        """Return SHA-256 over ``message`` and this key, hex (see `watermark.commitment`)."""
        return hashlib.sha256(message + self._secret).hexdigest()

    def reveal_hex(self) -> str:
        """Return the integers in hex, signed, separated by commas; only for writing key files."""
        return ",".join(f"{number:x}" for number in self._native)

    def fields(self) -> str:
        """What a key file says of it: format, salt and integers; secret."""
        return f"{self.format}:{self._salt.hex()}:{self.reveal_hex()}"

    @classmethod
    def from_fields(cls, format: str, salt: str, numbers: str) -> ForeignKey:
        """Read the parts of `fields`; ValueError where they are none."""
        native = tuple(int(number, 16) for number in numbers.split(",")) if numbers else ()
        data = bytes.fromhex(salt)
        if len(data) != SALT_BYTES:
            raise ValueError("not a salt")
        return cls(format, native, data)

    def __repr__(self) -> str:
        return f"ForeignKey({self.format!r}, <redacted>)"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ForeignKey)
            and self.format == other.format
            and hmac.compare_digest(self._secret, other._secret)
        )

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __copy__(self) -> ForeignKey:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ForeignKey:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ForeignKey cannot be pickled: pass a key source (file:, env:, cmd:) instead")
