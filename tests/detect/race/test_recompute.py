"""A race readout is computed anew from the evidence beside it and the key: every number, or an account's own part."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.race.evidence import EVIDENCE_FILE, encode_evidence, read_evidence
from detect.race.recompute import recompute_race
from detect.records.race import RaceRecord
from detect.records.reading import read_record, write_record
from detect.records.scan import FileHash
from tests.detect.report.race import examples
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys import SecretKey, write_key_file

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("race")
    for name in ("found", "clean", "accounts", "both", "weights", "echo", "green", "refused", "bare"):
        examples.KINDS[name](folder / name)
    write_key_file(folder / "owner.key", examples.SECRET)
    return folder


def record_of(made: Path, name: str) -> RaceRecord:
    return read_record(RaceRecord, made / name / "report.json")


def differences(made: Path, name: str, **changes: Any) -> list[str]:
    record = replace(record_of(made, name), **changes)
    accounts = tuple(found.key.removeprefix("tenant:") for found in record.accounts)
    return recompute_race(record, examples.ring_of(record.spec, accounts), made / name)


@pytest.mark.parametrize("name", ["found", "clean", "accounts", "both", "weights", "echo", "green", "refused", "bare"])
def test_what_was_made_holds(name: str, made: Path) -> None:
    assert differences(made, name) == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hits", 80.0, "other hits of keys"),
        ("expected", 80.0, "other chance hits of keys"),
        ("log10_evalue", 80.0, "other e-values of keys"),
        ("log10_evalue_adjusted", 80.0, "other adjusted e-values of keys"),
        ("log10_pvalue", -80.0, "other p-values of the hits of keys"),
        ("cuts", 80, "other places of keys"),
    ],
)
def test_every_number_of_a_key_is_compared(field: str, value: Any, said: str, made: Path) -> None:
    first, *others = record_of(made, "accounts").hypotheses
    assert said in differences(made, "accounts", hypotheses=[replace(first, **{field: value}), *others])


def test_verdict_curve_decoys_and_answers_are_compared(made: Path) -> None:
    record = record_of(made, "accounts")
    assert "another verdict" in differences(made, "accounts", log10_evalue=50.0)
    assert "other conclusions" in differences(made, "accounts", identified=["zenith"])
    points = [replace(record.curve[3], log10_evalue=9.0)]
    assert differences(made, "accounts", curve=[*record.curve[:3], *points, *record.curve[4:]]) == ["another curve"]
    decoys = replace(record.controls, decoy_log10_evalues=[0.0] * 12)
    assert differences(made, "accounts", controls=decoys) == ["other decoys"]
    silent = replace(record.counts, silent=1)
    assert differences(made, "accounts", counts=silent) == ["another number of places without a word of use"]
    lit = replace(record.lit[0], log10_evalue=9.0)
    said = ["other numbers of the answers that light up"]
    assert differences(made, "accounts", lit=[lit, *record.lit[1:]]) == said
    other = replace(record.lit[0], name="served.jsonl, line 50")
    assert differences(made, "accounts", lit=[other, *record.lit[1:]]) == ["other answers light up"]


def test_evidence_with_another_word_of_the_suspects_gives_other_numbers(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "found", tmp_path / "found")
    path = tmp_path / "found" / EVIDENCE_FILE
    evidence = read_evidence(path)
    said = evidence.said.copy()
    spoken = np.flatnonzero(said >= 0)[:20]
    said[spoken] = (said[spoken] + 1) % evidence.tokens.shape[1]
    data = encode_evidence(dataclasses.replace(evidence, said=said))
    path.write_bytes(data)
    with pytest.raises(EvidenceError, match="is not the evidence of the report"):
        differences(tmp_path, "found")
    write_record(
        tmp_path / "found" / "report.json",
        replace(record_of(tmp_path, "found"), files=[FileHash.of(EVIDENCE_FILE, data)]),
    )
    assert "another verdict" in differences(tmp_path, "found")


@pytest.mark.parametrize("name", ["accounts", "both"])
def test_an_accounts_own_key_gives_its_own_part(name: str, made: Path) -> None:
    record = record_of(made, name)
    whole = examples.ring_of(record.spec, examples.ACCOUNTS)
    own = dataclasses.replace(whole, global_key=None, tenants={"acme": whole.tenants["acme"]})
    assert recompute_race(record, own, made / name) == []
    others = [found if found.key != "tenant:acme" else replace(found, log10_evalue=70.0) for found in record.hypotheses]
    assert recompute_race(replace(record, hypotheses=others), own, made / name) == ["other e-values of keys"]
    elsewhere = [
        found if found.key != "tenant:zenith" else replace(found, log10_evalue=70.0) for found in record.hypotheses
    ]
    assert recompute_race(replace(record, hypotheses=elsewhere), own, made / name) == []


def test_places_of_keys_that_a_report_did_not_test_are_a_difference(made: Path) -> None:
    record = record_of(made, "accounts")
    fewer = replace(record, hypotheses=record.hypotheses[:2])
    ring = examples.ring_of(record.spec, ("acme", "north-wind"))
    (said,) = recompute_race(fewer, ring, made / "accounts")
    assert "places are of keys that were not tested" in said


def test_where_an_answer_was_left_or_gone_on_with_against_its_bets_is_a_difference(tmp_path: Path) -> None:
    """Who leaves answers by what he likes has the plan's order all the same; by the key it is seen."""
    record = examples.planned_race(tmp_path / "by the rule")
    ring = examples.ring_of(record.spec)
    assert recompute_race(record, ring, tmp_path / "by the rule") == []
    evidence = read_evidence(tmp_path / "by the rule" / EVIDENCE_FILE)
    several = evidence.documents[np.flatnonzero(np.diff(evidence.documents) == 0)[0]]
    last = np.flatnonzero(evidence.documents == several)[-1]  # of an answer that was gone on with
    shorter = evidence.part(np.arange(len(evidence)) != last)
    whole = examples.make_evidence(record.spec, ring, memory=0.35)
    for name, other, said in (("left", shorter, "was left"), ("went on", whole, "was gone on with")):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "by the rule", folder)
        data = encode_evidence(other)
        (folder / EVIDENCE_FILE).write_bytes(data)
        forged = replace(record, files=[FileHash.of(EVIDENCE_FILE, data)])
        assert any(f"{said} against the rule" in line for line in recompute_race(forged, ring, folder)), name


def test_another_key_is_refused(made: Path) -> None:
    record = record_of(made, "found")
    ring = type(examples.ring_of(record.spec)).from_master(SecretKey(bytes(32)), 0, ())
    with pytest.raises(DyetraceError):
        recompute_race(record, ring, made / "found")


def test_the_command_says_what_it_computed(made: Path) -> None:
    def run(*words: object) -> Any:
        return CliRunner().invoke(main, ["recompute", *map(str, words)])

    key = ("--key", f"file:{made / 'owner.key'}")
    found = run(made / "accounts" / "report.json", *key)
    assert found.exit_code == 0
    assert found.stdout == "the report holds: 540 places recomputed, every number the same\n"
    refused = run(made / "accounts" / "report.json", *key, "--tokenizer", "model")
    assert refused.exit_code == 2 and "a race readout is recomputed from the evidence beside it" in refused.stderr
    asked = msgspec.json.decode(run(made / "found" / "report.json", *key, "--json").stdout)
    assert (asked["report"], asked["unit"], asked["count"], asked["holds"]) == ("race", "places", 360, True)
