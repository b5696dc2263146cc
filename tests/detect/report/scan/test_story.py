"""The page and the terminal view of a scan: what they say, that nothing breaks out, and that all can read them."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest

from detect.records.key_name import KeyName
from detect.records.scan import Discoveries, Interval, ScanRecord
from detect.records.written import clean, format_p, key_label, key_phrase
from detect.report.paper.markdown import markdown
from detect.report.paper.notebook import fragment
from detect.report.paper.page import page as draw
from detect.report.paper.terminal import text as whole
from detect.report.runs import plain, runs, to_html
from detect.report.scan import wording as scan_wording
from detect.report.scan.story import story
from detect.report.wording import interval
from tests.detect.report import examples
from tests.detect.report.paper.reading import Page, assert_that_all_can_read_it, assert_that_it_loads_nothing, printed

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></pre><iframe src=https://evil.example>",
    "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "\u202egnp.exe\u2066\u200b\u2028",
    "[bold red]markup[/] [link=https://evil.example]x[/link] :smile:",
    "{{ 7*7 }}{% raw %}$name<b>x</b>",
    "\N{FULLWIDTH LATIN CAPITAL LETTER A}" * 90,
]


@lru_cache(maxsize=1)
def shown_records() -> dict[str, ScanRecord]:
    folder = Path(mkdtemp())
    marked = examples.marked_scan(folder / "marked")
    clean_ = examples.clean_scan(folder / "clean")
    open_ended = Interval(low=0.0, estimate=0.02, high=None, confidence=0.95, method="a method")
    wide = Interval(low=0.1, estimate=0.2, high=0.4, confidence=0.95, method="a reference")
    shares = msgspec.structs.replace(marked.shares, documents=open_ended, tokens=wide)
    return {
        "marked": marked,
        "clean": clean_,
        "refused": examples.refused_scan(folder / "refused"),
        "no commitment": msgspec.structs.replace(marked, commitment=None, shares=shares),
        "list without an answer": msgspec.structs.replace(clean_, discoveries=marked.discoveries, hits=marked.hits),
        "thin": msgspec.structs.replace(
            marked,
            hits=[],
            discoveries=Discoveries(rate=0.05, tested=159, benjamini_hochberg=0, e_benjamini_hochberg=0, tokens=0),
        ),
        "no controls": msgspec.structs.replace(
            marked, controls=examples.make_controls(decoys=0, null_corpus=None, null_key_histogram=[])
        ),
        "green list": msgspec.structs.replace(marked, specs=[examples.make_spec(scheme="green_list")]),
        "tournament": msgspec.structs.replace(marked, specs=[examples.make_spec(scheme="tournament")]),
        "two epochs": msgspec.structs.replace(
            marked,
            specs=[examples.make_spec(), examples.make_spec(epoch=1)],
            spec_ids=["dt1-a", "dt1-b"],
            hypotheses=[msgspec.structs.replace(h, key=f"epoch {i} {h.key}") for i, h in enumerate(marked.hypotheses)],
        ),
        "empty": msgspec.structs.replace(
            clean_, documents=0, tokens=0, inputs=[], files=[], hypotheses=[], histogram=[0] * 20, hits=[]
        ),
    }


def on_page(record: ScanRecord) -> str:
    return draw(story(record))


def in_terminal(record: ScanRecord, width: int = 100, colour: bool = False) -> str:
    return printed(story(record), width, colour)


KINDS = [
    "marked", "clean", "refused", "no commitment", "list without an answer", "thin", "no controls", "green list",
    "tournament", "two epochs", "empty",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_page_is_whole_and_loads_nothing(kind: str) -> None:
    text = on_page(shown_records()[kind])
    assert_that_it_loads_nothing(text)
    assert "http://" not in text and "https://" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_page_can_be_read_by_all(kind: str) -> None:
    assert_that_all_can_read_it(on_page(shown_records()[kind]))


def test_same_record_gives_the_same_page() -> None:
    record = shown_records()["marked"]
    assert on_page(record) == on_page(msgspec.convert(msgspec.to_builtins(record), ScanRecord))


@pytest.mark.parametrize("text", HOSTILE)
def test_page_holds_hostile_strings_as_text(text: str, tmp_path: Path) -> None:
    html = on_page(examples.hostile_scan(text, tmp_path))
    page = Page(html)
    usual = {tag for kind in KINDS for tag, _ in Page(on_page(shown_records()[kind])).tags}
    assert {tag for tag, _ in page.tags} <= usual
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert clean(text) in page.text
    assert all(c.isprintable() or c in "\n\N{EM SPACE}" for c in html)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("text", HOSTILE)
def test_terminal_gets_no_control_characters(text: str, width: int, tmp_path: Path) -> None:
    record = examples.hostile_scan(text, tmp_path)
    plain_text = in_terminal(record, width)
    assert all(c.isprintable() or c == "\n" for c in plain_text)
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal(record, width, colour=True))
    assert [line.rstrip() for line in coloured.split("\n")] == plain_text.split("\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_fits_and_is_ascii(kind: str, width: int) -> None:
    text = in_terminal(shown_records()[kind], width)
    assert text.replace("\N{HORIZONTAL ELLIPSIS}", "").isascii()  # names are cut
    assert all(len(line) <= width for line in text.splitlines())


def test_terminal_says_what_a_reader_asks() -> None:
    text = " ".join(in_terminal(shown_records()["marked"]).split())
    assert "The mark was found in this corpus. p = 10^-" in text
    assert "tenant acme" in text and "tosses of a fair coin" in text
    assert "2 broken records: line is not JSON" in text
    assert "documents listed at" in text.replace("tested documents", "documents")
    assert "Controls - 100 decoy keys agree with chance (p of agreement 0." in text
    assert "No mark was found in this corpus." in in_terminal(shown_records()["clean"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_gives_the_answer_and_its_numbers(kind: str) -> None:
    told = story(shown_records()[kind])
    for form in (draw(told), markdown(told), fragment(told), whole(told)):
        assert told.headline in form
        assert all(fact.value.split()[-1] in form for fact in told.facts)


def test_terminal_says_where_what_it_leaves_out_is() -> None:
    text = " ".join(in_terminal(shown_records()["marked"]).split())
    assert "The first 10 of 20 rows" in text
    assert "The 20 strongest of 25 documents; hits.jsonl has all." in text


@pytest.mark.parametrize("width", [60, 100])
def test_terminal_never_cuts_a_number(width: int) -> None:
    record = shown_records()["marked"]
    text = in_terminal(record, width)
    for hit in record.hits[:10]:
        assert f" {format_p(hit.log10_pvalue)} " in text


def test_page_names_the_account_and_the_documents() -> None:
    record = shown_records()["marked"]
    page = Page(on_page(record)).text
    assert "The key of tenant acme" in page and "of the listed documents point to it" in page
    for hit in record.hits:
        assert scan_wording.place(record, hit) in page and (hit.id is None or hit.id in page)
    for source in record.inputs:
        assert source.sha256 in page
    for file in record.files:
        assert file.sha256 in page
    assert record.spec_ids[0] in page and "dyetrace report verify report.json" in page


def test_refused_scan_shows_no_pvalue_of_a_true_key() -> None:
    record = shown_records()["refused"]
    html = on_page(record)
    shown = Page(html).text + in_terminal(record)
    assert "decoy keys contradict the test" in shown and 'class="true-label"' not in html
    for key in record.hypotheses:
        for log10_p in (key.log10_pvalue, key.log10_pvalue_pooled, key.log10_pvalue_rare):
            assert f"{-log10_p:.1f}" not in shown
    assert all(scan_wording.place(record, hit) not in shown for hit in record.hits)


def test_list_without_an_answer_is_called_a_lead() -> None:
    page = Page(on_page(shown_records()["list without an answer"])).text
    assert "No mark was found in this corpus." in page and "a lead, not a finding" in page


def test_mark_without_documents_is_called_thin() -> None:
    page = Page(on_page(shown_records()["thin"])).text
    assert "The mark was found" in page and "spread thinly" in page
    assert "No document reaches the list" in page


def test_segments_are_drawn_where_they_are() -> None:
    record = shown_records()["marked"]
    hit = msgspec.structs.replace(record.hits[0], tokens=400, segments=[])
    shaded = on_page(msgspec.structs.replace(record, hits=record.hits[:1])).count('class="segment"')
    none = on_page(msgspec.structs.replace(record, hits=[hit])).count('class="segment"')
    assert (shaded, none) == (1, 0)


@pytest.mark.parametrize(
    ("low", "estimate", "high", "text"),
    [
        (0.022, 0.031, 0.04, "3.1% (2.2% to 4.0%)"),
        (0.022, None, 0.04, "2.2% to 4.0%"),
        (0.022, 0.031, None, "at least 2.2% (estimate 3.1%)"),
        (0.022, None, None, "at least 2.2%"),
        (0.0, 0.01, None, "none shown"),
        (0.0, None, None, "none shown"),
        (0.0, 0.0, 0.00042, "0% (0% to 0.042%)"),
    ],
)
def test_shares_are_written_for_people(low: float, estimate: float | None, high: float | None, text: str) -> None:
    share = Interval(low=low, estimate=estimate, high=high, confidence=0.95, method="")
    assert interval(share) == text.replace("4.0%", "4%")


@pytest.mark.parametrize(
    ("key", "label", "phrase", "tenant"),
    [
        ("global", "global", "the global key", False),
        ("tenant:acme", "tenant acme", "the key of tenant acme", True),
        ("epoch 2 tenant:a", "tenant a (epoch 2)", "the key of tenant a (epoch 2)", True),
        ("gumbel dt1-01234567 global", "global (gumbel dt1-01234567)", "the global key (gumbel dt1-01234567)", False),
    ],
)
def test_keys_are_named(key: str, label: str, phrase: str, tenant: bool) -> None:
    assert key_label(key) == label
    assert key_phrase(key) == phrase
    assert KeyName.read(key).is_global != tenant and str(KeyName.read(key)) == key


def test_recompute_command_names_all_but_the_key() -> None:
    record = shown_records()["marked"]
    assert scan_wording.recompute_command(record) == (
        "dyetrace scan crawl answers.parquet --spec spec.json --key file:KEYFILE --alpha 1e-06 --decoys 100 "
        "--decoy-seed dyetrace --fdr 0.05 --on-error skip --role assistant --tenant acme --tenant zenith "
        "--tenant north-wind -o again/"
    )


def test_values_put_into_a_text_are_no_markup() -> None:
    text = runs("<b>$name</b> is $n, 10<sup>2</sup>", name="<i>$n</i>", n=1234)
    assert to_html(text) == "<b>&lt;i&gt;$n&lt;/i&gt;</b> is 1,234, 10<sup>2</sup>"
    assert plain(text) == "<i>$n</i> is 1,234, 10^2"
