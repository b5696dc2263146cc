"""The evidence file: what comes back is what went in, and nothing that would count a word twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.student.verdict.evidence import Evidence, TraceSettings, encode_evidence, read_evidence
from detect.student.verdict.weights import WeightedTuples
from watermark.errors import DyetraceError


def tuples(contexts: list[list[int]], per: list[tuple[int, int, int]], subkeys: list[int]) -> WeightedTuples:
    context, tokens, weights = (np.array(column, dtype=np.int64) for column in zip(*per, strict=True))
    return WeightedTuples(
        np.array(contexts, dtype=np.uint32),
        context,
        tokens.astype(np.uint32),
        weights,
        np.array(subkeys, dtype=np.int64),
    )


def evidence(**changes: Any) -> Evidence:
    made = tuples([[7, 8], [8, 2**31], [1, 1]], [(0, 5, 3), (0, 6, -64), (1, 5, 1), (2, 0, 64)], [-1, -1, -1])
    steps = changes.pop("steps", np.array([1, 1, 4]))
    return Evidence(replace(made, **changes), steps)


def saved(path: Path, what: Evidence) -> Path:
    path.write_bytes(encode_evidence(what))
    return path


def assert_equal(a: Evidence, b: Evidence) -> None:
    np.testing.assert_array_equal(a.steps, b.steps)
    for name in ("contexts", "context", "tokens", "weights", "subkeys"):
        one, other = getattr(a.tuples, name), getattr(b.tuples, name)
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_evidence_comes_back_as_it_was_and_equal_evidence_is_equal_bytes(tmp_path: Path) -> None:
    back = read_evidence(saved(tmp_path / "e.npz", evidence()))
    assert_equal(back, evidence())
    assert encode_evidence(back) == encode_evidence(evidence())
    assert encode_evidence(evidence(weights=np.array([3, -64, 1, 63]))) != encode_evidence(evidence())


def test_what_was_known_after_a_step_is_the_contexts_found_until_then() -> None:
    early = evidence().until(3)
    assert early.contexts == 2 and early.tuples.weights.tolist() == [3, -64, 1]
    assert evidence().until(0).contexts == 0
    assert_equal(evidence().until(4), evidence())


@pytest.mark.parametrize("width", [1, 5])
def test_one_context_may_stand_under_several_known_subkeys_beside_others_without(width: int, tmp_path: Path) -> None:
    """Marked text with sub-keys on record, and unmarked text read beside it."""
    rows = [[7] * width, [7] * width, [8] * width]
    made = tuples(rows, [(0, 5, 3), (1, 5, 2), (2, 5, 1)], [0, 1, -1])
    whole = Evidence(made, np.array([1, 2, 3]))
    assert_equal(read_evidence(saved(tmp_path / "e.npz", whole)), whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": np.array([5, 5, 5, 0], dtype=np.uint32)},
        {"contexts": np.array([[7, 8], [7, 8], [1, 1]], dtype=np.uint32)},
        {"contexts": np.array([[7, 8], [7, 8], [1, 1]], dtype=np.uint32), "subkeys": np.array([2, 2, 0])},
        {"contexts": np.array([[7, 8], [7, 8], [1, 1]], dtype=np.uint32), "subkeys": np.array([-1, 2, 0])},
    ],
    ids=["token", "context", "context under one sub-key", "context under one sub-key and all"],
)
def test_a_word_that_would_count_twice_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="holds a tuple twice"):
        read_evidence(saved(tmp_path / "e.npz", evidence(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"context": np.array([0, 0, 1, 3])},
        {"context": np.array([-1, 0, 1, 2])},
        {"weights": np.array([1, 2, 3])},
        {"steps": np.array([1, 2])},
        {"subkeys": np.array([-1, -1])},
        {"contexts": np.array([1, 2, 3], dtype=np.uint32)},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="don't fit together"):
        read_evidence(saved(tmp_path / "e.npz", evidence(**changes)))


def test_a_damaged_file_is_one_line_and_never_other_evidence(tmp_path: Path) -> None:
    data = encode_evidence(evidence())
    path, rng = tmp_path / "e.npz", np.random.default_rng(0)
    for trial in range(400):
        broken = bytearray(data)
        if trial % 2:
            del broken[int(rng.integers(len(data))) :]
        else:
            broken[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        try:
            assert_equal(read_evidence(path), evidence())  # a flipped bit of the zip's own dates changes nothing
        except DyetraceError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_missing_files_and_foreign_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="cannot read"):
        read_evidence(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", version=np.array(1), contexts=np.zeros((1, 2)))
    with pytest.raises(DyetraceError, match="not a trace's evidence"):
        read_evidence(tmp_path / "other.npz")
    np.savez(tmp_path / "newer.npz", version=np.array(2))
    with pytest.raises(DyetraceError, match="version 2"):
        read_evidence(tmp_path / "newer.npz")


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1e-6, float("nan")])
def test_levels_outside_0_and_1_are_refused(alpha: float) -> None:
    with pytest.raises(DyetraceError, match="alpha must lie in"):
        TraceSettings(alpha=alpha)
    with pytest.raises(DyetraceError, match="decoys must be 0 or more"):
        TraceSettings(decoy_count=-1)
