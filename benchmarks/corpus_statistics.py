"""What the statistics of a corpus scan are worth: power of the global tests, false discoveries, coverage, stretches.

Documents are simulated from the schemes' own laws: unmarked statistics are what a fresh key gives; marked ones have a
larger mean, by an effect in nats for `gumbel` and in green tokens per token for `green_list`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from benchmarks.common import Floats, Report, json_option, quick_option
from detect.corpus import rare
from detect.corpus.bins import StatisticBins
from detect.corpus.segments import log10_segment_pvalues, marked_segments
from detect.corpus.share import Excess, least_marked_tokens, marked_documents, marked_tokens
from detect.laws.evalues import log10_evalues
from detect.laws.multiplicity import benjamini_hochberg_log10, e_benjamini_hochberg, mean_log10_e, sidak_log10
from detect.laws.tails import log10_sf, log10_sf_pairs
from watermark.laws import Exponential
from watermark.schemes.green_list import GreenList
from watermark.schemes.gumbel import Gumbel

Ints = npt.NDArray[np.int64]
Rng = np.random.Generator

GREEN = GreenList(gamma=0.25)
GUMBEL = Gumbel()
SUBKEYS = 4
TOKENS = 200
ALPHA = 1e-3
SEGMENT_ALPHA = 0.05


# --- power of the global tests ---------------------------------------------------------------------------


def higher_criticism(ps: Floats) -> float:
    """Donoho and Jin 2004, over the smaller half of the p-values above 1/n."""
    p, ranks = np.sort(ps), np.arange(1, len(ps) + 1)
    values = (ranks / len(ps) - p) / np.sqrt(p * (1 - p) / len(ps) + 1e-300)
    used = (p > 1 / len(ps)) & (ranks <= len(ps) / 2)
    return float(values[used].max(initial=-np.inf))


def global_tests(greens: Ints, critical: float) -> dict[str, bool]:
    """Which tests reject at `ALPHA`, given green tokens of each document; HC by a simulated critical value."""
    documents = len(greens)
    log10_ps = log10_sf_pairs(GREEN.law, TOKENS, greens)
    log10_es = log10_evalues(GREEN.law, TOKENS, greens)
    level = math.log10(ALPHA)
    return {
        "pooled": log10_sf(GREEN.law, documents * TOKENS, int(greens.sum())) <= level,
        "Fisher": log10_sf(Exponential(), documents, -float(log10_ps.sum()) * math.log(10)) <= level,
        "higher criticism": higher_criticism(10.0**log10_ps) >= critical,
        "smallest p": sidak_log10(log10_ps) <= level,
        "mean e-value": mean_log10_e(log10_es) >= -level,
        "rare (Berk-Jones, 1/i)": rare.log10_pvalue(np.sort(log10_ps)[: rare.KEPT], documents) <= level,
    }


def power(quick: bool) -> Report:
    """Share of corpora in which each global test rejects."""
    documents, corpora = 1_000, 10 if quick else 400
    rng = np.random.default_rng(1)
    nulls = [higher_criticism(rng.random(documents)) for _ in range(100 if quick else 20_000)]
    critical = float(np.quantile(nulls, 1 - ALPHA))
    report = Report(
        f"Power of global tests at {ALPHA}: {documents} documents of {TOKENS} tokens, green lists of 1/4",
        {"corpora": corpora, "seed": 1},
        notes=["effect: more green tokens, as a share of marked documents' tokens"],
    )
    cases = [(0.02, 1.0), (0.03, 0.3), (0.05, 0.1), (0.07, 0.03), (0.1, 0.005), (0.1, 0.01), (0.1, 0.03), (0.15, 0.003)]
    for effect, share in [(0.0, 0.0), *cases, (0.2, 0.002), (0.3, 0.001)]:
        marked = np.arange(documents) < round(share * documents)
        gamma = GREEN.law.gamma + effect * marked
        found = [global_tests(rng.binomial(TOKENS, gamma), critical) for _ in range(corpora)]
        rates = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
        report.add(case=f"effect {effect:g}, {share:.1%} marked", **rates)
    return report


def null_rates(quick: bool) -> Report:
    """How often the test for rare marks rejects where all p-values are uniform."""
    trials = 200 if quick else 20_000
    report = Report(
        "The test for rare marks under the null: rejections over those expected", {"trials": trials, "seed": 2}
    )
    rng = np.random.default_rng(2)
    for documents in (1, 2, 10, 1_000, 1_000_000, 10_000_000):
        log10_ps = np.array([
            rare.log10_pvalue(np.log10(p), documents) for p in smallest_uniforms(rng, documents, trials)
        ])  # fmt: skip
        levels = (0.1, 0.01, 1e-3, 1e-4)
        report.add(documents=documents, **{f"{a:g}": float(np.mean(log10_ps <= math.log10(a)) / a) for a in levels})
    return report


def smallest_uniforms(rng: Rng, documents: int, trials: int) -> Iterator[Floats]:
    """The smallest of so many uniforms, ascending: partial sums of exponentials over the sum of all of them."""
    kept = min(rare.KEPT, documents)
    for _ in range(trials):
        sums = np.cumsum(rng.standard_exponential(kept))
        yield sums / (sums[-1] + rng.standard_gamma(documents + 1 - kept))


# --- documents under several sub-keys --------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """Documents' tuples (D,), how many of these are marked (D,), totals in nats (D, subkeys)."""

    tuples: Ints
    marked: Ints
    totals: Floats

    @classmethod
    def draw(cls, rng: Rng, effects: Floats, shares: Floats) -> Corpus:
        """Of a share of each document's tuples the mean is 1 + effect under one of the sub-keys."""
        tuples = np.maximum(20, rng.lognormal(math.log(TOKENS), 0.8, len(effects))).astype(np.int64)
        marked = np.rint(tuples * shares).astype(np.int64)
        totals = rng.standard_gamma(np.repeat(tuples[:, None], SUBKEYS, axis=1))
        under = rng.standard_gamma(np.maximum(tuples - marked, 1e-9))
        under += rng.standard_gamma(np.maximum(marked, 1e-9)) * (1 + effects)
        totals[np.arange(len(effects)), rng.integers(0, SUBKEYS, len(effects))] = under
        return cls(tuples, marked, totals)

    @property
    def log10_ps(self) -> Floats:
        """Each document's p-value, the sub-keys paid for."""
        return np.array([sidak_log10(row) for row in log10_sf_pairs(GUMBEL.law, self.tuples[:, None], self.totals)])

    @property
    def log10_es(self) -> Floats:
        """Each document's e-value, the mean over sub-keys."""
        return np.array([mean_log10_e(row) for row in log10_evalues(GUMBEL.law, self.tuples[:, None], self.totals)])

    @property
    def excess(self) -> Excess:
        """In the scheme's units."""
        return Excess.of(GUMBEL.law, GUMBEL.unit, self.tuples, np.floor(self.totals / GUMBEL.unit))


