"""The PDF of a trace: PDF/A, the same bytes each time, and nothing in the record is read as markup."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from detect.records.trace import TraceRecord
from detect.report.paper.pdf import pdf
from detect.report.trace.story import story
from tests.detect.report import trace_examples as examples
from tests.detect.report.paper.test_pdf import MARKUP, harmless, strings
from tests.detect.report.scan.test_story import HOSTILE
from tests.detect.report.trace.test_story import KINDS, shown_records


def pdf_of(record: TraceRecord) -> bytes:
    return pdf(story(record))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_record_makes_a_tagged_archive_pdf(kind: str) -> None:
    data = pdf_of(shown_records()[kind])
    everything = strings(data)
    assert b"<pdfaid:part>2</pdfaid:part>" in everything and b"<pdfaid:conformance>A</pdfaid:conformance>" in everything
    assert b"<pdfuaid:part>1</pdfuaid:part>" in everything
    assert b"/URI" not in everything and b"/JavaScript" not in everything and b"/Launch" not in everything


def test_same_record_gives_the_same_bytes() -> None:
    record = shown_records()["found"]
    again = msgspec.convert(msgspec.to_builtins(record), type(record))
    assert pdf_of(record) == pdf_of(again)
    assert pdf_of(record) != pdf_of(msgspec.structs.replace(record, readout="another"))


@pytest.mark.parametrize("text", HOSTILE + MARKUP)
def test_hostile_strings_are_set_as_text(text: str, tmp_path: Path) -> None:
    data = pdf_of(examples.hostile_trace(text, tmp_path))
    pages = len(re.findall(rb"/Type ?/Page\b", strings(data)))
    alike = pdf_of(examples.hostile_trace(harmless(text), tmp_path))
    assert abs(pages - len(re.findall(rb"/Type ?/Page\b", strings(alike)))) <= 2


@pytest.mark.parametrize("created", ["2026-02-03T04:05:06+05:30", "2026-02-03T04:05:06", "yesterday", "", "9" * 40])
def test_any_time_can_be_its_date(created: str) -> None:
    assert pdf_of(msgspec.structs.replace(shown_records()["clean"], created=created))
