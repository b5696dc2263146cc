"""What no test by twins writes is noticed without any key: forged numbers, names, texts, files and plans."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.records.reading import read_record
from detect.records.twins import TwinRecord
from detect.report.verification import verify_report
from detect.twins.evidence import EVIDENCE_FILE, TwinEvidence, encode_evidence, read_evidence
from tests.detect.report.edits import edited_copy, failed, forge_file, put
from tests.detect.report.twins import examples
from tests.detect.report.twins.ledgers import report_of, write_ledger
from watermark.errors import DyetraceError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    for name in ("accounts", "later", "logprobs", "parting", "vetoed"):
        examples.KINDS[name](folder / name)
    report_of(folder / "whole", write_ledger(folder / "private", 60))
    return folder


def edit(made: Path, name: str, folder: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a report in which something is changed."""
    return edited_copy(made / name, folder, change)


@pytest.mark.parametrize("name", ["accounts", "later", "logprobs", "parting", "vetoed", "whole"])
def test_what_was_made_holds(name: str, made: Path) -> None:
    found = verify_report(made / name / "report.json")
    assert found.holds, found.failed
    assert {check.name for check in found.checks if check.outcome == "not done"} >= {"coins"}


def forge(evidence: TwinEvidence, folder: Path) -> None:
    """Other evidence under the report, with its hash."""
    forge_file(folder, EVIDENCE_FILE, encode_evidence(evidence))


def turned(found: TwinEvidence) -> TwinEvidence:
    signs = found.signs.copy()
    signs[5] *= -1
    return dataclasses.replace(found, signs=signs)


def doubled(found: TwinEvidence) -> TwinEvidence:
    return dataclasses.replace(found, differences=found.differences * np.array([2.0] + [1.0] * 5))


def shortened(found: TwinEvidence) -> TwinEvidence:
    return dataclasses.replace(
        found,
        ids=found.ids[:-1], made=found.made[:-1], differences=found.differences[:-1],
        covariates=found.covariates[:-1], signs=found.signs[:-1], account=found.account[:-1],
    )  # fmt: skip


def moved(found: TwinEvidence) -> TwinEvidence:
    account = found.account.copy()
    account[account == 0] = 1
    return dataclasses.replace(found, account=account)


def combined(found: TwinEvidence) -> TwinEvidence:
    """Weights of the numbers that fit the coins, as could be found afterwards."""
    fitting = np.linalg.lstsq(found.differences, found.signs.astype(float), rcond=None)[0]
    return dataclasses.replace(found, combination=fitting)