def discoveries(quick: bool) -> Report:
    """False-discovery rate and power."""
    documents, corpora, rate = 1_000, 3 if quick else 200, 0.05
    report = Report(
        f"Discoveries at a false-discovery rate of {rate}: {documents} documents, {SUBKEYS} sub-keys",
        {"corpora": corpora, "seed": 3},
        notes=["false: mean share of false discoveries; found: mean share of marked documents that are discovered"],
    )
    rng = np.random.default_rng(3)
    strengths = {"weak": [0.2], "mixed": [0.05, 0.2, 0.4, 0.8], "strong": [0.8]}
    for name, share in [("no mark", 0.0), *itertools.product(strengths, (0.01, 0.1, 0.5))]:
        row: dict[str, list[float]] = {}
        for _ in range(corpora):
            marked = np.arange(documents) < share * documents
            corpus = Corpus.draw(rng, rng.choice(strengths.get(name, [0.0]), documents), marked.astype(np.float64))
            picked = {
                "BH": benjamini_hochberg_log10(corpus.log10_ps) <= math.log10(rate),
                "e-BH": e_benjamini_hochberg(corpus.log10_es, rate),
            }
            for method, mask in picked.items():
                row.setdefault(f"{method} false", []).append(float((mask & ~marked).sum() / max(1, mask.sum())))
                if share:
                    row.setdefault(f"{method} found", []).append(float(mask[marked].mean()))
        report.add(case=f"{name}, {share:.0%} marked", **{column: float(np.mean(v)) for column, v in row.items()})
    return report


