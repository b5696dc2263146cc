"""The law test of regenerated twins: it passes the right law, and no innocent is found whatever the law was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.records.twins import LawTest
from detect.twins.bets import bets, bets_on_many
from detect.twins.law import (
    BETS_PER_PAIR,
    MOST_BIAS,
    Control,
    bias_upper,
    fewest,
    flat,
    law_test,
    learnt_scores,
)
from watermark.errors import DyetraceError

F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]

PAIRS = 200
TARGET = 6.0  # log10 of the e-value at which somebody is found


def coins(random: np.random.Generator, chance: F64 | float, n: int = PAIRS) -> I8:
    """Signs that are 1 with the given chance."""
    return np.where(random.random(n) < chance, 1, -1).astype(np.int8)


class World:
    """Pairs of a law that is off by ``tilt``: what the owner's model sees of them, unrelated models, and suspects."""

    def __init__(self, seed: int, tilt: float, n: int = PAIRS) -> None:
        self.random = np.random.default_rng([seed, 16])
        self.owner = self.random.standard_t(4, n)
        # The right coin of two answers is logistic in the difference of their log-likelihood ratios (Bayes).
        self.signs = coins(self.random, 1 / (1 + np.exp(-tilt * self.owner)), n)
        self.features = np.column_stack([self.owner, self.random.normal(size=(n, 12))])

    def innocent(self, sees: float) -> F64:
        """Numbers of a model that shares so much of the owner's opinion."""
        return sees * self.owner + self.random.normal(size=len(self.owner))

    def student(self, strength: float) -> F64:
        """Numbers of a model that learnt from what was served."""
        return self.innocent(0.6) + strength * self.signs

    def test(self) -> tuple[LawTest, F64]:
        """The law test by the owner's model, one unrelated model and a classifier; and the covariates of verdicts."""
        unrelated, own = self.innocent(0.5), self.owner[:, None]
        owner = Control("the owner's model", "owner", self.owner, self.signs)
        controls = [
            owner,
            owner.largest_half(),
            Control("an unrelated model", "unrelated", flat(unrelated[:, None], own)[:, 0], self.signs),
            Control("the classifier", "classifier", learnt_scores(self.features, self.signs), self.signs),
        ]
        return law_test(controls, bets=len(self.signs)), np.column_stack([own, unrelated])

    def evidence(self, numbers: F64, law: LawTest, covariates: F64) -> float:
        """Log10 of the largest e-value on the way: whoever stops at the best moment gets no more."""
        return float(bets(flat(numbers[:, None], covariates), self.signs, bias=law.bias).log10_evalues.max())


def test_twins_of_the_right_law_are_refused_once_in_a_hundred_at_most() -> None:
    refused = sum(World(seed, 0.0).test()[0].veto is not None for seed in range(300))
    # 1% is the level for all controls together; 9 of 300 have a chance below 0.4% then.
    assert refused <= 9


@pytest.mark.parametrize("tilt", [0.0, 0.1, 0.2, 0.4, 0.8, 2.0])
def test_no_innocent_is_found_however_far_the_law_is_off(tilt: float) -> None:
    for seed in range(60):
        world = World(seed, tilt)
        law, covariates = world.test()
        for sees in (0.0, 0.5, 1.0, 2.0):
            assert law.veto is not None or world.evidence(world.innocent(sees), law, covariates) < TARGET / 2


def test_a_law_that_is_far_off_is_refused() -> None:
    vetoes = [World(seed, 1.0).test()[0].veto for seed in range(20)]
    assert all(veto is not None and "the owner's model tells served answers from twins" in veto for veto in vetoes)


def test_a_student_of_the_served_answers_is_found_under_the_right_law() -> None:
    for seed in range(10):
        world = World(seed, 0.0)
        law, covariates = world.test()
        if law.veto is None:
            assert world.evidence(world.student(4.0), law, covariates) > TARGET


