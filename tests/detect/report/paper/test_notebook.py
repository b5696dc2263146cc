"""A story's first page in a notebook: a piece of HTML that loads nothing and touches nothing around it."""

from __future__ import annotations

import re

from detect.records.written import clean
from detect.report.paper.notebook import fragment
from tests.detect.report.paper.reading import Page
from tests.detect.report.paper.stories import HOSTILE, PLAIN, everything
from tests.detect.report.paper.test_page import HARMLESS


def test_it_holds_the_answer_its_facts_and_what_stands_behind_it() -> None:
    found = Page(fragment(everything()))
    for said in ("The mark is there", "1.82", "against 1.00", PLAIN, "What it does not show"):
        assert said in found.text
    assert "Documents, strongest" not in found.text and "svg" not in dict(found.tags)


def test_strings_from_outside_are_text() -> None:
    found, plain = Page(fragment(everything())), Page(fragment(everything("x", "y")))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
    assert {tag for tag, _ in found.tags} <= HARMLESS | {"strong"}
    assert clean(HOSTILE) in found.text


def test_its_style_reaches_nothing_but_itself() -> None:
    style = re.search(r"<style>(.*?)</style>", fragment(everything()), re.DOTALL)
    assert style is not None and "url(" not in style[1] and "@" not in style[1]
    assert all(rule.strip().startswith(".dyetrace") for rule in re.findall(r"([^{}]+)\{", style[1]))
