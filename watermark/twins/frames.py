"""The file of a ledger of pairs: a header that never changes, then frames, each chained to the last by its hash.

A frame says in clear how long it is, the leaf hash of its pair (for `watermark.twins.merkle`), and names of the pair
and of its data key that mean nothing without the owner's key; the rest is ciphertext. Whoever has the file alone can
see that nothing in it was changed, and no more.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple, overload

import msgspec

from watermark.errors import DyetraceError, EvidenceError

LARGEST_SEALED = 1 << 26
"""Most bytes of one pair's ciphertext; no pair of answers comes near it."""

HASH_BYTES, NAME_BYTES, NONCE_BYTES = 32, 16, 12
_MAGIC, _LAYOUT = b"dytwins\0", 1
_FIXED = struct.Struct("<8sII")  # magic, layout, bytes of JSON
_CHECKSUM_BYTES, _CHECK_BYTES = 16, 4
_LARGEST_HEADER = 1 << 16
_FRAME = struct.Struct("<IB3x32s16s16s12s")  # bytes of ciphertext, level, leaf hash, pair, data key, nonce
HEAD_BYTES = _FRAME.size + _CHECK_BYTES
LEVELS = ("withheld", "regenerated")


class LedgerHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a ledger of pairs says of itself in clear.

    Attributes
    ----------
    identity
        32 hex digits drawn when it was made.
    key_fingerprint
        Names the owner's twin key.
    created
        UTC, by the clock of the machine that made it.
    """

    identity: str
    key_fingerprint: str
    created: str


class FrameHead(NamedTuple):
    """The clear part of a frame.

    Attributes
    ----------
    sealed
        Bytes of ciphertext that follow.
    level
        Place of the pair's level in `LEVELS`.
    leaf
        Leaf hash of the pair in the Merkle tree (32 bytes).
    name
        The pair's id, keyed (16 bytes): finds a pair whose id is known, and nothing else.
    key
        Random name of the data key (16 bytes).
    nonce
        AES-GCM's (12 bytes).
    """

    sealed: int
    level: int
    leaf: bytes
    name: bytes
    key: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame in its place.

    Attributes
    ----------
    number
        From 1.
    start
        Byte of the file at which it begins.
    raw
        Head, ciphertext and chain hash as they lie there.
    before
        The chain's hash before it (32 bytes).
    """

    number: int
    start: int
    raw: bytes
    before: bytes

    @property
    def head(self) -> FrameHead:
        """The clear part."""
        return FrameHead(*_FRAME.unpack_from(self.raw))

    @property
    def sealed(self) -> bytes:
        """The ciphertext."""
        return self.raw[HEAD_BYTES:-HASH_BYTES]

    @property
    def associated(self) -> bytes:
        """What the ciphertext is bound to: the clear part, and all that came before."""
        return associated(self.raw[:HEAD_BYTES], self.before)

    @property
    def hash(self) -> bytes:
        """The chain's hash after it."""
        return self.raw[-HASH_BYTES:]


class Heads(Sequence[FrameHead]):
    """The clear parts of many frames, packed: a ledger may have millions."""

    def __init__(self) -> None:
        self._packed = bytearray()

    def append(self, head: FrameHead) -> None:
        """Add the next one."""
        self._packed += _FRAME.pack(*head)

    def __len__(self) -> int:
        return len(self._packed) // _FRAME.size

    @overload
    def __getitem__(self, index: int) -> FrameHead: ...
    @overload
    def __getitem__(self, index: slice) -> list[FrameHead]: ...
    def __getitem__(self, index: int | slice) -> FrameHead | list[FrameHead]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        return FrameHead(*_FRAME.unpack_from(self._packed, places * _FRAME.size))


