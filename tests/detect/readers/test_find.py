"""Which files are found, what they are taken for, and what is refused in one line."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from detect.readers import ReadOptions, Source, find_sources, sha256_of
from tests.detect.readers.reading import SKIP, documents, jsonl, source_of, write
from watermark.errors import DyetraceError
from watermark.keys import SecretKey, write_key_file

LINE = '{"text": "a"}\n'


def names(*paths: str | Path, options: ReadOptions | None = None) -> list[str]:
    return [source.name for source in find_sources([str(path) for path in paths], options or ReadOptions())[0]]


def test_a_folder_means_all_its_files_in_order_but_hidden_ones_and_those_about_the_data(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "b/10.jsonl", "a.ndjson", "b/.hidden.jsonl", ".git/x.jsonl", "c/d/e.txt", "z.json"):
        write(tmp_path / name, LINE)
    for name in ("README.md", "b/script.py", "b/_SUCCESS", "b/.part.crc", "c/x.crc", "dataset_infos.json"):
        write(tmp_path / name, "x")
    write(tmp_path / "table.csv", "text\na\n")
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "b" / "p.parquet")
    assert names(tmp_path) == [
        "README.md",
        "a.ndjson",
        "b/10.jsonl",
        "b/2.jsonl",
        "b/p.parquet",
        "b/script.py",
        "c/d/e.txt",
        "table.csv",
        "z.json",
    ]


def test_what_is_passed_over_in_a_folder_ends_the_scan_or_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "good.jsonl", LINE)
    write(tmp_path / "config.json", '{\n  "a": 1\n}\n')
    write(tmp_path / "model.bin", b"\0\1")
    write(tmp_path / "lfs.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n")
    write(tmp_path / "all.zip", b"PK\3\4\0\0")
    write(tmp_path / "table.lance" / "data" / "1.lance", b"\0LANC")
    write(tmp_path / "table.lance" / "_versions" / "1.manifest", b"\0LANC")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        DyetraceError,
        match=r"all.zip is a zip archive or an office document; unpack it first .6 of 7 files .*, [.]{3}.*skip$",
    ):
        find_sources([str(tmp_path)], ReadOptions())
    [source], passed = find_sources([str(tmp_path)], SKIP)
    assert source.name == "good.jsonl"
    said = dict(passed)
    assert sorted(said) == ["all.zip", "config.json", "lfs.parquet", "model.bin", "pipe", "table.lance"]
    assert said["lfs.parquet"] == "is a pointer of Git LFS, not the file itself: run git lfs pull where it lies"
    assert said["table.lance"] == "is a Lance table, which is not read; write it as Parquet first"
    assert said["pipe"] == "is no regular file, and a scan reads its files more than once"
    assert "has no field" in said["config.json"]
    for name in said:
        with pytest.raises(DyetraceError, match=re.escape(said[name])):
            find_sources([str(tmp_path / "good.jsonl"), str(tmp_path / name)], ReadOptions())


def test_a_form_that_is_asked_for_leaves_out_no_file_of_a_folder_silently(tmp_path: Path) -> None:
    for name in ("README.md", "notes", "list.jsonl"):
        write(tmp_path / name, LINE)
    sources, passed = find_sources([str(tmp_path)], ReadOptions(form="text", skip_errors=True))
    assert [(source.name, source.form) for source in sources] == [("README.md", "text"), ("notes", "text")]
    assert passed == [("list.jsonl", "is JSONL by its name, and --format text is asked for")]


def test_files_keep_the_order_of_the_paths_and_each_is_read_once(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "sub/c.jsonl"):
        write(tmp_path / name, LINE)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    second = str(tmp_path / "b.jsonl")
    assert names(second, tmp_path) == [second, "a.jsonl", "sub/c.jsonl"]


def test_globs_match_as_in_a_shell(tmp_path: Path) -> None:
    for name in ("a/1.jsonl", "a/b/2.jsonl", "a/b/3.txt", "[x].jsonl"):
        write(tmp_path / name, LINE)
    assert names(tmp_path / "**/*.jsonl") == [
        str(tmp_path / name) for name in ("[x].jsonl", "a/1.jsonl", "a/b/2.jsonl")
    ]
    assert names(tmp_path / "[x].jsonl") == [str(tmp_path / "[x].jsonl")]
    assert names(tmp_path / "a*") == ["1.jsonl", "b/2.jsonl", "b/3.txt"]
    assert len(names(tmp_path / "a" / "**")) == 3
    with pytest.raises(DyetraceError, match="no file matches"):
        names(tmp_path / "*.parquet")


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for name in ("x/train.jsonl", "y/train.jsonl", "y/test.jsonl"):
        write(tmp_path / name, LINE)
    found = names(tmp_path / "x", tmp_path / "y")
    assert found == [str(tmp_path / "x" / "train.jsonl"), "test.jsonl", str(tmp_path / "y" / "train.jsonl")]


@pytest.mark.parametrize(
    ("name", "data", "form"),
    [
        ("a.jsonl", LINE, "jsonl"),
        ("a.NDJSON", LINE, "jsonl"),
        ("a.json", LINE, "jsonl"),
        ("records", LINE, "jsonl"),
        ("records.txt", LINE + LINE, "jsonl"),
        ("answer.txt", LINE, "text"),
        ("answer.md", '[\n{"text": "a"},\n{"text": "b"}]', "text"),
        ("records.csv", LINE, "jsonl"),
        ("records.log", "{curly} text", "text"),
        ("a.txt", "[1] A footnote", "text"),
        ("a.md", "# Title", "text"),
        ("s.json", '[{"text": "a"}]', "json"),
        ("s.jsonl", '[\n{"text": "a"}]', "json"),
        ("s.json", '{\n "text": "a"}', "json"),
        ("s", '{\n "text": "a"}', "json"),
        ("s.json", '{"data": [{"text": "a"}]}', "json"),
        ("s.json", LINE + LINE, "jsonl"),
        ("s.csv", "text\na\n", "csv"),
        ("s.tsv.1", "id\ttext\n1\ta\n", "csv"),
        ("s.csv-00000-of-00002", "id,text\n1,a\n", "csv"),
        ("empty.jsonl", "", "jsonl"),
        ("blank.jsonl", "\n \n", "jsonl"),
    ],
)
def test_the_form_goes_by_the_ending_and_else_by_the_content(tmp_path: Path, name: str, data: str, form: str) -> None:
    source = source_of(write(tmp_path / name, data))
    assert source.form == form
    documents(source)


@pytest.mark.parametrize(
    ("record", "column", "kind"),
    [
        ({"text": "t", "messages": [{"role": "user", "content": "c"}]}, "messages", "messages"),
        ({"prompt": "c", "text": "t"}, "text", "text"),
        ({"output": "o", "context": "a", "token_ids": [1]}, "output", "text"),
        ({"prompt": "p", "generation": "g"}, "generation", "text"),
        ({"text": 5, "tokens": ["the"], "input_ids": [1]}, "input_ids", "tokens"),
        ({"text": None, "ids": []}, "ids", "tokens"),
        ({"conversation": "one string", "answer": "a"}, "answer", "text"),
    ],
)
def test_chats_are_preferred_to_texts_and_texts_to_token_ids(
    tmp_path: Path, record: dict[str, Any], column: str, kind: str
) -> None:
    source = source_of(write(tmp_path / "s.jsonl", "broken\n" + jsonl(record)))
    assert (source.column, source.kind) == (column, kind)


def test_a_named_field_is_taken_for_what_it_holds(tmp_path: Path) -> None:
    record = {"id": 1, "key": "k", "text": "t", "reply": [{"role": "ai", "content": "c"}], "codes": [1]}
    path = write(tmp_path / "s.jsonl", jsonl(record))
    for field, kind in (("reply", "messages"), ("codes", "tokens"), ("key", "text")):
        source = source_of(path, ReadOptions(fields=(field,), id_field="key"))
        assert (source.column, source.kind) == (field, kind)
        assert source.id_column == (None if field == "key" else "key")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "s.jsonl",
            '{"url": "a", "n\\u001b": 1}\n',
            r"has no field that .*; name one with --field \(its fields: 'url', 'n\\x1b'\)",
        ),
        ("s.jsonl", "nonsense\n", r"is not JSON: Expecting value .*line 1"),
        ("s.json", "[1, 2]", r"is JSON, but not an object with fields \(element 1\)"),
        ("s.csv", "text,text\na,b\n", "has two columns of the name 'text'"),
        ("s.csv", f"{'long ' * 99}\nb\n", "has text in its first line, not the names of its columns"),
        ("s.csv", "text\na\n".encode("utf-16"), "is text in UTF-16; convert it to UTF-8 first: iconv"),
        ("s.jsonl", LINE.encode("utf-16"), "is text in UTF-16"),
        ("s.bin", b"a\n\0\0", "is no JSONL, JSON, CSV, WARC, tar, Parquet, Arrow or plain text file"),
        ("s.pdf", b"%PDF-1.4\nText", "is a PDF document; write what it holds as text first"),
        ("s.jsonl.gz", gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "is compressed twice"),
        ("s.7z", b"7z\xbc\xaf\x27\x1c\0", "is a 7z archive; unpack it first"),
        ("s.arc", b"filedesc://x.arc 0.0.0.0", "is an ARC file; convert it to WARC first"),
        ("s.tar", b"\1" * 1024, "cannot be read: a header is damaged"),
        ("s.warc", b"<html>", "cannot be read: there is no record where one should begin"),
        ("s.parquet", "no", "is no readable Parquet file"),
        ("s.arrow", "no", "is no readable Arrow file"),
        ("s.parquet", b"\x1f\x8b\x08\0", "is Parquet inside gzip; decompress it first"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line_or_listed(
    tmp_path: Path, name: str, data: str | bytes, message: str
) -> None:
    bad = write(tmp_path / name, data)
    good = write(tmp_path / "good.txt", "good")
    with pytest.raises(DyetraceError, match=f"{name} {message}") as error:
        find_sources([good, bad], ReadOptions())
    assert str(error.value).isprintable()
    [source], [(listed, reason)] = find_sources([bad, good], SKIP)
    assert (source.name, listed) == (good, bad)
    assert reason in str(error.value)
    with pytest.raises(DyetraceError, match="none of 1 files can be read; "):
        find_sources([bad], SKIP)


def test_paths_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    for path, message in (
        ("-", "cannot read standard input; give a file"),
        (str(tmp_path / "gone.jsonl"), "No such file or directory"),
        (str(tmp_path), "has no data file"),
    ):
        with pytest.raises(DyetraceError, match=message):
            find_sources([path], SKIP)


def test_sources_pass_through_json_and_are_hashed_as_they_lie(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "s.jsonl", LINE))
    assert msgspec.json.decode(msgspec.json.encode(source), type=Source) == source
    assert sha256_of(source) == hashlib.sha256(LINE.encode()).hexdigest()


def test_plain_files_need_no_pyarrow_and_others_say_so(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", LINE)
    write(tmp_path / "b.txt", "b")
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "c.parquet")
    write(tmp_path / "d.jsonl.zst", bytes(pa.compress(LINE.encode(), codec="zstd", asbytes=True)))
    code = """