def test_without_the_bias_an_innocent_would_be_found_sooner_or_later() -> None:
    """What the bias is for: the same suspect and the same coins, under a null that allows for none."""
    world = World(1, 0.4, n=4000)
    unaware = bets(np.sign(world.owner)[:, None], world.signs).log10_evalue
    assert unaware > TARGET


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_what_is_bet_on_flips_with_the_pair_and_knows_no_later_pair(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    x, z = random.normal(size=(n, 2)) * (random.random((n, 1)) > 0.2), random.normal(size=(n, 3))
    turns = coins(random, 0.5, n)[:, None]
    found = flat(x, z)
    assert np.array_equal(flat(x * turns, z * turns), found * turns)
    assert np.array_equal(flat(x[: n // 2], z[: n // 2]), found[: n // 2])
    assert set(np.unique(found)) <= {-1.0, 0.0, 1.0}
    assert np.array_equal(found[:, 0] == 0, x[:, 0] == 0)


def test_what_the_owners_model_explains_is_taken_out_before_betting() -> None:
    world = World(3, 1.0, n=2000)
    numbers = 2 * world.owner + world.random.normal(size=2000)
    wins = [float(np.mean(flat(numbers[:, None], z)[:, 0] == world.signs)) for z in (None, world.owner[:, None])]
    assert wins[0] > 0.65 and abs(wins[1] - 0.5) < 0.04


def test_a_classifier_knows_no_coin_of_its_own_block_or_a_later_one() -> None:
    world = World(4, 1.0)
    before = learnt_scores(world.features, world.signs)
    turned = world.signs.copy()
    turned[120:] *= -1
    after = learnt_scores(world.features, turned)
    assert np.array_equal(before[:120], after[:120]) and not np.array_equal(before[140:], after[140:])
    assert not before[: PAIRS // 12].any()


def test_a_classifier_wins_half_of_fair_coins_and_most_of_a_wrong_law() -> None:
    def won(seed: int, tilt: float) -> int:
        world = World(seed, tilt)
        return Control("c", "classifier", learnt_scores(world.features, world.signs), world.signs).wins

    fair = [won(seed, 0.0) for seed in range(100)]
    counted = PAIRS - PAIRS // 12
    assert abs(np.mean(fair) - counted / 2) < 3 * np.sqrt(counted / 4 / 100)
    # Exactly binomial: its variance too.
    assert 0.6 < np.var(fair) / (counted / 4) < 1.5
    assert np.mean([won(seed, 1.5) for seed in range(20)]) > 0.65 * counted


@pytest.mark.parametrize("chance", [0.5, 0.55, 0.7, 0.9])
def test_the_limit_of_a_bias_holds_in_99_of_100(chance: float) -> None:
    random = np.random.default_rng(7)
    wins = random.binomial(150, chance, 2000)
    missed = sum(bias_upper(int(w), 150 - int(w)) < chance - 0.5 for w in wins)
    assert missed <= 2000 * 0.01 + 3 * np.sqrt(20)


def test_the_mean_of_bets_on_signs_is_at_most_one_where_the_average_chance_is_within_the_bias() -> None:
    """Chances that differ from pair to pair: it is their average that the limit is of."""
    random = np.random.default_rng(8)
    n, bias = 12, 0.1
    chances = np.where(np.arange(n) % 2, 0.9, 0.3)  # 0.6 on average
    signs = np.where(random.random((20_000, n)) < chances, 1, -1)
    evalues = 10 ** bets_on_many(np.ones((n, 1)), signs, bias=bias)[:, -1]
    assert evalues.mean() < 1 + 4 * evalues.std() / np.sqrt(len(evalues))


def control(wins: int, losses: int, kind: str = "unrelated", bounds: bool = True) -> Control:
    """A control of so many wins and losses."""
    signs = np.ones(wins + losses, dtype=np.int8)
    return Control(f"{kind} control", kind, np.repeat([1.0, -1.0], [wins, losses]), signs, bounds)  # type: ignore[arg-type]


def three(wins: int, losses: int) -> list[Control]:
    """One of each kind that is needed."""
    return [control(wins, losses, kind) for kind in ("owner", "unrelated", "classifier")]


def test_the_bias_is_the_largest_limit_of_those_that_bound_it() -> None:
    law = law_test([*three(102, 98), control(115, 85, "unserved"), control(1, 3, bounds=False)], bets=200)
    assert law.veto is None
    assert law.bias == max(one.bias_upper for one in law.controls if one.bounds) == law.controls[3].bias_upper
    assert law.controls[4].bias_upper > law.bias


def test_too_few_pairs_are_refused_and_the_fewest_are_named() -> None:
    confidence = 1 - 0.01 / 3
    least = fewest(confidence)
    assert bias_upper(least // 2, least // 2, confidence) <= MOST_BIAS
    law = law_test(three(least // 2 - 1, least // 2 - 1), bets=10)
    assert law.veto is not None and f"{least} are the fewest that bound a bias" in law.veto
    assert law_test(three(least // 2, least // 2), bets=10).veto is None
    many = law_test(three(100, 100), bets=BETS_PER_PAIR * 200 + 1)
    assert many.veto is not None and "201 are the fewest" in many.veto


@pytest.mark.parametrize(("kind", "says"), [("owner", "the owner's model"), ("unrelated", "a model of another family")])
def test_a_kind_of_control_that_is_missing_is_named(kind: str, says: str) -> None:
    law = law_test([one for one in three(100, 100) if one.kind != kind], bets=200)
    assert law.veto is not None and f"no control is {says}" in law.veto


def test_what_differs_on_record_is_a_veto_by_itself() -> None:
    law = law_test(three(100, 100), bets=200, differing=["the twins are of another model"])
    assert law.veto == "the twins are of another model"


def test_a_control_that_can_refuse_only_does_so() -> None:
    law = law_test([*three(100, 100), control(40, 0, bounds=False)], bets=200)
    assert law.veto is not None and "(40 to 0)" in law.veto


def test_a_difference_that_shows_in_the_largest_pairs_alone_is_seen_there() -> None:
    random = np.random.default_rng(9)
    x = random.standard_t(3, 400)
    signs = np.where(np.abs(x) > 3, np.sign(x), coins(random, 0.5, 400)).astype(np.int8)
    whole = Control("a model", "unrelated", x, signs)
    half = whole.largest_half()
    assert half.wins + half.losses == 200 and not half.bounds
    assert half.wins / 200 > whole.wins / 400


def test_numbers_that_are_none_are_refused_in_one_line() -> None:
    with pytest.raises(DyetraceError, match="not finite"):
        law_test([Control("c", "owner", np.array([np.nan]), np.array([1], dtype=np.int8))], bets=1)
    with pytest.raises(DyetraceError, match="shape"):
        law_test([Control("c", "owner", np.ones(2), np.array([1], dtype=np.int8))], bets=1)
