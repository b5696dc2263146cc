"""What a trace's story says on a page and in a terminal, that nothing breaks out, and that all can read them."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest

from detect.records.trace import TraceRecord
from detect.records.written import clean, format_p
from detect.report.paper.page import page as drawn
from detect.report.trace.story import story
from detect.report.wording import interval
from tests.detect.report import trace_examples as examples
from tests.detect.report.examples import make_spec
from tests.detect.report.paper.reading import Page, assert_that_all_can_read_it, assert_that_it_loads_nothing, printed
from tests.detect.report.scan.test_story import HOSTILE

replace = msgspec.structs.replace


@lru_cache(maxsize=1)
def shown_records() -> dict[str, TraceRecord]:
    folder = Path(mkdtemp())
    records = {name: make(folder / name) for name, make in examples.KINDS.items()}
    found, api = records["found"], records["api"]
    return records | {
        "no commitment": replace(found, commitment=None, served=None, references=[]),
        "no controls": replace(
            found, controls=examples.make_controls(decoy_log10_pvalues=[], decoy_log10_agreement=0.0, models=[])
        ),
        "no plan": replace(api, plan=None, curve=[], share=examples.dose_response(8.0)),
        "no interval": replace(found, share=replace(found.share, interval=None, reason="they differ too much")),
        "green list": replace(found, spec=make_spec(scheme="green_list")),
        "tournament": replace(found, spec=make_spec(scheme="tournament")),
        "empty": replace(
            records["clean"],
            contexts=0,
            readings=[],
            curve=[],
            comparisons=[],
            hypotheses=[replace(h, contexts=0, tuples=0, total=0, expected=0.0, sd=0.0, log10_pvalue=0.0,
                                log10_pvalue_tested=0.0, log10_pvalue_adjusted=0.0)
                        for h in records["clean"].hypotheses],
        ),
    }  # fmt: skip


KINDS = [*examples.KINDS, "no commitment", "no controls", "no plan", "no interval", "green list", "tournament", "empty"]


def page_of(record: TraceRecord) -> str:
    return drawn(story(record))


def in_terminal(record: TraceRecord, width: int = 100, colour: bool = False) -> str:
    return printed(story(record), width, colour)


def on_page(kind: str) -> str:
    return " ".join(Page(page_of(shown_records()[kind])).text.split())


@pytest.mark.parametrize("kind", KINDS)
def test_page_is_whole_and_loads_nothing(kind: str) -> None:
    text = page_of(shown_records()[kind])
    assert_that_it_loads_nothing(text)
    assert "built-in" not in text and ".." not in Page(text).text


@pytest.mark.parametrize("kind", KINDS)
def test_page_can_be_read_by_all(kind: str) -> None:
    assert_that_all_can_read_it(page_of(shown_records()[kind]))


def test_same_record_gives_the_same_page() -> None:
    record = shown_records()["found"]
    assert page_of(record) == page_of(msgspec.convert(msgspec.to_builtins(record), TraceRecord))


@pytest.mark.parametrize("text", HOSTILE)
def test_page_holds_hostile_strings_as_text(text: str, tmp_path: Path) -> None:
    html = page_of(examples.hostile_trace(text, tmp_path))
    page = Page(html)
    usual = {tag for kind in KINDS for tag, _ in Page(page_of(shown_records()[kind])).tags}
    assert {tag for tag, _ in page.tags} <= usual
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert clean(text) in page.text
    assert all(c.isprintable() or c in "\n\N{EM SPACE}" for c in html)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("text", HOSTILE)
def test_terminal_gets_no_control_characters(text: str, width: int, tmp_path: Path) -> None:
    record = examples.hostile_trace(text, tmp_path)
    plain_text = in_terminal(record, width)
    assert all(c.isprintable() or c == "\n" for c in plain_text)
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal(record, width, colour=True))
    assert [line.rstrip() for line in coloured.split("\n")] == plain_text.split("\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_fits_and_is_ascii(kind: str, width: int) -> None:
    text = in_terminal(shown_records()[kind], width)
    assert text.replace("\N{HORIZONTAL ELLIPSIS}", "").isascii()
    assert all(len(line) <= width for line in text.splitlines())


def test_terminal_says_what_a_reader_asks() -> None:
    record = shown_records()["found"]
    text = " ".join(in_terminal(record).split())
    assert f"The mark was found in this model. p = {format_p(record.log10_pvalue)}, all keys paid for" in text
    assert "tosses of a fair coin" in text and "Identified: acme." in text
    assert "reference (the one used)" in text and "Other readouts have no part in the verdict" in text
    assert "Controls" in text and "100 decoy keys agree with chance" in text
    assert "dyetrace recompute report.json --key file:KEYFILE" in text
    assert "No mark was found in this model." in in_terminal(shown_records()["clean"])


def test_verdict_by_evalue_is_called_a_bound() -> None:
    for kind in ("api", "marked reading"):
        assert re.search(r"p <= 10\^-[\d.]+ by the e-value", in_terminal(shown_records()[kind]))
        assert "with a chance of at most 10" in on_page(kind) and "a bet on the mark" in on_page(kind)
    assert "a chance of at most 10" not in on_page("found").split("How sure")[0]


def test_page_says_what_exact_means_and_what_it_assumes() -> None:
    page = on_page("found")
    assert "the key, 256 bits drawn at random, is what varies" in page
    assert "the key was drawn at random, kept secret, and fixed before the suspect was made" in page
    assert "Null hypothesis" in page and "without knowledge of the key" in page
    assert "tosses of a fair coin" in page


def test_page_names_what_stands_behind_the_answer() -> None:
    record = shown_records()["found"]
    page = on_page("found")
    for model in (record.student, *(r.model for r in record.references), *(c.model for c in record.controls.models)):
        assert model.name in page and model.sha256 in page
    for file in record.files:
        assert file.sha256 in page
    assert record.spec_id in page and record.commitment is not None and record.commitment.sha256 in page
    assert "dyetrace recompute report.json --key file:KEYFILE" in page and "dyetrace report verify" in page
    api = shown_records()["api"]
    assert api.plan is not None and api.queries is not None
    assert api.plan.sha256 in on_page("api") and api.queries.ledger_head in on_page("api")


def test_tenants_are_named_only_where_identified() -> None:
    assert "The key of tenant acme: p = 10" in on_page("found")
    assert "The key of tenant zenith: p" not in on_page("found")
    for kind in ("together", "old group"):
        page = on_page(kind)
        assert "One at least of the 3 accounts tested left its mark (p = 10^-8.6)" in page
        assert "The key of tenant acme: p" not in page and "acme, zenith" not in page and "acme and zenith" not in page
        assert "acme, zenith" not in in_terminal(shown_records()[kind])


def test_marked_text_explains_first_occurrences_and_the_evalue() -> None:
    page = on_page("marked reading")
    assert "each context counts only where it stands first in all documents" in page
    assert "the verdict rests on the e-value" in page
    assert "first in all documents" not in on_page("found")


def test_turned_mark_is_called_one() -> None:
    page = on_page("turned")
    assert "turned against itself" in page and "leans away" in page and "twice the smaller tail" in page


def test_what_is_missing_is_not_answered() -> None:
    unanswered = "not answered by this report"
    assert unanswered not in on_page("found")
    for kind in ("no commitment", "no controls", "no plan", "refused"):
        assert unanswered in on_page(kind)
    assert "no commitment is on record" in on_page("no commitment")


def test_share_is_given_with_students_alone() -> None:
    found = shown_records()["found"].share.interval
    assert found is not None and f"{interval(found)} of its training text" in on_page("found")
    assert "students/s0.05" in on_page("found")
    assert "It is not identified. No calibration students" in on_page("clean")
    assert "It is not identified. They differ too much." in on_page("no interval")


def test_refused_trace_shows_no_pvalue_of_a_true_key() -> None:
    record = shown_records()["refused"]
    html = page_of(record)
    shown = Page(html).text + in_terminal(record)
    assert "decoy keys contradict the test" in shown and 'class="true-label"' not in html
    assert 'class="by-p"' not in html and "true-mark" not in html.split("</style>")[1]
    for key in record.hypotheses:
        for log10_p in (key.log10_pvalue, key.log10_pvalue_adjusted, key.log10_evalue):
            assert f"{abs(log10_p):.1f}" not in shown
    assert "would have done" not in shown


def test_refused_trace_claims_nothing_of_its_pvalue() -> None:
    page = on_page("refused")
    assert "The p-value is exact" not in page and "do not bear that out here" in page
    assert "never saw marked text" not in page and "never saw marked text" in on_page("clean")


def test_endpoint_is_asked_the_plans_prompts_and_peeking_is_explained() -> None:
    page = on_page("api")
    assert "It was asked the plan’s prompts and gave 610 answers" in page  # noqa: RUF001
    assert "one may look at every answer and stop at will" in page
    assert "weights depend on words of the key that came before" in on_page("marked reading")


def test_power_is_said_of_the_contexts_it_was_computed_from() -> None:
    assert "The first key’s 2,048 contexts would have shown" in on_page("found")  # noqa: RUF001
    assert "These 4,096 contexts would have shown" in on_page("turned")


def test_other_readouts_are_drawn_and_the_verdicts_own_is_marked() -> None:
    record = shown_records()["found"]
    html = page_of(record)
    argmax = next(result for result in record.comparisons if result.readout == "argmax")
    assert "reference, used for the verdict" in html and f">{argmax.contexts_needed:,}<" in html
    assert "Other ways to read" not in on_page("api")
