"""What an endpoint offers is found out by asking it, with a question that is nobody's, and said in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Fault, Server
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.twins.asking import TwinQuestions
from detect.twins.endpoint import asked_for
from detect.twins.measures.answers import AnswerMeasure, Idf
from detect.twins.offered import offered
from tests.detect.student.asking import strict
from tests.detect.student.asking.planned import QUICK
from tests.detect.twins.made import twins
from tests.detect.twins.test_plan import plan
from tests.innocents.talkers import Talker
from watermark.errors import DyetraceError, MachineError
from watermark.models.folder import load_model

Serve = Callable[..., Server]


def refusing(*names: str) -> Callable[[dict[str, Any]], Fault | None]:
    """Requests with any of these fields."""
    return lambda body: Fault("status", 400) if set(names) & body.keys() else None


@pytest.fixture(scope="module")
def demo(smollm2_dir: Path) -> Any:
    return load_model(smollm2_dir, "float32")


def test_the_strongest_access_is_taken(serve: Serve) -> None:
    found = offered(serve().url, "student", "auto", plain=False, settings=QUICK)
    assert (found.ask, found.measure["form"]) == ("logprobs", "chat")
    assert found.probed == ("log-probabilities of a prompt (chat): yes",)


def test_prompts_that_are_plain_text_are_put_to_completions_first(serve: Serve) -> None:
    found = offered(serve().url, "student", "auto", plain=True, settings=QUICK)
    assert (found.ask, found.measure["form"]) == ("logprobs", "prompt_logprobs")


def test_echo_is_taken_where_the_server_has_no_other_form(serve: Serve) -> None:
    server = serve(faults=refusing("prompt_logprobs"))
    assert offered(server.url, "student", "logprobs", plain=False, settings=QUICK).measure["form"] == "echo"


def test_a_real_model_that_counts_on_is_seen_to_go_on(demo: Any) -> None:
    with Server(*demo, faults=refusing("prompt_logprobs", "echo")) as server:
        found = offered(server.url, "student", "auto", plain=False, settings=QUICK)
    assert (found.ask, found.measure["form"]) == ("parting", "continue")
    assert [line.split(": ")[-1] for line in found.probed[-1:]] == ["yes"]


def test_a_chat_that_begins_anew_is_not_taken_to_go_on() -> None:
    with Talker(lambda prompt, shown: "Sure! 1, 2, 3") as talker:
        found = offered(talker.url, "any", "auto", plain=False, settings=QUICK)
    assert found.ask == "answers" and found.measure == {"completions": False}
    assert any("begins another one" in line for line in found.probed)
    assert all("from one to ten" in prompt or not prompt for prompt in talker.shown)


def test_what_is_wanted_alone_is_tried(serve: Serve) -> None:
    server = serve()
    found = offered(server.url, "student", "answers", plain=False, settings=QUICK)
    assert found.ask == "answers" and len(server.received) == 1


def test_what_is_not_offered_is_refused_with_the_reasons(serve: Serve) -> None:
    with pytest.raises(DyetraceError, match=r"offers nothing of what was looked for .*status 400") as caught:
        offered(serve(faults=refusing("max_tokens")).url, "student", "auto", plain=False, settings=QUICK)
    assert "\n" not in str(caught.value)


def test_a_wrong_model_name_is_said(serve: Serve) -> None:
    with pytest.raises(DyetraceError, match="check the model's name"):
        offered(serve().url, "nobody", "answers", plain=False, settings=QUICK)


def test_passing_trouble_is_waited_for(serve: Serve) -> None:
    server = serve(faults=[Fault("status", 429), Fault("drop"), Fault("status", 503)])
    assert offered(server.url, "student", "answers", plain=False, settings=QUICK).ask == "answers"
    assert len(server.received) == 4


def test_lasting_trouble_is_the_machines(serve: Serve) -> None:
    with pytest.raises(MachineError, match="does not answer"):
        offered(serve(faults=lambda _: Fault("status", 429)).url, "student", "auto", plain=False, settings=QUICK)


def test_who_is_not_there_is_said_at_once() -> None:
    with pytest.raises(MachineError, match=r"cannot reach 127\.0\.0\.1:9"):
        offered("http://127.0.0.1:9/v1", "student", "auto", plain=False, settings=QUICK)


def test_a_refused_key_is_said_without_it(serve: Serve) -> None:
    secret = "sk-wrong-0123456789abcdef"
    with pytest.raises(DyetraceError, match="check the API key") as caught:
        offered(serve(api_key="right").url, "student", "auto", plain=False, key=ApiKey(secret), settings=QUICK)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("judge", "left_out"),
    [
        (strict.reasoning_model, ["max_tokens", "temperature"]),
        (strict.knows_only(), ["max_completion_tokens", "max_tokens", "seed", "temperature"]),
        (strict.takes_all, []),
    ],
    ids=["reasoning", "bare", "all"],
)
def test_settings_that_are_refused_by_name_are_left_out_of_all_that_is_asked(
    judge: strict.Judge, left_out: list[str]
) -> None:
    with strict.strict(judge) as server:
        found = offered(server.url, "m", "answers", plain=False, samples=1, settings=QUICK)
        assert list(found.left_out) == left_out
        planned = plan(url=server.url, ask="answers", measure={**found.measure, "samples": 1}, left_out=left_out)
        asked = TwinQuestions(planned, [twins(1)], AnswerMeasure(Idf(), samples=1), Budgets())
        bodies = [json.loads(asked.request(0, sample, 1).body) for sample in range(2)]
        assert all(judge(body) is None for body in bodies)
    assert [bool(left_out)] == [any("temperature" in line and "status 4" in line for line in found.probed)]
    assert (
        asked_for(planned)
        == {
            0: "temperature 0, and temperature 0.7 for further answers",
            2: "the server's own temperature",
            4: "the server's own temperature, the server's own limit of tokens",
        }[len(left_out)]
    )
