"""Who learnt from marked answers is found, by each path: no rule that protects the innocent hides the guilty."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from detect.records.reading import read_record
from detect.records.trace import TraceRecord
from detect.student.asking.answers import SuspectAnswer
from detect.student.asking.prompts import choose_prompts, prompts_of
from tests.innocents.askings import asked_in_order
from tests.innocents.paths import Reader, asked_at_endpoint, read_by_weights, save, toy_models
from tests.innocents.readings import worlds
from tests.innocents.suspects import Prompts, as_said, prose, stop_or_go, written
from tests.innocents.world import World, run, taught, tokenizer_of
from watermark.generate import Answer

PROSE = prose(2)
LISTS = stop_or_go(4, go=0.85, words=4)
PROMPTS = Prompts.of(150, 3)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_by_reading_the_marked_answers_whether_their_subkeys_are_known_or_not(known: bool, tmp_path: Path) -> None:
    for spec, ring, rng in worlds("guilty", 3):
        answers = written(PROSE, PROMPTS, rng, mark=(spec, ring))
        student = PROSE.taught(answers)
        read = answers if known else [msgspec.structs.replace(answer, subkey=None) for answer in answers]
        with toy_models({"suspect": Reader(student)}):
            record = read_by_weights(
                tmp_path / "found", spec, ring, [save(tmp_path / "read.jsonl", read)], taken="all", decoys=20
            )
        assert record.found and record.log10_pvalue is not None and record.log10_pvalue < -10


def test_by_reading_unmarked_text_weighed_by_what_was_served(tmp_path: Path) -> None:
    prompts = Prompts.of(300, 3)
    for spec, ring, rng in worlds("guilty served", 3):
        answers = written(LISTS, prompts, rng, mark=(spec, ring), samples=4)
        student = LISTS.taught(answers)
        text = save(tmp_path / "read.jsonl", written(LISTS, prompts, rng, samples=4))
        served = save(tmp_path / "served.jsonl", answers)
        with toy_models({"suspect": Reader(student)}):
            record = read_by_weights(tmp_path / "found", spec, ring, [text], served=str(served), decoys=20)
        assert record.found and record.served_marked
        assert record.log10_pvalue is not None and record.log10_pvalue < -10


@pytest.mark.parametrize("evidence", ["samples", "logprobs"])
@pytest.mark.parametrize("served", [True, False], ids=["served", "all contexts"])
def test_by_asking(evidence: str, served: bool, tmp_path: Path) -> None:
    for number, (spec, ring, rng) in enumerate(worlds("guilty endpoint", 3)):
        answers = written(LISTS, PROMPTS, rng, mark=(spec, ring), samples=4)
        student = LISTS.taught(answers)

        def says(texts: Sequence[str], student=student, rng=rng) -> list[list[SuspectAnswer]]:
            asked = asked_in_order(PROMPTS, texts)
            said = written(student, asked, rng, samples=4)
            return as_said(said, len(texts), student if evidence == "logprobs" else None)

        record, _ = asked_at_endpoint(
            tmp_path / f"found-{number}",
            spec,
            ring,
            choose_prompts(prompts_of(answers), 150),
            says,
            served=save(tmp_path / "served.jsonl", answers) if served else None,
            evidence=evidence,
            samples=4,
            target=-10.0,
        )
        assert record.found and record.log10_pvalue is not None and record.log10_pvalue < -6


def test_through_the_command_line_and_a_wrapper_that_changed_the_names_of_weights(world: World, tmp_path: Path) -> None:
    """A student saved by `torch.compile` is the same student, or it is refused; never "no mark"."""
    from safetensors.torch import load_file, save_file

    wrapped = tmp_path / "wrapped"
    shutil.copytree(world.folder / "of-marked", wrapped)
    weights = load_file(wrapped / "model.safetensors")
    save_file({f"_orig_mod.{name}": value for name, value in weights.items()}, wrapped / "model.safetensors")
    read = ["--read", world.folder / "marked.jsonl", "--taken", "all", "--dtype", "float32", "--decoys", 10, "--no-pdf"]
    for student in (world.folder / "of-marked", wrapped):
        made = run("trace", "weights", student, *read, *world.keys, *world.tokenizer, "-o", tmp_path / student.name)
        assert made.exit_code in (0, 2), made.output
        if student is not wrapped or made.exit_code == 0:
            assert read_record(TraceRecord, tmp_path / student.name / "report.json").found


def test_the_signal_is_the_marks(tmp_path: Path) -> None:
    """The same student is found under its own key and under none of many others."""
    spec, ring, rng = next(worlds("guilty", 1))
    answers: list[Answer] = written(PROSE, PROMPTS, rng, mark=(spec, ring))
    with toy_models({"suspect": Reader(PROSE.taught(answers))}):
        text = save(tmp_path / "read.jsonl", answers)
        record = read_by_weights(tmp_path / "found", spec, ring, [text], decoys=200)
    decoys = np.array(record.controls.decoy_log10_pvalues)
    assert record.found and len(decoys) == 200 and decoys.min() > -6


def test_students_of_known_shares_give_an_interval_through_the_command_line(world: World, tmp_path: Path) -> None:
    """Together with the list of what was served, which shows that nothing was left out, and a placebo."""
    marked, unmarked = world.answers("marked"), world.answers("unmarked")
    teacher = world.model("teacher")[0]
    students = {0.0: unmarked, 0.5: [*marked[::2], *unmarked[1::2]], 1.0: marked}
    calibration: list[object] = []
    for share, answers in students.items():
        for seed in range(3):
            folder = tmp_path / f"{share}-{seed}"
            taught(teacher, [*answers[seed:], *answers[:seed]]).save_pretrained(folder)
            tokenizer_of().save_pretrained(folder)
            calibration += ["--calibrate", f"{folder}={share}"]
    read = world.folder / "marked.jsonl"
    hashes = run("ledger", "hashes", read)
    (tmp_path / "served.sha256").write_text(hashes.stdout)
    placebo = ["--model", world.folder / "teacher", "--dtype", "float32", "--prompts", world.prompts, "--placebo"]
    drawn = run("generate", *world.keys, *placebo, "--max-new-tokens", 40, "-o", tmp_path / "placebo.jsonl")
    assert hashes.exit_code == drawn.exit_code == 0, drawn.output
    more = ["--complete", tmp_path / "served.sha256", "--placebo", tmp_path / "placebo.jsonl", "--contexts", 300]
    trace = ["trace", "weights", world.folder / "of-marked", *world.keys, *world.tokenizer, "--dtype", "float32"]
    given = ["--read", read, "--taken", "all", "--reference", world.folder / "teacher", *calibration, *more]
    done = run(*trace, *given, "--decoys", 10, "--no-pdf", "-o", tmp_path / "found")
    assert done.exit_code == 0, done.output
    record = read_record(TraceRecord, tmp_path / "found" / "report.json")
    assert record.found and [dose.share for dose in record.share.doses] == [0.0] * 3 + [0.5] * 3 + [1.0] * 3
    interval = record.share.interval
    assert interval is not None and interval.low is not None and interval.high is None  # none learnt more than it
    assert [control.what for control in record.controls.models].count("placebo key") == 1
    assert run("report", "verify", tmp_path / "found" / "report.json").exit_code == 0
    again = run("recompute", tmp_path / "found" / "report.json", "--key", f"file:{world.folder / 'owner.key'}")
    assert again.exit_code == 0 and "every number the same" in again.output, again.output
