"""What a test by twins says in every form, that nothing breaks out of it, and that all can read it."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest

from detect.records.twins import TwinRecord
from detect.records.twins_assumptions import assumptions
from detect.records.written import format_e, format_p
from detect.report.paper.page import page as drawn
from detect.report.runs import plain
from detect.report.twins.story import story
from detect.report.twins.wording import side_by_side
from tests.detect.report.paper.reading import (
    Page,
    assert_that_all_can_read_it,
    assert_that_every_other_form_is_drawn,
    assert_that_it_loads_nothing,
    assert_that_strings_stay_text,
    printed,
)
from tests.detect.report.scan.test_story import HOSTILE
from tests.detect.report.twins import examples

replace = msgspec.structs.replace


@lru_cache(maxsize=1)
def shown_records() -> dict[str, TwinRecord]:
    folder = Path(mkdtemp())
    records = {name: make(folder / name) for name, make in examples.KINDS.items()}
    found = records["found"]
    unasked = examples.make_twins(folder / "unasked", 0.5, law=examples.make_law(wrong=True), pairs=0)
    many = [replace(found.shown[i % 6], id=f"{i:032x}", difference=9.0 - 0.1 * i) for i in range(60)]
    return records | {
        "unasked": unasked,
        "many pairs": replace(found, shown=many),
        "long texts": replace(found, shown=[replace(found.shown[0], served="a word " * 90_000, suspect="x" * 50_000)]),
        "no share": replace(found, share=None, share_reason="nothing is known"),
        "no curve": replace(found, curve=[]),
        "many accounts": replace(
            records["accounts"],
            accounts=[replace(records["accounts"].accounts[0], account=f"a{i:04d}") for i in range(500)],
            identified=[f"a{i:04d}" for i in range(50)],
        ),
    }


KINDS = [*examples.KINDS, "unasked", "many pairs", "long texts", "no share", "no curve", "many accounts"]


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
@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_fits_and_its_own_words_are_ascii(kind: str, width: int) -> None:
    text = printed(story(shown_records()[kind]), width)
    own = text.replace("…", "").replace("ń", "n")  # a letter of the answers'
    assert own.isascii()
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_are_text_in_every_form(text: str, tmp_path: Path) -> None:
    usual = {tag for kind in KINDS for tag, _ in Page(drawn(story(shown_records()[kind]))).tags}
    assert_that_strings_stay_text(story(examples.hostile_twins(text, tmp_path)), text, usual)


def test_the_first_page_says_in_plain_words_what_was_seen() -> None:
    record, page = shown_records()["found"], on_page("found")
    leading = record.measures[0]
    once = format_e(-leading.log10_pvalue).replace("^", "")
    for said in (
        "For 300 pairs we had tossed a coin which of two answers to deliver.",
        f"The suspect’s own answers are closer to the delivered one in {leading.wins}, to the other one in",
        f"Chance does as well once in {once} cases.",
        f"turned a stake of 1 into {format_e(record.log10_evalue).replace('^', '')}",
        "It does not show how the text got there",
        "could not make an innocent model look guilty",
    ):
        assert said in page, said
    assert "(twins withheld at serving)" in story(record).headline


def test_where_asking_ended_at_its_target_the_sign_test_is_not_called_exact() -> None:
    page, text = on_page("parting"), in_terminal("parting")
    for said in (page, text):
        assert "where the number of pairs is fixed beforehand; here asking ended when the target was reached" in said
    assert "here asking ended" not in on_page("found")


def test_the_level_stands_in_the_head_line_and_twins_drawn_later_are_called_weaker() -> None:
    record, page = shown_records()["later"], on_page("later")
    assert record.law is not None and "(twins drawn later)" in story(record).headline
    assert "rests also on a law test" in page and "weaker evidence" in page
    assert f"a chance of {0.5 + record.law.bias:.3f}" in page and "we had tossed a coin" not in page
    for control in record.law.controls:
        assert control.name in page and f"{control.wins:,} for the delivered answers" in page
    assert "The law test" not in [section.title for section in story(shown_records()["found"]).sections]


def test_a_veto_is_told_first_and_no_number_of_the_suspect_is() -> None:
    record, page = shown_records()["vetoed"], on_page("vetoed")
    told = story(record)
    assert told.tone == "refused" and told.headline == "No answer is given (twins drawn later)."
    assert "tells served answers from twins" in " ".join(map(plain, told.lead))
    assert format_e(record.log10_evalue).replace("^", "") not in page
    assert "No answer is given" in in_terminal("vetoed")


def test_pairs_stand_side_by_side_with_what_is_shared_in_bold() -> None:
    record = shown_records()["found"]
    served, withheld, own = side_by_side(record.shown[0])
    assert own is not None
    bold = [[run.text for run in text if "b" in run.tags] for text in (served, withheld, own)]
    assert bold == [["The tide turns because the moon pulls"], [], ["The tide turns because the moon pulls"]]
    page = on_page("found")
    for pair in record.shown[:4]:
        for text in (pair.prompt, pair.served, pair.withheld, pair.suspect or ""):
            assert " ".join(text.split()) in page


def test_what_both_answers_share_is_not_bold() -> None:
    pair = shown_records()["found"].shown[0]
    both = "The tide turns because of this. "
    alike = replace(pair, served=both + pair.served, withheld=both + pair.withheld, suspect=both)
    assert not any("b" in run.tags for runs in side_by_side(alike) for run in runs or ())


def test_a_report_that_quotes_nothing_says_so() -> None:
    assert "This report quotes no text of any pair." in on_page("bare")
    assert "none: no text of the suspect" in on_page("bare")
    pairs = shown_records()["logprobs"].shown
    assert pairs[0].suspect is None and "The suspect said" not in on_page("logprobs")


def test_of_twins_drawn_later_the_report_says_that_an_account_must_have_all_pairs(tmp_path: Path) -> None:
    record = examples.account_twins(tmp_path, law=examples.make_law())
    page = " ".join(Page(drawn(story(record))).text.split())
    assert record.found and record.accounts and record.identified == []
    assert "named only where all pairs are its own" in page
    assert "all pairs that are bet on must be the account’s own" in page
    for said in ("named only where all pairs are its own", "must be the account’s own"):
        assert said not in on_page("accounts")


def test_that_erased_pairs_were_not_chosen_by_coins_is_assumed_where_there_are_any() -> None:
    record = shown_records()["found"]
    says = "Erased pairs were not chosen by their coins."
    found = [one for one in assumptions(record) if one.says == says]
    assert [one.checked for one in found] == [False] and f"{record.pairs.erased} pairs" in found[0].how
    assert "if none had in what was erased" in on_page("found")
    whole = replace(record, pairs=replace(record.pairs, erased=0))
    assert says not in [one.says for one in assumptions(whole)]
    assert "what was erased" not in " ".join(Page(drawn(story(whole))).text.split())


def test_accounts_are_named_by_their_own_coins() -> None:
    record, page = shown_records()["accounts"], on_page("accounts")
    assert record.identified
    for found in record.accounts:
        assert found.account in page
        named = f"{found.account}: {found.wins} to {found.losses} on its own {found.pairs} pairs" in page
        assert named == (found.account in record.identified)
    assert "No account is named" not in page
    assert "44 more accounts are named in the table below" in on_page("many accounts")


def test_both_lines_of_evidence_are_told_alone_and_together() -> None:
    for kind, how in (("logprobs", "multiplied"), ("parting", "averaged")):
        record, page = shown_records()[kind], on_page(kind)
        assert record.watermark is not None and how in page
        assert format_e(record.watermark.log10_evalue_together).replace("^", "") in page
    assert "Beside the watermark" not in on_page("found")


def test_the_method_has_the_formula_of_the_bets_and_says_when_a_bias_is_allowed_for() -> None:
    fair, biased = on_page("found"), on_page("later")
    assert "f(s) = 2 P(s)" in fair and "f(s) = 2 P(s)" not in biased
    assert "f(s) = P(s) / Q(s)" in biased and "test martingale" in fair and "Ville" in fair
    assert "2−n Σk = w … n" in fair


def test_the_terminal_says_what_a_reader_asks_and_how_to_check_it() -> None:
    record, text = shown_records()["found"], in_terminal("found")
    assert f"e = {format_e(record.log10_evalue)} by bets on the coins" in text
    assert f"so p <= {format_p(record.log10_pvalue)}; found at 10^-6 or less" in text
    assert "dyetrace recompute report.json --key file:TWINKEY --inputs FOLDER" in text
    assert "combined (leading)" in text and "The first 3 of 6 rows" in text
    assert "No preference was found" in in_terminal("clean")


def test_same_record_gives_the_same_page() -> None:
    record = shown_records()["accounts"]
    again = msgspec.convert(msgspec.to_builtins(record), TwinRecord)
    assert drawn(story(record)) == drawn(story(again))
