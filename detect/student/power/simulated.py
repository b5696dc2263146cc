"""Simulated students for planning: contexts, their marks under a fresh key, and what a student remembers of them.

Words, marking, readouts and scores are the real ones, so that a plan changes when they do. The student is a model with
two constants, which a real experiment can fit (`detect.student.power.planner.fit_memory`).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detect.records.power_plan import Evidence, Reading, Reference
from detect.student.verdict.hypothesis import WeightedTest
from detect.student.verdict.score import TraceScore
from detect.student.verdict.weights import Floats, Readout, gathered, readout
from watermark import prf
from watermark.keys import SecretKey
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

I64 = npt.NDArray[np.int64]

CANDIDATES = 64
"""Tokens of each simulated distribution; the tail beyond is left out."""
_TOP_LOGPROBS = 20  # what endpoints return
_RATES = 10.0 ** np.arange(-9, -1.4, 0.5)
_SHAPE = 2.0
_RATE_SHARES = {
    1: (68, 52, 22, 2, 0, 0, 612, 1114, 3567, 2783, 1208, 421, 102, 34, 9, 6),
    2: (302, 309, 334, 416, 705, 1618, 1733, 2318, 1633, 490, 115, 19, 7, 0, 0, 0),
    3: (887, 900, 940, 1060, 1343, 1636, 1558, 1113, 450, 98, 12, 3, 0, 0, 0, 0),
    4: (1247, 1283, 1394, 1706, 2069, 796, 922, 418, 135, 25, 3, 1, 0, 0, 0, 0),
    5: (1393, 1458, 1661, 2216, 2242, 133, 674, 177, 40, 5, 2, 0, 0, 0, 0, 0),
}
"""How often the distinct contexts of a new text stand in other text: their rates per token, as shares of 10,000.

