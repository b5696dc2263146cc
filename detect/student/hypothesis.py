"""The tests of a trace: totals under keys, their exact tails given the weights, and e-values.

H0: the suspect was made without knowledge of the key. Its predictions, the references and so the weights are then
fixed while the key is random, and the words of distinct (context, token) tuples are independent and uniform. So the
total is a weighted sum of independent scores, and its law is known without any approximation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from detect.lattice import LatticeSum
from detect.scoring import global_among
from detect.student.score import TraceScore
from detect.student.weights import STEPS, WeightedTuples
from detect.tails import log10_sf_weighted_many
from watermark import prf
from watermark.keys import SecretKey
from watermark.prf import U32
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

Floats = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Sided = Literal["upper", "two-sided"]

_CHUNK = 1 << 16  # tuples whose words stay in cache
EFFECTS = np.geomspace(0.01, 1.0, 13)
"""Tilts that the e-values mix: how far the mean score moves, in its standard deviations, for a weight of 1.

They are fixed beforehand, so that they serve a sequence of readings whose weights are not known yet.
"""


@dataclass(frozen=True, eq=False)
class WeightedTest:
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

    def z(self, total: int) -> float:
        """The total in standard deviations from its mean; 0 where nothing was summed."""
        mean, sd = self.moments
        return (total - mean) / sd if sd else 0.0

    def totals(self, keys: Sequence[SecretKey]) -> I64:
        """The total under each key, shape (len(keys),)."""
        return np.array([sum(int(part.sum()) for _, part in self._scored(key)) for key in keys], dtype=np.int64)

    def by_context(self, key: SecretKey) -> I64:
        """Each context's part of the total under a key, shape (c,)."""
        sums = np.zeros(len(self.tuples.contexts), dtype=np.int64)
        for context, part in self._scored(key):
            np.add.at(sums, context, part)
        return sums

    def _scored(self, key: SecretKey) -> Iterator[tuple[I64, I64]]:
        """Contexts and weighted scores of each chunk of tuples under each sub-key in question."""
        for index, (nonces, tokens, weights, context) in enumerate(self._parts):
            part = subkey(key, index)
            if nonces is None:
                wide = prf.context_key_words(part, self.tuples.contexts.shape[1])
                nonces = np.ascontiguousarray(prf.nonces(self.tuples.contexts, wide)[:, context])
            for start in range(0, len(tokens), _CHUNK):
                chosen = slice(start, start + _CHUNK)
                words = prf.words_at(part.words, np.ascontiguousarray(nonces[:, chosen]), tokens[chosen])
                yield context[chosen], self.score(words) * weights[chosen]

    @cached_property
    def _parts(self) -> list[tuple[U32 | None, U32, I64, I64]]:
        """For each sub-key the tuples that it is in question for: nonces (None where they depend on it), tokens,
        weights and contexts.
        """
        tuples = self.tuples
        narrow = tuples.contexts.shape[1] <= prf.NONCE_WORDS
        nonces = prf.nonces(tuples.contexts, None)[:, tuples.context] if narrow else None
        of = tuples.subkeys[tuples.context]
        if np.all(of < 0):
            return [(nonces, tuples.tokens, tuples.weights, tuples.context)] * self.pool
        parts = []
        for index in range(self.pool):
            mine = (of < 0) | (of == index)
            some = None if nonces is None else nonces[:, mine]
            parts.append((some, tuples.tokens[mine], tuples.weights[mine], tuples.context[mine]))
        return parts

    @cached_property
    def multiset(self) -> tuple[I64, I64]:
        """Distinct weights and how many words have each."""
        distinct, place = np.unique(self.tuples.weights, return_inverse=True)
        return distinct, np.bincount(place, weights=self.draws, minlength=len(distinct)).astype(np.int64)

    def log10_pvalues(self, totals: npt.ArrayLike, *, keys: int = 1) -> Floats:
        """Exact log10 P(total >= these) given the weights; ``keys`` independent keys' totals may be summed."""
        weights, counts = self.multiset
        return log10_sf_weighted_many(self.score.law, np.repeat(weights, counts * keys), totals)

    def log10_pvalues_lower(self, totals: npt.ArrayLike) -> Floats:
        """Exact log10 P(total <= these) given the weights."""
        weights, counts = self.multiset
        return log10_sf_weighted_many(self.score.law, np.repeat(-weights, counts), -np.asarray(totals))

    def log10_evalue(self, total: int, sided: Sided = "upper", *, keys: int = 1) -> float:
        """Log10 of the mean over theta of exp(theta T - K(theta)), K the log moment generating function of the total.

        The thetas are fixed (`EFFECTS`), so it is the value of a test martingale at the end of a sequence of steps,
        where each step's weights may depend on all that was seen before, words included: given those, E exp(theta T)
        of the step's new tuples is exp of its K, and K adds up. So it may be looked at after every step, and 1 / E
        bounds a p-value (Ville 1939; Robbins, "Statistical methods related to the law of the iterated logarithm",
        1970).

        Parameters
        ----------
        total
            T.
        sided
            With ``two-sided`` negative thetas are mixed in as well.
        keys
            How many independent keys' totals were summed.
        """
        return log10_mean(self.log_growths(total, sided, keys=keys))

    def log_growths(self, total: int, sided: Sided = "upper", *, keys: int = 1) -> Floats:
        """theta T - K(theta) of each theta that `log10_evalue` mixes, nats; those of successive steps add up."""
        thetas = EFFECTS / (self.score.sd * STEPS)
        if sided == "two-sided":
            thetas = np.concatenate([thetas, -thetas])
        weights, counts = self.multiset
        if not len(weights):
            return np.zeros(len(thetas))
        lattice = LatticeSum.of(self.score.law, weights, counts * keys)
        centred = lattice.tilt(0.0)
        # `cgf` is around the mean and in the lattice's own step.
        excess = total - keys * self.moments[0]
        return np.array([theta * excess - centred.cgf(theta * lattice.span) for theta in thetas.tolist()])


def log10_mean(log_growths: Floats) -> float:
    """Log10 of the mean over the mixed thetas."""
    top = log_growths.max()
    return float((top + np.log(np.exp(log_growths - top).mean())) / math.log(10))


def of_global_key(spec: WatermarkSpec, selector: SecretKey, tuples: WeightedTuples) -> npt.NDArray[np.bool_]:
    """Which contexts the global key marks, (c,) bool; tenants' keys mark the others."""
    return global_among(spec, selector, len(tuples.contexts), lambda key: prf.nonces(tuples.contexts, key))


def key_test(spec: WatermarkSpec, selector: SecretKey, tuples: WeightedTuples, *, of_global: bool) -> WeightedTest:
    """The test on the contexts of the global key, or on those of tenants' keys."""
    mine = of_global_key(spec, selector, tuples)
    score = TraceScore.of(spec.build_scheme())
    return WeightedTest(score, tuples.of_contexts(mine if of_global else ~mine), spec.subkeys)
