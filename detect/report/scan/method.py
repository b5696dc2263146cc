"""How a scan's numbers came about, with formulas: written once, for its page and its PDF."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from detect.records.scan import ScanRecord
from detect.report.controls import contradiction_level
from detect.report.runs import Runs, level, p_value, runs
from detect.report.scan.wording import percent
from watermark.formats.protocol import is_format
from watermark.laws import Bernoulli, Exponential, Hypoexponential, WeightedBits
from watermark.spec import WatermarkSpec


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph or a formula."""

    kind: Literal["text", "formula"]
    text: Runs


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the method."""

    title: str
    blocks: list[Block]


def paragraph(template: str, **values: str | int | Runs) -> Block:
    """A paragraph (see `runs`)."""
    return Block("text", runs(template, **values))


def formula(template: str, **values: str | int | Runs) -> Block:
    """A formula on lines of its own."""
    return Block("formula", runs(template, **values))


def method(record: ScanRecord) -> list[Section]:
    """Write the method of this record's scan."""
    return [
        Section("The question", _question()),
        Section(
            "The score",
            [*(block for spec in _schemes(record) for block in score_blocks(spec)), *calibration(record.calibration)],
        ),
        Section("Repeats count once", _repeats(record)),
        Section(
            "One key against the whole corpus",
            _corpus_test(record) if record.calibration is None else _corpus_ranks(record),
        ),
        Section("Looking more than once", _looks(record)),
        Section("The list of documents", _documents(record)),
        Section("The shares", _shares(record)),
        Section("Segments", _segments()),
        *([] if record.calibration is not None else [Section("Controls", _controls(record))]),
    ]


def references() -> list[str]:
    """Papers that the method names, in full."""
    return [
        "S. Aaronson, talk on watermarking of language models, 2022 (exponential score).",
        "Y. Benjamini and Y. Hochberg, “Controlling the false discovery rate”, J. R. Statist. Soc. B 57, 1995.",
        "R. H. Berk and D. H. Jones, “Goodness-of-fit test statistics that dominate the Kolmogorov statistics”, "
        "Z. Wahrscheinlichkeitstheorie verw. Gebiete 47, 1979.",
        "S. Holm, “A simple sequentially rejective multiple test procedure”, Scand. J. Statist. 6, 1979.",
        "J. Kirchenbauer et al., “A watermark for large language models”, ICML 2023 (green list).",
        "C. Loader, “Fast and accurate computation of binomial probabilities”, 2000.",
        "N. Meinshausen and J. Rice, “Estimating the proportion of false null hypotheses among a large number of "
        "independently tested hypotheses”, Ann. Statist. 34, 2006.",
        "M. Noé, “The calculation of distributions of two-sided Kolmogorov–Smirnov type statistics”, Ann. Math. "
        "Statist. 43, 1972.",
        "Z. Šidák, “Rectangular confidence regions for the means of multivariate normal distributions”, J. Amer. "
        "Statist. Assoc. 62, 1967.",
        "J. D. Storey, “A direct approach to false discovery rates”, J. R. Statist. Soc. B 64, 2002.",
        "R. Wang and A. Ramdas, “False discovery rate control with e-values”, J. R. Statist. Soc. B 84, 2022.",
    ]


def calibration(said: str | None) -> list[Block]:
    """How p-values came about where they aren't the law's tails."""
    return [] if said is None else [paragraph("$said.", said=said.rstrip("."))]


def _question() -> list[Block]:
    return [
        paragraph(
            "The null hypothesis is that the key had no say in the corpus: neither in its text nor in which text was "
            "chosen. The alternative is that some of it was generated under the watermark with this key. The corpus is "
            "held fixed and the key is what varies. Nothing else is assumed about the text: it may repeat itself, be "
            "in any language, or be chosen by an adversary who lacks the key."
        )
    ]


def _schemes(record: ScanRecord) -> Iterator[WatermarkSpec]:
    """One spec of each scheme: epochs differ in their keys alone."""
    seen: set[object] = set()
    for spec in record.specs:
        law = spec.build_scheme().law
        if law not in seen:
            seen.add(law)
            yield spec


def _words(spec: WatermarkSpec) -> Block | None:
    """What makes the words of a foreign format."""
    scheme = spec.build_scheme()
    if not is_format(scheme):
        return None
    return paragraph(
        "The mark is that of $system (format <code>$name</code>). Each token, together with the $h before it, has a "
        "word that this system computes from them and its key, and that dyetrace computes in the same way, bit for "
        "bit. The generator preferred tokens with favourable words; the score counts how favourable the words of the "
        "text are.",
        system=scheme.system,
        name=scheme.name,
        h="token" if spec.context_width == 1 else f"{spec.context_width} tokens",
    )


