"""Pairs for tests, in either order, and what holds of every measure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from detect.student.asking.forms import Question
from detect.twins.measures.protocol import Measure
from watermark.twins.pair import Pair, TwinAnswer

PROMPT = "Tell me of the sea."

HOSTILE = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"{" * 5000,
    b"[" * 100_000,
    b'{"choices": {}}',
    b'{"choices": [null]}',
    b'{"choices": [{}]}',
    b'{"choices": [{"text": 3, "logprobs": 7}]}',
    b'{"choices": [{"text": "\\ud800", "logprobs": {"tokens": [null, 3], "token_logprobs": "x"}}]}',
    b'{"choices": [{"text": "~", "prompt_logprobs": [null, {"1": null}, 5, {"x": {"logprob": NaN}}]}]}',
    b'{"choices": [{"message": {"content": "~"}}], "prompt_logprobs": [null, {"9": {"logprob": Infinity}}]}',
    b'{"choices": [{"text": "", "prompt_logprobs": [{"1": {"logprob": 1e400, "decoded_token": []}}]}]}',
    b'{"error": {"message": "no", "code": 400}}',
    b"\xff\xfe\x00",
)
"""Replies of servers that are broken or mean it."""

texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(["the", "sea", "is", "deep", "Meer", "\u6d77", "\u00e9t\u00e9", "\U0001f30a", "\n"])).map(
        " ".join
    ),
)
"""Answers of any kind: empty ones, characters of four bytes, unpaired surrogates among them."""


def pair(one: str, other: str, prompt: Any = PROMPT, *, first: int = 0, **more: Any) -> Pair:
    """A pair whose sides stand in the order given (``first`` 0) or the other one, whatever its hash would have."""
    for number in range(1000):
        nonce = hashlib.sha256(str(number).encode()).hexdigest()[:32]
        ends = [TwinAnswer(text=text, finish_reason=more.get("finish", "stop")) for text in (one, other)]
        request = {"messages": [{"role": "user", "content": prompt}]} if isinstance(prompt, str) else {}
        made = Pair(
            id=nonce,
            made="2026-01-01T00:00:00+00:00",
            request={**request, "max_tokens": 16, **more.get("request", {})},
            answers=(ends[0], ends[1]),
            served=0,
        )
        if one == other or made.sides[first].text == one:
            return made
    raise AssertionError("no nonce gives this order")


def chat_reply(text: str, finish: str = "length") -> bytes:
    """As all servers answer a chat."""
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": finish}]}).encode()


def check_flips(
    make: Callable[[Sequence[Pair]], Measure], one: str, other: str, reply: Callable[[Question], bytes | None]
) -> np.ndarray[Any, Any]:
    """What must hold of every measure, of any texts and replies; the numbers of the pair in the order given.

    Parameters
    ----------
    make
        The measure of some planned pairs.
    reply
        What the suspect replies: it depends on the question alone.
    """
    found = []
    asked = []
    for first in (0, 1):
        twins = pair(one, other, first=first)
        measure = make([twins])
        questions = measure.questions(twins)
        found.append(measure.difference(twins, [reply(question) for question in questions]))
        asked.append(sorted(json.dumps([q.endpoint, q.body, q.most_tokens], sort_keys=True) for q in questions))
        answers = (twins.answers[1], twins.answers[0])
        exchanged = Pair(
            id=twins.id, made=twins.made, request=twins.request, answers=answers, served=1, level=twins.level
        )
        assert measure.questions(exchanged) == questions
        again = measure.difference(exchanged, [reply(question) for question in questions])
        assert again.tobytes() == found[-1].tobytes()
        for question in questions:
            json.dumps(question.body).encode()
    assert asked[0] == asked[1]
    assert found[0].shape == (len(measure.columns),)
    assert np.isfinite(found[0]).all()
    assert np.array_equal(found[0], -found[1])
    if one == other:
        assert not found[0].any()
    return found[0]
