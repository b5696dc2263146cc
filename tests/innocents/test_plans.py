"""Whole traces through a real endpoint that never saw the key, by the command line, and plans that are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.distillation.server import Server
from detect.records.reading import read_record
from detect.records.trace import TraceRecord
from tests.innocents.world import PROMPTS, World, run, written


def words(text: str) -> str:
    return " ".join(text.split())


def planned(world: World, server: Server, path: Path, *more: object) -> Path:
    fixed = ["--model", "suspect", "--samples", 1, "--max-tokens", 24, "--decoys", 10, "--no-probe"]
    made = run("trace", "plan", server.url, *world.keys, *fixed, *more, "-o", path)
    assert made.exit_code == 0, made.output
    return path


def asked(world: World, plan: Path, folder: Path, *more: object, status: int = 0) -> Any:
    made = run("trace", "api", plan, *world.keys, *world.tokenizer, "--no-pdf", *more, "-o", folder)
    assert made.exit_code == status, made.output
    return made.output


@pytest.mark.parametrize(
    "kind",
    [
        [],
        ["--logprobs", 8],
        ["--endpoint", "completions"],
        ["--endpoint", "completions", "--logprobs", 5],
        ["--tenant", "acme", "--tenant", "zenith"],
    ],
    ids=["chat", "chat with logprobs", "completions", "completions with logprobs", "accounts"],
)
def test_the_teachers_twin_is_not_found_by_asking(
    world: World, teacher_served: Server, tmp_path: Path, kind: Sequence[object]
) -> None:
    served = world.folder / "marked.jsonl"
    accounts = [word for word in kind if word in ("--tenant", "acme", "zenith")]
    if accounts:
        spec = msgspec.json.decode((world.folder / "spec.json").read_bytes()) | {"global_share": 0.5}
        (tmp_path / "spec.json").write_bytes(msgspec.json.encode(spec))
        keys: list[object] = ["--spec", tmp_path / "spec.json", *world.keys[2:]]
        source: list[object] = ["--prompts", world.prompts]
        more: list[object] = []
    else:
        keys, source, more = world.keys, ["--served", served], ["--served", served]
    fixed = ["--model", "suspect", "--samples", 1, "--max-tokens", 24, "--count", 24, "--decoys", 10]
    made = run("trace", "plan", teacher_served.url, *keys, *fixed, *kind, *source, "-o", tmp_path / "plan.json")
    assert made.exit_code == 0, made.output
    trace = ["trace", "api", tmp_path / "plan.json", *keys, *world.tokenizer, *accounts, *more, "--no-pdf"]
    done = run(*trace, "-o", tmp_path / "found")
    assert done.exit_code == 0 and "What this verdict assumes" in done.output, done.output
    record = read_record(TraceRecord, tmp_path / "found" / "report.json")
    assert not record.found and not record.identified and record.refused is None
    assert record.log10_pvalue is not None and record.log10_pvalue > -3
    assert record.queries is not None and record.queries.before_plan == 0
    if not accounts:
        assert record.served_marked and record.queries.looks == 6  # after prompts 1, 2, 4, 8, 16 and 24


def test_what_was_answered_has_no_say_in_which_prompts_are_asked(
    world: World, teacher_served: Server, tmp_path: Path
) -> None:
    """The marked answers change hands among the prompts, and stand in another order."""
    answers = world.answers("marked")
    moved = [
        msgspec.structs.replace(
            answer, prompt=other.prompt, prompt_token_ids=other.prompt_token_ids, id=f"moved {answer.id}"
        )
        for answer, other in zip(answers, answers[1:] + answers[:1], strict=True)
    ]
    written(tmp_path / "moved.jsonl", sorted(moved, key=lambda answer: -len(answer.token_ids)))
    chosen = []
    for name, source in (("a", world.folder / "marked.jsonl"), ("b", tmp_path / "moved.jsonl")):
        plan = planned(world, teacher_served, tmp_path / f"{name}.json", "--served", source, "--count", 20)
        chosen.append([prompt["prompt"] for prompt in json.loads(plan.read_text())["prompts"]])
    assert chosen[0] == chosen[1] and len(chosen[0]) == 20


def test_prompts_that_quote_marked_answers_are_refused(world: World, teacher_served: Server, tmp_path: Path) -> None:
    quoting = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"prompt": f"Correct this text: {answer.text}"}) for answer in world.answers("marked")]
    quoting.write_text("\n".join(lines))
    source = ["--prompts", quoting, "--count", 20]
    fixed = ["trace", "plan", teacher_served.url, *world.keys, "--model", "suspect", *source]
    refused = run(*fixed, *world.tokenizer, "-o", tmp_path / "none.json")
    assert refused.exit_code == 2 and "carry the mark" in refused.output and "Traceback" not in refused.output
    assert not (tmp_path / "none.json").exists()
    plan = planned(world, teacher_served, tmp_path / "plan.json", *source)
    assert "carry the mark" in asked(world, plan, tmp_path / "found", status=2)
    assert not teacher_served.received


def test_a_plan_that_was_made_after_answers_gives_no_verdict(
    world: World, teacher_served: Server, tmp_path: Path
) -> None:
    source = ["--prompts", world.prompts, "--count", 20]
    asked(world, planned(world, teacher_served, tmp_path / "first.json", *source), tmp_path / "found")
    few = tmp_path / "few.txt"
    few.write_text("\n".join(PROMPTS[::2]))
    second = planned(world, teacher_served, tmp_path / "second.json", "--prompts", few)
    output = words(asked(world, second, tmp_path / "found"))
    record = read_record(TraceRecord, tmp_path / "found" / "report.json")
    assert record.refused is not None and "on record before this plan" in record.refused
    assert record.log10_pvalue is None and not record.found
    assert output.index("on record before this plan") < output.index("What this verdict assumes")
    # In a folder of its own, where nothing was seen before, it is as good as any.
    asked(world, second, tmp_path / "fresh")
    assert read_record(TraceRecord, tmp_path / "fresh" / "report.json").refused is None


def test_nor_does_one_that_asks_the_same_prompts_in_another_way(
    world: World, teacher_served: Server, tmp_path: Path
) -> None:
    """None of its requests is on record, but what such prompts are answered is."""
    source = ["--prompts", world.prompts, "--count", 20]
    asked(world, planned(world, teacher_served, tmp_path / "first.json", *source), tmp_path / "found")
    again = [*source, "--temperature", 0.99]
    asked(world, planned(world, teacher_served, tmp_path / "second.json", *again), tmp_path / "found")
    record = read_record(TraceRecord, tmp_path / "found" / "report.json")
    assert record.queries is not None and record.queries.before_plan > 0 and record.refused is not None
