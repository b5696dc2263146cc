"""Both lines of evidence: multiplied where neither looked at what the other's secret decided, else their mean."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.records.trace import ModelSeen
from detect.twins.together import OtherLine, read_line, together
from tests.detect.report import trace_examples as traces
from watermark.errors import DyetraceError

replace = msgspec.structs.replace
SHA = "ab" * 32


@given(st.floats(-50, 300), st.floats(-50, 300))
def test_lines_are_multiplied_or_averaged(one: float, other: float) -> None:
    product = together(one, OtherLine(SHA, other, apart=True))
    assert product.rule == "product" and product.log10_evalue_together == one + other
    mean = together(one, OtherLine(SHA, other, apart=False))
    assert mean.rule == "mean"
    assert max(one, other) - math.log10(2) - 1e-9 <= mean.log10_evalue_together <= max(one, other) + 1e-9


def test_a_trace_that_read_no_served_answer_is_multiplied_and_others_are_not(tmp_path: Path) -> None:
    prompted = traces.api_trace(tmp_path / "api")
    assert read_line(tmp_path / "api" / "report.json", prompted.student).apart
    served = traces.found_trace(tmp_path / "served")
    assert served.served is not None
    assert not read_line(tmp_path / "served" / "report.json", served.student).apart
    marked = traces.marked_reading_trace(tmp_path / "marked", served=None)
    found = read_line(tmp_path / "marked" / "report.json", marked.student)
    assert not found.apart and found.log10_evalue == marked.log10_evalue


def test_a_trace_of_another_suspect_is_refused(tmp_path: Path) -> None:
    made = traces.found_trace(tmp_path)
    for other in (
        replace(made.student, sha256="0" * 64),
        ModelSeen(name="m at http://x/v1", sha256="", tokenizer="text"),
    ):
        with pytest.raises(DyetraceError, match="the trace of another suspect"):
            read_line(tmp_path / "report.json", other)
    assert read_line(tmp_path / "report.json", replace(made.student, name="elsewhere/the-same")).log10_evalue > 6


def test_a_trace_without_an_answer_and_other_reports_are_refused(tmp_path: Path) -> None:
    made = traces.refused_trace(tmp_path)
    with pytest.raises(DyetraceError, match="gives no answer"):
        read_line(tmp_path / "report.json", made.student)
    (tmp_path / "report.json").write_bytes(b"{}")
    with pytest.raises(DyetraceError):
        read_line(tmp_path / "report.json", made.student)
