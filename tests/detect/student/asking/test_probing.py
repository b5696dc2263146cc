"""What an endpoint offers is tried once each; passing trouble is waited for, and what is refused is a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

import pytest

from benchmarks.distillation.server import Fault, Server
from detect.student.asking.credentials import ApiKey
from detect.student.asking.forms import question_of
from detect.student.asking.probing import Prober, Trial
from tests.detect.student.asking.planned import QUICK
from watermark.errors import DyetraceError, MachineError

Serve = Callable[..., Server]
CHAT = [{"role": "user", "content": "Count from one to ten."}]


def trial(name: str, *tokens: int, problem: Callable[[Sequence[bytes]], str | None] = lambda _: None) -> Trial:
    return Trial(name, [question_of(CHAT, "last", "", count) for count in tokens], problem)


def tried(url: str, *trials: Trial, key: ApiKey | None = None, model: str = "student") -> tuple[list[bool], list[str]]:
    async def run() -> tuple[list[bool], list[str]]:
        async with Prober(url, model, key, QUICK, tokens=512) as prober:
            return [await prober.offers(one) for one in trials], prober.probed

    return asyncio.run(run())


def test_each_question_is_sent_once_and_each_trial_noted(serve: Serve) -> None:
    server = serve()
    found, noted = tried(server.url, trial("one", 2), trial("both", 2, 3), trial("none", 2, problem=lambda _: "no"))
    assert found == [True, True, False] and noted == ["one: yes", "both: yes", "none: no"]
    assert len(server.received) == 2


def test_a_trial_sees_the_bodies_of_its_replies(serve: Serve) -> None:
    seen: list[int] = []

    def look(replies: Sequence[bytes]) -> None:
        seen.extend(len(json.loads(reply)["choices"]) for reply in replies)

    tried(serve().url, trial("both", 2, 3, problem=look))
    assert seen == [1, 1]


def test_what_is_refused_is_a_reason_in_one_line(serve: Serve) -> None:
    _, (noted,) = tried(serve().url, trial("it", 2), model="nobody")
    assert noted.startswith("it: status 400 ") and "does not exist" in noted and "\n" not in noted


def test_passing_trouble_is_waited_for_and_lasting_trouble_is_the_machines(serve: Serve) -> None:
    passing = serve(faults=[Fault("status", 429), Fault("drop"), Fault("status", 503)])
    assert tried(passing.url, trial("it", 2))[0] == [True] and len(passing.received) == 4
    with pytest.raises(MachineError, match="does not answer"):
        tried(serve(faults=lambda _: Fault("status", 429)).url, trial("it", 2))


def test_a_server_that_falls_over_a_question_does_not_offer_it(serve: Serve) -> None:
    found, (noted,) = tried(serve(faults=lambda _: Fault("status", 500)).url, trial("it", 2))
    assert found == [False] and "status 500" in noted


def test_a_refused_key_ends_it_without_showing_the_key(serve: Serve) -> None:
    secret = "sk-wrong-0123456789abcdef"
    with pytest.raises(DyetraceError, match="check the API key") as caught:
        tried(serve(api_key="right").url, trial("it", 2), key=ApiKey(secret))
    assert secret not in str(caught.value)
