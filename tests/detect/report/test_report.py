"""The report in all its forms, on records made by hand: what it says, and that nothing in it breaks out."""

from __future__ import annotations

import itertools
import math
import random
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from detect.cli.schemas import json_schema
from detect.document.pointing import level_per_test
from detect.laws.multiplicity import holm_log10
from detect.laws.strength import fewest_tuples
from detect.records import written
from detect.records.detection import (
    AwareHypothesis,
    AwareResult,
    DecoyRun,
    Document,
    Hypothesis,
    Input,
    Record,
    SubkeyTally,
    TokenView,
)
from detect.records.made import Made
from detect.records.reading import encode_record, read_record, write_record
from detect.report.detection import wording
from detect.report.detection.story import story
from detect.report.paper.page import page as draw
from detect.report.paper.pdf import _content
from detect.report.paper.terminal import print_story
from detect.report.runs import plain
from watermark.commitment import Commitment
from watermark.errors import DyetraceError
from watermark.spec import WatermarkSpec

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></pre><iframe src=https://evil.example>",
    "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "\u202egnp.exe\u2066\u200b\u2028",
    "[bold red]markup[/] [link=https://evil.example]x[/link] :smile:",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)//\x00",
    "\N{FULLWIDTH LATIN CAPITAL LETTER A}" * 90,
]
HEX = "0123456789abcdef" * 4


def make_spec(**changes: Any) -> WatermarkSpec:
    return WatermarkSpec(vocabulary_size=49152, tokenizer=HEX[:32], key_fingerprint=HEX[:32], **changes)


def make_view(texts: list[str], seed: int, marked: bool = True) -> TokenView:
    draw = random.Random(seed)
    power = 0.35 if marked else 1.0
    pvalues = [None if i < 2 or i % 17 == 9 else draw.random() ** (1 / power) for i in range(len(texts))]
    return TokenView(hypothesis="global", subkey=2, texts=texts, pvalues=pvalues)


