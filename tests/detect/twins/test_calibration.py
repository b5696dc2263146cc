"""With coins tossed anew again and again, nobody is found more often than is said: for each design of differences."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from detect.twins.bets import bets_on_many

F64 = npt.NDArray[np.float64]

ROWS = 10_000


def heavy_tailed(rng: np.random.Generator) -> tuple[F64, F64 | None]:
    return rng.standard_t(1.1, (150, 1)), None


def tied(rng: np.random.Generator) -> tuple[F64, F64 | None]:
    return np.rint(rng.normal(size=(150, 2))), None


def correlated_with_covariates(rng: np.random.Generator) -> tuple[F64, F64 | None]:
    z = rng.normal(size=(150, 2))
    shared = rng.standard_t(3, (150, 1)) + z[:, :1]
    return shared + 0.5 * rng.normal(size=(150, 6)), z


def growing(rng: np.random.Generator) -> tuple[F64, F64 | None]:
    return rng.normal(size=(150, 1)) * np.geomspace(1, 1e6, 150)[:, None], None


@pytest.mark.parametrize("design", [heavy_tailed, tied, correlated_with_covariates, growing])
def test_the_chance_of_ever_reaching_20_is_at_most_a_twentieth(design: object) -> None:
    assert callable(design)
    x, z = design(np.random.default_rng(7))
    coins = np.random.default_rng(8).choice(np.array([-1, 1], dtype=np.int8), (ROWS, len(x)))
    best = bets_on_many(x, coins, z).max(axis=1)
    assert np.mean(best >= np.log10(20)) <= 0.05
    assert np.mean(best >= 2) <= 0.01 + 3 * np.sqrt(0.01 / ROWS)


def test_small_chances_are_right_over_all_coins_of_20_pairs() -> None:
    # Every row of coins there is, once: no luck is left in the shares.
    x = np.random.default_rng(9).standard_t(2, (20, 1))
    reached = {3: 0, 4: 0}
    last = np.array(list(itertools.product([1, -1], repeat=14)), dtype=np.int8)
    for first in itertools.product([1, -1], repeat=6):
        coins = np.concatenate([np.tile(np.array(first, dtype=np.int8), (len(last), 1)), last], axis=1)
        best = bets_on_many(x, coins).max(axis=1)
        for level in reached:
            reached[level] += int(np.sum(best >= level))
    for level, count in reached.items():
        assert 0 < count / 2**20 <= 10.0**-level


def test_a_bias_that_is_allowed_for_finds_nobody_and_one_that_is_not_does() -> None:
    rng = np.random.default_rng(10)
    x = np.abs(rng.normal(size=(1500, 1)))
    coins = np.where(rng.random((1000, 1500)) < 0.6, 1, -1).astype(np.int8)
    assert np.mean(bets_on_many(x, coins, bias=0.1).max(axis=1) >= np.log10(20)) <= 0.05
    assert np.mean(bets_on_many(x, coins).max(axis=1) >= np.log10(20)) > 0.95
