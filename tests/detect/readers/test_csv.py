"""Tables: what Python's own writer wrote is read, whatever the separator, and every broken row is counted."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.readers import BrokenRecord, ReadOptions, place
from detect.readers import csv as tables
from detect.readers.batch import Broken
from tests.detect.readers.reading import SKIP, batches, documents, ids, skipped, source_of, write

_CELL = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",;\t|\r\n'), max_size=8)


@given(
    st.lists(st.tuples(_CELL, _CELL, _CELL), max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\r\n", "\n", "\r"]),
    st.booleans(),
    st.sampled_from([1, 2, 5, 1 << 20]),
)
@settings(max_examples=40, deadline=None)
def test_whatever_pythons_writer_wrote_is_read_in_blocks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    separator: str,
    quoting: int,
    end: str,
    mark: bool,
    block: int,
) -> None:
    quoting = csv.QUOTE_ALL if end == "\r" else quoting  # or the writer leaves an LF bare in the midst of such rows
    rows = [(first, second, third.rstrip("\r")) for first, second, third in rows]  # CR LF ends a row
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerows([("id", "a text", "c"), *rows])
    data = ("\ufeff" if mark else "") + file.getvalue()
    path = write(tmp_path_factory.mktemp("table") / "s.csv", data)
    found = [item for part in tables._items(path, "", None, block) for item in part]
    assert found == [dict(zip(("id", "a text", "c"), row, strict=True)) for row in rows]


def test_the_first_line_says_what_separates_values(tmp_path: Path) -> None:
    for name, data in {
        "comma.csv": 'id,text\n7,"a; b\t| c, d"\n',
        "semicolon.csv": "id;text\r\n7;a, b, c, d\r\n",
        "tab.tsv": "id\ttext\n7\ta, b; c | d",
        "pipe.csv": "id|text\n7|a, b; c\n",
        "quoted.csv": '"id","a;b;c",text\n7,,"a text"\n',
    }.items():
        source = source_of(write(tmp_path / name, data))
        assert (source.form, source.column, len(documents(source)), ids(source)) == ("csv", "text", 1, ["7"])
        for above in ("\n\r\n", f"sep={data.split('id')[1].strip(chr(34))[0]}\r\n"):
            again = source_of(write(tmp_path / f"below {name}", above + data))
            assert (again.column, documents(again), ids(again)) == ("text", documents(source), ["7"])
    alone = source_of(write(tmp_path / "one.csv", 'text\nA line, with a comma.\n\n"Two\nlines"\n'))
    assert documents(alone) == ["A line, with a comma.", "Two\nlines"]
    assert place(alone, 2).endswith("one.csv, row 3")


def test_what_stands_above_the_names_of_columns_is_not_taken_for_them(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="take away what stands above"):
        tables.inspect(write(tmp_path / "s.csv", '# made today\nid,text\n1,"a, b"\n'), "", ReadOptions())


def test_broken_rows_are_counted_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [
        b"1,a good text",
        b"2,too,many",
        b"3",
        b"",
        b'4,"ends, "too early"',
        b"5,caf\xe9",
        b'6,"a quote "" in it"',
        b'7,a bare " quote',
    ]
    source = source_of(write(tmp_path / "s.csv", b"id,text\n" + b"\n".join(rows)))
    assert documents(source, SKIP) == ["a good text", 'a quote " in it', 'a bare " quote']
    assert skipped(source) == [
        (1, "has 3 values where the table has 2 columns"),
        (2, "has 1 value where the table has 2 columns"),
        (4, "has a value with a quote that does not end it (quotes in quoted values must be doubled)"),
        (5, "is not UTF-8 (byte 4 of column 'text')"),
    ]
    with pytest.raises(BrokenRecord, match=r"s.csv, row 2 has 3 values .*--on-error skip"):
        batches(source)


def test_rows_of_one_value_are_broken_though_that_value_is_not_needed(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "s.csv", "n,text\n1,a good text here\nmarked text without a comma\n"))
    assert skipped(source) == [(1, "has 1 value where the table has 2 columns")]


def test_a_quote_that_is_never_closed_breaks_its_row_or_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = 'id,text\n1,a text\n2,"open\n' + "3,swallowed\n" * 10
    source = source_of(write(tmp_path / "s.csv", data))
    assert documents(source, SKIP) == ["a text"]
    assert [number for number, _ in skipped(source)] == [1]
    monkeypatch.setattr(tables, "MAX_DOCUMENT", 64)
    monkeypatch.setattr(tables._items, "__defaults__", (32,))
    [(number, reason)] = skipped(source)
    assert number == 1
    assert "all that follows cannot be read: a value is longer than" in reason


def test_only_needed_columns_are_decoded(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "s.csv", b"id,text,n\n0,a text,1\n1,a good text,caf\xe9\n"))
    assert documents(source) == ["a text", "a good text"]


def test_a_table_without_rows_holds_nothing(tmp_path: Path) -> None:
    for data in ("", "id,text\n", "id,text"):
        assert documents(source_of(write(tmp_path / "s.csv", data))) == []
