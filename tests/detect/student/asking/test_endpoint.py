"""The whole of a trace through a real endpoint, by the command: plan, cost, trace, resume, verify, recompute."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

import detect
from benchmarks.distillation.server import Server
from detect.cli.main import main
from detect.records.reading import read_record, write_record
from detect.records.trace import TraceRecord
from detect.report.verification import verify_report
from detect.student.asking.ledger import LEDGER_FILE, Draft
from detect.student.asking.ledger import Ledger as AnswerLedger
from detect.student.verdict.evidence import EVIDENCE_FILE, read_evidence
from watermark.generate import Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.ledger import Ledger, answer_contexts
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, load_spec, write_spec

replace = msgspec.structs.replace
KEY = SecretKey(b"a key that everybody knows......")
PROMPTS = [f"Tell me about lighthouse {number}." for number in range(4)]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def owner(tmp_path: Path, smollm2_tokenizer: Any, tiny_model: tuple[Any, Any]) -> Path:
    """A folder with key, spec and served answers: the tiny model's, marked."""
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(smollm2_tokenizer),
        tokenizer=tokenizer_fingerprint(smollm2_tokenizer),
        key_fingerprint=KEY.fingerprint,
    )
    write_key_file(tmp_path / "owner.key", KEY)
    write_spec(tmp_path / "spec.json", spec)
    sampling = Sampling(max_new_tokens=30, seed=1)
    answers = generate_answers(*tiny_model, PROMPTS, sampling, spec, KeyRing.from_master(KEY), chat=False)
    (tmp_path / "served.jsonl").write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in answers))
    return tmp_path


@pytest.mark.parametrize("evidence", [[], ["--logprobs", 5]], ids=["samples", "logprobs"])
def test_a_plan_is_asked_once_and_its_report_holds(
    owner: Path, serve: Callable[..., Server], smollm2_dir: Path, evidence: list[object]
) -> None:
    server = serve()
    keys = ["--spec", owner / "spec.json", "--key", f"file:{owner / 'owner.key'}"]
    prompts = owner / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    fixed = ["--model", "student", "--prompts", prompts, "--samples", 2, "--max-tokens", 12, *evidence]
    made = run("trace", "plan", server.url, *keys, *fixed, "-o", owner / "plan.json")
    assert made.exit_code == 0, made.output
    trace = ["trace", "api", owner / "plan.json", *keys, "--tokenizer", smollm2_dir, "--no-pdf", "-o", owner / "found"]
    assert "8 requests to send, 0 answered already" in run(*trace, "--dry-run").output
    first = run(*trace, "--json")
    assert first.exit_code == 0, first.output
    record = json.loads((owner / "found" / "report.json").read_text())
    assert record["plan"]["sha256"] in made.output
    assert record["queries"]["answers"] == 8 and not record["found"]
    assert record["contexts"] > 20
    before = len(server.received)
    assert run(*trace, "--json").exit_code == 0
    assert len(server.received) == before  # everything stood in the ledger
    again = json.loads((owner / "found" / "report.json").read_text())
    assert again["hypotheses"] == record["hypotheses"]
    source = f"file:{owner / 'owner.key'}"
    result = detect.trace_endpoint(owner / "plan.json", owner / "spec.json", source, smollm2_dir, owner / "found")
    assert len(server.received) == before  # nor does a program ask anything twice
    assert msgspec.to_builtins(result.record.hypotheses) == record["hypotheses"] and result.found is False
    assert run("report", "verify", owner / "found" / "report.json").exit_code == 0
    held = run("recompute", owner / "found" / "report.json", *keys[2:])
    assert held.exit_code == 0 and "the report holds" in held.output
    _assert_that_the_ledger_is_looked_at(owner / "found")