def score_blocks(spec: WatermarkSpec) -> Iterator[Block]:
    """How a token scores under a spec, and the law of the sum."""
    yield _words(spec) or paragraph(
        "Each token, together with the $h before it, is put through a keyed pseudo-random function (ChaCha8) that "
        "gives a 32-bit word, and so a number <i>u</i> = (word + ½) / 2<sup>32</sup>. To anyone without the key these "
        "words are independent and uniform. The generator preferred tokens with favourable words; the score counts how "
        "favourable the words of the text are.",
        h="token" if spec.context_width == 1 else f"{spec.context_width} tokens",
    )
    law = spec.build_scheme().law
    if isinstance(law, Exponential):
        yield paragraph(
            "Scheme <code>$name</code>: a token scores −ln(1 − <i>u</i>) nats (Aaronson 2022). The sum over <i>n</i> "
            "tuples has the Gamma distribution:",
            name=spec.scheme,
        )
        yield formula(
            "P(<i>S</i><sub><i>n</i></sub> ≥ <i>s</i>) = e<sup>−<i>s</i></sup> Σ<sub><i>k</i> = 0 … <i>n</i> − 1</sub> "
            "<i>s</i><sup><i>k</i></sup> / <i>k</i>!"
        )
    elif isinstance(law, Hypoexponential):
        yield paragraph(
            "Format <code>$name</code>: either of two keys may have chosen a token, which scores the sum of −ln(1 − "
            "<i>u</i>) under both with the weights $first and $second. The sum over <i>n</i> tuples is that of two "
            "independent Gamma variables with these scales, and its tail a negative binomial mixture of Gamma tails "
            "(Moschopoulos 1985), all of whose terms are positive.",
            name=spec.scheme,
            first=f"{law.weights[0]:g}",
            second=f"{law.weights[1]:g}",
        )
    elif isinstance(law, Bernoulli):
        yield paragraph(
            "Scheme <code>$name</code>: a token scores 1 when its word puts it on the green list, which happens with "
            "probability γ = $gamma, else 0 (Kirchenbauer et al. 2023). The number of green ones among <i>n</i> tuples "
            "has the binomial distribution:",
            name=spec.scheme,
            gamma=f"{law.gamma:.6g}",
        )
        yield formula(
            "P(<i>S</i><sub><i>n</i></sub> ≥ <i>s</i>) = Σ<sub><i>k</i> = <i>s</i> … <i>n</i></sub> <i>n</i>! / "
            "(<i>k</i>! (<i>n</i> − <i>k</i>)!) γ<sup><i>k</i></sup> (1 − γ)<sup><i>n</i> − <i>k</i></sup>"
        )
    elif isinstance(law, WeightedBits):
        yield paragraph(
            "Scheme <code>$name</code>: a token scores the sum of $n bits <i>g</i><sub><i>l</i></sub> of its word with "
            "weights <i>w</i><sub><i>l</i></sub> from $first to $last. Without the key the bits are fair coins, and "
            "the law of the sum over <i>n</i> tuples is the convolution of those of the weighted bits:",
            name=spec.scheme,
            n=len(law.weights),
            first=law.weights[0],
            last=law.weights[-1],
        )
        yield formula(
            "<i>S</i><sub><i>n</i></sub> = Σ<sub>tuples</sub> Σ<sub><i>l</i></sub> <i>w</i><sub><i>l</i></sub> "
            "<i>g</i><sub><i>l</i></sub>, with each <i>g</i><sub><i>l</i></sub> 0 or 1 with probability ½"
        )
    else:
        yield paragraph(
            "Scheme <code>$name</code>: a token’s score takes one of $n values with known probabilities; the law of "
            "the sum over <i>n</i> tuples is their <i>n</i>-fold convolution:",
            name=spec.scheme,
            n=len(law.values),
        )
        yield formula(
            "<i>S</i><sub><i>n</i></sub> = Σ<sub><i>i</i> = 1 … <i>n</i></sub> <i>X</i><sub><i>i</i></sub>, "
            "P(<i>X</i><sub><i>i</i></sub> = <i>v</i><sub><i>j</i></sub>) = π<sub><i>j</i></sub>"
        )
    yield paragraph(
        "These tails are computed with logarithms, so that they neither underflow nor are rounded to zero (Loader "
        "2000). There is no normal approximation, no mid-p and no fitted model. In this report p-values are rounded up "
        "and e-values down."
    )


