"""What is published of a ledger of pairs before a suspect is asked, and what an expert is shown of single pairs later.

The commitment holds a Merkle root and nothing that helps anybody to learn a pair or a coin. A reveal holds some pairs
whole, each with the way from it to the root.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from watermark.errors import DyetraceError, EvidenceError
from watermark.keys.secret import KEY_BYTES, SecretKey
from watermark.twins.ledger import SALT_BYTES, TwinLedger, canonical
from watermark.twins.merkle import inclusion_paths, is_included, leaf_hash
from watermark.twins.pair import Pair, coin_key, coin_proof, tossed

TWIN_COMMITMENT_VERSION = 1
_LABEL = b"dyetrace-twin-coin-v1\0"
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class TwinCommitment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is published of a ledger; all of it may be.

    Attributes
    ----------
    root
        Merkle root over the leaf hashes of the first ``pairs`` pairs, sorted by hash (RFC 6962), hex.
    pairs
        How many there were, erased ones included.
    key_fingerprint
        Names the twin key.
    coin_sha256
        SHA-256 over a label, a random salt and the key that coins are tossed under.
    created
        UTC, by the owner's clock.
    """

    format: Literal["dyetrace-twin-commitment"] = "dyetrace-twin-commitment"
    version: int = TWIN_COMMITMENT_VERSION
    root: str
    pairs: int
    key_fingerprint: str
    coin_sha256: str
    created: str