def _assert_that_the_ledger_is_looked_at(folder: Path) -> None:
    report, answers = folder / "report.json", folder / LEDGER_FILE
    kept, record = answers.read_bytes(), read_record(TraceRecord, report)
    assert record.plan is not None and record.queries is not None

    def failed() -> list[str]:
        return [check.name for check in verify_report(report).failed]

    def looked() -> str:
        return next(check.line for check in verify_report(report).checks if check.name == "ledger")

    assert "fit their hashes, the report's plan among them" in looked() and failed() == []
    first, last = record.plan.first_query, record.queries.ledger_head
    assert first is not None
    for plan, queries in (
        ({"created": "2019-01-01T00:00:00+00:00"}, {}),
        ({"sha256": "0" * 64}, {}),
        ({"seed": "another"}, {}),
        ({"offered": record.plan.offered + 1}, {}),
        ({"first_query": first.replace(first[:4], "2099")}, {}),
        ({}, {"ledger_head": last[::-1]}),
        ({}, {"sampling": "temperature 0.3, top-p 1, at most 12 tokens"}),
    ):
        said = replace(record, plan=replace(record.plan, **plan), queries=replace(record.queries, **queries))
        write_record(report, said)
        assert "ledger" in failed(), (plan, queries)
    write_record(report, record)
    answers.write_bytes(b"garbage")
    assert failed() == ["ledger"]
    answers.write_bytes(kept)
    with contextlib.closing(sqlite3.connect(answers)) as database:
        database.execute("DROP TRIGGER entries_never_change")
        database.execute("UPDATE entries SET time = '2019-01-01T00:00:00.000+00:00' WHERE number = 2")
        database.commit()
    assert failed() == ["ledger"]
    answers.write_bytes(kept)
    with AnswerLedger(answers) as later:
        later.append(
            [Draft(kind="plan", key=hashlib.sha256(b"{}").hexdigest(), plan="", tokens=0, meta={}, payload=b"{}")]
        )
    assert "1 were added after the report" in looked() and failed() == []
    answers.unlink()
    assert "which holds every answer, is not beside the report" in looked() and failed() == []
    answers.write_bytes(kept)


def ledger_of_served(owner: Path) -> Path:
    """The ledger of the served answers: they were acme's."""
    spec, path = load_spec(owner / "spec.json"), owner / "served.ledger"
    with Ledger.create(path, spec, KeyRing.from_master(KEY, tenants=("acme",)), megabytes=1) as ledger:
        for line in (owner / "served.jsonl").read_text().splitlines():
            answer = json.loads(line)
            contexts = answer_contexts(answer["prompt_token_ids"], [*answer["token_ids"], 0], spec.context_width)
            ledger.add("acme", answer["subkey"], contexts)
    return path


