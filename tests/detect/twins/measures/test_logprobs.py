"""Log-probabilities through an endpoint: wire formats of several servers, spans of answers, replies of any kind."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.answers import read_prompt
from detect.twins.measures.logprobs import (
    COLUMNS,
    COLUMNS_BESIDE,
    LEAST,
    LogprobMeasure,
    Read,
    answer_span,
    numbers,
    read_replies,
)
from tests.detect.twins.measures.twins import HOSTILE, PROMPT, check_flips, pair, texts

FORMS = ("prompt_logprobs", "echo", "chat")
LEAD = f"{PROMPT}\n"


def logprob(token: str, place: int) -> float:
    """Some number that depends on the token alone, so that anybody can sum it up."""
    return -int.from_bytes(hashlib.sha256(token.encode()).digest()[:2], "big") / 10_000


def vllm(tokens: Sequence[str], *, chat: bool = False, alternatives: bool = False) -> bytes:
    """vLLM's prompt_logprobs: null first; the token that stands there before likelier ones."""
    entries: list[Any] = [None]
    for place, token in enumerate(tokens[1:], 1):
        own = {"logprob": logprob(token, place), "rank": 2, "decoded_token": token}
        entry = {str(100 + place): own}
        if alternatives:
            entry["3"] = {"logprob": -0.001, "rank": 1, "decoded_token": "zzz"}
        entries.append(entry)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "logprobs": None}
    choice |= (
        {"message": {"role": "assistant", "content": " x"}} if chat else {"text": " x", "prompt_logprobs": entries}
    )
    body: dict[str, Any] = {"choices": [choice], "usage": {"prompt_tokens": len(tokens), "completion_tokens": 1}}
    if chat:
        body["prompt_logprobs"] = entries
    return json.dumps(body).encode()


def echo(tokens: Sequence[str], written: Sequence[str] = (), usage: bool = True) -> bytes:
    """OpenAI's legacy completions with echo: parallel lists, null for the first token."""
    all_tokens = [*tokens, *written]
    logprobs = {
        "tokens": all_tokens,
        "token_logprobs": [None, *(logprob(token, place) for place, token in enumerate(all_tokens[1:], 1))],
        "top_logprobs": None,
        "text_offset": [sum(map(len, all_tokens[:place])) for place in range(len(all_tokens))],
    }
    body: dict[str, Any] = {"choices": [{"index": 0, "text": "".join(all_tokens), "logprobs": logprobs}]}
    if usage:
        body["usage"] = {"prompt_tokens": len(tokens), "completion_tokens": len(written)}
    return json.dumps(body).encode()


LEAD_TOKENS = ["Tell", " me", " of", " the", " sea", ".", "\n"]
ONE, ONE_TOKENS = "The sea is deep.", ["The", " sea", " is", " deep", "."]
OTHER, OTHER_TOKENS = "The sea is a mirror", ["The", " sea", " is", " a", " mir", "ror"]


def total(tokens: Sequence[str]) -> float:
    return math.fsum(logprob(token, 0) for token in tokens)


@pytest.mark.parametrize("form", ["completions", "alternatives", "echo", "echo with a word", "echo without usage"])
def test_the_answers_tokens_are_found_whatever_server_lists_them(form: str) -> None:
    def reply(tokens: Sequence[str]) -> bytes:
        whole = [*LEAD_TOKENS, *tokens]
        if form.startswith("echo"):
            return echo(whole, [] if form == "echo" else [" x"], form != "echo without usage")
        return vllm(whole, alternatives=form == "alternatives")

    found = read_replies((reply(ONE_TOKENS), reply(OTHER_TOKENS)), LEAD, (ONE, OTHER))
    assert found is not None
    assert found.tokens == (5, 6)
    assert found.totals == pytest.approx((total(ONE_TOKENS), total(OTHER_TOKENS)), abs=1e-12)


def test_a_chats_template_is_passed_over() -> None:
    """The answer comes last; the prompt may hold the same words, and the template is nobody's."""
    frame = ["<|im_start|>", "user", "\n", *ONE_TOKENS, "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"]
    replies = vllm([*frame, *ONE_TOKENS], chat=True), vllm([*frame, *OTHER_TOKENS], chat=True)
    found = read_replies(replies, "", (f"{ONE}\n", OTHER))
    assert found is not None and found.tokens == (5, 6)
    assert found.totals == pytest.approx((total(ONE_TOKENS), total(OTHER_TOKENS)), abs=1e-12)


