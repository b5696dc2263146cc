"""A story as Markdown: a parser of it finds the story's own tables and headings, and strings from outside are text."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from detect.records.written import clean
from detect.report.closing import cell, code
from detect.report.paper.markdown import markdown
from detect.report.runs import runs
from detect.report.story import Code, Section, Story, Table, column
from tests.detect.report.paper.stories import DIGEST, HOSTILE, PLAIN, everything, said_text

TAGS = {
    *("h1", "h2", "h3", "h4", "p", "ul", "li", "strong", "code", "pre", "blockquote", "b", "i", "sup", "sub"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
NASTY = [
    HOSTILE,
    "| a | b |\n| --- | --- |",
    "``` end",
    "`` a ` b ``",
    "[a](http://x.example) ![b](c) <http://x.example> http://x.example www.x.example &lt;b&gt; &amp;",
    "# not a heading",
    "- no item",
    "1. no number",
    "+ no item",
    "=== --- ***",
    "\\",
    "\\| ~~gone~~ $x$ @you #1",
    "> quoted",
]


class _Parsed(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[int] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(story: Story) -> _Parsed:
    """Elements and text of what a reader of Markdown makes of it."""
    found = _Parsed()
    found.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown(story)))
    return found


def test_everything_that_the_story_says_is_in_it() -> None:
    text = parsed(everything("x", "y")).text
    for there in (PLAIN, DIGEST, "Only in the whole.", "A. Author", "Drawing: ", "Take note: ", "Keys tested", "1,234"):
        assert there in text
    assert "Only in brief." not in text


@pytest.mark.parametrize("hostile", NASTY)
def test_strings_from_outside_are_text_wherever_they_stand(hostile: str) -> None:
    found, plain = parsed(everything(hostile, hostile)), parsed(everything("x", "y"))
    assert set(found.tags) <= TAGS
    assert found.tags == plain.tags and found.rows == plain.rows
    assert found.text.count(clean(hostile).strip()) >= 20


@pytest.mark.parametrize("hostile", NASTY)
def test_a_paragraph_that_begins_with_such_a_string_is_a_paragraph(hostile: str) -> None:
    found = parsed(replace(everything("x", "y"), sections=[Section("S", "s", [said_text(hostile), Code(hostile)])]))
    end = found.tags[found.tags.index("h2") :]
    assert end == ["h2", "p", "pre", "code", "p"]


def test_addresses_are_no_links() -> None:
    written = markdown(everything("see http://x.example or www.x.example", "y"))
    outside = re.sub(r"```.*?```|`[^`]*`", "", written, flags=re.DOTALL)
    assert "x.example" in outside and not re.search(r"https?://|www\.", outside)


def test_pipes_in_code_stay_in_their_cell() -> None:
    table = Table("t", [column("a"), column("b", "r")], [[cell(code("x | `y` || z")), cell(1)]])
    story = replace(everything(), sections=[Section("S", "s", [table, said_text("after")])])
    found = parsed(story)
    assert found.rows[-2:] == [2, 2] and "x | `y` || z" in found.text
    assert "| --- | ---: |" in markdown(story)


def test_raised_and_lowered_text_is() -> None:
    story = replace(everything(), parts=[("Part", [runs("10<sup>−6</sup> <i>w</i><sub>i</sub>")])])
    assert "10<sup>−6</sup> <i>w</i><sub>i</sub>" in unescape(markdown(story))


def test_the_same_story_gives_the_same_text() -> None:
    assert markdown(everything()) == markdown(everything()) and markdown(everything()).endswith("\n")