def _repeats(record: ScanRecord) -> list[Block]:
    return [
        paragraph(
            "A (context, token) pair has the same word wherever it stands, so counting it twice would count one piece "
            "of evidence twice. Each distinct pair (“tuple”) of the whole corpus is counted once, and belongs to the "
            "first document that holds it: $distinct of $all positions. Documents therefore share no evidence, and a "
            "text that was copied many times is evidence once. Which tuples these are is settled without any key.",
            distinct=record.distinct_tuples,
            all=record.tuples,
        )
    ]


def _corpus_test(record: ScanRecord) -> list[Block]:
    counts = sorted({spec.subkeys for spec in record.specs})
    return [
        paragraph(
            "Every request was marked with one of $k sub-keys. Two tests look for two kinds of corpus, and twice the "
            "smaller p-value pays for both.",
            k=" or ".join(map(str, counts)),
        ),
        paragraph(
            "<b>Pooled test</b>, for marks in much of the corpus. The totals <i>T</i><sub><i>j</i></sub> of the "
            "<i>K</i> sub-keys over the key’s <i>n</i> tuples are independent, so their sum is one of <i>nK</i> draws:"
        ),
        formula(
            "<i>p</i><sub>pooled</sub> = P(<i>S</i><sub><i>nK</i></sub> ≥ <i>T</i><sub>1</sub> + … + "
            "<i>T</i><sub><i>K</i></sub>)"
        ),
        paragraph(
            "<b>Rare-documents test</b>, for marks in a few documents among many. Each document has its own p-value "
            "under the key (Šidák over its sub-keys). Of <i>m</i> unmarked documents, the number at or below <i>x</i> "
            "is Binomial(<i>m</i>, <i>x</i>) or fewer, so each of the smallest p-values <i>p</i><sub>(<i>i</i>)</sub> "
            "has a p-value of its own. The most extreme of them, with weight 1/<i>i</i>, is the statistic (after Berk "
            "and Jones 1979), and its exact law under the null hypothesis gives the result (Noé 1972):"
        ),
        formula(
            "<i>M</i> = min<sub><i>i</i></sub> <i>i</i> P(Binomial(<i>m</i>, <i>p</i><sub>(<i>i</i>)</sub>) ≥ "
            "<i>i</i>), \N{EM SPACE}<i>p</i><sub>rare</sub> = P(<i>M</i> or less)"
        ),
        formula("<i>p</i><sub>key</sub> = min(1, 2 min(<i>p</i><sub>pooled</sub>, <i>p</i><sub>rare</sub>))"),
    ]


def _corpus_ranks(record: ScanRecord) -> list[Block]:
    """The tests of a format that is not exact."""
    return [
        paragraph(
            "<b>Pooled test</b>, for marks in much of the corpus: the key’s total over $tuples distinct tuples, chosen "
            "without any key, is ranked among those of $n keys of the format derived from the public seed "
            "<code>$seed</code>.",
            tuples=record.controls.decoy_tuples,
            n=len(record.controls.decoy_log10_pvalues),
            seed=record.controls.decoy_seed,
        ),
        formula(
            "<i>p</i><sub>pooled</sub> = (1 + decoys with as large a total) / (1 + decoys), \N{EM SPACE}"
            "<i>p</i><sub>rare</sub> = min(1, documents × the smallest p-value of a document)"
        ),
        paragraph(
            "<b>Rare-documents test</b>: a document’s own p-value is the law’s tail with the bound of the format’s "
            "seeds, or the true key’s rank among decoys, ten and a hundred times as many where fewer than five are as "
            "extreme. Twice the smaller of both p-values pays for both tests. A document’s e-value is "
            "1 / (2 <i>p</i><sup>½</sup>)."
        ),
        formula("<i>p</i><sub>key</sub> = min(1, 2 min(<i>p</i><sub>pooled</sub>, <i>p</i><sub>rare</sub>))"),
    ]


def _looks(record: ScanRecord) -> list[Block]:
    keys = len(record.hypotheses)
    return [
        paragraph(
            "The smallest of <i>k</i> independent p-values is paid for with Šidák’s formula (sub-keys of a document); "
            "several keys with Holm’s, for p-values in rising order <i>p</i><sub>(1)</sub> ≤ … ≤ "
            "<i>p</i><sub>(<i>m</i>)</sub>:"
        ),
        formula(
            "<n>Šidák: 1 − (1 − <i>p</i>)<sup><i>k</i></sup></n>\N{EM SPACE} <n>Holm: max<sub><i>j</i> ≤ "
            "<i>i</i></sub> (<i>m</i> − <i>j</i> + 1) <i>p</i><sub>(<i>j</i>)</sub></n>"
        ),
        paragraph(
            "$keys tested here. The mark is called found when the smallest adjusted p-value is at most $level.",
            keys="One key was" if keys == 1 else f"{keys:,} keys were",
            level=level(record.alpha),
        ),
        *([_pointing(record)] if record.pairs_paid else []),
    ]


