"""Parquet and Arrow columns: every type and layout, bounded batches, damage that is never passed over."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from detect.readers import BrokenRecord, ReadOptions, columnar, columns, split
from tests.detect.readers.reading import SKIP, batches, documents, ids, skipped, source_of
from watermark.errors import DyetraceError

FORMS = ["parquet", "file.arrow", "stream.arrow"]
INTEGERS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
ROWS = [[1, 2, 3], [], [4], [5, 127]]


def save(folder: Path, table: pa.Table, form: str, rows: int = 1 << 20, **options: Any) -> str:
    path = folder / f"data.{form}"
    if form == "parquet":
        parquet.write_table(table, path, row_group_size=rows, **options)
        return str(path)
    with (pa.ipc.new_file if form == "file.arrow" else pa.ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return str(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_token_columns_of_every_integer_type(tmp_path: Path, form: str, integer: pa.DataType) -> None:
    for kind in (pa.list_(integer), pa.large_list(integer)):
        table = pa.table({"junk": ["x"] * 4, "input_ids": pa.array(ROWS, kind)})
        source = source_of(save(tmp_path, table, form))
        assert (source.column, source.kind, source.id_column) == ("input_ids", "tokens", None)
        assert documents(source) == ROWS
    fixed = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(integer, 2))
    assert documents(source_of(save(tmp_path, pa.table({"ids": fixed}), form))) == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("form", FORMS)
def test_nulls_and_ids_out_of_range_are_broken_and_their_neighbours_are_not(tmp_path: Path, form: str) -> None:
    rows = [[1], None, [], [2, None], [3, -1], [4, 2**32], [2**32 - 1], []]
    for kind in (pa.list_(pa.int64()), pa.large_list(pa.int64())):
        source = source_of(save(tmp_path, pa.table({"tokens": pa.array(rows, kind), "id": range(8)}), form))
        [batch] = batches(source, SKIP)
        assert (batch.records.tolist(), batch.ids) == ([0, 2, 6, 7], ["0", "2", "6", "7"])
        assert documents(source, SKIP) == [[1], [], [2**32 - 1], []]
        assert batch.skipped == [
            (1, "has null in field 'tokens', not a list of token ids"),
            (3, "has null among its token ids ('tokens', position 1)"),
            (4, "has token id -1 outside 0 .. 2^32 - 1 ('tokens', position 1)"),
            (5, "has token id 4294967296 outside 0 .. 2^32 - 1 ('tokens', position 1)"),
        ]
    with pytest.raises(BrokenRecord, match=rf"data.{form}, row 2 has null in field 'tokens'"):
        batches(source)


@given(st.lists(st.none() | st.lists(st.none() | st.integers(-2, 2**33), max_size=5)), st.data())
def test_slices_and_layouts_give_what_their_lists_hold(
    rows: list[list[int | None] | None], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(rows)))
    length = data.draw(st.integers(0, len(rows) - start))
    large, junk = data.draw(st.booleans()), data.draw(st.booleans())
    array = pa.array(rows, (pa.large_list if large else pa.list_)(pa.int64()))
    if junk and array.null_count:  # a null list may hide values
        array = _with_values_under_nulls(rows, pa.LargeListArray if large else pa.ListArray)
    tokens, lengths, broken = columns._tokens(array.slice(start, length), "t")
    ends = np.cumsum(lengths)
    got = [tokens[end - size : end].tolist() for end, size in zip(ends, lengths, strict=True)]
    assert len(got) == length
    for index, row in enumerate(rows[start : start + length]):
        good = row is not None and all(token is not None and 0 <= token < 2**32 for token in row)
        assert (index in broken) != good
        if good:
            assert got[index] == row


def _with_values_under_nulls(rows: list[list[int | None] | None], kind: Any) -> Any:
    values = pa.array([token for row in rows for token in ([7, None, -9] if row is None else row)], pa.int64())
    ends = np.cumsum([0, *(3 if row is None else len(row) for row in rows)])
    offsets = pa.array(ends, pa.int64() if kind is pa.LargeListArray else pa.int32())
    return kind.from_arrays(offsets, values, mask=pa.array([row is None for row in rows], pa.bool_()))


@pytest.mark.parametrize("form", FORMS)
def test_large_tables_come_in_pieces_and_bounded_batches(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "BATCH_TOKENS", 5000)
    lengths = np.random.default_rng(1).integers(0, 400, 3000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(offsets[-1], dtype=np.int32)
    table = pa.table({"ids": pa.LargeListArray.from_arrays(offsets, tokens), "id": [f"d{i}" for i in range(3000)]})
    chunked = pa.concat_tables([table.slice(0, 1234), table.slice(1234, 1), table.slice(1235)])
    source = source_of(save(tmp_path, chunked, form, rows=100))
    pieces = split(source, source.bytes // 7)
    assert len(pieces) > 3
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    found = batches(source, pieces=pieces)
    assert max(len(batch.tokens.ids) for batch in found if batch.tokens) <= 6000
    assert documents(source, pieces=pieces) == [row.tolist() for row in np.split(tokens, offsets[1:-1])]
    assert ids(source) == [f"d{i}" for i in range(3000)]
    first = 0
    for piece in pieces:
        assert columnar.records_before(source, piece) == first
        first += batches(source, pieces=[piece])[-1].seen


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), "dictionary", "view"], ids=str)
def test_text_columns_of_every_type(tmp_path: Path, form: str, kind: Any) -> None:
    texts = ["Grüße\u2028", "", None, "c\0\x1b"]
    plain = pa.array(texts, pa.string())
    array = {"dictionary": plain.dictionary_encode(), "view": plain.cast(pa.string_view())}.get(str(kind))
    array = plain.cast(kind) if array is None else array
    source = source_of(save(tmp_path, pa.table({"response": array, "id": ["a", "b", "c", ""]}), form))
    assert (source.column, source.kind, source.id_column) == ("response", "text", "id")
    [batch] = batches(source, SKIP)
    assert (batch.texts, batch.ids) == (["Grüße\u2028", "", "c\0\x1b"], ["a", "b", None])
    assert batch.skipped == [(2, "has null in field 'response', not text")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [pa.string(), pa.binary()], ids=str)
def test_bytes_that_are_not_utf8_break_their_own_row_only(tmp_path: Path, form: str, kind: pa.DataType) -> None:
    array = pa.array([b"a", b"b\xff", b"c"], pa.binary()).view(kind)
    source = source_of(save(tmp_path, pa.table({"text": array}), form))
    assert documents(source, SKIP) == ["a", "c"]
    assert skipped(source) == [(1, "is not UTF-8 (byte 2)")]


@pytest.mark.parametrize("form", FORMS)
def test_chat_columns_give_the_assistants_turns(tmp_path: Path, form: str) -> None:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "assistant"}]
    shared = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "g"}]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "p", "url": None}, {"type": "image"}]}]
    for column, name in (([turns, [], None], "messages"), ([shared, [], None], "conversations")):
        table = pa.table({"text": ["rendered"] * 3, name: column})
        source = source_of(save(tmp_path, table, form), ReadOptions(fields=(name,)))
        assert (source.column, source.kind) == (name, "messages")
        assert documents(source, SKIP) == [["a"] if name == "messages" else ["g"], []]
        assert skipped(source) == [(2, f"has null in field '{name}', not a list of messages")]
    assert documents(source_of(save(tmp_path, pa.table({"chat": [parts]}), form))) == [["p"]]
    sequence = pa.table({"conversation": [{"role": ["user", "bot"], "content": ["u", "s"]}]})
    assert documents(source_of(save(tmp_path, sequence, form))) == [["s"]]


@pytest.mark.parametrize("form", FORMS)
def test_dots_reach_into_structs(tmp_path: Path, form: str) -> None:
    rows = [{"out": {"text": "a", "n": 1}, "junk": 1}, None, {"out": None}, {"out": {"text": "d", "n": 4}}]
    options = ReadOptions(fields=("r.out.text",), id_field="r.out.n", skip_errors=True)
    source = source_of(save(tmp_path, pa.table({"r": rows}), form), options)
    [batch] = batches(source, options)
    assert (batch.texts, batch.ids) == (["a", "d"], ["1", "4"])
    assert [record for record, _ in batch.skipped] == [1, 2]
    flat = source_of(save(tmp_path, pa.table({"r.t": ["x"], "r": [{"t": 5}]}), form), ReadOptions(fields=("r.t",)))
    assert documents(flat) == ["x"]


LONG = "An answer that is long enough to be one."
VIEWS = [pa.list_view(pa.int32()), pa.large_list_view(pa.uint16()), pa.large_list_view(pa.int64())]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", VIEWS, ids=str)
def test_the_last_list_of_a_list_view_is_read_as_all_others_are(
    tmp_path: Path, form: str, kind: pa.DataType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[1, 2], [3], None, [], [4, 5, 6], [7], [8]]
    source = source_of(save(tmp_path, pa.table({"input_ids": pa.array(rows, kind)}), form, rows=3))
    expected = [row for row in rows if row is not None]
    for limit in (1, 4, 1 << 19):
        monkeypatch.setattr(columns, "BATCH_TOKENS", limit)
        assert documents(source, SKIP) == expected
    assert [record for record, _ in skipped(source)] == [2]


@pytest.mark.parametrize("form", FORMS)
def test_lists_structs_maps_and_runs_in_each_other_are_read(tmp_path: Path, form: str) -> None:
    turn = pa.map_(pa.string(), pa.string())
    said = [[("role", "user"), ("content", "u")], [("role", "gpt"), ("content", LONG)]]
    maps = pa.array([said, None, []], pa.list_(turn))
    tables = {
        "messages": (maps, [[LONG], []]),
        "completions": (
            pa.array([[LONG, "b"], None, [], ["c"]], pa.list_view(pa.string_view())),
            [[LONG, "b"], [], ["c"]],
        ),
        "generations": (pa.array([[[LONG], []], [["b"], ["c", "d"]]]), [[LONG], ["b", "c", "d"]]),
        "response": (pa.array([LONG, None, "b"], pa.large_string()).dictionary_encode(), [LONG, "b"]),
        "answer": (pa.array([f'["{LONG}", "b"]', '["c"]']), [[LONG, "b"], ["c"]]),
    }
    if form != "parquet":
        runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([LONG, "b"]))
        tables["output"] = (runs, [LONG, LONG, "b"])
    for name, (array, expected) in tables.items():
        source = source_of(save(tmp_path, pa.table({name: array}), form), SKIP)
        assert (source.column, documents(source, SKIP)) == (name, expected)


@pytest.mark.parametrize("form", FORMS)
def test_paths_go_through_lists_and_only_what_they_need_is_read(tmp_path: Path, form: str) -> None:
    choices = [
        {"choices": [{"message": {"content": LONG}, "logprobs": [0.5]}, {"message": {"content": "b"}}]},
        {"choices": []},
        None,
    ]
    path = save(tmp_path, pa.table({"r": choices, "id": ["x", "y", "z"]}), form)
    for field, expected in (
        ("r.choices.0.message.content", [LONG]),
        ("r.choices.*.message.content", [[LONG, "b"], []]),
        ("r.choices", [[LONG, "b"], []]),
    ):
        options = ReadOptions(fields=(field,), skip_errors=True)
        source = source_of(path, options)
        assert documents(source, options) == expected
        assert len(skipped(source, options)) == 3 - len(expected)
    if form == "parquet":
        file = columnar._parquet_file(path)
        read = columnar._leaves(file.schema_arrow, file.metadata, ["r.choices.0.message.content"])
        assert read == ["r.choices.list.element.message.content"]


@pytest.mark.parametrize("form", FORMS)
def test_all_that_a_turn_holds_is_read(tmp_path: Path, form: str) -> None:
    call = {"function": {"name": "f", "arguments": '{"x": 1}'}}
    turns = [
        {"role": "user", "content": "u", "reasoning_content": None, "tool_calls": None},
        {"role": "assistant", "content": "a", "reasoning_content": "thought", "tool_calls": [call]},
    ]
    source = source_of(save(tmp_path, pa.table({"messages": [turns]}), form))
    [found] = documents(source)
    assert sorted(found) == ["a", "thought", '{"x": 1}']
    [batch] = batches(source)
    assert {(turn.role, turn.part, turn.read, turn.count) for turn in batch.turns} == {
        ("user", "text", False, 1),
        ("assistant", "text", True, 1),
        ("assistant", "reasoning", True, 1),
        ("assistant", "tools", True, 1),
    }


@pytest.mark.parametrize("form", FORMS)
def test_of_several_columns_a_row_may_lack_all_but_one(tmp_path: Path, form: str) -> None:
    table = pa.table({"answer": [LONG, None, None, ""], "ids": [[1], [2], None, None], "id": ["a", "b", "c", "d"]})
    options = ReadOptions(fields=("answer", "ids"), skip_errors=True)
    from detect.readers import find_sources

    sources, _ = find_sources([save(tmp_path, table, form)], options)
    reason = "has nothing in {!r}, nor in the other fields that are read"
    for source, expected, broken in zip(sources, ([LONG, "", ""], [[1], [2]]), ([2], [2, 3]), strict=True):
        assert documents(source, options) == expected
        assert skipped(source, options) == [(row, reason.format(source.column)) for row in broken]


@pytest.mark.parametrize("form", FORMS)
def test_columns_that_hold_no_text_are_refused_by_name_and_listed_otherwise(tmp_path: Path, form: str) -> None:
    zipped = pa.field("zip", pa.binary(), metadata={"ARROW:extension:name": "my.zip"})
    times = pa.array([1, 2], pa.date32())
    arrays = [pa.array([LONG, LONG]), pa.array([b"\xff", b"\x80"]), pa.array([b"a", b"b"]), times, times]
    schema = pa.schema(
        [("text", pa.string()), ("blob", pa.binary()), zipped, ("response", times.type), ("id", times.type)]
    )
    path = save(tmp_path, pa.table(arrays, schema=schema), form)
    source = source_of(path)
    assert (source.column, ids(source)) == ("text", ["1970-01-02", "1970-01-03"])
    assert [(seen.name, seen.kind, seen.read) for seen in source.columns] == [
        ("text", "text", True),
        ("blob", "other", False),
        ("zip", "other", False),
    ]
    for name, reason in (
        ("blob", r"cannot be read in column 'blob': its first row is not UTF-8 \(byte 1\)"),
        ("zip", "cannot be read in column 'zip': its first row has a value of type my.zip"),
        ("response", "has no text, chat or token ids in field 'response'"),
    ):
        with pytest.raises(DyetraceError, match=reason):
            source_of(path, ReadOptions(fields=(name,)))


@pytest.mark.parametrize("form", FORMS)
def test_records_are_whole_but_for_nulls_and_columns_that_cannot_be_read(tmp_path: Path, form: str) -> None:
    from detect.readers.rows import records_of

    columns = {"text": [LONG] * 100, "blob": [b"\xff"] * 100, "n": range(100), "note": [None, *["x"] * 99]}
    image = [{"bytes": b"\xff", "path": "a.png"}] * 100
    source = source_of(save(tmp_path, pa.table(columns | {"image": image}), form, rows=80))
    records = list(records_of(source))
    assert [number for number, _ in records] == list(range(100))
    assert records[0] == (0, {"text": LONG, "n": 0, "image": {"path": "a.png"}})
    assert records[99] == (99, {"text": LONG, "n": 99, "note": "x", "image": {"path": "a.png"}})


@pytest.mark.parametrize("form", FORMS)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, form: str) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    with pytest.raises(DyetraceError, match="has two columns of the name 'text'"):
        source_of(save(tmp_path, table, form))


@pytest.mark.parametrize("form", FORMS)
def test_images_beside_text_are_neither_read_nor_in_the_way(tmp_path: Path, form: str) -> None:
    image = {"bytes": bytes(range(256)) * 4000, "path": None}
    turns = [
        {"role": "user", "content": [{"type": "image", "text": None, "image": image}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a", "image": None}]},
    ]
    source = source_of(save(tmp_path, pa.table({"messages": [turns] * 3}), form))
    assert documents(source) == [["a"]] * 3
    if form == "parquet":
        file = columnar._parquet_file(source.path)
        assert not [leaf for leaf in columnar._leaves(file.schema_arrow, file.metadata, None) if "bytes" in leaf]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_looked_at_beyond_its_first_batch_and_in_bounded_memory(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"text": [None] * 10 + [LONG] * 90, "answer": [LONG] + [None] * 99, "note": ["x" * 1000] * 100})
    options = ReadOptions(fields=("note",))
    seen = {found.name: found for found in source_of(save(tmp_path, table, form, rows=4), options).columns}
    assert (seen["text"].records, seen["answer"].records, seen["note"].characters) == (54, 1, 64000)
    monkeypatch.setattr(columnar, "_HEAD_BYTES", 8000)
    seen = {found.name: found for found in source_of(save(tmp_path, table, form, rows=100), options).columns}
    assert seen["note"].characters <= 10000


@pytest.mark.parametrize("form", FORMS)
def test_text_that_begins_further_down_in_another_column_is_counted(tmp_path: Path, form: str) -> None:
    late: list[str | None] = [None] * 100 + [LONG] * 100
    kinds = {"remark": pa.array(late, pa.string()), "note": pa.array(late, pa.string()).dictionary_encode()}
    table = pa.table({"text": [LONG] * 200, "score": [None] * 199 + [1.5], **kinds})
    source = source_of(save(tmp_path, table, form, rows=100))
    found = [turn for batch in batches(source) for turn in batch.turns]
    assert {(turn.part, turn.read, turn.characters) for turn in found} == {
        ("field remark", False, len(LONG)),
        ("field note", False, len(LONG)),
    }


@pytest.mark.parametrize("form", ["file.arrow", "stream.arrow"])
@pytest.mark.parametrize("layout", ["view", "list view", "fixed", "map", "JSON", "chat"])
def test_bytes_that_are_not_utf8_break_their_own_row_in_every_layout(tmp_path: Path, form: str, layout: str) -> None:
    words = [LONG.encode(), b"b\xff" + b"c" * 20, b"c", b"d"]
    plain = pa.array(words, pa.binary()).view(pa.string())
    offsets = pa.array([0, 1, 2, 3, 4], pa.int32())
    array = {
        "view": lambda: pa.array(words, pa.binary_view()).view(pa.string_view()),
        "list view": lambda: pa.ListViewArray.from_arrays(offsets[:-1], pa.array([1] * 4, pa.int32()), plain),
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(plain, 1),
        "map": lambda: pa.MapArray.from_arrays(offsets, pa.array(["assistant"] * 4), plain),
        "JSON": lambda: pa.ExtensionArray.from_storage(
            pa.json_(pa.string()), pa.array([b'"' + word + b'"' for word in words], pa.binary()).view(pa.string())
        ),
        "chat": lambda: pa.ListArray.from_arrays(
            offsets, pa.StructArray.from_arrays([pa.array(["assistant"] * 4), plain], ["role", "content"])
        ),
    }[layout]()
    options = ReadOptions(fields=("answer.assistant" if layout == "map" else "answer",), skip_errors=True)
    source = source_of(save(tmp_path, pa.table({"answer": array}), form), options)
    found = [one if isinstance(one, str) else one[0] for one in documents(source, options)]
    assert found == [LONG, "c", "d"]
    [(record, reason)] = skipped(source, options)
    assert (record, "is not UTF-8" in reason) == (1, True)


@pytest.mark.parametrize("form", FORMS)
def test_a_table_without_a_fitting_column_is_refused_with_the_names_it_has(tmp_path: Path, form: str) -> None:
    path = save(tmp_path, pa.table({"amount": [1.5], "tokens": [3]}), form)
    with pytest.raises(DyetraceError, match=r"name one with --field \(its fields: 'amount', 'tokens'\)"):
        source_of(path)
    with pytest.raises(DyetraceError, match="has no text, chat or token ids in field 'tokens'"):
        source_of(path, ReadOptions(fields=("tokens",)))
    with pytest.raises(DyetraceError, match="no column 'key' to take ids from"):
        source_of(path, ReadOptions(fields=("amount",), id_field="key"))


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_table_has_no_documents(tmp_path: Path, form: str) -> None:
    source = source_of(save(tmp_path, pa.table({"text": pa.array([], pa.string())}), form))
    assert documents(source) == []


def _damaged(path: str, where: int) -> None:
    data = bytearray(Path(path).read_bytes())
    data[where : where + 200] = bytes(200)
    Path(path).write_bytes(data)


def test_a_damaged_row_group_costs_its_own_rows_and_is_listed(tmp_path: Path) -> None:
    table = pa.table({"text": [np.random.default_rng(i).bytes(200).hex() for i in range(100)]})
    path = save(tmp_path, table, "parquet", rows=25, compression="zstd", use_dictionary=False)
    column = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    _damaged(path, column.data_page_offset)
    source = source_of(path)
    assert documents(source, SKIP) == [*table["text"].to_pylist()[:25], *table["text"].to_pylist()[50:]]
    [(record, reason)] = skipped(source)
    assert record == 25
    assert reason.startswith("and the 24 rows after it in row group 2 cannot be read: ")
    assert batches(source, SKIP)[-1].seen == 100
    with pytest.raises(BrokenRecord, match=r"data\.parquet, row 26 and the 24 rows"):
        batches(source)


def test_a_checksum_that_fails_is_noticed(tmp_path: Path) -> None:
    table = pa.table({"ids": [[i, 5, 6] * 50 for i in range(100)]})
    path = save(tmp_path, table, "parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    column = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    _damaged(path, column.data_page_offset + column.total_compressed_size // 2)
    [(record, reason)] = skipped(source_of(path))
    assert record == 0
    assert "99 rows after it" in reason


@pytest.mark.parametrize("form", ["parquet", "file.arrow"])
def test_a_file_cut_short_before_its_footer_is_refused_or_listed(tmp_path: Path, form: str) -> None:
    from detect.readers import find_sources

    path = save(tmp_path, pa.table({"text": ["a" * 100] * 100}), form)
    Path(path).write_bytes(Path(path).read_bytes()[:-20])
    with pytest.raises(DyetraceError, match=rf"data.{form} is no readable (Parquet|Arrow) file: "):
        source_of(path)
    (tmp_path / "good.txt").write_text("good")
    sources, [(name, reason)] = find_sources([str(tmp_path)], SKIP)
    assert [source.name for source in sources] == ["good.txt"]
    assert name == f"data.{form}"
    assert reason.isprintable()


@pytest.mark.parametrize("cut", ["end mark", "body"])
def test_an_arrow_stream_cut_short_is_noticed_even_between_batches(tmp_path: Path, cut: str) -> None:
    path = save(tmp_path, pa.table({"text": [f"document {i}" for i in range(100)]}), "stream.arrow", rows=10)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: -8 if cut == "end mark" else -100])
    source = source_of(path)
    found = documents(source, SKIP, split(source, 1))
    assert found == [f"document {i}" for i in range(100 if cut == "end mark" else 90)]
    [(record, reason)] = skipped(source)
    assert (record, "cut short" in reason or "cannot be read" in reason) == (len(found), True)
    with pytest.raises(BrokenRecord, match=f"row {len(found) + 1} "):
        batches(source, pieces=split(source, 1))


def test_an_end_mark_before_the_end_of_an_arrow_stream_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, pa.table({"text": [f"document {i}" for i in range(100)]}), "stream.arrow", rows=50)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole + whole)
    source = source_of(path)
    assert len(documents(source, SKIP)) == 100
    assert [record for record, _ in skipped(source)] == [100]


@pytest.mark.parametrize("form", FORMS)
def test_whatever_byte_is_damaged_rows_are_read_or_listed_or_the_file_is_refused(tmp_path: Path, form: str) -> None:
    chance = random.Random(form)
    rows = [[i, i] for i in range(60)]
    whole = Path(save(tmp_path, pa.table({"ids": rows}), form, rows=20)).read_bytes()
    for _ in range(100):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        (tmp_path / "damaged.arrow").write_bytes(data)
        try:
            source = source_of(tmp_path / "damaged.arrow", ReadOptions("parquet" if form == "parquet" else "arrow"))
            found = batches(source, SKIP, split(source, 1))
        except DyetraceError:
            continue
        assert sum(len(batch.records) for batch in found) == 60 or any(batch.skipped for batch in found)


def test_offsets_that_point_outside_an_arrow_file_are_noticed(tmp_path: Path) -> None:
    table = pa.table({"ids": pa.array([[1000, 1001], [1002], [1003]], pa.list_(pa.int32()))})
    path = save(tmp_path, table, "stream.arrow")
    offsets = np.array([0, 2, 3, 4], np.int32).tobytes()
    data = Path(path).read_bytes()
    assert data.count(offsets) == 1
    Path(path).write_bytes(data.replace(offsets, np.array([0, 2**30, 3, 4], np.int32).tobytes()))
    [(record, reason)] = skipped(source_of(path))
    assert record == 0
    assert "cannot be read" in reason