import sys
sys.modules["pyarrow"] = None
from detect.readers import *
from watermark.errors import DyetraceError
from watermark.keys import SecretKey, write_key_file
for name in "a.jsonl", "b.txt", "c.parquet", "d.jsonl.zst":
    try:
        [source], _ = find_sources([name], ReadOptions(skip_errors=True))
        print([batch.texts for piece in split(source) for batch in read(source, piece, ReadOptions())])
    except DyetraceError as error:
        print(error)
"""
    root = Path(__file__).parents[4]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == [
        "[['a']]",
        "[['b']]",
        "Parquet needs pyarrow: pip install 'dyetrace[scan]'",
        "zstd needs pyarrow: pip install 'dyetrace[scan]'",
    ], run.stderr


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The real library, kept from the network and from the user's cache."""
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    datasets.disable_progress_bars()
    return datasets


def test_a_saved_dataset_is_read_in_its_own_order_without_stray_files(tmp_path: Path, datasets: Any) -> None:
    rows = [list(range(i)) for i in range(50)]
    saved = datasets.Dataset.from_dict({"input_ids": rows, "id": [f"r{i}" for i in range(50)]})
    saved.save_to_disk(tmp_path / "set", num_shards=3)
    write(tmp_path / "set" / "cache-1234.arrow", "left behind by map()")
    sources, _ = find_sources([str(tmp_path / "set")], ReadOptions())
    assert [source.name for source in sources] == [f"data-0000{i}-of-00003.arrow" for i in range(3)]
    assert [row for source in sources for row in documents(source)] == rows


