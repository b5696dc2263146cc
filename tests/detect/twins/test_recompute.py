"""A test by twins is computed anew from the private ledger: its root, its pairs, its coins, and what replies give."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.records.reading import read_record, write_record
from detect.records.scan import FileHash
from detect.records.twins import TwinRecord
from detect.twins.evidence import EVIDENCE_FILE, TwinEvidence, encode_evidence, read_evidence
from detect.twins.recompute import recompute_twins
from tests.detect.report.twins.ledgers import LEDGER, SECRET, make_pair, report_of, write_ledger
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys import SecretKey, write_key_file
from watermark.twins.ledger import TwinLedger

replace = msgspec.structs.replace
PAIRS = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    report_of(folder / "out", write_ledger(folder, PAIRS))
    write_key_file(folder / "twin.key", SECRET)
    return folder


@pytest.fixture
def mine(made: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(made, tmp_path / "mine")
    return tmp_path / "mine"


def differences(folder: Path, notes: list[str] | None = None, **changes: Any) -> list[str]:
    record = replace(read_record(TwinRecord, folder / "out" / "report.json"), **changes)
    said = [] if notes is None else notes
    return recompute_twins(record, SECRET, folder / LEDGER, folder / "out", said.append)


def run(*words: object) -> Any:
    return CliRunner().invoke(main, list(map(str, words)))


def test_what_was_made_holds_and_leaves_nothing_open(made: Path) -> None:
    notes: list[str] = []
    assert differences(made, notes) == [] == notes


def test_the_command_finds_the_ledger_where_it_is_told_to_look(made: Path) -> None:
    report, key = made / "out" / "report.json", f"file:{made / 'twin.key'}"
    done = run("recompute", report, "--key", key, "--inputs", made)
    assert done.exit_code == 0 and "pairs recomputed, every number the same" in done.output, done.output
    missing = run("recompute", report, "--key", key, "--inputs", made / "out")
    assert missing.exit_code == 2 and "twins.ledger is not in" in missing.stderr
    refused = run("recompute", report, "--key", key, "--inputs", made, "--tokenizer", "t")
    assert refused.exit_code == 2 and "no token is looked at" in refused.stderr


def test_another_key_is_refused_and_not_told(made: Path, tmp_path: Path) -> None:
    other = SecretKey(bytes(range(32)))
    write_key_file(tmp_path / "other.key", other)
    done = run("recompute", made / "out" / "report.json", "--key", f"file:{tmp_path / 'other.key'}", "--inputs", made)
    assert done.exit_code == 2 and "wrong key" in done.stderr and other.reveal_hex() not in done.output


def forged(folder: Path, change: dict[str, Any]) -> None:
    """Other evidence, under a report that names its hash."""
    path = folder / "out" / EVIDENCE_FILE
    data = encode_evidence(dataclasses.replace(read_evidence(path), **change))
    path.write_bytes(data)
    record = read_record(TwinRecord, folder / "out" / "report.json")
    write_record(folder / "out" / "report.json", replace(record, files=[FileHash.of(EVIDENCE_FILE, data)]))


def evidence(folder: Path) -> TwinEvidence:
    return read_evidence(folder / "out" / EVIDENCE_FILE)


def test_a_coin_that_was_turned_is_found(mine: Path) -> None:
    signs = evidence(mine).signs
    signs[3] *= -1
    forged(mine, {"signs": signs})
    assert differences(mine) == [f"pair {evidence(mine).ids[3]}: another coin"]


def test_a_difference_that_the_replies_do_not_give_is_found(mine: Path) -> None:
    numbers = evidence(mine).differences
    numbers[4, 1] += 0.01
    forged(mine, {"differences": numbers})
    assert differences(mine) == [f"pair {evidence(mine).ids[4]}: other differences than its replies give"]


def test_covariates_that_the_texts_do_not_give_are_found(mine: Path) -> None:
    forged(mine, {"covariates": evidence(mine).covariates + 1})
    assert differences(mine) == ["other covariates"]


def test_another_account_of_a_pair_is_found(mine: Path) -> None:
    forged(mine, {"account": np.zeros(len(evidence(mine)), np.int32)})
    found = differences(mine)
    assert found and all(line.endswith("another account") for line in found)


def test_a_reply_that_is_shown_and_was_never_given_is_found(made: Path) -> None:
    record = read_record(TwinRecord, made / "out" / "report.json")
    shown = [replace(record.shown[0], suspect="I learnt it all from you."), *record.shown[1:]]
    assert differences(made, shown=shown) == [f"pair {shown[0].id}: another reply than is shown"]


@pytest.mark.parametrize("name", ["prompt", "served", "withheld"])
def test_a_pair_that_is_shown_with_another_text_is_found(name: str, made: Path) -> None:
    record = read_record(TwinRecord, made / "out" / "report.json")
    shown = [replace(record.shown[0], **{name: "something else"}), *record.shown[1:]]
    assert differences(made, shown=shown) == [f"pair {shown[0].id}: other texts than are shown"]


def test_a_ledger_with_another_root_is_not_the_reports(made: Path) -> None:
    record = read_record(TwinRecord, made / "out" / "report.json")
    (line,) = differences(made, ledger=replace(record.ledger, root="0" * 64))
    assert line.startswith("the ledger's root is ")
    (line,) = differences(made, ledger=replace(record.ledger, head="0" * 64))
    assert line.startswith("the last hash of the ledger is ")


def test_a_coin_that_is_not_the_keys_is_found(tmp_path: Path) -> None:
    """Whoever writes down another answer as served, and another proof with it, is found out by the key."""
    with TwinLedger.open(tmp_path / LEDGER, SECRET, write=True) as ledger:
        pairs = [make_pair(number) for number in range(40)]
        cheat = pairs[0]
        pairs[0] = replace(cheat, served=1 - cheat.served, proof="0" * 63 + str(1 - cheat.served))
        ledger.append_many(pairs)
    report_of(tmp_path / "out", tmp_path / LEDGER)
    found = differences(tmp_path)
    assert found == [f"pair {cheat.id}: its coin is not what the twin key tosses for it"]


def test_a_ledger_may_grow_and_the_report_of_its_first_pairs_still_holds(mine: Path) -> None:
    with TwinLedger.open(mine / LEDGER, SECRET, write=True) as ledger:
        ledger.append_many([make_pair(number) for number in range(PAIRS, PAIRS + 20)])
    assert differences(mine) == []


def test_a_ledger_that_lost_pairs_is_no_ground_to_stand_on(mine: Path, tmp_path: Path) -> None:
    short = write_ledger(tmp_path / "short", PAIRS - 1)
    record = read_record(TwinRecord, mine / "out" / "report.json")
    with pytest.raises(EvidenceError, match="holds 59 pairs, and the report's ledger held 60"):
        recompute_twins(record, SECRET, short, mine / "out")


def test_after_an_erasure_the_coins_that_are_left_are_compared_and_the_rest_is_said(mine: Path) -> None:
    with TwinLedger.open(mine / LEDGER, SECRET, write=True) as ledger:
        gone = ledger.erase(account="acme").pairs
    assert gone
    notes: list[str] = []
    assert differences(mine, notes) == []
    assert len(notes) == 1 and f"{gone} pairs were erased since" in notes[0]
    signs = evidence(mine).signs
    forged(mine, {"signs": -signs})
    left = sum(evidence(mine).account == 1)
    assert len(differences(mine)) == left


def test_erasing_everything_leaves_a_report_that_can_be_verified_and_not_recomputed(mine: Path) -> None:
    with TwinLedger.open(mine / LEDGER, SECRET, write=True) as ledger:
        ledger.erase(before=date(2030, 1, 1))
    notes: list[str] = []
    assert differences(mine, notes) == [] and notes
    assert run("report", "verify", mine / "out" / "report.json").exit_code == 0


def test_without_plan_or_replies_it_is_said_what_could_not_be_compared(mine: Path) -> None:
    (mine / "out" / "ledger.sqlite").unlink()
    notes: list[str] = []
    assert differences(mine, notes) == [] and "ledger.sqlite is not beside the report" in notes[0]
    (mine / "out" / "plan.json").unlink()
    notes = []
    assert differences(mine, notes) == [] and "the plan is not beside the report" in notes[0]


@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("changes", [{"used": 5}, {"sampled": 3, "eligible": 5}, {"tied": 1}, {"asked": 2, "used": -1}])
def test_other_counts_of_pairs_are_found_with_and_without_the_plan(
    planned: bool, changes: dict[str, int], mine: Path
) -> None:
    if not planned:
        (mine / "out" / "plan.json").unlink()
    pairs = read_record(TwinRecord, mine / "out" / "report.json").pairs
    edited = replace(pairs, **{name: getattr(pairs, name) + more for name, more in changes.items()})
    found = differences(mine, pairs=edited)
    assert any("other counts of pairs" in line and "from the ledger" in line for line in found), found


@pytest.mark.parametrize(
    "changes", [{"seed": "another"}, {"sample": 0.3}, {"tenants": ["acme"]}, {"until": "2026-01-02"}, {"most": 7}]
)
def test_without_the_plan_pairs_are_chosen_again_by_the_options_on_record(changes: dict[str, Any], mine: Path) -> None:
    """Whoever takes the plan away can't say that other pairs were asked for than stand in the evidence."""
    (mine / "out" / "plan.json").unlink()
    record = read_record(TwinRecord, mine / "out" / "report.json")
    found = differences(mine, arguments={**record.arguments, **changes})
    assert any("other counts of pairs" in line for line in found), found