def shares(quick: bool) -> Report:
    """Coverage of the statements about how much is marked."""
    documents, reference, corpora = 1_000, 100, 3 if quick else 200
    report = Report(
        f"Coverage of 95% intervals: {documents} documents, reference of {reference}, {SUBKEYS} sub-keys",
        {"corpora": corpora, "seed": 4},
        notes=[
            "marked tuples have an effect of 0.83 (entropy of about 1 nat) times a document's lognormal factor, sd 0.3",
            "half: every other marked document is marked in half of its tuples only",
            "documents, tokens without reference: lower bounds; tokens: two-sided, clipped to [0, 1]",
        ],
    )
    rng = np.random.default_rng(4)
    for name, share, part in [
        ("no mark", 0.0, 1.0), ("1%", 0.01, 1.0), ("30%", 0.3, 1.0), ("30%, half", 0.3, 0.5), ("all", 1.0, 1.0),
        ("all, half", 1.0, 0.5),
    ]:  # fmt: skip
        rows = []
        for _ in range(corpora):
            marked = (rng.random(documents) < share) * rng.choice([1.0, part], documents)
            effects = 0.83 * rng.lognormal(0, 0.3, documents + reference)
            corpus = Corpus.draw(rng, effects[:documents], marked)
            known = Corpus.draw(rng, effects[documents:], np.ones(reference))
            rows.append([*_shares_of(rng, corpus, known)])
        (d, d_low, d_ok), (t, t_low, t_high, t_ok), (b_low, b_ok) = (
            np.mean(column, axis=0) for column in zip(*rows, strict=True)
        )
        report.add(
            **{
                "marked": name,
                "documents": float(d), "bound": float(d_low), "bound covers": float(d_ok),
                "tokens": float(t), "interval": (float(t_low), float(t_high)), "interval covers": float(t_ok),
                "bound without reference": float(b_low), "that covers": float(b_ok),
            }
        )  # fmt: skip
    return report


def _shares_of(rng: Rng, corpus: Corpus, known: Corpus) -> Iterator[tuple[float, ...]]:
    """Truth, ends and whether they hold: of documents, of tokens by the reference, of tokens without."""
    documents = float(np.mean(corpus.marked > 0))
    found = marked_documents(corpus.log10_ps)
    yield documents, found.low, found.low <= documents
    tokens = float(corpus.marked.sum() / corpus.tuples.sum())
    found = marked_tokens(GUMBEL.law, GUMBEL.unit, SUBKEYS, corpus.excess, known.excess)
    high = 1.0 if found.high is None else found.high
    yield tokens, found.low, high, found.low <= tokens <= high
    survival = 10.0 ** StatisticBins.of_law(GUMBEL.law, GUMBEL.unit).log10_survival
    unmarked, marked = (-np.diff(np.append(s, 0.0)) for s in (survival, survival ** (1 / 1.83)))
    cells = SUBKEYS * int(corpus.tuples.sum()) - int(corpus.marked.sum())
    histogram = rng.multinomial(cells, unmarked) + rng.multinomial(int(corpus.marked.sum()), marked)
    found = least_marked_tokens(GUMBEL.law, GUMBEL.unit, histogram, int(corpus.tuples.sum()))
    yield found.low, found.low <= tokens


# --- stretches -------------------------------------------------------------------------------------------


