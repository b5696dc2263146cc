"""The tests of a trace: totals under keys, their exact tails given the weights, and e-values.

H0: the suspect was made without knowledge of the key. Its predictions, the references and so the weights are then fixed
while the key is random, and the words of distinct (context, token) tuples are independent and uniform. So the total is a
weighted sum of independent scores, and its law is known without any approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from detect.lattice import LatticeSum
from detect.student.score import TraceScore
from detect.student.weights import STEPS, WeightedTuples
from detect.tails import log10_sf_weighted_many
from watermark import prf
from watermark.keys import SecretKey
from watermark.rowkeys import selector_threshold, subkey
from watermark.spec import WatermarkSpec

Floats = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_CHUNK = 1 << 16  # tuples whose words stay in cache
EFFECTS = np.geomspace(0.01, 1.0, 13)
"""Tilts that the e-values mix: how far the mean score moves, in its standard deviations, for a weight of 1.

They are fixed beforehand, so that they serve a sequence of readings whose weights are not known yet.
"""


@dataclass(frozen=True, eq=False)
class Test:
    """One family of sums: fixed weights, any number of keys.

    Attributes
    ----------
    score
        Of words.
    tuples
        The weighted tuples.
    pool
        How many sub-keys a key has.
    """

    score: TraceScore
    tuples: WeightedTuples
    pool: int

    @cached_property
    def draws(self) -> I64:
        """How many words each tuple stands for: 1 where its context's sub-key is known, else all sub-keys', (n,)."""
        return np.where(self.tuples.subkeys[self.tuples.context] < 0, self.pool, 1)

    @property
    def words(self) -> int:
        """Words that are summed."""
        return int(self.draws.sum())

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Exact mean and standard deviation of the total without the key."""
        w = self.tuples.weights.astype(np.float64)
        return float(self.score.mean * (w @ self.draws)), float(self.score.sd * math.sqrt(w**2 @ self.draws))

    def totals(self, keys: Sequence[SecretKey]) -> I64:
        """The total under each key, shape (len(keys),)."""
        return np.array([self.by_context(key).sum() for key in keys], dtype=np.int64)

    def by_context(self, key: SecretKey) -> I64:
        """Each context's part of the total, shape (c,)."""
        parts = [subkey(key, index) for index in range(self.pool)]
        sums = np.zeros(len(self.tuples.contexts), dtype=np.int64)
        for index, part in enumerate(parts):
            context_key = prf.context_key_words(part, self.tuples.contexts.shape[1])
            nonces = prf.nonces(self.tuples.contexts, context_key)
            mine = (self.tuples.subkeys < 0) | (self.tuples.subkeys == index)
            for start in range(0, len(self.tuples), _CHUNK):
                chosen = slice(start, start + _CHUNK)
                context = self.tuples.context[chosen]
                words = prf.words_at(part.words, np.ascontiguousarray(nonces[:, context]), self.tuples.tokens[chosen])
                scores = self.score(words) * self.tuples.weights[chosen] * mine[context]
                sums += np.bincount(context, weights=scores, minlength=len(sums)).astype(np.int64)
        return sums

    def log10_pvalues(self, totals: npt.ArrayLike) -> Floats:
        """Exact log10 P(total >= these) given the weights."""
        return log10_sf_weighted_many(self.score.law, np.repeat(*self._weights), totals)

    def log10_pvalues_lower(self, totals: npt.ArrayLike) -> Floats:
        """Exact log10 P(total <= these) given the weights."""
        weights, counts = self._weights
        return log10_sf_weighted_many(self.score.law, np.repeat(-weights, counts), -np.asarray(totals))

    @cached_property
    def _weights(self) -> tuple[I64, I64]:
        distinct, place = np.unique(self.tuples.weights, return_inverse=True)
        return distinct, np.bincount(place, weights=self.draws).astype(np.int64)

    @cached_property
    def log_growth(self) -> EProcess:
        """The e-process of the total, with the whole of it as one step."""
        return EProcess.start(self.score).add(self)

    def log10_evalue(self, total: int) -> float:
        """Log10 of the mixture e-value of a total."""
        return self.log_growth.log10_evalue(total)


@dataclass(frozen=True, eq=False)
class EProcess:
    """A test martingale: the mean over theta of exp(theta T - K(theta)), T the total so far, K its log moment function.

    Each step's weights may depend on all that was seen before, words included: given those, E exp(theta T) of the step's
    new tuples is exp(K(theta)). So it may be looked at after every step (Robbins 1970; Ville 1939), and 1 / E bounds a
    p-value.

    Attributes
    ----------
    thetas
        Shape (m,), per unit of weight times score.
    cumulant
        K of all tuples so far at each theta, nats.
    """

    thetas: Floats
    cumulant: Floats

    @classmethod
    def start(cls, score: TraceScore) -> EProcess:
        """Nothing seen yet."""
        thetas = EFFECTS / (score.sd * STEPS)
        return cls(thetas, np.zeros(len(thetas)))

    def add(self, test: Test) -> EProcess:
        """With the tuples of one more step, none of which stood in an earlier one under the same sub-key."""
        distinct, counts = test._weights
        tilt = LatticeSum.of(test.score.law, distinct, counts)
        at = tilt.tilt(0.0)
        mean = test.moments[0]
        # LatticeSum counts in its own units from its least value: cgf is around the mean, so only the unit matters.
        added = np.array([theta * mean + at.cgf(theta * tilt.span) for theta in self.thetas])
        return EProcess(self.thetas, self.cumulant + added)

    def log10_evalue(self, total: int) -> float:
        """Log10 of the e-value of the total so far."""
        exponents = self.thetas * total - self.cumulant
        top = exponents.max()
        return float((top + np.log(np.exp(exponents - top).mean())) / math.log(10))


def of_global_key(spec: WatermarkSpec, selector: SecretKey, tuples: WeightedTuples) -> npt.NDArray[np.bool_]:
    """Which contexts the global key marks, (c,) bool; tenants' keys mark the others."""
    threshold = selector_threshold(spec)
    if threshold in (0, 2**32):
        return np.full(len(tuples.contexts), threshold > 0)
    nonces = prf.nonces(tuples.contexts, prf.context_key_words(selector, spec.context_width))
    words = prf.words_at(selector.words, nonces, np.zeros(len(tuples.contexts), dtype=np.uint32))
    return np.asarray(words < np.uint32(threshold))