def test_tokens_that_lost_their_space_are_found_by_their_letters() -> None:
    """Servers that decode each token of SentencePiece by itself lose the white space before it."""
    bare = [["Tell", "me", "of", "the", "sea", ".", "\n", *(token.strip() for token in tokens)] for tokens in
            (ONE_TOKENS, OTHER_TOKENS)]  # fmt: skip
    found = read_replies((vllm(bare[0]), vllm(bare[1])), LEAD, (ONE, OTHER))
    assert found is not None and found.tokens == (5, 6)


def test_parts_of_characters_are_counted_from_where_the_twins_part() -> None:
    lead = [*LEAD_TOKENS, "\ufffd", "\ufffd"]
    replies = vllm([*lead, "\ufffd", "\u5c71"]), vllm([*lead, "\u6c34"])
    found = read_replies(replies, LEAD, ("\u6d77\u6d77\u5c71", "\u6d77\u6d77\u6c34"))
    assert found is not None and found.tokens == (2, 1)
    assert found.difference[1] == pytest.approx(total(["\ufffd", "\u5c71"]) - total(["\u6c34"]))


@pytest.mark.parametrize("form", FORMS)
def test_real_replies_of_vllm_are_read(form: Any) -> None:
    """vLLM 0.32 with the demo model, asked by this measure; it lists parts of a character as empty texts."""
    replies = json.loads((Path(__file__).parent / "vllm_0_32.json").read_text("utf-8"))[form]
    twins = pair(
        "The sea is a large body of salt water that covers most of the Earth.",
        "The sea is deep, cold and blue \U0001f30a, and caf\u00e9s stand beside it.",
    )
    found = LogprobMeasure(form).read(twins, [json.dumps(reply).encode() for reply in replies])
    assert found is not None and found.tokens == (16, 19)
    expected = (-27.847, -91.991) if form == "chat" else (-33.576, -80.356)
    assert found.totals == pytest.approx(expected, abs=0.001)


def test_a_server_that_takes_no_notice_of_echo_says_nothing() -> None:
    measure, twins = LogprobMeasure("echo"), pair(ONE, OTHER)
    replies = [echo([" x"]), echo([" y"])]
    assert not measure.difference(twins, replies).any()
    assert measure.problem(twins, replies) == "the answer's tokens are not among those that came back"
    chat = b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}'
    assert measure.problem(twins, [chat, chat]) == "no log-probabilities of the prompt's tokens"
    assert measure.problem(twins, [b'{"error": "no such thing"}', None]) == "no such thing"


def test_one_token_cannot_outweigh_all_others() -> None:
    entry = {"7": {"logprob": -9999.0, "rank": 9, "decoded_token": "The"}}
    body = json.loads(vllm([*LEAD_TOKENS, *ONE_TOKENS]))
    body["choices"][0]["prompt_logprobs"][len(LEAD_TOKENS)] = entry
    found = read_replies((json.dumps(body).encode(), vllm([*LEAD_TOKENS, *OTHER_TOKENS])), LEAD, (ONE, OTHER))
    assert found is not None
    assert found.totals[0] == pytest.approx(total(ONE_TOKENS[1:]) + LEAST)


def test_a_token_without_a_number_makes_the_pair_silent() -> None:
    body = json.loads(vllm([*LEAD_TOKENS, *ONE_TOKENS]))
    body["choices"][0]["prompt_logprobs"][-1] = {"7": {"logprob": "x", "decoded_token": "."}}
    assert read_replies((json.dumps(body).encode(), vllm([*LEAD_TOKENS, *OTHER_TOKENS])), LEAD, (ONE, OTHER)) is None


