"""JSON of any layout: wherever blocks are cut, each record is read once, and no damage is passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.readers import BrokenRecord, json_items, place, records
from detect.readers.passed import Passed
from tests.detect.readers.reading import SKIP, batches, documents, ids, skipped, source_of, write
from watermark.errors import DyetraceError

TEXTS = ['A first document, with "quotes" and [brackets].', "A second one: {curly}, \\ and é.\n", "", "The last, }]"]
RECORDS = [{"id": f"r{number}", "text": text, "more": [{"a": [1, "]"]}]} for number, text in enumerate(TEXTS)]
CHATS = [[{"role": "user", "content": "Question?"}, {"role": "assistant", "content": f"Answer {i}"}] for i in range(4)]
ANSWERS = [[turns[1]["content"]] for turns in CHATS]

LAYOUTS: dict[str, Callable[[list[Any], int | None], str]] = {
    "array": lambda found, indent: json.dumps(found, indent=indent),
    "objects one after the other": lambda found, indent: "\n".join(json.dumps(one, indent=indent) for one in found),
    "objects on one line": lambda found, indent: " ".join(json.dumps(one, indent=indent) for one in found),
    "two arrays": lambda found, indent: json.dumps(found[:1]) + json.dumps(found[1:], indent=indent),
    "data": lambda found, indent: json.dumps({"version": 2, "data": found}, indent=indent),
    "any member": lambda found, indent: json.dumps({"rows": found, "about": {"by": "us"}}, indent=indent),
    "splits": lambda found, indent: json.dumps({"train": found[:3], "empty": [], "test": found[3:]}, indent=indent),
    "by key": lambda found, indent: json.dumps({f"k{i}": one for i, one in enumerate(found)}, indent=indent),
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_records_are_found_in_every_layout(tmp_path: Path, layout: str, indent: int | None) -> None:
    source = source_of(write(tmp_path / "s.json", LAYOUTS[layout](RECORDS, indent)))
    assert (source.column, source.kind, documents(source)) == ("text", "text", TEXTS)
    assert ids(source) == ["r0", "r1", "r2", "r3"]
    if source.form == "json":
        assert place(source, 2).endswith("s.json, element 3")


_TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\[]{},:\n'), max_size=12)
_EXTRA = st.recursive(_TEXT | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner))


@given(
    st.lists(st.builds(lambda text, extra: {"text": text, "x": extra}, _TEXT, _EXTRA), min_size=2, max_size=6),
    st.sampled_from(sorted(set(LAYOUTS) - {"splits"})),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from([1, 2, 3, 7, 64, 1 << 20]),
)
@settings(max_examples=40, deadline=None)
def test_any_cut_into_blocks_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[dict[str, Any]],
    layout: str,
    indent: int | None,
    mark: bool,
    block: int,
) -> None:
    data = LAYOUTS[layout](found, indent)
    path = write(tmp_path_factory.mktemp("cut") / "s.json", ("\ufeff" if mark else "") + data + "\n")
    items = [records.parsed(item) for part in json_items.items(path, "", Passed(), block) for item in part]
    assert [item["text"] for item in items if item] == [record["text"] for record in found]


@pytest.mark.parametrize(
    ("name", "data", "want"),
    [
        ("one chat", CHATS[0], ANSWERS[:1]),
        ("chats", CHATS, ANSWERS),
        ("chats by key", dict(zip("abcd", CHATS, strict=True)), ANSWERS),
        ("a record of a chat", {"id": 1, "messages": CHATS[1]}, ANSWERS[1:2]),
        ("records of chats", [{"messages": turns} for turns in CHATS], ANSWERS),
        ("records of chats inside", {"version": 1, "chats": [{"messages": turns} for turns in CHATS]}, ANSWERS),
        ("texts", TEXTS, TEXTS),
        ("texts inside", {"version": 1, "data": TEXTS}, TEXTS),
        ("texts by number", {str(number): text for number, text in enumerate(TEXTS)}, TEXTS),
        ("token ids", [[1, 2], [3]], [[1, 2], [3]]),
        (
            "an answer of an interface",
            {"object": "chat.completion", "choices": [{"index": 0, "message": CHATS[0][1]}]},
            ANSWERS[:1],
        ),
        (
            "columns",
            {"text": {str(i): text for i, text in enumerate(TEXTS)}, "n": {str(i): i for i in range(4)}},
            TEXTS,
        ),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_what_records_are_is_seen_from_what_they_hold(
    tmp_path: Path, name: str, data: Any, want: list[Any], indent: int | None
) -> None:
    assert documents(source_of(write(tmp_path / "s.json", json.dumps(data, indent=indent)))) == want


def test_members_beside_the_records_are_counted(tmp_path: Path) -> None:
    data = {"description": "About the data.", "data": RECORDS, "n": 4, "tags": ["a", "b"]}
    found = batches(source_of(write(tmp_path / "s.json", json.dumps(data))))
    counted = {turn.part: (turn.read, turn.count) for batch in found for turn in batch.turns}
    assert counted == {"member description": (False, 1), "member tags": (False, 2)}


def test_lists_that_are_about_the_records_are_counted_and_a_record_may_have_lists(tmp_path: Path) -> None:
    features = [{"feature": 0, "dtype": "string"}]
    rows = [{"row": {"text": f"{text} {'and more of it ' * 9}"}} for text in TEXTS]
    source = source_of(write(tmp_path / "s.json", json.dumps({"features": features, "rows": rows})))
    assert documents(source) == [row["row"]["text"] for row in rows]
    assert [(turn.part, turn.count) for batch in batches(source) for turn in batch.turns] == [("member features", 1)]
    record = {"id": 7, "text": "A long text, in which names were found.", "entities": [{"name": "A"}]}
    source = source_of(write(tmp_path / "t.json", json.dumps(record, indent=1)))
    assert (documents(source), ids(source)) == ([record["text"]], ["7"])


def test_the_key_of_a_record_is_its_id_where_it_has_none(tmp_path: Path) -> None:
    data = {"first": {"text": "a text"}, "second": {"text": "another", "id": "own"}}
    source = source_of(write(tmp_path / "s.json", json.dumps(data, indent=1)))
    assert ids(source) == ["first", "own"]


@pytest.mark.parametrize("layout", ["array", "data", "by key", "objects one after the other"])
def test_a_file_that_is_cut_short_says_so(tmp_path: Path, layout: str) -> None:
    data = LAYOUTS[layout](RECORDS, 1)
    for cut in (len(data) - 1, len(data) * 2 // 3):
        source = source_of(write(tmp_path / f"{cut}.json", data[:cut]))
        found = documents(source, SKIP)
        assert found == TEXTS[: len(found)]
        [(record, reason)] = skipped(source)
        assert record == len(found)
        assert reason == (
            "and all that follows cannot be read: it ends before its last bracket, as if cut short; get the file again"
        )
        with pytest.raises(BrokenRecord, match=rf"json, element {record + 1} and all that follows cannot be read"):
            batches(source)


def test_a_broken_element_is_named_and_the_next_one_is_read(tmp_path: Path) -> None:
    data = '[{"text": "a"}, {"text": b}, null, "c", {"text": "\\ud800"}, {"text": "e"} {"text": "f"},]'
    source = source_of(write(tmp_path / "s.json", data))
    assert documents(source, SKIP) == ["a", "c", "\ufffd", "e", "f"]
    assert skipped(source) == [
        (1, "is not JSON: Expecting value (character 10)"),
        (2, "is JSON, but not an object with fields"),
    ]
    surplus = source_of(write(tmp_path / "t.json", '[{"text": "a"}]]{"text": "b"}'))
    assert documents(surplus, SKIP) == ["a"]
    assert "there is a bracket too many" in skipped(surplus)[0][1]


def test_an_element_too_long_for_memory_is_broken_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_items, "MAX_DOCUMENT", 1 << 20)
    monkeypatch.setattr(json_items.items, "__defaults__", (1 << 18,))
    data = [{"text": "a"}, {"text": "b" * (3 << 20)}, {"text": "c"}]
    source = source_of(write(tmp_path / "s.json", json.dumps(data)))
    assert documents(source, SKIP) == ["a", "c"]
    assert skipped(source) == [(1, "is longer than 1 MiB")]
    columns = {"text": {str(number): "d" * 1000 for number in range(2000)}}
    with pytest.raises(DyetraceError, match=r"is longer than 1 MiB; write a record on each line \(in pandas"):
        source_of(write(tmp_path / "t.json", json.dumps(columns)))


def test_an_object_that_others_follow_is_a_record_though_it_holds_a_list(tmp_path: Path) -> None:
    found = [{"text": f"text {number}" * 5000, "entities": [{"name": "n"}]} for number in range(3)]
    source = source_of(write(tmp_path / "s.json", "\n".join(json.dumps(one, indent=1) for one in found)))
    assert documents(source) == [one["text"] for one in found]