def renamed(found: TwinEvidence) -> TwinEvidence:
    return dataclasses.replace(found, ids=("f" * 32, *found.ids[1:]))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (turned, "evidence"),
        (doubled, "pairs"),
        (shortened, "evidence"),
        (moved, "evidence"),
        (renamed, "plan"),
        (combined, "plan"),
    ],
)
def test_other_evidence_is_noticed(
    change: Callable[[TwinEvidence], TwinEvidence], check: str, made: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "accounts"
    shutil.copytree(made / "accounts", folder)
    forge(change(read_evidence(folder / EVIDENCE_FILE)), folder)
    assert check in failed(folder / "report.json")


def test_evidence_of_another_report_is_noticed_and_nothing_is_computed_from_it(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "accounts"
    shutil.copytree(made / "accounts", folder)
    shutil.copy(made / "later" / EVIDENCE_FILE, folder)
    found = verify_report(folder / "report.json")
    assert "files" in {check.name for check in found.failed}
    assert next(check.outcome for check in found.checks if check.name == "evidence") == "not done"


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("accounts", put("identified", value=[]), "evidence"),
        ("accounts", put("share_reason", value="because"), "evidence"),
        ("accounts", put("shown", 0, "id", value="e" * 32), "pairs"),
        ("accounts", put("shown", value=[]), None),
        ("accounts", put("refused", value=None), None),
        ("accounts", put("measures", 0, "name", value="another"), "evidence"),
        ("accounts", put("plan", "seed", value="another"), "plan"),
        ("accounts", put("plan", "created", value="2026-02-02T11:00:00+00:00"), "dates"),
        ("accounts", put("plan", "created", value="yesterday"), "dates"),
        ("accounts", put("plan", "sha256", value="0" * 64), "plan"),
        ("accounts", put("suspect", "name", value="another model"), "plan"),
        ("accounts", put("ledger", "root", value="0" * 64), "plan"),
        ("accounts", put("arguments", "sample", value=0.25), "plan"),
        ("accounts", put("ask", value="parting"), "plan"),
        ("later", put("law", "bias", value=0.0), "law"),
        ("later", put("law", "controls", 0, "name", value="x"), None),
        ("later", put("law", "controls", 2, "wins", value=500), "law"),
        ("logprobs", put("watermark", "rule", value="mean"), "watermark"),
        ("whole", put("queries", "ledger_head", value="0" * 64), "replies"),
        ("whole", put("plan", "first_query", value="2026-02-03T00:00:00+00:00"), "replies"),
    ],
)
def test_forged_fields_are_noticed(
    name: str, change: Callable[[Any], None], check: str | None, made: Path, tmp_path: Path
) -> None:
    """Names of controls, and that nothing is shown, are what their maker says: no number follows from them."""
    found = failed(edit(made, name, tmp_path, change))
    assert (check in found) if check else not found


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("accounts", put("alpha", value=1.5), "alpha must lie"),
        ("accounts", put("plan", value=None), "it has no plan"),
        ("accounts", put("log10_pvalue", value=None), "either a p-value or a reason"),
        ("accounts", put("queries", value=None), "must say what was asked"),
        ("accounts", put("law", value={"controls": [], "bias": 0.0, "veto": None}), "need a law test"),
        ("later", put("law", value=None), "need a law test"),
        ("later", put("law", "bias", value=0.7), "law.bias must lie"),
        ("later", put("law", "veto", value="odd"), "has a veto, and yet an answer"),
        ("later", put("law", "controls", 0, "bias_upper", value=0.9), "must lie in 0 .. 0.5"),
        ("later", put("law", "controls", 0, "pairs", value=3), "of 3 pairs"),
        ("vetoed", put("found", value=True), "and yet the suspect is found"),
        ("logprobs", put("ask", value="answers"), "weights give log-probabilities"),
        ("accounts", put("quotes", value=False), "quotes nothing, and yet"),
        ("accounts", put("measures", value=[]), "it has no measure"),
        ("accounts", put("measures", 0, "ties", value=500), "has 235, 57 and 500 of 300"),
        ("accounts", put("measures", 0, "log10_pvalue", value=1.0), "must be 0 or less"),
        ("accounts", put("pairs", "asked", value=900), "planned"),
        ("accounts", put("pairs", "sampled", value=9000), "eligible"),
        ("accounts", put("ledger", "pairs", value=10), "fewer than are counted"),
        ("accounts", put("identified", value=["nobody"]), "'nobody', which was not looked at"),
        ("accounts", put("accounts", 0, "account", value="zzz"), "in the order of their names"),
        ("accounts", put("accounts", 0, "pairs", value=400), "more pairs than were asked"),
        ("accounts", put("curve", 0, "count", value=299), "must ascend"),
        ("accounts", put("share", "low", value=7.0), "share must be an interval"),
        ("accounts", put("queries", "looks", value=5), "moments of looking"),
    ],
)
def test_what_no_run_writes_is_refused_in_one_line(
    name: str, change: Callable[[Any], None], said: str, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(DyetraceError, match=said) as error:
        read_record(TwinRecord, edit(made, name, tmp_path, change))
    assert "\n" not in str(error.value)


def test_a_lenient_law_test_is_noticed(made: Path, tmp_path: Path) -> None:
    """A veto that is taken away, with all that would follow from it, speaks against the controls."""

    def lift(plain: Any) -> None:
        plain["law"]["veto"] = None
        plain["refused"] = None
        plain["log10_pvalue"] = min(0.0, -plain["log10_evalue"])
        plain["found"] = plain["log10_evalue"] >= 6

    found = failed(edit(made, "vetoed", tmp_path, lift))
    assert "tells served answers from twins, and yet" in found["law"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("owner", "is the owner's model"),
        ("unrelated", "is a model of another family"),
        ("classifier", "is the learnt classifier"),
    ],
)
def test_a_law_test_without_one_of_the_needed_controls_is_refused(
    kind: str, said: str, made: Path, tmp_path: Path
) -> None:
    """Whether the control is away, can refuse only, or is of another kind; where there is a veto it may be."""

    def left_out(plain: Any) -> None:
        plain["law"]["controls"] = [one for one in plain["law"]["controls"] if one["kind"] != kind]

    def unbounding(plain: Any) -> None:
        for one in plain["law"]["controls"]:
            one["bounds"] = one["bounds"] and one["kind"] != kind

    def another(plain: Any) -> None:
        for one in plain["law"]["controls"]:
            one["kind"] = "unserved" if one["kind"] == kind else one["kind"]

    for number, change in enumerate((left_out, unbounding, another)):
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(DyetraceError, match=f"no control that bounds the bias {said}"):
            read_record(TwinRecord, edit(made, "later", place, change))
        (place / "veto").mkdir()
        read_record(TwinRecord, edit(made, "vetoed", place / "veto", change))


def test_replies_that_were_changed_are_noticed(made: Path, tmp_path: Path) -> None:
    import sqlite3

    shutil.copytree(made / "whole", tmp_path / "whole")
    with sqlite3.connect(tmp_path / "whole" / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER entries_never_change")
        database.execute("UPDATE entries SET payload = x'7b7d' WHERE number = 3")
    database.close()
    assert "replies" in failed(tmp_path / "whole" / "report.json")


def test_without_its_plan_the_order_of_the_bets_is_not_vouched_for(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "accounts", tmp_path / "accounts")
    (tmp_path / "accounts" / "plan.json").unlink()
    found = verify_report(tmp_path / "accounts" / "report.json")
    assert found.holds
    assert next(check.outcome for check in found.checks if check.name == "plan") == "not done"
