"""How a scan's numbers came about, with formulas: written once, for its page and its PDF."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterable, Iterator

from detect.records.scan import ScanRecord
from detect.records.written import percent
from detect.report.controls import contradiction_level
from detect.report.method import SIDAK_AND_HOLM, calibration, decoy_keys, papers, score_blocks
from detect.report.runs import level
from detect.report.story import Leaf, formula, heading, text
from watermark.spec import WatermarkSpec

PAPERS = papers(
    *("Aaronson", "Benjamini", "Berk", "Holm", "Kirchenbauer", "Loader"),
    *("Meinshausen", "Noé", "Šidák", "Storey", "Wang"),
)


def method(record: ScanRecord) -> list[Leaf]:
    """Write the method of this record's scan."""
    return [
        heading("The question"),
        *_question(),
        heading("The score"),
        *(block for spec in _schemes(record) for block in score_blocks(spec)),
        *calibration(record.calibration),
        heading("Repeats count once"),
        *_repeats(record),
        heading("One key against the whole corpus"),
        *(_corpus_test(record) if record.calibration is None else _corpus_ranks(record)),
        formula("<i>p</i><sub>key</sub> = min(1, 2 min(<i>p</i><sub>pooled</sub>, <i>p</i><sub>rare</sub>))"),
        heading("Looking more than once"),
        *_looks(record),
        heading("The list of documents"),
        *_documents(record),
        heading("The shares"),
        *_shares(record),
        heading("Segments"),
        *_segments(),
        *([] if record.calibration is not None else [heading("Controls"), *_controls(record)]),
    ]


def _question() -> Iterator[Leaf]:
    yield text(
        "The null hypothesis is that the key had no say in the corpus: neither in its text nor in which text was "
        "chosen. The alternative is that some of it was generated under the watermark with this key. The corpus is "
        "held fixed and the key is what varies. Nothing else is assumed about the text: it may repeat itself, be "
        "in any language, or be chosen by an adversary who lacks the key."
    )


def _schemes(record: ScanRecord) -> Iterable[WatermarkSpec]:
    """One spec of each scheme, the first: epochs differ in their keys alone."""
    found: dict[object, WatermarkSpec] = {}
    for spec in record.specs:
        found.setdefault(spec.build_scheme().law, spec)
    return found.values()


def _repeats(record: ScanRecord) -> Iterator[Leaf]:
    yield text(
        "A (context, token) pair has the same word wherever it stands, so counting it twice would count one piece "
        "of evidence twice. Each distinct pair (“tuple”) of the whole corpus is counted once, and belongs to the "
        "first document that holds it: $distinct of $all positions. Documents therefore share no evidence, and a "
        "text that was copied many times is evidence once. Which tuples these are is settled without any key.",
        distinct=record.distinct_tuples,
        all=record.tuples,
    )


def _corpus_test(record: ScanRecord) -> Iterator[Leaf]:
    counts = sorted({spec.subkeys for spec in record.specs})
    yield text(
        "Every request was marked with one of $k sub-keys. Two tests look for two kinds of corpus, and twice the "
        "smaller p-value pays for both.",
        k=" or ".join(map(str, counts)),
    )
    yield text(
        "<b>Pooled test</b>, for marks in much of the corpus. The totals <i>T</i><sub><i>j</i></sub> of the "
        "<i>K</i> sub-keys over the key’s <i>n</i> tuples are independent, so their sum is one of <i>nK</i> draws:"
    )
    yield formula(
        "<i>p</i><sub>pooled</sub> = P(<i>S</i><sub><i>nK</i></sub> ≥ <i>T</i><sub>1</sub> + … + "
        "<i>T</i><sub><i>K</i></sub>)"
    )
    yield text(
        "<b>Rare-documents test</b>, for marks in a few documents among many. Each document has its own p-value "
        "under the key (Šidák over its sub-keys). Of <i>m</i> unmarked documents, the number at or below <i>x</i> "
        "is Binomial(<i>m</i>, <i>x</i>) or fewer, so each of the smallest p-values <i>p</i><sub>(<i>i</i>)</sub> "
        "has a p-value of its own. The most extreme of them, with weight 1/<i>i</i>, is the statistic (after Berk "
        "and Jones 1979), and its exact law under the null hypothesis gives the result (Noé 1972):"
    )
    yield formula(
        "<i>M</i> = min<sub><i>i</i></sub> <i>i</i> P(Binomial(<i>m</i>, <i>p</i><sub>(<i>i</i>)</sub>) ≥ "
        "<i>i</i>), \N{EM SPACE}<i>p</i><sub>rare</sub> = P(<i>M</i> or less)"
    )


def _corpus_ranks(record: ScanRecord) -> Iterator[Leaf]:
    """The tests of a format that is not exact."""
    yield text(
        "<b>Pooled test</b>, for marks in much of the corpus: the key’s total over $tuples distinct tuples, chosen "
        "without any key, is ranked among those of $n keys of the format derived from the public seed "
        "<code>$seed</code>.",
        tuples=record.controls.decoy_tuples,
        n=len(record.controls.decoy_log10_pvalues),
        seed=record.controls.decoy_seed,
    )
    yield formula(
        "<i>p</i><sub>pooled</sub> = (1 + decoys with as large a total) / (1 + decoys), \N{EM SPACE}"
        "<i>p</i><sub>rare</sub> = min(1, documents × the smallest p-value of a document)"
    )
    yield text(
        "<b>Rare-documents test</b>: a document’s own p-value is the law’s tail with the bound of the format’s "
        "seeds, or the true key’s rank among decoys, ten and a hundred times as many where fewer than five are as "
        "extreme. Twice the smaller of both p-values pays for both tests. A document’s e-value is "
        "1 / (2 <i>p</i><sup>½</sup>)."
    )


