"""The texts of an answer under the names that servers and proxies give them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.message_texts import Said, texts_of

THOUGHT = {"type": "thinking", "thinking": "R", "signature": "s"}
SUMMARY = [{"type": "summary_text", "text": "s1"}, {"type": "summary_text", "text": "s2"}]


def read(message: Any) -> list[tuple[str, str]]:
    return [tuple(said) for said in texts_of({"message": message, "finish_reason": "stop"})]  # type: ignore[misc]


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "R"},  # DeepSeek, vLLM, SGLang, llama.cpp
        {"reasoning": "R"},  # OpenRouter, Groq, newer vLLM
        {"reasoning": {"content": "R", "effort": "high"}},
        {"reasoning": "R", "reasoning_details": [{"type": "reasoning.text", "text": "R", "signature": "xyz"}]},
        {"reasoning": "R", "reasoning_content": "R", "reasoning_effort": "low"},
        {"thinking": "R"},  # Ollama
        {"thinking_blocks": [{"type": "thinking", "thinking": "R", "signature": "xyz"}]},  # LiteLLM
        {"provider_specific_fields": {"reasoning_content": "R"}},
        {"reasoning_text": "R", "thoughtSignature": "xyz"},
        {"chain_of_thought": ["R"]},
    ],
)
def test_reasoning_is_known_by_what_its_name_says(message: dict[str, Any]) -> None:
    assert read({"content": "A"} | message) == [("reasoning", "R"), ("answer", "A")]
    assert read({"content": None} | message) == [("reasoning", "R")]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([THOUGHT, {"type": "text", "text": "A"}], ["R", "A"]),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "R1"}]}, "A"], ["R1", "A"]),
        ([{"type": "reasoning", "summary": SUMMARY}, {"type": "output_text", "text": "A"}], ["s1", "s2", "A"]),
        ([{"reasoningContent": {"reasoningText": {"text": "R"}}}, {"text": "A"}], ["R", "A"]),
        ({"parts": [{"text": "R", "thought": True}, {"text": "A", "thoughtSignature": "s"}]}, ["R", "A"]),
        ([{"type": "redacted_thinking", "data": "xyz"}, {"type": "text", "text": "A"}], ["A"]),
        ([{"type": "text", "text": "Hel"}, {"type": "image_url"}, {"type": "text", "text": "lo"}], ["Hello"]),
        (["Hel", "lo"], ["Hello"]),
        # What stands on two sides of a thought is two texts.
        ([{"type": "text", "text": "A"}, THOUGHT, {"type": "text", "text": "B"}], ["A", "R", "B"]),
        (["A", {"type": "tool_use", "name": "f", "input": {"x": "\u00e9"}}], ["A", '{"x": "\u00e9"}']),
    ],
)  # fmt: skip
def test_parts_of_content_are_told_apart(content: Any, found: list[str]) -> None:
    assert [text for _, text in read({"content": content})] == found


def test_what_is_handed_to_tools_is_text_of_the_model() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
    custom = {"id": "d", "type": "custom", "custom": {"name": "g", "input": "free text"}}
    took_apart = {"function": {"name": "h", "arguments": {"a": 1}}}  # Ollama
    found = read({"content": None, "tool_calls": [call, custom, took_apart], "function_call": call["function"]})
    assert found == [("tool call", '{"a": "b"}'), ("tool call", "free text"), ("tool call", '{"a": 1}')]


def test_reasoning_that_stands_in_the_answer_too_is_read_once_and_there() -> None:
    assert read({"content": "<think>R</think>A", "reasoning_content": "R"}) == [("answer", "<think>R</think>A")]


def test_completions_have_texts_as_well() -> None:
    assert texts_of({"text": "A", "reasoning_content": "R"}) == (Said("reasoning", "R"), Said("answer", "A"))
    assert texts_of({"text": "\ud800"}) == (Said("answer", "\ufffd"),)
    assert texts_of({"text": ""}) == () and texts_of({"message": None}) == ()


def test_an_answer_of_countless_or_bottomless_parts_is_read_in_no_time() -> None:
    parts = [{"type": "thinking", "thinking": f"thought {number % 2000}"} for number in range(20_000)]
    assert len(read({"content": parts})) == 2000
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert read({"content": "A", "reasoning": deep, "tool_calls": [{"function": {"arguments": deep}}]}) == [
        ("answer", "A")
    ]


NAMES = "message content text reasoning thinking type parts tool_calls function arguments thought input summary".split()
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["thinking", "text", "tool_use"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(NAMES), odd, max_size=4))
def test_no_choice_is_too_odd(choice: dict[str, Any]) -> None:
    for said in texts_of(choice):
        assert said.text and said.text.encode()
