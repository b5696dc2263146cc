"""The tests of a trace: totals under keys, their exact tails given the weights, and e-values.

H0: the suspect was made without knowledge of the key. Its predictions, the references and so the weights are then
fixed while the key is random, and the words of distinct (context, token) tuples are independent and uniform. So the
total is a weighted sum of independent scores, and its law is known without any approximation. Of a foreign format whose
words are no match for that, the true key's total is ranked among decoy keys' (`detect.keyed.calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from detect.keyed.calibration import rank_log10, staged_rank, stages
from detect.keyed.decoys import decoy_globals
from detect.keyed.owners import owned_contexts
from detect.keyed.words import Source
from detect.laws.evalues import calibrated_log10
from detect.laws.lattice import LatticeSum
from detect.laws.tails import log10_sf_weighted_many
from detect.student.verdict.score import TraceScore
from detect.student.verdict.weights import STEPS, WeightedTuples
from watermark import prf
from watermark.formats.protocol import is_exact
from watermark.keys import MarkingKey, SecretKey
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


@dataclass(eq=False)
class Decoys:
    """Decoy keys that the true key is ranked among, drawn as they are asked for.

    Attributes
    ----------
    draw
        ``draw(first, last)`` gives those number first .. last - 1.
    count
        In the first stage.
    totals
        Of those drawn so far.
    """

    draw: Callable[[int, int], list[MarkingKey]]
    count: int
    totals: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))


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
    decoys
        Where p-values are ranks and not the law's.
    """

    score: TraceScore
    tuples: WeightedTuples
    pool: int
    decoys: Decoys | None = None

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

    def totals(self, keys: Sequence[MarkingKey]) -> I64:
        """The total under each key, shape (len(keys),)."""
        return np.array([sum(int(part.sum()) for _, part in self._scored(key)) for key in keys], dtype=np.int64)

    def by_context(self, key: MarkingKey) -> I64:
        """Each context's part of the total under a key, shape (c,)."""
        sums = np.zeros(len(self.tuples.contexts), dtype=np.int64)
        for context, part in self._scored(key):
            np.add.at(sums, context, part)
        return sums

    def _scored(self, key: MarkingKey) -> Iterator[tuple[I64, I64]]:
        """Contexts and weighted scores of each chunk of tuples under each sub-key in question."""
        for index, chunks in enumerate(self._chunks):
            part = subkey(key, index)
            for source, weights, context in chunks:
                yield context, self.score(source.under(part)) * weights

    @cached_property
    def _chunks(self) -> list[list[tuple[Source, I64, I64]]]:
        """For each sub-key the tuples that it is in question for, in chunks: words' source, weights and contexts."""
        of = self.tuples.subkeys[self.tuples.context]
        if np.all(of < 0):
            return [self._cut(np.arange(len(of)))] * self.pool
        return [self._cut(np.flatnonzero((of < 0) | (of == index))) for index in range(self.pool)]

    def _cut(self, chosen: I64) -> list[tuple[Source, I64, I64]]:
        tuples = self.tuples
        chunks = []
        for start in range(0, len(chosen), _CHUNK):
            part = chosen[start : start + _CHUNK]
            context = tuples.context[part]
            chunks.append((self._source(context, tuples.tokens[part]), tuples.weights[part], context))
        return chunks

    def _source(self, context: I64, tokens: prf.U32) -> Source:
        """Of tuples with ascending contexts: a context's nonce is made once for all its tokens."""
        first = int(context[0])
        contexts, place = self.tuples.contexts[first : int(context[-1]) + 1], context - first
        return Source(
            self.score.scheme,
            contexts.shape[1],
            lambda: contexts[place],
            lambda context_key: np.ascontiguousarray(prf.nonces(contexts, context_key)[:, place]),
            tokens,
        )

    @cached_property
    def multiset(self) -> tuple[I64, I64]:
        """Distinct weights and how many words have each."""
        distinct, place = np.unique(self.tuples.weights, return_inverse=True)
        return distinct, np.bincount(place, weights=self.draws, minlength=len(distinct)).astype(np.int64)

    def log10_pvalues(self, totals: npt.ArrayLike, *, keys: int = 1) -> Floats:
        """Exact log10 P(total >= these) given the weights; ``keys`` independent keys' totals may be summed."""
        if self.decoys is not None:
            return self._ranks(totals, 1)
        weights, counts = self.multiset
        return log10_sf_weighted_many(self.score.law, np.repeat(weights, counts * keys), totals)

    def log10_pvalues_lower(self, totals: npt.ArrayLike) -> Floats:
        """Exact log10 P(total <= these) given the weights."""
        if self.decoys is not None:
            return self._ranks(totals, -1)
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
        if self.decoys is not None:
            upper, lower = (float(p([total])[0]) for p in (self.log10_pvalues, self.log10_pvalues_lower))
            p = upper if sided == "upper" else min(0.0, min(upper, lower) + math.log10(2))
            return float(calibrated_log10(np.array(p)))
        return log10_mean(self.log_growths(total, sided, keys=keys))

    def log10_bounds(self, total: int) -> tuple[float, float]:
        """What e-values say of totals as large, and as small: log10 of valid p-values when weights are predictable.

        By Markov's inequality p = min(1, 1 / e) of the mixture over positive thetas, and over negative ones.
        """
        growths = self.log_growths(total, "two-sided").reshape(2, -1)
        return min(0.0, -log10_mean(growths[0])), min(0.0, -log10_mean(growths[1]))

    def _ranks(self, totals: npt.ArrayLike, side: int) -> Floats:
        """Log10 of each total's rank among decoys' from above (``side`` 1) or from below (-1)."""
        assert self.decoys is not None
        sizes = stages(self.decoys.count, max(1, self.words))
        found = [
            staged_rank(-side * total, lambda first, last: -side * self._decoy_totals(last)[first:], sizes)
            for total in np.asarray(totals).ravel().tolist()
        ]
        return np.array([float(rank_log10(*counts)) for counts in found])

    def _decoy_totals(self, count: int) -> Floats:
        """Totals under the first so many decoys."""
        assert self.decoys is not None
        known = len(self.decoys.totals)
        if known < count:
            more = self.totals(self.decoys.draw(known, count))
            self.decoys.totals = np.concatenate([self.decoys.totals, more])
        return self.decoys.totals[:count].astype(np.float64)

    def log_growths(self, total: int, sided: Sided = "upper", *, keys: int = 1) -> Floats:
        """theta T - K(theta) of each theta that `log10_evalue` mixes, nats; those of successive steps add up."""
        thetas = EFFECTS / (self.score.sd * STEPS)
        if sided == "two-sided":
            thetas = np.concatenate([thetas, -thetas])
        if not len(self.multiset[0]):
            return np.zeros(len(thetas))
        if (sided, keys) not in self._cumulants:
            self._cumulants[sided, keys] = self._centred_cumulants(thetas, keys)
        return thetas * (total - keys * self.moments[0]) - self._cumulants[sided, keys]

    @cached_property
    def _cumulants(self) -> dict[tuple[Sided, int], Floats]:
        """K of the thetas that were asked for, which no total has a say in."""
        return {}

    def _centred_cumulants(self, thetas: Floats, keys: int) -> Floats:
        """Log E exp(theta (T - mean)) of each theta."""
        weights, counts = self.multiset
        lattice = LatticeSum.of(self.score.law, weights, counts * keys)
        centred = lattice.tilt(0.0)
        # `cgf` is around the mean and in the lattice's own step.
        return np.array([centred.cgf(theta * lattice.span) for theta in thetas.tolist()])


