"""The page of a story: whole, safe, and readable by eye, by ear, by keyboard and on a telephone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from detect.records.written import clean
from detect.report.closing import cell, name_cell
from detect.report.paper.page import page
from detect.report.story import Details, Section, Story, Table, Token, Tokens, column
from tests.detect.report.paper.reading import Page
from tests.detect.report.paper.stories import HOSTILE, NAME, PLAIN, everything, said_text

HARMLESS = {
    *("html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "footer", "div", "span"),
    *("h1", "h2", "h3", "h4", "p", "ul", "li", "dl", "dt", "dd", "a", "b", "i", "sup", "sub", "code", "pre", "q"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details", "summary"),
    *("svg", "desc", "text", "tspan", "line", "circle", "polyline", "polygon", "rect"),
}


class Seen(Page):
    """A page with the cells of its tables."""

    def __init__(self, text: str) -> None:
        self.cells: list[tuple[dict[str, str | None], str]] = []
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag in ("th", "td"):
            self.cells.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if "td" in self.open or "th" in self.open:
            self.cells[-1] = (self.cells[-1][0], self.cells[-1][1] + data)


def seen(story: Story) -> Seen:
    """What a reader of a story's page meets."""
    return Seen(page(story))


def test_it_loads_nothing_and_runs_nothing() -> None:
    markup, found = page(everything()), seen(everything())
    assert {tag for tag, _ in found.tags} <= HARMLESS
    assert not any(name.startswith("on") or name in ("src", "style") for _, given in found.tags for name in given)
    assert "default-src 'none'" in markup and "url(" not in markup and "@import" not in markup


def test_everything_that_the_story_says_is_on_it() -> None:
    found = seen(everything())
    for said in (PLAIN, NAME, clean(HOSTILE), "Only in the whole.", "p ≤ 0.3", "not answered by this report", "1,234"):
        assert said in found.text
    assert "Only in brief." not in found.text


def test_hostile_strings_stand_there_as_text_wherever_they_can_stand() -> None:
    without = seen(everything("x", "y"))
    found = seen(everything())
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in without.tags]
    assert found.text.count(clean(HOSTILE)) >= 20
    assert all(c.isprintable() or c in "\n\t" for c in page(everything()))


def test_links_lead_somewhere_and_names_of_places_are_given_once() -> None:
    tags = seen(everything()).tags
    places = [given["id"] for _, given in tags if "id" in given]
    assert len(places) == len(set(places))
    targets = [str(given["href"]) for tag, given in tags if tag == "a"]
    assert len(targets) > 5 and {target.removeprefix("#") for target in targets} <= set(places)
    named = [str(given[name]).split() for _, given in tags for name in ("aria-labelledby",) if name in given]
    assert {one for names in named for one in names} <= set(places)


def test_it_can_be_read_by_ear_and_by_keyboard() -> None:
    tags = seen(everything()).tags
    assert tags[[tag for tag, _ in tags].index("body") + 1] == ("a", {"class": "skiplink", "href": "#answer"})
    assert sum(tag == "caption" for tag, _ in tags) == sum(tag == "table" for tag, _ in tags) > 3
    heads = [given for tag, given in tags if tag == "th"]
    assert heads and all(given["scope"] in ("col", "row", "rowgroup") for given in heads)
    scrolled = [given for tag, given in tags if given.get("class") == "scroll"]
    assert scrolled and all(given["tabindex"] == "0" and given["aria-label"] for given in scrolled)
    assert all(given["role"] == "img" for tag, given in tags if tag == "svg")
    levels = [int(tag[1]) for tag, _ in tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def spanning() -> Story:
    """A story of one table, some of whose cells reach over rows below."""
    columns = [column(name) for name in ("Key", "n", "10<sup>2</sup>", "end")]
    rows = [
        [name_cell("a", rows=2), cell("1"), cell("2"), cell("3", rows=2)],
        [cell("4"), cell("5")],
        [name_cell("b"), cell("6"), cell("7"), cell("8")],
    ]
    return replace(everything(), sections=[Section("Keys", "keys", [Table("Keys", columns, rows)])])


def test_every_cell_bears_the_name_of_its_column_and_cells_that_reach_over_rows_are_counted() -> None:
    found = [(given.get("data-label"), text) for given, text in seen(spanning()).cells[4:]]
    assert found == [
        (None, "a"), ("n", "1"), ("10^2", "2"), ("end", "3"), ("n", "4"), ("10^2", "5"),
        (None, "b"), ("n", "6"), ("10^2", "7"), ("end", "8"),
    ]  # fmt: skip


def test_rows_that_share_their_first_cell_are_a_group() -> None:
    found = seen(spanning())
    assert [given.get("scope") for given, _ in found.cells[4:] if "scope" in given] == ["rowgroup", "row"]
    assert [given["rowspan"] for given, _ in found.cells if "rowspan" in given] == ["2", "2"]
    assert sum(tag == "tbody" for tag, _ in found.tags) == 2


def test_small_details_stand_side_by_side_and_large_ones_below_each_other() -> None:
    small = [Details(said_text("x").text, f"d{number}", [said_text("y")]) for number in range(2)]
    large = [replace(one, blocks=[*one.blocks, Tokens([], [])]) for one in small]
    for details, beside in ((small, True), (large, False), (small[:1], False)):
        story = replace(everything(), sections=[Section("One", "one", details)])
        assert ('class="two"' in page(story)) is beside


def test_uncounted_neighbours_are_one_stretch_and_line_breaks_can_be_seen() -> None:
    tokens = Tokens([Token("a", -1), Token("b\n", -1), Token("c", 2, "p = 0.1"), Token("c", 2, "p = 0.1")], [])
    markup = page(replace(everything(), sections=[Section("Text", "text", [tokens])]))
    assert '<span class="skip">ab<i class="nl">↵</i>\n</span>' in markup
    assert markup.count('<span class="t2" title="p = 0.1">c</span>') == 2


@pytest.mark.parametrize("tone", ["marked", "unmarked", "refused"])
def test_the_answer_has_its_tone(tone: str) -> None:
    story = replace(everything(), tone=tone)  # type: ignore[arg-type]
    assert f'<section class="answer {tone}"' in page(story)


def test_the_same_story_gives_the_same_page() -> None:
    assert page(everything()) == page(everything())
