"""Tallies are a commutative monoid: no grouping and no order of work can change a report."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detect.corpus.tally import Tally, empty_tally, merge, no_documents, read_documents, read_tally, write_scores

KEYS, SUBKEYS, DECOYS, KEPT, BINS = 2, 3, 4, 5, 6
NOTHING = empty_tally(KEYS, SUBKEYS, DECOYS, 0, BINS)


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    smallest = -rng.exponential(2, (KEYS, KEPT))
    smallest[:, rng.integers(0, KEPT + 1) :] = 0
    return Tally(
        tuples=rng.integers(0, 2**40, KEYS),
        documents=rng.integers(0, 2**20, KEYS),
        totals=rng.integers(-(2**50), 2**60, (KEYS, SUBKEYS)),
        smallest=np.sort(smallest, axis=1),
        histogram=rng.integers(0, 2**50, BINS),
        decoy_tuples=rng.integers(0, 2**20, 1),
        decoy_totals=rng.integers(0, 2**50, (DECOYS, SUBKEYS)),
        sampled_totals=rng.integers(0, 2**50, (KEYS, SUBKEYS)),
    )


def same(a: Tally, b: Tally) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Tally))


@given(tallies(), tallies(), tallies())
def test_merging_does_not_depend_on_grouping_or_order(a: Tally, b: Tally, c: Tally) -> None:
    assert same(a.merged(b).merged(c), a.merged(b.merged(c)))
    assert same(a.merged(b), b.merged(a))
    assert same(merge([c, a, b], NOTHING), merge([a, b, c], NOTHING))


@given(tallies())
def test_nothing_changes_nothing(a: Tally) -> None:
    assert same(a.merged(NOTHING), a)
    assert same(NOTHING.merged(a), a)


@given(tallies(), tallies())
def test_the_smallest_pvalues_of_both_parts_are_kept(a: Tally, b: Tally) -> None:
    both = np.sort(np.concatenate([a.smallest, b.smallest], axis=1), axis=1)
    assert np.array_equal(a.merged(b).smallest, both[:, :KEPT])


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    made = empty_tally(KEYS, SUBKEYS, DECOYS, KEPT, BINS)
    write_scores(tmp_path / "deep" / "x.npz", made, no_documents(SUBKEYS))
    assert same(read_tally(tmp_path / "deep" / "x.npz"), made)
    assert len(read_documents(tmp_path / "deep" / "x.npz")) == 0
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.npz"]
