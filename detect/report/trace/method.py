"""How a trace's numbers came about, with formulas."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.records.trace import TraceRecord
from detect.report.method import calibration, decoy_keys, papers, words
from detect.report.runs import level
from detect.report.story import Leaf, formula, heading, text
from detect.student.verdict.score import MOST_NATS, STEPS_PER_NAT
from detect.student.verdict.weights import LARGEST_WEIGHT, STEPS
from watermark.laws import Bernoulli, Exponential, Hypoexponential, WeightedBits
from watermark.spec import WatermarkSpec

PAPERS = papers("Aaronson", "Dempster", "Holm", "Kirchenbauer", "Robbins", "Sander", "Ville", "Vovk")
_READOUTS = {
    "argmax": "its likeliest token <i>v</i> has the weight <i>f</i> = 1, all others 0 (the test of Sander et al. 2024)",
    "mass": "each token’s weight is its probability, <i>f</i> = <i>q</i>",
    "entropy": "each token’s weight is <i>f</i> = <i>q</i> (1 − <i>q</i>), which is largest where the model wavers",
    "log": "each token’s weight is <i>f</i> = <i>q</i><sup>½</sup> (ln <i>q</i> + <i>H</i>), with <i>H</i> the entropy "
    "of the context’s candidates",
    "reference": "each token’s weight compares its probability <i>q</i> with <i>r</i>, that of the reference",
}


def method(record: TraceRecord) -> list[Leaf]:
    """Write the method of this record's trace; its question is the court's."""
    parts = (_weights, _score, _total, _evalue, _keys, _power, _share, _controls)
    return [block for part in parts for block in part(record)]


def _weights(record: TraceRecord) -> Iterator[Leaf]:
    yield heading("What was read of the suspect")
    width = record.spec.context_width
    tokens = "token" if width == 1 else f"{width} tokens"
    where = "its answers say" if record.mode == "api" else "the suspect predicts"
    described = _READOUTS.get(record.readout)
    yield text(
        f"A context is the {tokens} before a position. For each distinct context <i>c</i>, {where} how likely each "
        "token <i>v</i> is to come next. The readout <code>$name</code> turns that into weights"
        + (f": {described}." if described else "."),
        name=record.readout,
    )
    if record.readout == "reference":
        yield formula(
            "<i>f</i><sub><i>cv</i></sub> = ((<i>q</i> + <i>r</i>) / 2)<sup>½</sup> · clip(ln(<i>q</i> / <i>r</i>), "
            "−2, 2)"
        )
    if record.references:
        yield text(
            "A reference takes out what any model of the language would say. A bad reference costs power. One that "
            "itself learnt from marked text would spoil the test: each reference is therefore traced in the suspect’s "
            "place, and no answer is given where the mark is found in it."
        )
    if len(record.references) > 1:
        yield text(
            "Several references are mixed with shares that predict the suspect best (expectation maximisation, "
            "Dempster et al. 1977), fitted without any key."
        )
    yield text(
        "Weights are rounded to whole numbers from −$most to $most, in steps of 1/$steps, and kept in "
        "<code>evidence.npz</code>. A context does not count where its text stands in a prompt.",
        most=LARGEST_WEIGHT,
        steps=STEPS,
    )
    if record.served and record.served_marked:
        yield text(
            "Only contexts that were served count, each under the sub-keys that it was served with, and all alike. The "
            "served answers were marked, so that the key decided which contexts came up in them, and how often. Lay "
            "them open in the order in which they were served, token by token: when a context is first reached, that "
            "it was reached is known, and nothing else of them has a say in its weight; the words that it weighs are "
            "still fresh."
        )
    elif record.served:
        yield text(
            "Only contexts that were served count, and those that were served often weigh more, 2 <i>n</i> / "
            "(<i>n</i> + 1). The served answers were not marked with this key."
        )
    if any(reading.marked for reading in record.readings):
        yield text(
            "Of marked text, a position counts only where its context stands first in all documents: the window holds "
            "nothing then that the key chose for this context."
        )


def _score(record: TraceRecord) -> Iterator[Leaf]:
    yield heading("The score of a word")
    own = "Each sub-key makes words of its own. " if record.spec.subkeys > 1 else ""
    yield words(
        record.spec,
        f"{own}The generator preferred tokens with favourable words, and who learnt from its text prefers them a "
        "little too.",
    )
    yield from calibration(record.calibration)
    yield _of_words(record.spec)


def _of_words(spec: WatermarkSpec) -> Leaf:
    law = spec.build_scheme().law
    scores = "Scheme <code>$name</code>: the score <i>s</i> of a word"
    follows = "The probability of each value follows from the number of words that give it."
    if isinstance(law, Hypoexponential):
        return text(
            "Either of two keys may have chosen a token: the score <i>s</i> is the weighted sum of −ln(1 − <i>u</i>) "
            "under both, each rounded down to half a nat and at most $most nats, the weights in whole tenths. "
            + follows,
            most=MOST_NATS,
        )
    if isinstance(law, Exponential):
        return text(
            f"{scores} is −ln(1 − <i>u</i>) (Aaronson 2022), rounded down to 1/$steps nat and at most $most nats. "
            + follows,
            name=spec.scheme,
            steps=STEPS_PER_NAT,
            most=MOST_NATS,
        )
    if isinstance(law, Bernoulli):
        return text(
            f"{scores} is 1 when it puts the token on the green list, which happens with probability γ = $gamma, else "
            "0 (Kirchenbauer et al. 2023).",
            name=spec.scheme,
            gamma=f"{law.gamma:.6g}",
        )
    if isinstance(law, WeightedBits):
        return text(
            f"{scores} is the sum of $n of its bits with weights from $first to $last. Without the key the bits are "
            "fair coins.",
            name=spec.scheme,
            n=len(law.weights),
            first=law.weights[0],
            last=law.weights[-1],
        )
    return text(f"{scores} takes one of $n values with known probabilities.", name=spec.scheme, n=len(law.values))


def _total(record: TraceRecord) -> Iterator[Leaf]:
    yield heading("The total and its law")
    yield text(
        "The total of a key sums over all distinct pairs of context and token, and over the $k sub-keys <i>k</i> in "
        "question (one, where it is on record which one was used):",
        k=record.spec.subkeys,
    )
    yield formula(
        "<i>T</i> = Σ<sub><i>c</i>, <i>v</i></sub> <i>f</i><sub><i>cv</i></sub> Σ<sub><i>k</i></sub> "
        "<i>s</i>(word<sub><i>k</i></sub>(<i>c</i>, <i>v</i>))"
    )
    if record.spec.global_share < 1:
        yield text(
            "A keyed bit of each context says whether the global key or the tenants’ keys mark it. Each key’s total "
            "has its own contexts only, and so the global key and a tenant’s never share one."
        )
    yield text(
        "Given the weights, <i>T</i> is a weighted sum of independent scores of known law, whose cumulant function is"
    )
    yield formula(
        "<i>K</i>(<i>θ</i>) = ln E exp(<i>θ T</i>) = Σ<sub><i>c</i>, <i>v</i>, <i>k</i></sub> "
        "<i>κ</i>(<i>θ f</i><sub><i>cv</i></sub>), \N{EM SPACE}<i>κ</i>(<i>θ</i>) = ln E exp(<i>θ s</i>)"
    )
    yield text(
        "The tail P(<i>T</i> ≥ <i>t</i>) is computed on the lattice of whole numbers: the law is tilted until its "
        "mean is <i>t</i>, the tilted law follows from its characteristic function, and the tail is summed with "
        "logarithms, so that it neither underflows nor is rounded to zero. In this report p-values are rounded up and "
        "e-values down."
    )
    if record.sided == "two-sided":
        yield text(
            "Both tails count here: a mark that was subtracted from the model, and subtracted too far, makes the "
            "total too small."
        )
        yield formula("<i>p</i> = min(1, 2 min(P(<i>T</i> ≥ <i>t</i>), P(<i>T</i> ≤ <i>t</i>)))")


def _evalue(record: TraceRecord) -> Iterator[Leaf]:
    yield heading("The e-value")
    use = (
        "The verdict of this report rests on it: <i>p</i> ≤ 1/<i>e</i>."
        if record.basis == "e-value"
        else "Here it is shown beside the p-value, on which the verdict rests."
    )
    yield text(
        "The e-value is the average, over a fixed grid of <i>θ</i>, of likelihood ratios whose mean is 1 without the "
        "key:"
    )
    yield formula("<i>e</i> = average over <i>θ</i> of exp(<i>θ T</i> − <i>K</i>(<i>θ</i>))")
    yield text(
        "Weights may depend on all that was laid open before, in an order of their own: then it is a test martingale "
        "in that order, and the chance that it ever reaches 1/α there without the key is at most α (Ville 1939; "
        f"Robbins 1970). {use} The e-value of the whole report is the mean over keys (Vovk and Wang 2021)."
    )
    if record.queries is not None and record.queries.looks:
        yield text(
            "Here weights rest on marked served answers, and so on words in the order in which those were made, which "
            "is not that of the questions. The evidence is therefore the mean of the e-values after prompts 1, 2, 4, 8 "
            "and so on and the last, $n moments in all; those that were not reached count 0.",
            n=record.queries.looks,
        )


def _keys(record: TraceRecord) -> Iterator[Leaf]:
    yield heading("Several keys")
    yield text(
        "For p-values in rising order <i>p</i><sub>(1)</sub> ≤ … ≤ <i>p</i><sub>(<i>m</i>)</sub>, of $m keys here, "
        "Holm’s adjusted values pay for the choice. The mark is called found when the smallest is at most $level.",
        m=len(record.hypotheses),
        level=level(record.alpha),
    )
    yield formula("max<sub><i>j</i> ≤ <i>i</i></sub> (<i>m</i> − <i>j</i> + 1) <i>p</i><sub>(<i>j</i>)</sub>")
    if record.accounts:
        yield text(
            "Accounts whose text was used together may each stay below what names one of them. So the largest two, "
            "three, four and five of their totals are summed as well, and the hypothesis that none of the accounts "
            "left its mark is tested: the smallest p-value, times the number of groups of its size and of sizes. It "
            "shows that one of all accounts at least left its mark. It names nobody, since where some are guilty the "
            "largest totals may well be those of innocents."
        )


def _power(_: TraceRecord) -> Iterator[Leaf]:
    yield heading("Comparison of readouts, and power")
    yield text(
        "Each further context adds the same on average, so that the square of <i>z</i> = (<i>T</i> − E <i>T</i>) / sd "
        "grows with their number. The contexts that a readout needs are those at which <i>z</i> reaches 6.36, which is "
        "p = 10<sup>−10</sup> for a bell curve: a forecast, and part of no verdict."
    )


def _share(record: TraceRecord) -> Iterator[Leaf]:
    yield heading("The share of the training text")
    if record.share.interval is None:
        yield text(
            "How far a model leans depends on the marked text that it read, but also on its size, its training and on "
            "how often a context came up. The same lean can come from much text read once or little read often, so "
            "that the lean alone identifies no share. Students that the analyst trains in the same way, several of "
            "each of two known shares or more, would calibrate it."
        )
        return
    yield text(
        "Calibration students were trained with known marked shares, several of each, and read the same contexts under "
        "the same words. So what contexts add by chance is common to all of them and to the suspect, and how far "
        "training by itself moves the effect shows in how far students of one share differ: that is what the interval "
        "rests on. It holds if the suspect was trained like them, if their effects are about normal, and if more "
        "marked text never means a smaller effect on average; the shape of the curve is not assumed."
    )
    yield text("Method: $method.", method=record.share.interval.method)


def _controls(record: TraceRecord) -> Iterator[Leaf]:
    yield heading("Controls")
    controls = record.controls
    decoys, agreement = len(controls.decoy_log10_pvalues), controls.decoy_log10_agreement
    test = "The first key’s test, with the same weights,"
    yield decoy_keys(decoys, controls.decoy_seed, test, "suspect", "the result", agreement)
