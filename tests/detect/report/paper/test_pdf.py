"""The PDF of a scan: PDF/A, the same bytes each time, and nothing in the record is read as markup."""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.records.scan import ScanRecord
from detect.records.written import clean
from detect.report.closing import cell, code
from detect.report.paper import pdf as paper
from detect.report.runs import said
from detect.report.scan.story import story
from detect.report.story import Table, column
from tests.detect.report import examples
from tests.detect.report.paper.stories import everything
from tests.detect.report.scan.test_story import HOSTILE, KINDS, shown_records
from watermark.errors import DyetraceError

MARKUP = [
    "#panic(1)",
    '#read("/etc/passwd")',
    "$ x^2 $ *bold* _it_ `raw` <label> @ref // gone",
    "\\u{41} \\ ] } ) #[",
    "= heading\n- item\n+ item",
    '{{"a": 1}} "]); #pagebreak()',
]


def render_pdf(record: ScanRecord) -> bytes:
    return paper.pdf(story(record))


def harmless(text: str) -> str:
    """As long a text of letters alone, of which the fonts lack as many, so that it takes as much room."""
    return "".join(c if c.isspace() else "\uac00" if paper.UNKNOWN.match(c) else "x" for c in clean(text))


def strings(data: bytes) -> bytes:
    """All streams of a PDF, unpacked, one after the other."""
    parts = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
    unpacked = []
    for part in parts:
        try:
            unpacked.append(zlib.decompress(part))
        except zlib.error:
            unpacked.append(part)
    return b"\n".join([data, *unpacked])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_record_makes_a_tagged_archive_pdf(kind: str) -> None:
    data = render_pdf(shown_records()[kind])
    assert data.startswith(b"%PDF-1.7")
    everything = strings(data)
    assert b"<pdfaid:part>2</pdfaid:part>" in everything and b"<pdfaid:conformance>A</pdfaid:conformance>" in everything
    assert b"<pdfuaid:part>1</pdfuaid:part>" in everything
    assert b"/URI" not in everything and b"/JavaScript" not in everything and b"/Launch" not in everything


@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_numbered_in_order(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a break hangs on what it moves, no layout is right, and a footer keeps the number of a first try."""
    import typst

    real, told = typst.Compiler, []

    class Telling:
        def __init__(self, *given: Any, **options: Any) -> None:
            self.compiler = real(*given, **options)

        def compile(self, **options: Any) -> Any:
            pdf, warnings = self.compiler.compile_with_warnings(**options)
            told.extend(warnings)
            return pdf

    monkeypatch.setattr(typst, "Compiler", Telling)
    render_pdf(shown_records()[kind])
    assert told == []


def test_same_record_gives_the_same_bytes() -> None:
    record = shown_records()["marked"]
    again = msgspec.convert(msgspec.to_builtins(record), type(record))
    assert render_pdf(record) == render_pdf(again)
    other = msgspec.structs.replace(record, encoder="another")
    assert render_pdf(record) != render_pdf(other)


@pytest.mark.parametrize("text", HOSTILE + MARKUP)
def test_hostile_strings_are_set_as_text(text: str, tmp_path: Path) -> None:
    def pages(said: str) -> int:
        return len(re.findall(rb"/Type ?/Page\b", strings(render_pdf(examples.hostile_scan(said, tmp_path)))))

    assert abs(pages(text) - pages(harmless(text))) <= 2


def test_a_story_with_every_block_is_set_whatever_its_strings_are() -> None:
    for hostile in ("x", *HOSTILE, *MARKUP):
        assert b"<pdfaid:part>2</pdfaid:part>" in paper.pdf(everything(hostile, hostile))


def test_hashes_are_written_in_groups_and_long_names_may_break() -> None:
    digest, name = "0123456789abcdef" * 4, "a/long/folder/" * 4 + "documents.jsonl"
    assert paper._words(code(digest)) == [[" ".join(["0123456789abcdef"] * 4), "code"]]
    [[shown, _]] = paper._words(said(name), name=True)
    assert shown.replace("\u200b", "") == name and "/\u200b" in shown
    assert paper._words(said("short name")) == [["short name", ""]]


def test_numbers_are_no_wider_than_they_must_be() -> None:
    columns = [column("Place", width=1), column("p, all documents", "r")]
    table = Table("t", columns, [[cell("a"), cell("0.1")]])
    [drawn] = paper._leaf(table)
    assert drawn["head"][1] == [["p, ", ""], ["all ", ""], ["", "br"], ["documents", ""]]


def test_of_a_long_table_it_is_said_how_many_rows_there_are() -> None:
    table = Table("t", [column("a")], [[cell(number)] for number in range(9)], on_paper=4)
    drawn, note = paper._leaf(table)
    assert len(drawn["rows"]) == 4 and "".join(run[0] for run in note["runs"]).startswith("The first 4 of 9 rows")


def test_the_template_takes_its_data_from_json_alone() -> None:
    source = Path(paper.__file__).with_name("report.typ").read_text("utf-8")
    assert "eval(" not in source and "read(" not in source and "import" not in source and "plugin(" not in source


def test_every_character_that_passes_is_in_the_fonts() -> None:
    # PDF/A refuses a character without a glyph, so that rendering them all is the test.
    allowed = "".join(c for c in map(chr, range(0x20, 0x3000)) if c.isprintable() and not paper.UNKNOWN.match(c))
    assert len(allowed) > 400
    record = msgspec.structs.replace(shown_records()["clean"], encoder=allowed[:119])
    for start in range(0, len(allowed), 119):
        arguments: dict[str, str | int | float | bool | list[str] | None] = {"all": allowed[start : start + 119]}
        changed = msgspec.structs.replace(record, encoder=allowed[start : start + 119], arguments=arguments)
        assert render_pdf(changed)


def test_other_characters_are_written_as_escapes() -> None:
    assert paper._known({"a": ["\N{SNOWMAN} \U0001f600 caf\xe9"], "svg": "\N{SNOWMAN}"}) == {
        "a": ["\\u2603 \\U0001f600 caf\xe9"],
        "svg": "\N{SNOWMAN}",
    }


def test_missing_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(DyetraceError, match=r"pip install 'dyetrace\[scan\]'"):
        render_pdf(shown_records()["clean"])
