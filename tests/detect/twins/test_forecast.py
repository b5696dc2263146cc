"""How many pairs it takes: simulated pairs, the real bets, and the numbers that must not get worse."""

from __future__ import annotations

from typing import Any

import pytest

from detect.twins.forecast import pairs_needed
from watermark.errors import DyetraceError


def test_the_coin_sets_the_limit_where_every_pair_is_won() -> None:
    assert pairs_needed(1.0, target_log10=10, power=0.95) == 35


@pytest.mark.parametrize(
    ("assumed", "target", "most"),
    [
        ({"win_chance": 0.9}, 10, 65),
        ({"win_chance": 0.999, "share": 0.1, "magnitude": 5.0}, 6, 320),
        ({"win_chance": 0.999, "share": 0.1, "magnitude": 10.0}, 6, 280),
        ({"win_chance": 0.62}, 6, 370),
    ],
)
def test_half_of_all_suspects_are_found_within_so_many_pairs(assumed: dict[str, Any], target: float, most: int) -> None:
    needed = pairs_needed(**assumed, target_log10=target, power=0.5)
    assert needed is not None
    assert most / 2 < needed <= most


def test_less_of_everything_takes_more_pairs() -> None:
    base = pairs_needed(0.9)
    assert base is not None
    for harder in (
        pairs_needed(0.8),
        pairs_needed(0.9, share=0.5),
        pairs_needed(0.9, target_log10=10),
        pairs_needed(0.9, power=0.99),
        pairs_needed(0.9, bias=0.1),
        pairs_needed(0.9, speaking=0.5),
    ):
        assert harder is not None
        assert harder > base


def test_what_too_many_pairs_would_take_is_none_and_a_seed_gives_the_same_again() -> None:
    assert pairs_needed(0.51, most=200) is None
    assert pairs_needed(0.8, seed=3) == pairs_needed(0.8, seed=3)


@pytest.mark.parametrize(
    ("assumed", "problem"),
    [
        ({"win_chance": 0.5}, "used pair wins"),
        ({"win_chance": 0.9, "share": 0.0}, "share of used pairs"),
        ({"win_chance": 0.9, "speaking": 1.5}, "make a difference"),
        ({"win_chance": 0.9, "magnitude": 0.0}, "larger"),
        ({"win_chance": 0.9, "power": 1.0}, "power"),
    ],
)
def test_assumptions_out_of_range_are_refused(assumed: dict[str, Any], problem: str) -> None:
    with pytest.raises(DyetraceError, match=problem):
        pairs_needed(**assumed)
