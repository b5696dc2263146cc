"""Asking a real endpoint that misbehaves: nothing is lost, paid for twice, or sent when it must not be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Fault, Server
from detect.student.asking.account import Account, estimate
from detect.student.asking.answers import SuspectAnswer
from detect.student.asking.asking import ask_all
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import Ledger, verify_chain
from detect.student.asking.plan import TracePlan
from tests.detect.student.asking.planned import QUICK, asked, plan
from watermark.errors import DyetraceError

Serve = Callable[..., Server]

BUSY = Fault("status", 500)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def run(made: TracePlan, path: Path, **options: Any) -> tuple[list[list[SuspectAnswer]], Account]:
    with Ledger(path) as ledger, ask_all(made, ledger, **{"settings": QUICK, **options}) as asking:
        return list(asking), asking.account


def outcomes(path: Path) -> Counter[str]:
    with Ledger(path, write=False) as ledger:
        return Counter(entry.kind for entry in ledger.entries())


def held_from(prompt: int) -> Callable[[dict[str, Any]], Fault | None]:
    """Hold requests for this prompt and later ones."""
    return lambda body: Fault("held") if int(asked(body).rstrip(".").split()[-1]) >= prompt else None


# --------------------------------------------------------------------------------------- order, and what is kept


def test_answers_come_in_the_plans_order_whatever_comes_back_first(serve: Serve, path: Path) -> None:
    server = serve(faults=[None, Fault("held", until=4), None, None, Fault("held", until=8)])
    made = plan(server.url, 12, samples=2)
    found, account = run(made, path)
    assert [(a.prompt, a.sample) for answers in found for a in answers] == [(p, s) for p in range(12) for s in (0, 1)]
    assert (account.answers, account.stopped) == (24, "plan finished")
    assert max(request.beside for request in server.received) > 0


def test_what_is_on_record_is_not_asked_again(serve: Serve, path: Path) -> None:
    server = serve()
    made = plan(server.url, 6, samples=4, per_request=2)
    first, _ = run(made, path)
    assert len(server.received) == 12
    again, account = run(made, path)
    assert len(server.received) == 12 and again == first and account.cached == 12
    with Ledger(path, write=False) as ledger:
        left = estimate(made, ledger)
    assert (left.requests, left.cached, left.spent_requests) == (0, 12, 12)


def test_a_server_that_ignores_n_is_asked_for_each_sample(serve: Serve, path: Path) -> None:
    server = serve(knows_n=False)
    found, _ = run(plan(server.url, 3, samples=4, per_request=4), path)
    assert [[a.sample for a in answers] for answers in found] == [[0, 1, 2, 3]] * 3
    assert len(server.received) == 12


def test_closing_early_keeps_what_is_under_way(serve: Serve, path: Path) -> None:
    server = serve(faults=held_from(4))
    made = plan(server.url, 30)

    def progress(account: Account) -> None:
        if account.stopped == "closed":
            server.release()

    with Ledger(path) as ledger:
        with ask_all(made, ledger, settings=replace(QUICK, grace=60.0), progress=progress) as asking:
            early = [next(asking) for _ in range(4)]
            server.wait_for(5)
        assert asking.account.stopped == "closed"
    sent = len(server.received)
    assert sent < 30 and outcomes(path) == {"plan": 1, "asked": sent, "answered": sent}
    found, _ = run(made, path)
    assert found[:4] == early and len(server.received) == 30


CRASHING = """
import sys
from pathlib import Path
from detect.student.asking.asking import ask_all
from detect.student.asking.ledger import Ledger
from tests.detect.student.asking.planned import QUICK, plan
for answers in ask_all(plan(sys.argv[1], 80), Ledger(Path(sys.argv[2])), settings=QUICK):
    print(len(answers), flush=True)
