"""Pages on a telephone: 390 points wide, nothing moves sideways, and no column is a letter wide. Needs Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from detect.report.paper.page import page as drawn
from detect.report.plan.story import story as plan_story
from detect.report.twins.story import story as twins_story
from detect.student.power.planner import Question, plan
from detect.student.power.simulated import Look, Student
from tests.detect.report import examples
from tests.detect.report.detection.examples import shown_records
from tests.detect.report.detection.test_story import on_page
from tests.detect.report.paper.stories import everything
from tests.detect.report.scan import test_story as scans
from tests.detect.report.trace import test_story as traces
from tests.detect.report.twins import test_story as twins

WIDTH = 390
FEWEST = 24  # points that a cell with text is wide at least: two or three letters

MEASURE = """
const page = document.querySelector('iframe').contentDocument;
const cells = [...page.querySelectorAll('td, th')].filter(c => c.textContent.trim() && !c.closest('thead'));
const boxes = [...page.querySelectorAll('body *')].filter(e => !e.closest('.unseen, .skiplink, thead, svg'));
document.body.textContent = '@@' + JSON.stringify({
  wide: page.documentElement.scrollWidth,
  out: boxes.filter(e => e.getBoundingClientRect().right > WIDTH + 1 && !e.closest('.formula')).map(e => e.outerHTML),
  inner: [...page.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length,
  narrow: cells.filter(c => c.getBoundingClientRect().width < FEWEST).map(c => c.outerHTML),
  cells: cells.length,
}) + '@@';
""".replace("WIDTH", str(WIDTH)).replace("FEWEST", str(FEWEST))

chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def on_a_telephone(page: str, folder: Path) -> dict[str, Any]:
    """What a browser measures of a page in a frame as wide as a telephone's screen."""
    if chromium is None:
        pytest.skip("this machine has no Chromium")
    (folder / "page.html").write_text(page)
    (folder / "frame.html").write_text(
        f'<body><iframe src="page.html" style="width: {WIDTH}px; height: 4000px; border: 0"></iframe>'
        f"<script>onload = () => {{ {MEASURE} }}</script>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    done = subprocess.run(
        [chromium, *options, f"--user-data-dir={folder / 'profile'}", f"file://{folder / 'frame.html'}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search("@@(.*)@@", done.stdout, re.DOTALL)
    assert found is not None, done.stdout[:2000]
    measured: dict[str, Any] = json.loads(unescape(found[1]))
    return measured


def a_plan() -> str:
    question = Question(spec=examples.make_spec(), student=Student(share=0.05, training_tokens=1e6), look=Look())
    return drawn(plan_story(plan(question)))


PAGES: dict[str, Callable[[], str]] = {
    "detection of one": lambda: on_page(shown_records()["aware"]),
    "detection of many": lambda: on_page(shown_records()["many"]),
    "scan": lambda: scans.on_page(scans.shown_records()["marked"]),
    "trace": lambda: traces.page_of(traces.shown_records()["found"]),
    "twins": lambda: drawn(twins_story(twins.shown_records()["accounts"])),
    "plan": a_plan,
    "every block": lambda: drawn(everything()),
}


@pytest.mark.parametrize("kind", PAGES)
def test_nothing_moves_sideways_and_no_column_is_a_letter_wide(kind: str, tmp_path: Path) -> None:
    found = on_a_telephone(PAGES[kind](), tmp_path)
    assert found["cells"] > 10
    assert found["wide"] <= WIDTH and found["out"] == [] and found["inner"] == 0
    assert found["narrow"] == []


def test_a_page_that_is_too_wide_is_noticed(tmp_path: Path) -> None:
    page = PAGES["detection of many"]().replace("max-width: 34rem", "max-width: 1rem")
    found = on_a_telephone(page, tmp_path)
    assert found["inner"] > 0