def test_a_saved_selection_holds_the_selected_rows(tmp_path: Path, datasets: Any) -> None:
    saved = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(20)]}).select([3, 1, 15])
    saved.save_to_disk(tmp_path / "set")
    assert documents(source_of(tmp_path / "set")) == ["t3", "t1", "t15"]


def test_a_saved_dataset_dict_gives_all_its_splits(tmp_path: Path, datasets: Any) -> None:
    chats = [[{"role": "user", "content": "u"}, {"role": "assistant", "content": f"a{i}"}] for i in range(6)]
    split = datasets.Dataset.from_dict({"messages": chats})
    datasets.DatasetDict({"train": split, "test": split.select([5])}).save_to_disk(tmp_path / "sets" / "inner")
    sources, _ = find_sources([str(tmp_path / "sets")], ReadOptions())
    assert [source.name for source in sources] == [
        f"inner/{name}/data-00000-of-00001.arrow" for name in ("test", "train")
    ]
    assert [documents(source) for source in sources] == [[["a5"]], [[f"a{i}"] for i in range(6)]]
    for file in (tmp_path / "sets" / "inner" / "test").iterdir():
        file.unlink()
    (tmp_path / "sets" / "inner" / "test").rmdir()
    with pytest.raises(DyetraceError, match="lacks split 'test'"):
        find_sources([str(tmp_path / "sets")], ReadOptions())


def test_a_saved_dataset_without_one_of_its_files_is_refused(tmp_path: Path, datasets: Any) -> None:
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "set", num_shards=2)
    (tmp_path / "set" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DyetraceError, match="is missing, which"):
        find_sources([str(tmp_path / "set")], ReadOptions())


def test_a_key_that_lies_beside_the_data_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some prose.")
    write_key_file(tmp_path / "owner.key", SecretKey(bytes(range(32))))
    with pytest.raises(DyetraceError, match=r"owner\.key looks like a secret key.*move it out of the way"):
        find_sources([str(tmp_path)], ReadOptions())
    sources, skipped = find_sources([str(tmp_path)], ReadOptions(skip_errors=True))
    assert [source.name for source in sources] == ["a.txt"] and skipped[0][0] == "owner.key"