"""


def test_a_killed_trace_goes_on_without_asking_twice(serve: Serve, path: Path) -> None:
    """A request whose answer had not come when the process died is asked again, and counts as spent."""
    server = serve(faults=held_from(40))
    root = Path(__file__).parents[4]
    child = subprocess.Popen(
        [sys.executable, "-c", CRASHING, server.url, str(path)], stdout=subprocess.PIPE, cwd=root, text=True
    )
    with child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(20)] == ["1\n"] * 20
        os.kill(child.pid, signal.SIGKILL)
    before = outcomes(path)
    assert verify_chain(path).entries == before.total()
    assert 20 <= before["answered"] <= 40
    server.release()
    server.wait_until_idle()
    sent = len(server.received)
    found, account = run(plan(server.url, 80), path)
    assert [len(answers) for answers in found] == [1] * 80
    assert account.cached == before["answered"]
    assert len(server.received) - sent == 80 - before["answered"]
    assert account.requests == before["asked"] + 80 - before["answered"]
    repeated = [words for words, times in Counter(asked(r.body) for r in server.received).items() if times > 1]
    assert len(repeated) <= before["asked"] - before["answered"]
    assert verify_chain(path).entries == outcomes(path).total()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises here, also where tests run in a background job, whose shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_trace_can_be_resumed(serve: Serve, path: Path) -> None:
    server = serve(faults=[None] * 20 + [Fault("held")] * 40)
    made = plan(server.url, 60)
    with Ledger(path) as ledger:
        asking = ask_all(made, ledger, settings=replace(QUICK, most=8, grace=60.0))
        threading.Thread(target=_interrupt_at, args=(server, 21)).start()
        with pytest.raises(KeyboardInterrupt):
            list(asking)
    sent = len(server.received)
    assert 21 <= sent < 60 and outcomes(path) == {"plan": 1, "asked": sent, "answered": sent}
    assert [len(answers) for answers in run(made, path)[0]] == [1] * 60
    assert len(server.received) == 60


def _interrupt_at(server: Server, requests: int) -> None:
    server.wait_for(requests)
    os.kill(os.getpid(), signal.SIGINT)
    server.release()


# ---------------------------------------------------------------------------------------------- pace and budgets


@pytest.mark.parametrize("dated", [False, True])
def test_nobody_asks_before_the_time_that_was_asked_for(serve: Serve, path: Path, dated: bool) -> None:
    """Three that are under way beside the one that is refused are answered once the refusal was heard."""
    date = int(time.time()) + 3
    headers = {"Retry-After": formatdate(date, usegmt=True) if dated else "1"}
    server = serve(faults=[None] * 8 + [Fault("status", 429, headers, until=12)] + [Fault("held")] * 3)
    settings = replace(QUICK, most=4)
    found, account = run(plan(server.url, 30), path, settings=settings, tell=lambda _: server.release())
    assert all(len(answers) == 1 for answers in found) and account.retries == 1
    first = date - time.time() + time.monotonic() - 0.1 if dated else server.received[8].time + 1
    assert all(request.time >= first for request in server.received[12:])


def test_refusals_bring_the_number_of_requests_down(serve: Serve, path: Path) -> None:
    """Eight were answered together, and one of the next eight is refused."""
    limits: list[int] = []
    together = Fault("held", until=9)
    server = serve(faults=[None] + [together] * 8 + [Fault("status", 429, until=17)])
    made = plan(server.url, 101)
    with Ledger(path) as ledger:
        asking = ask_all(
            made,
            ledger,
            settings=replace(QUICK, start=8, most=8),
            tell=lambda _: limits.append(asking.account.limit),
        )
        with asking:
            found = list(asking)
    assert all(len(answers) == 1 for answers in found) and asking.account.retries == 1
    assert limits[0] == 4 and asking.account.limit <= 8


@pytest.mark.parametrize("faults", [[], [None] + [BUSY, None, None] * 20])
def test_requests_never_exceed_the_budget(serve: Serve, path: Path, faults: list[Fault | None]) -> None:
    server = serve(faults=faults)
    made = plan(server.url, 60, budgets=Budgets(requests=23))
    _, account = run(made, path)
    assert len(server.received) == account.requests == 23 and account.stopped == "budget spent"
    run(made, path)
    assert len(server.received) == 23


@pytest.mark.parametrize("says_usage", [True, False])
def test_tokens_never_exceed_the_budget(serve: Serve, path: Path, says_usage: bool) -> None:
    server = serve(says_usage=says_usage)
    made = plan(server.url, 60, budgets=Budgets(tokens=700))
    found, account = run(made, path)
    assert account.stopped == "budget spent" and 400 < account.tokens <= 700
    assert 0 < len(found) == len(server.received)
    if says_usage:
        assert account.tokens == account.prompt_tokens + account.completion_tokens
    # The rest can be had with a larger budget, and what was paid for is kept.
    rest, _ = run(plan(server.url, 60), path)
    assert len(rest) == len(server.received) == 60


# ---------------------------------------------------------------------------------------------------- secrets


def test_the_api_key_is_nowhere(serve: Serve, path: Path) -> None:
    """Not in the ledger, its log, answers or errors, even where the endpoint quotes it."""
    secret = "sk-0123456789abcdef/XYZ"
    quoted = json.dumps({"error": {"message": f"odd key {secret}"}}).encode()
    server = serve(api_key=secret, faults=[None, Fault("status", 500, {"x-request-id": secret}, quoted)])
    with Ledger(path) as ledger, ask_all(plan(server.url), ledger, key=ApiKey(secret), settings=QUICK) as asking:
        found = list(asking)
        while_open = [file.read_bytes() for file in path.parent.iterdir()]
    assert len(while_open) >= 3 and all(len(answers) == 1 for answers in found)
    for data in [*while_open, *(file.read_bytes() for file in path.parent.iterdir())]:
        assert b"0123456789abcdef" not in data
    with Ledger(path, write=False) as ledger:
        entries = list(ledger.entries())
    assert any(b"odd key [redacted]" in entry.payload for entry in entries)
    assert "0123456789abcdef" not in repr(entries) + repr(found) + repr(asking.account)


def test_a_refused_key_ends_it_after_one_request_without_a_word_of_the_key(serve: Serve, path: Path) -> None:
    server = serve(api_key="sk-the-right-one-000", faults=[])
    with pytest.raises(DyetraceError) as caught:
        run(plan(server.url), path, key=ApiKey("sk-0123456789abcdef"))
    assert "status 401" in str(caught.value) and "0123456789abcdef" not in str(caught.value)
    assert outcomes(path) == {"plan": 1, "asked": 1, "failed": 1}


# --------------------------------------------------------------------------------------------- broken endpoints


def test_lost_connections_are_tried_again(serve: Serve, path: Path) -> None:
    server = serve(faults=[None, Fault("drop"), Fault("late drop"), BUSY])
    found, account = run(plan(server.url), path)
    assert all(len(answers) == 1 for answers in found) and account.retries == 3


def test_broken_answers_are_counted_and_skipped(serve: Serve, path: Path) -> None:
    bodies = [b"", b"\xff\xfe", b"[" * 100_000, b'{"choices": []}', b"\x1b[2J", b"x" * 1_000_000]
    server = serve(faults=[None, *(Fault("status", 200, body=body) for body in bodies)])
    made = plan(server.url, 20)
    found, account = run(made, path)
    assert len(found) == 20 and account.answers == 14
    assert account.unusable.total() == 6 and account.unusable["not JSON"] == 4
    assert any("more than" in reason for reason in account.unusable)
    assert run(made, path)[0] == found and len(server.received) == 20  # they were paid for as well
    verify_chain(path)


def test_an_endpoint_that_stays_broken_ends_it_in_one_line_and_loses_nothing(serve: Serve, path: Path) -> None:
    server = serve(faults=[None] * 5 + [Fault("status", 503, body=b"<b>\x1b[31mdown</b>\n")] * 200)
    with pytest.raises(DyetraceError) as caught:
        run(plan(server.url, 30), path)
    assert "status 503" in str(caught.value) and str(caught.value).isprintable()
    assert outcomes(path)["answered"] == 5
    server.faults.clear()
    assert [len(answers) for answers in run(plan(server.url, 30), path)[0]] == [1] * 30


def test_nobody_there_is_said_at_once(path: Path) -> None:
    with pytest.raises(DyetraceError, match=r"cannot reach 127\.0\.0\.1:9 "):
        run(plan("http://127.0.0.1:9/v1"), path)


def test_a_server_without_logprobs_is_noticed_at_its_first_answer(serve: Serve, path: Path) -> None:
    plain = json.dumps({"choices": [{"index": 0, "message": {"content": "Hi"}}]}).encode()
    server = serve(faults=[Fault("status", 200, body=plain)] * 50)
    with pytest.raises(DyetraceError, match="sends no logprobs"):
        run(plan(server.url, evidence="logprobs"), path)


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_logprobs_arrive_with_the_bytes_of_the_text(serve: Serve, path: Path, endpoint: str) -> None:
    found, account = run(plan(serve().url, evidence="logprobs", endpoint=endpoint), path)
    answers = [answer for row in found for answer in row]
    assert len(answers) == 6 and account.without_logprobs == 0
    for answer in answers:
        assert answer.tokens is not None and 1 <= len(answer.tokens) <= 4
        assert all(len(position.top) == 20 for position in answer.tokens)
        if not answer.text.count("\ufffd"):
            assert answer.has_logprobs
