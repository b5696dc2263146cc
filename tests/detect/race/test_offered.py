"""What an endpoint offers a race readout is found by a question that is nobody's, and what it refuses is on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from tokenizers import Tokenizer

from benchmarks.distillation.server import Fault, Server
from detect.models.reading import Positions, ReadingDocument, ReadingText
from detect.race.asking import RaceQuestions
from detect.race.chances import Chances
from detect.race.job import RUN, Via
from detect.race.offered import BEGUN, PROMPT, RaceOffered, Sample, offered
from detect.race.plan import RaceEndpointAsk
from detect.student.asking.budget import Budgets
from tests.detect.race.test_asking import document
from tests.detect.race.test_plan import plan
from tests.detect.student.asking import strict
from tests.detect.student.asking.planned import QUICK
from tests.innocents.talkers import Talker
from watermark.errors import DyetraceError
from watermark.models.folder import load_model

Serve = Callable[..., Server]

PROMPT_LOGPROBS = ("prompt_logprobs",)
ALL_OF_VLLM = ("prompt_logprobs", "echo", "return_token_ids", "return_tokens_as_token_ids", "logprob_token_ids")


@pytest.fixture(scope="module")
def tokenizer(smollm2_tokenizer: Tokenizer) -> Tokenizer:
    return smollm2_tokenizer


@pytest.fixture(scope="module")
def demo(smollm2_dir: Path) -> Any:
    return load_model(smollm2_dir, "float32")


def find(
    url: str, tokenizer: Tokenizer, ask: RaceEndpointAsk | Literal["auto"] = "auto", via: Via = "auto"
) -> RaceOffered:
    return offered(url, "student", ask, via, Sample.like(document(tokenizer), tokenizer), tokenizer, settings=QUICK)


def test_the_question_is_in_the_owners_template_and_holds_nothing_of_what_was_served(tokenizer: Tokenizer) -> None:
    one = document(tokenizer)
    sample = Sample.like(one, tokenizer)
    assert sample.rendered == f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n{BEGUN}"
    assert one.text is not None and one.text not in sample.text
    assert Sample.like(None, tokenizer).text == Sample(None).plain == f"{PROMPT}\n{BEGUN}"
    bare = ReadingDocument("f", one.sequence, 0)
    assert Sample.like(bare, tokenizer).rendered is None


@pytest.mark.parametrize(
    ("ignores", "ask"),
    [((), "prompt-logprobs"), (PROMPT_LOGPROBS, "echo"), ((*PROMPT_LOGPROBS, "echo"), "logprobs")],
)
def test_the_strongest_that_is_there_is_taken(
    serve: Serve, tokenizer: Tokenizer, ignores: tuple[str, ...], ask: str
) -> None:
    server = serve(ignores=ignores)
    found = find(server.url, tokenizer)
    assert found.asking.ask == ask and found.asking.ids and found.asking.shown == "ids"
    assert found.probed[-1].endswith(": yes")
    assert all("has none" in line or "not" in line or line.endswith("yes") or "reads" in line for line in found.probed)
    bodies = [json.dumps(received.body) for received in server.received]
    assert len(set(bodies)) == len(bodies)  # each is paid for once


@pytest.mark.parametrize(("ignored", "named"), [((), True), (("logprob_token_ids",), False)])
def test_candidates_are_asked_for_by_their_ids_where_that_works(
    serve: Serve, tokenizer: Tokenizer, ignored: tuple[str, ...], named: bool
) -> None:
    found = find(serve(ignores=ignored).url, tokenizer, "logprobs").asking
    assert (found.named, found.alternatives) == ((True, 0) if named else (False, 20))


def test_a_bias_is_taken_where_it_forces_words_by_their_ids(serve: Serve, tokenizer: Tokenizer) -> None:
    found = find(serve().url, tokenizer, "bias").asking
    assert found.ask == "bias" and found.ids and found.max_tokens == 1 and found.power > 0
    with pytest.raises(DyetraceError, match="another word is said"):
        find(serve(ignores=["logit_bias"]).url, tokenizer, "bias")


def test_a_real_model_is_known_to_go_on_with_a_chat_and_a_bias_shows_its_ids(demo: Any, tokenizer: Tokenizer) -> None:
    with Server(*demo, goes_on="always", repeats=True, ignores=(*ALL_OF_VLLM, "logprobs")) as server:
        found = find(server.url, tokenizer).asking
    assert (found.ask, found.shown, found.repeats) == ("bias", "messages", True)
    assert found.ids and found.max_tokens == 1


def test_without_any_of_it_a_few_tokens_are_read_as_text(demo: Any, tokenizer: Tokenizer) -> None:
    with Server(*demo, goes_on="prefix", ignores=(*ALL_OF_VLLM, "logprobs", "logit_bias")) as server:
        found = find(server.url, tokenizer)
        text = find(server.url, tokenizer, via="completions").asking
    assert (found.asking.ask, found.asking.form, found.asking.ids) == ("greedy", "prefix", False)
    assert found.asking.max_tokens == found.asking.run == RUN and not found.asking.repeats
    assert any("(continue): it doesn't go on" in line for line in found.probed)
    assert (text.form, text.shown) == ("completions", "rendered")


def test_an_endpoint_that_begins_anew_is_asked_no_more_and_twins_are_named(tokenizer: Tokenizer) -> None:
    with (
        Talker(lambda prompt, shown: "Sure! 1, 2, 3") as talker,
        pytest.raises(DyetraceError, match=r"goes on with no answer that is begun.*trace twins") as caught,
    ):
        find(talker.url, tokenizer)
    assert "\n" not in str(caught.value)
    assert len(talker.shown) <= 12


def test_what_is_wanted_and_not_there_is_refused_with_the_reasons(serve: Serve, tokenizer: Tokenizer) -> None:
    with pytest.raises(DyetraceError, match=r"doesn't offer --ask echo .*give another --ask, or auto"):
        find(serve(ignores=["echo"]).url, tokenizer, "echo")


def test_whole_answers_are_not_read_by_a_chat(demo: Any, tokenizer: Tokenizer) -> None:
    with Server(*demo) as server:
        found = find(server.url, tokenizer, via="prefill")
    assert found.asking.ask == "logprobs" and found.asking.shown == "messages"
    assert "not by --via prefill" in found.probed[0]


def test_ids_of_another_vocabulary_are_refused(serve: Serve, tokenizer: Tokenizer) -> None:
    """The suspect takes any ids; what they stand for there shows that they are not the spec's."""
    words = json.loads(tokenizer.to_str())
    vocabulary = words["model"]["vocab"]
    rank = sorted(vocabulary, key=vocabulary.__getitem__)
    plain = [word for word in rank if vocabulary[word] >= 1000]
    turned = dict(zip(plain, [vocabulary[word] for word in [*plain[1:], plain[0]]], strict=True))
    words["model"]["vocab"] = vocabulary | turned
    other = Tokenizer.from_str(json.dumps(words))
    server = serve()
    sample = Sample.like(document(tokenizer), tokenizer)
    with pytest.raises(DyetraceError, match="token ids are not the spec's"):
        offered(server.url, "student", "prompt-logprobs", "auto", sample, other, settings=QUICK)