def test_without_plan_and_options_or_after_an_erasure_nobody_says_that_it_holds(mine: Path) -> None:
    (mine / "out" / "plan.json").unlink()
    record = read_record(TwinRecord, mine / "out" / "report.json")
    for arguments in ({"ask": "answers"}, {**record.arguments, "sample": "most"}, {**record.arguments, "since": "x"}):
        (line,) = differences(mine, arguments=arguments)
        assert "neither a plan beside the report nor its options say how pairs were chosen" in line
    with TwinLedger.open(mine / LEDGER, SECRET, write=True) as ledger:
        assert ledger.erase(account="acme").pairs
    (line,) = differences(mine)
    assert "nobody can say whether its pairs are those that were chosen" in line


def test_counts_are_held_against_the_plan_where_pairs_were_erased_since(mine: Path) -> None:
    with TwinLedger.open(mine / LEDGER, SECRET, write=True) as ledger:
        ledger.erase(account="acme")
    pairs = read_record(TwinRecord, mine / "out" / "report.json").pairs
    (line,) = differences(mine, pairs=replace(pairs, tied=pairs.tied + 1))
    assert line.startswith("other counts of pairs") and line.endswith("in the plan")


def test_the_plan_of_another_test_is_refused(mine: Path, tmp_path: Path) -> None:
    report_of(tmp_path / "other", write_ledger(tmp_path / "private", 40))
    shutil.copy(tmp_path / "other" / "plan.json", mine / "out")
    with pytest.raises(EvidenceError, match="is not that of the report"):
        differences(mine)


def test_evidence_that_is_missing_or_anothers_is_refused(mine: Path) -> None:
    path = mine / "out" / EVIDENCE_FILE
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(EvidenceError, match="is not the evidence of the report"):
        differences(mine)
    path.unlink()
    with pytest.raises(DyetraceError, match="it belongs beside the report"):
        differences(mine)
