"""What pairs and their coins come to: pairs to a target, and what happens when the coins are tossed again.

All of it was fixed before seeds 1 and 2 were looked at: the product's bets in the order of time, and in other orders
that were drawn from a seed, since one order is one draw of luck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.common import Floats
from detect.twins.bets import bets_on_many
from detect.twins.signs import sign_flip, sign_flip_many, sign_test

I8 = npt.NDArray[np.int8]

ORDERS = 20
TARGETS = (6.0, 10.0)
_EVER = math.log10(20.0)


@dataclass(frozen=True, eq=False)
class Numbers:
    """What was measured of one suspect's pairs, in the order of time.

    Attributes
    ----------
    columns
        Names of the numbers.
    differences, covariates, signs
        Shapes (n, k), (n, c) and (n,), as `detect.twins.bets.bets` takes them.
    questions
        Asked of the suspect about each pair, shape (n,); none where weights were read.
    """

    columns: tuple[str, ...]
    differences: Floats
    covariates: Floats
    signs: I8
    questions: npt.NDArray[np.int64]

    def ordered(self, order: npt.NDArray[np.int64]) -> Numbers:
        """The same pairs in another order."""
        return Numbers(
            self.columns, self.differences[order], self.covariates[order], self.signs[order], self.questions[order]
        )

    def evidence(self, signs: npt.NDArray[np.int8] | None = None) -> Floats:
        """Log10 e-values after each pair, (m, n), for rows of coins; for the real ones without."""
        rows = self.signs[None] if signs is None else signs
        found: Floats = bets_on_many(self.differences, rows, self.covariates)
        return found


@dataclass(frozen=True)
class Found:
    """Of one suspect: wins, losses and exact p of the first number, all bets together, and pairs to each target.

    Attributes
    ----------
    log10_flip
        Exact sign-flip tail of the first number.
    pairs, questions
        By target: the median over orders of how many it took; None where more than half of them never reached it.
    """

    wins: int
    losses: int
    log10_p: float
    log10_flip: float
    log10_e: float
    pairs: tuple[float | None, ...]
    questions: tuple[float | None, ...]


def found(numbers: Numbers, seed: int = 0, orders: int = ORDERS) -> Found:
    """The figures of one suspect.

    Parameters
    ----------
    orders
        Beside that of time, in which pairs are bet on for the median.
    """
    signed = numbers.differences[:, 0] * numbers.signs
    wins, losses = int((signed > 0).sum()), int((signed < 0).sum())
    random = np.random.default_rng([31, seed])
    count = len(numbers.signs)
    reached: list[list[float]] = [[] for _ in TARGETS]
    asked: list[list[float]] = [[] for _ in TARGETS]
    in_time = numbers.evidence()[0]
    for turn in range(orders + 1):
        order = np.arange(count) if turn == 0 else random.permutation(count)
        part = numbers if turn == 0 else numbers.ordered(order)
        curve = in_time if turn == 0 else part.evidence()[0]
        questions = np.cumsum(part.questions)
        for place, target in enumerate(TARGETS):
            passed = np.flatnonzero(curve >= target)
            reached[place].append(float(passed[0] + 1) if len(passed) else math.inf)
            asked[place].append(float(questions[passed[0]]) if len(passed) else math.inf)
    return Found(
        wins,
        losses,
        sign_test(wins, losses),
        sign_flip(numbers.differences[:, 0], numbers.signs),
        float(in_time[-1]),
        tuple(map(_median, reached)),
        tuple(map(_median, asked)),
    )


def _median(values: list[float]) -> float | None:
    middle = float(np.median(values))
    return middle if math.isfinite(middle) else None


@dataclass(frozen=True)
class Retossed:
    """What an innocent's chances are: the same numbers under coins that were tossed again.

    Attributes
    ----------
    ever
        Share of the tosses in which the e-value ever was 20 or more.
    sign_05, sign_01, flip_05, flip_01
        Shares of the tosses with a p-value of at most .05 and .01: sign test and sign-flip test of the first number.
    """

    coins: int
    ever: float
    sign_05: float
    sign_01: float
    flip_05: float
    flip_01: float


def retossed(numbers: Numbers, coins: int, seed: int = 0) -> Retossed:
    """Toss all coins again, ``coins`` times."""
    random = np.random.default_rng([77, seed])
    count = len(numbers.signs)
    signs = np.where(random.random((coins, count)) < 0.5, 1, -1).astype(np.int8)
    curves = numbers.evidence(signs)
    first = numbers.differences[:, 0]
    wins = (first * signs > 0).sum(axis=1)
    tails = {w: sign_test(int(w), int((first != 0).sum() - w)) for w in np.unique(wins).tolist()}
    by_sign = np.array([tails[w] for w in wins.tolist()])
    by_flip = sign_flip_many(first, signs)
    return Retossed(
        coins,
        float((curves.max(axis=1) >= _EVER).mean()),
        *(float((by_sign <= math.log10(level)).mean()) for level in (0.05, 0.01)),
        *(float((by_flip <= math.log10(level)).mean()) for level in (0.05, 0.01)),
    )
