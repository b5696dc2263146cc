"""What may become of a request at a real server, one kind of trouble at a time."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Fault, Server
from detect.student.asking.account import Account, ClientSettings, estimate
from detect.student.asking.answers import SuspectAnswer
from detect.student.asking.asking import ask_all
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import Ledger, verify_chain
from detect.student.asking.plan import SamplingPlan, TracePlan, plan_sha256
from tests.detect.student.asking.conftest import TimeOuts
from tests.detect.student.asking.planned import QUICK, asked, plan
from watermark.errors import DyetraceError

Serve = Callable[..., Server]

ONE_BY_ONE = ClientSettings(timeout=20.0, first_backoff=0.01, attempts=4, grace=2.0, most=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def run(made: TracePlan, path: Path, **options: Any) -> tuple[list[list[SuspectAnswer]], Account]:
    """Ask everything."""
    with Ledger(path) as ledger, ask_all(made, ledger, **{"settings": QUICK, **options}) as asking:
        return list(asking), asking.account


def only_for(number: int, fault: Fault) -> Callable[[dict[str, Any]], Fault | None]:
    """The fault at every request for one prompt."""
    return lambda body: fault if asked(body).endswith(f" {number}.") else None


def refusal(made: TracePlan, path: Path, **options: Any) -> str:
    with pytest.raises(DyetraceError) as caught:
        run(made, path, **options)
    assert "\n" not in str(caught.value)
    verify_chain(path)
    return str(caught.value)


def texts(found: list[list[SuspectAnswer]]) -> list[list[str]]:
    return [[answer.text for answer in answers] for answers in found]


# ------------------------------------------------------------------------------------------- order and resuming


def test_every_answer_names_its_entry(serve: Serve, path: Path) -> None:
    found, _ = run(plan(serve().url, prompts=3), path)
    with Ledger(path) as ledger:
        entries = {entry.number: entry for entry in ledger.entries()}
    for (answer,) in found:
        entry = entries[answer.entry]
        assert entry.kind == "answered"
        assert json.loads(entry.payload)["choices"][0]["message"]["content"] == answer.text
        assert asked(json.loads(entries[entry.asked or 0].payload)) == f"Tell me about lighthouse {answer.prompt}."


@pytest.mark.parametrize("per_request", [1, 3, 8])
def test_servers_that_know_no_n_are_asked_again_until_all_samples_are_there(
    serve: Serve, path: Path, per_request: int
) -> None:
    server = serve(knows_n=False)
    made = plan(server.url, prompts=2, samples=8, per_request=per_request)
    found, account = run(made, path)
    assert [[a.sample for a in answers] for answers in found] == [list(range(8))] * 2
    assert account.requests == 16
    assert texts(run(made, path)[0]) == texts(found) and len(server.received) == 16


def test_closing_without_grace_gives_requests_up_and_counts_them_as_spent(serve: Serve, path: Path) -> None:
    server = serve(faults=[None, Fault("held"), Fault("held")])
    made = plan(server.url)
    with Ledger(path) as ledger:
        with ask_all(made, ledger, settings=ClientSettings(grace=0.0, start=2)) as asking:
            next(asking)
            server.wait_for(3)
        entries = list(ledger.entries())
        given_up = [entry for entry in entries if entry.kind == "failed"]
        assert len(given_up) == 2 and all("given up" in entry.meta["reason"] for entry in given_up)
        answered = [entry for entry in entries if entry.kind == "answered"]
        assert ledger.spent(plan_sha256(made)).tokens == sum(entry.tokens for entry in [*answered, *given_up])
        assert all(entry.tokens >= 4 for entry in given_up)
    verify_chain(path)


def test_progress_is_told_in_the_callers_thread_while_waiting_too(serve: Serve, path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    threads = set()

    def progress(account: Account) -> None:
        told.append((account.prompts, account.in_flight, account.requests))
        threads.add(threading.get_ident())
        if told.count((0, 1, 1)) == 2:
            server.release()

    server = serve(faults=[Fault("held")])
    run(plan(server.url, prompts=3), path, progress=progress)
    assert threads == {threading.get_ident()}
    assert told[-1] == (3, 0, 3)
    assert told.count((0, 1, 1)) >= 2


# ----------------------------------------------------------------------------------------------- refusals


def test_waits_that_are_too_long_end_the_trace_with_what_it_has(serve: Serve, path: Path) -> None:
    made = plan(serve(faults=[None, Fault("status", 429, {"Retry-After": "7200"})]).url)
    assert "asks to wait 7,200 s" in refusal(made, path, settings=ONE_BY_ONE)
    with Ledger(path) as ledger:
        assert sum(entry.kind == "answered" for entry in ledger.entries()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 500),
        Fault("status", 503, body=b""),
        Fault("status", 429),
        Fault("drop"),
        Fault("late drop"),
        Fault("status", 200, body=b'{"error": {"message": "overloaded", "code": 502}}'),
    ],
    ids=["500", "503", "429", "drop", "late drop", "200 with an error"],
)
def test_trouble_that_passes_is_overcome(serve: Serve, path: Path, fault: Fault) -> None:
    server = serve(faults=[None, fault, fault, None, fault])
    found, account = run(plan(server.url), path)
    assert len(found) == 6 and all(found)
    assert (account.retries, account.requests) == (3, 9)
    chain = verify_chain(path)
    with Ledger(path) as ledger:
        kinds = Counter(entry.kind for entry in ledger.entries())
    assert kinds == {"plan": 1, "asked": 9, "answered": 6, "failed": 3} and chain.entries == 19


def test_one_prompt_that_always_fails_is_left_out_and_counted(serve: Serve, path: Path) -> None:
    server = serve(faults=only_for(1, Fault("status", 500)))
    found, account = run(plan(server.url), path)
    assert [len(answers) for answers in found] == [1, 0, 1, 1, 1, 1]
    assert account.unusable == {"no answer to be had": 1} and account.requests == 5 + QUICK.attempts


def test_in_order_each_request_is_settled_before_the_next_one_is_sent(serve: Serve, path: Path) -> None:
    """A request that fails is tried again before any later one shows what it asked about."""
    faults = [None, None, Fault("status", 503), Fault("drop"), None, Fault("status", 429)]
    server = serve(faults=faults)
    with Ledger(path) as ledger, ask_all(plan(server.url), ledger, settings=replace(QUICK, in_order=True)) as asking:
        assert len(list(asking)) == 6
    shown = [asked(received.body) for received in server.received]
    kinds: list[str] = []
    verify_chain(path, lambda entry: kinds.append(entry.kind))
    assert kinds[0] == "plan" and set(kinds[1::2]) == {"asked"} and set(kinds[2::2]) == {"answered", "failed"}
    assert shown == sorted(shown)
    assert [shown.count(one) for one in dict.fromkeys(shown)] == [1, 1, 3, 2, 1, 1]


def test_a_prompt_that_is_refused_is_left_out_without_trying_again(serve: Serve, path: Path) -> None:
    refused = Fault("status", 400, body=b'{"error": {"message": "too long"}}')
    server = serve(faults=only_for(1, refused))
    found, account = run(plan(server.url), path)
    assert [len(answers) for answers in found] == [1, 0, 1, 1, 1, 1] and account.requests == 6
    again, account = run(plan(server.url), path)  # and it does not keep a trace from ending that goes on
    assert texts(again) == texts(found) and account.requests == 7


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("status", 404, body=b'{"error": {"message": "no such model"}}'), "no such model; check the address"),
        (Fault("status", 401), "check the API key"),
        (Fault("status", 400, body=b'{"error": "unknown field top_p"}'), "unknown field top_p; check the plan's"),
        (Fault("status", 302, {"Location": "http://elsewhere/"}), "a redirect, which is not followed"),
        (Fault("status", 429, body=b'{"error": {"code": "insufficient_quota"}}'), "insufficient_quota"),
        (Fault("status", 404, body=b"\x1b[2J\xff\x07<h1>gone"), "gone"),
    ],
    ids=lambda value: value.status if isinstance(value, Fault) else "",
)
def test_hopeless_refusals_end_the_trace_at_once(serve: Serve, path: Path, fault: Fault, words: str) -> None:
    server = serve(faults=[fault] * 9)
    message = refusal(plan(server.url), path)
    assert words in message and "refuses" in message and message.isprintable()
    assert len(server.received) == 1  # the first request goes alone


def test_a_request_that_takes_too_long_is_given_up_and_counted(serve: Serve, path: Path, time_outs: TimeOuts) -> None:
    faults = [None, Fault("held")]

    def next_fault(_: dict[str, Any]) -> Fault | None:
        fault = faults.pop(0) if faults else None
        if fault is not None:
            time_outs.end()
        return fault

    found, account = run(plan(serve(faults=next_fault).url, prompts=2), path, settings=ONE_BY_ONE)
    assert len(found) == 2 and all(found) and account.retries == 1
    with Ledger(path) as ledger:
        (failed,) = [entry for entry in ledger.entries() if entry.kind == "failed"]
    assert failed.meta["reason"] == "no answer within 20 s" and failed.tokens > 4


# ------------------------------------------------------------------------------------------------ budgets and pace


def test_every_list_stands_at_its_prompts_place_when_the_budget_ends_too(serve: Serve, path: Path) -> None:
    """The callers count: a prompt that was lost in between leaves an empty list, and the same on resuming."""
    server = serve(faults=only_for(2, Fault("status", 503)))
    made = plan(server.url, prompts=40, budgets=Budgets(requests=12))
    for _ in range(2):
        found, account = run(made, path)
        assert account.stopped == "budget spent" and len(server.received) == account.requests == 12
        assert found[2] == [] and found[-1] != [] and len(found) < 40
        assert all(answer.prompt == place for place, answers in enumerate(found) for answer in answers)
        assert sum(map(len, found)) == account.answers >= 7


def test_a_run_may_be_given_less_than_the_plan(serve: Serve, path: Path) -> None:
    server = serve()
    made = plan(server.url, budgets=Budgets(requests=100))
    assert len(run(made, path, budgets=Budgets(requests=2))[0]) == 2
    assert len(run(made, path)[0]) == len(server.received) == 6


def test_a_dry_run_says_what_is_left_to_pay(serve: Serve, path: Path) -> None:
    made = plan("http://127.0.0.1:9/v1", prompts=4, samples=3, per_request=2)
    ahead = estimate(made)
    assert (ahead.requests, ahead.cached, ahead.completion_tokens) == (8, 0, 48)
    assert ahead.most_tokens == 2 * 4 * 43 + 48 and ahead.within_budget
    assert not estimate(made, None, Budgets(requests=7)).within_budget
    assert not estimate(plan(budgets=Budgets(tokens=99))).within_budget
    server = serve()
    made = plan(server.url, prompts=10)
    run(made, path, budgets=Budgets(requests=4))
    with Ledger(path) as ledger:
        left = estimate(made, ledger)
        used = [json.loads(e.payload)["usage"]["prompt_tokens"] for e in ledger.entries() if e.kind == "answered"]
    assert (left.requests, left.cached, left.spent_requests) == (6, 4, 4)
    assert left.prompt_tokens == pytest.approx(6 * sum(used) / 4, abs=2)
    assert len(server.received) == 4


# ---------------------------------------------------------------------------------------- untrusted answers, secrets


@pytest.mark.parametrize(
    ("body", "headers", "why"),
    [
        (b"<html>", {}, "not JSON"),
        (b"\xff\xfe{", {}, "not JSON"),
        (b"[" * 50_000, {}, "not JSON"),
        (b'{"choices": []}', {}, "no choices"),
        (b'{"choices": [{"message": {"content": null}}]}', {}, "no text"),
        (b"x" * 400_000, {}, "a body of more than 263,168 bytes"),
        (
            gzip.compress(b"x" * 10**7, mtime=0),
            {"Content-Encoding": "gzip"},
            "a compressed body, which was not asked for",
        ),
    ],
    ids=["html", "bad utf-8", "deep", "empty", "null", "huge", "bomb"],
)
def test_answers_of_no_use_are_counted_and_skipped(
    serve: Serve, path: Path, body: bytes, headers: dict[str, str], why: str
) -> None:
    server = serve(faults=only_for(1, Fault("status", 200, headers, body)))
    made = plan(server.url, prompts=4)
    found, account = run(made, path)
    assert [len(answers) for answers in found] == [1, 0, 1, 1] and account.unusable == {why: 1}
    again, account = run(made, path)
    assert texts(again) == texts(found) and account.unusable == {why: 1} and len(server.received) == 4
    assert path.stat().st_size < 300_000


def test_an_endpoint_of_no_use_at_all_is_left_early(serve: Serve, path: Path) -> None:
    server = serve(faults=[Fault("status", 200, body=b"<html>please log in</html>")] * 50)
    message = refusal(plan(server.url, prompts=50), path)
    assert "sends nothing that can be used (not JSON, 5 times)" in message
    assert len(server.received) < 15


def test_the_first_fault_ends_it_however_many_come_at_once(serve: Serve, path: Path) -> None:
    """Four answers are under way when the fifth of no use comes."""
    useless = Fault("status", 200, body=b"<html>please log in</html>", until=8)
    server = serve(faults=[replace(useless, until=None)] * 4 + [useless] * 46)
    message = refusal(plan(server.url, prompts=50), path, settings=replace(QUICK, most=4))
    assert "(not JSON, 5 times)" in message and len(server.received) == 8


def test_missing_logprobs_are_noticed_at_the_first_answer(serve: Serve, path: Path) -> None:
    bare = b'{"choices": [{"index": 0, "message": {"content": "Hello"}}]}'
    server = serve(faults=[Fault("status", 200, body=bare)] * 9)
    assert "sends no logprobs" in refusal(plan(server.url, evidence="logprobs"), path)
    assert len(server.received) == 1
    server.faults.clear()
    server.faults.extend([None, Fault("status", 200, body=bare)])
    path.unlink()
    _, account = run(plan(server.url, evidence="logprobs"), path)
    assert account.without_logprobs == 1 and account.answers == 6


def test_repeated_answers_are_counted(serve: Serve, path: Path) -> None:
    same = b'{"choices": [{"index": 0, "message": {"content": "Hello"}}]}'
    _, account = run(plan(serve(faults=[Fault("status", 200, body=same)] * 8).url, prompts=2, samples=4), path)
    assert account.repeated == 6


SECRET = "sk-test-0123456789abcdef/xyz"


def files(folder: Path) -> Iterator[bytes]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.read_bytes()


def test_the_api_key_is_sent_and_stands_nowhere(
    serve: Serve, path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even where the endpoint quotes it in answers, headers and errors."""
    echo = json.dumps({"choices": [{"index": 0, "message": {"content": f"Your key is {SECRET}."}}]}).encode()
    quoted = json.dumps({"error": {"message": f"bad {SECRET}"}}).replace("/", "\\/").encode()
    leaks = [
        None,
        Fault("status", 200, {"X-Request-Id": SECRET}, echo),
        Fault("status", 500, {"Server": SECRET}, quoted),
    ]
    server = serve(api_key=SECRET, faults=leaks)
    with caplog.at_level("DEBUG"):
        found, account = run(plan(server.url), path, key=ApiKey(SECRET), settings=ONE_BY_ONE)
    assert len(found) == 6 and all(found) and account.retries == 1
    assert found[1][0].text == "Your key is [redacted]."
    assert not any(SECRET.encode() in data or SECRET[:20].encode() in data for data in files(path.parent))
    with Ledger(path) as ledger:
        for entry in ledger.entries():
            assert SECRET[:20] not in repr(entry)
    output = capfd.readouterr()
    assert SECRET[:20] not in caplog.text + output.out + output.err + repr(account)
    assert "api_key" not in repr(server.received[0].body)
    with pytest.raises(DyetraceError) as caught:
        run(plan(server.url), path.with_name("other"), key=ApiKey("sk-wrong-0123456789"))
    assert "status 401" in str(caught.value) and "0123456789" not in str(caught.value)


