"""What cuts and replies come to: requests to a target, and what happens when the key is drawn again.

All of it was fixed before seeds 1 and 2 were looked at: the product's bets in the order of serving.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.race.reading import Reader
from detect.race.bets import Growth, goes_on, log10_evalues
from detect.race.evidence import NOT_SAID, RaceEvidence
from detect.race.tilts import tilts
from watermark.keys import KeyRing, SecretKey

F64 = npt.NDArray[np.float64]

TARGETS = (6.0, 10.0)
ORDERS = 20
_EVER = math.log10(20.0)


@dataclass(frozen=True)
class Found:
    """What a suspect's replies come to under the key.

    Attributes
    ----------
    cuts, hits, expected
        Cuts where a word was said, those where the key had chosen it, and how many chance gives.
    log10_e
        After all of them.
    requests
        In all.
    cuts_to, requests_to
        By target: cuts and requests until it is reached, in the order of serving; None where it is not.
    middle_cuts_to, middle_requests_to
        The median over that order and `ORDERS` others.
    """

    cuts: int
    hits: float
    expected: float
    log10_e: float
    requests: int
    cuts_to: tuple[float | None, ...]
    requests_to: tuple[float | None, ...]
    middle_cuts_to: tuple[float | None, ...]
    middle_requests_to: tuple[float | None, ...]


def asked(evidence: RaceEvidence, growths: F64) -> npt.NDArray[np.int64]:
    """Rows that a readout asks for, which leaves answers whose bets don't win (`detect.race.bets.goes_on`)."""
    if evidence.ask not in ("logprobs", "bias", "greedy"):
        return np.arange(len(evidence))
    starts = np.flatnonzero(np.diff(evidence.steps, prepend=0)).tolist()
    rows: list[int] = []
    document, about, left = -1, 0, False
    growth = Growth()
    for start, stop in zip(starts, [*starts[1:], len(evidence)], strict=True):
        if evidence.documents[start] != document:
            document, about, left = int(evidence.documents[start]), 0, False
        if not left:
            about += 1
            rows += range(start, stop)
            growth.observe_all(evidence.documents[start:stop], growths[:, start:stop], each=False)
            left = not goes_on(about, growth.log_answer)
    return np.array(rows, dtype=np.int64)


def in_order(evidence: RaceEvidence, growths: F64, order: npt.NDArray[np.int64]) -> tuple[F64, npt.NDArray[np.int64]]:
    """Log10 e after each row that is asked for, and how many requests were made, with answers in some order."""
    rows = asked(evidence, growths)
    documents = evidence.documents[rows]
    place = np.argsort(np.argsort(order))[documents] if len(order) else documents
    turn = np.argsort(place, kind="stable")
    rows = rows[turn]
    curve = log10_evalues(place[turn].astype(np.int32), growths[:, rows])
    return curve, np.cumsum(np.diff(evidence.steps[rows], prepend=0) != 0)


def found(reader: Reader, evidence: RaceEvidence, seed: int = 0) -> Found:
    """Under the real key, in the order of serving, and the middle of other orders."""
    growths = reader.growths(evidence)
    orders = [np.arange(len(evidence.names))]
    orders += [np.random.default_rng([seed, n]).permutation(len(evidence.names)) for n in range(ORDERS)]
    cuts_to, requests_to = [], []
    for order in orders:
        curve, requests = in_order(evidence, growths, order)
        at = [int(np.argmax(curve >= target)) if (curve >= target).any() else None for target in TARGETS]
        cuts_to.append([math.inf if row is None else row + 1 for row in at])
        requests_to.append([math.inf if row is None else int(requests[row]) for row in at])
    curve, requests = in_order(evidence, growths, orders[0])
    evidence = evidence_at(evidence, asked(evidence, growths))
    said = np.flatnonzero(evidence.said != NOT_SAID)
    ring = reader.material.ring
    assert isinstance(ring.global_key, SecretKey)
    tilt = tilts(
        reader.material.spec,
        ring.global_key,
        evidence.contexts[said],
        evidence.subkeys[said],
        evidence.tokens[said],
        evidence.chances[said],
    ).mean(axis=0)
    word = (np.arange(len(said)), evidence.said[said])
    return Found(
        cuts=len(said),
        hits=float(tilt[word].sum()),
        expected=float(evidence.chances[said][word].sum()),
        log10_e=float(curve[-1]),
        requests=int(requests[-1]),
        cuts_to=tuple(map(_finite, cuts_to[0])),
        requests_to=tuple(map(_finite, requests_to[0])),
        middle_cuts_to=tuple(map(_finite, np.median(cuts_to, axis=0))),
        middle_requests_to=tuple(map(_finite, np.median(requests_to, axis=0))),
    )


def evidence_at(evidence: RaceEvidence, rows: npt.NDArray[np.int64]) -> RaceEvidence:
    """Some of the rows."""
    names = ("contexts", "subkeys", "documents", "positions", "tokens", "chances", "said", "shares", "steps")
    base = None if evidence.base is None else evidence.base[rows]
    return replace(evidence, base=base, **{name: getattr(evidence, name)[rows] for name in names})


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Redrawn:
    """What an innocent's chances are: the same replies under keys that were drawn again.

    Attributes
    ----------
    keys
        How many.
    ever
        Share of them under which the e-value ever was 20 or more.
    p_05, p_01
        Shares with min(1, 1/e) of at most .05 and .01 at the end.
    highest
        The largest log10 e-value at any time.
    """

    keys: int
    ever: float
    p_05: float
    p_01: float
    highest: float


def redrawn(reader: Reader, evidence: RaceEvidence, keys: int, seed: int = 0) -> Redrawn:
    """Draw the key again, ``keys`` times: its words at the contexts are all that the bets take of it."""
    draw = np.random.default_rng([17, seed])
    most, last = np.empty(keys), np.empty(keys)
    for number in range(keys):
        key = KeyRing.from_master(SecretKey(draw.bytes(32)), 0).global_key
        assert isinstance(key, SecretKey)
        curve, _ = in_order(evidence, reader.growths(evidence, key), np.arange(0))
        most[number], last[number] = curve.max(), curve[-1]
    return Redrawn(
        keys,
        float((most >= _EVER).mean()),
        float((last >= -math.log10(0.05)).mean()),
        float((last >= 2).mean()),
        float(most.max()),
    )
