"""Suspect documents: what is read, and what is refused in one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from detect.cli.reading import read_names
from detect.readers.batch import Tally
from detect.readers.prompts import read_prompts
from detect.readers.suspects import from_text_alone, read_suspects
from detect.student.texts.complete import serving_order
from watermark.errors import DyetraceError


def _write(folder: Path, name: str, data: str | bytes) -> str:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def test_a_plain_text_is_one_document_and_its_bytes_are_hashed(tmp_path: Path) -> None:
    source = _write(tmp_path, "essay.txt", "Grüße\n{not json}\n")
    [suspect], found = read_suspects(source)
    assert suspect.text == "Grüße\n{not json}\n"
    assert found.sha256 == hashlib.sha256(Path(source).read_bytes()).hexdigest()
    assert found.bytes == len("Grüße\n{not json}\n".encode())


def test_jsonl_gives_a_document_a_line_with_ids_and_unknown_fields_ignored(tmp_path: Path) -> None:
    source = _write(
        tmp_path,
        "s.jsonl",
        '{"id": "a", "text": "one", "stars": 5}\n\n{"token_ids": [1, 2], "prompt_token_ids": [3]}\n',
    )
    first, second = read_suspects(source)[0]
    assert (first.text, first.token_ids, first.name) == ("one", None, "line 1 (a)")
    assert (second.token_ids, second.prompt_token_ids, second.name) == ([1, 2], [3], "line 3")
    assert from_text_alone(first).text == "one"
    with pytest.raises(DyetraceError, match="no text to encode"):
        from_text_alone(second)


def test_what_is_not_read_is_counted_and_a_file_of_nothing_else_is_refused(tmp_path: Path) -> None:
    tally = Tally()
    source = _write(tmp_path, "s.jsonl", '{"text": "one", "response": "and two"}\n')
    assert [one.text for one in read_suspects(source, tally=tally)[0]] == ["one"]
    assert [(one.part, one.read, one.characters) for one in tally.counts()] == [("field response", False, 7)]
    source = _write(tmp_path, "e.jsonl", '{"text": "", "response": "and two"}\n')
    assert [one.text for one in read_suspects(source)[0]] == ["and two"]
    source = _write(tmp_path, "c.jsonl", '{"messages": [{"role": "zorb", "content": "one"}]}\n')
    with pytest.raises(DyetraceError, match=r"its turns are 'zorb' .text: 1.: name another field with --text-field"):
        read_suspects(source)


def test_the_text_field_can_be_named(tmp_path: Path) -> None:
    source = _write(tmp_path, "s.jsonl", '{"text": "no", "response": "yes"}\n')
    assert read_suspects(source, text_field="response")[0][0].text == "yes"


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.json", '[{"text": "one"},\n {"text": "two"}]', [("element 1", "one"), ("element 2", "two")]),
        ("b.csv", 'id,response\n7,"one, two"\n', [("row 1 (7)", "one, two")]),
        ("c.json", '["one", "two"]', [("element 1", "one"), ("element 2", "two")]),
        (
            "d.jsonl",
            '{"messages": [{"role": "user", "content": "why?"}, '
            '{"role": "assistant", "content": "one", "reasoning_content": "two"}]}',
            [("line 1, part 1", "one"), ("line 1, part 2", "two")],
        ),
        ("e.jsonl", '{"chosen": "one", "rejected": "two"}', [("line 1, chosen", "one"), ("line 1, rejected", "two")]),
        ("f.jsonl", '"one text"\n"two"\n', [("line 1", "one text"), ("line 2", "two")]),
        ("an essay", "[draft] one\n", [("an essay", "[draft] one\n")]),
    ],
)
def test_every_form_is_read_and_what_is_not_one_text_comes_apart(
    tmp_path: Path, name: str, data: str, found: list[tuple[str, str]]
) -> None:
    suspects = read_suspects(_write(tmp_path, name, data))[0]
    assert [(Path(suspect.name).name, suspect.text) for suspect in suspects] == found


def test_what_stands_beside_the_records_of_a_file_is_counted(tmp_path: Path) -> None:
    tally = Tally()
    source = _write(tmp_path, "a.json", '{"data": [{"text": "one"}, {"text": "two"}], "notes": ["three", "four"]}')
    assert [suspect.text for suspect in read_suspects(source, tally=tally)[0]] == ["one", "two"]
    assert [(one.part, one.read, one.count) for one in tally.counts()] == [("member notes", False, 2)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("gone.txt", None, "cannot read .*gone.txt: No such file"),
        ("empty.txt", " \n", "is empty"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "not UTF-8 text .byte 4.; convert it first$"),
        ("cut.jsonl", '{"text": "a"}\n{"text": "b', "cut.jsonl, line 2 is not JSON: .*; mend or remove it"),
        ("list.jsonl", "[1]\n", "list.jsonl is JSON, but not an object with fields .element 1."),
        ("type.jsonl", '{"text": 3}\n', "has no field that looks like a document; .*--text-field"),
        ("types.jsonl", '{"text": "a"}\n{"text": 3}\n', "line 2: Expected `str"),
        ("field.jsonl", '{"text": "a"}\n{"body": "a"}\n', "line 2 has neither a 'text' nor a 'token_ids'"),
        ("ids.jsonl", '{"token_ids": [-1]}\n', "outside 0"),
    ],
)
def test_bad_input_is_refused_with_what_where_and_what_to_do(
    tmp_path: Path, name: str, data: str | bytes | None, message: str
) -> None:
    source = str(tmp_path / name) if data is None else _write(tmp_path, name, data)
    with pytest.raises(DyetraceError, match=message) as error:
        read_suspects(source)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "saved-on-windows"
    file.write_bytes(b"\xef\xbb\xbfacme\r\nzenith\r\n")
    assert read_names(file) == ["acme", "zenith"] == read_prompts(str(file))
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "Rivers"}\r\n')
    assert read_prompts(str(file)) == ["Rivers"]
    file.write_bytes(b"\xef\xbb\xbf" + b"0" * 64 + b"\r\n")
    assert serving_order(file) == {"0" * 64: 0}