def test_what_is_asked_of_each_server() -> None:
    twins = pair(ONE, OTHER)
    messages = [{"role": "user", "content": PROMPT}]
    first, second = LogprobMeasure("chat").questions(twins)
    assert first.endpoint == "chat"
    assert first.body == {
        "messages": [*messages, {"role": "assistant", "content": ONE}],
        "max_tokens": 1,
        "temperature": 0,
        "continue_final_message": True,
        "add_generation_prompt": False,
        "prompt_logprobs": 0,
    }
    assert second.body["messages"][-1]["content"] == OTHER
    first, _ = LogprobMeasure("prompt_logprobs").questions(twins)
    assert first.body == {"prompt": LEAD + ONE, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    first, _ = LogprobMeasure("echo", echo_tokens=0).questions(twins)
    assert first.body == {"prompt": LEAD + ONE, "max_tokens": 0, "temperature": 0, "echo": True, "logprobs": 1}
    first, _ = LogprobMeasure("echo", render=lambda made: f"<user>{made.prompt}").questions(twins)
    assert first.body["prompt"].startswith("<user>")
    assert LogprobMeasure().questions(pair(ONE, "  ")) == [] == LogprobMeasure().questions(pair(ONE, ONE))


@pytest.mark.parametrize("form", FORMS)
@given(one=texts, other=texts, salt=st.integers(0, 9), broken=st.sampled_from([None, *HOSTILE]))
def test_swapping_the_twins_flips_every_number(
    form: Any, one: str, other: str, salt: int, broken: bytes | None
) -> None:
    """Tokens of a few characters; one side's reply may be broken."""

    def reply(question: Any) -> bytes | None:
        body = question.body
        text = body["prompt"] if "prompt" in body else f"user {PROMPT} assistant " + body["messages"][-1]["content"]
        if broken in HOSTILE and len(text) % 2:
            return broken
        step = 1 + salt % 4
        tokens = ["<s>", *(text[start : start + step] for start in range(0, len(text), step))]
        return echo(tokens, ["x"], salt % 2 == 0) if form == "echo" else vllm(tokens, chat=form == "chat")

    check_flips(lambda _: LogprobMeasure(form), one, other, reply)


@given(st.sampled_from(HOSTILE), st.sampled_from(HOSTILE))
def test_hostile_replies_say_nothing_and_why(one: bytes, other: bytes) -> None:
    for payload in (one, other):
        found = read_prompt(payload)
        assert found.problem or all(math.isnan(token.logprob) or token.logprob <= 0 for token in found.tokens)
    twins = pair(ONE, OTHER)
    assert not LogprobMeasure().difference(twins, [one, other]).any()
    assert LogprobMeasure().problem(twins, [one, other])


def test_a_reference_is_taken_off() -> None:
    twins = pair(ONE, OTHER)
    reference = Read((-10.0, -12.0), (5, 4))
    measure = LogprobMeasure(reference={twins.id: reference})
    assert measure.columns == COLUMNS_BESIDE and LogprobMeasure().columns == COLUMNS
    suspect = Read((-6.0, -13.0), (6, 5))
    lost = math.exp(8 * 4 / 10) - math.exp(-8 / 12)
    assert numbers(suspect, reference, True) == pytest.approx([lost, 1.6 - 1.0, 7 - 2, 1.6, 7])
    assert numbers(suspect, None, True) == pytest.approx([0, 0, 0, 1.6, 7])
    assert numbers(suspect, None, False) == pytest.approx([1.6, 7])
    assert not numbers(None, reference, True).any()


def test_what_became_likelier_counts_and_not_what_became_less_likely() -> None:
    reference = Read((-10.0, -10.0), (5, 5))
    learnt, _ = Read((-6.0, -10.0), (5, 5)).lost_surprise(reference)
    disliked = numbers(Read((-10.0, -14.0), (5, 5)), reference, True)
    gained = numbers(Read((-6.0, -10.0), (5, 5)), reference, True)
    assert disliked[1] == pytest.approx(gained[1]) and 0 < disliked[0] < gained[0] / 10
    assert learnt == pytest.approx(math.exp(8 * 0.4))


@given(st.lists(st.floats(-1e6, 0), min_size=4, max_size=4), st.lists(st.integers(1, 500), min_size=4, max_size=4))
def test_lost_surprise_is_finite_whatever_was_read(totals: list[float], tokens: list[int]) -> None:
    suspect, reference = (
        Read((totals[0], totals[1]), (tokens[0], tokens[1])),
        Read((totals[2], totals[3]), (tokens[2], tokens[3])),
    )
    swapped = [Read(read.totals[::-1], read.tokens[::-1]) for read in (suspect, reference)]
    found = numbers(suspect, reference, True)
    assert np.isfinite(found).all() and np.array_equal(found, -numbers(swapped[0], swapped[1], True))


def test_the_answers_place_is_found_by_bytes_before_letters() -> None:
    def span(parts: Sequence[str], lead: str, text: str) -> Any:
        return answer_span(read_prompt(vllm(parts)).tokens, lead, text)

    assert span(["a ", "b", "c a", " b"], "a ", "bc a b") == (1, 4)
    assert span(["x", "a b", " a b"], "", "a b") == (2, 3)
    assert span(["x", "ab"], "x", "a  b") == (1, 2)
    assert span(["x", "ab"], "x", "c") is None
    assert span(["x", "ab"], "x", " ") is None
    assert np.isnan(read_prompt(vllm(["a", "b"])).tokens[0].logprob)
