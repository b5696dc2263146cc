"""The PDF of a detection: an archive's, the same bytes each time, and nothing of the record is read as markup."""

from __future__ import annotations

import re

import msgspec
import pytest

from detect.records.detection import Record
from detect.report.detection.story import story
from detect.report.paper.pdf import pdf
from tests.detect.report.detection.examples import HOSTILE, hostile_record, shown_records
from tests.detect.report.paper.test_pdf import MARKUP, harmless, strings


def render(record: Record) -> bytes:
    return pdf(story(record))


@pytest.mark.parametrize("kind", shown_records())
def test_every_kind_of_record_makes_a_tagged_archive_pdf(kind: str) -> None:
    everything = strings(render(shown_records()[kind]))
    assert b"<pdfaid:part>2</pdfaid:part>" in everything and b"<pdfaid:conformance>A</pdfaid:conformance>" in everything
    assert b"<pdfuaid:part>1</pdfuaid:part>" in everything
    assert b"/URI" not in everything and b"/JavaScript" not in everything and b"/Launch" not in everything


def test_same_record_gives_the_same_bytes() -> None:
    record = shown_records()["aware"]
    again = msgspec.convert(msgspec.to_builtins(record), type(record))
    assert render(record) == render(again)
    assert render(record) != render(msgspec.structs.replace(record, encoder="another"))


@pytest.mark.parametrize("text", HOSTILE + MARKUP)
def test_hostile_strings_are_set_as_text(text: str) -> None:
    data = render(hostile_record(text))
    pages = len(re.findall(rb"/Type ?/Page\b", strings(data)))
    alike = render(hostile_record(harmless(text)))
    assert abs(pages - len(re.findall(rb"/Type ?/Page\b", strings(alike)))) <= 2
