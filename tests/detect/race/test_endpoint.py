"""A suspect is read through a real endpoint: planned first, asked in order, stopped at the target, gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.distillation.server import Fault, Server
from detect.race.cuts import first_of_runs
from detect.race.dry_run import dry_run
from detect.race.endpoint import Standing, trace_race_endpoint
from detect.race.evidence import EVIDENCE_FILE, RaceEvidence, read_evidence
from detect.race.plan import RacePlan, canonical_plan, chances_path, load_plan, plan_sha256
from detect.race.planning import make_race_plan
from detect.records.race import RaceRecord
from detect.report.verify.race import checks
from detect.student.asking.budget import Budgets
from detect.student.asking.ledger import LEDGER_FILE, verify_chain
from tests.detect.race.student import KEY, RING, World
from tests.detect.student.asking.planned import QUICK
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.models.folder import load_model

ASKS = ("prompt-logprobs", "echo", "logprobs", "bias", "greedy")


@pytest.fixture(scope="module")
def suspects(world: World) -> dict[str, Any]:
    return {name: load_model(world.folder / name, "float32") for name in ("student", "innocent")}


@pytest.fixture
def suspect(suspects: dict[str, Any]) -> Iterator[Server]:
    with Server(*suspects["student"]) as server:
        yield server


def planned(world: World, server: Server, folder: Path, ring: KeyRing = RING, **more: Any) -> RacePlan:
    folder.mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = {"ask": "greedy", "per_answer": 4, "decoys": 5, **more}
    job = replace(world.job("student"), suspect=server.url, model="student", **fields)
    return make_race_plan(job, world.spec, ring, world.tokenizer, folder / "plan.json", client=QUICK)


def traced(world: World, folder: Path, ring: KeyRing = RING, **more: Any) -> RaceRecord:
    read = str(more.pop("read", world.folder / "served.jsonl"))
    fields: dict[str, Any] = {"client": QUICK, **more}
    plan = folder / "plan.json"
    return trace_race_endpoint(plan, read, world.spec, ring, world.tokenizer, folder / "out", **fields)


def evidence(folder: Path) -> RaceEvidence:
    return read_evidence(folder / "out" / EVIDENCE_FILE)


def asked_after(server: Server, probes: int) -> list[Any]:
    return [received.body["prompt"] for received in server.received[probes:]]


@pytest.mark.parametrize("ask", ASKS)
def test_a_student_is_found_by_each_ask_and_asked_no_further(
    world: World, suspect: Server, tmp_path: Path, ask: str
) -> None:
    plan = planned(world, suspect, tmp_path, ask=ask)
    told: list[Standing] = []
    found = traced(world, tmp_path, progress=told.append)
    assert plan.ask == found.ask == ask and found.found and found.refused is None
    assert found.queries is not None and found.queries.stopped == "target reached"
    assert found.log10_evalue >= 10 > told[-2].log10_evalue
    assert found.log10_evalue == told[-1].log10_evalue
    assert found.queries.answers == told[-1].steps <= (4 if plan.whole_answers else 60)
    assert "acme" in found.identified or found.hypotheses[0].log10_evalue > 3
    assert found.plan is not None and found.plan.sha256 == plan_sha256(plan)
    assert verify_chain(tmp_path / "out" / LEDGER_FILE).plans.keys() == {plan_sha256(plan)}


@pytest.mark.parametrize("ask", ["prompt-logprobs", "bias"])
def test_an_innocent_is_not(world: World, suspects: dict[str, Any], tmp_path: Path, ask: str) -> None:
    with Server(*suspects["innocent"]) as server:
        planned(world, server, tmp_path, ask=ask, per_answer=1)
        found = traced(world, tmp_path)
    assert not found.found and found.log10_evalue < 2
    assert found.queries is not None and found.queries.stopped == "plan finished"
    assert found.counts.asked == found.counts.cuts == len(evidence(tmp_path))


@pytest.mark.parametrize("ask", ["logprobs", "greedy"])
def test_a_plan_holds_what_its_reference_says(world: World, suspect: Server, tmp_path: Path, ask: str) -> None:
    plan = planned(world, suspect, tmp_path, ask=ask, reference=world.folder / "sibling")
    found = traced(world, tmp_path)
    assert found.found and found.reference == plan.reference is not None
    base = evidence(tmp_path).base
    assert base is not None and base.shape == evidence(tmp_path).chances.shape
    assert all(one.outcome != "failed" for one in checks(found, tmp_path / "out" / "report.json", None))


def test_an_echo_is_not_compared(world: World, suspect: Server, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="leave out --reference"):
        planned(world, suspect, tmp_path, ask="echo", reference=world.folder / "sibling")


def test_the_plan_is_there_before_anything_served_is_shown_and_holds_none_of_it(
    world: World, suspect: Server, tmp_path: Path
) -> None:
    plan = planned(world, suspect, tmp_path)
    probes = [received.body for received in suspect.received]
    answers = [json.loads(line) for line in (world.folder / "served.jsonl").read_text().splitlines()]
    shown = json.dumps(probes) + (tmp_path / "plan.json").read_text()
    assert not any(answer["text"][:25] in shown or answer["prompt"] in shown for answer in answers)
    assert str(KEY.reveal_hex()) not in shown
    assert plan == load_plan(tmp_path / "plan.json") and plan.accounts == ["acme", "bolt"]
    assert {document for document, _ in plan.cuts} <= set(range(len(answers)))


def asked_at(plan: RacePlan) -> list[tuple[int, int]]:
    """The cuts that requests are made at: a reply is about those behind them as well."""
    documents, positions = np.array(plan.cuts).T
    return [plan.cuts[row] for row in first_of_runs(documents, positions, plan.asking.run)]


def test_requests_go_in_the_order_of_serving_and_one_after_the_other(
    world: World, suspect: Server, tmp_path: Path
) -> None:
    plan = planned(world, suspect, tmp_path, target_log10=1000.0, budgets=Budgets(requests=12))
    probes = len(suspect.received)
    found = traced(world, tmp_path, client=replace(QUICK, start=8, most=8))
    assert found.queries is not None and found.queries.stopped == "budget spent" and found.counts.asked >= 12
    kinds: list[str] = []
    verify_chain(tmp_path / "out" / LEDGER_FILE, lambda entry: kinds.append(entry.kind))
    assert kinds == ["plan", *["asked", "answered"] * 12]
    text = [json.loads(line) for line in (world.folder / "served.jsonl").read_text().splitlines()]
    wanted = [
        [*text[document]["prompt_token_ids"], *text[document]["token_ids"]][:position]
        for document, position in asked_at(plan)[:12]
    ]
    assert asked_after(suspect, probes) == wanted


def test_only_answers_of_the_accounts_under_test_are_shown(world: World, suspect: Server, tmp_path: Path) -> None:
    ring = KeyRing.from_master(KEY, 0, ("bolt",))
    plan = planned(world, suspect, tmp_path, ring)
    tenants = [json.loads(line)["tenant"] for line in (world.folder / "served.jsonl").read_text().splitlines()]
    assert {tenants[document] for document, _ in plan.cuts} == {"bolt"} and plan.accounts == ["bolt"]


def test_after_a_crash_it_goes_on_and_asks_nothing_twice(
    world: World, suspects: dict[str, Any], tmp_path: Path
) -> None:
    class Crash(Exception):
        pass

    def crash(standing: Standing) -> None:
        if standing.steps == 5:
            raise Crash

    records = []
    for name in ("whole", "broken"):
        with Server(*suspects["student"], port=0) as server:
            folder = tmp_path / name
            planned(world, server, folder, target_log10=1000.0, budgets=Budgets(requests=16))
            probes = len(server.received)
            if name == "broken":
                with pytest.raises(Crash):
                    traced(world, folder, progress=crash)
            records.append(traced(world, folder))
            asked = asked_after(server, probes)
            assert len({json.dumps(one) for one in asked}) == len(asked) == 16
    assert records[0].log10_evalue == records[1].log10_evalue
    one, two = evidence(tmp_path / "whole"), evidence(tmp_path / "broken")
    assert np.array_equal(one.said, two.said) and np.array_equal(one.contexts, two.contexts)


def test_a_cut_that_is_refused_says_nothing_and_is_not_asked_later(
    world: World, suspects: dict[str, Any], tmp_path: Path
) -> None:
    seen: list[Any] = []
    bad: list[Any] = []

    def refuse(body: dict[str, Any]) -> Fault | None:
        if isinstance(body["prompt"], list) and "return_token_ids" in body:
            seen.append(body["prompt"])
        return Fault("status", 400) if body["prompt"] in bad else None

    with Server(*suspects["student"], faults=refuse) as server:
        plan = planned(world, server, tmp_path, target_log10=1000.0, budgets=Budgets(requests=8))
        text = json.loads((world.folder / "served.jsonl").read_text().splitlines()[asked_at(plan)[3][0]])
        bad.append([*text["prompt_token_ids"], *text["token_ids"]][: asked_at(plan)[3][1]])
        first = traced(world, tmp_path)
        bad.clear()
        again = traced(world, tmp_path, budgets=Budgets(requests=8))
    rows = evidence(tmp_path)
    assert (rows.said[rows.steps == 4] == -1).all() and first.counts.silent >= 1
    assert again.log10_evalue == first.log10_evalue
    assert np.unique(rows.steps).tolist() == list(range(1, 9))


def test_a_whole_answer_that_is_refused_stays_in_with_the_least_it_can_be(
    world: World, suspects: dict[str, Any], tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"ask": "prompt-logprobs", "target_log10": 1000.0, "budgets": Budgets(requests=4)}
    with Server(*suspects["student"]) as server:
        plan = planned(world, server, tmp_path / "all", **fields)
        whole = traced(world, tmp_path / "all")
    text = json.loads((world.folder / "served.jsonl").read_text().splitlines()[plan.cuts[0][0] + 1])
    second = [*text["prompt_token_ids"], *text["token_ids"]]
    with Server(
        *suspects["student"], faults=lambda body: Fault("status", 400) if body["prompt"] == second else None
    ) as server:
        planned(world, server, tmp_path / "one", **fields)
        lacking = traced(world, tmp_path / "one")
    rows = evidence(tmp_path / "one")
    gone = rows.documents == plan.cuts[0][0] + 1
    assert gone.sum() > 5 and np.isnan(rows.shares[gone]).all() and not np.isnan(rows.shares[~gone]).all()
    assert lacking.log10_evalue < whole.log10_evalue


def test_replies_from_before_the_plan_allow_no_verdict(world: World, suspect: Server, tmp_path: Path) -> None:
    planned(world, suspect, tmp_path, budgets=Budgets(requests=3))
    traced(world, tmp_path)
    (tmp_path / "plan.json").unlink()
    chances_path(tmp_path / "plan.json").unlink()
    planned(world, suspect, tmp_path, per_answer=2)
    found = traced(world, tmp_path)
    assert found.refused is not None and "before this plan was made" in found.refused and not found.found


def rewritten(folder: Path, **fields: Any) -> None:
    """The plan as somebody might edit it."""
    path = folder / "plan.json"
    made = msgspec.structs.replace(load_plan(path), **fields)
    path.write_bytes(canonical_plan(made))


def test_a_plan_of_something_else_is_refused_before_anything_is_asked(
    world: World, suspect: Server, tmp_path: Path
) -> None:
    plan = planned(world, suspect, tmp_path)
    probes = len(suspect.received)
    with pytest.raises(DyetraceError, match="other answers"):
        other = tmp_path / "other.jsonl"
        other.write_bytes(b"".join((world.folder / "served.jsonl").read_bytes().splitlines(keepends=True)[:-1]))
        traced(world, tmp_path, read=other)
    with pytest.raises(DyetraceError, match="other accounts"):
        traced(world, tmp_path, KeyRing.from_master(KEY, 0, ("acme",)))
    with pytest.raises(DyetraceError, match="key"):
        traced(world, tmp_path, KeyRing.from_master(SecretKey(bytes(32)), 0, ("acme", "bolt")))
    for cuts in (plan.cuts[1:], plan.cuts[:-1], [*plan.cuts[:-1], (plan.cuts[-1][0], plan.cuts[-1][1] + 1)]):
        rewritten(tmp_path, cuts=cuts)
        with pytest.raises(DyetraceError, match="plan"):
            traced(world, tmp_path)
    rewritten(tmp_path, cuts=plan.cuts, arguments={})
    with pytest.raises(DyetraceError, match="argument"):
        traced(world, tmp_path)
    assert len(suspect.received) == probes and not (tmp_path / "out" / LEDGER_FILE).exists()


def test_a_dry_run_says_what_it_takes_and_asks_nothing(world: World, suspect: Server, tmp_path: Path) -> None:
    plan = planned(world, suspect, tmp_path, budgets=Budgets(requests=3))
    probes = len(suspect.received)
    read = str(world.folder / "served.jsonl")
    before = dry_run(tmp_path / "plan.json", read, world.spec, RING, world.tokenizer, tmp_path / "out")
    assert (before.requests, before.cached, before.within_budget) == (len(asked_at(plan)), 0, False)
    assert len(suspect.received) == probes
    whole, tenth = before.forecasts
    assert (whole.used, tenth.used) == (1.0, 0.1) and whole.requests is not None and whole.tokens is not None
    assert 2 < whole.requests < before.requests and whole.tokens > 2 * whole.requests
    assert tenth.requests is None or tenth.requests > whole.requests
    traced(world, tmp_path)
    after = dry_run(tmp_path / "plan.json", read, world.spec, RING, world.tokenizer, tmp_path / "out")
    assert after.cached == 3 == after.spent_requests and after.requests == len(asked_at(plan)) - 3


def test_what_is_there_is_not_written_over_and_nothing_is_asked(world: World, suspect: Server, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("mine")
    with pytest.raises(DyetraceError, match="exists already"):
        planned(world, suspect, tmp_path)
    assert (tmp_path / "plan.json").read_text() == "mine" and not suspect.received
