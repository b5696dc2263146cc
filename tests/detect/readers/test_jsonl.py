"""JSON lines: any cut gives the same documents, and no broken line is lost."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.readers import BrokenRecord, Piece, ReadOptions, batch, jsonl, place, read, split, stream
from detect.readers import records as record_items
from tests.detect.readers.reading import SKIP, batches, documents, ids, skipped, source_of, write
from tests.detect.readers.reading import jsonl as lines_of
from watermark.errors import DyetraceError

_TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u2028\u2029\x85\x0b\x1c\r\n"), max_size=30)
_GOOD = st.builds(lambda text, ascii: json.dumps({"text": text}, ensure_ascii=ascii), _TEXT, st.booleans())
_BROKEN = st.sampled_from(['{"text": 3}', '{"text": null}', "{}", "[1]", "nonsense", '{"text": "a', '{"text": "\x01"}'])


def test_unknown_fields_blank_lines_crlf_bom_and_control_characters_do_no_harm(tmp_path: Path) -> None:
    first = '\ufeff{"text": "a\\u0000\\u001b[31m", "x": NaN}\r\n\r\n \n'
    data = first + '{"text": "", "y": [{}]}\n{"text": "c\u2028"}'
    source = source_of(write(tmp_path / "s.jsonl", data))
    assert documents(source) == ["a\0\x1b[31m", "", "c\u2028"]
    [found] = batches(source)
    assert (found.records.tolist(), found.seen) == ([0, 3, 4], 5)


def test_own_ids_are_texts_and_never_empty(tmp_path: Path) -> None:
    records = [{"text": "a", "id": i} for i in ("x", 7, 1.5, "", None, [1], True)] + [{"text": "a"}]
    source = source_of(write(tmp_path / "s.jsonl", lines_of(*records)))
    assert ids(source) == ["x", "7", "1.5", None, None, None, None, None]


def test_unpaired_surrogates_become_replacement_characters_and_pairs_are_joined(tmp_path: Path) -> None:
    lines = [r'{"text": "a\ud800b\\ud800\ud83d\ude00"}', r'{"text": "\ude00\ud83d", "id": "\uDFFF"}']
    source = source_of(write(tmp_path / "s.jsonl", "\n".join(lines)))
    assert documents(source) == ["a\ufffdb\\ud800\U0001f600", "\ufffd\ufffd"]


@given(
    st.lists(st.tuples(_GOOD | _BROKEN | st.sampled_from(["", " ", "\t"]), st.sampled_from(["\n", "\r\n"]))),
    st.booleans(),
    st.lists(st.integers(0, 400), max_size=6),
    st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_any_cut_gives_the_same_records_in_the_same_order(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str]], final: bool, cuts: list[int], block: int
) -> None:
    data = "".join(line + end for line, end in [('{"text": "first"}', "\n"), *parts])
    data = data if final else data.rstrip("\r\n")
    source = source_of(write(tmp_path_factory.mktemp("cut") / "s.jsonl", data))
    want, broken = [], []
    for number, line in enumerate(data.encode().split(b"\n")):
        try:
            text = json.loads(line)["text"]
            assert isinstance(text, str)
            want.append((number, text))
        except (ValueError, KeyError, TypeError, AssertionError):
            broken += [number] if line.strip() else []

    edges = sorted({0, source.bytes, *(cut for cut in cuts if cut < source.bytes)})
    first = 0
    found: list[Any] = []
    lost: list[Any] = []
    for start, stop in pairwise(edges):
        piece = Piece(start, stop)
        assert jsonl.records_before(source, piece) == first
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream.lines, "__defaults__", (block,))
            parts_of_piece = batches(source, SKIP, [piece])
        for part in parts_of_piece:
            found += zip((first + part.records).tolist(), part.texts or [], strict=True)
            lost += [first + number for number, _ in part.skipped]
        first += parts_of_piece[-1].seen if parts_of_piece else 0
    assert found == want
    assert lost == broken


def test_pieces_cover_a_file_without_reading_it(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "s.jsonl", lines_of(*({"text": f"document {i}"} for i in range(1000)))))
    pieces = split(source, 1000)
    assert len(pieces) == round(source.bytes / 1000)
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    assert documents(source, pieces=pieces) == [f"document {i}" for i in range(1000)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a', "is not JSON: Unterminated string .*character 10"),
        (b'{"text": "a"} {"text": "b"}', "is not JSON: Extra data"),
        (b'{"text": "caf\xe9"}', "is not UTF-8 .byte 14 of the line"),
        (b'{"body": 5}', "has no field 'text'"),
        (b'{"text": null}', "has null in field 'text', not text"),
        (b'{"text": [1]}', "has a list in field 'text', not text"),
        (b'["a"]', "is JSON, but not an object"),
        (b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
        (b'{"text": "a", "x": ' + b"1" * 5000 + b", y}", "is not JSON: "),
    ],
)
def test_a_broken_line_is_named_with_what_is_wrong_and_what_to_do(tmp_path: Path, line: bytes, reason: str) -> None:
    good = b'{"text": "good"}\n'
    source = source_of(write(tmp_path / "s.jsonl", good * 20 + line + b"\n" + good))
    [(number, found)] = skipped(source)
    assert number == 20
    later = Piece(len(good) * 10 - 3, source.bytes)
    with pytest.raises(BrokenRecord, match=f"s.jsonl, line 21 {reason}.*; mend it, or .*--on-error skip") as error:
        list(read(source, later, ReadOptions()))
    assert (error.value.record, error.value.reason) == (10, found)
    assert str(error.value).isprintable()
    again = pickle.loads(pickle.dumps(error.value))
    assert (str(again), again.record, again.reason) == (str(error.value), 10, found)


def test_a_line_too_long_to_hold_is_broken_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (batch, stream, record_items):
        monkeypatch.setattr(module, "MAX_DOCUMENT", 1 << 20)
    texts = ["a", "b" * (9 << 20), "c", "d" * (1 << 20), "e"]
    path = write(tmp_path / "s.jsonl", lines_of(*({"text": text} for text in texts)))
    for start in (0, 1, 20):
        source = source_of(path)
        found = [part for part in batches(source, SKIP, [Piece(start, source.bytes)])]
        assert [text for part in found for text in part.texts or []] == (["a"] if not start else []) + ["c", "e"]
        reasons = [reason for part in found for _, reason in part.skipped]
        assert reasons == ["is longer than 1 MiB"] * (2 if start < 20 else 1)


def test_token_ids_are_checked(tmp_path: Path) -> None:
    rows = [[1, 2**32 - 1], [], [-1], [2**32], [3, None], [1.5], [True], ["1"], 5, [10**30], None]
    source = source_of(write(tmp_path / "s.jsonl", lines_of(*({"token_ids": row} for row in rows))))
    assert source.kind == "tokens"
    assert documents(source, SKIP) == [[1, 2**32 - 1], []]
    reasons = dict(skipped(source))
    assert list(reasons) == list(range(2, 11))
    assert reasons[2] == "has token id -1 outside 0 .. 2^32 - 1 ('token_ids', position 0)"
    assert reasons[4] == "has null among its token ids ('token_ids', position 1)"
    assert reasons[8] == "has a number in field 'token_ids', not a list of token ids"


def test_of_a_chat_only_the_wanted_turns_are_read_and_never_joined(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a1"},
        {"role": "Assistant", "content": [{"type": "text", "text": "a2"}, {"type": "image"}, "a3"]},
        {"role": "assistant", "content": None},
        {"role": "assistant", "tool_calls": []},
    ]
    records = [
        {"messages": turns, "id": 1},
        {"messages": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "g"}]},
        {"messages": [{"role": "user", "content": "alone"}]},
        {"messages": []},
        {"messages": {"role": ["user", "ai"], "content": ["u", "seq"]}},
    ]
    source = source_of(write(tmp_path / "s.jsonl", lines_of(*records)))
    assert (source.column, source.kind) == ("messages", "messages")
    assert documents(source) == [["a1", "a2", "a3"], ["g"], [], [], ["seq"]]
    users = ReadOptions(roles=("user", "human"))
    assert documents(source, users) == [["u"], ["u"], ["alone"], [], ["u"]]


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([{"role": "assistant", "words": "a"}], "has a message without 'content' or 'value' ('m.c', message 1)"),
        ([{"content": "a"}], "has a message without 'role' or 'from' ('m.c', message 1)"),
        ([5], "has a number as message 1 of 'm.c', not an object"),
        ([{"role": "assistant", "content": 3}], "has a number as content of message 1 of 'm.c', not text"),
        ([{"role": "assistant", "content": [{"type": "text"}]}], "has a part without 'text' in message 1 of 'm.c'"),
        ([{"role": "assistant", "content": [3]}], "has a number among the parts of message 1 of 'm.c'"),
        ({"role": ["user"], "content": ["a", "b"]}, "has an object in field 'm.c', not a list of messages"),
        (None, "has null in field 'm.c', not a list of messages"),
    ],
)
def test_a_chat_of_unknown_shape_is_broken(tmp_path: Path, chat: object, reason: str) -> None:
    good = [{"role": "assistant", "content": "a"}]
    path = write(tmp_path / "s.jsonl", lines_of({"m": {"c": good}}, {"m": {"c": chat}}))
    options = ReadOptions(fields=("m.c",), skip_errors=True)
    assert skipped(source_of(path, options), options) == [(1, reason)]


def test_dots_reach_nested_fields_or_belong_to_the_name(tmp_path: Path) -> None:
    records = [{"a": {"b": "nested", "n": 1}}, {"a.b": "flat"}, {"a": "no object"}, {"a": None, "a.b": "both"}]
    options = ReadOptions(fields=("a.b",), id_field="a.n", skip_errors=True)
    source = source_of(write(tmp_path / "s.jsonl", lines_of(*records)), options)
    assert documents(source, options) == ["nested", "flat", "both"]
    assert ids_of(source, options) == ["1", None, None]
    assert skipped(source, options) == [(2, "has no field 'a.b'")]


def ids_of(source: object, options: ReadOptions) -> list[str | None]:
    return [name for part in batches(source, options) for name in part.ids]  # type: ignore[arg-type]


def test_a_file_that_changed_since_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    source = source_of(write(path, lines_of({"text": "a"})))
    write(path, lines_of({"text": "a"}, {"text": "b"}))
    for use in (lambda: split(source), lambda: list(read(source, Piece(0, 5), SKIP)), lambda: stream.sha256_of(source)):
        with pytest.raises(DyetraceError, match="has changed since the scan began"):
            use()
    path.unlink()
    with pytest.raises(DyetraceError, match=r"cannot read .*No such file"):
        split(source)


def test_places_are_counted_from_one(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "s\x1b.jsonl", lines_of({"text": "a"})))
    assert place(source, 16).endswith("s?.jsonl, line 17")
    assert place(source_of(write(tmp_path / "t.txt", "a")), 0).endswith("t.txt")
