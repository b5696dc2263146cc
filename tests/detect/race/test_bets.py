"""Bets are at fair odds whatever the reply is, and their growth is the formula's, cut by cut and all at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.keyed.choices import LATTICE
from detect.race.bets import (
    CLIP,
    PARTS,
    RAISES,
    RARE,
    SHARPNESS,
    STAKES,
    THETAS,
    Growth,
    bet_of,
    goes_on,
    log10_evalues,
    log_growths,
    stakes,
)
from detect.records.race import RaceAsk

F64 = npt.NDArray[np.float64]
ASKS: tuple[RaceAsk, ...] = ("weights", "prompt-logprobs", "echo", "logprobs", "bias", "greedy")


def drawn(seed: int, rows: int = 30, k: int = 9) -> tuple[F64, F64, npt.NDArray[np.int32]]:
    """Chances with holes, probabilities and words of all kinds."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.3), rows) + 1e-4
    p[:, rng.integers(2, k) :] = 0.0
    p /= p.sum(axis=1, keepdims=True)
    q = rng.dirichlet(np.full(k, 0.3), rows)
    q[rng.random(rows) < 0.1] = 0.0
    said = rng.integers(-1, np.count_nonzero(p[0]), rows).astype(np.int32)
    return p, q, said


@pytest.mark.parametrize("ask", ASKS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), missing=st.floats(0, 1), compared=st.booleans())
def test_a_bet_is_worth_at_most_what_it_costs(ask: RaceAsk, seed: int, missing: float, compared: bool) -> None:
    p, q, said = drawn(seed)
    rng = np.random.default_rng(seed + 1)
    base = np.where(rng.random((len(q), 1)) < missing, np.nan, drawn(seed + 2)[1]) if compared else None
    gone = rng.random(q.shape) < missing if ask == "echo" else np.repeat(rng.random((len(q), 1)) < missing, 9, axis=1)
    shares = np.where(gone, np.nan, q)
    laid = stakes(ask, p, said, shares if bet_of(ask) != "words" else np.zeros((len(p), 0)), base)
    assert (laid.kept >= 0).all()
    assert (laid.laid >= 0).all()
    raised = p + (LATTICE * (p > 0).sum(axis=1))[:, None]
    worth = laid.kept + (laid.laid * raised[:, None, :]).sum(axis=2)
    assert worth.max() <= 1 + 1e-12


@pytest.mark.parametrize("ask", ["greedy", "bias"])
def test_a_word_is_bet_on_by_its_likelihood_where_the_key_chose_each_candidate(ask: RaceAsk) -> None:
    p = np.array([[0.5, 0.2, 0.3, 0.0]])
    sharp = p[0, :3] ** SHARPNESS[ask]
    sharp /= sharp.sum()
    for said in (0, 1, 2):
        # How likely a suspect says the word that draws from the sharpened chances, the odds of one candidate raised.
        likely = np.empty((len(RAISES), 3))
        for chosen in range(3):
            odds = np.where(np.arange(3) == chosen, np.exp(RAISES)[:, None], 1.0) * sharp
            likely[:, chosen] = odds[:, said] / odds.sum(axis=1)
        tilt = np.array([[[0.1, 0.6, 0.3, 0.0]]])
        growths = log_growths(ask, tilt, p, np.array([said], dtype=np.int32), np.zeros((1, 0)))
        assert np.allclose(growths[0, 0], np.log(likely @ tilt[0, 0, :3] / (likely @ p[0, :3])), atol=1e-7)
    assert (log_growths(ask, tilt, p, np.array([-1], dtype=np.int32), np.zeros((1, 0))) == 0).all()


def test_probabilities_of_all_are_bet_on_by_the_formula() -> None:
    p, q = np.array([[0.5, 0.5 - 1e-3, 1e-3]]), np.array([[0.9, 0.05, 0.04]])
    growths = log_growths("weights", np.array([[[0.2, 0.3, 0.5]]]), p, np.array([0], dtype=np.int32), q)
    believed = THETAS[3] * np.maximum(1 + np.log(p[0]) / RARE, 0)
    h = np.exp(believed * np.clip(np.log(q[0]) - np.log(p[0]), -CLIP, CLIP))
    assert growths[0, 0, 3] == pytest.approx(np.log([0.2, 0.3, 0.5] @ h / (p[0] @ h)), abs=1e-6)


@pytest.mark.parametrize("ask", ["weights", "greedy"])
def test_what_a_reference_says_as_well_is_no_reason_for_a_bet(ask: RaceAsk) -> None:
    p, q = np.array([[0.5, 0.4, 0.1]]), np.array([[0.02, 0.9, 0.08]])
    said, shares = np.array([1], dtype=np.int32), q if ask == "weights" else np.zeros((1, 0))
    alone, beside = (log_growths(ask, np.eye(3)[None, 1:2], p, said, shares, base)[0, 0] for base in (None, q))
    assert (alone > 0.1).all() and (np.abs(beside) < np.abs(alone)).all()
    unknown = log_growths(ask, np.eye(3)[None, 1:2], p, said, shares, np.full((1, 3), np.nan))[0, 0]
    assert (unknown == alone).all()


def test_some_probabilities_are_bet_on_by_the_formula() -> None:
    p, q = np.array([[0.25, 0.75]]), np.array([[0.6, np.nan]])
    growths = log_growths("echo", np.array([[[0.9, 0.1]]]), p, np.array([-1], dtype=np.int32), q)
    w = np.array(STAKES)
    assert np.allclose(growths[0, 0], np.log(1 - w + w * 0.9 * 0.6 / 0.25), atol=1e-7)


