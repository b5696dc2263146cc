"""The whole way with weights at hand: a student of served answers is found with its account, others are not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.race.conclude import conclude
from detect.race.evidence import EVIDENCE_FILE, read_evidence, what_is_wrong
from detect.race.recompute import recompute_race
from detect.race.weights import trace_race_weights
from detect.records.race import RaceRecord
from detect.records.reading import read_record
from detect.report.verify.race import checks
from tests.detect.race.student import KEY, RING, World, fresh_model, saved
from watermark.commitment import commit
from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.ledger import Ledger


def traced(world: World, output: Path, suspect: str = "student", ring: KeyRing = RING, **more: Any) -> RaceRecord:
    return trace_race_weights(world.job(suspect, **more), world.spec, ring, world.tokenizer, output)


@pytest.fixture(scope="module")
def found(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[RaceRecord, Path]:
    output = tmp_path_factory.mktemp("found")
    return traced(world, output), output


def test_a_student_is_found_and_its_account_named_and_no_other(found: tuple[RaceRecord, Path]) -> None:
    record, _ = found
    assert record.found and record.log10_evalue > 100 and record.refused is None
    assert record.identified == ["acme"]
    by_key = {one.key: one for one in record.hypotheses}
    assert by_key["tenant:acme"].hits > 2 * by_key["tenant:acme"].expected
    assert by_key["tenant:bolt"].log10_evalue < 1
    assert max(record.controls.decoy_log10_evalues) < 2
    assert record.lit and {one.account for one in record.lit} == {"acme"}
    assert record.sampling.source == "recorded" and record.sampling.settings == ["temperature 0.8, top-p 0.95"]
    assert record.counts.answers == 64 and record.counts.unheld == 0
    assert record.counts.fresh == record.counts.cuts == record.counts.asked == record.reading.contexts
    assert record.shown and all(one.said == one.chosen for one in record.shown)
    assert [one.chance for one in record.shown] == sorted(one.chance for one in record.shown)


def test_the_report_is_whole_and_its_numbers_come_again_from_the_evidence(
    world: World, found: tuple[RaceRecord, Path]
) -> None:
    record, output = found
    assert read_record(RaceRecord, output / "report.json") == record
    assert sorted(path.name for path in output.iterdir()) == [EVIDENCE_FILE, "report.json"]
    evidence = read_evidence(output / EVIDENCE_FILE)
    assert what_is_wrong(evidence) == ""
    again = conclude(
        evidence,
        world.spec,
        RING,
        alpha=record.alpha,
        decoy_seed=record.controls.decoy_seed,
        decoy_count=len(record.controls.decoy_log10_evalues),
    )
    for name in ("hypotheses", "identified", "log10_evalue", "curve", "lit", "controls", "found"):
        assert getattr(again, name) == getattr(record, name), name


def test_nothing_secret_is_in_the_report(found: tuple[RaceRecord, Path]) -> None:
    _, output = found
    text = (output / "report.json").read_text()
    assert bytes(range(32)).hex() not in text and KEY.fingerprint in text


@pytest.mark.parametrize("suspect", ["innocent", "sibling"])
def test_a_model_that_never_learnt_from_served_answers_is_not_found(world: World, tmp_path: Path, suspect: str) -> None:
    record = traced(world, tmp_path, suspect)
    assert not record.found and record.log10_evalue < 2 and not record.identified
    assert record.refused is None and record.log10_pvalue is not None


def test_a_suspect_with_another_tokenizer_is_read_through_the_text(world: World, tmp_path: Path) -> None:
    record = traced(world, tmp_path, "stranger")
    assert record.suspect.tokenizer == "aligned" and record.owner.tokenizer == "same"
    assert record.found and record.identified == ["acme"]


@pytest.mark.parametrize("suspect", ["student", "innocent"])
def test_beside_a_reference_a_student_is_found_and_an_innocent_is_not(
    world: World, tmp_path: Path, suspect: str
) -> None:
    record = traced(world, tmp_path, suspect, reference=world.folder / "sibling")
    assert record.found is (suspect == "student") and (suspect == "student" or record.log10_evalue < 2)
    assert record.reference is not None and record.reference.name.endswith("sibling")
    assert read_evidence(tmp_path / EVIDENCE_FILE).base is not None
    assert all(one.outcome != "failed" for one in checks(record, tmp_path / "report.json", None))
    assert recompute_race(record, RING, tmp_path) == []


def test_a_reference_that_learnt_from_the_same_answers_hides_a_student(world: World, tmp_path: Path) -> None:
    """So it is assumed not to have; this one has another tokenizer besides, and is read through the text."""
    record = traced(world, tmp_path, reference=world.folder / "stranger")
    assert record.reference is not None and record.reference.tokenizer == "aligned" and record.log10_evalue < 100
    assert any("The reference" in one.says and not one.checked for one in record.assumptions)


def test_a_suspect_with_another_tokenizer_is_held_against_a_reference(world: World, tmp_path: Path) -> None:
    assert traced(world, tmp_path, "stranger", reference=world.folder / "sibling").found


def test_one_accounts_answers_alone_are_shown_and_its_own_key_suffices(world: World, tmp_path: Path) -> None:
    ring = replace(RING, global_key=None, tenants={"acme": RING.tenants["acme"]})
    record = traced(world, tmp_path, ring=ring, read_tenant="acme")
    assert record.counts.answers == 32 and record.counts.unheld > 0
    assert record.counts.asked == record.counts.fresh - record.counts.unheld
    (own,) = record.hypotheses
    assert own.key == "tenant:acme" and own.cuts == record.counts.asked
    assert record.found and record.identified == ["acme"]


def test_answers_are_read_once_by_each_model_whatever_the_folder(world: World, tmp_path: Path) -> None:
    said: list[str] = []
    job = world.job("student")
    first = trace_race_weights(job, world.spec, RING, world.tokenizer, tmp_path / "a")
    again = trace_race_weights(
        job, world.spec, RING, world.tokenizer, tmp_path / "b", progress=lambda what, done, total: said.append(what)
    )
    assert "hashing owner" in said and not [what for what in said if what.startswith("loading")]
    assert (tmp_path / "a" / EVIDENCE_FILE).read_bytes() == (tmp_path / "b" / EVIDENCE_FILE).read_bytes()
    assert first.log10_evalue == again.log10_evalue


def test_no_text_is_quoted_where_none_is_to_be(world: World, tmp_path: Path) -> None:
    record = traced(world, tmp_path, quotes=False)
    assert record.found and record.shown == [] and not record.quotes


def test_answers_that_do_not_hold_their_mark_allow_no_acquittal(world: World, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (world.folder / "served.jsonl").read_text().splitlines()]
    other = [line | {"subkey": 1 - line["subkey"]} for line in lines]
    path = tmp_path / "served.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in other))
    record = traced(world, tmp_path / "out", "innocent", read=str(path))
    assert not record.found and record.refused is not None and "says nothing of the suspect" in record.refused
    assert record.log10_pvalue is None


def test_what_can_show_nothing_is_refused_before_a_model_reads(world: World, tmp_path: Path) -> None:
    def refused(suspect: str = "student", ring: KeyRing = RING, **more: Any) -> str:
        said: list[str] = []
        with pytest.raises(DyetraceError) as error:
            trace_race_weights(
                world.job(suspect, **more),
                world.spec,
                ring,
                world.tokenizer,
                tmp_path / "out",
                progress=lambda what, done, total: said.append(what),
            )
        assert not [what for what in said if "loading" in what or " reads " in what]
        assert not (tmp_path / "out" / "report.json").exists() and "\n" not in str(error.value)
        return str(error.value)

    shutil.copytree(world.folder / "owner", world.folder / "copy", dirs_exist_ok=True)
    assert "are the same model" in refused("copy")
    assert "nothing can be seen beside itself" in refused(reference=world.folder / "student")
    assert "another tokenizer than the spec's" in refused(owner_model=world.folder / "stranger")
    assert "no answers under this spec" in refused(read=str(world.folder / "unmarked.jsonl"))
    ledger = tmp_path / "served.ledger"
    Ledger.create(ledger, world.spec, RING, megabytes=1).close()
    assert "holds no text" in refused(read=str(ledger))
    assert "an innocent model would look guilty" in refused(taken="filtered")
    assert "hold the settings that they were sampled with" in refused(temperature=1.0)
    assert "is an endpoint" in refused("http://localhost:1/v1", model="m")
    assert "does not exist" in refused("nobody")
    committed, _ = commit(world.spec, KEY)
    assert "but this spec is" in refused(commitment=msgspec.structs.replace(committed, spec_id="dt1-other"))


def test_with_the_chances_of_another_model_an_innocent_suspect_is_not_found_either(
    world: World, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(world.folder / "owner")
    saved(fresh_model(words, seed=3), words, world.folder / "untrained")
    record = traced(world, tmp_path, "innocent", owner_model=world.folder / "untrained")
    assert not record.found and record.log10_evalue < 2