def log10_sum(log10_values: Sequence[float]) -> float:
    """Log10 of the sum of values of which the log10 is given."""
    top = max(log10_values)
    return top + math.log10(math.fsum(10.0 ** (value - top) for value in log10_values))


def log10_mean(log_growths: Floats) -> float:
    """Log10 of the mean over the mixed thetas."""
    top = log_growths.max()
    return float((top + np.log(np.exp(log_growths - top).mean())) / math.log(10))


def key_test(
    spec: WatermarkSpec,
    selector: SecretKey,
    tuples: WeightedTuples,
    *,
    of_global: bool,
    decoy_seed: str = "dyetrace",
    decoy_count: int = 100,
) -> WeightedTest:
    """The test on the contexts of the global key, or on those of tenants' keys.

    Parameters
    ----------
    spec, selector, tuples
        The watermark, the key that parts contexts, and what was read.
    of_global
        Which contexts.
    decoy_seed, decoy_count
        Of the decoys that a format's key is ranked among where its words are no match for their law.
    """
    scheme = spec.build_scheme()
    own = tuples.of_contexts(owned_contexts(spec, selector, tuples.contexts)[of_global])
    decoys = None if is_exact(scheme) else Decoys(_drawing(spec, decoy_seed), decoy_count)
    return WeightedTest(TraceScore.of(scheme), own, spec.subkeys, decoys)


def _drawing(spec: WatermarkSpec, seed: str) -> Callable[[int, int], list[MarkingKey]]:
    return lambda first, last: decoy_globals(seed, last, spec, first=first)