def test_a_plan_that_holds_the_key_is_refused_before_it_is_recorded(path: Path) -> None:
    made = plan(sampling=SamplingPlan(extra={"user": SECRET}))
    with pytest.raises(DyetraceError, match="holds the API key"):
        run(made, path, key=ApiKey(SECRET))
    assert not any(SECRET.encode() in data for data in files(path.parent))
    assert verify_chain(path).entries == 0


def test_the_plan_is_on_record_before_anything_is_sent(serve: Serve, path: Path) -> None:
    made = plan(serve().url)
    run(made, path)
    chain = verify_chain(path)
    standing = chain.plans[plan_sha256(made)]
    assert standing.number == 1 and standing.first_query is not None and standing.entered <= standing.first_query


def test_a_full_disk_ends_the_trace_in_one_line(serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is used that is not on record. SQLite's own page limit stands in for the disk's end."""
    made = plan(serve().url, prompts=200)
    with Ledger(path) as ledger:
        ledger._database.execute("PRAGMA max_page_count = 40")
        released = 0
        with pytest.raises(DyetraceError, match="cannot use ledger"), ask_all(made, ledger, settings=QUICK) as asking:
            for _ in asking:
                released += 1
        answered = sum(entry.kind == "answered" for entry in ledger.entries())
    assert 0 < released <= answered < 200
    verify_chain(path)
