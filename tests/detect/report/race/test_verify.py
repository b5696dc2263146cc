"""What no race readout writes is noticed without any key: forged numbers, names, places and files."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.race.evidence import EVIDENCE_FILE, RaceEvidence, encode_evidence, read_evidence
from detect.records.race import RaceRecord
from detect.records.reading import read_record
from detect.report.verification import verify_report
from tests.detect.report.edits import edited_copy, failed, forge_file, put
from tests.detect.report.race import examples
from watermark.errors import DyetraceError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("race")
    for name, make in examples.KINDS.items():
        make(folder / name)
    return folder


@pytest.mark.parametrize("name", examples.KINDS)
def test_what_was_made_holds(name: str, made: Path) -> None:
    found = verify_report(made / name / "report.json")
    assert found.holds, found.failed
    assert {check.name for check in found.checks if check.outcome == "not done"} >= {"hits"}


def shortened(found: RaceEvidence) -> RaceEvidence:
    return found.until(len(found) - 1)


def other_chances(found: RaceEvidence) -> RaceEvidence:
    return dataclasses.replace(found, chances=np.where(found.tokens >= 0, 1 / found.tokens.shape[1], 0.0))


def other_words(found: RaceEvidence) -> RaceEvidence:
    said = found.said.copy()
    said[:40] = 0
    return dataclasses.replace(found, said=said)


def moved(found: RaceEvidence) -> RaceEvidence:
    return dataclasses.replace(found, account=np.zeros_like(found.account))


def renamed(found: RaceEvidence) -> RaceEvidence:
    return dataclasses.replace(found, names=tuple(f"other.jsonl, line {i}" for i in range(len(found.names))))


def fewer_named(found: RaceEvidence) -> RaceEvidence:
    return dataclasses.replace(
        found, names=(*found.names, "served.jsonl, line 999"), account=np.append(found.account, -1).astype(np.int32)
    )


def in_pieces(found: RaceEvidence) -> RaceEvidence:
    """The same answers, the last of which is long and has a second piece: as many answers as before."""
    again = fewer_named(found)
    return dataclasses.replace(again, names=(*again.names[:-1], f"{again.names[-2]}, piece 2"))


def of_other_ask(found: RaceEvidence) -> RaceEvidence:
    return dataclasses.replace(found, ask="bias")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (shortened, "evidence"),
        (other_chances, "evidence"),
        (other_words, "evidence"),
        (moved, "evidence"),
        (renamed, "answers"),
        (fewer_named, "evidence"),
        (of_other_ask, "evidence"),
        (in_pieces, None),
    ],
)
def test_other_evidence_is_noticed(
    change: Callable[[RaceEvidence], RaceEvidence], check: str | None, made: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "accounts"
    shutil.copytree(made / "accounts", folder)
    forge_file(folder, EVIDENCE_FILE, encode_evidence(change(read_evidence(folder / EVIDENCE_FILE))))
    found = failed(folder / "report.json")
    assert (check in found) if check else not found


def test_places_of_an_account_that_was_not_tested_are_noticed(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "accounts"
    shutil.copytree(made / "accounts", folder)
    found = read_evidence(folder / EVIDENCE_FILE)
    forge_file(
        folder,
        EVIDENCE_FILE,
        encode_evidence(dataclasses.replace(found, accounts=("acme", "north-wind", "zzz"))),
    )
    assert "not tested" in failed(folder / "report.json")["evidence"]


def test_evidence_of_another_report_is_noticed_and_nothing_is_computed_from_it(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "accounts"
    shutil.copytree(made / "accounts", folder)
    shutil.copy(made / "found" / EVIDENCE_FILE, folder)
    found = verify_report(folder / "report.json")
    assert "files" in {check.name for check in found.failed}
    assert next(check.outcome for check in found.checks if check.name == "evidence") == "not done"


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("accounts", put("identified", value=[]), "answer"),
        ("accounts", put("identified", value=["acme", "zenith"]), "answer"),
        ("accounts", put("hypotheses", 0, "log10_evalue_adjusted", value=60.0), "keys"),
        ("accounts", put("hypotheses", 0, "expected", value=10.0), "evidence"),
        ("accounts", put("hypotheses", 0, "log10_pvalue", value=-80.0), "evidence"),
        ("accounts", put("hypotheses", 0, "hits", value=172.5), "keys"),
        ("accounts", put("hypotheses", 0, "hits", value=140.0), "evidence"),
        ("accounts", put("lit", 0, "name", value="served.jsonl, line 700"), "answers"),
        ("accounts", put("lit", 0, "account", value="zenith"), "answers"),
        ("accounts", put("lit", 0, "hits", value=7.0), "answers"),
        ("accounts", put("shown", 0, "answer", value="served.jsonl, line 700"), "answers"),
        ("accounts", put("shown", 0, "chance", value=0.001), "answers"),
        ("accounts", put("controls", "decoy_log10_evalues", 0, value=-9.0), "evidence"),
        ("accounts", put("controls", "decoy_seed", value="another"), "evidence"),
        ("accounts", put("plan", "created", value="2026-02-02T11:00:00+00:00"), "dates"),
        ("accounts", put("queries", "before_plan", value=3), "dates"),
        ("accounts", put("queries", "requests", value=3), "evidence"),
        ("accounts", put("queries", "stopped", value="target reached"), "keys"),
        ("accounts", put("spec_id", value="dt1-0"), "spec"),
        ("accounts", put("commitment", "created", value="2026-06-01T00:00:00+00:00"), "spec"),
        ("accounts", put("ask", value="bias"), "evidence"),
        ("accounts", put("log10_pvalue", value=-90.0), "answer"),
        ("accounts", put("found", value=False), "answer"),
        ("accounts", put("target_log10", value=4.0), "answer"),
        ("accounts", put("shown", value=[]), None),
        ("both", put("hypotheses", 1, "cuts", value=57), "evidence"),
        ("both", put("hypotheses", 1, "expected", value=20.0), "evidence"),
        ("found", put("hypotheses", 0, "log10_evalue", value=80.0), "keys"),
        ("found", put("counts", "answers", value=61), "evidence"),
        ("found", put("counts", "silent", value=4), "evidence"),
        ("tournament", put("hypotheses", 0, "log10_pvalue", value=-3.0), "keys"),
    ],
)
def test_forged_fields_are_noticed(
    name: str, change: Callable[[Any], None], check: str | None, made: Path, tmp_path: Path
) -> None:
    """That nothing is shown is what its maker says: no number follows from it."""
    found = failed(edited_copy(made / name, tmp_path, change))
    assert (check in found) if check else not found


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("accounts", put("alpha", value=1.5), "alpha must lie"),
        ("accounts", put("plan", value=None), "through an endpoint has a plan"),
        ("weights", put("queries", value={}), "is not the report|required field"),
        ("accounts", put("plan", "offered", value=7), "by a seed"),
        ("accounts", put("queries", value=None), "must say what was asked"),
        ("accounts", put("log10_pvalue", value=None), "either a p-value or a reason"),
        ("accounts", put("log10_pvalue", value=0.5), "must be 0 or less"),
        ("refused", put("found", value=True), "and yet the mark is found"),
        ("weights", put("ask", value="greedy"), "weights were at hand"),
        ("accounts", put("quotes", value=False), "quotes nothing, and yet"),
        ("accounts", put("reading", "marked", value=False), "answers with the mark"),
        ("accounts", put("hypotheses", value=[]), "it tests no key"),
        ("accounts", put("hypotheses", 1, "key", value="tenant:acme"), "tested twice"),
        ("accounts", put("hypotheses", 1, "key", value="zenith"), "neither 'global' nor"),
        ("accounts", put("hypotheses", 1, "hits", value=-1.0), "has -1 hits"),
        ("accounts", put("hypotheses", 1, "cuts", value=4000), "more places than those"),
        ("accounts", put("hypotheses", 1, "log10_pvalue", value=1.0), "must be 0 or less"),
        ("accounts", put("identified", value=["nobody"]), "'nobody', which was not tested"),
        ("accounts", put("identified", value=["acme", "acme"]), "an account twice"),
        ("accounts", put("counts", "asked", value=900), "planned"),
        ("accounts", put("counts", "unheld", value=9000), "left out of"),
        ("accounts", put("counts", "unheld", value=-1), "below 0"),
        ("accounts", put("curve", 0, "count", value=299), "must ascend"),
        ("accounts", put("curve", 0, "log10_pvalue", value=-1.0), "the curve has p-values"),
        ("accounts", put("lit", 3, "log10_evalue", value=9.0), "largest e-value first"),
        ("accounts", put("lit", 19, "log10_evalue", value=-0.1), "1 or less"),
        ("accounts", put("shown", 0, "chance", value=0.9), "smallest chance first"),
        ("accounts", put("shown", 0, "chance", value=0.0), "must lie in 0 .. 1"),
        ("accounts", put("queries", "looks", value=5), "moments of looking"),
        ("accounts", put("queries", "requests", value=-5), "below 0"),
    ],
)
def test_what_no_run_writes_is_refused_in_one_line(
    name: str, change: Callable[[Any], None], said: str, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(DyetraceError, match=said) as error:
        read_record(RaceRecord, edited_copy(made / name, tmp_path, change))
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ the plan and replies


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    examples.planned_race(folder / "planned")
    return folder / "planned"


def test_a_report_that_keeps_to_its_plan_holds(planned: Path) -> None:
    found = verify_report(planned / "report.json")
    assert found.holds, found.failed
    outcomes = {check.name: check.outcome for check in found.checks}
    assert outcomes["plan"] == outcomes["replies"] == "ok"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("alpha", value=1e-3), "level of the report"),
        (put("target_log10", value=4.0), "target"),
        (put("owner", "sha256", value="0" * 64), "owner's model"),
        (put("suspect", "name", value="another"), "suspect"),
        (put("sampling", "settings", value=["temperature 1"]), "settings of sampling"),
        (put("sampling", "source", value="given"), "settings of sampling"),
        (put("reading", "sha256", value="0" * 64), "served answers"),
        (put("reading", "taken", value="random"), "how answers were taken"),
        (put("reading", "complete", value="served.ledger"), "what they were held against"),
        (put("counts", "fresh", value=5000), "fresh places"),
        (put("counts", "cuts", value=359), "places planned"),
        (put("counts", "unheld", value=1), "places of keys that were not tested"),
        (put("plan", "created", value="2026-02-01T09:00:00+00:00"), "when the plan was made"),
        (put("commitment", value=None), "commitment"),
        (put("ask", value="bias"), "what is read of the suspect"),
        (put("plan", "sha256", value="0" * 64), "does not hold the plan"),
    ],
)
def test_what_the_plan_says_otherwise_is_noticed(
    change: Callable[[Any], None], said: str, planned: Path, tmp_path: Path
) -> None:
    assert said in failed(edited_copy(planned, tmp_path, change))["plan"]


def skipped(found: RaceEvidence) -> RaceEvidence:
    """Without the first place of an answer that has several, as whoever leaves out what he dislikes has it."""
    row = int(np.flatnonzero(np.diff(found.documents) == 0)[0])
    return found.part(np.arange(len(found)) != row)


def test_places_that_were_left_out_and_other_chances_than_planned_are_noticed(planned: Path, tmp_path: Path) -> None:
    for name, change, said in (
        ("skipped", skipped, "not the plan's first ones"),
        ("chances", other_chances, "the owner's chances"),
    ):
        shutil.copytree(planned, tmp_path / name)
        evidence = change(read_evidence(planned / EVIDENCE_FILE))
        forge_file(tmp_path / name, EVIDENCE_FILE, encode_evidence(evidence))
        assert said in failed(tmp_path / name / "report.json")["plan"]


def test_replies_that_were_changed_are_noticed(planned: Path, tmp_path: Path) -> None:
    import sqlite3

    shutil.copytree(planned, tmp_path / "planned")
    with sqlite3.connect(tmp_path / "planned" / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER entries_never_change")
        database.execute("UPDATE entries SET payload = x'7b7d20' WHERE number = 3")
    database.close()
    assert "replies" in failed(tmp_path / "planned" / "report.json")


def test_decoys_that_contradict_the_test_are_not_passed_over(made: Path, tmp_path: Path) -> None:
    """Where a keyed bit says which places are whose the decoys take the key; what they forbid does not."""
    change = put("controls", "decoy_log10_evalues", 0, value=5.0)
    found = failed(edited_copy(made / "both", tmp_path, change))
    assert "the decoys contradict the test" in found["controls"] and "evidence" not in found