def make_document(
    name: str = "answer.txt",
    log10_p: float | None = -38.24,
    *,
    found: bool = True,
    tenants: tuple[str, ...] = (),
    aware: float | None = None,
    refused: str | None = None,
    texts: list[str] | None = None,
    decoy_count: int = 100,
    tuples: int = 148,
    seed: int = 1,
) -> Document:
    draw = random.Random(seed)
    decoys = [math.log10(draw.random()) for _ in range(decoy_count)]
    strength = 1 + math.sqrt(2 * 2.3 * max(0.0, -(log10_p or 0.0)) / tuples)
    keys = ["global", *(f"tenant:{tenant}" for tenant in tenants)]
    hypotheses = [
        Hypothesis(
            key=key,
            tuples=tuples // (2 if tenants else 1),
            subkeys=[
                SubkeyTally(
                    subkey=s,
                    total=int((strength if s == 2 else 1.0) * 2**24 * tuples // (2 if tenants else 1)),
                    log10_pvalue=(log10_p or 0.0) * (1 - 0.2 * i) if s == 2 else -0.1 * (s + 1),
                )
                for s in range(4)
            ],
            log10_pvalue=min(0.0, (log10_p or 0.0) * (1 - 0.2 * i)),
            log10_pvalue_adjusted=min(0.0, (log10_p or 0.0) * (1 - 0.2 * i)),
        )
        for i, key in enumerate(keys)
    ]
    return Document(
        name=name,
        sha256=HEX,
        tokens=tuples + 4,
        prompt_tokens=None,
        tuples=tuples,
        hypotheses=hypotheses,
        log10_pvalue=None if refused else log10_p,
        log10_pvalue_corpus=None if refused else log10_p,
        decoys=DecoyRun(log10_pvalues=decoys, rank=1 + sum(d <= (log10_p or 0.0) for d in decoys), log10_agreement=-0.3)
        if decoy_count
        else None,
        aware=None
        if aware is None
        else AwareResult(
            model="demo model SmolLM2-135M-Instruct",
            hypotheses=[
                AwareHypothesis(
                    key=key,
                    positions=tuples,
                    log10_evalue=aware - 3 * i,
                    log10_pvalue=min(0.0, 3 * i - aware),
                    log10_pvalue_adjusted=min(0.0, 3 * i - aware),
                )
                for i, key in enumerate(keys)
            ],
            log10_pvalue=min(0.0, -aware),
            decoy_log10_evalues=[-1.5 - draw.random() for _ in decoys],
        ),
        refused=refused,
        found=found and refused is None,
        view=None if texts is None else make_view(texts, seed, found),
    )


def make_record(*documents: Document, **changes: Any) -> Record:
    corpus = holm_log10([d.log10_pvalue or 0.0 for d in documents])
    documents = tuple(
        msgspec.structs.replace(d, log10_pvalue_corpus=None if d.log10_pvalue is None else float(p))
        for d, p in zip(documents, corpus, strict=True)
    )
    spec = changes.pop("spec", None) or make_spec()
    fields: dict[str, Any] = {
        "created": "2026-02-03T04:05:06+00:00",
        "arguments": {"source": "suspects.jsonl", "tenants": ["acme", "b c"], "limit": None, "aware": False},
        "versions": {"dyetrace": "0.1.0", "python": "3.11.7"},
        "spec": spec,
        "spec_id": spec.spec_id,
        "key_fingerprint": HEX[:32],
        "commitment": Commitment(
            sha256=HEX, spec_id=spec.spec_id, key_fingerprint=HEX[:32], created="2025-11-02T09:00:00+00:00"
        ),
        "tests": ["blind"],
        "alpha": 1e-6,
        "decoy_seed": "dyetrace",
        "decoy_count": 100,
        "encoder": "tokenizers 0.22",
        "inputs": [Input(name="suspects.jsonl", sha256=HEX, bytes=123456)],
        "documents": list(documents),
        "made": Made(code_sha256=HEX, examiner="N. N., Institute of Dyes", case="2026/7 owner against suspect"),
    }
    return Record(**(fields | changes))


def hostile_record(text: str) -> Record:
    document = make_document(text, tenants=(text,), aware=12.0, texts=[text, "\n", text, " end"] * 9)
    refused = make_document(text, refused=text)
    return make_record(
        document,
        refused,
        msgspec.structs.replace(document, found=False, log10_pvalue=-1.0),
        created=text,
        made=Made(code_sha256=text, examiner=text, case=text),
        how_to_check=[text],
        arguments={text: text, "source": text, "list": [text]},
        versions={text: text, "dyetrace": text},
        spec_id=text,
        key_fingerprint=text,
        tests=[text],
        decoy_seed=text,
        encoder=text,
        inputs=[Input(name=text, sha256=text, bytes=1)],
        commitment=Commitment(sha256=text, spec_id=text, key_fingerprint=text, created=text),
    )


def on_page(record: Record) -> str:
    return draw(story(record))


def in_terminal(record: Record, width: int = 80, colour: bool = False) -> str:
    out = StringIO()
    print_story(story(record), Console(file=out, width=width, force_terminal=colour, legacy_windows=False))
    return out.getvalue()


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


def shown_records() -> dict[str, Record]:
    texts = ["The", " dye", " is", "\n\n", "\tred", "."] * 4
    many = [make_document(f"corpus.jsonl:{i}", -8.0 - i, tenants=("acme",), seed=i) for i in range(70)]
    return {
        "marked": make_record(make_document(texts=texts)),
        "unmarked": make_record(make_document(log10_p=-0.3, found=False, texts=texts), commitment=None),
        "refused": make_record(make_document(refused="the decoy keys contradict the test")),
        "aware": make_record(make_document(texts=texts, aware=44.0, tenants=("acme",))),
        "many": make_record(*many, spec=make_spec(global_share=0.5)),
        "none": make_record(inputs=[]),
        "no decoys": make_record(make_document(decoy_count=0), decoy_count=0),
        "green list": make_record(make_document(texts=texts), spec=make_spec(scheme="green_list")),
        "unigram": make_record(make_document(), spec=make_spec(scheme="green_list", context_width=0)),
        "tournament": make_record(make_document(texts=texts, aware=9.0), spec=make_spec(scheme="tournament")),
    }


@pytest.mark.parametrize("kind", shown_records())
def test_page_is_whole_and_loads_nothing(kind: str) -> None:
    text = on_page(shown_records()[kind])
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "img", "iframe", "link", "object", "embed", "base", "form"} & set(names)
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name in ("src", "srcset", "data") or name.startswith("on")}
        assert "href" not in attributes or (tag == "a" and (attributes["href"] or "").startswith("#"))
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.mark.parametrize("kind", shown_records())
def test_page_can_be_read_by_all(kind: str) -> None:
    text = on_page(shown_records()[kind])
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
    assert all("scope" in a for tag, a in page.tags if tag == "th")
    assert all(a.get("role") == "img" and "aria-labelledby" in a for tag, a in page.tags if tag == "svg")
    assert text.count("<svg") == text.count("<desc")
    assert text.count("<table") == text.count("<caption")


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
        assert coloured == plain


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


