"""Measures against a real server over the real demo model: what comes back is what the weights say."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.distillation.server import Server
from detect.twins.measures.answers import AnswerMeasure, Idf, answer_of
from detect.twins.measures.logprobs import LogprobMeasure
from detect.twins.measures.parting import PartingMeasure, usable
from detect.twins.measures.protocol import Measure
from detect.twins.measures.weights import Reader
from tests.detect.twins.measures.twins import pair
from watermark.models.folder import load_model
from watermark.twins.pair import Pair

ONE = "The sea is a large body of salt water that covers most of the Earth."
OTHER = "The sea is deep, cold and blue \U0001f30a, and caf\u00e9s stand beside it."


@pytest.fixture(scope="module")
def loaded(smollm2_dir: Path) -> tuple[Any, Any]:
    return load_model(smollm2_dir, "float32")


@pytest.fixture(scope="module")
def server(loaded: tuple[Any, Any]) -> Iterator[Server]:
    with Server(*loaded, name="suspect") as running:
        yield running


@pytest.fixture(scope="module")
def reader(loaded: tuple[Any, Any]) -> Reader:
    return Reader(*loaded, "suspect")


def asked(server: Server, measure: Measure, twins: Pair) -> list[bytes]:
    """The bodies of the replies to a measure's questions."""
    found = []
    for question in measure.questions(twins):
        path = "chat/completions" if question.endpoint == "chat" else "completions"
        body = json.dumps({"model": "suspect", **question.body}).encode()
        request = urllib.request.Request(f"{server.url}/{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            payload = reply.read()
        usage = json.loads(payload)["usage"]
        assert usage["total_tokens"] <= question.most_tokens
        found.append(payload)
    return found


def test_a_chats_log_probabilities_are_those_of_the_weights(server: Server, reader: Reader) -> None:
    measure, twins = LogprobMeasure("chat"), pair(ONE, OTHER)
    replies = asked(server, measure, twins)
    assert measure.problem(twins, replies) is None
    found, (expected,) = measure.read(twins, replies), reader.read([twins])
    assert found is not None and expected is not None
    assert found.tokens == expected.tokens
    assert found.totals == pytest.approx(expected.totals, abs=0.01)


@pytest.mark.parametrize("form", ["prompt_logprobs", "echo"])
def test_completions_log_probabilities_are_those_of_the_weights(form: Any, server: Server, reader: Reader) -> None:
    """With the suspect's own template put in by hand both see the same."""
    twins = pair(ONE, OTHER)
    measure = LogprobMeasure(form, render=lambda made: reader.shown(made)[0])
    found, (expected,) = measure.read(twins, asked(server, measure, twins)), reader.read([twins])
    assert found is not None and expected is not None
    assert found.tokens == expected.tokens
    assert found.totals == pytest.approx(expected.totals, abs=0.01)


@pytest.mark.parametrize("form", ["continue", "completions"])
def test_a_suspect_goes_on_where_it_is_told_to(form: Any, server: Server) -> None:
    measure, twins = PartingMeasure(form), pair(ONE, OTHER)
    replies = asked(server, measure, twins)
    assert len(replies) >= 1
    for reply in replies:
        choice = usable(reply)
        assert choice is not None and not choice.text.startswith("The sea")
    found = measure.difference(twins, replies)
    assert np.isfinite(found).all()


def test_a_models_own_greedy_answer_is_most_like_itself(server: Server) -> None:
    greedy = answer_of(asked(server, AnswerMeasure(Idf()), pair(ONE, OTHER))[0])
    assert greedy
    twins = pair(greedy, OTHER)
    measure = AnswerMeasure(Idf.of([twins]))
    assert (measure.difference(twins, asked(server, measure, twins)) > 0).all()


def test_a_server_without_prompts_log_probabilities_says_so(server: Server) -> None:
    measure, twins = LogprobMeasure("echo"), pair(ONE, OTHER)
    free = asked(server, AnswerMeasure(Idf()), twins)
    assert measure.problem(twins, free * 2) == "no log-probabilities of the prompt's tokens"
