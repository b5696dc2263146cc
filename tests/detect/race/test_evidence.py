"""The file of a race readout: what is written is read again bit for bit, and what doesn't fit is one line."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.race.evidence import EVIDENCE_FILE, RaceEvidence, encode_evidence, read_evidence, what_is_wrong
from watermark.errors import DyetraceError, EvidenceError

NAMES = ("served.jsonl, line 1", "served.jsonl, line 2", "served.jsonl, line 4")


def evidence(**changes: Any) -> RaceEvidence:
    whole = RaceEvidence(
        ask="weights",
        contexts=np.array([[1, 2], [2, 9], [2**32 - 1, 1]], dtype=np.uint32),
        subkeys=np.array([0, 0, 3], dtype=np.int32),
        documents=np.array([0, 0, 2], dtype=np.int32),
        positions=np.array([4, 6, 3], dtype=np.int32),
        tokens=np.array([[5, 7, 1], [9, 8, -1], [2, 1, 0]], dtype=np.int32),
        chances=np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [0.9, 0.0999, 0.0001]]),
        said=np.array([0, -1, 2], dtype=np.int32),
        shares=np.array([[0.6, 0.2, 0.1], [np.nan, np.nan, np.nan], [0.0, 1.0, 0.0]]),
        steps=np.array([1, 1, 2], dtype=np.int32),
        names=NAMES,
        accounts=("acme", "zenith"),
        account=np.array([0, -1, 1], dtype=np.int32),
    )
    return dataclasses.replace(whole, **changes)


WORDS = {"ask": "greedy", "shares": np.zeros((3, 0))}


def same(one: RaceEvidence, other: RaceEvidence) -> bool:
    names = [field.name for field in dataclasses.fields(RaceEvidence)]
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name in ("shares", "base"))
        if isinstance(getattr(one, name), np.ndarray)
        else getattr(one, name) == getattr(other, name)
        for name in names
    )


BASE = np.array([[0.5, 0.2, 0.1], [np.nan, np.nan, np.nan], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("changes", [{}, WORDS, {"ask": "echo"}, {"base": BASE}, WORDS | {"base": BASE}])
def test_what_is_written_is_read_again_and_equal_evidence_is_equal_bytes(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / EVIDENCE_FILE
    path.write_bytes(encode_evidence(evidence(**changes)))
    assert same(read_evidence(path), evidence(**changes))
    assert encode_evidence(read_evidence(path)) == path.read_bytes()


def test_no_cut_at_all_is_evidence_too(tmp_path: Path) -> None:
    (tmp_path / EVIDENCE_FILE).write_bytes(encode_evidence(evidence().until(0)))
    assert len(read_evidence(tmp_path / EVIDENCE_FILE)) == 0


def test_the_first_cuts_are_evidence_and_all_answers_stay_named() -> None:
    first = evidence().until(2)
    assert len(first) == 2
    assert first.names == NAMES
    assert what_is_wrong(first) == ""


def test_a_cut_is_silent_where_neither_a_word_nor_a_probability_is_known() -> None:
    assert evidence().silent.tolist() == [False, True, False]
    assert evidence(**WORDS).silent.tolist() == [False, True, False]
    assert evidence(said=np.full(3, -1, np.int32)).silent.tolist() == [False, True, False]


@given(names=st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=4).map(sorted))
def test_names_of_any_kind_survive(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "race-names.npz"
    written = tuple(sorted({name.encode("utf-8", "backslashreplace").decode() for name in names}))
    path.write_bytes(encode_evidence(evidence(accounts=written, account=np.full(3, -1, np.int32))))
    assert read_evidence(path).accounts == written


def changed(field: str, row: Any, value: Any) -> dict[str, Any]:
    array = getattr(evidence(), field).copy()
    array[row] = value
    return {field: array}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chances": np.full((3, 2), 0.5)}, "don't fit together"),
        ({"shares": np.zeros((3, 0))}, "don't fit together"),
        ({"ask": "greedy"}, "don't fit together"),
        ({"names": NAMES[:2]}, "don't fit together"),
        (changed("subkeys", 0, -2), "don't fit together"),
        (changed("tokens", (0, 1), 5), "not distinct tokens"),
        (changed("tokens", (0, 1), -7), "not distinct tokens"),
        (changed("chances", (0, 0), 0.6), "no distribution"),
        (changed("chances", (1, 2), 1e-12), "no distribution"),
        (changed("chances", 0, [1.1, -0.1, 0.0]), "no distribution"),
        (changed("chances", 0, [1.0, 0.0, 0.0]), "no distribution"),
        (changed("chances", (0, 0), np.nan), "no distribution"),
        (changed("said", 1, 2), "no candidate"),
        (changed("said", 0, 3), "no candidate"),
        (changed("said", 0, -2), "no candidate"),
        (changed("shares", (0, 0), 1.2), "the suspect's probabilities"),
        (changed("shares", (0, 0), -0.1), "the suspect's probabilities"),
        (changed("shares", (0, 0), np.nan), "the suspect's probabilities"),
        (changed("shares", (0, 0), 0.9), "the suspect's probabilities"),
        ({"base": np.zeros((3, 2))}, "don't fit together"),
        ({"base": BASE * 2}, "the reference's probabilities"),
        ({"base": np.where(BASE == 0.2, np.nan, BASE)}, "the reference's probabilities"),
        (changed("documents", 2, 3), "an answer that is not there"),
        (changed("documents", 1, 1) | changed("positions", 1, 4), ""),
        (changed("documents", 0, 2), "not in the order"),
        (changed("positions", 1, 4), "not in the order"),
        (changed("steps", 0, 3), "not in the order"),
        (changed("account", 2, 2), "an account that is not there"),
        ({"accounts": ("zenith", "acme")}, "accounts are not in order"),
        (changed("contexts", 1, [1, 2]), "a context stands in it twice"),
        (changed("contexts", 2, [1, 2]), ""),
        (changed("contexts", 2, [1, 2]) | changed("account", 2, 0) | {"subkeys": np.zeros(3, np.int32)}, "stands in"),
        (changed("contexts", 2, [1, 2]) | changed("account", 2, 0) | changed("subkeys", 2, -1), "stands in it twice"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / EVIDENCE_FILE
    path.write_bytes(encode_evidence(evidence(**changes)))
    if not said:
        assert same(read_evidence(path), evidence(**changes))
        return
    with pytest.raises(EvidenceError, match=said):
        read_evidence(path)


def test_an_echo_may_know_a_part_of_the_probabilities(tmp_path: Path) -> None:
    path = tmp_path / EVIDENCE_FILE
    path.write_bytes(encode_evidence(evidence(ask="echo", **changed("shares", (0, 0), np.nan))))
    assert np.isnan(read_evidence(path).shares[0]).tolist() == [True, False, False]


def test_another_file_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / EVIDENCE_FILE
    with pytest.raises(DyetraceError, match="cannot read"):
        read_evidence(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(EvidenceError, match="damaged"):
        read_evidence(path)
    out = io.BytesIO()
    np.savez(out, version=np.array(1))
    path.write_bytes(out.getvalue())
    with pytest.raises(EvidenceError, match="not the evidence of a race readout"):
        read_evidence(path)
    path.write_bytes(encode_evidence(evidence(ask="guess")))
    with pytest.raises(EvidenceError, match="'guess', which this dyetrace does not know"):
        read_evidence(path)
    later = io.BytesIO()
    np.savez(later, version=np.array(2))
    path.write_bytes(later.getvalue())
    with pytest.raises(DyetraceError, match="version 2"):
        read_evidence(path)
