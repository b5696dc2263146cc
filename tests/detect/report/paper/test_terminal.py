"""A story in a terminal: nothing but text reaches it, names keep their ends, and numbers are never cut."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.console import Console

from detect.records.written import clean
from detect.report.paper.layout import ELSEWHERE
from detect.report.paper.terminal import print_story, text
from detect.report.runs import runs, said
from detect.report.story import Block, Code, Fact, Item, Items, Plots, Section, Story, Table, heading
from tests.detect.report.paper.stories import DIGEST, HOSTILE, PLAIN, everything, said_text, without_brief

HEADS = ["Document", "Verdict", "documents", "e-value", "Tuples", "SHA-256"]
WIDTHS = (30, 40, 60, 80, 100, 200)


def printed(story: Story, width: int = 80, *, whole: bool = False) -> str:
    """What a terminal shows."""
    shown = StringIO()
    print_story(story, Console(file=shown, width=width), whole=whole)
    return shown.getvalue()


def joined(shown: str) -> str:
    """The same without the ends of lines."""
    return " ".join(shown.split())


def test_in_brief_it_shows_the_first_page_and_the_sections_that_are_brief() -> None:
    shown = joined(printed(everything("x", "y")))
    for there in ("The mark is there, says x.", "A chance of at most 10^-38.2", "Strength 1.82 (against 1.00)", PLAIN):
        assert there in shown
    assert "marked 10^-38.2" in shown and "Only in brief." in shown and "key 0123, says x" in shown
    for left_out in ("Evidence", "Method", "Only in the whole.", "Every key."):
        assert left_out not in shown


def test_what_a_number_stands_beside_is_told_apart_from_it() -> None:
    facts = [Fact("e-value", "1.4", "1 or less is expected"), Fact("Tokens", "497")]
    shown = joined(printed(replace(everything(), facts=facts, brief=[])))
    assert "e-value 1.4 (1 or less is expected) Tokens 497 What was tested" in shown


def test_an_answer_that_is_told_for_terminals_takes_the_first_pages_place() -> None:
    shown = printed(without_brief())
    assert shown.startswith("Mark found in 3 of 4 documents\n  p = 10^-38.2")
    assert PLAIN not in shown and "Only in brief." in shown
    assert "Mark found in" not in printed(without_brief(), whole=True)


def test_the_whole_is_all_but_drawings_and_tinted_texts() -> None:
    shown = joined(text(everything("x", "y")))
    for there in (
        PLAIN,
        "Keys tested",
        "A. Author",
        "Only in the whole.",
        "Level 10^-6.0 in all",
        ELSEWHERE,
    ):
        assert there in shown
    for left_out in ("Every key.", "Of decoys.", "The dye", "Only in brief."):
        assert left_out not in shown


def test_a_heading_under_which_nothing_is_shown_is_left_out() -> None:
    blocks: list[Block] = [
        heading("Drawings"),
        Plots([]),
        heading("Words"),
        said_text("There."),
        heading("Last"),
        Plots([]),
    ]
    shown = printed(replace(everything(), sections=[Section("S", "s", blocks)]), whole=True)
    assert "Words" in shown and "Drawings" not in shown and "Last" not in shown


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("whole", [False, True])
def test_no_control_character_and_no_markup_reaches_it(width: int, whole: bool) -> None:
    shown = printed(everything(f"{HOSTILE} [red]x[/red] [link=a]y[/link]"), width, whole=whole)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "[red]x[/red]" in joined(shown) or width < 60
    if width == 200:
        assert clean(HOSTILE) in joined(shown)


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits(width: int) -> None:
    story = everything("who", "a/long/name/" * 20)
    assert max(map(len, printed(story, width).splitlines())) <= width


def test_its_own_words_are_ascii_and_a_readers_are_kept() -> None:
    assert text(everything("x", "y")).isascii()
    spoken = runs("“p” ≤ 10<sup>−6</sup>, λ − 1 … says <code>$who</code>", who="Żółć – “Ω”")
    shown = printed(replace(everything("x", "y"), brief=[spoken]), 100)
    assert shown.splitlines()[0] == '"p" <= 10^-6, lambda - 1 ... says Żółć – “Ω”'


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_an_encoding_lacks_is_written_as_an_escape(encoding: str) -> None:
    raw = BytesIO()
    file = TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    print_story(everything("Ω\U0001f600", "Ж" * 200), Console(file=file, width=80), whole=True)
    shown = raw.getvalue().decode(encoding)
    assert r"\u03a9" in shown and r"\U0001f600" in shown and r"\u0416" in shown


def test_columns_of_the_highest_rank_go_first_where_there_is_no_room() -> None:
    def heads(width: int) -> list[str]:
        shown = table(printed(everything("x", "y" * 40), width))
        return [name for name in HEADS if name in shown]

    def table(shown: str) -> str:
        return shown[shown.index("A soft note.") : shown.index("Briefly")]

    assert heads(200) == HEADS
    assert heads(80) == HEADS[:5]
    assert heads(60) == HEADS[:4]
    assert heads(40) == HEADS[:2]
    assert all("10^-38.2" in table(printed(everything(), width)) for width in WIDTHS)


@pytest.mark.parametrize("whole", [False, True])
def test_no_line_of_a_file_or_a_pipe_ends_with_blanks(whole: bool) -> None:
    shown = printed(everything(), whole=whole).split("\n")
    assert len(shown) > 20 and [line for line in shown if line != line.rstrip()] == []


def test_a_long_name_keeps_its_end() -> None:
    line = next(line for line in printed(everything("x"), 80).splitlines() if "marked" in line)
    assert re.match(r" \.\.\.\S*documents-0001\.jsonl:42 ", line), line


def test_numbers_and_hashes_are_whole_in_a_whole_report() -> None:
    assert DIGEST in text(everything()).replace("\n", "").replace(" ", "")
    assert "1,234,567" in text(everything())


def test_what_is_to_be_copied_has_no_breaks() -> None:
    command = "dyetrace scan " + "a" * 300 + " --spec spec.json"
    story = replace(everything(), sections=[Section("S", "s", [Code(f"{command}\n  second")], in_brief=True)])
    assert f"\n{command}\n  second\n" in text(story) and f"\n{command}\n" in printed(story)


def test_controls_say_how_they_stand_where_colours_cannot_be_seen() -> None:
    items = Items([Item(said("sound"), "good"), Item(said("strange"), "odd"), Item(said("none"), "absent")])
    shown = printed(replace(everything(), sections=[Section("S", "s", [items], in_brief=True)]))
    assert "- sound" in shown and "- Take note: strange" in shown and "- Not there: none" in shown


def test_it_says_how_many_rows_it_leaves_out() -> None:
    table = next(block for block in everything().sections[0].blocks if isinstance(block, Table))
    section = Section("S", "s", [replace(table, on_screen=1)], in_brief=True)
    story = replace(everything(), sections=[section])
    assert "The first 1 of 3 rows; the JSON record has all." in printed(story)
    assert "The first 1 of 3" not in printed(story, whole=True)
