"""How strings and numbers are written for people."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.records import written


@given(st.text())
def test_clean_leaves_only_what_can_be_printed(text: str) -> None:
    assert all(c.isprintable() or c.isspace() for c in written.clean(text))
    assert not set(written.clean(text)) & set("\x00\x1b\n\r\t\x7f\x85\x9b\u202e\u2066\u200f\ufeff\u2028\u2029")
    if text.isprintable():
        assert written.clean(text) == text


@pytest.mark.parametrize(
    ("log10_p", "text"),
    [
        (-38.24, "10^-38.2"),
        (-38.0, "10^-38.0"),
        (-123456.78, "10^-123456.7"),
        (-3.0, "10^-3.0"),
        (-2.9999, "0.0011"),
        (math.log10(0.43), "0.43"),
        (math.log10(0.2), "0.20"),
        (math.log10(0.996), "1"),
        (-1e-20, "1"),
        (0.0, "1"),
        (1e-12, "1"),
        (-math.inf, "0"),
        (math.nan, "not a number"),
        (None, "not given"),
    ],
)
def test_pvalues_are_written_for_people(log10_p: float | None, text: str) -> None:
    assert written.format_p(log10_p) == text


def _read_back(text: str) -> float:
    base, _, exponent = text.partition("^")
    return float(exponent) if exponent else math.log10(float(base))


@given(st.floats(-1e5, 0))
def test_pvalues_are_rounded_up_and_never_far(log10_p: float) -> None:
    shown = _read_back(written.format_p(log10_p))
    assert log10_p - 1e-6 <= shown <= log10_p + 0.101


@given(st.floats(-1e5, 1e5))
def test_evalues_are_rounded_down_and_never_far(log10_e: float) -> None:
    shown = _read_back(written.format_e(log10_e))
    assert log10_e - 0.101 <= shown <= log10_e + 1e-6


@pytest.mark.parametrize(
    ("alpha", "text"), [(1e-6, "10^-6"), (0.05, "0.05"), (0.5, "0.5"), (0.001, "10^-3"), (5e-7, "10^-6.3")]
)
def test_levels_are_written_for_people(alpha: float, text: str) -> None:
    assert written.format_level(alpha) == text


def test_a_pvalue_in_coin_tosses() -> None:
    assert written.coin_tosses(-38.24) == 127  # 38.24 / log10(2) = 127.03
    assert written.coin_tosses(0.0) == 0
