"""Whatever JSON a field holds is read, or broken in words; every character of a wanted turn is read or counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.readers import ReadOptions
from detect.readers.batch import Broken, Tally
from detect.readers.choice import inspected, kind_of
from detect.readers.turns import is_read, turns_of, wanted
from tests.detect.readers.shapes import SHAPES

WANT = wanted(ReadOptions())
NAMES = st.sampled_from(
    "role from type content text value parts message messages choices candidates output thinking reasoning tool_calls "
    "function arguments input user assistant answer question body result thought args name id mapping data".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | NAMES | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=25,
)


def deep(levels: int, key: str | None = None) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value] if key is None else {key: value}
    return value


@given(VALUES)
def test_any_json_gives_texts_or_a_reason(value: Any) -> None:
    check(value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"messages": [deep(500, "content")]},
        lambda: [{"role": "assistant", "content": "a", "tool_calls": deep(900)}],
        lambda: [{"role": "assistant", "content": "a", "thinking": deep(900, "text")}],
        lambda: deep(900),
        lambda: deep(900, "message"),
        lambda: deep(900, "what"),
    ],
)
def test_what_is_nested_deeply_does_so_too(make: Callable[[], Any]) -> None:
    check(make())


def check(value: Any) -> None:
    kind_of(value)
    for given_as in (value, json.dumps(value)):
        tally = Tally()
        try:
            texts = turns_of(given_as, "m", WANT, tally)
        except Broken as error:
            assert error.reason.isprintable() and not tally.counts()
            continue
        assert all(isinstance(text, str) for text in texts)
        assert len(texts) >= sum(one.count for one in tally.counts() if one.read)
    try:
        inspected([{"m": value}], ReadOptions())
    except Broken as error:
        assert error.reason


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_read_and_what_is_counted_agree(name: str) -> None:
    for field, value in SHAPES[name]("m" * 50, "c" * 50).items():
        if kind_of(value, field) != "messages" or field == "answers":  # whose bodies are read
            continue
        tally = Tally()
        texts = turns_of(value, field, WANT, tally)
        read = [one for one in tally.counts() if one.read]
        assert sum(one.characters for one in read) <= sum(map(len, texts))
        assert all(one.characters for one in tally.counts() if one.part.startswith("field"))


@pytest.mark.parametrize(
    ("role", "read"),
    [
        ("assistant", True), ("ASSISTANT", True), (" assistant\n", True), ("gpt-4-0613", True), ("ChatGPT", True),
        ("Claude 3 Opus", True), ("<|assistant|>", True), ("model", True), ("llama2-70b", True), ("AI", True),
        ("deepseek_r1", True), ("user", False), ("human", False), ("system", False), ("tool", False), ("", False),
        ("environment", False), ("user (asks gpt)", False), ("airline", False), ("modelling", False),
    ],
)  # fmt: skip
def test_the_assistant_is_known_by_its_usual_names(role: str, read: bool) -> None:
    assert is_read(role, WANT.roles) == read
    assert is_read(role, frozenset([role.strip().casefold()]))
    assert not is_read(role, frozenset(["somebody else"]))
