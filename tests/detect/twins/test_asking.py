"""The questions of a plan: a request each, named apart from all others, the same whatever the coins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.answers import read_response
from detect.student.asking.budget import Budgets
from detect.student.asking.forms import Question, request_of
from detect.twins.asking import GrowingAnswers, TwinQuestions, useless
from detect.twins.measures.answers import AnswerMeasure, Idf
from detect.twins.measures.logprobs import LogprobMeasure
from detect.twins.measures.parting import PartingMeasure
from detect.twins.measures.protocol import Measure
from detect.twins.plan import Ask
from tests.detect.twins.made import twins
from tests.detect.twins.measures.twins import HOSTILE, chat_reply
from tests.detect.twins.test_plan import plan
from watermark.errors import DyetraceError
from watermark.twins.pair import Pair

MEASURES: dict[Ask, Measure] = {
    "logprobs": LogprobMeasure(form="echo"),
    "parting": PartingMeasure(form="last"),
    "answers": AnswerMeasure(Idf(), samples=2),
}


def questions(ask: Ask, pairs: Sequence[Pair], measure: Measure | None = None) -> TwinQuestions:
    made = plan(ask=ask, columns=list(MEASURES[ask].columns))
    return TwinQuestions(made, pairs, measure or MEASURES[ask], Budgets())


@pytest.mark.parametrize("ask", ["logprobs", "parting", "answers"])
def test_each_question_is_one_request_with_a_name_of_its_own(ask: Ask) -> None:
    """Two pairs of one prompt, and samples that differ by their seeds alone, share no reply."""
    pairs = [twins(number, "It is deep and very blue.", "It is wide and very cold.") for number in range(3)]
    made = questions(ask, pairs)
    found = [made.request(step, part.start, 1) for step in range(made.steps) for part in made.samples_of(step)]
    assert len({request.key for request in found}) == len(found) >= 3 * len(MEASURES[ask].questions(pairs[0]))
    for request in found:
        body = json.loads(request.body)
        assert body["model"] == "student" and request.count == 1
        assert request.url in ("https://host/v1/completions", "https://host/v1/chat/completions")
        assert request.most_tokens == body["max_tokens"]
        assert request.bound >= request.most_tokens + len("Tell me of the sea.")
    assert made.largest_body > 10_000


def test_the_key_of_a_request_is_the_same_each_time() -> None:
    pairs = [twins(0)]
    one, other = (questions("answers", pairs).request(0, 0, 1) for _ in range(2))
    assert one == other


def test_turning_coins_and_exchanging_answers_changes_no_request() -> None:
    for ask in MEASURES:
        pair = twins(1, "It is deep.", "It is wide.")
        turned = msgspec.structs.replace(pair, answers=pair.answers[::-1], proof=None)
        one, other = questions(ask, [pair]), questions(ask, [turned])
        assert one.samples_of(0) == other.samples_of(0)
        assert [one.request(0, n.start, 1) for n in one.samples_of(0)] == [
            other.request(0, n.start, 1) for n in other.samples_of(0)
        ]


def test_half_a_surrogate_pair_is_sent_as_something_that_can_be_sent() -> None:
    body = {"messages": [{"role": "user", "content": "half \ud800"}], "n": 1, "stop": ["\udfff"]}
    _, data, most = request_of("https://host", "student", Question("chat", body, 10))
    assert json.loads(data)["messages"][0]["content"] == "half \ufffd" and most == 0


@pytest.mark.parametrize("ask", ["logprobs", "parting", "answers"])
@pytest.mark.parametrize("reply", HOSTILE)
def test_replies_of_any_kind_give_a_reason_or_numbers(ask: Ask, reply: bytes) -> None:
    made = questions(ask, [twins(0)])
    request = made.request(0, 0, 1)
    taken = made.take(request, 1, reply, read_response(reply, 1))
    assert len(taken.answers) + len(taken.unusable) == 1
    assert np.isfinite(made.difference(0, taken.answers)).all()


def test_the_end_alone_says_something_where_one_was_to_go_on() -> None:
    ended = chat_reply("", "stop")
    assert useless("parting", ended, read_response(ended, 1)) is None
    assert useless("answers", ended, read_response(ended, 1)) == "an empty text"


def test_a_plan_of_weights_asks_no_endpoint() -> None:
    with pytest.raises(DyetraceError, match="no endpoint can be asked"):
        TwinQuestions(plan(mode="weights", url=None, model=None), [], MEASURES["answers"], Budgets())


def growing(pairs: Sequence[Pair], said: Sequence[str]) -> list[Any]:
    measure = GrowingAnswers(AnswerMeasure(Idf()))
    return [measure.difference(pair, [chat_reply(text)]).tolist() for pair, text in zip(pairs, said, strict=True)]


_WORDS = st.lists(st.sampled_from(["owl", "ship", "sea", "deep", "is", "the"]), max_size=8).map(" ".join)


@given(st.lists(st.tuples(_WORDS, _WORDS, _WORDS), min_size=2, max_size=6))
def test_what_words_weigh_rests_on_no_later_pair(texts: list[tuple[str, str, str]]) -> None:
    """A client that goes on from what it was served decides which pairs there are later."""
    pairs = [twins(number, one, other) for number, (one, other, _) in enumerate(texts)]
    said = [text for *_, text in texts]
    whole = growing(pairs, said)
    for count in range(1, len(pairs)):
        assert growing(pairs[:count], said[:count]) == whole[:count]


def test_words_that_came_up_before_weigh_less() -> None:
    """An answer with a word of each twin is more like the one whose word is rare."""
    earlier = [twins(number, "the owl", "an owl") for number in range(5)]
    last = twins(9, "the owl", "the ship")
    alone = growing([last], ["owl ship"])[-1][0]
    after = growing([*earlier, last], ["owl"] * 5 + ["owl ship"])[-1][0]
    assert alone == 0 and after * (1 if last.sides[0].text == "the ship" else -1) > 0