def test_recompute_command_names_all_but_the_key() -> None:
    record = make_record(make_document(), inputs=[Input(name="-odd name", sha256=HEX, bytes=1)])
    assert wording.recompute_command(record) == (
        "dyetrace detect './-odd name' --spec spec.json --key file:KEYFILE --alpha 1e-06 --decoys 100 "
        "--decoy-seed dyetrace --tenant acme --tenant 'b c'"
    )


@pytest.mark.parametrize("kind", shown_records())
def test_record_survives_its_file(kind: str, tmp_path: Path) -> None:
    record = shown_records()[kind]
    path = tmp_path / "report.json"
    write_record(path, record)
    assert read_record(Record, path) == record
    assert path.read_bytes() == encode_record(read_record(Record, path)) and path.read_bytes().endswith(b"}\n")
    decoded = msgspec.json.decode(path.read_bytes())
    assert list(decoded) == sorted(decoded)


def test_hostile_record_survives_its_file(tmp_path: Path) -> None:
    for text in HOSTILE:
        write_record(tmp_path / "r.json", hostile_record(text))
        assert read_record(Record, tmp_path / "r.json") == hostile_record(text)


def test_lone_surrogates_of_file_names_are_written_as_escapes(tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", make_record(make_document("caf\udce9")))
    assert read_record(Record, tmp_path / "r.json").documents[0].name == "caf\\udce9"


def _altered(**changes: Any) -> Document:
    return msgspec.structs.replace(make_document(texts=["a"]), **changes)


@pytest.mark.parametrize("bad", [-math.inf, math.nan])
def test_numbers_that_json_lacks_are_refused(bad: float, tmp_path: Path) -> None:
    record = msgspec.structs.replace(make_record(), documents=[_altered(log10_pvalue_corpus=bad)])
    with pytest.raises(DyetraceError, match=r"documents\[0\].*must be a finite number"):
        write_record(tmp_path / "r.json", record)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, but this dyetrace reads version 1"),
        ({"format": "other"}, "its format is 'other'"),
        ({"surprise": 1}, "surprise"),
        ({"alpha": 0}, "alpha must lie in"),
        ({"alpha": "x"}, "Expected `float`"),
        ({"documents": 1}, "Expected `array`"),
        ({"spec": {"vocabulary_size": 1, "tokenizer": "", "key_fingerprint": ""}}, "vocabulary_size"),
    ],
)
def test_bad_records_are_one_clear_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode(msgspec.to_builtins(make_record()) | change))
    with pytest.raises(DyetraceError, match=re.escape(message)) as caught:
        read_record(Record, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (_altered(log10_pvalue_corpus=0.5), "must be 0 or less"),
        (_altered(log10_pvalue=None), "is found, but has no p-value"),
        (_altered(view=TokenView(hypothesis="", subkey=0, texts=["a"], pvalues=[])), "1 texts but 0 pvalues"),
        (_altered(view=TokenView(hypothesis="", subkey=0, texts=["a"], pvalues=[2.0])), "must lie in 0 .. 1"),
    ],
)
def test_records_that_contradict_themselves_are_refused(document: Document, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(path, msgspec.structs.replace(make_record(), documents=[document]))
    with pytest.raises(DyetraceError, match=re.escape(message)):
        read_record(Record, path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"a": 1', b"[1e999]", b"null"])
def test_broken_files_are_one_clear_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(DyetraceError, match=r"not whole JSON|is not the report of a detection") as caught:
        read_record(Record, path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DyetraceError, match="cannot read record"):
        read_record(Record, tmp_path / "absent.json")


def test_schema_describes_what_is_written() -> None:
    schema = json_schema("detection")
    assert schema["$id"] == "urn:dyetrace:detection:1" and schema["title"] == "dyetrace detection record"
    definitions = schema["$defs"]
    assert set(definitions["Record"]["properties"]) == set(msgspec.to_builtins(make_record()))
    assert set(definitions["Document"]["properties"]) == set(msgspec.to_builtins(make_document()))
    assert definitions["Document"]["additionalProperties"] is False
    assert schema["$ref"] == "#/$defs/Record"


@given(st.text())
def test_clean_leaves_only_what_can_be_printed(text: str) -> None:
    assert all(c.isprintable() or c.isspace() for c in written.clean(text))
    assert not set(written.clean(text)) & set("\x00\x1b\n\r\t\x7f\x85\x9b\u202e\u2066\u200f\ufeff\u2028\u2029")
    if text.isprintable():
        assert written.clean(text) == text


@pytest.mark.parametrize(
    ("log10_p", "text"),
    [
        (-38.24, "10^-38.2"),
        (-38.0, "10^-38.0"),
        (-123456.78, "10^-123456.7"),
        (-3.0, "10^-3.0"),
        (-2.9999, "0.0011"),
        (math.log10(0.43), "0.43"),
        (math.log10(0.2), "0.20"),
        (math.log10(0.996), "1"),
        (-1e-20, "1"),
        (0.0, "1"),
        (1e-12, "1"),
        (-math.inf, "0"),
        (math.nan, "not a number"),
        (None, "not given"),
    ],
)
def test_pvalues_are_written_for_people(log10_p: float | None, text: str) -> None:
    assert written.format_p(log10_p) == text


def _read_back(text: str) -> float:
    base, _, exponent = text.partition("^")
    return float(exponent) if exponent else math.log10(float(base))


@given(st.floats(-1e5, 0))
def test_pvalues_are_rounded_up_and_never_far(log10_p: float) -> None:
    shown = _read_back(written.format_p(log10_p))
    assert log10_p - 1e-6 <= shown <= log10_p + 0.101


@given(st.floats(-1e5, 1e5))
def test_evalues_are_rounded_down_and_never_far(log10_e: float) -> None:
    shown = _read_back(written.format_e(log10_e))
    assert log10_e - 0.101 <= shown <= log10_e + 1e-6


@pytest.mark.parametrize(
    ("alpha", "text"), [(1e-6, "10^-6"), (0.05, "0.05"), (0.5, "0.5"), (0.001, "10^-3"), (5e-7, "10^-6.3")]
)
def test_levels_are_written_for_people(alpha: float, text: str) -> None:
    assert written.format_level(alpha) == text


def test_a_pvalue_in_coin_tosses() -> None:
    assert written.coin_tosses(-38.24) == 127  # 38.24 / log10(2) = 127.03
    assert written.coin_tosses(0.0) == 0
