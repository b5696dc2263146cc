"""From predictions to integer weights: each readout's formula, who is compared with whom, and how readings add up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.verdict.weights import (
    LARGEST_WEIGHT,
    READOUTS,
    STEPS,
    WeightedTuples,
    context_weight,
    gathered,
    gathered_served,
    joined,
    mixture_shares,
    readout,
    rounded,
)

Q = np.array([[0.5, 0.3, 0.2, 0.0], [0.05, 0.9, 0.05, 0.0]])
R = np.array([[0.25, 0.3, 0.4, 0.0], [0.3, 0.3, 0.3, 0.1]])


def test_readouts_are_their_formulas() -> None:
    np.testing.assert_array_equal(readout("argmax", Q, None), [[1, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(readout("mass", Q, None), Q)
    np.testing.assert_allclose(readout("entropy", Q, None), [[0.25, 0.21, 0.16, 0], [0.0475, 0.09, 0.0475, 0]])
    entropy = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    log = readout("log", Q, None)[0]
    np.testing.assert_allclose(log[:3], [math.sqrt(p) * (math.log(p) + entropy) for p in (0.5, 0.3, 0.2)])
    assert log[3] == 0


def test_the_reference_readout_is_what_the_design_says() -> None:
    """sqrt((q + r) / 2) clip(log(max(q, 1e-5) / max(r, 1e-5)), -2, 2)."""
    found = readout("reference", Q, R)
    assert found[0, 0] == pytest.approx(math.sqrt(0.375) * math.log(2))
    assert found[0, 1] == found[0, 3] == 0
    assert found[0, 2] == pytest.approx(-math.sqrt(0.3) * math.log(2))
    assert found[1, 3] == pytest.approx(-2 * math.sqrt(0.05))
    np.testing.assert_allclose(readout("reference", R, Q), -found)


def test_no_readout_without_its_reference_and_none_of_another_name() -> None:
    with pytest.raises(ValueError, match="needs a reference"):
        readout("reference", Q, None)
    with pytest.raises(ValueError, match=r"readout \('best'\) must be one of argmax, mass"):
        readout("best", Q, None)  # type: ignore[arg-type]
    assert all(readout(name, Q, R).shape == Q.shape for name in READOUTS)


def test_every_readout_fits_the_range_of_integer_weights() -> None:
    rng = np.random.default_rng(0)
    q, r = rng.dirichlet(np.full(8, 0.05), 2000), rng.dirichlet(np.full(8, 0.05), 2000)
    for name in READOUTS:
        assert np.abs(readout(name, q, r)).max() * STEPS <= LARGEST_WEIGHT
    assert rounded(np.array([9.0, -9.0, 1.0, 0.01, -0.49 / STEPS])).tolist() == [64, -64, 32, 0, 0]


def test_the_mixture_finds_the_reference_that_is_like_the_suspect() -> None:
    rng = np.random.default_rng(1)
    base, stranger = rng.dirichlet(np.full(10, 0.3), 500), rng.dirichlet(np.full(10, 0.3), 500)
    suspect = 0.9 * base + 0.1 * rng.dirichlet(np.full(10, 0.3), 500)
    shares = mixture_shares(suspect, np.stack([stranger, base]))
    assert shares.sum() == pytest.approx(1)
    assert shares[1] > 0.85
    half = mixture_shares((base + stranger) / 2, np.stack([stranger, base]))
    np.testing.assert_allclose(half, 0.5, atol=0.03)
    assert mixture_shares(suspect, base[None]).tolist() == [1.0]
    assert len(mixture_shares(suspect, np.empty((0, *suspect.shape)))) == 0


def test_the_mixture_survives_a_reference_that_knows_nothing() -> None:
    base = np.random.default_rng(1).dirichlet(np.full(10, 0.3), 50)
    shares = mixture_shares(base, np.stack([np.zeros_like(base), base]))
    np.testing.assert_allclose(shares, [0, 1], atol=1e-3)


def test_contexts_that_were_served_more_weigh_more_and_unserved_ones_nothing() -> None:
    assert context_weight([0, 1, 3, 300]).tolist() == pytest.approx([0, 1, 1.5, 600 / 301])


# --- putting readings together ---------------------------------------------------------------------------


def test_a_context_counts_under_each_subkey_it_was_served_with_and_unserved_ones_not_at_all() -> None:
    contexts = np.array([[1, 2], [3, 4], [1, 2]], dtype=np.uint32)
    prints = np.array([11, 2**63 + 5, 11], dtype=np.uint64)  # above what int64 holds
    tokens, weights = np.array([[7], [8], [7]]), np.array([[1.0], [1.0], [0.5]])
    found = gathered_served(contexts, prints, {11: {0: 3, 2: 9}}, tokens, weights, marked=False)
    assert found.contexts.tolist() == [[1, 2], [1, 2]] and found.subkeys.tolist() == [0, 2]
    assert found.weights.tolist() == rounded(1.5 / 2**0.5 * np.array([1.5, 1.8])).tolist()
    assert not len(gathered_served(contexts, prints, {}, tokens, weights, marked=False))


@given(st.dictionaries(st.integers(0, 3), st.integers(1, 9), min_size=1))
def test_how_often_marked_answers_were_served_has_no_say_in_a_weight(counts: dict[int, int]) -> None:
    """The key decided it, and customers who come back for an interesting answer spread that over all sub-keys."""
    contexts, prints = np.array([[1, 2]], dtype=np.uint32), np.array([11], dtype=np.uint64)
    one, other = (
        gathered_served(contexts, prints, {11: served}, np.array([[7]]), np.array([[1.0]]), marked=True)
        for served in (counts, dict.fromkeys(counts, 1))
    )
    assert one.weights.tolist() == other.weights.tolist() and one.subkeys.tolist() == other.subkeys.tolist()


def as_dict(tuples: WeightedTuples) -> dict[tuple[tuple[int, ...], int], int]:
    assert np.all(np.diff(tuples.context) >= 0)
    found = {
        (tuple(tuples.contexts[c].tolist()), int(token)): int(weight)
        for c, token, weight in zip(tuples.context, tuples.tokens, tuples.weights, strict=True)
    }
    assert len(found) == len(tuples)
    return found


readings = st.lists(
    st.tuples(st.integers(0, 4), st.lists(st.tuples(st.integers(-1, 5), st.floats(-1, 1)), min_size=3, max_size=3)),
    min_size=1,
    max_size=12,
)


@given(readings)
def test_gathering_is_the_sum_over_readings_divided_by_the_root_of_their_number(readings: list[Any]) -> None:
    contexts = np.array([[group, 7] for group, _ in readings], dtype=np.uint32)
    groups = np.array([group * 1000 - 7 for group, _ in readings])
    tokens = np.array([[t for t, _ in row] for _, row in readings], dtype=np.int64)
    weights = np.array([[w for _, w in row] for _, row in readings])
    times = {group: sum(g == group for g, _ in readings) for group, _ in readings}
    found = gathered(contexts, groups, np.arange(len(readings)), tokens, weights)
    sums: dict[Any, float] = {}
    for group, row in readings:
        for token, weight in row:
            if token >= 0:
                sums[(group, 7), token] = sums.get(((group, 7), token), 0.0) + weight / math.sqrt(times[group])
    exact = {key: value * STEPS for key, value in sums.items()}
    got = as_dict(found)
    for key, value in exact.items():
        assert abs(got.get(key, 0) - min(max(value, -LARGEST_WEIGHT), LARGEST_WEIGHT)) <= 0.5 + 1e-9
    assert got.keys() <= exact.keys()
    assert 0 not in got.values()
    order = list(dict.fromkeys(group for group, _ in readings))
    assert found.contexts[:, 0].tolist() == order
    first = {group: i for i, (group, _) in reversed(list(enumerate(readings)))}
    assert found.subkeys.tolist() == [first[group] for group in order]


def test_context_weights_scale_all_of_a_context() -> None:
    args = (
        np.array([[1], [2]], dtype=np.uint32),
        np.array([1, 2]),
        np.array([-1, -1]),
        np.array([[3], [3]]),
        np.ones((2, 1)),
    )
    assert gathered(*args).weights.tolist() == [32, 32]
    assert gathered(*args, np.array([0.5, 0.0])).weights.tolist() == [16]


def test_parts_of_tuples_keep_their_contexts() -> None:
    whole = gathered(
        np.array([[1], [2], [3]], dtype=np.uint32),
        np.array([1, 2, 3]),
        np.array([0, 1, -1]),
        np.array([[3, 4], [3, -1], [5, 6]]),
        np.array([[1.0, 0.5], [0.25, 1], [0.0, -1.0]]),
    )
    assert as_dict(whole) == {((1,), 3): 32, ((1,), 4): 16, ((2,), 3): 8, ((3,), 6): -32}
    some = whole.of_contexts(np.array([False, True, True]))
    assert as_dict(some) == {((2,), 3): 8, ((3,), 6): -32}
    assert some.subkeys.tolist() == [1, -1]
    again = joined([whole.first(1), some])
    assert as_dict(again) == as_dict(whole)
    assert again.subkeys.tolist() == whole.subkeys.tolist()
    assert len(whole.first(0)) == 0