class TwinOpening(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the owner keeps, and hands to an expert who is to compute the coins anew.

    Attributes
    ----------
    coin_sha256
        That of the commitment which it opens.
    salt
        64 hex digits.
    coin_key
        The key that coins are tossed under, hex. It opens no pair.
    """

    format: Literal["dyetrace-twin-opening"] = "dyetrace-twin-opening"
    version: int = TWIN_COMMITMENT_VERSION
    coin_sha256: str
    salt: str
    coin_key: str

    def __repr__(self) -> str:
        return "TwinOpening(<redacted>)"


class RevealedPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pair, and the way from it to the root.

    Attributes
    ----------
    pair
        The whole pair.
    salt
        64 hex digits, hashed before it.
    index
        Place of its leaf hash among all, sorted.
    path
        The audit path, from the leaf up (RFC 6962, section 2.1.1), hex.
    """

    pair: Pair
    salt: str
    index: int
    path: list[str]


class TwinReveal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pairs that an expert is shown.

    Attributes
    ----------
    root, pairs, key_fingerprint
        Of the ledger, as its commitment has them.
    revealed
        The pairs.
    """

    format: Literal["dyetrace-twin-reveal"] = "dyetrace-twin-reveal"
    version: int = TWIN_COMMITMENT_VERSION
    root: str
    pairs: int
    key_fingerprint: str
    revealed: list[RevealedPair]


def commit_twins(ledger: TwinLedger, secret: SecretKey) -> tuple[TwinCommitment, TwinOpening]:
    """Commit to all pairs of a ledger and to the key of its coins."""
    salt, coins = secrets.token_bytes(SALT_BYTES), coin_key(secret)
    digest = coins.commit(_LABEL + salt)
    public = TwinCommitment(
        root=ledger.root(),
        pairs=ledger.count,
        key_fingerprint=ledger.key_fingerprint,
        coin_sha256=digest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return public, TwinOpening(coin_sha256=digest, salt=salt.hex(), coin_key=coins.reveal_hex())


def check_committed(ledger: TwinLedger, commitment: TwinCommitment) -> None:
    """Raise EvidenceError unless a commitment is of this ledger as it was at some time; it may have grown since."""
    if commitment.key_fingerprint != ledger.key_fingerprint:
        raise EvidenceError(
            f"the commitment is of twin key {commitment.key_fingerprint}, but ledger {ledger.path} is of "
            f"{ledger.key_fingerprint}"
        )
    if commitment.pairs > ledger.count:
        raise EvidenceError(
            f"the commitment is of {commitment.pairs:,} pairs, but ledger {ledger.path} has {ledger.count:,}: pairs "
            "were removed, or it is another ledger"
        )
    if ledger.root(commitment.pairs) != commitment.root:
        raise EvidenceError(
            f"the commitment's root is not that of the first {commitment.pairs:,} pairs of ledger {ledger.path}: it is "
            "another ledger, or it was written anew"
        )


def reveal_twins(ledger: TwinLedger, ids: Sequence[str], commitment: TwinCommitment | None = None) -> TwinReveal:
    """Show some pairs whole, with the way from each to the root.

    Parameters
    ----------
    ledger
        Open with its key.
    ids
        The pairs' ids.
    commitment
        Whose root it is to be; by default that of the ledger as it is now.

    Raises
    ------
    DyetraceError
        A pair is not there, was erased, or is younger than the commitment.
    EvidenceError
        The commitment is not of this ledger.
    """
    if commitment is not None:
        check_committed(ledger, commitment)
    first = ledger.count if commitment is None else commitment.pairs
    stored = {one.pair.id: one for one in ledger.stored(ids)}
    for pair_id in ids:
        if pair_id not in stored:
            state = "was erased" if pair_id in ledger else "is not in it; `dyetrace twins export` lists all"
            raise DyetraceError(f"pair {pair_id!r} of ledger {ledger.path} can't be shown: it {state}")
        if stored[pair_id].number > first:
            raise DyetraceError(f"pair {pair_id!r} is younger than the commitment, which is of the first {first:,}")
    shown = [stored[pair_id] for pair_id in dict.fromkeys(ids)]
    paths = inclusion_paths(ledger.leaves(first), [one.leaf for one in shown])
    return TwinReveal(
        root=ledger.root(first),
        pairs=first,
        key_fingerprint=ledger.key_fingerprint,
        revealed=[
            RevealedPair(pair=one.pair, salt=one.salt.hex(), index=index, path=[step.hex() for step in path])
            for one, (index, path) in zip(shown, paths, strict=True)
        ],
    )


def verify_reveal(reveal: TwinReveal, commitment: TwinCommitment, opening: TwinOpening | None = None) -> None:
    """Check that every pair of a reveal was among those committed to, and was served as its coin says.

    Parameters
    ----------
    reveal, commitment
        What an expert was given, and what was published.
    opening
        With it each coin is computed anew; without, a coin's proof is compared with what was served.

    Raises
    ------
    EvidenceError
        Something does not fit; the message names the first such thing.
    """
    for what, mine, theirs in (
        ("root", reveal.root, commitment.root),
        ("number of pairs", reveal.pairs, commitment.pairs),
        ("twin key", reveal.key_fingerprint, commitment.key_fingerprint),
    ):
        if mine != theirs:
            raise EvidenceError(f"the reveal is of another commitment: its {what} is {mine!r}, not {theirs!r}")
    coins = None if opening is None else _opened(opening, commitment)
    seen = set[str]()
    for one in reveal.revealed:
        pair = one.pair
        where = f"pair {pair.id!r}"
        if pair.id in seen:
            raise EvidenceError(f"{where} is shown twice")
        seen.add(pair.id)
        try:
            salt, path = _hex(one.salt, SALT_BYTES), [_hex(step, 32) for step in one.path]
            entry, root = salt + canonical(pair), _hex(reveal.root, 32)
        except (ValueError, DyetraceError) as error:
            raise EvidenceError(f"{where} can't be hashed ({error}); it was changed") from None
        if not is_included(leaf_hash(entry), one.index, reveal.pairs, path, root):
            raise EvidenceError(f"{where} is not among the pairs that were committed to, or was changed since")
        _check_coin(pair, coins, where)


def _check_coin(pair: Pair, coins: SecretKey | None, where: str) -> None:
    if pair.level == "regenerated":
        if pair.proof is not None:
            raise EvidenceError(f"{where} is a twin that was drawn later, and has a coin's proof, which it can't have")
        return
    proof = pair.proof or ""
    try:
        _hex(proof, 32)
    except ValueError:
        raise EvidenceError(f"{where} has no proof of its coin") from None
    if tossed(proof) != pair.served:
        raise EvidenceError(f"{where} was not served as its coin says")
    if coins is not None and not hmac.compare_digest(coin_proof(coins, pair.id), proof):
        raise EvidenceError(f"{where} has a proof that is not of its coin under the key that was committed to")


def _opened(opening: TwinOpening, commitment: TwinCommitment) -> SecretKey:
    """The coin key, if it is what was committed to."""
    if opening.coin_sha256 != commitment.coin_sha256:
        raise EvidenceError("the opening is of another commitment; give its own")
    try:
        salt, coins = _hex(opening.salt, SALT_BYTES), SecretKey(_hex(opening.coin_key, KEY_BYTES))
    except ValueError:
        raise EvidenceError("the opening is damaged (its salt or key is not hexadecimal); restore it") from None
    if not hmac.compare_digest(coins.commit(_LABEL + salt), commitment.coin_sha256):
        raise EvidenceError("the opening does not fit the commitment: its salt or key was changed")
    return coins


def _hex(text: str, size: int) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != size or data.hex() != text:
        raise ValueError(f"not {2 * size} hex digits")
    return data


def encode_reveal(reveal: TwinReveal) -> bytes:
    """The bytes of a reveal's file."""
    return json.dumps(msgspec.to_builtins(reveal), sort_keys=True, indent=2).encode() + b"\n"


def load_twin_commitment(path: Path) -> TwinCommitment:
    """Read a commitment to twins."""
    return _load(path, TwinCommitment, "commitment to twins")


def load_twin_opening(path: Path) -> TwinOpening:
    """Read the opening of a commitment to twins."""
    return _load(path, TwinOpening, "opening of a commitment to twins")


def load_reveal(path: Path) -> TwinReveal:
    """Read a reveal."""
    return _load(path, TwinReveal, "reveal of twins")


def _load(path: Path, kind: type[_Kind], what: str) -> _Kind:
    try:
        plain = json.loads(path.read_bytes())
    except OSError as error:
        raise DyetraceError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DyetraceError(f"{path} is not a {what} (it is not whole JSON); restore the file") from None
    version = plain.get("version") if isinstance(plain, dict) else None
    if type(version) is int and version != TWIN_COMMITMENT_VERSION:
        raise DyetraceError(
            f"{path} has version {version}, but this dyetrace reads version {TWIN_COMMITMENT_VERSION}; use the release "
            "that wrote it"
        )
    try:
        return msgspec.convert(plain, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DyetraceError(f"{path} is not a {what}: {error}") from None
