"""A control that fails, or answers seen too early, withhold the verdict; and a report says what it assumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.records.code_hash import code_sha256
from detect.records.made import made_by
from detect.records.trace import Control, ModelSeen, Reading, TraceRecord
from detect.report.paper.page import page as drawn
from detect.report.paper.terminal import print_story
from detect.report.trace.story import story
from detect.report.verification import verify_report
from detect.report.verify.trace import controls as verified_controls
from detect.student.verdict.evidence import TraceSettings
from detect.student.verdict.recording import failed_control, write_report
from detect.student.verdict.share import not_identified
from tests.detect.student.verdict.test_conclude import RING, SPLIT, evidence

MODEL = ModelSeen(name="./other", sha256="0" * 64, tokenizer="same")


def control(log10_p: float, what: str = "control model") -> Control:
    return Control(what=what, model=MODEL, log10_pvalue=log10_p, log10_evalue=0.0)


def reported(folder: Path, *, basis: Any = "p-value", lean: float = 1.0, **seen: Any) -> TraceRecord:
    """A trace of a student that leans to the global key."""
    fields: dict[str, Any] = {
        "mode": "weights",
        "arguments": {},
        "commitment": None,
        "student": MODEL,
        "references": [],
        "readings": [
            Reading(
                name="served.jsonl", sha256="1" * 64, marked=basis == "e-value", documents=9, tokens=900, contexts=600
            )
        ],
        "served": None,
        "readout": "entropy",
        "comparisons": [],
        "share": not_identified("none"),
        "plan": None,
        "queries": None,
    }
    made = evidence(SPLIT, {"global": lean})
    folder.mkdir(exist_ok=True)
    settings = seen.pop("settings", TraceSettings(decoy_count=20))
    return write_report(folder, made, SPLIT, RING, basis, settings, **fields | seen)


@pytest.mark.parametrize("what", ["control model", "reference in the suspect's place", "placebo key"])
def test_a_control_that_is_found_withholds_the_verdict_and_says_why(tmp_path: Path, what: str) -> None:
    assert reported(tmp_path / "a", models=[control(-3.0, what)]).found
    record = reported(tmp_path / "b", models=[control(-2.0), control(-54.0, what)])
    assert not record.found and record.log10_pvalue is None and not record.identified
    assert record.refused is not None and "10^-54.0" in record.refused


def test_the_number_of_controls_is_paid_for() -> None:
    assert failed_control([control(-4.1)]) is not None
    assert failed_control([control(-4.1), control(-0.1)]) is None
    assert failed_control([]) is None


def test_an_answer_beside_a_failed_control_does_not_verify(tmp_path: Path) -> None:
    record = reported(tmp_path, models=[])
    forged = msgspec.structs.replace(record, controls=msgspec.structs.replace(record.controls, models=[control(-20.0)]))
    with pytest.raises(
        Exception, match="an answer is given, and yet the same trace finds the mark in the control model"
    ):
        verified_controls(forged)


def test_an_objection_to_how_evidence_was_gathered_withholds_the_verdict(tmp_path: Path) -> None:
    record = reported(tmp_path, objection="7 of the answers were on record before this plan was made")
    assert record.refused is not None and record.refused.startswith("7 of the answers") and not record.found


def test_where_weights_are_not_fixed_no_tail_is_given_that_needs_them_fixed(tmp_path: Path) -> None:
    record = reported(tmp_path, basis="e-value")
    assert record.found
    for h in record.hypotheses:
        assert h.log10_pvalue == pytest.approx(min(0.0, -h.log10_evalue))
    assert all(point.log10_pvalue is None for point in record.curve)
    exact = reported(tmp_path / "exact")
    assert exact.hypotheses[0].log10_pvalue < record.hypotheses[0].log10_pvalue


def test_a_report_says_whether_anybody_saw_that_served_answers_are_complete(tmp_path: Path) -> None:
    record = reported(tmp_path, basis="e-value")
    (said,) = [one for one in record.assumptions if "served.jsonl were taken" in one.says]
    assert not said.checked and "Nobody said how they were taken" in said.how
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    print_story(story(record), Console(file=out, width=200))
    assert "What this verdict assumes" in out.getvalue()
    assert "(not checked here: Nobody said how they were taken" in " ".join(out.getvalue().split())


def test_a_suspect_that_leans_away_from_its_reference_gets_no_verdict(tmp_path: Path) -> None:
    """A reference that learnt the mark makes every suspect lean away from it, and no control can rule that out."""
    two_sided = TraceSettings(decoy_count=20, sided="two-sided")
    compared = msgspec.structs.replace(control(-0.1, "reference in the suspect's place"), readout="reference")
    record = reported(tmp_path / "a", lean=-1.0, readout="reference", models=[compared], settings=two_sided)
    assert record.refused is not None and "the reference itself learnt the mark" in record.refused
    assert not record.found and not record.identified
    assert reported(tmp_path / "b", lean=-1.0, readout="entropy", settings=two_sided).found
    assert reported(tmp_path / "c", lean=1.0, readout="reference", models=[compared], settings=two_sided).found


def test_what_allows_no_acquittal_withholds_nothing_else(tmp_path: Path) -> None:
    why = "the answers do not carry the mark themselves"
    assert reported(tmp_path / "a", acquittal=why).found
    record = reported(tmp_path / "b", lean=0.0, acquittal=why)
    assert record.refused == why and record.log10_pvalue is None


def test_who_made_a_trace_stands_in_its_forms_and_changes_no_number(tmp_path: Path) -> None:
    named = reported(tmp_path / "named", made=made_by("N. N., Institute of Dyes", "2026/7"))
    unnamed = reported(tmp_path / "unnamed")
    assert named.made is not None and named.made.code_sha256 == code_sha256()
    same: dict[str, Any] = {"created": "", "made": None, "how_to_check": []}
    assert msgspec.structs.replace(named, **same) == msgspec.structs.replace(unnamed, **same)
    page = drawn(story(named))
    assert "N. N., Institute of Dyes" in page and "2026/7" in page and code_sha256() in page
    assert "How to check this without us" in page and any("evidence.npz" in line for line in named.how_to_check)
    checks = {check.name: check.outcome for check in verify_report(tmp_path / "named" / "report.json").checks}
    assert checks["code"] == "ok" and checks["record"] == "ok"
