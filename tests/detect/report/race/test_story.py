"""What a race readout says in every form, that nothing breaks out of it, and that all can read it."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest

from detect.records.race import RaceRecord
from detect.records.race_assumptions import assumptions
from detect.records.written import format_e, format_p
from detect.report.paper.page import page as drawn
from detect.report.paper.pdf import UNKNOWN
from detect.report.race.story import story
from detect.report.race.wording import hits_of, share
from detect.report.runs import plain
from tests.detect.report.paper.reading import (
    Page,
    assert_that_all_can_read_it,
    assert_that_every_other_form_is_drawn,
    assert_that_it_loads_nothing,
    assert_that_strings_stay_text,
    printed,
)
from tests.detect.report.race import examples
from tests.detect.report.scan.test_story import HOSTILE

replace = msgspec.structs.replace


@lru_cache(maxsize=1)
def shown_records() -> dict[str, RaceRecord]:
    folder = Path(mkdtemp())
    records = {name: make(folder / name) for name, make in examples.KINDS.items()}
    found, accounts = records["found"], records["accounts"]
    first = accounts.hypotheses[0]
    many = [replace(first, key=f"tenant:a{i:04d}", log10_evalue_adjusted=40 - 0.01 * i) for i in range(500)]
    return records | {
        "many accounts": replace(accounts, hypotheses=many, identified=[f"a{i:04d}" for i in range(50)]),
        "many places": replace(found, shown=[found.shown[i % 8] for i in range(60)], lit=found.lit * 20),
        "long texts": replace(found, shown=[replace(found.shown[0], begun="a word " * 90_000, chosen="x" * 50_000)]),
        "no curve": replace(found, curve=[], lit=[]),
        "nothing asked": examples.make_race(folder / "nothing asked", 0.0, evidence={"answers": 0}),
        "surely lit": replace(found, lit=[replace(found.lit[0], log10_evalue=9.0), *found.lit[1:]]),
    }


KINDS = [
    *examples.KINDS,
    *("many accounts", "many places", "long texts", "no curve", "nothing asked", "surely lit"),
]


def on_page(kind: str) -> str:
    return " ".join(Page(drawn(story(shown_records()[kind]))).text.split())


def in_terminal(kind: str, width: int = 100) -> str:
    return " ".join(printed(story(shown_records()[kind]), width).split())


@pytest.mark.parametrize("kind", KINDS)
def test_page_is_whole_loads_nothing_and_can_be_read_by_all(kind: str) -> None:
    page = drawn(story(shown_records()[kind]))
    assert_that_it_loads_nothing(page)
    assert_that_all_can_read_it(page)
    assert ".." not in Page(page).text.replace("...", "") and len(page) < 400_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_form_is_drawn(kind: str) -> None:
    assert_that_every_other_form_is_drawn(story(shown_records()[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_fonts_of_the_pdf_have_every_letter_of_a_report(kind: str) -> None:
    """What they lack would stand there as an escape."""
    assert not UNKNOWN.search(json.dumps(dataclasses.asdict(story(shown_records()[kind])), ensure_ascii=False))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_fits_and_its_own_words_are_ascii(kind: str, width: int) -> None:
    text = printed(story(shown_records()[kind]), width)
    assert text.replace("…", "").isascii()
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_are_text_in_every_form(text: str, tmp_path: Path) -> None:
    usual = {tag for kind in KINDS for tag, _ in Page(drawn(story(shown_records()[kind]))).tags}
    assert_that_strings_stay_text(story(examples.hostile_race(text, tmp_path)), text, usual)


def test_the_first_page_says_in_words_a_judge_follows_what_a_hit_is_and_how_many_there_were() -> None:
    record, page = shown_records()["found"], on_page("found")
    (found,) = record.hypotheses
    assert hits_of(record).hits == found.hits > 1.5 * found.expected
    for said in (
        f"At {found.cuts} places of 60 served answers our key had chosen between words that are likely there",
        f"The suspect chose the word that our key had chosen in {share(found.hits, found.cuts)} of these places, "
        f"where chance gives {share(found.expected, found.cuts)}.",
        f"turned a stake of 1 into {format_e(record.log10_evalue).replace('^', '')}",
        "A hit is a place where the suspect’s likeliest next word is the one that the key chose.",
        "It does not show how the text got there",
    ):
        assert said in page, said
    assert story(record).headline == "This model learnt from answers that were served."


def test_a_suspect_that_hits_as_often_as_chance_is_called_clean() -> None:
    record, page = shown_records()["clean"], on_page("clean")
    told = story(record)
    assert told.tone == "unmarked" and told.headline == "No sign of the served answers was found in this model."
    assert "The mark is called found at 10−6 or less." in page and "does not mean that no answer was used" in page
    p = format_p(record.hypotheses[0].log10_pvalue)
    assert f"So many hits come about by chance with p = {p}, had the places and their chances been fixed" in page


def test_of_a_scheme_that_chooses_no_single_word_no_word_is_said_to_be_chosen() -> None:
    for kind in ("tournament", "green"):
        page = on_page(kind)
        assert "Our key gave the words that the suspect chose there a weight of" in page
        assert "chose the word that our key had chosen" not in page and "the key chose no single word" in page
        assert "Hits, by weight" in page


def test_where_no_word_of_the_suspect_is_known_no_hits_are_counted() -> None:
    record, page = shown_records()["echo"], on_page("echo")
    assert record.found and "so that no hits are counted" in page
    assert "by chance" not in [fact.note for fact in story(record).facts]
    assert "Hits" not in [fact.name for fact in story(record).facts]


def test_answers_that_light_up_are_named_and_a_choice_among_all_is_paid_for() -> None:
    record, page = shown_records()["found"], on_page("found")
    for lit in record.lit:
        assert lit.name in page and format_e(lit.log10_evalue).replace("^", "") in page
    assert "None reaches the level of this report by itself, the choice among 60 answers paid for." in page
    assert "With the choice among 60 answers paid for, one of them reaches the level" in on_page("surely lit")
    assert "None stands out" in on_page("no curve")


def test_places_stand_with_what_was_shown_what_the_key_chose_and_what_was_said() -> None:
    record, page = shown_records()["found"], on_page("found")
    for cut in record.shown:
        assert cut.begun in page and f"“{cut.chosen}”" in page and share(cut.chance, 1) in page
    assert [cut.chance for cut in record.shown] == sorted(cut.chance for cut in record.shown)
    assert "This report quotes no text of any answer." in on_page("bare")
    assert "none: no text of the suspect" in on_page("bare")


def test_accounts_are_named_by_their_own_keys() -> None:
    record, page = shown_records()["accounts"], on_page("accounts")
    assert record.identified == ["acme"]
    for found in record.accounts:
        named = f"hits at {share(found.hits, found.cuts)} of its own {found.cuts} places" in page
        assert named == (found.key == "tenant:acme")
    assert "44 more accounts are named in the table below" in on_page("many accounts")
    assert "Whose account" not in on_page("found")


def test_that_a_suspect_which_trains_on_its_questions_is_contaminated_afterwards_is_said() -> None:
    page = on_page("found")
    assert "a suspect that trains on what it is asked has learnt from served answers afterwards" in page
    assert "To ask the suspect was to show it beginnings of served answers." in page
    assert "To ask the suspect" not in on_page("weights")
    says = "The suspect was not trained on the questions of an earlier readout of the same answers."
    assert says not in [one.says for one in assumptions(shown_records()["weights"])]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("found", "How answers were drawn stands on record with each of them (temperature 0.8, top-p 0.95)."),
        ("green", "How answers were drawn is what the analyst said (temperature 0.8; temperature 0.7, top-k 40)."),
        ("clean", "How answers were drawn is not on record, and was assumed (temperature 1)."),
    ],
)
def test_where_the_owners_chances_come_from_is_said(kind: str, said: str) -> None:
    assert f"{said} Wrong settings cost evidence, and can't make an innocent model look guilty." in on_page(kind)


def test_a_refusal_is_told_first_and_no_number_of_the_suspect_is() -> None:
    record, page = shown_records()["refused"], on_page("refused")
    told = story(record)
    assert told.tone == "refused" and told.headline == "No answer is given."
    assert "on record before the plan was" in " ".join(map(plain, told.lead))
    assert format_e(record.log10_evalue).replace("^", "") not in page
    assert share(record.hypotheses[0].hits, record.hypotheses[0].cuts) not in page


def test_the_method_has_the_bet_that_was_used() -> None:
    weighed = "e = Σv K(v) h(v) / Σv p(v) h(v)"
    assert weighed in on_page("found") and "h(y) = s(y) eβ / (1 − s(y) + s(y) eβ)" in on_page("found")
    assert weighed in on_page("weights") and "exp(θ max(0, 1 + ln(p) / 14) clip(ln(q / p), −3, 3))" in on_page(
        "weights"
    )
    assert "e = 1 − w + w Σv K(v) q(v) / p(v)" in on_page("echo")
    for kind in ("found", "weights", "echo"):
        assert "Πd (1 − π + π Ed)" in on_page(kind) and "test supermartingale" in on_page(kind)
    assert "argmaxv ln(uv) / p(v)" in on_page("found") and "argmaxv" not in on_page("green")


def test_the_terminal_says_what_a_reader_asks_and_how_to_check_it() -> None:
    record, text = shown_records()["found"], in_terminal("found")
    assert f"e = {format_e(record.log10_evalue)} by bets on what the key chose" in text
    assert f"so p <= {format_p(record.log10_pvalue)}; found at 10^-6 or less" in text
    assert "dyetrace recompute report.json --key file:KEYFILE" in text
    assert "The first 8 of 20 rows" in text and "12 decoy keys agree with chance" in text
    assert "no decoy keys were run" in in_terminal("bare")


def test_same_record_gives_the_same_page() -> None:
    record = shown_records()["accounts"]
    again = msgspec.convert(msgspec.to_builtins(record), RaceRecord)
    assert drawn(story(record)) == drawn(story(again))
