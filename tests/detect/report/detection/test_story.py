"""A detection's report in all its forms, on records made by hand: what it says, and that nothing in it breaks out."""

from __future__ import annotations

import math
import re
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from detect.document.pointing import level_per_test
from detect.laws.strength import fewest_tuples
from detect.records import written
from detect.records.assumptions import Assumption
from detect.records.detection import (
    DecoyRun,
    Hypothesis,
    Input,
    Record,
    SubkeyTally,
    TokenView,
)
from detect.report.detection import wording
from detect.report.detection.story import story
from detect.report.paper.markdown import markdown
from detect.report.paper.page import page as draw
from detect.report.paper.pdf import _content
from detect.report.paper.terminal import print_story
from detect.report.paper.terminal import text as as_text
from detect.report.runs import plain
from tests.detect.report.detection.examples import (
    HEX,
    HOSTILE,
    hostile_record,
    make_document,
    make_record,
    make_spec,
    shown_records,
)
from tests.detect.report.paper.reading import Page, assert_that_all_can_read_it, assert_that_it_loads_nothing, printed


def on_page(record: Record) -> str:
    return draw(story(record))


def in_terminal(record: Record, width: int = 80, colour: bool = False) -> str:
    return printed(story(record), width, colour)


@pytest.mark.parametrize("kind", shown_records())
def test_page_is_whole_and_loads_nothing(kind: str) -> None:
    text = on_page(shown_records()[kind])
    assert_that_it_loads_nothing(text)
    assert "http://" not in text and "https://" not in text


@pytest.mark.parametrize("kind", shown_records())
def test_page_can_be_read_by_all(kind: str) -> None:
    assert_that_all_can_read_it(on_page(shown_records()[kind]))


@pytest.mark.parametrize("text", HOSTILE)
def test_page_holds_hostile_strings_as_text(text: str) -> None:
    html = on_page(hostile_record(text))
    page = Page(html)
    usual = {tag for record in shown_records().values() for tag, _ in Page(on_page(record)).tags}
    assert {tag for tag, _ in page.tags} <= usual
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert written.clean(text) in page.text
    assert all(c.isprintable() or c in "\n\t\N{EM SPACE}" for c in html)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("text", HOSTILE)
def test_terminal_gets_no_control_characters(text: str, width: int) -> None:
    for record in (hostile_record(text), make_record(*[make_document(text, tenants=(text,))] * 9)):
        plain = in_terminal(record, width)
        assert all(c.isprintable() or c == "\n" for c in plain)
        coloured = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal(record, width, colour=True))
        assert [line.rstrip() for line in coloured.split("\n")] == plain.split("\n")


def test_terminal_does_not_read_markup() -> None:
    assert "[bold red]markup[/]" in in_terminal(make_record(make_document("[bold red]markup[/]")))


def test_terminal_of_another_encoding_survives() -> None:
    class Latin(StringIO):
        encoding = "latin-1"

    out = Latin()
    document = make_document("\N{SNOWMAN} caf\xe9 " * 40, tenants=("\N{SNOWMAN}",))
    for record in (make_record(document), make_record(*[document] * 6)):
        print_story(story(record), Console(file=out, width=80))
    assert out.getvalue().encode("latin-1")


@pytest.mark.parametrize("kind", shown_records())
@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_fits(kind: str, width: int) -> None:
    assert all(len(line) <= width for line in in_terminal(shown_records()[kind], width).splitlines())


def test_terminal_says_what_a_reader_asks() -> None:
    text = " ".join(in_terminal(shown_records()["aware"]).split())
    assert "marked by the global key and the key of tenant acme: p = 10^-38.2" in text
    assert "Rank of the key 1 of 101 keys, the others decoys" in text
    assert "e = 10^44.0, p <= 10^-44.0 (keys paid for)" in text
    assert "Mark found in 1 of 1 document at level 10^-6" in text
    assert "no mark found: p = 0.51" in in_terminal(shown_records()["unmarked"])


@pytest.mark.parametrize(("tuples", "short"), [(3, True), (8, True), (9, False), (148, False)])
def test_a_text_in_which_no_mark_could_be_seen_is_not_said_to_have_none(tuples: int, short: bool) -> None:
    """At level 10^-6 nine tuples of hardly predictable text are what it takes to see the mark every second time."""
    unmarked = msgspec.structs.replace(make_document(log10_p=-0.1, found=False, tuples=tuples), view=None)
    record = make_record(unmarked)
    for form in (on_page(record), in_terminal(record)):
        assert ("too short to tell" in form) == short
    assert fewest_tuples("gumbel", 1e-6) == 9 and fewest_tuples("unknown", 1e-6) == 0


def test_a_rank_is_the_same_in_every_form() -> None:
    """Where decoys were drawn in stages, the record holds the tails of the first of them alone."""
    tested = make_document(log10_p=-4.0)
    ranked = msgspec.structs.replace(
        tested, decoys=DecoyRun(log10_pvalues=[-0.5] * 100, rank=1, log10_agreement=0.0, drawn=10_000)
    )
    record = make_record(ranked)
    forms = [on_page(record), in_terminal(record), msgspec.json.encode(_content(story(record))).decode()]
    for form in forms:
        assert re.search(r"\b1 (of|/) 10,001|\b1/10,001", form) and "of 101" not in form and "1/101" not in form


def test_refused_document_shows_no_pvalue_of_its_own() -> None:
    record = shown_records()["refused"]
    terminal, page = in_terminal(record), Page(on_page(record)).text
    assert "refused: the decoy keys contradict the test" in terminal
    assert "10^-38" not in terminal and "38.2" not in page and "1 of 101" not in terminal + page


