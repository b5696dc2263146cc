"""How the numbers of reports came about, with formulas: what the methods of several kinds of reports share."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.report.controls import contradiction_level
from detect.report.runs import p_value
from detect.report.story import Leaf, formula, text
from watermark.formats.protocol import is_format
from watermark.laws import Bernoulli, Exponential, Hypoexponential, WeightedBits
from watermark.spec import WatermarkSpec

_PAPERS = {
    "Aaronson": "S. Aaronson, talk on watermarking of language models, 2022 (exponential score).",
    "Bahadur": "R. R. Bahadur and R. Ranga Rao, “On deviations of the sample mean”, Ann. Math. Statist. 31, 1960.",
    "Benjamini": "Y. Benjamini and Y. Hochberg, “Controlling the false discovery rate”, J. R. Statist. Soc. B 57, "
    "1995.",
    "Berk": "R. H. Berk and D. H. Jones, “Goodness-of-fit test statistics that dominate the Kolmogorov statistics”, "
    "Z. Wahrscheinlichkeitstheorie verw. Gebiete 47, 1979.",
    "Clopper": "C. J. Clopper and E. S. Pearson, “The use of confidence or fiducial limits illustrated in the case of "
    "the binomial”, Biometrika 26, 1934.",
    "Dathathri": "S. Dathathri et al., “Scalable watermarking for identifying large language model outputs”, Nature "
    "634, 2024 (tournament).",
    "Dempster": "A. P. Dempster, N. M. Laird and D. B. Rubin, “Maximum likelihood from incomplete data via the EM "
    "algorithm”, J. R. Statist. Soc. B 39, 1977.",
    "Fisher": "R. A. Fisher, “The Design of Experiments”, 1935 (tests by the coins of the experiment itself).",
    "Grünwald": "P. Grünwald, R. de Heide and W. Koolen, “Safe testing”, J. R. Statist. Soc. B 86, 2024.",
    "Holm": "S. Holm, “A simple sequentially rejective multiple test procedure”, Scand. J. Statist. 6, 1979.",
    "Kirchenbauer": "J. Kirchenbauer et al., “A watermark for large language models”, ICML 2023 (green list).",
    "Loader": "C. Loader, “Fast and accurate computation of binomial probabilities”, 2000.",
    "MacKay": "D. J. C. MacKay, “The evidence framework applied to classification networks”, Neural Computation 4, "
    "1992.",
    "Meinshausen": "N. Meinshausen and J. Rice, “Estimating the proportion of false null hypotheses among a large "
    "number of independently tested hypotheses”, Ann. Statist. 34, 2006.",
    "Noé": "M. Noé, “The calculation of distributions of two-sided Kolmogorov–Smirnov type statistics”, Ann. Math. "
    "Statist. 43, 1972.",
    "Robbins": "H. Robbins, “Statistical methods related to the law of the iterated logarithm”, Ann. Math. Statist. "
    "41, 1970.",
    "Sander": "T. Sander et al., “Watermarking makes language models radioactive”, NeurIPS 2024.",
    "Shafer": "G. Shafer, “Testing by betting: a strategy for statistical and scientific communication”, J. R. "
    "Statist. Soc. A 184, 2021.",
    "Šidák": "Z. Šidák, “Rectangular confidence regions for the means of multivariate normal distributions”, J. Amer. "
    "Statist. Assoc. 62, 1967.",
    "Storey": "J. D. Storey, “A direct approach to false discovery rates”, J. R. Statist. Soc. B 64, 2002.",
    "Ville": "J. Ville, “Étude critique de la notion de collectif”, 1939 (test martingales).",
    "Vovk": "V. Vovk and R. Wang, “E-values: calibration, combination and applications”, Ann. Statist. 49, 2021.",
    "Wang": "R. Wang and A. Ramdas, “False discovery rate control with e-values”, J. R. Statist. Soc. B 84, 2022.",
}


SIDAK_AND_HOLM = formula(
    "<n>Šidák: 1 − (1 − <i>p</i>)<sup><i>k</i></sup></n>\N{EM SPACE} <n>Holm: max<sub><i>j</i> ≤ <i>i</i></sub> "
    "(<i>m</i> − <i>j</i> + 1) <i>p</i><sub>(<i>j</i>)</sub></n>"
)
"""What pays for the smallest of k independent p-values, and for m p-values in rising order."""


def papers(*authors: str) -> list[str]:
    """Papers that a method names, in full, by their first authors."""
    return [_PAPERS[author] for author in authors]


def decoy_keys(
    count: int, seed: str, test: str, suspect: str, result: str, log10_agreement: float | None = None
) -> Leaf:
    """How decoy keys check a test.

    Parameters
    ----------
    test
        Which test ran under them, a subject: "The same test".
    suspect
        What was tested: "text".
    result
        What is refused where they contradict it: "the document’s result".
    log10_agreement
        Of the p-values with chance, where there is one for the whole report.
    """
    if not count:
        return text("No decoy keys were run, so this report holds no check of its own p-values.")
    here = "" if log10_agreement is None else ", here with p = $p"
    return text(
        f"{test} ran under $n keys derived from the public seed <code>$seed</code>. They are as independent of the "
        f"{suspect} as the true key is under the null hypothesis, so their p-values must be uniform or larger. This is "
        f"tested (one-sided Kolmogorov–Smirnov, and the smallest of them){here}. Below $level {result} is refused.",
        n=count,
        seed=seed,
        p=p_value(log10_agreement),
        level=contradiction_level(),
    )


def calibration(said: str | None) -> list[Leaf]:
    """How p-values came about where they aren't the law's tails."""
    return [] if said is None else [text("$said.", said=said.rstrip("."))]


def words(spec: WatermarkSpec, then: str) -> Leaf:
    """What gives each token its word, and ``then`` what comes of it: the end of the paragraph."""
    scheme = spec.build_scheme()
    before = "token" if spec.context_width == 1 else f"{spec.context_width} tokens"
    if is_format(scheme):
        return text(
            "The mark is that of $system (format <code>$name</code>). Each token, together with the $before before it, "
            "has a word that this system computes from them and its key, and that dyetrace computes in the same way, "
            f"bit for bit. {then}",
            system=scheme.system,
            name=scheme.name,
            before=before,
        )
    return text(
        "Each token, together with the $before before it, is put through a keyed pseudo-random function (ChaCha8) that "
        "gives a 32-bit word, and so a number <i>u</i> = (word + ½) / 2<sup>32</sup>. To anyone without the key these "
        f"words are independent and uniform. {then}",
        before=before,
    )


def score_blocks(spec: WatermarkSpec) -> Iterator[Leaf]:
    """How a token scores under a spec, and the law of the sum."""
    yield words(
        spec,
        "The generator preferred tokens with favourable words; the score counts how favourable the words of the text "
        "are.",
    )
    law = spec.build_scheme().law
    if isinstance(law, Exponential):
        yield text(
            "Scheme <code>$name</code>: a token scores −ln(1 − <i>u</i>) nats (Aaronson 2022). The sum over <i>n</i> "
            "tuples has the Gamma distribution:",
            name=spec.scheme,
        )
        yield formula(
            "P(<i>S</i><sub><i>n</i></sub> ≥ <i>s</i>) = e<sup>−<i>s</i></sup> Σ<sub><i>k</i> = 0 … <i>n</i> − 1</sub> "
            "<i>s</i><sup><i>k</i></sup> / <i>k</i>!"
        )
    elif isinstance(law, Hypoexponential):
        yield text(
            "Format <code>$name</code>: either of two keys may have chosen a token, which scores the sum of −ln(1 − "
            "<i>u</i>) under both with the weights $first and $second. The sum over <i>n</i> tuples is that of two "
            "independent Gamma variables with these scales, and its tail a negative binomial mixture of Gamma tails "
            "(Moschopoulos 1985), all of whose terms are positive.",
            name=spec.scheme,
            first=f"{law.weights[0]:g}",
            second=f"{law.weights[1]:g}",
        )
    elif isinstance(law, Bernoulli):
        yield text(
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
        yield text(
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
        yield text(
            "Scheme <code>$name</code>: a token’s score takes one of $n values with known probabilities; the law of "
            "the sum over <i>n</i> tuples is their <i>n</i>-fold convolution:",
            name=spec.scheme,
            n=len(law.values),
        )
        yield formula(
            "<i>S</i><sub><i>n</i></sub> = Σ<sub><i>i</i> = 1 … <i>n</i></sub> <i>X</i><sub><i>i</i></sub>, "
            "P(<i>X</i><sub><i>i</i></sub> = <i>v</i><sub><i>j</i></sub>) = π<sub><i>j</i></sub>"
        )
    yield text(
        "These tails are computed with logarithms, so that they neither underflow nor are rounded to zero (Loader "
        "2000). There is no normal approximation, no mid-p and no fitted model. In this report p-values are rounded up "
        "and e-values down."
    )
