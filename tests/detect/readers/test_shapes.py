"""A model's words are read wherever in a record they stand, chosen by a rule that takes no question for an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detect.readers import ReadOptions, find_sources, read, split
from detect.readers.choice import inspected
from detect.readers.fields import lookup
from tests.detect.readers.reading import documents, jsonl, source_of, write
from tests.detect.readers.shapes import SHAPES, says, user

ANSWER = "It was the answer, and it went on for a while; nobody asked why."
QUESTION = "It was the question, and it went on for a while; nobody knew why."


def texts_of(path: str, options: ReadOptions | None = None) -> list[str]:
    options = options or ReadOptions()
    found, skipped = find_sources([path], options)
    assert not skipped
    batches = [batch for source in found for piece in split(source) for batch in read(source, piece, options)]
    return [text for batch in batches for text in batch.texts or []]


@pytest.mark.parametrize("name", SHAPES)
def test_the_words_of_a_model_are_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "s.jsonl", jsonl(SHAPES[name](ANSWER, QUESTION)))
    assert any(ANSWER in text for text in texts_of(path))


def columns(record: dict[str, Any], **options: Any) -> list[str]:
    return [name for name, _ in inspected([record], ReadOptions(**options)).chosen]


@pytest.mark.parametrize(
    ("record", "chosen"),
    [
        ({"problem": "q", "solution": "s", "answer": "42"}, ["solution"]),
        ({"content": "q", "response": "a"}, ["response"]),
        ({"text": "", "response": "a"}, ["response"]),
        ({"text": None, "output": "a", "instruction": "q", "input": ""}, ["output"]),
        ({"question": "q", "reasoning": "r", "answer": "a"}, ["answer", "reasoning"]),
        ({"question": "q", "reasoning": "r"}, ["reasoning"]),
        ({"prompt": "q", "content": "a", "reasoning_content": "r"}, ["content", "reasoning_content"]),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, ["chosen", "rejected"]),
        ({"article": "a", "highlights": "b", "url": "http://example.org/a/path/of/nothing"}, ["article", "highlights"]),
        ({"text": "a", "id": "1", "file_path": "s3://bucket/a/long/path/that/says/nothing", "dump": "x"}, ["text"]),
        ({"prompt": "q", "token_ids": [1, 2]}, ["token_ids"]),
        ({"text": "a", "token_ids": [1, 2]}, ["text"]),
        ({"instruction": "q", "input": "p"}, ["instruction", "input"]),
        ({"instruction": "q", "output": ""}, ["instruction", "output"]),
        ({"messages": [{"role": "user", "content": "q"}], "title": "t"}, ["messages"]),
        ({"prompt": [{"role": "user", "content": "q"}], "completion": "a"}, ["completion"]),
        ({"tools": [{"type": "function", "function": {"description": "d", "parameters": {}}}], "text": "a"}, ["text"]),
        ({"translation": {"en": "a", "de": "b"}}, ["translation.en", "translation.de"]),
    ],
)  # fmt: skip
def test_fields_are_chosen_by_names_and_contents(record: dict[str, Any], chosen: list[str]) -> None:
    """One letter stands for a sentence that begins with it."""

    def sentence(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: inner if key in ("role", "type") else sentence(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [sentence(inner) for inner in value]
        return f"{value}, and so on and so forth, until all was said." if value in list("abdpqrst") else value

    assert columns(sentence(record)) == chosen


def test_all_fields_with_their_sizes_are_on_record() -> None:
    seen = inspected([{"question": QUESTION, "answer": ANSWER}, {"question": QUESTION, "answer": None}], ReadOptions())
    said = [(one.name, one.kind, one.records, one.characters, one.read) for one in seen.columns]
    assert said == [
        ("question", "text", 2, 2 * len(QUESTION), False),
        ("answer", "text", 1, len(ANSWER), True),
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("choices.0.message.content", ["first"]),
        ("choices.-1.message.content", ["second"]),
        ("choices.*.message.content", [["first", "second"]]),
        ("choices.*.message", [["first", "second"]]),
        ("choices.*.message.parts.*.text", [["a", "b"]]),
        ("by_name.*.text", [["x", "y"]]),
    ],
)
def test_paths_go_through_lists(tmp_path: Path, path: str, expected: list[Any]) -> None:
    record = {
        "choices": [
            {"message": {"role": "assistant", "content": "first"}},
            {"message": {"role": "assistant", "content": "second"}},
        ],
        "by_name": {"one": {"text": "x"}, "two": {"text": "y"}},
    }
    if "parts" in path:
        record["choices"] = [{"message": {"parts": [{"text": "a"}, {"text": "b"}]}}, {"message": {}}]
    file = write(tmp_path / "s.jsonl", jsonl(record))
    options = ReadOptions(fields=(path,))
    assert documents(source_of(file, options), options) == expected
    assert lookup({"a.*": 1, "a": 2}, "a.*") == 1  # a name may have it too


def test_a_record_without_one_of_several_fields_is_empty_there_and_without_all_is_broken(tmp_path: Path) -> None:
    records = [{"chosen": "a", "rejected": "b"}, {"chosen": "c"}, {"rejected": "d", "chosen": None}, {"other": "e"}]
    options = ReadOptions(skip_errors=True, fields=("chosen", "rejected"))
    path = write(tmp_path / "s.jsonl", jsonl(*records))
    first, second = find_sources([path], options)[0]
    assert documents(first, options) == ["a", "c", ""]
    assert documents(second, options) == ["b", "", "d"]
    for source in (first, second):
        broken = [one for piece in split(source) for batch in read(source, piece, options) for one in batch.skipped]
        assert broken == [(3, f"has nothing in {source.column!r}, nor in the other fields that are read")]


def test_every_part_of_every_turn_is_counted(tmp_path: Path) -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    turns = [
        user(QUESTION),
        says([{"type": "text", "text": "a"}, {"type": "image", "url": "x"}], reasoning="r", tool_calls=[call, call]),
        says("b", afterthoughts_of_mine=ANSWER, refusal="no"),
        {"role": "tool", "content": [{"type": "tool_result", "content": ANSWER}]},
        {"role": "Assistant ", "content": "c", "final": ANSWER},
    ]
    path = write(tmp_path / "s.jsonl", jsonl({"messages": turns}))
    [source], _ = find_sources([path], ReadOptions())
    [batch] = [batch for piece in split(source) for batch in read(source, piece, ReadOptions())]
    counts = {(one.role, one.part): (one.read, one.count, one.characters) for one in batch.turns}
    assert counts == {
        ("user", "text"): (False, 1, len(QUESTION)),
        ("assistant", "text"): (True, 3, 4),
        ("assistant", "image"): (False, 1, 0),
        ("assistant", "reasoning"): (True, 1, 1),
        ("assistant", "tools"): (True, 2, 4),
        ("assistant", "field afterthoughts_of_mine"): (False, 1, len(ANSWER)),
        ("tool", "tool_result"): (False, 1, len(ANSWER)),
        ("Assistant ", "text"): (True, 1, 1),
        ("Assistant ", "field final"): (False, 1, len(ANSWER)),
    }
    assert batch.texts == ["a", "r", "{}", "{}", "b", "no", "c"]


def test_text_that_json_escapes_within_arguments_is_read_as_the_model_wrote_it(tmp_path: Path) -> None:
    code = 'print("one")\nprint("two")\nprint("three and four")\n'
    for given in ({"code": code}, '{"code": ' + repr(code).replace('"', '\\"').replace("'", '"') + "}"):
        path = write(tmp_path / "s.jsonl", jsonl({"messages": [says("", function_call={"arguments": given})]}))
        assert code in texts_of(path)


def test_roles_made_up_by_the_thousand_are_counted_together(tmp_path: Path) -> None:
    records = [{"messages": [{"role": f"r{i}", "content": "x"}, says("a")]} for i in range(1000)]
    [source], _ = find_sources([write(tmp_path / "s.jsonl", jsonl(*records))], ReadOptions())
    [batch] = [batch for piece in split(source) for batch in read(source, piece, ReadOptions())]
    assert len(batch.turns) < 250 and sum(one.count for one in batch.turns) == 2000


def test_fields_that_come_up_later_in_a_file_are_counted_as_not_read(tmp_path: Path) -> None:
    records = [{"text": ANSWER}] * 2000 + [{"text": ANSWER, "appendix": ANSWER, "url": "x", "n": 3}] * 1000
    source = source_of(write(tmp_path / "s.jsonl", jsonl(*records)))
    found = [one for piece in split(source) for batch in read(source, piece, ReadOptions()) for one in batch.turns]
    assert [(one.role, one.part, one.read, one.count) for one in found] == [("", "field appendix", False, 10)]
    named = ReadOptions(fields=("text",))
    source = source_of(tmp_path / "s.jsonl", named)
    assert not [one for piece in split(source) for batch in read(source, piece, named) for one in batch.turns]


def test_answers_reasoning_and_calls_that_begin_later_in_a_file_are_read(tmp_path: Path) -> None:
    begin = {"prompt": QUESTION, "response": "first", "reasoning": None, "tool_calls": None, "output": None}
    later = begin | {"reasoning": ANSWER, "tool_calls": [{"function": {"arguments": "call"}}], "output": "last"}
    path = write(tmp_path / "s.jsonl", jsonl(*[begin] * 100, later))
    assert {"first", ANSWER, "call", "last"} == set(texts_of(path))


def test_a_field_of_texts_and_chats_is_read_throughout(tmp_path: Path) -> None:
    values = ["[Verse 1] a text", [says("a turn")], '{"a": 1}', json.dumps([says("in JSON")]), ["one", "two"], "b"]
    path = write(tmp_path / "s.jsonl", jsonl(*({"output": value} for value in values)))
    expected = [["[Verse 1] a text"], ["a turn"], ['{"a": 1}'], ["in JSON"], ["one", "two"], ["b"]]
    for options in (ReadOptions(), ReadOptions(fields=("output",))):
        assert documents(source_of(path, options), options) == expected
    texts = write(tmp_path / "t.jsonl", jsonl({"text": "a text"}, {"text": '["x"]'}))
    assert documents(source_of(texts)) == ["a text", '["x"]']