def _looks(record: ScanRecord) -> Iterator[Leaf]:
    keys = len(record.hypotheses)
    yield text(
        "The smallest of <i>k</i> independent p-values is paid for with Šidák’s formula (sub-keys of a document); "
        "several keys with Holm’s, for p-values in rising order <i>p</i><sub>(1)</sub> ≤ … ≤ "
        "<i>p</i><sub>(<i>m</i>)</sub>:"
    )
    yield SIDAK_AND_HOLM
    yield text(
        "$keys tested here. The mark is called found when the smallest adjusted p-value is at most $level.",
        keys="One key was" if keys == 1 else f"{keys:,} keys were",
        level=level(record.alpha),
    )
    if record.pairs_paid:
        yield text(
            "A document points to a key when its p-value under this key alone (Šidák over sub-keys) is at most $level "
            "divided by the $pairs pairs of a tested document and a key. The chance that any document of this report "
            "points to a key that had no say in it is then at most $level, whoever else is guilty: contexts of the "
            "global key and of accounts are disjoint, accounts share theirs, and each key makes its own words there.",
            level=level(record.alpha),
            pairs=record.pairs_paid,
        )


def _documents(record: ScanRecord) -> Iterator[Leaf]:
    found = record.discoveries
    yield text(
        "A document’s p-value pays for its sub-keys (Šidák) and for all keys (the number of keys times the "
        "smallest). Benjamini and Hochberg’s procedure then lists documents so that the expected share of unmarked "
        "ones among them is at most <i>q</i> = $rate. With <i>m</i> = $m tested documents, the adjusted value of "
        "the one with rank <i>i</i> is (documents share no tuple, so that p-values of unmarked ones are "
        "independent)",
        rate=percent(found.rate),
        m=found.tested,
    )
    yield formula("min<sub><i>j</i> ≥ <i>i</i></sub> (<i>m</i> / <i>j</i>) <i>p</i><sub>(<i>j</i>)</sub>")
    yield text(
        "and the document is listed when it is at most <i>q</i>. Beside it each document has an e-value$made, "
        "whose mean is at most 1 without the key. e-BH (Wang and Ramdas 2022) lists the <i>r</i> largest, for the "
        "largest <i>r</i> such that each is at least <i>m</i> / (<i>q r</i>); this needs no independence.",
        made=", an average of likelihood ratios over a fixed grid of strengths, sub-keys and keys"
        if record.calibration is None
        else "",
    )
    if record.calibration is None:
        yield formula(
            "<i>e</i> = average over <i>θ</i> of exp(<i>θ T</i> − <i>n κ</i>(<i>θ</i>)), \N{EM SPACE}"
            "<i>κ</i>(<i>θ</i>) = ln E exp(<i>θ X</i>)"
        )


def _shares(record: ScanRecord) -> Iterator[Leaf]:
    yield text(
        "Of <i>m</i> p-values of unmarked things at most Binomial(<i>m</i>, <i>x</i>) are at or below <i>x</i>, "
        "for every threshold <i>x</i>. What exceeds a high quantile of that is marked, whatever marked text looks "
        "like (Meinshausen and Rice 2006). This bounds shares from below. An upper end needs a sample of text that "
        "is known to be marked, since weak marks in any number of documents cannot be excluded otherwise."
    )
    for what, share in (("Documents", record.shares.documents), ("Tuples", record.shares.tokens)):
        confidence = percent(share.confidence)
        yield text(f"{what}, at $confidence confidence: $method.", confidence=confidence, method=share.method)


def _segments() -> Iterator[Leaf]:
    yield text(
        "Within a listed document, under its best key and sub-key, a segment is a stretch of tokens whose sum of "
        "log-likelihood ratios against the null law is the largest. Its p-value pays for all stretches, sub-keys "
        "and keys of the document, and not for the choice of the document. A segment shows where the evidence is; "
        "its ends are uncertain by some tokens."
    )


def _controls(record: ScanRecord) -> Iterator[Leaf]:
    controls = record.controls
    decoys, agreement = len(controls.decoy_log10_pvalues), controls.decoy_log10_agreement
    test = f"The pooled test, on {controls.decoy_tuples:,} distinct tuples that were chosen without any key,"
    yield decoy_keys(decoys, controls.decoy_seed, test, "text", "the scan’s result", agreement)
    if not decoys:
        return
    yield text(
        "The same was done document by document under one more decoy key (the “null key”); a contradiction there "
        "refuses the result as well. So does a control corpus that should hold no mark, where it is marked under "
        "the true keys at $level. Decoy keys test the arithmetic: they can’t see that a text was chosen with the "
        "key.",
        level=contradiction_level(),
    )
