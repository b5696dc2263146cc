"""How a detection's numbers came about, with formulas."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.document.pointing import level_per_test
from detect.records.detection import Record
from detect.report.detection.wording import ranked, several_keys
from detect.report.method import SIDAK_AND_HOLM, calibration, decoy_keys, papers, score_blocks
from detect.report.runs import level
from detect.report.story import Leaf, formula, heading, text
from watermark.laws import Bernoulli, Exponential, Law

PAPERS = papers("Aaronson", "Holm", "Kirchenbauer", "Loader", "Šidák")


def method(record: Record) -> Iterator[Leaf]:
    """Write the method of this record's tests."""
    law, accounts = record.spec.build_scheme().law, " or an account’s" if several_keys(record) else ""
    yield heading("The question")
    yield text(
        "The null hypothesis is that the key had no say in the document: neither in its text nor in its choice. The "
        f"alternative is that it was generated under the watermark with this key{accounts}. Nothing else is assumed "
        "about the text: it may repeat itself, be in any language, or be chosen by an adversary who lacks the key."
    )
    yield heading("The score")
    yield from score_blocks(record.spec)
    yield from calibration(record.calibration)
    yield heading("The law’s tail" if record.calibration else "What “exact” means")
    what = "The law’s tail" if record.calibration else "The p-value"
    steps = " The steps of <i>u</i> and of the scores only make it larger." if isinstance(law, Exponential) else ""
    yield text(
        "The text is held fixed and the key is what varies, which is right where the key had no say in the text or in "
        f"its choice. {what} is then P(<i>S</i> ≥ <i>s</i>) of the law above.{steps}"
    )
    yield heading("Repeats count once")
    yield _repeats(record)
    yield heading("Looking more than once")
    yield from _looks(record)
    yield heading("Decoy keys")
    yield _decoys(record)
    if any(document.aware for document in record.documents):
        yield heading("With the owner’s model")
        yield from _aware(law)


def _repeats(record: Record) -> Leaf:
    if not record.spec.context_width:
        return text(
            "Without a context a token has the same word wherever it stands. Each distinct token is one draw, weighted "
            "by how often it occurs, and the law above is that of the weighted sum."
        )
    return text(
        "A (context, token) pair that occurs twice has the same word both times, which would count one piece of "
        "evidence twice. Each distinct pair (“tuple”) is counted once, at its first occurrence."
    )


def _looks(record: Record) -> Iterator[Leaf]:
    yield text(
        "Every request uses one of $k sub-keys, and the test takes the best of them. The smallest of <i>k</i> p-values "
        "is paid for with Šidák’s formula. Several keys, and then several documents, are paid for with Holm’s, for "
        "p-values in rising order <i>p</i><sub>(1)</sub> ≤ … ≤ <i>p</i><sub>(<i>m</i>)</sub>:",
        k=record.spec.subkeys,
    )
    yield SIDAK_AND_HOLM
    half = (
        ", which is half of the report’s level because documents were tested both with and without the model"
        if any(document.aware for document in record.documents)
        else ""
    )
    yield text(
        f"A mark is called found when the p-value that pays for all of this is at most $limit{half}.",
        limit=level(level_per_test(record.documents, record.alpha)),
    )
    if record.spec.global_share < 1:
        yield text(
            "A keyed bit of each context decides whether the global key or the account’s key marks the next token. "
            "Each key is tested on its own contexts alone."
        )


def _decoys(record: Record) -> Leaf:
    if ranked(record):
        return text(
            "The test ran under $n keys of the format derived from the public seed <code>$seed</code>, and the true "
            "key’s tail was ranked among theirs: p = (1 + decoys at least as extreme) / (1 + decoys). Where fewer than "
            "five are as extreme, ten times as many decoys were drawn, and then once more. This needs nothing but that "
            "the true key was drawn like the decoys, before the text was written.",
            n=record.decoy_count,
            seed=record.decoy_seed,
        )
    return decoy_keys(record.decoy_count, record.decoy_seed, "The same test", "text", "the document’s result")


def _aware(law: Law) -> Iterator[Leaf]:
    if isinstance(law, Bernoulli):
        yield text(
            "Let <i>P</i> be the model’s probability of the token without the mark, <i>g</i> = 1 when the token is "
            "green, and <i>w</i> a weight computed from <i>P</i> alone: the evidence that a green token would give. "
            "The ratio below has mean 1 under the null hypothesis for every <i>P</i>, right or wrong, and so has a "
            "product over positions with distinct contexts. That makes it an e-value, and Markov’s inequality bounds "
            "the p-value:"
        )
        yield formula(
            "<i>r</i> = e<sup><i>wg</i></sup> / (1 − γ + γ e<sup><i>w</i></sup>), \N{EM SPACE}<i>e</i> = average of "
            "the product over positions of (1 + λ (<i>r</i> − 1)), \N{EM SPACE}<n><i>p</i> ≤ min(1, 1/<i>e</i>)</n>"
        )
    else:
        yield text(
            "Let <i>P</i>(<i>x</i>) be the model’s probability of a token without the mark and <i>W</i>(<i>x</i>) with "
            "it, under the key. Averaged over keys, <i>W</i> is <i>P</i>, for every <i>P</i>, right or wrong. The "
            "ratio therefore has mean 1 under the null hypothesis, and so has a product over positions with distinct "
            "contexts. That makes it an e-value, and Markov’s inequality bounds the p-value:"
        )
        yield formula(
            "<i>e</i> = average of the product over positions of (1 + λ (<i>W</i>(<i>x</i>) / <i>P</i>(<i>x</i>) − "
            "1)), \N{EM SPACE}<n><i>p</i> ≤ min(1, 1/<i>e</i>)</n>"
        )
    copies = ", over perturbed copies of the model’s probabilities" if isinstance(law, Exponential) else ""
    yield text(
        f"The average is over betting fractions λ, over temperatures{copies} and over sub-keys. A wrong model costs "
        "power and not validity, but for one that learnt from text marked with this key."
    )
