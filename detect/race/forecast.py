"""How many requests a race readout takes: its real bets, on simulated replies of a suspect that was trained on answers.

For planning alone: no verdict depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detect.race.bets import SHARPNESS, Growth, bet_of, goes_on, log_growths
from detect.race.evidence import F64, I32, NOT_SAID
from detect.records.race import RaceAsk

Mask = npt.NDArray[np.bool_]

_TIMES = 9  # simulations, of which the median is taken
_ROWS = 2_000  # cuts that are simulated at once, in whole answers
_SAME = 0.85  # how often a greedy word is the served one at a place that isn't fresh, between two of a reply


@dataclass(frozen=True)
class Memory:
    """How strongly a suspect keeps what it was trained on.

    Attributes
    ----------
    word, biased
        How often it says the served word since it remembers it, by itself and against a bias; else it draws from the
        owner's chances, sharpened as `detect.race.bets` has it.
    share, noise
        By how many nats it raises the served word's probability, and the standard deviation by which its
        log-probabilities differ from the owner's for no reason.
    """

    word: float
    biased: float
    share: float
    noise: float


ADAPTER = Memory(word=0.22, biased=0.31, share=0.95, noise=0.75)
"""Fitted to the benchmark's students by adapters: rank 16, three epochs of 400 answers, a learning rate of 1e-3."""


def forecast(
    ask: RaceAsk,
    documents: I32,
    positions: I32,
    steps: I32,
    chances: F64,
    target_log10: float,
    *,
    used: float = 1.0,
    memory: Memory = ADAPTER,
    seed: int = 0,
) -> int | None:
    """Requests until the e-value is 10^``target_log10``: the median of simulated suspects; None if it isn't reached.

    Parameters
    ----------
    ask
        What is read of the suspect.
    documents, positions, steps
        The answer and the position of each planned cut, and the number of its request, ascending; shape (n,).
    chances
        The owner's of the candidates at each, shape (n, k).
    used
        Of the answers, how many it was trained on, in (0, 1].
    memory
        How strongly.
    seed
        Of the simulation.
    """
    starts = np.flatnonzero(np.diff(documents, prepend=-1))
    ends = np.append(starts[1:], len(documents))
    taken = []
    for number in range(_TIMES):
        random = np.random.default_rng([seed, number])
        asking = _Asking(ask, target_log10)
        first = 0
        while first < len(starts) and not asking.reached:
            last = max(first + 1, int(np.searchsorted(ends, starts[first] + _ROWS, side="right")))
            part = slice(int(starts[first]), int(ends[last - 1]))
            growths = _growths(ask, documents[part], positions[part], steps[part], chances[part], used, memory, random)
            asking.observe(documents[part], steps[part], growths)
            first = last
        taken.append(asking.requests if asking.reached else np.inf)
    middle = float(np.median(taken))
    return round(middle) if np.isfinite(middle) else None


def _growths(
    ask: RaceAsk,
    documents: I32,
    positions: I32,
    steps: I32,
    chances: F64,
    used: float,
    memory: Memory,
    random: np.random.Generator,
) -> F64:
    """Log growths (n, bets) of what one suspect says at whole answers' cuts."""
    n, k = chances.shape
    at = np.arange(n)
    learnt = (random.random(int(documents[-1] - documents[0]) + 1) < used)[documents - documents[0]]
    chosen = _drawn(chances, random)
    said = np.full(n, NOT_SAID, dtype=np.int32)
    shares = np.empty((n, 0))
    if bet_of(ask) == "words":
        kept = random.random(n) < (memory.biased if ask == "bias" else memory.word)
        said[:] = np.where(learnt & kept, chosen, _drawn(chances ** SHARPNESS[ask], random))
    else:
        shares = chances * np.exp(memory.noise * random.standard_normal((n, k)))
        shares[at, chosen] *= np.where(learnt, np.exp(memory.share), 1.0)
        shares /= shares.sum(axis=1, keepdims=True)
    word = said if ask == "greedy" else np.argmax(shares, axis=1) if shares.shape[1] else said
    if ask == "echo":
        own = shares[at, chosen]
        shares = np.full((n, k), np.nan)
        shares[at, chosen] = own
    tilt = np.zeros((1, n, k))
    tilt[0, at, chosen] = 1.0
    found = np.asarray(log_growths(ask, tilt, chances, said, shares)[0])
    if ask in ("greedy", "logprobs"):
        found[~_heard(documents, positions, steps, word == chosen, random)] = 0.0
    return found


def _drawn(weights: F64, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """One column of each row, by its weights."""
    sums = np.cumsum(weights, axis=1)
    below = sums < random.random(len(weights))[:, None] * sums[:, -1:]
    return np.asarray(np.minimum(below.sum(axis=1), weights.shape[1] - 1))


def _heard(documents: I32, positions: I32, steps: I32, right: Mask, random: np.random.Generator) -> Mask:
    """Which cuts a reply is about: the first of each request, and those behind it while it says what was served."""
    heard = np.ones(len(steps), dtype=np.bool_)
    for row in range(1, len(steps)):
        if steps[row] == steps[row - 1] and documents[row] == documents[row - 1]:
            between = int(positions[row] - positions[row - 1]) - 1
            heard[row] = heard[row - 1] and right[row - 1] and random.random() < _SAME**between
    return heard


class _Asking:
    """One readout: answers whose bets don't win are left, and it ends at the target."""

    def __init__(self, ask: RaceAsk, target: float) -> None:
        self.requests, self.reached = 0, False
        self._leaves, self._target = ask not in ("weights", "prompt-logprobs", "echo"), target
        self._growth = Growth()

    def observe(self, documents: I32, steps: I32, growths: F64) -> None:
        """Take whole answers in, one behind the other."""
        starts = np.flatnonzero(np.diff(steps, prepend=-1)).tolist()
        document, about, left = -1, 0, False
        for start, stop in zip(starts, [*starts[1:], len(steps)], strict=True):
            if documents[start] != document:
                document, about, left = int(documents[start]), 0, False
            if left:
                continue
            about += 1
            self.requests += 1
            value = self._growth.observe_all(documents[start:stop], growths[None, start:stop], each=False)
            if value[-1] >= self._target:
                self.reached = True
                return
            left = self._leaves and not goes_on(about, self._growth.log_answer)