def _pointing(record: ScanRecord) -> Block:
    return paragraph(
        "A document points to a key when its p-value under this key alone (Šidák over sub-keys) is at most $level "
        "divided by the $pairs pairs of a tested document and a key. The chance that any document of this report "
        "points to a key that had no say in it is then at most $level, whoever else is guilty: contexts of the global "
        "key and of accounts are disjoint, accounts share theirs, and each key makes its own words there.",
        level=level(record.alpha),
        pairs=record.pairs_paid,
    )


def _documents(record: ScanRecord) -> list[Block]:
    found = record.discoveries
    return [
        paragraph(
            "A document’s p-value pays for its sub-keys (Šidák) and for all keys (the number of keys times the "
            "smallest). Benjamini and Hochberg’s procedure then lists documents so that the expected share of unmarked "
            "ones among them is at most <i>q</i> = $rate. With <i>m</i> = $m tested documents, the adjusted value of "
            "the one with rank <i>i</i> is (documents share no tuple, so that p-values of unmarked ones are "
            "independent)",
            rate=percent(found.rate),
            m=found.tested,
        ),
        formula("min<sub><i>j</i> ≥ <i>i</i></sub> (<i>m</i> / <i>j</i>) <i>p</i><sub>(<i>j</i>)</sub>"),
        paragraph(
            "and the document is listed when it is at most <i>q</i>. Beside it each document has an e-value$made, "
            "whose mean is at most 1 without the key. e-BH (Wang and Ramdas 2022) lists the <i>r</i> largest, for the "
            "largest <i>r</i> such that each is at least <i>m</i> / (<i>q r</i>); this needs no independence.",
            made=", an average of likelihood ratios over a fixed grid of strengths, sub-keys and keys"
            if record.calibration is None
            else "",
        ),
        *([_evalue()] if record.calibration is None else []),
    ]


def _evalue() -> Block:
    return formula(
        "<i>e</i> = average over <i>θ</i> of exp(<i>θ T</i> − <i>n κ</i>(<i>θ</i>)), \N{EM SPACE}"
        "<i>κ</i>(<i>θ</i>) = ln E exp(<i>θ X</i>)"
    )


def _shares(record: ScanRecord) -> list[Block]:
    shares = record.shares
    return [
        paragraph(
            "Of <i>m</i> p-values of unmarked things at most Binomial(<i>m</i>, <i>x</i>) are at or below <i>x</i>, "
            "for every threshold <i>x</i>. What exceeds a high quantile of that is marked, whatever marked text looks "
            "like (Meinshausen and Rice 2006). This bounds shares from below. An upper end needs a sample of text that "
            "is known to be marked, since weak marks in any number of documents cannot be excluded otherwise."
        ),
        paragraph(
            "Documents, at $confidence confidence: $method.",
            confidence=percent(shares.documents.confidence),
            method=shares.documents.method,
        ),
        paragraph(
            "Tuples, at $confidence confidence: $method.",
            confidence=percent(shares.tokens.confidence),
            method=shares.tokens.method,
        ),
    ]


def _segments() -> list[Block]:
    return [
        paragraph(
            "Within a listed document, under its best key and sub-key, a segment is a stretch of tokens whose sum of "
            "log-likelihood ratios against the null law is the largest. Its p-value pays for all stretches, sub-keys "
            "and keys of the document, and not for the choice of the document. A segment shows where the evidence is; "
            "its ends are uncertain by some tokens."
        )
    ]


def _controls(record: ScanRecord) -> list[Block]:
    controls = record.controls
    if not controls.decoy_log10_pvalues:
        return [paragraph("No decoy keys were run, so this report holds no check of its own p-values.")]
    return [
        paragraph(
            "The pooled test ran under $n keys derived from the public seed <code>$seed</code>, on $tuples distinct "
            "tuples that were chosen without any key. Decoys are as independent of the text as the true key is under "
            "the null hypothesis, so their p-values must be uniform or larger. This is tested (one-sided "
            "Kolmogorov–Smirnov, and the smallest of them), here with p = $p. Below $level the scan’s result is "
            "refused.",
            n=len(controls.decoy_log10_pvalues),
            seed=controls.decoy_seed,
            tuples=controls.decoy_tuples,
            p=p_value(controls.decoy_log10_agreement),
            level=contradiction_level(),
        ),
        paragraph(
            "The same was done document by document under one more decoy key (the “null key”); a contradiction there "
            "refuses the result as well. So does a control corpus that should hold no mark, where it is marked under "
            "the true keys at $level. Decoy keys test the arithmetic: they can’t see that a text was chosen with the "
            "key.",
            level=contradiction_level(),
        ),
    ]
