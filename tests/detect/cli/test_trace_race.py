"""The race readout as people type it: of weights and of real endpoints, through kills, in one line where it fails."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from benchmarks.distillation.server import Fault, Server
from detect.cli.main import main
from detect.cli.statuses import BAD_INPUT, FOUND
from detect.race.job import RaceJob
from detect.records.race import RaceRecord
from detect.records.reading import read_record
from detect.student.asking.ledger import LEDGER_FILE
from tests.detect.cli.race_world import World, make_world, run

Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("race"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What models have read is kept for the tests of one session, and not in the user's cache."""
    monkeypatch.setenv("DYETRACE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def serve(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start servers of a suspect that end with the test."""
    monkeypatch.setattr("detect.student.asking.pace._SLACK", float("inf"))
    with ExitStack() as stack:
        yield lambda name, **options: stack.enter_context(Server(*world.model(name), **options))


def refused(*words: object) -> str:
    """The one line of a command that can't do what it was asked for."""
    result = run(*words)
    assert result.exit_code == BAD_INPUT.number and result.stdout == "", result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("dyetrace: ") and "Traceback" not in result.stderr
    return line


def of_weights(world: World, suspect: str, output: Path, *more: object) -> list[object]:
    """The words of a readout of weights."""
    read = ["--read", world.folder / "served.jsonl", "--owner-model", world.folder / "owner", "--dtype", "float32"]
    return ["trace", "weights", world.folder / suspect, *read, *world.owned, "--no-pdf", "-o", output, *more]


def planned(world: World, url: str, plan: Path, *more: object) -> list[object]:
    """The words that make a plan."""
    read = ["--read", world.folder / "served.jsonl", "--owner-model", world.folder / "owner", "--dtype", "float32"]
    return ["trace", "plan", url, "--model", "student", *read, *world.owned, "-o", plan, *more]


def of_endpoint(world: World, plan: Path, output: Path, *more: object) -> list[object]:
    """The words that ask by a plan."""
    owned = world.owned[:-2]  # the number of decoys is the plan's
    read = ["--read", world.folder / "served.jsonl"]
    return ["trace", "api", plan, *read, *owned, "--no-pdf", "-o", output, *more]


def record_of(output: Path) -> RaceRecord:
    return read_record(RaceRecord, output / "report.json")


def holds(world: World, output: Path) -> None:
    """Another party finds the same."""
    checked = run("report", "verify", output / "report.json")
    assert checked.exit_code == 0, checked.output
    anew = run("recompute", output / "report.json", "--key", f"file:{world.folder / 'owner.key'}")
    assert anew.exit_code == 0, anew.output


# Weights


def test_a_student_is_held_against_its_base_model(world: World, tmp_path: Path) -> None:
    result = run(*of_weights(world, "guilty", tmp_path / "out", "--reference", world.folder / "innocent"))
    assert result.exit_code == 0, result.stderr
    record = record_of(tmp_path / "out")
    assert record.found and record.reference is not None and record.arguments["reference"] == record.reference.name
    holds(world, tmp_path / "out")


def test_a_student_of_served_answers_is_found_and_its_report_holds(world: World, tmp_path: Path) -> None:
    result = run(*of_weights(world, "guilty", tmp_path / "out", "--taken", "all", "--fail"))
    assert result.exit_code == FOUND.number, result.stderr
    record = record_of(tmp_path / "out")
    assert record.found and record.mode == "weights" and record.log10_evalue > 10
    assert record.sampling.source == "recorded" and record.lit
    holds(world, tmp_path / "out")


def test_a_student_of_unmarked_answers_to_the_same_prompts_is_not_found(world: World, tmp_path: Path) -> None:
    result = run(*of_weights(world, "innocent", tmp_path / "out", "--fail"))
    assert result.exit_code == 0, result.stderr
    assert record_of(tmp_path / "out").log10_evalue < 2


def test_json_is_the_report_and_quiet_is_silent(world: World, tmp_path: Path) -> None:
    result = run(*of_weights(world, "guilty", tmp_path / "out", "--json", "--quiet"))
    assert result.exit_code == 0 and result.stderr == "", result.stderr
    assert result.stdout.encode() == (tmp_path / "out" / "report.json").read_bytes()


def test_an_account_is_named_by_its_own_answers(world: World, tmp_path: Path) -> None:
    words = of_weights(world, "acmes", tmp_path / "out", "--tenant", "acme", "--tenant", "zenith")
    words[words.index(world.folder / "served.jsonl")] = world.folder / "both.jsonl"
    words[words.index(world.folder / "spec.json")] = world.folder / "tenants.json"
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert record_of(tmp_path / "out").identified == ["acme"]


def test_one_accounts_answers_can_be_read_alone(world: World, tmp_path: Path) -> None:
    words = of_weights(world, "acmes", tmp_path / "out", "--tenant", "zenith", "--read-tenant", "zenith")
    words[words.index(world.folder / "served.jsonl")] = world.folder / "both.jsonl"
    words[words.index(world.folder / "spec.json")] = world.folder / "tenants.json"
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    record = record_of(tmp_path / "out")
    assert record.counts.answers == 16 and record.identified == []


def test_without_quotes_no_file_of_the_report_holds_words_of_an_answer(world: World, tmp_path: Path) -> None:
    shown = run(*of_weights(world, "guilty", tmp_path / "shown"))
    assert shown.exit_code == 0 and "--no-quotes leaves them out" in shown.stderr
    assert record_of(tmp_path / "shown").shown
    result = run(*of_weights(world, "guilty", tmp_path / "out", "--no-quotes"))
    assert result.exit_code == 0 and "--no-quotes" not in result.stderr, result.stderr
    record = record_of(tmp_path / "out")
    assert record.shown == [] and not record.quotes
    holds(world, tmp_path / "out")


def test_the_owners_own_model_is_refused_before_anything_is_read(world: World, tmp_path: Path) -> None:
    assert "same model" in refused(*of_weights(world, "owner", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--owner-temperature", "-1"], "temperature"),
        (["--owner-top-p", "2"], "top_p"),
        (["--alpha", "2"], "alpha"),
        (["--tokenizer", "nowhere"], "nowhere"),
        (["--owner-model", "nowhere"], "nowhere"),
        (["--reference", "nowhere"], "nowhere"),
        (["--reference", "x", "--reference", "y"], "--reference once"),
        (["--commitment", "nowhere.json"], "nowhere.json"),
        (["--read-tenant", "nobody"], "nobody"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line(world: World, tmp_path: Path, more: list[object], said: str) -> None:
    assert said in refused(*of_weights(world, "guilty", tmp_path / "out", *more))
    assert not (tmp_path / "out" / "report.json").exists()


def test_text_that_nobody_was_served_is_refused(world: World, tmp_path: Path) -> None:
    words = of_weights(world, "guilty", tmp_path / "out")
    words[words.index(world.folder / "served.jsonl")] = world.folder / "unmarked.jsonl"
    assert "holds no answers under this spec" in refused(*words)


# Endpoints


@pytest.mark.parametrize("ask", ["auto", "greedy", "bias", "logprobs", "echo", "prompt-logprobs"])
def test_a_guilty_endpoint_is_found_by_each_way_to_ask(world: World, serve: Serve, tmp_path: Path, ask: str) -> None:
    server = serve("guilty")
    made = run(*planned(world, server.url, tmp_path / "plan.json", "--ask", ask))
    assert made.exit_code == 0, made.stderr
    assert re.fullmatch(r"[0-9a-f]{64}\n", made.stdout) and "asking shows the suspect" in made.stderr
    probes = len(server.received)
    result = run(*of_endpoint(world, tmp_path / "plan.json", tmp_path / "out", "--fail"))
    assert result.exit_code == FOUND.number, result.stderr
    assert "evidence 10^" in result.stderr and "asking shows the suspect" in result.stderr
    record = record_of(tmp_path / "out")
    assert record.mode == "api" and record.plan is not None and record.plan.sha256 == made.stdout.strip()
    assert record.queries is not None and record.queries.requests == len(server.received) - probes
    if ask != "auto":
        assert record.ask == ask
    holds(world, tmp_path / "out")


@pytest.mark.parametrize("ask", ["greedy", "prompt-logprobs"])
def test_an_innocent_endpoint_is_not_found(world: World, serve: Serve, tmp_path: Path, ask: str) -> None:
    server = serve("innocent")
    assert run(*planned(world, server.url, tmp_path / "plan.json", "--ask", ask)).exit_code == 0
    result = run(*of_endpoint(world, tmp_path / "plan.json", tmp_path / "out", "--fail"))
    assert result.exit_code == 0, result.stderr
    record = record_of(tmp_path / "out")
    assert not record.found and record.queries is not None and record.queries.stopped == "plan finished"


@pytest.fixture
def plan(world: World, serve: Serve, tmp_path: Path) -> tuple[Server, Path]:
    """A guilty suspect, and a plan to ask it for one word at a time."""
    server = serve("guilty")
    made = run(*planned(world, server.url, tmp_path / "plan.json", "--ask", "greedy", "--quiet"))
    assert made.exit_code == 0, made.stderr
    server.received.clear()
    return server, tmp_path / "plan.json"


def test_a_plan_holds_no_key_and_no_words_of_answers(world: World, plan: tuple[Server, Path]) -> None:
    _, path = plan
    data = path.read_bytes()
    assert bytes(range(32)).hex().encode() not in data
    for answer in world.answers:
        for part in (answer["text"][:20], answer["prompt"]):
            assert json.dumps(part)[1:-1].encode() not in data


def test_a_plan_asks_the_endpoint_nothing_of_served_answers(world: World, serve: Serve, tmp_path: Path) -> None:
    server = serve("guilty")
    assert run(*planned(world, server.url, tmp_path / "plan.json")).exit_code == 0
    assert server.received
    for received in server.received:
        body = json.dumps(received.body)
        assert not any(answer["prompt"] in body for answer in world.answers)


def test_a_plan_is_never_overwritten(world: World, plan: tuple[Server, Path]) -> None:
    server, path = plan
    before = path.read_bytes()
    assert str(path) in refused(*planned(world, server.url, path, "--ask", "greedy", "--per-answer", 3))
    assert path.read_bytes() == before


def test_the_plan_that_is_printed_as_json_is_the_one_that_was_written(
    world: World, serve: Serve, tmp_path: Path
) -> None:
    result = run(*planned(world, serve("guilty").url, tmp_path / "plan.json", "--ask", "greedy", "--json"))
    assert result.exit_code == 0, result.stderr
    told, written = json.loads(result.stdout), json.loads((tmp_path / "plan.json").read_bytes())
    assert told["format"] == "dyetrace-trace-plan-race-1" and told["ask"] == "greedy"
    assert told["cuts"] == len(written["cuts"]) and told["answers"] <= told["requests"] <= told["cuts"]
    assert told["probed"] == written["probed"] != []


def test_a_dry_run_asks_nothing_and_writes_nothing(world: World, plan: tuple[Server, Path], tmp_path: Path) -> None:
    server, path = plan
    words = of_endpoint(world, path, tmp_path / "out", "--dry-run")
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    told = json.loads(run(*words, "--json").stdout)
    cost, *forecasts = result.stdout.splitlines()
    assert f"{told['requests']:,} requests to send, 0 answered already" in cost
    assert len(forecasts) == len(told["forecasts"]) == 2
    assert all(line.startswith("to 10^10, if it learnt from ") for line in forecasts)
    assert told["cuts"] == len(json.loads(path.read_bytes())["cuts"]) >= told["requests"] >= told["answers"]
    assert told["cached"] == 0 and told["within_budget"]
    assert not server.received and not (tmp_path / "out").exists()


def assert_nothing_was_asked_twice(server: Server) -> None:
    bodies = [json.dumps(received.body) for received in server.received]
    assert len(set(bodies)) == len(bodies)


def test_what_is_paid_for_is_not_asked_again(world: World, plan: tuple[Server, Path], tmp_path: Path) -> None:
    server, path = plan
    words = of_endpoint(world, path, tmp_path / "out")
    assert run(*words).exit_code == 0
    asked, report = len(server.received), record_of(tmp_path / "out")
    told = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert told["cached"] == asked == told["spent_requests"]
    assert run(*words).exit_code == 0
    assert record_of(tmp_path / "out").curve == report.curve
    assert_nothing_was_asked_twice(server)


def test_a_budget_ends_asking_and_a_larger_one_goes_on(world: World, plan: tuple[Server, Path], tmp_path: Path) -> None:
    server, path = plan
    words = of_endpoint(world, path, tmp_path / "out")
    assert run(*words, "--max-requests", 2).exit_code == 0
    first = record_of(tmp_path / "out")
    assert first.queries is not None and (first.queries.requests, first.queries.stopped) == (2, "budget spent")
    assert len(server.received) == 2 <= first.counts.asked
    assert run(*words).exit_code == 0
    assert len(server.received) > 2
    assert_nothing_was_asked_twice(server)


@pytest.mark.parametrize("ask", ["greedy", "prompt-logprobs"])
def test_a_killed_readout_goes_on_and_asks_nothing_twice(world: World, serve: Serve, tmp_path: Path, ask: str) -> None:
    seen: list[dict[str, Any]] = []

    def hold(body: dict[str, Any]) -> Fault | None:
        seen.append(body)
        return Fault("held") if len(seen) == at else None

    at = 0
    server = serve("guilty", faults=hold)
    made = run(*planned(world, server.url, tmp_path / "plan.json", "--ask", ask, "--target", "-5000"))
    assert made.exit_code == 0, made.stderr
    probes = len(seen)
    at = probes + 4
    words = of_endpoint(world, tmp_path / "plan.json", tmp_path / "out")
    child = [sys.executable, "-m", "detect.cli", *map(str, words)]
    with subprocess.Popen(child, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with server.guard:
            while len(server.received) < at and process.poll() is None:
                server.guard.wait(0.1)  # or for ever, where the command failed
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    server.release()
    assert not (tmp_path / "out" / "report.json").exists()
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    record = record_of(tmp_path / "out")
    sent = [json.dumps(body, sort_keys=True) for body in seen[probes:]]
    assert len(set(sent)) == len(sent) - 1 and sent.count(sent[3]) == 2  # the one under way is asked again
    told = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert told["cached"] == len(sent) - 1
    if ask == "prompt-logprobs":  # of which nothing is left out
        assert record.counts.asked == record.counts.cuts and told["requests"] == 0


def test_other_answers_than_the_plans_are_refused_before_anything_is_asked(
    world: World, plan: tuple[Server, Path], tmp_path: Path
) -> None:
    server, path = plan
    other = tmp_path / "other.jsonl"
    other.write_text("".join((world.folder / "served.jsonl").read_text().splitlines(keepends=True)[:-1]))
    words = of_endpoint(world, path, tmp_path / "out")
    words[words.index(world.folder / "served.jsonl")] = other
    assert "other.jsonl" in refused(*words)
    assert not server.received


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--served", "x.jsonl"], "--served has no effect: in a race readout"),
        (["--reference", "x"], "--reference has no effect: a plan of a race readout holds what its reference said"),
        (["--read", "x.jsonl"], "--read once"),
        (["--concurrency", "4"], "--concurrency has no effect: in a race readout"),
        (["--dry-run", "--fail"], "--fail has no effect"),
        (["--dry-run", "--no-quotes"], "--no-quotes has no effect"),
        (["--tenant", "acme"], "no accounts"),
    ],
)
def test_what_a_race_plan_has_no_use_for_is_refused(
    world: World, plan: tuple[Server, Path], tmp_path: Path, more: list[object], said: str
) -> None:
    server, path = plan
    assert said in refused(*of_endpoint(world, path, tmp_path / "out", *more))
    assert not server.received and not (tmp_path / "out").exists()


def test_a_race_plan_needs_its_answers(world: World, plan: tuple[Server, Path], tmp_path: Path) -> None:
    _, path = plan
    words = of_endpoint(world, path, tmp_path / "out")
    del words[words.index("--read") : words.index("--read") + 2]
    assert "give them with --read" in refused(*words)


def test_the_api_key_goes_to_the_endpoint_and_nowhere_else(
    world: World, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "sk-race-0123456789"
    monkeypatch.setenv("THEIR_KEY", secret)
    server = serve("guilty", api_key=secret)
    given = ("--api-key", "env:THEIR_KEY")
    assert "401" in run(*planned(world, server.url, tmp_path / "none.json")).stderr
    assert not (tmp_path / "none.json").exists()
    told = [run(*planned(world, server.url, tmp_path / "plan.json", "--ask", "greedy", *given))]
    told.append(run(*of_endpoint(world, tmp_path / "plan.json", tmp_path / "out", *given)))
    assert [result.exit_code for result in told] == [0, 0], told[-1].stderr
    assert not any(secret in result.output for result in told)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (tmp_path / "out" / LEDGER_FILE) in files
    for path in files:
        assert secret.encode() not in path.read_bytes() and bytes(range(32)).hex().encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("url", "said"),
    [("https://user:secret@host/v1", "holds a user"), ("http://127.0.0.1:9/v1", "127.0.0.1:9"), ("./suspect", "http")],
)
def test_an_endpoint_that_is_none_is_said_in_one_line(world: World, tmp_path: Path, url: str, said: str) -> None:
    result = run(*planned(world, url, tmp_path / "plan.json", "--attempts", 1))
    line = result.stderr.strip().splitlines()[-1]
    assert result.exit_code != 0 and said in line and "secret@" not in line
    assert not (tmp_path / "plan.json").exists()


def test_a_server_that_lacks_what_is_asked_for_is_named(world: World, serve: Serve, tmp_path: Path) -> None:
    refusal = Fault("status", 400, body=b'{"error": {"message": "no such field"}}')
    server = serve("guilty", faults=lambda body: refusal if "prompt_logprobs" in body else None)
    line = refused(*planned(world, server.url, tmp_path / "plan.json", "--ask", "prompt-logprobs"))
    assert "prompt-logprobs" in line or "prompt_logprobs" in line
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize(("command", "count"), [("weights", 6), ("plan", 8)])
def test_options_have_the_defaults_of_a_job(command: str, count: int) -> None:
    group = main.commands["trace"]
    assert isinstance(group, click.Group)
    defaults = {field.name: field.default for field in fields(RaceJob) if field.default not in (MISSING, None)}
    ours = {p.name: p.default for p in group.commands[command].params if p.name in defaults}
    assert len(ours) == count and ours == {name: defaults[name] for name in ours}


# The page


def _worked_examples() -> list[list[str]]:
    """Each block of commands in the section about them."""
    page = (Path(__file__).parents[3] / "docs" / "race.md").read_text(encoding="utf-8")
    section = page[page.index("## Commands") : page.index("## What a hit is")]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = [block.replace("\\\n", " ").splitlines() for language, block in blocks if not language]
    return [[line for line in block if line.startswith("dyetrace ")] for block in lines]


def _here(line: str, world: World, url: str) -> list[str]:
    """A command of the page with the world's files in place of the page's."""
    tenants = "--tenant" in line
    ours = {
        "./suspect": world.folder / "guilty",
        "./my-model": world.folder / "owner",
        "served.jsonl": world.folder / ("acme.jsonl" if tenants else "served.jsonl"),
        "spec.json": world.folder / ("tenants.json" if tenants else "spec.json"),
        "file:owner.key": f"file:{world.folder / 'owner.key'}",
        "https://host/v1": url,
        "their-model": "student",
    }
    words = [str(ours.get(word, word)) for word in shlex.split(line)[1:]]
    return [*words, "--tokenizer", str(world.folder / "owner")]


@pytest.mark.parametrize("block", _worked_examples(), ids=lambda block: block[0][:40])
def test_worked_examples_of_the_page_work(
    world: World, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THEIR_KEY", "sk-race")
    server = serve("guilty", api_key="sk-race")
    for line in block:
        result: Result = run(*_here(line, world, server.url))
        assert result.exit_code == 0, (line, result.output)