def test_a_hit_on_a_word_that_the_owner_finds_unlikely_says_more() -> None:
    p = np.array([[0.6, 0.3, 0.1]] * 3)
    growths = log_growths("greedy", np.eye(3)[None], p, np.arange(3, dtype=np.int32), np.zeros((3, 0)))
    assert (np.diff(growths[0], axis=0) > 0).all()


def test_an_echo_of_one_token_says_at_most_what_all_would() -> None:
    p, q, said = drawn(3, rows=200)
    rng = np.random.default_rng(4)
    tilt = rng.dirichlet(np.full(9, 0.2), 200)[None] * (p > 0)
    served = rng.integers(0, 2, 200)
    one = np.where(np.arange(9) == served[:, None], q, np.nan)
    assert (log_growths("echo", tilt, p, said, one) <= log_growths("echo", tilt, p, said, q) + 1e-12).all()


def test_a_missing_reply_to_a_whole_answer_counts_at_the_least_that_it_could_have_been() -> None:
    p, q, said = drawn(5, rows=400)
    tilt = np.eye(9)[np.random.default_rng(6).integers(0, np.count_nonzero(p[0]), 400)][None]
    none = np.full_like(q, np.nan)
    missing = log_growths("prompt-logprobs", tilt, p, said, none)
    assert (missing <= log_growths("prompt-logprobs", tilt, p, said, q) + 1e-12).all()
    # Where the prefix alone decides whether there is a reply, none says nothing.
    assert (log_growths("logprobs", tilt, p, said, none) == 0).all()


def formula(documents: npt.NDArray[np.int32], growths: F64) -> float:
    """Log10 of the mean over bets and parts of the product over answers, as it is written down."""
    total = 0.0
    for bet in range(growths.shape[2]):
        for part in PARTS:
            value = 1.0
            for document in np.unique(documents):
                rows = documents == document
                value *= 1 - part + part * np.exp(growths[:, rows, bet].sum(axis=1)).mean()
            total += value
    return float(np.log10(total / growths.shape[2] / len(PARTS)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 40), layers=st.sampled_from([1, 4]))
def test_the_evalue_is_the_formulas_after_each_cut_and_the_same_bit_for_bit_in_any_pieces(
    seed: int, rows: int, layers: int
) -> None:
    rng = np.random.default_rng(seed)
    documents = np.sort(rng.integers(0, 8, rows)).astype(np.int32)
    growths = rng.normal(0, 1.5, (layers, rows, 3))
    whole = log10_evalues(documents, growths)
    growth, pieces, last = Growth(), Growth(), Growth()
    assert growth.log10_evalue == 0
    assert [growth.observe(int(documents[row]), growths[:, row]) for row in range(rows)] == whole.tolist()
    cut = int(rng.integers(0, rows + 1))
    assert np.array_equal(
        np.concatenate([pieces.observe_all(documents[a:b], growths[:, a:b]) for a, b in ((0, cut), (cut, rows))]), whole
    )
    last.observe_all(documents, growths, each=False)
    assert last.log10_evalue == whole[-1] == growth.log10_evalue
    for row in (0, rows // 2, rows - 1):
        assert whole[row] == pytest.approx(formula(documents[: row + 1], growths[:, : row + 1]), abs=1e-9)


def test_an_answer_is_gone_on_with_until_its_own_bets_lose() -> None:
    growth = Growth()
    assert growth.log_answer == 0
    assert goes_on(0, growth.log_answer)
    growth.observe(0, np.log([[1.0, 3.0]]))
    assert growth.log_answer == pytest.approx(np.log(2))
    assert goes_on(1, growth.log_answer)
    growth.observe(0, np.log([[1.0, 0.3]]))
    assert growth.log_answer == pytest.approx(np.log(0.95))
    assert goes_on(2, growth.log_answer)
    growth.observe(0, np.log([[0.5, 0.5]]))
    assert growth.log_answer == pytest.approx(np.log(0.475))
    assert not goes_on(3, growth.log_answer)
    growth.observe(1, np.log([[0.5, 0.25]]))
    assert growth.log_answer == pytest.approx(np.log(0.375))


def test_known_sub_keys_before_unknown_ones_change_nothing() -> None:
    rng = np.random.default_rng(8)
    documents = np.array([0, 0, 1, 2, 2], dtype=np.int32)
    known, unknown = rng.normal(size=(1, 3, 2)), rng.normal(size=(4, 2, 2))
    together = np.concatenate([np.repeat(known, 4, axis=0), unknown], axis=1)
    growth = Growth()
    growth.observe_all(documents[:3], known)
    growth.observe_all(documents[3:], unknown)
    assert growth.log10_evalue == log10_evalues(documents, together)[-1]


def test_evidence_far_beyond_floats_is_a_number() -> None:
    documents = np.arange(3000, dtype=np.int32)
    growths = np.full((1, 3000, 1), 5.0)
    assert log10_evalues(documents, growths)[-1] == pytest.approx(3000 * 5 / np.log(10) - np.log10(4), rel=1e-9)
    assert -3 < log10_evalues(documents, -growths)[-1] < 0 or log10_evalues(documents, -growths)[-1] < -30


def test_a_few_answers_of_many_are_found_by_parts_and_not_by_the_plain_product() -> None:
    # 40 of 600 answers were learnt from; the others cost what a wrong bet costs.
    documents = np.repeat(np.arange(600), 6).astype(np.int32)
    growths = np.full((1, 3600, 1), -0.1)
    growths[0, np.isin(documents, np.arange(0, 600, 15)), 0] = 0.7
    assert log10_evalues(documents, growths)[-1] > 20
    assert growths.sum() / np.log(10) < -20