def test_a_ledger_of_the_served_answers_gives_the_trace_that_they_give(
    owner: Path, serve: Callable[..., Server], smollm2_dir: Path
) -> None:
    server = serve()
    keys = ["--spec", owner / "spec.json", "--key", f"file:{owner / 'owner.key'}"]
    prompts = owner / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    plan = ["trace", "plan", server.url, *keys, "--model", "student", "--samples", 2, "--max-tokens", 30]

    def traced(name: str, *source: object, of: Sequence[object] = ()) -> dict[str, Any]:
        made = run(*plan, "--prompts", prompts, *source, *of, "-o", owner / f"{name}.json")
        assert made.exit_code == 0, made.output
        trace = ["trace", "api", owner / f"{name}.json", *keys, "--tokenizer", smollm2_dir, "--no-pdf"]
        done = run(*trace, *source, "-o", owner / "found", "--json")
        assert done.exit_code == 0, done.output
        record: dict[str, Any] = json.loads((owner / "found" / "report.json").read_text())
        return record

    everything = traced("everything")
    # What the suspect says was served, in part, some of it twice: it is a random model, which meets nothing by chance.
    said = read_evidence(owner / "found" / EVIDENCE_FILE).tuples.contexts[:40].tolist()
    spec_id = load_spec(owner / "spec.json").spec_id
    served = [
        {"prompt_token_ids": [], "token_ids": [*context, 0], "spec_id": spec_id, "subkey": number % 3}
        for number, context in enumerate([*said, *said[:15]])
    ]
    (owner / "served.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in served))
    ledger = ledger_of_served(owner)
    exact = traced("answers", "--served", owner / "served.jsonl")
    counted = traced("ledger", "--served", ledger)
    acme = traced("acme", "--served", ledger, "--tenant", "acme", of=["--served-tenant", "acme"])
    assert everything["contexts"] > exact["contexts"] >= 40
    for name in ("contexts", "hypotheses", "curve"):
        assert counted[name] == exact[name] == acme[name]
    assert counted["served"]["sha256"] == hashlib.sha256(ledger.read_bytes()).hexdigest()
    assert "served_account" not in json.loads((owner / "ledger.json").read_text())["statistic"]
    assert json.loads((owner / "acme.json").read_text())["statistic"]["served_account"] == "acme"


def test_a_ledger_that_gives_no_plan_is_one_line(owner: Path, serve: Callable[..., Server]) -> None:
    server, ledger = serve(), ledger_of_served(owner)
    keys = ["--spec", owner / "spec.json", "--key", f"file:{owner / 'owner.key'}"]
    prompts = owner / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    spec = load_spec(owner / "spec.json")
    write_spec(owner / "next.json", msgspec.structs.replace(spec, epoch=1))
    plan = ["trace", "plan", server.url, "--model", "student", "--served", ledger, "-o", owner / "plan.json"]
    other = ["--spec", owner / "next.json", *keys[2:]]
    for wrong, says in (
        (keys, "is a ledger, which holds no prompts to choose from: give --prompts"),
        ([*other, "--prompts", prompts], "each spec has its own ledger"),
        ([*keys, "--prompts", prompts, "--served-tenant", "acme"], "name the account with --tenant"),
    ):
        result = run(*plan, *wrong)
        assert result.exit_code == 2 and says in result.output and "Traceback" not in result.output, result.output
    with Ledger.open(ledger, spec, KeyRing.from_master(KEY), write=True):
        result = run(*plan, *keys, "--prompts", prompts)
        assert result.exit_code == 2 and "is open for writing" in result.output
    assert not (owner / "plan.json").exists()


def test_what_does_not_fit_the_plan_is_one_line(owner: Path, serve: Callable[..., Server], smollm2_dir: Path) -> None:
    server = serve()
    keys = ["--spec", owner / "spec.json", "--key", f"file:{owner / 'owner.key'}"]
    served = ["--served", owner / "served.jsonl"]
    made = run("trace", "plan", server.url, "--model", "student", *served, *keys, "-o", owner / "plan.json")
    assert made.exit_code == 0, made.output
    where = ["--tokenizer", smollm2_dir, "-o", owner / "found"]
    before = len(server.received)
    for wrong, says in (
        ([owner / "plan.json", *keys, *where], "other served answers"),
        ([owner / "none.json", *keys, *where], "cannot read plan"),
        ([owner / "plan.json", *keys, *served, "--tenant", "acme", *where, "--api-key", "env:NO_SUCH"], "NO_SUCH"),
    ):
        result = run("trace", "api", *wrong)
        assert result.exit_code == 2 and says in result.output and "Traceback" not in result.output, result.output
    assert len(server.received) == before
    result = run("trace", "plan", server.url, "--model", "student", *keys, "-o", owner / "other.json")
    assert result.exit_code == 2 and "a plan needs prompts" in result.output


def test_answers_that_hold_nothing_cant_tell(owner: Path, serve: Callable[..., Server], smollm2_dir: Path) -> None:
    server = serve()
    keys = ["--spec", owner / "spec.json", "--key", f"file:{owner / 'owner.key'}"]
    (owner / "prompts.txt").write_text("\n".join(PROMPTS))
    fixed = ["--model", "student", "--prompts", owner / "prompts.txt", "--samples", 2, "--max-tokens", 1]
    assert run("trace", "plan", server.url, *keys, *fixed, "-o", owner / "plan.json").exit_code == 0
    where = ["--tokenizer", smollm2_dir, "-o", owner / "found"]
    result = run("trace", "api", owner / "plan.json", *keys, *where)
    assert result.exit_code == 4 and "8 answers hold no context that counts; ask more prompts" in result.stderr
    assert "--served" not in result.stderr
