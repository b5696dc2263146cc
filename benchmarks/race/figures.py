"""What cuts and replies come to: requests to a target, and what happens when the key is drawn again.

All of it was fixed before seeds 1 and 2 were looked at: the product's bets in the order of serving.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.race.reading import Reader
from detect.race.bets import log10_evalues
from detect.race.evidence import NOT_SAID, RaceEvidence
from detect.race.tilts import tilts
from watermark.keys import KeyRing, SecretKey

F64 = npt.NDArray[np.float64]

TARGETS = (6.0, 10.0)
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
    cuts_to, requests_to
        By target: cuts and requests until it is reached; None where it is not.
    """

    cuts: int
    hits: float
    expected: float
    log10_e: float
    cuts_to: tuple[int | None, ...]
    requests_to: tuple[int | None, ...]


def found(reader: Reader, evidence: RaceEvidence) -> Found:
    """Under the real key, in the order of serving."""
    curve = log10_evalues(evidence.documents, reader.growths(evidence))
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
    first = [np.flatnonzero(curve >= target)[:1].tolist() for target in TARGETS]
    return Found(
        cuts=len(said),
        hits=float(tilt[word].sum()),
        expected=float(evidence.chances[said][word].sum()),
        log10_e=float(curve[-1]),
        cuts_to=tuple(rows[0] + 1 if rows else None for rows in first),
        requests_to=tuple(int(evidence.steps[rows[0]]) if rows else None for rows in first),
    )


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
        curve = log10_evalues(evidence.documents, reader.growths(evidence, key))
        most[number], last[number] = curve.max(), curve[-1]
    return Redrawn(
        keys,
        float((most >= _EVER).mean()),
        float((last >= -math.log10(0.05)).mean()),
        float((last >= 2).mean()),
        float(most.max()),
    )
