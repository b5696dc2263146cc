"""What holds of the pages of all PDFs: numbers in order, and no heading alone at the end of one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from detect.report.detection.story import story as detection_story
from detect.report.paper import pdf as paper
from detect.report.runs import plain
from detect.report.scan.story import story as scan_story
from detect.report.server.story import story as server_story
from detect.report.story import Details, Heading, Story, text
from detect.report.trace.story import story as trace_story
from detect.report.twins.story import story as twins_story
from tests.detect.report.detection import examples
from tests.detect.report.scan import test_story as scans
from tests.detect.report.server.examples import a_check
from tests.detect.report.trace import test_story as traces
from tests.detect.report.twins import test_story as twins

PDFS: dict[str, Callable[[], Story]] = {
    "detection of one": lambda: detection_story(examples.shown_records()["aware"]),
    "detection of many": lambda: detection_story(examples.shown_records()["many"]),
    "scan": lambda: scan_story(scans.shown_records()["marked"]),
    "refused scan": lambda: scan_story(scans.shown_records()["refused"]),
    "trace": lambda: trace_story(traces.shown_records()["found"]),
    "endpoint": lambda: trace_story(traces.shown_records()["api"]),
    "twins": lambda: twins_story(twins.shown_records()["accounts"]),
    "twins drawn later": lambda: twins_story(twins.shown_records()["later"]),
}


def pushed(kind: str, lines: int) -> tuple[Story, set[str]]:
    """What a report says, moved down by so many lines from the second page on, and all its headings."""
    told = PDFS[kind]()
    titles = {section.title for section in told.sections}
    for section in told.sections:
        titles |= {plain(block.text) for block in section.blocks if isinstance(block, Heading)}
        for details in (block for block in section.blocks if isinstance(block, Details)):
            inner = (block for block in details.blocks if isinstance(block, Heading))
            titles |= {plain(details.title), *(plain(block.text) for block in inner)}
    first, *rest = told.sections
    moved = replace(first, blocks=[*(text("A line.") for _ in range(lines)), *first.blocks])
    return replace(told, sections=[moved, *rest]), titles


def pages_of(told: Story, folder: Path) -> list[list[str]]:
    """The lines of each page, without empty ones."""
    if shutil.which("pdftotext") is None:
        pytest.skip("this machine has no pdftotext")
    (folder / "report.pdf").write_bytes(paper.pdf(told))
    done = subprocess.run(["pdftotext", "-layout", "report.pdf", "-"], cwd=folder, capture_output=True, check=True)
    pages = done.stdout.decode().split("\f")
    return [[line.strip() for line in page.splitlines() if line.strip()] for page in pages if page.strip()]


@pytest.mark.parametrize("kind", PDFS)
@pytest.mark.parametrize("lines", [0, 5, 11, 17, 23, 29])
def test_pages_are_numbered_in_order_and_none_ends_with_a_heading(kind: str, lines: int, tmp_path: Path) -> None:
    told, titles = pushed(kind, lines)
    found = pages_of(told, tmp_path)
    assert [page[-1].split()[-3:] for page in found] == [
        [str(number), "of", str(len(found))] for number in range(1, len(found) + 1)
    ]
    assert len(titles) > 8 and [page[-2] for page in found if page[-2] in titles] == []


def test_an_answer_that_fills_half_a_page_has_it_to_itself_and_a_shorter_one_shares_it(tmp_path: Path) -> None:
    alone = pages_of(PDFS["trace"](), tmp_path)[0]
    assert "The court of a sceptic" not in alone and "What it does not show" in alone
    assert "What was looked at" in pages_of(server_story(a_check()), tmp_path)[0]


def test_a_heading_that_is_left_alone_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what keeps headings with what follows them, some page of these ends with one."""
    real = files("detect.report.paper") / "report.typ"

    class Loose:
        def __truediv__(self, name: str) -> Loose:
            return self

        def read_bytes(self) -> bytes:
            return real.read_bytes().replace(b"sticky: true", b"sticky: false")

    monkeypatch.setattr(paper, "files", lambda _: Loose())
    alone: list[str] = []
    for lines in (0, 5, 11, 17, 23, 29):
        told, titles = pushed("trace", lines)
        alone += [page[-2] for page in pages_of(told, tmp_path) if page[-2] in titles]
    assert alone
