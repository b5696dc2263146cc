"""Reports as a browser and a terminal show them, and what holds of every page, whatever it reports."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from io import StringIO
from typing import Literal

from rich.console import Console

from detect.records.written import clean
from detect.report.paper.markdown import markdown
from detect.report.paper.notebook import fragment
from detect.report.paper.page import page as drawn
from detect.report.paper.pdf import pdf
from detect.report.paper.terminal import print_story
from detect.report.paper.terminal import text as in_a_file
from detect.report.story import Story


class Page(HTMLParser):
    """Checks that tags balance, and collects what a page could load or run."""

    VOID = frozenset(["meta", "br", "hr", "img", "link", "input"])

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def assert_that_it_loads_nothing(text: str) -> None:
    """A page is whole by itself: no script, no picture, no address but places in it."""
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "img", "iframe", "link", "object", "embed", "base", "form"} & set(names)
    assert "@import" not in text and "url(" not in text
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name in ("src", "srcset", "data") or name.startswith("on")}
        assert "href" not in attributes or (tag == "a" and (attributes["href"] or "").startswith("#"))
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def assert_that_all_can_read_it(text: str) -> None:
    """Headings in order, links and labels that lead somewhere, tables and drawings that say what they show."""
    page = Page(text)
    assert page.tags[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    idents = [a["id"] for _, a in page.tags if "id" in a]
    assert len(idents) == len(set(idents))
    named = " ".join(a.get("aria-labelledby") or "" for _, a in page.tags).split()
    linked = [(a.get("href") or "#")[1:] for tag, a in page.tags if tag == "a"]
    assert {*named, *linked} <= set(idents)
    assert next(a for tag, a in page.tags if tag == "a")["href"] == "#answer"  # the skip link
    assert all("scope" in a for tag, a in page.tags if tag == "th")
    assert all(a.get("role") == "img" and "aria-labelledby" in a for tag, a in page.tags if tag == "svg")
    assert text.count("<svg") == text.count("<desc")
    assert text.count("<table") == text.count("<caption")


def printed(story: Story, width: int = 100, colour: bool = False) -> str:
    """What a terminal of that width shows of a story."""
    out = StringIO()
    system: Literal["truecolor"] | None = "truecolor" if colour else None
    print_story(story, Console(file=out, width=width, force_terminal=colour, color_system=system))
    return out.getvalue()


def assert_that_every_other_form_is_drawn(told: Story) -> None:
    """PDF, text in a file, Markdown and a notebook's fragment, each with the headline."""
    assert pdf(told).startswith(b"%PDF")
    for form in (in_a_file(told), markdown(told).replace("\\", ""), fragment(told)):
        assert told.headline in " ".join(form.split())


def assert_that_strings_stay_text(told: Story, text: str, usual: set[str]) -> None:
    """``text``, which a hostile record has everywhere, opens no tag but the ``usual`` ones and moves no cursor."""
    html = drawn(told)
    read = Page(html)
    assert {tag for tag, _ in read.tags} <= usual
    assert all(not name.startswith("on") for _, attributes in read.tags for name in attributes)
    assert clean(text) in read.text
    assert all(c.isprintable() or c in "\n\N{EM SPACE}" for c in html)
    for width in (40, 100):
        shown = printed(told, width) + in_a_file(told)
        assert all(c.isprintable() or c == "\n" for c in shown)
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", printed(told, 80, colour=True))
    assert [line.rstrip() for line in coloured.split("\n")] == printed(told, 80).split("\n")
    assert all(c.isprintable() or c in "\n\N{EM SPACE}" for c in markdown(told))
