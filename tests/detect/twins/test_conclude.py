"""What evidence comes to: bets in the order of time, accounts by their own coins, no verdict where none can be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.records.twins import LawTest
from detect.twins.bets import bets
from detect.twins.conclude import Growth, conclude, log10_evalues, part, tally
from detect.twins.evidence import TwinEvidence
from detect.twins.law import flat

ALPHA = 1e-3


def evidence(signed: Any, *, seed: int = 0, accounts: tuple[str, ...] = (), covariates: int = 0) -> TwinEvidence:
    """Pairs whose first number, times the coin, is as given; coins are fair."""
    rng = np.random.default_rng(seed)
    values = np.asarray(signed, dtype=np.float64)
    n = len(values)
    signs = rng.choice(np.array([-1, 1], dtype=np.int8), n)
    z = rng.normal(size=(n, covariates))
    return TwinEvidence(
        ids=tuple(f"{row:032x}" for row in range(n)),
        made=tuple(f"2026-11-30T12:00:00.{row:06d}+00:00" for row in range(n)),
        columns=("first", "second"),
        differences=np.column_stack([values * signs, rng.normal(size=n)]),
        covariate_names=tuple(f"z{number}" for number in range(covariates)),
        covariates=z,
        signs=signs,
        accounts=accounts,
        account=(np.arange(n) % max(1, len(accounts)) - (not accounts)).astype(np.int32),
    )


def law(bias: float, veto: str | None = None) -> LawTest:
    return LawTest(controls=[], bias=bias, veto=veto)


def test_pairs_that_all_speak_for_what_was_served_are_found() -> None:
    found = conclude(evidence(np.ones(40)), None, ALPHA)
    assert found.found and found.refused is None
    assert found.log10_pvalue == -found.log10_evalue
    assert (found.measures[0].wins, found.measures[0].losses) == (40, 0)
    assert found.measures[0].log10_pvalue == pytest.approx(-40 * math.log10(2))
    assert found.curve[-1].count == 40 and found.curve[-1].log10_evalue == found.log10_evalue


def test_pairs_that_speak_for_neither_are_not() -> None:
    assert not conclude(evidence(np.tile([1.0, -1.0], 20)), None, ALPHA).found


def test_a_suspect_that_leans_to_what_was_withheld_gets_no_verdict() -> None:
    """The coins speak, and bets learn which way; but who leans away did not learn from what was served."""
    found = conclude(evidence(-np.ones(60)), None, ALPHA)
    assert found.log10_evalue > 3
    assert not found.found and found.refused is not None and "60 to 0" in found.refused


def test_one_that_leans_away_in_its_largest_differences_alone_gets_none_either() -> None:
    """A reference that learnt from few of the pairs: the number of losses is no more than chance gives."""
    signed = np.random.default_rng(3).permutation(np.r_[np.full(140, 0.5), np.full(100, -0.5), np.full(60, -9.0)])
    found = conclude(evidence(signed), None, ALPHA)
    assert found.log10_evalue > 3
    assert not found.found and found.refused is not None and "by the largest differences" in found.refused


def test_pairs_that_all_say_nothing_get_no_verdict() -> None:
    silent = evidence(np.zeros(5))
    silent.differences[:] = 0
    found = conclude(silent, None, ALPHA)
    assert found.refused is not None and found.log10_pvalue is None and not found.found
    assert found.log10_evalue == 0


def test_without_any_pair_there_is_no_verdict() -> None:
    found = conclude(evidence([]), None, ALPHA)
    assert found.refused is not None and found.curve == [] and found.measures[0].ties == 0


def test_an_objection_or_a_veto_withholds_the_verdict_and_every_name() -> None:
    guilty = evidence(np.ones(60), accounts=("acme",))
    for found in (conclude(guilty, None, ALPHA, "no"), conclude(guilty, law(0.05, "no"), ALPHA)):
        assert (found.refused, found.found, found.identified, found.log10_pvalue) == ("no", False, [], None)


def test_an_account_is_named_by_its_own_coins_alone() -> None:
    signed = np.ones(80)
    signed[1::2] = np.tile([1.0, -1.0], 20)
    found = conclude(evidence(signed, accounts=("acme", "zenith")), None, ALPHA)
    acme, zenith = found.accounts
    assert (acme.pairs, acme.wins, zenith.wins, zenith.losses) == (40, 40, 20, 20)
    assert found.identified == ["acme"]
    assert acme.log10_evalue_adjusted == pytest.approx(acme.log10_evalue - math.log10(2))
    own = part(evidence(signed, accounts=("acme", "zenith")), np.arange(80) % 2 == 0)
    assert acme.log10_evalue == log10_evalues(own, None)[-1]


def test_the_law_test_of_all_pairs_names_no_account_by_a_part_of_them() -> None:
    """One account had another system prompt: its answers are of another law, which all pairs together hardly show."""
    signed = np.tile([1.0, -1.0], 200)
    signed[::4] = 1.0
    both = evidence(signed, accounts=tuple("abcd"))
    found = conclude(both, law(0.05), ALPHA)
    assert found.accounts[0].log10_evalue_adjusted > 3 and found.identified == []
    alone = evidence(np.ones(100), accounts=("a",))
    assert conclude(alone, law(0.05), ALPHA).identified == ["a"]


def test_a_bias_that_the_law_test_leaves_open_costs_evidence() -> None:
    guilty = evidence(np.ones(60))
    plain = conclude(guilty, law(0.0), ALPHA).log10_evalue
    allowing = conclude(guilty, law(0.1), ALPHA)
    assert 0 < allowing.log10_evalue < plain
    assert allowing.measures[0].log10_pvalue == pytest.approx(60 * math.log10(0.6))


def test_twins_drawn_later_are_bet_on_by_signs_alone() -> None:
    made = evidence(np.linspace(-1, 9, 50), covariates=2)
    assert np.array_equal(
        log10_evalues(made, law(0.05)),
        bets(flat(made.differences, made.covariates), made.signs, bias=0.05).log10_evalues,
    )


@given(st.integers(1, 60), st.integers(0, 3), st.integers(0, 1000))
def test_growth_pair_by_pair_is_the_evidence_of_all_pairs_bit_for_bit(n: int, covariates: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = evidence(rng.normal(0.5, 1, n), seed=seed, covariates=covariates)
    growth = Growth(2, covariates, None)
    seen = [growth.observe(x, z, int(s)) for x, z, s in zip(made.differences, made.covariates, made.signs, strict=True)]
    assert seen == log10_evalues(made, None).tolist()


def test_growth_of_twins_drawn_later_is_the_evidence_at_each_pair() -> None:
    made = evidence(np.random.default_rng(1).normal(1, 1, 90), covariates=1)
    growth = Growth(2, 1, law(0.05))
    seen = [growth.observe(x, z, int(s)) for x, z, s in zip(made.differences, made.covariates, made.signs, strict=True)]
    assert seen == log10_evalues(made, law(0.05)).tolist()
    assert len(set(seen)) > 40


def test_ties_belong_to_neither_side() -> None:
    assert tally(evidence([1.0, 0.0, -1.0, 0.0, 2.0]), 0) == (2, 1, 2)
