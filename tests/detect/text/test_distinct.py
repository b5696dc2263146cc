"""Distinct tuples: each (context, token) once, contexts as the generator saw them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.text.distinct import distinct_tuples, first_occurrences, tuple_fingerprints
from watermark.prf import MISSING

IDS = st.lists(st.integers(0, 3), max_size=60).map(lambda ids: np.array(ids, dtype=np.uint32))


@given(ids=IDS, width=st.integers(1, 5), prompt=st.none() | IDS)
def test_tuples_are_those_of_a_plain_loop(ids: np.ndarray, width: int, prompt: np.ndarray | None) -> None:
    whole = list(ids) if prompt is None else [*prompt, *ids]
    lead = 0 if prompt is None else len(prompt)
    seen: dict[tuple[int, ...], int] = {}
    for place in range(width if prompt is None else lead, len(whole)):
        context = [MISSING] * max(0, width - place) + whole[max(0, place - width) : place]
        seen.setdefault((*context, whole[place]), place - lead)
    tuples = distinct_tuples(ids, width, prompt)
    found = np.column_stack([tuples.contexts, tuples.tokens]).tolist()
    assert [tuple(row) for row in found] == list(seen)
    assert tuples.positions.tolist() == list(seen.values())


@given(ids=IDS)
def test_without_a_context_types_are_counted(ids: np.ndarray) -> None:
    tuples = distinct_tuples(ids, 0)
    assert dict(zip(tuples.tokens.tolist(), tuples.counts.tolist(), strict=True)) == {
        token: ids.tolist().count(token) for token in set(ids.tolist())
    }


@pytest.mark.parametrize("n", [0, 1, 1_000, 150_000, 400_000])
@pytest.mark.parametrize("values", [3, 1_000, 10**9])
def test_first_occurrences_agree_with_numpy_on_both_sides_of_the_bucket_size(n: int, values: int) -> None:
    generator = np.random.default_rng(n + values)
    fingerprints = generator.integers(1, values, n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = np.zeros(n, dtype=bool)
    expected[np.unique(fingerprints, return_index=True)[1]] = True
    assert np.array_equal(first_occurrences(fingerprints), expected)


def test_fingerprints_depend_on_every_token_of_a_tuple_and_on_their_order() -> None:
    base = np.arange(1, 8, dtype=np.uint32)
    reference = tuple_fingerprints(base, 6, 6)[0]
    changed = [np.where(np.arange(7) == i, base + np.uint32(1 << 31), base).astype(np.uint32) for i in range(7)]
    swapped = base[[1, 0, 2, 3, 4, 5, 6]]
    others = {int(tuple_fingerprints(ids, 6, 6)[0]) for ids in [*changed, swapped]}
    assert len(others) == 8 and int(reference) not in others


def test_a_document_shorter_than_the_context_has_no_tuples() -> None:
    assert len(distinct_tuples(np.array([5, 6], dtype=np.uint32), 4)) == 0
    assert len(distinct_tuples(np.array([], dtype=np.uint32), 2)) == 0
