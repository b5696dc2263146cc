"""The same records as JSONL and in columns, written by pyarrow, datasets and polars, give the same documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import msgspec
import polars
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from detect.readers import ReadOptions, find_sources
from tests.detect.readers.reading import SKIP, batches, jsonl
from watermark.errors import DyetraceError

Record = dict[str, Any]
LONG = 'An answer with "quotes",\n\\ and é, which is long enough to be one.'
THOUGHT = "Some thoughts on the question, and further thoughts."


@pytest.fixture(autouse=True, scope="module")
def _no_bars() -> None:
    datasets.disable_progress_bars()


def as_arrow(records: list[Record], path: Path, new: Callable[..., Any]) -> None:
    table = pa.Table.from_pylist(records)
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def by_datasets(records: list[Record]) -> Any:
    return datasets.Dataset.from_list(records, on_mixed_types="use_json")


def by_polars(records: list[Record]) -> Any:
    return polars.DataFrame(records, infer_schema_length=None)


WRITERS: dict[str, Callable[[list[Record], Path], Any]] = {
    "pyarrow.parquet": lambda records, path: parquet.write_table(pa.Table.from_pylist(records), path, row_group_size=2),
    "pyarrow.arrow": lambda records, path: as_arrow(records, path, pa.ipc.new_file),
    "pyarrow.stream.arrow": lambda records, path: as_arrow(records, path, pa.ipc.new_stream),
    "datasets": lambda records, path: by_datasets(records).save_to_disk(path),
    "datasets.parquet": lambda records, path: by_datasets(records).to_parquet(path),
    "polars.parquet": lambda records, path: by_polars(records).write_parquet(path),
    "polars.arrow": lambda records, path: by_polars(records).write_ipc(path),
    "polars.zstd.arrow": lambda records, path: by_polars(records).write_ipc(path, compression="zstd"),
    "polars.stream.arrow": lambda records, path: by_polars(records).write_ipc_stream(
        path, compat_level=polars.CompatLevel.oldest()
    ),
}
CANNOT = (pa.ArrowException, polars.exceptions.PolarsError, TypeError, ValueError)
"""What writers raise for records that their types have no room for."""


def read(path: Path, options: ReadOptions) -> dict[tuple[str, str], Any] | str:
    """All that a file gives: for each field documents (without an order of their rows), turns, broken records."""
    try:
        sources, _ = find_sources([str(path)], options)
    except DyetraceError:
        return "refused"
    found: dict[tuple[str, str], Any] = {}
    for source in sources:
        documents: list[tuple[str | None, list[Any]]] = []
        turns: Counter[Any] = Counter()
        broken = 0
        for batch in batches(source, options):
            first = len(documents)
            documents += [(own, []) for own in batch.ids]
            rows = batch.texts if batch.tokens is None else [row.tolist() for row in batch.tokens]
            for document, row in zip(batch.row_document.tolist(), rows or [], strict=True):
                documents[first + document][1].append(row)
            for turn in batch.turns:
                turns[turn.role, turn.part, turn.read] += turn.count
                turns[turn.role, turn.part, turn.read, "characters"] += turn.characters
            broken += len(batch.skipped)
        documents = [(own, sorted(rows)) for own, rows in documents]
        found[source.column, source.kind] = (
            documents,
            turns,
            broken,
            {seen.name for seen in source.columns if seen.read},
        )
    return found


def check(records: list[Record], options: ReadOptions = SKIP, writers: tuple[str, ...] = tuple(WRITERS)) -> set[str]:
    """Compare all writers that can write these records with JSONL, and return their names."""
    written = set()
    with TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.jsonl"
        plain.write_text(jsonl(*records), encoding="utf-8")
        expected = read(plain, msgspec.structs.replace(options, form="jsonl"))
        for name in writers:
            try:
                WRITERS[name](records, Path(folder) / name)
            except CANNOT:
                continue
            assert read(Path(folder) / name, options) == expected, name
            written.add(name)
    return written


def chat(*turns: Record) -> Record:
    return {"messages": [{"role": "user", "content": "Why?"}, *turns]}


def calls(arguments: Any) -> list[Record]:
    return [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]


EVERYONE: dict[str, list[Record]] = {
    "chats": [chat({"role": "assistant", "content": LONG}), {"messages": []}],
    "other names": [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": LONG}]}],
    "reasoning": [
        chat({"role": "assistant", "content": LONG, "reasoning_content": THOUGHT}),
        chat({"role": "assistant", "content": LONG}),
    ],
    "thinking parts": [
        {"result": {"message": {"role": "assistant", "content": [{"type": "thinking", "thinking": THOUGHT}]}}},
        {"result": {"message": {"role": "assistant", "content": [{"type": "text", "text": LONG}]}}},
    ],
    "calls": [chat({"role": "assistant", "content": None, "tool_calls": calls('{"city": "Paris"}')})],
    "calls with objects": [
        chat({"role": "assistant", "content": "", "tool_calls": calls({"city": "Paris"})}),
        chat({"role": "assistant", "content": LONG, "tool_calls": calls({"n": 5, "yes": True, "x": [1.5]})}),
    ],
    "an unknown role": [chat({"role": "chatgpt ", "content": LONG}, {"role": "narrator", "content": LONG})],
    "choices": [{"id": "a", "choices": [{"message": {"role": "assistant", "content": LONG}}, {"message": None}]}],
    "an answer and a failure": [
        {"custom_id": "a", "response": {"body": {"choices": [{"message": {"role": "assistant", "content": LONG}}]}}},
        {"custom_id": "b", "response": {"body": {"choices": []}}},
    ],
    "Gemini": [{"candidates": [{"content": {"parts": [{"text": LONG}, {"text": THOUGHT, "thought": True}]}}]}],
    "Gemini's parts": [
        {
            "contents": [
                {"role": "user", "parts": [{"text": "q"}, {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}]},
                {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"city": "Paris"}}}]},
            ]
        },
        {"contents": [{"role": "model", "parts": [{"text": LONG}]}]},
    ],
    "lists of texts": [{"completions": [LONG, "b"]}, {"completions": []}],
    "lists of lists": [{"generations": [[LONG], ["b", "c"]]}, {"generations": [[], [LONG]]}],
    "chats in strings": [{"messages": json.dumps(chat({"role": "assistant", "content": LONG})["messages"])}],
    "pairs": [{"conversations": [{"human": "q", "assistant": LONG}]}],
    "two answers": [{"reasoning": THOUGHT, "answer": LONG}, {"reasoning": None, "answer": LONG}, {"answer": None}],
    "an empty answer first": [{"prompt": LONG, "response": ""}, {"prompt": LONG, "response": LONG}],
    "token ids": [{"input_ids": [1, 2, 3], "id": 7}, {"input_ids": [], "id": 8}, {"input_ids": [2**32 - 1], "id": 9}],
    "structs in structs": [{"a": {"b": {"text": LONG}}}, {"a": {"b": None}}, {"a": None}],
    "every character": [{"text": LONG + "\u2028\0\x1b\U0001f600"}, {"text": ""}],
}


@pytest.mark.parametrize("kind", EVERYONE)
def test_records_of_each_kind_give_the_same_from_every_writer(kind: str) -> None:
    assert check(EVERYONE[kind]) == set(WRITERS)


MIXED: dict[str, list[Record]] = {
    "parts in one turn": [
        chat({"role": "assistant", "content": LONG}),
        chat({"role": "assistant", "content": [{"type": "text", "text": LONG}, {"type": "image_url", "url": None}]}),
    ],
    "another type in a further key": [
        chat({"role": "assistant", "content": LONG, "score": "good"}),
        chat({"role": "assistant", "content": LONG, "score": 3, "reasoning": THOUGHT}),
    ],
    "a number among texts": [{"text": LONG, "id": "a"}, {"text": 3, "id": 5}, {"text": LONG, "id": None}],
    "a text among turns": [{"messages": [LONG, {"role": "assistant", "content": "b"}]}],
    "texts and chats": [
        {"answer": LONG, "messages": None},
        chat({"role": "assistant", "content": LONG}) | {"answer": ["a", "b"]},
    ],
}


@pytest.mark.parametrize("kind", MIXED)
def test_values_that_datasets_keeps_as_json_are_decoded(kind: str) -> None:
    assert check(MIXED[kind], writers=("datasets", "datasets.parquet")) == {"datasets", "datasets.parquet"}


def test_what_datasets_loads_from_jsonl_and_saves_is_read_alike(tmp_path: Path) -> None:
    plain = tmp_path / "plain.jsonl"
    plain.write_text(jsonl(*MIXED["parts in one turn"]), encoding="utf-8")
    loaded = datasets.load_dataset("json", data_files=str(plain), split="train", cache_dir=str(tmp_path / "cache"))
    loaded.save_to_disk(tmp_path / "saved")
    [file] = (tmp_path / "saved").glob("*.arrow")
    with pa.ipc.open_stream(file) as stored:
        assert "arrow.json" in str(stored.schema)
    assert read(tmp_path / "saved", SKIP) == read(plain, SKIP)


@pytest.mark.parametrize("name", ["ids.*.text", "ids.0.text", "ids"])
def test_paths_through_lists_lead_to_the_same(name: str) -> None:
    records: list[Record] = [
        {"ids": [{"text": LONG}, {"text": "b"}]},
        {"ids": [{"text": "c"}]},
        {"ids": []},
        {"ids": None},
    ]
    assert check(records, ReadOptions(fields=(name,), skip_errors=True)) == set(WRITERS)


@pytest.mark.parametrize("form", ["arrow", "stream", "parquet"])
@pytest.mark.parametrize("level", ["oldest", "newest"])
def test_categories_and_enums_of_polars_are_text(tmp_path: Path, form: str, level: str) -> None:
    texts = [LONG, "b", None, LONG]
    frame = polars.DataFrame(
        {
            "answer": polars.Series(texts, dtype=polars.Categorical),
            "completions": polars.Series([["b", LONG], [], None, ["b"]], dtype=polars.List(polars.Categorical)),
            "response": polars.Series(texts, dtype=polars.Enum(["b", LONG, "not used"])),
            "text": texts,
        }
    )
    path = tmp_path / "frame.arrow"
    if form == "parquet":
        frame.write_parquet(path)
    else:
        compat = getattr(polars.CompatLevel, level)()
        (frame.write_ipc if form == "arrow" else frame.write_ipc_stream)(path, compat_level=compat)
    plain = tmp_path / "plain.jsonl"
    frame.write_ndjson(plain)
    for names in (("answer",), ("completions",), ("response",), ("text",), ("answer", "completions"), ()):
        options = ReadOptions(fields=names, skip_errors=True)
        assert read(path, options) == read(plain, options) != "refused"


words = st.sampled_from(["", "a", LONG, THOUGHT]) | st.text(st.characters(codec="utf-8"), max_size=40)
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": words}), max_size=2)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "Claude-3", "narrator"]), "content": st.none() | words},
    optional={
        "reasoning_content": st.none() | words,
        "tool_calls": st.lists(st.builds(lambda text: calls(text)[0], words), max_size=2),
        "name": words,
    },
)
in_parts = st.fixed_dictionaries({"role": st.just("assistant"), "content": words | parts})
fields = {
    "messages": st.none() | st.lists(turns, max_size=3),
    "conversation": st.lists(in_parts, max_size=3),
    "answer": st.none() | words,
    "reasoning": st.none() | words,
    "text": st.none() | words,
    "completions": st.lists(words, max_size=3),
    "token_ids": st.lists(st.integers(0, 2**32 - 1), max_size=4),
    "id": st.none() | st.integers(0, 99),
}


FULL: Record = {
    "messages": chat({"role": "assistant", "content": LONG})["messages"],
    "conversation": chat({"role": "assistant", "content": LONG})["messages"],
    "answer": LONG,
    "reasoning": THOUGHT,
    "text": LONG,
    "completions": [LONG, LONG],
    "token_ids": [1, 2, 3],
    "id": 5,
}


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(list(fields)), min_size=1, max_size=3), st.data())
def test_any_records_give_the_same_from_every_writer(names: set[str], data: st.DataObject) -> None:
    shape = st.fixed_dictionaries({name: fields[name] for name in sorted(names)})
    mixed = "conversation" in names  # of which polars leaves out what doesn't fit
    writers = tuple(name for name in WRITERS if not mixed or name.startswith("datasets"))
    check([{name: FULL[name] for name in sorted(names)}, *data.draw(st.lists(shape, max_size=4))], writers=writers)
