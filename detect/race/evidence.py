"""What a race readout rests on: at each cut the context, the owner's chances and what the suspect said, in a file.

Whoever has it, the spec and the key computes the bets, the hits, the curve and the accounts again, without the suspect,
the owner's model or the served answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detect.records.arrays import encode_arrays, read_arrays, strings_array, strings_of
from detect.records.race import RaceAsk
from detect.records.written import clean
from watermark.errors import DyetraceError, EvidenceError

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]

EVIDENCE_FILE = "race.npz"
NO_TOKEN = -1
"""In a row of fewer candidates than the widest has."""
NOT_SAID = -1
"""For `RaceEvidence.said`: the suspect's word is not known, or is none of the candidates."""
_VERSION = 1
_ASKS: tuple[RaceAsk, ...] = ("weights", "prompt-logprobs", "echo", "logprobs", "bias", "greedy")
_OF_CUTS = ("contexts", "subkeys", "documents", "positions", "tokens", "chances", "said", "shares", "steps")
_LEAST_CHANCE = 1e-9  # of a candidate: what divides by it stays a number
_ROUNDING = 1e-6  # of sums of chances


@dataclass(frozen=True, slots=True, eq=False)
class RaceEvidence:
    """The cuts that were bet on, in the order of the bets, which is the order in which the answers were served.

    A cut is a place in a served answer: the suspect was shown all before it, and what it says stands against the word
    that the key chose there. Nothing here depends on that word.

    Attributes
    ----------
    ask
        What was read of the suspect; it decides how the replies are bet on (`detect.race.bets.bet_of`).
    contexts
        The h tokens before each cut, oldest first, shape (n, h) uint32.
    subkeys
        Which sub-key marked the answer; -1 where nobody recorded it. Shape (n,).
    documents
        Which answer a cut is in: a row of ``names``, ascending, shape (n,).
    positions
        Where in its answer, as `detect.models.reading.positions` counts; ascending in each answer. Shape (n,).
    tokens
        Candidates for the next token, shape (n, k); `NO_TOKEN` fills a row up.
    chances
        The owner's model's chances of them, shape (n, k), rows sum to 1; 0 where there is no candidate, and nowhere
        else. Any are allowed that were made without the key.
    said
        Column of the suspect's likeliest word, or `NOT_SAID`, shape (n,).
    shares
        The suspect's probabilities of the candidates, NaN where not known: shape (n, k), or (n, 0) where words alone
        were seen.
    steps
        How many requests had been answered with this row (weights: answers read), shape (n,).
    names
        Of all answers that were read: "FILE, line N".
    accounts
        Names of the accounts, ascending.
    account
        Whom each answer was served to: a place in ``accounts``, or -1. Shape (len(names),).
    base
        A reference model's probabilities of the candidates, shape (n, k), NaN in rows where it couldn't be asked; None
        where there is no reference. It tells what of the suspect's manner is its own.
    """

    ask: RaceAsk
    contexts: U32
    subkeys: I32
    documents: I32
    positions: I32
    tokens: I32
    chances: F64
    said: I32
    shares: F64
    steps: I32
    names: tuple[str, ...]
    accounts: tuple[str, ...]
    account: I32
    base: F64 | None = None

    def __len__(self) -> int:
        """How many cuts."""
        return len(self.documents)

    def part(self, rows: slice | npt.NDArray[np.bool_]) -> RaceEvidence:
        """Some of the cuts, in their order; all answers and accounts stay named."""
        changes: dict[str, Any] = {name: array[rows] for name, array in self._of_cuts.items()}
        return replace(self, **changes)

    @classmethod
    def joined(cls, parts: Sequence[RaceEvidence]) -> RaceEvidence:
        """Cuts that follow one another, one part at least, as one."""
        arrays = [part._of_cuts for part in parts]
        changes: dict[str, Any] = {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
        return replace(parts[0], **changes)

    @property
    def _of_cuts(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays that have a row for each cut."""
        base = {} if self.base is None else {"base": self.base}
        return {name: getattr(self, name) for name in _OF_CUTS} | base

    def until(self, row: int) -> RaceEvidence:
        """The first ``row`` cuts."""
        return self.part(slice(0, row))

    @property
    def silent(self) -> npt.NDArray[np.bool_]:
        """Where the reply says nothing, shape (n,)."""
        nothing = self.said == NOT_SAID
        return np.asarray(nothing & np.isnan(self.shares).all(axis=1)) if self.shares.shape[1] else nothing


def encode_evidence(evidence: RaceEvidence) -> bytes:
    """The bytes of the file; the same evidence gives the same bytes."""
    base = {} if evidence.base is None else {"base": evidence.base.astype("<f8")}
    return encode_arrays(
        {
            "version": np.array(_VERSION),
            "ask": strings_array([evidence.ask]),
            "contexts": evidence.contexts.astype("<u4"),
            "subkeys": evidence.subkeys.astype("<i4"),
            "documents": evidence.documents.astype("<i4"),
            "positions": evidence.positions.astype("<i4"),
            "tokens": evidence.tokens.astype("<i4"),
            "chances": evidence.chances.astype("<f8"),
            "said": evidence.said.astype("<i4"),
            "shares": evidence.shares.astype("<f8"),
            "steps": evidence.steps.astype("<i4"),
            "names": strings_array(evidence.names),
            "accounts": strings_array(evidence.accounts),
            "account": evidence.account.astype("<i4"),
            **base,
        }
    )


def read_evidence(path: Path) -> RaceEvidence:
    """Read the file.

    Raises
    ------
    DyetraceError
        It can't be read, is damaged, or its arrays don't fit together.
    """
    arrays = read_arrays(path)
    try:
        if int(arrays["version"]) != _VERSION:
            raise DyetraceError(f"{path} has version {int(arrays['version'])}, but this dyetrace reads {_VERSION}")
        (ask,) = strings_of(arrays["ask"])
        found = RaceEvidence(
            ask=_known(ask),
            contexts=arrays["contexts"].astype(np.uint32),
            subkeys=arrays["subkeys"].astype(np.int32),
            documents=arrays["documents"].astype(np.int32),
            positions=arrays["positions"].astype(np.int32),
            tokens=arrays["tokens"].astype(np.int32),
            chances=arrays["chances"].astype(np.float64),
            said=arrays["said"].astype(np.int32),
            shares=arrays["shares"].astype(np.float64),
            steps=arrays["steps"].astype(np.int32),
            names=strings_of(arrays["names"]),
            accounts=strings_of(arrays["accounts"]),
            account=arrays["account"].astype(np.int32),
            base=arrays["base"].astype(np.float64) if "base" in arrays else None,
        )
    except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise EvidenceError(
            f"{path} is not the evidence of a race readout ({error}); give the report's own {EVIDENCE_FILE}"
        ) from None
    wrong = what_is_wrong(found)
    if wrong:
        raise EvidenceError(f"{path} is damaged: {wrong}; restore it from a copy")
    return found


def _known(ask: str) -> RaceAsk:
    for known in _ASKS:
        if ask == known:
            return known
    raise ValueError(f"it was made by the ask {clean(ask)!r}, which this dyetrace does not know")


def what_is_wrong(found: RaceEvidence) -> str:
    """What doesn't fit in evidence, as a clause; "" where all does."""
    if not _fits(found):
        return "its arrays don't fit together"
    there = found.tokens != NO_TOKEN
    if (found.tokens < NO_TOKEN).any() or not _distinct(found.tokens, there):
        return "the candidates of a cut are not distinct tokens"
    if not _are_chances(found.chances, there):
        return "the owner's chances of a cut are no distribution over its candidates"
    rows = np.flatnonzero(found.said != NOT_SAID)
    if not ((found.said >= NOT_SAID) & (found.said < there.shape[1])).all() or not there[rows, found.said[rows]].all():
        return "the suspect's word at a cut is no candidate"
    if found.shares.shape[1] and not _are_shares(found.ask, found.shares, there):
        return "the suspect's probabilities at a cut are none"
    if found.base is not None and not _are_shares("weights", found.base, there):
        return "the reference's probabilities at a cut are none"
    return _out_of_order(found)


def _fits(found: RaceEvidence) -> bool:
    n, k = found.tokens.shape if found.tokens.ndim == 2 else (-1, -1)
    rows = (found.subkeys, found.documents, found.positions, found.said, found.steps)
    words_alone = found.ask in ("bias", "greedy")
    return (
        n >= 0
        and found.contexts.ndim == 2
        and len(found.contexts) == n
        and all(array.shape == (n,) for array in rows)
        and found.chances.shape == (n, k)
        and found.shares.shape == ((n, 0) if words_alone else (n, k))
        and found.account.shape == (len(found.names),)
        and (found.base is None or found.base.shape == (n, k))
        and bool((found.subkeys >= -1).all())
    )


def _distinct(tokens: I32, there: npt.NDArray[np.bool_]) -> bool:
    """Whether no candidate stands twice in a row: it would have one word of the key and two chances."""
    apart = np.sort(np.where(there, tokens, -1 - np.arange(tokens.shape[1])), axis=1)
    return bool((apart[:, 1:] != apart[:, :-1]).all())


def _are_chances(chances: F64, there: npt.NDArray[np.bool_]) -> bool:
    return (
        bool(np.isfinite(chances).all())
        and bool((np.where(there, chances >= _LEAST_CHANCE, chances == 0)).all())
        and bool((np.abs(chances.sum(axis=1) - 1) <= _ROUNDING).all())
    )


def _are_shares(ask: RaceAsk, shares: F64, there: npt.NDArray[np.bool_]) -> bool:
    """Whether they lie in 0 to 1, sum to at most 1, and but for an echo are known for all candidates or for none."""
    known = ~np.isnan(shares)
    numbers = np.where(known, shares, 0.0)
    whole = known.any(axis=1) == (known | ~there).all(axis=1)
    return (
        bool(((numbers >= 0) & (numbers <= 1 + _ROUNDING)).all())
        and bool((np.where(there, numbers, 0.0).sum(axis=1) <= 1 + _ROUNDING).all())
        and (ask == "echo" or bool(whole.all()))
    )


def _out_of_order(found: RaceEvidence) -> str:
    documents, positions = found.documents.astype(np.int64), found.positions.astype(np.int64)
    if not ((documents >= 0) & (documents < len(found.names))).all():
        return "a cut is of an answer that is not there"
    later = (documents[1:] > documents[:-1]) | ((documents[1:] == documents[:-1]) & (positions[1:] > positions[:-1]))
    if not later.all() or (np.diff(found.steps) < 0).any():
        return "its cuts are not in the order in which the answers were served"
    if not ((found.account >= -1) & (found.account < len(found.accounts))).all():
        return "an answer is of an account that is not there"
    if any(one >= other for one, other in pairwise(found.accounts)):
        return "its accounts are not in order"
    # Under an account's own key it may stand once for each account; the global key's `detect.race.conclude` looks at.
    if repeated(found, found.account[found.documents]):
        return "a context stands in it twice"
    return ""


def repeated(evidence: RaceEvidence, key: I32) -> bool:
    """Whether a context stands twice under one key: given a number for each cut's, shape (n,).

    Where one sub-key is unknown, a context stands for all of them (`detect.models.reading.positions`).
    """
    told_apart = evidence.subkeys if (evidence.subkeys >= 0).all() else np.full_like(evidence.subkeys, -1)
    apart = np.column_stack([evidence.contexts, told_apart.astype(np.uint32), key.astype(np.uint32)])
    return len(np.unique(apart, axis=0)) != len(evidence)
