"""Commitments: publish a hash today that shows later that spec and key were fixed before the suspect existed.

SHA-256 over a random salt, the canonical spec and the key hides the key (the salt has 256 bits) and binds the owner to
it. The null hypothesis of every test is about the key's randomness, so this is what makes a p-value evidence.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from watermark.errors import DyetraceError, EvidenceError
from watermark.files.writing import check_output, write_atomically, write_private
from watermark.interruption import held
from watermark.keys import MarkingKey
from watermark.spec import WatermarkSpec, check_key

_LABEL = b"dyetrace-commitment-v1\0"
_SALT_BYTES = 32
COMMITMENT_VERSION = 1


class Commitment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is published (all of it may be): the hash, what it is of, and when it was made by the owner's clock."""

    version: int = COMMITMENT_VERSION
    sha256: str
    spec_id: str
    key_fingerprint: str
    created: str


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the owner keeps beside the key, and hands over with it, to open the commitment."""

    version: int = COMMITMENT_VERSION
    sha256: str
    salt: str


_Kind = TypeVar("_Kind", Commitment, Opening)


def _digest(spec: WatermarkSpec, key: MarkingKey, salt: bytes) -> str:
    return key.commit(_LABEL + salt + spec.canonical_json)


def commit(spec: WatermarkSpec, key: MarkingKey) -> tuple[Commitment, Opening]:
    """Commit to ``spec`` and its ``key`` (the master key, or a foreign format's)."""
    check_key(spec, key.fingerprint)
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _digest(spec, key, salt)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    public = Commitment(sha256=digest, spec_id=spec.spec_id, key_fingerprint=key.fingerprint, created=created)
    return public, Opening(sha256=digest, salt=salt.hex())


def verify(commitment: Commitment, opening: Opening, spec: WatermarkSpec, key: MarkingKey) -> None:
    """Raise DyetraceError unless spec, key and salt are those that were committed to."""
    if spec.spec_id != commitment.spec_id:
        raise EvidenceError(f"the commitment is of spec {commitment.spec_id}, but this spec is {spec.spec_id}")
    if key.fingerprint != commitment.key_fingerprint:
        raise EvidenceError(f"the commitment is of key {commitment.key_fingerprint}, but this key is {key.fingerprint}")
    if opening.sha256 != commitment.sha256:
        raise EvidenceError(
            f"the opening is of another commitment ({opening.sha256}, not {commitment.sha256}); give its own"
        )
    try:
        salt = bytes.fromhex(opening.salt)
    except ValueError:
        raise EvidenceError("the opening's salt is damaged (not hexadecimal); restore the opening file") from None
    if len(salt) != _SALT_BYTES:
        raise EvidenceError(
            f"the opening's salt is damaged ({len(salt)} bytes, not {_SALT_BYTES}); restore the opening file"
        )
    if not hmac.compare_digest(_digest(spec, key, salt), commitment.sha256):
        raise EvidenceError("the opening does not fit the commitment: spec, key or salt was changed after it was made")


def stated_date(commitment: Commitment) -> str:
    """Say what a commitment's file states of its date, which the hash does not cover: "is dated 2026-11-29 ..."."""
    try:
        moment = datetime.fromisoformat(commitment.created)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return "has no date that can be read"
    future = " (in the future)" if moment > datetime.now(UTC) else ""
    return f"is dated {moment:%Y-%m-%d %H:%M:%S} UTC{future}"


def opening_path(commitment: Path) -> Path:
    """Where the opening of the commitment at this path is kept by default."""
    return commitment.with_name(commitment.name + ".opening")


def write_commitment(path: Path, commitment: msgspec.Struct, opening: msgspec.Struct) -> Path:
    """Write a public commitment to ``path`` and its opening, for the owner's eyes only, beside it; return where."""
    beside = opening_path(path)
    for target in (path, beside):
        check_output(target)
    with held():
        write_private(beside, _pretty(opening))
        try:
            write_atomically(path, _pretty(commitment), replace=False)
        except BaseException:
            beside.unlink()  # an opening of nothing would only be in the way
            raise
    return beside


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2) + b"\n"


def load_commitment(path: Path) -> Commitment:
    """Read a public commitment."""
    return _load(path, Commitment, "commitment")


def load_opening(path: Path) -> Opening:
    """Read an opening."""
    return _load(path, Opening, "commitment's opening")


def _load(path: Path, kind: type[_Kind], what: str) -> _Kind:
    try:
        loaded = msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise DyetraceError(f"cannot read {what} {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DyetraceError(f"{path} is not a whole {what}: {error}; restore the file") from None
    if loaded.version != COMMITMENT_VERSION:
        raise DyetraceError(
            f"{path} has version {loaded.version}, but this dyetrace reads version {COMMITMENT_VERSION}; "
            "use the release that wrote it"
        )
    return loaded