def by_windows(greens: Ints) -> list[tuple[int, int]]:
    """What is usual: windows of 200 tuples, each half over the last, by their exact p times their number."""
    starts = np.arange(0, max(1, len(greens) - 100), 100)
    sums = np.add.reduceat(greens, np.minimum(np.stack([starts, starts + 200], axis=1), len(greens) - 1).ravel())[::2]
    log10_ps = log10_sf_pairs(GREEN.law, np.minimum(200, len(greens) - starts), sums)
    best = int(np.argmin(log10_ps))
    enough = log10_ps[best] + math.log10(len(starts)) <= math.log10(SEGMENT_ALPHA)
    return [(int(starts[best]), min(len(greens), int(starts[best]) + 200))] if enough else []


def by_segments(greens: Ints) -> list[tuple[int, int]]:
    """The stretches found at `SEGMENT_ALPHA`."""
    return [(start, end) for start, end, _ in marked_segments(GREEN.law, GREEN.unit, greens, SEGMENT_ALPHA)]


def stretches(quick: bool) -> Report:
    """Detection of one marked stretch, and how well it is found."""
    trials = 20 if quick else 1_000
    report = Report(
        f"One marked stretch, family-wise {SEGMENT_ALPHA} over the document, green lists of 1/4",
        {"documents": trials, "seed": 5},
        notes=[
            "found: something that overlaps the stretch; overlap: its tuples in both over those in either, where found",
            "false: documents where something is returned that lies outside altogether; p: documents with a p-value "
            "at or below the level",
        ],
    )
    rng = np.random.default_rng(5)
    cases = [
        (1_000, 0, 0.0),
        (5_000, 0, 0.0),
        (1_000, 200, 0.2),
        (5_000, 200, 0.2),
        (5_000, 200, 0.12),
        (5_000, 60, 0.45),
        (5_000, 1_000, 0.1),
    ]
    for length, stretch, effect in cases:
        rows: dict[str, list[float]] = {}
        for _ in range(trials):
            start = int(rng.integers(0, length - stretch + 1))
            truth = np.zeros(length, dtype=np.bool_)
            truth[start : start + stretch] = True
            greens = (rng.random(length) < GREEN.law.gamma + effect * truth).astype(np.int64)
            for name, method in {"segments": by_segments, "windows": by_windows}.items():
                found = method(greens)
                picked = np.zeros(length, dtype=np.bool_)
                for a, b in found:
                    picked[a:b] = True
                rows.setdefault(f"{name} false", []).append(any(not truth[a:b].any() for a, b in found))
                if stretch:
                    rows.setdefault(f"{name} found", []).append(bool((picked & truth).any()))
                    if (picked & truth).any():
                        rows.setdefault(f"{name} overlap", []).append(
                            float((picked & truth).sum() / (picked | truth).sum())
                        )
            log10_p = log10_segment_pvalues(GREEN.law, GREEN.unit, greens, np.array([0, len(greens)]))[0]
            rows.setdefault("p", []).append(log10_p <= math.log10(SEGMENT_ALPHA))
        case = f"{stretch} of {length:,} tuples, +{effect:g}" if stretch else f"none in {length:,}"
        report.add(case=case, **{name: float(np.mean(values)) for name, values in rows.items()})
    return report


PARTS: dict[str, Callable[[bool], Report]] = {
    "power": power,
    "null-rates": null_rates,
    "discoveries": discoveries,
    "shares": shares,
    "stretches": stretches,
}


@click.command()
@click.option("--part", "parts", type=click.Choice(list(PARTS)), multiple=True, help="Only these; by default all.")
@quick_option
@json_option
def main(parts: tuple[str, ...], quick: bool, json_path: Path | None) -> None:
    """Measure power, false discoveries, coverage and localisation; with --json, one file for each part."""
    for name in parts or PARTS:
        path = None if json_path is None else json_path.with_stem(f"{json_path.stem}-{name}")
        PARTS[name](quick).finish(path)


if __name__ == "__main__":
    main()
