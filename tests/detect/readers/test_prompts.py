"""Prompts of files: what is asked, and what is refused before anything is paid for."""

from __future__ import annotations

from pathlib import Path

import pytest

from detect.readers.prompts import read_prompts
from watermark.errors import DyetraceError


def _write(folder: Path, name: str, data: str) -> str:
    (folder / name).write_text(data)
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "data", "field"),
    [
        ("a.txt", "Why?\n\nHow?\n", None),
        ("b.jsonl", '{"prompt": "Why?", "text": "x"}\n{"prompt": "How?", "text": "y"}\n', None),
        ("c.json", '[\n {"prompt": "Why?"},\n {"prompt": "How?"}\n]\n', None),
        ("d.csv", "id,prompt\n1,Why?\n2,How?\n", None),
        ("e.json", '["Why?", "How?"]', "text"),
        ("f.jsonl", '{"question": "Why?", "answer": "x"}\n{"question": "How?", "answer": "y"}\n', "question"),
        (
            "g.json",
            '[{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "x"}]}, '
            '{"messages": [{"role": "user", "content": "How?"}]}]',
            "messages",
        ),
    ],
)
def test_prompts_are_read_of_every_form_and_the_field_is_said(
    tmp_path: Path, name: str, data: str, field: str | None
) -> None:
    said: list[str] = []
    assert read_prompts(_write(tmp_path, name, data), said.append) == ["Why?", "How?"]
    assert len(said) == (field is not None)
    assert field is None or f"from {field!r}" in said[0]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", " \n", "holds no prompt; give one a line"),
        (
            "b.json",
            '[{"question": "Why?", "instruction": "x"}]',
            "its fields don't say which .*'question', 'instruction'",
        ),
        ("c.jsonl", '{"prompt": "Why?"}\n{"text": "x"}\n', "line 2 has no field 'prompt'; each record needs"),
        ("d.jsonl", '{"prompt": " "}\n', "line 1 has an empty prompt"),
        ("e.jsonl", '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}\n', "2 turns"),
        ("gone.txt", None, "cannot read .*gone.txt: No such file"),
        ("folder", "", "it is a folder; give one file"),
    ],
)
def test_a_file_that_does_not_say_what_its_prompts_are_is_refused(
    tmp_path: Path, name: str, data: str | None, message: str
) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
    elif data is not None:
        _write(tmp_path, name, data)
    with pytest.raises(DyetraceError, match=message) as error:
        read_prompts(str(tmp_path / name))
    assert "\n" not in str(error.value)
