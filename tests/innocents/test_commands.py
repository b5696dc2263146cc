"""Whole traces by weights of models that never saw the key, by the command line, and readings that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from detect.records.reading import read_record
from detect.records.trace import TraceRecord
from tests.innocents.world import KEY, World, copier_of, run, tokenizer_of, written
from watermark.generate import Sampling, generate_answers
from watermark.keys import KeyRing
from watermark.spec import load_spec


def words(text: str) -> str:
    return " ".join(text.split())


def traced(world: World, output: Path, model: str | Path, *more: object, status: int = 0) -> str:
    """What `dyetrace trace weights` prints."""
    trace = ["trace", "weights", world.folder / model, *world.keys, *world.tokenizer, "--dtype", "float32"]
    done = run(*trace, "--decoys", 10, "--no-pdf", "-o", output, *more)
    assert done.exit_code == status and "Traceback" not in done.output, done.output
    return words(done.output)


def innocent(output: Path) -> TraceRecord:
    record = read_record(TraceRecord, output / "report.json")
    assert not record.found and record.refused is None
    assert record.log10_pvalue is not None and record.log10_pvalue > -3
    return record


@pytest.mark.parametrize("model", ["teacher", "other"], ids=["same tokenizer", "another tokenizer"])
@pytest.mark.parametrize("reading", ["marked", "unmarked", "unmarked and served"])
def test_the_teacher_itself_is_not_found(world: World, model: str, reading: str, tmp_path: Path) -> None:
    """It decides as the marked answers do, and never saw one."""
    name, _, served = reading.partition(" and ")
    more = ["--served", world.folder / "marked.jsonl"] if served else []
    traced(world, tmp_path, model, "--read", world.folder / f"{name}.jsonl", *more)
    record = innocent(tmp_path)
    assert record.student.tokenizer == ("same" if model == "teacher" else "aligned")
    assert record.basis == ("p-value" if reading == "unmarked" else "e-value")


def test_nor_is_any_account_of_it_named(world: World, tmp_path: Path) -> None:
    spec = msgspec.json.decode((world.folder / "spec.json").read_bytes()) | {"global_share": 0.5}
    (tmp_path / "spec.json").write_bytes(msgspec.json.encode(spec))
    accounts = ["--tenant", "acme", "--tenant", "zenith", "--tenant", "nadir"]
    read = ["--read", world.folder / "unmarked.jsonl", "--spec", tmp_path / "spec.json"]
    traced(world, tmp_path / "found", "teacher", *read, *accounts)
    record = innocent(tmp_path / "found")
    assert not record.identified and [h.key for h in record.hypotheses][1:] == [f"tenant:{n}" for n in accounts[1::2]]


def test_what_is_not_known_of_how_answers_were_taken_stands_in_the_report(world: World, tmp_path: Path) -> None:
    read = ["--read", world.folder / "marked.jsonl"]
    unsaid = traced(world, tmp_path / "unsaid", "teacher", *read)
    assert "not checked here: Nobody said how they were taken" in unsaid
    filtered = traced(world, tmp_path / "filtered", "teacher", *read, "--taken", "filtered", status=2)
    assert "an innocent model would look guilty" in filtered
    assert not (tmp_path / "filtered" / "report.json").exists()
    hashes = run("ledger", "hashes", world.folder / "marked.jsonl")
    (tmp_path / "served.sha256").write_text(hashes.output)
    complete = ["--taken", "all", "--complete", tmp_path / "served.sha256"]
    held = traced(world, tmp_path / "held", "teacher", *read, *complete)
    assert "checked here: They are all that is on record" in held
    long = [answer for answer in world.answers("marked") if len(answer.token_ids) == 40]
    some = ["--read", written(tmp_path / "long.jsonl", long)]
    assert "lacks" in traced(world, tmp_path / "some", "teacher", *some, *complete, status=2)


def test_text_that_is_taken_for_unmarked_and_carries_the_mark_is_refused(world: World, tmp_path: Path) -> None:
    lost = [msgspec.structs.replace(answer, spec_id=None) for answer in world.answers("marked")]
    read = ["--read", written(tmp_path / "lost.jsonl", lost)]
    assert "mark" in traced(world, tmp_path / "found", "teacher", *read, status=2)
    prose = tmp_path / "lost.txt"
    prose.write_text("\n".join(answer.text for answer in lost))
    assert "mark" in traced(world, tmp_path / "found", "teacher", "--read", prose, status=2)
    assert not (tmp_path / "found" / "report.json").exists()


def test_one_student_of_each_share_gives_no_interval(world: World, tmp_path: Path) -> None:
    calibration = ["--calibrate", f"{world.folder / 'teacher'}=0", "--calibrate", f"{world.folder / 'of-marked'}=1"]
    traced(world, tmp_path, "teacher", "--read", world.folder / "unmarked.jsonl", *calibration)
    share = read_record(TraceRecord, tmp_path / "report.json").share
    assert share.interval is None and share.reason is not None and "share" in share.reason


def test_a_placebo_finds_nothing_in_the_teacher_and_stands_in_the_report(world: World, tmp_path: Path) -> None:
    made = ["generate", "--prompts", world.prompts, "--model", world.folder / "teacher", *world.keys, "--placebo"]
    short = ["--max-new-tokens", 24, "--limit", 20, "--seed", 3, "--dtype", "float32"]
    done = run(*made, *short, "-o", tmp_path / "placebo.jsonl")
    assert done.exit_code == 0, done.output
    read = ["--read", world.folder / "marked.jsonl", "--placebo", tmp_path / "placebo.jsonl"]
    output = traced(world, tmp_path / "found", "teacher", *read)
    assert "checked here: The same trace under a placebo key" in output
    assert "placebo key" in [control.what for control in innocent(tmp_path / "found").controls.models]


# --- a model that gives back what it is shown -------------------------------------------------------------


@pytest.fixture(scope="module")
def corrections(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copier's answers, marked, to "correct this" and marked text; the copier with its tokenizer and with another."""
    folder = tmp_path_factory.mktemp("corrections")
    for name, tokenizer in (("same", tokenizer_of()), ("another", tokenizer_of("the owl "))):
        copier_of(tokenizer).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    asked = list(dict.fromkeys(f"Correct this: {answer.text}" for answer in world.answers("marked")))
    spec, ring = load_spec(world.folder / "spec.json"), KeyRing.from_master(KEY)
    tokenizer, sampling = tokenizer_of(), Sampling(max_new_tokens=60, batch=60, seed=1)
    answers = list(generate_answers(copier_of(tokenizer), tokenizer, asked, sampling, spec, ring))
    written(folder / "whole.jsonl", answers)
    for name, fields in (("bare", ("prompt", "text", "spec_id", "subkey")), ("lost", ("prompt", "text"))):
        lines = [json.dumps({field: getattr(answer, field) for field in fields}) for answer in answers]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("records", ["whole", "bare"])
@pytest.mark.parametrize("model", ["same", "another"])
def test_a_copier_is_not_accused_of_what_it_was_shown(
    world: World, corrections: Path, records: str, model: str, tmp_path: Path
) -> None:
    """It says again what the key chose, since that stands in its prompts; records may have lost their token ids."""
    traced(world, tmp_path, corrections / model, "--read", corrections / f"{records}.jsonl")
    record = innocent(tmp_path)
    assert record.student.tokenizer == ("same" if model == "same" else "aligned")
    assert record.readings[0].barred > 300


@pytest.mark.parametrize("model", ["same", "another"])
def test_and_where_nothing_says_that_it_is_marked_it_is_not_read(
    world: World, corrections: Path, model: str, tmp_path: Path
) -> None:
    read = ["--read", corrections / "lost.jsonl"]
    assert "mark" in traced(world, tmp_path / "found", corrections / model, *read, status=2)
    assert not (tmp_path / "found" / "report.json").exists()
