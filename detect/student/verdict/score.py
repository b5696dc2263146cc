"""Integer scores of words for tracing, with their exact law.

Tracing sums scores with weights of either sign, so a bound of the law on one side (as `detect.document.blind` has for
`gumbel`) does not serve: the law must be that of the integers that are summed. Counts and layer bits are such already;
scores in nats are rounded down to eighths, whose probabilities follow exactly from the 2^32 words. Where two keys may
have chosen (`Hypoexponential`), each key's score is rounded down to halves and their weights to tenths: the finer the
values, the longer the lattice that tails are computed on. Of formats that are not exact the law is the ideal one; only
moments are taken from it, for the true key is ranked among decoys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detect.laws.evalues import moments
from watermark.formats.protocol import is_exact
from watermark.laws import Bernoulli, Exponential, Hypoexponential, Lattice, WeightedBits
from watermark.prf import U32
from watermark.schemes.protocol import I64, Scheme

STEPS_PER_NAT = 8
MOST_NATS = 16  # one word in 9 million scores more, and counts as this much
_TENTHS = 10
_BLENDED_STEPS_PER_NAT = 2


@dataclass(frozen=True)
class TraceScore:
    """What a tuple scores under a key, and the law of that without the key.

    Attributes
    ----------
    scheme
        Whose statistic it is.
    law
        Of the integer score.
    mean, sd
        Its moments.
    """

    scheme: Scheme
    law: Bernoulli | WeightedBits | Lattice
    mean: float
    sd: float

    @classmethod
    def of(cls, scheme: Scheme) -> TraceScore:
        """The score of a scheme.

        Raises
        ------
        ValueError
            If the scheme has an `Exponential` law but its statistic does not grow with the word.
        """
        law = scheme.law
        if isinstance(law, Exponential):
            law = _law_in_steps(scheme, STEPS_PER_NAT)
        elif isinstance(law, Hypoexponential):
            single = _law_in_steps(scheme.single, _BLENDED_STEPS_PER_NAT)  # type: ignore[attr-defined]
            law = _summed(single, _whole(law))
        return cls(scheme, law, *moments(law))

    def __call__(self, words: U32) -> I64:
        """Scores of words, (n,) uint32 -> (n,) int64."""
        law = self.scheme.law
        if isinstance(law, Exponential):
            return _steps(self.scheme, words, STEPS_PER_NAT)
        if isinstance(law, Hypoexponential):
            single: Scheme = self.scheme.single  # type: ignore[attr-defined]
            low, high = (words & np.uint64(0xFFFFFFFF)).astype(np.uint32), (words >> np.uint64(32)).astype(np.uint32)
            first, second = _whole(law)
            return first * _steps(single, low, _BLENDED_STEPS_PER_NAT) + second * _steps(
                single, high, _BLENDED_STEPS_PER_NAT
            )
        return self.scheme.statistic(words)


def _steps(scheme: Scheme, words: U32, per_nat: int) -> I64:
    return np.minimum(scheme.statistic(words) // _units_per_step(scheme, per_nat), per_nat * MOST_NATS)


def _whole(law: Hypoexponential) -> tuple[int, int]:
    """The weights as small whole numbers, nearly in their proportion."""
    first, second = (max(1, round(weight * _TENTHS / sum(law.weights))) for weight in law.weights)
    common = math.gcd(first, second)
    return first // common, second // common


def _summed(law: Lattice, weights: tuple[int, int]) -> Lattice:
    """The law of the weighted sum of two independent draws."""
    values = np.add.outer(weights[0] * np.array(law.values), weights[1] * np.array(law.values)).ravel()
    chances = np.multiply.outer(law.probabilities, law.probabilities).ravel()
    distinct, place = np.unique(values, return_inverse=True)
    summed = np.bincount(place, weights=chances)
    return Lattice(tuple(distinct.tolist()), tuple(summed.tolist()))


def _units_per_step(scheme: Scheme, per_nat: int) -> int:
    return max(1, round(1 / (per_nat * scheme.unit)))


def _law_in_steps(scheme: Scheme, per_nat: int) -> Lattice:
    """The law of an exponential statistic in steps, from the number of words that reach each step.

    The statistic grows with the word, so the least word that reaches a step is found by halving.
    """
    if not is_exact(scheme):
        reached = np.append(np.exp(-np.arange(per_nat * MOST_NATS + 1) / per_nat), 0.0)
        return Lattice(tuple(range(per_nat * MOST_NATS + 1)), tuple((-np.diff(reached)).tolist()))
    some = scheme.statistic(np.linspace(0, 2**32 - 1, 1025).astype(np.uint32))
    if np.any(np.diff(some) < 0):
        raise ValueError(f"tracing needs a statistic that grows with the word, and that of {scheme.name!r} does not")
    steps = np.arange(per_nat * MOST_NATS + 1)
    wanted = steps * _units_per_step(scheme, per_nat)
    low, high = np.full(len(steps), -1, dtype=np.int64), np.full(len(steps), 2**32, dtype=np.int64)
    while np.any(high - low > 1):
        middle = np.clip((low + high) // 2, 0, 2**32 - 1)
        enough = scheme.statistic(middle.astype(np.uint32)) >= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    words = np.append(2**32 - high, 0)
    counts = -np.diff(words)
    possible = counts > 0
    probabilities = counts[possible] / 2**32
    assert math.isclose(math.fsum(probabilities), 1.0)
    return Lattice(tuple(steps[possible].tolist()), tuple(probabilities.tolist()))
