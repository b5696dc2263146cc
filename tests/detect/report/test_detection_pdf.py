"""The PDF of a detection, and what holds of the pages of all PDFs: numbers in order, and no heading alone at an end."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.report.detection import pdf as detection_pdf
from detect.report.detection.pdf import render_detection_pdf
from detect.report.paper import typeset
from detect.report.scan import pdf
from detect.report.trace import pdf as trace_pdf
from tests.detect.report import test_scan_html, test_trace_html
from tests.detect.report.test_pdf import MARKUP, strings
from tests.detect.report.test_report import HOSTILE, hostile_record, shown_records

records = cache(shown_records)
KINDS = list(shown_records())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_record_makes_a_tagged_archive_pdf(kind: str) -> None:
    everything = strings(render_detection_pdf(records()[kind]))
    assert b"<pdfaid:part>2</pdfaid:part>" in everything and b"<pdfaid:conformance>A</pdfaid:conformance>" in everything
    assert b"<pdfuaid:part>1</pdfuaid:part>" in everything
    assert b"/URI" not in everything and b"/JavaScript" not in everything and b"/Launch" not in everything


def test_same_record_gives_the_same_bytes() -> None:
    record = records()["aware"]
    again = msgspec.convert(msgspec.to_builtins(record), type(record))
    assert render_detection_pdf(record) == render_detection_pdf(again)
    assert render_detection_pdf(record) != render_detection_pdf(msgspec.structs.replace(record, encoder="another"))


@pytest.mark.parametrize("text", HOSTILE + MARKUP)
def test_hostile_strings_are_set_as_text(text: str) -> None:
    data = render_detection_pdf(hostile_record(text))
    pages = len(re.findall(rb"/Type ?/Page\b", strings(data)))
    longest = render_detection_pdf(hostile_record("word " * max(1, len(text) // 5)))
    assert abs(pages - len(re.findall(rb"/Type ?/Page\b", strings(longest)))) <= 3


Content = dict[str, Any]
PDFS: dict[str, Callable[[], Content]] = {
    "detection of one": lambda: detection_pdf._content(records()["aware"]),
    "detection of many": lambda: detection_pdf._content(records()["many"]),
    "scan": lambda: pdf._content(test_scan_html.shown_records()["marked"]),
    "refused scan": lambda: pdf._content(test_scan_html.shown_records()["refused"]),
    "trace": lambda: trace_pdf._content(test_trace_html.shown_records()["found"]),
    "endpoint": lambda: trace_pdf._content(test_trace_html.shown_records()["api"]),
}


def pushed(kind: str, lines: int) -> tuple[Content, set[str]]:
    """What a report shows, moved down by so many lines from the second page on, and all its headings."""
    content = PDFS[kind]()
    titles = {section["title"] for section in content["sections"]}
    for section in content["sections"]:
        titles |= {block["text"] for block in section["blocks"] if block["kind"] == "heading"}
    first = content["sections"][0]
    first["blocks"] = [*(typeset.text("A line.") for _ in range(lines)), *first["blocks"]]
    return content, titles


def pages_of(content: Content, folder: Path) -> list[list[str]]:
    """The lines of each page, without empty ones."""
    if shutil.which("pdftotext") is None:
        pytest.skip("this machine has no pdftotext")
    (folder / "report.pdf").write_bytes(typeset.compile_pdf(content, "scan"))
    done = subprocess.run(["pdftotext", "-layout", "report.pdf", "-"], cwd=folder, capture_output=True, check=True)
    pages = done.stdout.decode().split("\f")
    return [[line.strip() for line in page.splitlines() if line.strip()] for page in pages if page.strip()]


@pytest.mark.parametrize("kind", PDFS)
@pytest.mark.parametrize("lines", [0, 5, 11, 17, 23, 29])
def test_pages_are_numbered_in_order_and_none_ends_with_a_heading(kind: str, lines: int, tmp_path: Path) -> None:
    content, titles = pushed(kind, lines)
    found = pages_of(content, tmp_path)
    assert [page[-1].split()[-3:] for page in found] == [
        [str(number), "of", str(len(found))] for number in range(1, len(found) + 1)
    ]
    assert len(titles) > 8 and [page[-2] for page in found if page[-2] in titles] == []


def test_a_heading_that_is_left_alone_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what keeps headings with what follows them, some page of these ends with one."""
    real = typeset.files("detect.report") / "report.typ"

    class Loose:
        def __truediv__(self, name: str) -> Loose:
            return self

        def read_bytes(self) -> bytes:
            return real.read_bytes().replace(b"sticky: true", b"sticky: false")

    monkeypatch.setattr(typeset, "files", lambda _: Loose())
    alone: list[str] = []
    for lines in (0, 5, 11, 17, 23, 29):
        content, titles = pushed("trace", lines)
        alone += [page[-2] for page in pages_of(content, tmp_path) if page[-2] in titles]
    assert alone
