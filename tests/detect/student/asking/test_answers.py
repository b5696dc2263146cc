"""Responses as real servers write them, and as hostile ones do."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.answers import (
    LEAST_LOGPROB,
    SuspectAnswer,
    error_message,
    one_line,
    read_response,
)
from detect.student.asking.message_texts import Said


def read(body: Any, wanted: int = 1) -> Any:
    return read_response(json.dumps(body).encode(), wanted)


def chat(content: Any, logprobs: Any = None, **message: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content} | message, "logprobs": logprobs}
            | {"finish_reason": "stop"}
        ],
    }


# ------------------------------------------------------------------------------------------ what servers send


def test_openai_chat() -> None:
    """As its API reference shows it."""
    top = [
        {"token": " Hi", "logprob": -0.1, "bytes": [32, 72, 105]},
        {"token": "\ufffd", "logprob": -3.0, "bytes": [240, 159]},
    ]
    body = chat(" Hi", {"content": [top[0] | {"top_logprobs": top}], "refusal": None}, refusal=None)
    body["usage"] = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    found = read(body)
    (choice,) = found.choices
    assert (choice.text, choice.finish_reason, choice.problem) == (" Hi", "stop", None)
    assert (found.prompt_tokens, found.completion_tokens, found.model) == (9, 1, "m")
    (position,) = choice.tokens
    assert position.chosen == (" Hi", b" Hi", None, -0.1)
    assert [(t.raw, t.logprob) for t in position.top] == [(b" Hi", -0.1), (b"\xf0\x9f", -3.0)]


def test_openai_legacy_completions() -> None:
    """Parallel lists; bytes that are no text are escaped."""
    logprobs = {
        "text_offset": [0, 3],
        "token_logprobs": [-0.5, -0.25],
        "tokens": [" Hi", "bytes:\\xe2\\x80"],
        "top_logprobs": [{" Hi": -0.5, "bytes: \\xf0\\x9f": -2.0}, None],
    }
    (choice,) = read(
        {"choices": [{"text": " Hi\ufffd", "index": 0, "logprobs": logprobs, "finish_reason": "length"}]}
    ).choices
    assert choice.tokens is not None
    assert [position.chosen.raw for position in choice.tokens] == [b" Hi", b"\xe2\x80"]
    assert [t.raw for t in choice.tokens[0].top] == [b" Hi", b" \xf0\x9f"]
    assert choice.tokens[1].top == ()


def test_vllm_returns_ids_and_sentinels() -> None:
    """--return-tokens-as-token-ids; -9999.0 stands for minus infinity."""
    logprobs = {
        "tokens": ["token_id:42", "token_id:7"],
        "token_logprobs": [-0.5, -9999.0],
        "top_logprobs": [{"token_id:42": -0.5, "token_id:3": -9999.0}, {"token_id:1": -0.25, "token_id:7": -9999.0}],
        "text_offset": [0, 1],
    }
    (choice,) = read({"choices": [{"text": "x", "index": 0, "logprobs": logprobs}]}).choices
    assert [(p.chosen.id, p.chosen.raw) for p in choice.tokens] == [(42, b""), (7, b"")]
    assert choice.tokens[1].chosen.logprob == LEAST_LOGPROB
    assert [t.id for t in choice.tokens[1].top] == [1, 7]


def test_sglang_completions() -> None:
    """Offsets are -1, and positions can lack alternatives."""
    logprobs = {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [], "text_offset": [-1]}
    (choice,) = read({"choices": [{"text": "a", "index": 0, "logprobs": logprobs, "matched_stop": 2}]}).choices
    assert choice.tokens == ((("a", b"a", None, -0.1), ()),)


def test_llama_cpp_completions_carry_the_chat_form_with_ids() -> None:
    """Part of a character is an empty string with bytes; minus infinity is the least float32."""
    entry = {"id": 5, "token": "", "bytes": [226, 128], "logprob": -0.2}
    entry["top_logprobs"] = [dict(entry), {"id": 6, "token": "b", "bytes": [98], "logprob": -3.4028234663852886e38}]
    body = {"choices": [{"text": "\u2019", "index": 0, "logprobs": {"content": [entry]}, "finish_reason": "stop"}]}
    (choice,) = read(body | {"timings": {}, "system_fingerprint": "b1"}).choices
    (position,) = choice.tokens
    assert position.chosen == ("", b"\xe2\x80", 5, -0.2)
    assert [(t.id, t.logprob) for t in position.top] == [(5, -0.2), (6, LEAST_LOGPROB)]


def test_ollama_leaves_out_what_it_does_not_have() -> None:
    """One choice whatever was asked for; no logprobs in older versions."""
    body = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}]}
    found = read(body, wanted=4)
    assert [(c.text, c.tokens, c.finish_reason) for c in found.choices] == [("Hi", None, None)]
    assert found.prompt_tokens is found.completion_tokens is None


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "image_url"}, {"type": "text", "text": "lo"}]
    assert read(chat(parts)).choices[0].text == "Hello"


def test_choices_come_in_the_order_of_their_numbers_and_no_more_than_were_asked_for() -> None:
    choices = [{"index": i, "text": str(i)} for i in (2, 0, 3, 1)]
    assert [c.text for c in read({"choices": choices}, wanted=3).choices] == ["0", "1", "2"]
    same = [{"index": 0, "text": "a"}, {"index": 0, "text": "b"}]
    assert [c.text for c in read({"choices": same}, wanted=3).choices] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message", "why"),
    [
        ("", {}, "an empty text"),
        (None, {}, "no text"),
        (7, {}, "no text"),
        (None, {"refusal": "No."}, "a refusal"),
        (None, {"tool_calls": [{}]}, "a tool call"),
        ("", {"reasoning_content": "Let me think"}, "reasoning alone, cut off before the answer"),
    ],
)
def test_answers_without_text_say_why(content: Any, message: dict[str, Any], why: str) -> None:
    assert read(chat(content, **message)).choices[0].problem == why


def test_errors_are_told_from_answers_whatever_their_form() -> None:
    """Some proxies send them with status 200."""
    assert read({"error": {"message": "slow down", "code": 429}}).error == (429, "slow down")
    assert read({"error": {"message": "no", "code": "bad", "type": "x"}}).error == (None, "no (bad)")
    assert read({"object": "error", "message": "gone", "code": 404}).error == (404, "gone")
    assert read({"error": "plain words"}).error == (None, "plain words")
    assert read({"detail": [{"msg": "field required"}]}).error == (None, "field required")
    assert read({"errors": [{"message": "too long", "code": 7}]}).error == (None, "too long")
    assert read(chat("fine") | {"error": None}).error is None


# ----------------------------------------------------------------------------------------------- what is broken


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"<html>", b"\x00"]
)
def test_what_is_no_json_is_said_to_be_none(payload: bytes) -> None:
    found = read_response(payload, 1)
    assert found.problem in ("not JSON", "not a JSON object") and found.choices == ()


def test_not_a_number_and_infinities_never_become_probabilities() -> None:
    top = '[{"token":"a","logprob":NaN},{"token":"b","logprob":-Infinity},{"token":"c","logprob":Infinity},' + (
        '{"token":"d","logprob":-1e999},{"token":"e","logprob":0.5},{"token":"f","logprob":"-1"},'
        '{"token":"g","logprob":true},{"token":"h","logprob":-0.5},{"token":"i","logprob":0.001}]'
    )
    payload = (
        '{"choices":[{"index":0,"message":{"content":"a"},"logprobs":{"content":'
        f'[{{"token":"a","logprob":NaN,"top_logprobs":{top.replace(",{", ", {")}}}]}}}}]}}'
    )
    (choice,) = read_response(payload.encode(), 1).choices
    assert choice.tokens is not None
    (position,) = choice.tokens
    assert math.isnan(position.chosen.logprob)
    assert position.top == ()  # "h" and "i" together exceed 1
    (choice,) = read_response(payload.replace("0.001", "-2").encode(), 1).choices
    assert choice.tokens is not None
    assert [(t.text, t.logprob) for t in choice.tokens[0].top] == [
        ("h", -0.5),
        ("i", -2.0),
        ("b", LEAST_LOGPROB),
        ("d", LEAST_LOGPROB),
    ]


def test_invalid_unicode_becomes_the_replacement_character() -> None:
    raw = b'{"choices":[{"index":0,"text":"a\xffb \\ud83d\\ude00 \\ud800!"}]}'
    (choice,) = read_response(raw, 1).choices
    assert choice.text == "a\ufffdb \U0001f600 \ufffd!"
    choice.text.encode()


def test_messages_are_one_printable_line() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202eevil\nnext\r" + "x" * 1000
    for shown in (one_line(hostile), error_message(json.dumps({"error": {"message": hostile}}).encode())):
        assert shown.isprintable() and len(shown) <= 200
    assert error_message(b"\xff\x00plain  \n text") == "\ufffd?plain text"
    assert error_message(b"") == ""


NAMES = (
    "choices message content text logprobs tokens token_logprobs top_logprobs usage token logprob bytes id index "
    "error code model prompt_tokens finish_reason"
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=5),
    max_leaves=40,
)


@given(json_values | json_values.map(lambda v: {"choices": [v]}) | json_values.map(lambda v: chat("x", v)))
def test_no_json_is_too_odd_to_be_read(body: Any) -> None:
    found = read_response(json.dumps(body).encode(), 3)
    assert len(found.choices) <= 3
    for choice in found.choices:
        choice.text.encode()
        for position in choice.tokens or ():
            assert math.isnan(position.chosen.logprob) or LEAST_LOGPROB <= position.chosen.logprob <= 0
            values = [token.logprob for token in position.top]
            assert values == sorted(values, reverse=True)
            assert all(LEAST_LOGPROB <= value <= 0 for value in values)
            assert sum(map(math.exp, values)) <= 1.01


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd_to_be_read(payload: bytes) -> None:
    assert read_response(payload, 1).choices == ()
    assert error_message(payload) == "" or error_message(payload).isprintable()


def test_an_answer_knows_where_its_tokens_begin_in_its_text() -> None:
    def answer(text: str, *words: str) -> SuspectAnswer:
        entries = [{"token": word, "logprob": -1.0} for word in words]
        tokens = read(chat(text, {"content": entries})).choices[0].tokens
        return SuspectAnswer(0, 0, text, tokens, None, None, None, 1)

    assert answer("one two", "one", " two").places == [{0: 0, 3: 1}]
    assert answer("one two", "one", " two", "<|im_end|>").has_logprobs
    assert not answer("one two", "ones", "twos").has_logprobs
    assert not answer("one two").has_logprobs


def test_pieces_of_a_vocabulary_are_read_as_their_bytes_where_the_text_says_so() -> None:
    def first(text: str, *words: str) -> Any:
        entries = [
            {"token": word, "logprob": -1.0, "top_logprobs": [{"token": word, "logprob": -1.0}]} for word in words
        ]
        return read(chat(text, {"content": entries})).choices[0].tokens

    assert [p.top[0].raw for p in first("one é\n", "one", "Ġ", "Ã©", "Ċ")] == [b"one", b" ", "é".encode(), b"\n"]
    assert [p.chosen.raw for p in first("one two", "▁one", "▁two")] == [b" one", b" two"]
    assert [p.chosen.raw for p in first("a Ġ", "a", " Ġ")] == [b"a", " Ġ".encode()]


def test_reasonings_own_logprobs_stand_before_the_answers() -> None:
    """DeepSeek's reasoner has two lists."""
    lists = {name: [{"token": name[0], "logprob": -1.0}] for name in ("content", "reasoning_content")}
    (choice,) = read(chat("c", lists, reasoning_content="r")).choices
    assert [p.chosen.text for p in choice.tokens] == ["r", "c"]


def test_an_answer_without_an_answer_proper_has_its_reasoning() -> None:
    (choice,) = read(chat(None, reasoning_content="Let me think")).choices
    assert choice.problem == "reasoning alone, cut off before the answer" and not choice.text
    assert choice.said == (Said("reasoning", "Let me think"),)
    (plain,) = read(chat(" ")).choices  # a blank may be all that one token says
    assert plain.problem is None and plain.said == (Said("answer", " "),)
    (filtered,) = read({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}).choices
    assert filtered.problem == "stopped by a content filter"


@pytest.mark.parametrize("kind", ["answer", "reasoning"])
def test_logprobs_of_the_answer_proper_decide(kind: str) -> None:
    entries = [{"token": word, "logprob": -1.0} for word in ("I", " think", " so")]
    message = {"content": "I think so"} if kind == "answer" else {"content": "Yes", "reasoning_content": "I think so"}
    (choice,) = read(chat(message.pop("content"), {"content": entries}, **message)).choices
    found = SuspectAnswer(0, 0, choice.text, choice.tokens, None, None, None, 1, choice.parts)
    assert found.has_logprobs == (kind == "answer")
    assert found.places[0] == {0: 0, 1: 1, 7: 2}