def test_log_probabilities_that_know_what_follows_are_refused(serve: Serve, tokenizer: Tokenizer) -> None:
    """An endpoint that looks at both sides of a place: what it says of the first half changes with the second."""
    honest = serve()

    def look_ahead(body: dict[str, Any]) -> Fault | None:
        if "prompt_logprobs" not in body:
            return None
        reply = honest.serve(False, body)
        listed = reply["choices"][0]["prompt_logprobs"]
        for place, entry in enumerate(listed[1:], 1):
            sure = -0.01 - hash(tuple(body["prompt"][place:])) % 7
            for one in entry.values():
                one["logprob"] = sure if one["rank"] == 1 else one["logprob"] - 10
        return Fault("status", 200, body=json.dumps(reply).encode())

    with pytest.raises(DyetraceError, match="looks at both sides"):
        find(serve(faults=look_ahead).url, tokenizer, "prompt-logprobs")


def test_a_refused_field_is_a_reason_and_not_an_end(serve: Serve, tokenizer: Tokenizer) -> None:
    strict = serve(faults=lambda body: Fault("status", 400) if {"prompt_logprobs", "echo"} & body.keys() else None)
    found = find(strict.url, tokenizer)
    assert found.asking.ask == "logprobs" and any("status 400" in line for line in found.probed)


def test_settings_that_are_refused_by_name_are_left_out_of_all_that_is_asked(tokenizer: Tokenizer) -> None:
    def goes_on(body: strict.Body, number: int) -> strict.Body:
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": " 7, 8"}}
        return {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}

    judge = strict.knows_only("max_completion_tokens")
    with strict.strict(judge, answer=goes_on) as server:
        found = find(server.url, tokenizer, "greedy", "prefill")
    assert found.asking.left_out == ["max_tokens", "temperature"]
    assert any("temperature 0" in line and "Extra inputs" in line for line in found.probed)
    planned = plan(asking=found.asking, cuts=[(0, 12)])
    assert planned.asked_for == "the server's own temperature, at most 8 tokens"
    one = document(tokenizer)
    where = Positions(np.array([0]), np.array([12]), np.array([0], dtype=np.uint32))
    chances = Chances(np.array([[5, 6]], dtype=np.int32), np.array([[0.5, 0.5]]))
    text = ReadingText("f", "", [one], marked=True)
    asked = RaceQuestions(planned, text, where, chances, tokenizer, 49152, Budgets())
    body = json.loads(asked.request(0, 0, 1).body)
    assert judge(body) is None and body["max_completion_tokens"] == found.asking.max_tokens