def test_many_documents_become_a_table_of_the_strongest() -> None:
    text = in_terminal(shown_records()["many"])
    assert len(text.splitlines()) < 60
    assert "corpus.jsonl:69 " in text and "corpus.jsonl:1 " not in text
    assert "Documents, strongest first" in text and "The first 40 of 70 rows; the JSON record has all." in text
    page = on_page(shown_records()["many"])
    assert "corpus.jsonl:1<" in page and "P-values of all documents" in page
    assert page.count("<details") == 6 and "For 6 documents. The JSON record has the numbers of all." in page


def test_what_is_left_out_of_a_long_report_is_counted() -> None:
    short = make_document(decoy_count=0)
    many = make_record(*[msgspec.structs.replace(short, name=f"d{i}") for i in range(1003)], decoy_count=0)
    assert "3 more documents, with weaker results, are in the JSON record only." in on_page(many)
    texts = ["The", " dye"]
    detailed = make_record(*[make_document(f"d{i}", -8.0 - i, texts=texts) for i in range(12)])
    evidence = next(section for section in _content(story(detailed))["sections"] if "Evidence" in section["title"])
    shown = [block for block in evidence["blocks"] if block["kind"] == "heading" and block["level"] == 3]
    last = "".join(run for run, _ in evidence["blocks"][-1]["runs"])
    assert len(shown) == 6 and last == "6 more are on the page (report.html)."
    assert on_page(detailed).count("<details") == 12


def test_reasons_for_refusal_are_told_of_many_documents() -> None:
    reasons = ["reason a", "reason b", "reason c", "reason d"]
    record = make_record(*[make_document(f"d{i}", refused=reasons[i % 4]) for i in range(8)])
    for form in (in_terminal(record), Page(on_page(record)).text):
        assert all(f"Refused: {reason}." in form for reason in reasons[:3])
        assert "Refused: reason d." not in form and "1 more reasons for refusal" in form


def test_a_refused_document_of_a_ranked_format_has_no_rank() -> None:
    decoys = DecoyRun(log10_pvalues=[-0.5] * 100, rank=1, log10_agreement=0.0, drawn=10_000)
    record = make_record(msgspec.structs.replace(make_document(refused="nothing is left"), decoys=decoys))
    assert "10,001" not in in_terminal(record) + on_page(record)


def test_verdict_by_the_model_aware_test_alone_pays_for_all_documents() -> None:
    blind_misses = make_document(log10_p=-2.0, aware=9.0)
    record = make_record(blind_misses, make_document(log10_p=-0.2, found=False, aware=-1.0))
    answer = wording.verdicts(record)[0]
    assert answer.aware and answer.log10_pvalue == pytest.approx(-9.0 + math.log10(2))
    assert plain(answer.line) == "marked by this key: p ≤ 10^-8.6 (model-aware)"
    assert "p <= 10^-8.6 (model-aware)" in in_terminal(record)
    assert level_per_test(record.documents, record.alpha) == record.alpha / 2


def test_tokens_are_coloured_by_their_pvalues() -> None:
    view = TokenView(
        hypothesis="global",
        subkey=0,
        texts=["a", "b", "c", " d\n", "<e>"],
        pvalues=[None, None, 0.0005, 0.5, 0.1],
    )
    record = make_record(msgspec.structs.replace(make_document(), view=view))
    html = on_page(record)
    assert '<span class="skip">ab</span><span class="t5" title="p = 10^-3.3">c</span>' in html
    assert '<span class="t0" title="p = 0.50"> d<i class="nl">↵</i>\n</span>' in html
    assert '<span class="t2" title="p = 0.10">&lt;e&gt;</span>' in html


def test_strength_is_the_mean_score() -> None:
    tally = SubkeyTally(subkey=0, total=3 * 2**24, log10_pvalue=-1.0)
    hypothesis = Hypothesis(key="global", tuples=2, subkeys=[tally], log10_pvalue=-1.0, log10_pvalue_adjusted=-1.0)
    document = msgspec.structs.replace(make_document(), hypotheses=[hypothesis])
    strength = wording.score(make_spec(), wording.Verdict(document, "marked", "marked", -1.0))
    assert strength is not None and strength.text == "1.50 nats per token (1.00 expected without the key)"


def test_only_the_page_which_has_the_tinted_text_speaks_of_hovering_over_it() -> None:
    told = story(make_record(make_document(texts=["The", " dye", " is"] * 8)))
    assert "hover over the others for p" in draw(told)
    assert "under sub-key 2 of the global key" in markdown(told)
    assert not any("hover" in form or "Coloured" in form for form in (markdown(told), as_text(told)))


def test_commands_in_what_a_verdict_assumes_are_set_as_code() -> None:
    assumption = Assumption(says="One `is`", checked=True, how="`dyetrace scan` counts; ` stays alone")
    odd, even = (
        draw(story(make_record(make_document(), assumptions=[msgspec.structs.replace(assumption, how=how)])))
        for how in (assumption.how, "`dyetrace scan <b>` counts")
    )
    assert "One `is` (checked here: `dyetrace scan` counts; ` stays alone)" in odd
    assert "One <code>is</code> (checked here: <code>dyetrace scan &lt;b&gt;</code> counts)" in even


def test_recompute_command_names_all_but_the_key() -> None:
    record = make_record(make_document(), inputs=[Input(name="-odd name", sha256=HEX, bytes=1)])
    assert wording.recompute_command(record) == (
        "dyetrace detect './-odd name' --spec spec.json --key file:KEYFILE --alpha 1e-06 --decoys 100 "
        "--decoy-seed dyetrace --tenant acme --tenant 'b c'"
    )
