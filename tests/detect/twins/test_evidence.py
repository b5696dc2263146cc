"""The file of a test by twins: what is written is read again bit for bit, and what doesn't fit is one line."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.twins.evidence import TwinEvidence, encode_evidence, read_evidence
from watermark.errors import DyetraceError, EvidenceError

MADE = tuple(f"2026-02-0{day}T10:00:00.000001+00:00" for day in (1, 2, 2))
IDS = tuple(f"{number:032x}" for number in (7, 1, 3))


def evidence(**changes: Any) -> TwinEvidence:
    whole = TwinEvidence(
        ids=IDS,
        made=MADE,
        columns=("chrF", "prefix"),
        differences=np.array([[0.25, -1.0], [0.0, 0.0], [-1e-300, 3.0]]),
        covariate_names=("length",),
        covariates=np.array([[3.0], [-2.0], [0.0]]),
        signs=np.array([1, -1, 1], dtype=np.int8),
        accounts=("acme", "zenith"),
        account=np.array([0, -1, 1], dtype=np.int32),
        combination=np.array([0.5, 2.0]),
    )
    return dataclasses.replace(whole, **changes)


def same(one: TwinEvidence, other: TwinEvidence) -> bool:
    names = [field.name for field in dataclasses.fields(TwinEvidence)]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_what_is_written_is_read_again_and_equal_evidence_is_equal_bytes(tmp_path: Path) -> None:
    path = tmp_path / "twins.npz"
    path.write_bytes(encode_evidence(evidence()))
    assert same(read_evidence(path), evidence())
    assert encode_evidence(read_evidence(path)) == path.read_bytes()


def test_a_combination_need_not_be_there(tmp_path: Path) -> None:
    path = tmp_path / "twins.npz"
    path.write_bytes(encode_evidence(evidence(combination=None)))
    assert read_evidence(path).combination is None


def test_no_pair_at_all_is_evidence_too(tmp_path: Path) -> None:
    none = evidence(
        ids=(), made=(), differences=np.zeros((0, 2)), covariates=np.zeros((0, 1)),
        signs=np.zeros(0, np.int8), account=np.zeros(0, np.int32),
    )  # fmt: skip
    (tmp_path / "twins.npz").write_bytes(encode_evidence(none))
    assert len(read_evidence(tmp_path / "twins.npz")) == 0


@given(names=st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=4).map(sorted))
def test_names_of_any_kind_survive(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "names.npz"
    written = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    path.write_bytes(encode_evidence(evidence(accounts=tuple(sorted(set(written))), account=np.full(3, -1, np.int32))))
    assert read_evidence(path).accounts == tuple(sorted(set(written)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"signs": np.array([1, 0, 1], np.int8)}, "neither 1 nor -1"),
        ({"differences": np.array([[1.0, np.nan]] * 3)}, "not a finite number"),
        ({"differences": np.ones((2, 2))}, "don't fit together"),
        ({"combination": np.ones(3)}, "don't fit together"),
        ({"combination": np.array([1.0, np.inf])}, "not a finite number"),
        ({"columns": (), "differences": np.ones((3, 0))}, "don't fit together"),
        ({"ids": (IDS[0], IDS[0], IDS[2])}, "stands in it twice"),
        ({"made": MADE[::-1]}, "not in the order"),
        ({"ids": (IDS[0], IDS[2], IDS[1])}, "not in the order"),
        ({"account": np.array([0, 2, 0], np.int32)}, "an account that is not there"),
        ({"accounts": ("zenith", "acme")}, "accounts are not in order"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "twins.npz"
    path.write_bytes(encode_evidence(evidence(**changes)))
    with pytest.raises(EvidenceError, match=said):
        read_evidence(path)


def test_another_file_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "twins.npz"
    with pytest.raises(DyetraceError, match="cannot read"):
        read_evidence(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(EvidenceError, match="damaged"):
        read_evidence(path)
    out = io.BytesIO()
    np.savez(out, version=np.array(1))
    path.write_bytes(out.getvalue())
    with pytest.raises(EvidenceError, match="not the evidence of a test by twins"):
        read_evidence(path)
