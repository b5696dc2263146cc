"""How many pairs it takes: the real bets on simulated pairs of a suspect of which something is assumed.

For planning alone: no verdict depends on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from detect.twins.bets import bets_on_many
from watermark.errors import DyetraceError

F64 = npt.NDArray[np.float64]

POWER = 0.9
MOST_PAIRS = 20_000

_DESIGNS = 6  # of differences, each with many rows of coins
_ROWS = 50
_FIRST = 64  # pairs, doubled until it is enough
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What is assumed of a suspect.

    Attributes
    ----------
    win_chance
        That a used pair's difference speaks for the served twin, in (1/2, 1].
    share
        Of the pairs, how many were used, in (0, 1].
    magnitude
        How many times as large a used pair's difference is as another's, root mean squares.
    speaking
        Share of the pairs whose difference isn't 0.
    """

    win_chance: float
    share: float = 1.0
    magnitude: float = 1.0
    speaking: float = 1.0

    def __post_init__(self) -> None:
        for name, value, low in (
            ("the chance that a used pair wins", self.win_chance, 0.5),
            ("the share of used pairs", self.share, 0.0),
            ("the share of pairs that make a difference", self.speaking, 0.0),
        ):
            if not low < value <= 1:
                raise DyetraceError(f"{name} must lie in ({low:g}, 1] (got {value:g})")
        if not (self.magnitude > 0 and math.isfinite(self.magnitude)):
            raise DyetraceError(f"how many times larger used pairs' differences are must be > 0 (got {self.magnitude})")


def pairs_needed(
    win_chance: float,
    share: float = 1.0,
    magnitude: float = 1.0,
    target_log10: float = 6.0,
    power: float = POWER,
    *,
    speaking: float = 1.0,
    bias: float = 0.0,
    most: int = MOST_PAIRS,
    seed: int = 0,
) -> int | None:
    """After how many pairs the e-value has reached 10^``target_log10`` with probability ``power``.

    A used pair's difference is normal, with its sign right as often as assumed; another's is normal around 0.

    Parameters
    ----------
    win_chance, share, magnitude, speaking
        As of `Assumed`.
    target_log10
        Log10 of the e-value at which asking may end.
    power
        In (0, 1).
    bias
        As for `detect.twins.bets.bets`.
    most
        Pairs that are simulated at most.
    seed
        Of the simulation.

    Returns
    -------
    int or None
        None where ``most`` are not enough.

    Raises
    ------
    DyetraceError
        An assumption is out of its range.

    Examples
    --------
    >>> pairs_needed(1.0, target_log10=10)
    35
    """
    assumed = Assumed(win_chance=win_chance, share=share, magnitude=magnitude, speaking=speaking)
    if not 0 < power < 1:
        raise DyetraceError(f"the power must lie in (0, 1) (got {power:g})")
    pairs = min(_FIRST, most)
    while True:
        reached = np.concatenate([_reached(assumed, pairs, target_log10, bias, [seed, i]) for i in range(_DESIGNS)])
        needed = np.sort(reached)[math.ceil(power * len(reached)) - 1]
        if needed <= pairs:
            return int(needed)
        if pairs >= most:
            return None
        pairs = min(2 * pairs, most)


def _reached(assumed: Assumed, pairs: int, target_log10: float, bias: float, seed: list[int]) -> F64:
    """(rows,): at which pair, from 1, each row of coins reaches the target; infinite where it doesn't."""
    # A stream for each kind of number, pair after pair: more pairs begin with the same ones.
    kinds, noises, coins = (np.random.default_rng([*seed, stream]) for stream in range(3))
    shift = _NORMAL.inv_cdf(min(assumed.win_chance, 1 - 1e-6))
    other = math.hypot(1.0, shift) / assumed.magnitude
    draws = kinds.random((pairs, 2))
    noise = noises.standard_normal(pairs)
    used = draws[:, 0] < assumed.share
    sizes = np.abs(np.where(used, shift + noise, other * noise)) * (draws[:, 1] < assumed.speaking)
    # Given its size a used pair's normal difference is positive with log odds of twice shift times size.
    chances = np.where(used, 1 / (1 + np.exp(-2 * shift * sizes)), 0.5)
    signs = np.where(coins.random((pairs, _ROWS)).T < chances, 1, -1)
    evidence = bets_on_many(sizes[:, None], signs, bias=bias)
    reaches = evidence >= target_log10
    return np.where(reaches.any(axis=1), reaches.argmax(axis=1) + 1.0, np.inf)