Fitted by expectation maximisation to counts of 200,000 held-out tokens of English technical prose (docstrings of 200
Python packages, each paragraph once, SmolLM2's tokenizer) in 1.26 million others; rates spread around each entry as a
Gamma variable of shape 2. Of the contexts of a width of 1 / 2 / 3 / 4, .94 / .60 / .32 / .17 stand in all of it and
.59 / .20 / .075 / .030 in 100,000 tokens. Rates below 1e-6 are extrapolated. A wider context than 5 counts as 5.
"""


@dataclass(frozen=True, kw_only=True)
class Student:
    """What the suspect was trained on and how it learns.

    Attributes
    ----------
    share
        Of its training tokens that are marked, 0 to 1.
    training_tokens
        All of its training tokens.
    overlap
        Share of the owner's answers that are read ("served") which it was trained on; None: ``share``.
    memory
        kappa: a context that was seen f times in training has f / (f + kappa) of its prediction from what followed it
        there. 50 fits the students of `benchmarks.distillation` read on served text (40 to 57 over three schemes,
        widths 1 and 2, shares of 1% to 100%; two epochs at 1e-4); other training learns faster or slower.
    drift
        Standard deviation, in nats, of what its training changed at random in each logit.
    """

    share: float
    training_tokens: float
    overlap: float | None = None
    memory: float = 50.0
    drift: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the suspect is read.

    Attributes
    ----------
    reading
        "served": the owner's own marked answers, whose sub-keys are on record; "other": any other text.
    reference
        The model that its predictions are compared with: "base" is the one it was trained from, "other" any other,
        whose logits differ by ``mismatch``.
    evidence
        "weights": whole distributions; "logprobs": the 20 likeliest tokens; "samples": sampled tokens alone, each
        weighed by the root of its count, without a reference.
    samples
        For "samples": of each context.
    mismatch
        Standard deviation, in nats, of the difference of the other model's logits.
    readout
        Instead of the best one for this evidence.
    """

    reading: Reading = "served"
    reference: Reference = "base"
    evidence: Evidence = "weights"
    samples: int = 4
    mismatch: float = 0.75
    readout: Readout | None = None

    @property
    def chosen_readout(self) -> Readout:
        """``reference`` where there is one, else q (1 - q)."""
        return self.readout or ("entropy" if self.reference == "none" else "reference")


@dataclass(frozen=True)
class Signal:
    """What one context gives on average, in units of weight times score.

    Attributes
    ----------
    mean
        Excess of its part of the total over what is expected without the key.
    null_sd, sd
        Standard deviation of its part without the mark and with it.
    seen
        Share of contexts that followed the mark at least once in the student's training data.
    """

    mean: float
    null_sd: float
    sd: float
    seen: float

    @property
    def z_per_context(self) -> float:
        """Expected z of a total over n contexts, divided by sqrt(n)."""
        return self.mean / self.null_sd if self.null_sd > 0 else 0.0


def gaussian_contexts(entropy: float, number: int, rng: np.random.Generator) -> Floats:
    """Distributions of `CANDIDATES` tokens, (number, m): softmax of Gaussian logits with this mean entropy in nats.

    Raises
    ------
    ValueError
        The entropy is not between 0.02 and 4 nats.
    """
    if not 0.02 <= entropy <= 4.0:
        raise ValueError(f"entropy must lie in 0.02 .. 4 nats (got {entropy:g})")
    noise = rng.standard_normal((number, CANDIDATES))
    low, high = 0.0, 400.0
    for _ in range(40):
        middle = (low + high) / 2
        # More spread, less entropy.
        low, high = (middle, high) if mean_entropy(softmax(middle * noise)) > entropy else (low, middle)
    return softmax(low * noise)


def mean_entropy(probabilities: Floats) -> float:
    """Mean entropy of rows of probabilities, nats."""
    return float(-(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(axis=1).mean())


def softmax(logits: Floats) -> Floats:
    """Probabilities of rows of logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def own_share(student: Student, look: Look) -> float:
    """Share of what is read that stood, as the very same answer, in the student's training data."""
    if look.reading != "served" or student.share == 0:
        return 0.0
    return student.share if student.overlap is None else student.overlap


def _missing(width: int, tokens: float) -> tuple[Floats, Floats]:
    shares = np.array(_RATE_SHARES[min(max(width, 1), 5)], dtype=np.float64)
    return shares / shares.sum(), (1 + _RATES * tokens / _SHAPE) ** -_SHAPE


def _sights(spec: WatermarkSpec, student: Student, look: Look, rng: np.random.Generator, n: int) -> _Sights:
    """How often contexts were seen in training, for n that followed the mark at least once.

    Those that never did add noise but no signal; so they are not drawn, and a rare event costs no precision.
    """
    marked_tokens = student.share * student.training_tokens
    shares, missing = _missing(spec.context_width, marked_tokens)
    by_chance = float(1 - shares @ missing)
    overlap = own_share(student, look)
    seen = overlap + (1 - overlap) * by_chance
    own = rng.random(n) * seen < overlap
    rate = np.where(own, rng.choice(_RATES, n, p=shares), 0.0)
    marked = own.astype(np.int64)
    rate[own] *= rng.standard_gamma(_SHAPE, own.sum()) / _SHAPE
    marked[own] += rng.poisson(rate[own] * marked_tokens)
    if by_chance > 0:
        weights = shares * (1 - missing)
        left = np.flatnonzero(~own)
        while len(left):
            base = rng.choice(_RATES, len(left), p=weights / weights.sum())
            few = base * marked_tokens < 1  # then a proposal proportional to the rate is close to the truth
            drawn = base * rng.standard_gamma(np.where(few, _SHAPE + 1, _SHAPE)) / _SHAPE
            expected = np.maximum(drawn * marked_tokens, 1e-300)
            some = -np.expm1(-expected)
            taken = rng.random(len(left)) < np.where(few, some / expected, some)
            # Time of the first sight, given that there is one; the others are Poisson.
            first = -np.log1p(-rng.random(len(left)) * some) / expected
            rate[left[taken]] = drawn[taken]
            marked[left[taken]] = 1 + rng.poisson(expected * np.clip(1 - first, 0, 1))[taken]
            left = left[~taken]
    unmarked = rng.poisson(rate * (1 - student.share) * student.training_tokens)
    return _Sights(marked, own, unmarked, seen)


@dataclass(frozen=True, eq=False)
class _Sights:
    marked: I64
    own: npt.NDArray[np.bool_]  # the answer that is read is one of them
    unmarked: I64
    seen: float


class Simulation:
    """Contexts with a key, ready for any student and look.

    Parameters
    ----------
    spec
        The watermark.
    probabilities
        What the owner's model predicts at each context, without the mark, shape (n, m); rows sum to 1.
    seed
        Of the key and of everything that is drawn.

    Attributes
    ----------
    marked
        The distributions as the scheme marks them under each sub-key, shape (n, sub-keys, m).
    """

    def __init__(self, spec: WatermarkSpec, probabilities: Floats, seed: int = 0) -> None:
        self._spec = spec
        self._seed = seed
        self._r = probabilities
        self._scheme = spec.build_scheme()
        self._score = TraceScore.of(self._scheme)
        self._key = SecretKey(hashlib.blake2b(f"dyetrace plan {seed}".encode(), digest_size=32).digest())
        rng = np.random.default_rng([seed, 1])
        n, m = probabilities.shape
        self._contexts = rng.integers(0, 2**32 - 1, (n, spec.context_width), dtype=np.uint32)
        self._tokens = np.tile(np.arange(m, dtype=np.int64), (n, 1))
        self.marked = np.stack([self._mark(index) for index in range(spec.subkeys)], axis=1)

    def _mark(self, index: int) -> Floats:
        """The distributions as the scheme would mark them under a sub-key, (n, m)."""
        import torch

        key = subkey(self._key, index)
        nonces = prf.nonces(self._contexts, prf.context_key_words(key, self._spec.context_width))
        words = prf.words_among(np.tile(key.words, (len(self._r), 1)), nonces, self._tokens.astype(np.uint32))
        logits = torch.from_numpy(np.log(np.maximum(self._r, 1e-30)).astype(np.float32))
        with torch.inference_mode():
            marked = self._scheme.transform(logits, torch.from_numpy(words.astype(np.int64))).double().softmax(-1)
        return np.asarray(marked.numpy(), dtype=np.float64)

    def signal(self, student: Student, look: Look) -> Signal:
        """What a context gives against this student."""
        rng = np.random.default_rng([self._seed, 2])
        n, pool = len(self._r), self._spec.subkeys
        sights = _sights(self._spec, student, look, rng, n) if student.share > 0 else None
        subkeys = rng.integers(0, pool, n) if look.reading == "served" else np.full(n, -1)
        drifted = softmax(np.log(np.maximum(self._r, 1e-30)) + student.drift * rng.standard_normal(self._r.shape))
        if sights is None or sights.seen == 0:
            _, null = self.contributions(drifted, subkeys, look)
            sd = math.sqrt(null.mean())
            return Signal(0.0, sd, sd, 0.0)
        counts = np.zeros((n, pool), dtype=np.int64)
        rows = np.flatnonzero(sights.own) if look.reading == "served" else np.empty(0, dtype=np.int64)
        counts[rows, subkeys[rows]] += 1
        counts += rng.multinomial(sights.marked - counts.sum(axis=1), np.full(pool, 1 / pool))
        marked = rng.multinomial(counts, _whole(self.marked)).sum(axis=1)
        twin = rng.multinomial(sights.marked, _whole(self._r))
        unmarked = rng.multinomial(sights.unmarked, _whole(self._r))
        times = sights.marked + sights.unmarked
        mass = (times / (times + student.memory))[:, None]
        taught, untaught = ((1 - mass) * drifted + mass * (part + unmarked) / times[:, None] for part in (marked, twin))
        return self.compared(taught, untaught, drifted, subkeys, look, sights.seen)

    def compared(
        self, taught: Floats, untaught: Floats, unread: Floats, subkeys: I64, look: Look, seen: float = 1.0
    ) -> Signal:
        """The signal of predictions that hold the mark, (n, m).

        Parameters
        ----------
        taught
            Predictions that remember the mark.
        untaught
            Of a twin that remembers as much of unmarked text: its total has no excess, so that the difference is the
            same signal with less noise, and exactly 0 where both are equal.
        unread
            Predictions at contexts that never followed the mark.
        subkeys
            Known sub-key of each context, -1 where it is not known.
        look
            How the predictions are read.
        seen
            Share of contexts that followed it.
        """
        total, null = self.contributions(taught, subkeys, look)
        other, other_null = self.contributions(untaught, subkeys, look)
        _, rest = self.contributions(unread, subkeys, look)
        null_variance = seen * null.mean() + (1 - seen) * rest.mean()
        mean = float((total - other).mean())
        extra = (total.var() - null.mean()) - (other.var() - other_null.mean()) + (1 - seen) * mean**2
        variance = max(null_variance / 4, null_variance + seen * extra)
        return Signal(seen * mean, math.sqrt(null_variance), math.sqrt(variance), seen)

    def contributions(self, q: Floats, subkeys: I64, look: Look) -> tuple[Floats, Floats]:
        """Each context's part of the total less its expectation, and its variance without the mark, both (n,)."""
        weights = self._weights(q, look)
        n = len(q)
        tuples = gathered(self._contexts, np.arange(n), subkeys, self._tokens, weights)
        test = WeightedTest(self._score, tuples, self._spec.subkeys)
        w = tuples.weights.astype(np.float64)
        expected = self._score.mean * np.bincount(tuples.context, w * test.draws, n)
        null = self._score.sd**2 * np.bincount(tuples.context, w**2 * test.draws, n)
        return np.asarray(test.by_context(self._key) - expected, dtype=np.float64), null.astype(np.float64)

    def _weights(self, q: Floats, look: Look) -> Floats:
        rng = np.random.default_rng([self._seed, 3])  # the same for twins
        if look.evidence == "samples":
            places = rng.random((len(q), look.samples))
            chosen = (q.cumsum(axis=1)[:, None, :] < places[:, :, None] * q.sum(axis=1)[:, None, None]).sum(axis=2)
            rows = np.arange(len(q))[:, None] * q.shape[1] + np.minimum(chosen, q.shape[1] - 1)
            counts = np.bincount(rows.ravel(), minlength=q.size).reshape(q.shape)
            return np.sqrt(counts)
        r = None
        if look.reference != "none":
            noise = look.mismatch if look.reference == "other" else 0.0
            r = softmax(np.log(np.maximum(self._r, 1e-30)) + noise * rng.standard_normal(q.shape))
        weights = readout(look.chosen_readout, q, r)
        if look.evidence == "logprobs" and q.shape[1] > _TOP_LOGPROBS:
            least = np.partition(q, -_TOP_LOGPROBS, axis=1)[:, -_TOP_LOGPROBS, None]
            weights = np.where(q >= least, weights, 0.0)
        return weights


def _whole(probabilities: Floats) -> Floats:
    """Rows that sum to a hair less than 1, as ``multinomial`` wants them."""
    return np.asarray(probabilities / (probabilities.sum(axis=-1, keepdims=True) * (1 + 1e-12)))