def new_header(key_fingerprint: str) -> LedgerHeader:
    """The header of a ledger that is made now."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return LedgerHeader(identity=secrets.token_hex(16), key_fingerprint=key_fingerprint, created=created)


def encode_header(header: LedgerHeader) -> bytes:
    """The bytes that a ledger begins with."""
    body = msgspec.json.encode(header)
    fixed = _FIXED.pack(_MAGIC, _LAYOUT, len(body))
    return fixed + body + _checksum(fixed + body)


def read_header(file: BinaryIO, path: Path) -> tuple[LedgerHeader, bytes]:
    """The header at the beginning of a file, and its hash, from which the chain starts.

    Raises
    ------
    DyetraceError
        It is no ledger of pairs, or another release's.
    EvidenceError
        The header is damaged.
    """
    fixed = file.read(_FIXED.size)
    if len(fixed) < _FIXED.size or not fixed.startswith(_MAGIC):
        raise DyetraceError(f"{path} is not a ledger of twins; give a file that `--twin-ledger` or the gateway wrote")
    _, layout, length = _FIXED.unpack(fixed)
    if layout != _LAYOUT:
        raise DyetraceError(
            f"ledger {path} has layout {layout}, but this dyetrace reads {_LAYOUT}; use the release that wrote it"
        )
    body = file.read(min(length, _LARGEST_HEADER))
    checksum = file.read(_CHECKSUM_BYTES)
    if checksum != _checksum(fixed + body):
        raise EvidenceError(f"ledger {path} is damaged (its header's checksum differs); restore it from a backup")
    try:
        header = msgspec.json.decode(body, type=LedgerHeader)
    except msgspec.MsgspecError as error:
        raise EvidenceError(f"the header of ledger {path} is damaged ({error}); restore it from a backup") from None
    return header, hashlib.sha256(fixed + body + checksum).digest()


def frames(file: BinaryIO, path: Path, start: bytes) -> Iterator[Frame]:
    """All whole frames from where a file stands, each checked against the chain.

    What a killed writer left unfinished at the end is passed over: fewer bytes than a frame's head, a head whose
    frame is longer than the file, or nothing but zero bytes where a power cut came before the data.

    Parameters
    ----------
    file, path
        Open behind its header, and what messages call it.
    start
        The chain's hash so far (32 bytes).

    Raises
    ------
    EvidenceError
        A frame elsewhere was changed or is damaged; the message names it.
    """
    before, number, at = start, 0, file.tell()
    size = os.fstat(file.fileno()).st_size
    while len(raw := file.read(HEAD_BYTES)) == HEAD_BYTES:
        number += 1
        where = f"pair {number} of ledger {path} (at byte {at:,})"
        sealed = FrameHead(*_FRAME.unpack_from(raw)).sealed
        if raw[_FRAME.size :] != _check(raw[: _FRAME.size]) or sealed > LARGEST_SEALED:
            if not any(raw) and _only_zeros(file):
                return
            raise EvidenceError(f"{where} is damaged or was changed: restore the file from a backup")
        end = at + HEAD_BYTES + sealed + HASH_BYTES
        if end > size:
            return
        raw += file.read(sealed + HASH_BYTES)
        if raw[-HASH_BYTES:] != chained(before, raw[:-HASH_BYTES]):
            if end == size and not any(raw[-HASH_BYTES:]):
                return
            raise EvidenceError(f"{where} does not fit its hash: it was changed, or one before it; restore the file")
        yield Frame(number, at, raw, before)
        before, at = raw[-HASH_BYTES:], end


def frame_head(head: FrameHead) -> bytes:
    """The clear part of a frame, as it is written."""
    fixed = _FRAME.pack(*head)
    return fixed + _check(fixed)


def associated(head: bytes, before: bytes) -> bytes:
    """What a ciphertext is bound to: its frame's head, and the chain's hash before the frame."""
    return head + before


def chained(before: bytes, frame: bytes) -> bytes:
    """The chain's hash after a frame: SHA-256 over the hash before it, and the frame."""
    return hashlib.sha256(before + frame).digest()


def _only_zeros(file: BinaryIO) -> bool:
    while chunk := file.read(1 << 20):
        if any(chunk):
            return False
    return True


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES, person=b"dyt:twins").digest()


def _check(head: bytes) -> bytes:
    """So that a damaged length is never taken for a frame that is unfinished, which would be cut off."""
    return hashlib.blake2b(head, digest_size=_CHECK_BYTES, person=b"dyt:twinframe").digest()
