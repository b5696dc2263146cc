"""Bets on coins: fair under the null over all coins there are, blind to what comes later, quick where there is much."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.twins.bets import Bettor, bets, bets_on_many
from detect.twins.experts import Experts
from watermark.errors import DyetraceError

F64 = npt.NDArray[np.float64]
NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, -1.0, 1e-300, -5e-324, 1e30])


@st.composite
def designs(draw: st.DrawFn, most: int = 9) -> dict[str, Any]:
    """Arguments of `bets`, of any numbers."""
    n, columns, covariates = draw(st.integers(1, most)), draw(st.integers(1, 3)), draw(st.integers(0, 2))

    def table(width: int) -> F64:
        return np.array(draw(st.lists(NUMBERS, min_size=n * width, max_size=n * width))).reshape(n, width)

    return {
        "differences": table(columns),
        "signs": np.array(draw(st.lists(st.sampled_from([1, -1]), min_size=n, max_size=n))),
        "covariates": table(covariates) if covariates else None,
        "bias": draw(st.sampled_from([0.0, 0.0, 0.03, 0.4])),
        "combination": draw(st.none() | st.just(np.linspace(1, 0.5, columns))),
    }


def all_coins(n: int) -> npt.NDArray[np.int8]:
    return np.array(list(itertools.product([1, -1], repeat=n)), dtype=np.int8)


@given(designs(), st.data())
def test_it_is_the_same_whichever_side_is_called_the_first(design: dict[str, Any], data: st.DataObject) -> None:
    turned = np.array([data.draw(st.sampled_from([1, -1])) for _ in design["signs"]])
    other = {**design, "signs": design["signs"] * turned, "differences": design["differences"] * turned[:, None]}
    if design["covariates"] is not None:
        other["covariates"] = design["covariates"] * turned[:, None]
    assert np.array_equal(bets(**design).log10_evalues, bets(**other).log10_evalues)


@given(designs(), st.data())
def test_a_pair_without_a_difference_might_as_well_not_exist(design: dict[str, Any], data: st.DataObject) -> None:
    silent = np.array([data.draw(st.booleans()) for _ in design["signs"]])
    spoken = {**design, "differences": np.where(silent[:, None], 0.0, design["differences"])}
    without = {**spoken, "signs": design["signs"][~silent], "differences": spoken["differences"][~silent]}
    if design["covariates"] is not None:
        without["covariates"] = design["covariates"][~silent]
    whole = bets(**spoken).log10_evalues
    assert np.array_equal(whole[~silent], bets(**without).log10_evalues)
    before = np.concatenate([[0.0], whole[:-1]])
    assert np.array_equal(whole[silent], before[silent])


@given(designs(), st.data())
def test_nothing_of_later_pairs_changes_earlier_bets(design: dict[str, Any], data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(design["signs"])))
    other = {**design, "signs": design["signs"].copy(), "differences": design["differences"].copy()}
    other["signs"][kept:] *= -1
    other["differences"][kept:] = data.draw(NUMBERS)
    assert np.array_equal(bets(**design).log10_evalues[:kept], bets(**other).log10_evalues[:kept])


@given(designs())
def test_one_pair_after_another_gives_what_all_at_once_give(design: dict[str, Any]) -> None:
    x, z = design["differences"], design["covariates"]
    bettor = Bettor(x.shape[1], 0 if z is None else z.shape[1], design["bias"], design["combination"])
    found = [
        bettor.observe(x[i], [] if z is None else z[i], int(sign)) for i, sign in enumerate(design["signs"].tolist())
    ]
    assert found == bets(**design).log10_evalues.tolist()
    assert bettor.log10_evalue == found[-1]


def test_many_rows_of_coins_are_each_bet_on_alone_over_blocks_of_pairs() -> None:
    rng = np.random.default_rng(3)
    x, z, signs = rng.standard_t(2, (600, 3)), rng.normal(size=(600, 1)), rng.choice([-1, 1], (4, 600))
    signs[3] = np.where(x[:, 0] > 0, 1, -1)
    together = bets_on_many(x, signs, z)
    for row in range(4):
        assert np.array_equal(together[row], bets(x, signs[row], z).log10_evalues)


@given(designs(most=8))
def test_the_mean_over_all_coins_is_exactly_1(design: dict[str, Any]) -> None:
    fair = {**design, "signs": all_coins(len(design["signs"])), "bias": 0.0}
    assert np.mean(10 ** bets_on_many(**fair), axis=0) == pytest.approx(np.ones(len(design["signs"])), abs=1e-11)


@given(designs(most=6), st.data())
def test_the_mean_is_at_most_1_for_any_coins_within_the_bias(design: dict[str, Any], data: st.DataObject) -> None:
    bias = data.draw(st.sampled_from([0.01, 0.1, 0.3, 0.49]))
    coins = all_coins(len(design["signs"]))
    chances = np.array([0.5 + data.draw(st.floats(-bias, bias)) for _ in design["signs"]])
    weights = np.prod(np.where(coins > 0, chances, 1 - chances), axis=1)
    evidence = bets_on_many(**{**design, "signs": coins, "bias": bias})
    assert np.all(weights @ 10**evidence <= 1 + 1e-11)


def test_bets_on_signs_alone_allow_for_a_bias_of_the_mean() -> None:
    # All of one kind of pairs come first, which who learns from coins would soon find out.
    coins = all_coins(12)
    for chances in (np.repeat([0.1, 0.6, 1.0], 4), np.repeat([1.0, 0.6, 0.2], 4), np.tile([0.0, 1.0], 6)):
        weights = np.prod(np.where(coins > 0, chances, 1 - chances), axis=1)
        evidence = bets_on_many(np.ones((12, 1)), coins, bias=abs(chances.mean() - 0.5))
        assert weights @ 10 ** evidence[:, -1] <= 1 + 1e-11


# --- clients that react to coins --------------------------------------------------------------------------


def of_reacting_client(coins: tuple[int, ...], rng: np.random.Generator) -> F64:
    """Differences that depend on earlier coins: after a win all that follows is small, or not there at all."""
    sizes = rng.standard_t(2, (len(coins), 2))
    for i, coin in enumerate(coins[:-1]):
        if coin * sizes[i, 0] > 0:
            sizes[i + 1 :] *= 0.2
        elif i % 3 == 1:
            sizes[i + 1] = 0
        else:
            sizes[i + 1 :] *= 4
    return sizes


def test_the_mean_is_1_where_clients_react_to_what_they_are_served() -> None:
    coins = all_coins(9)
    evidence = [bets(of_reacting_client(tuple(row), np.random.default_rng(4)), row).log10_evalues for row in coins]
    assert np.mean(10 ** np.array(evidence), axis=0) == pytest.approx(np.ones(9), abs=1e-12)


def test_the_chance_of_ever_reaching_20_is_at_most_a_twentieth_where_clients_react() -> None:
    coins = all_coins(11)
    best = [
        bets(of_reacting_client(tuple(row), np.random.default_rng(5)), row).log10_evalues.max()
        for row in coins.tolist()
    ]
    reached = np.mean(np.array(best) >= np.log10(20))
    assert 0 < reached <= 0.05


def test_who_sees_all_sizes_beforehand_is_found_out() -> None:
    # Why bets go by the sizes so far: those of all pairs tell earlier coins of a client that reacts.
    def mean_wealth(*, peeks: bool) -> F64:
        """Of each expert, over all coins."""
        wealth = []
        for row in all_coins(6):
            x, experts = of_reacting_client(tuple(row), np.random.default_rng(4)), Experts(2)
            if peeks:
                for pair in x:
                    experts.hear(pair, np.empty(0))
            leanings = np.array([experts.hear(pair, np.empty(0)).leanings for pair in x])
            wealth.append(np.prod(1 + 2 * row[:, None] * leanings, axis=0))
        return np.mean(wealth, axis=0)

    assert mean_wealth(peeks=False) == pytest.approx(1, abs=1e-12)
    assert mean_wealth(peeks=True).max() > 1.2


# --- power ------------------------------------------------------------------------------------------------


def test_35_wins_in_a_row_reach_10_to_the_10_with_any_columns_beside() -> None:
    rng = np.random.default_rng(1)
    for columns, covariates in ((1, 0), (6, 2), (12, 3)):
        x, z = rng.standard_t(1.5, (35, columns)), rng.normal(size=(35, covariates))
        signs = np.where(x[:, 0] > 0, 1, -1)
        assert bets(x, signs, z, combination=np.ones(columns)).log10_evalue >= 10


def test_what_was_lost_is_never_more_than_a_factor_of_100() -> None:
    losing = bets(np.ones((5000, 1)), np.resize([1, -1], 5000)).log10_evalues
    assert losing.min() >= -2 - 1e-9


def test_evidence_beyond_the_range_of_floats_is_told() -> None:
    assert bets(np.ones((4000, 1)), np.ones(4000)).log10_evalue == pytest.approx(4000 * np.log10(1.998), rel=1e-2)


@pytest.mark.parametrize(
    ("columns", "arguments", "expected"),
    [
        (1, {}, 3.201378148119),
        (2, {"covariates": True}, 2.770338484454),
        (2, {"covariates": True, "combination": [1.0, 2.0]}, 2.893851269600),
        (2, {"bias": 0.05}, 1.623902809734),
    ],
)
def test_the_bets_are_those_of_reports_that_were_made_with_them(
    columns: int, arguments: dict[str, Any], expected: float
) -> None:
    i = np.arange(60)
    x = np.stack([(i * 37 % 101 - 50) / 10, (i * 53 % 89 - 44) / 100], axis=1)
    likely = np.where(x[:, 0] >= 0, 1, -1)
    signs = np.where(i * 7 % 10 < 8, likely, -likely)
    more = {**arguments, "covariates": ((i * 29 % 83 - 41) / 7)[:, None]} if "covariates" in arguments else arguments
    assert bets(x[:, :columns], signs, **more).log10_evalue == pytest.approx(expected, abs=1e-9)


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"differences": [[1.0]], "signs": [0]}, "sign must be 1 or -1"),
        ({"differences": [[1.0]], "signs": [1, 1]}, "not of the same pairs"),
        ({"differences": [[np.nan]], "signs": [1]}, "differences must be finite"),
        ({"differences": [[1.0]], "signs": [1], "covariates": [[np.inf]]}, "covariates must be finite"),
        ({"differences": [[1.0]], "signs": [1], "covariates": [[1.0], [2.0]]}, "not of 1 pairs"),
        ({"differences": [[1.0]], "signs": [1], "bias": 0.5}, "bias"),
        ({"differences": [[1.0]], "signs": [1], "bias": np.nan}, "bias"),
        ({"differences": [[1.0]], "signs": [1], "combination": [1.0, 2.0]}, "one finite weight for each"),
        ({"differences": np.empty((1, 0)), "signs": [1]}, "at least one column"),
    ],
)
def test_numbers_that_are_none_of_a_pair_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(DyetraceError, match=problem):
        bets(**arguments)


def test_a_bettor_refuses_a_pair_of_other_columns_and_no_coin() -> None:
    bettor = Bettor(2)
    with pytest.raises(DyetraceError, match="needs 2 differences"):
        bettor.observe([1.0], [], 1)
    with pytest.raises(DyetraceError, match="1 or -1"):
        bettor.observe([1.0, 2.0], [], 0)
    assert bettor.log10_evalue == 0


def test_no_pairs_are_no_evidence() -> None:
    assert bets(np.empty((0, 2)), np.empty(0)).log10_evalue == 0
