"""What the check of a server says: its verdict and every line of it, in every form."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from detect.records.server_check import Check, ServeCheck
from detect.records.written import clean
from detect.report.paper.markdown import markdown
from detect.report.paper.page import page
from detect.report.paper.pdf import pdf
from detect.report.paper.terminal import print_story, text
from detect.report.server.story import one_line, story
from tests.detect.report.paper.reading import Page
from tests.detect.report.paper.stories import HOSTILE
from tests.detect.report.server.examples import a_check, hostile


def printed(record: ServeCheck, width: int = 100) -> str:
    """What the command prints."""
    shown = StringIO()
    print_story(story(record), Console(file=shown, width=width))
    return shown.getvalue()


def test_a_terminal_says_the_verdict_first_and_each_line_in_one_line() -> None:
    reason = "too few tuples to tell: ask for more; " * 10
    shown = printed(a_check(checks=[Check(name="each answer", status="OPEN", reason=reason)])).splitlines()
    assert shown[0] == "VERDICT: MARKED, for account acme"
    assert f"OPEN  each answer  {reason}".rstrip() in [line.rstrip() for line in shown]


def test_every_form_says_the_verdict_and_its_lines() -> None:
    record = a_check()
    for form in (printed(record), text(story(record)), markdown(story(record)), Page(page(story(record))).text):
        for said in ("MARKED, for account acme", "opting out", "honoured", "0.7"):
            assert said in form
        assert "p = 10-39.2 over 144 tuples" in re.sub(r"</?sup>|\^", "", form.replace("\N{MINUS SIGN}", "-"))
        assert "Nobody put marked text into the prompts" in form
    for form in (text(story(record)), markdown(story(record)), Page(page(story(record))).text):
        for said in ("tenant acme", "zenith", record.url, record.key_fingerprint, "What it does not show"):
            assert said in form.replace("\\", "")


@pytest.mark.parametrize(
    ("changes", "tone"),
    [
        ({}, "marked"),
        ({"checks": [Check(name="n", status="FAIL", reason="")]}, "refused"),
        ({"checks": [Check(name="n", status="OPEN", reason="")]}, "unmarked"),
        ({"checks": []}, "marked"),
    ],
)
def test_its_colour_is_that_of_the_verdict(changes: dict[str, list[Check]], tone: str) -> None:
    assert story(a_check(**changes)).tone == tone
    assert f'class="answer {tone}"' in page(story(a_check(**changes)))


def test_what_a_server_says_is_text_in_every_form() -> None:
    record = hostile(HOSTILE)
    found = Page(page(story(record)))
    assert clean(HOSTILE) in found.text and "script" not in {tag for tag, _ in found.tags}
    assert all(c.isprintable() or c == "\n" for c in printed(record) + text(story(record)))
    assert pdf(story(record)).startswith(b"%PDF")


def test_a_round_of_a_canary_is_one_line_of_ascii() -> None:
    line = one_line(hostile("\x1b[31m\u202eŻ"), 3)
    assert line.isascii() and line.isprintable() and " FAIL round 3: " in line
    assert "MARKED, for account acme; global p = 10^-39.2" in one_line(a_check(), 1) and " PASS " in one_line(
        a_check(), 1
    )


def test_reasons_are_written_as_the_page_writes_numbers_and_the_strongest_key_comes_first() -> None:
    reason = "p = 10^-39.2 over 4; 2 of 2 at p <= 0.001, 10^-6 <= x"
    checks = [Check(name="each answer", status="PASS", reason=reason)]
    told = page(story(a_check(checks=checks, others={"b": -0.1, "c": -0.9, "a": -0.5})))
    assert "10<sup>\N{MINUS SIGN}39.2</sup></span> over 4; 2 of 2 at p \N{LESS-THAN OR EQUAL TO} 0.001" in told
    assert "10^-6 &lt;= x" in told
    names = [told.rindex(f">{name}<") for name in "cab"]
    assert names == sorted(names)
