"""The proof that the nulls are right: p-values of text that no key wrote, over fresh keys, on all kinds of text.

Given a document, the p-values under fresh keys are independent, so their counts below a level are compared with exact
binomial intervals and their law with the uniform one (Kolmogorov-Smirnov, one-sided: "not smaller than uniform").
The e-values of the model-aware test must have mean 1 over keys, and reach 1/alpha with chance alpha at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import track
from scipy.special import betaincinv

from benchmarks.common import Floats, Report, json_option, quick_option, set_threads
from detect.document.aware import log10_evalues
from detect.document.blind import blind_test, log10_pvalues
from detect.document.likelihood import Likelihood, likelihood
from detect.keyed.scoring import totals
from detect.text.distinct import Tuples, distinct_tuples
from detect.text.encode import Encoder
from detect.text.natural_text import KINDS, natural_documents
from tests.detect.calibration import LEVELS, fresh_keys, log10_excess, log10_too_small
from watermark.keys import KeyRing, SecretKey
from watermark.models.demo import demo_model_dir
from watermark.models.folder import load_model
from watermark.prf import U32
from watermark.registry import make_scheme
from watermark.spec import WatermarkSpec

RANDOM = "random ids"
BLIND: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "gumbel": ("gumbel", {}, (1, 2, 3, 4)),
    "tournament, depth 30": ("tournament", {"depth": 30}, (1, 2, 3, 4)),
    "tournament, depth 3": ("tournament", {"depth": 3}, (1, 2, 3, 4)),
    "green_list, gamma 0.25": ("green_list", {"gamma": 0.25}, (0, 1, 2, 3, 4)),
    "green_list, gamma 0.5": ("green_list", {"gamma": 0.5}, (0, 1, 2, 3, 4)),
}
AWARE = ("gumbel", "tournament", "green_list")
LOG10_ALARM = -5  # of the chance of so many small p-values; several hundred such chances are looked at
LIKELY = 0.2  # means are taken where the text's token is likely: elsewhere one key in thousands carries them
WINDOW = 2  # positions of one such e-value
MARKOV = 100  # positions of one e-value whose size is checked
ALPHAS = (0.1, 0.01, 0.001)


def documents(kinds: Sequence[str], count: int, tokens: int) -> dict[str, list[U32]]:
    """``count`` documents of each kind, evenly spread over what there is, cut to ``tokens`` ids."""
    encoder = Encoder.load(demo_model_dir(), fast=False)
    found = {}
    for kind in kinds:
        if kind == RANDOM:
            generator = np.random.default_rng(0)
            found[kind] = list(generator.integers(0, encoder.vocabulary_size, (count, tokens), dtype=np.uint32))
            continue
        texts = [text for _, text in natural_documents(kind)]
        chosen = texts[:: max(1, len(texts) // count)][:count]
        found[kind] = [encoder.encode(text[: 8 * tokens])[:tokens] for text in chosen]
    return found


def binomial_interval(k: int, n: int) -> tuple[float, float]:
    """95% interval of a chance seen ``k`` times in ``n`` (Clopper and Pearson 1934)."""
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 0.025))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 0.975))
    return low, high


def pvalues(scheme_name: str, parameters: dict[str, Any], tuples: Tuples, seed: str, keys: int) -> Floats:
    """Of one document under fresh keys."""
    scheme = make_scheme(scheme_name, parameters)
    sums = totals(scheme, list(fresh_keys(seed, keys)), tuples)
    return np.asarray(10.0 ** log10_pvalues(scheme, tuples, sums))


def every_occurrence(ids: U32, width: int) -> Tuples:
    """The mistake that `distinct_tuples` avoids."""
    index = np.arange(width, len(ids))
    return Tuples(ids, width, index, np.ones(len(index), dtype=np.int64), 0)


def _judge(report: Report, test: str, width: int | str, kind: str, found: Floats) -> None:
    row: dict[str, Any] = {"test": test, "h": width, "text": kind, "n": len(found)}
    for level in LEVELS:
        k = int(np.sum(found <= level))
        low, high = binomial_interval(k, len(found))
        row[f"FPR/alpha at {level:g}"] = k / len(found) / level
        row[f"interval {level:g}"] = (low / level, high / level)
    row["log10 KS"] = log10_too_small(found)
    worst = min(row["log10 KS"], *(log10_excess(found, level) for level in LEVELS))
    row["verdict"] = "calibrated" if worst > LOG10_ALARM else "TOO SMALL"
    report.add(**row)


def blind(report: Report, texts: dict[str, list[U32]], keys: int, labels: Sequence[str]) -> None:
    """Every scheme and width on every kind of text; shown by scheme and width, by text, and wherever one cell fails."""
    cells = [(label, width, kind) for label in labels for width in BLIND[label][2] for kind in texts]
    found: dict[tuple[str, int, str], Floats] = {}
    for label, width, kind in track(cells, "blind p-values"):
        name, parameters, _ = BLIND[label]
        found[label, width, kind] = np.concatenate(
            [
                pvalues(name, parameters, distinct_tuples(ids, width), f"{label}{width}{kind}{i}", keys)
                for i, ids in enumerate(texts[kind])
            ]
        )
    for label, width in dict.fromkeys((label, width) for label, width, _ in cells):
        _judge(report, label, width, "all", np.concatenate([found[label, width, kind] for kind in texts]))
    for kind in texts if cells else ():
        _judge(report, "all of these", "all", kind, np.concatenate([p for cell, p in found.items() if cell[2] == kind]))
    for (label, width, kind), p in found.items():
        if min(log10_too_small(p), *(log10_excess(p, level) for level in LEVELS)) <= LOG10_ALARM:
            _judge(report, label, width, kind, p)


def whole_documents(report: Report, texts: dict[str, list[U32]], keys: int) -> None:
    """The p-value that a report prints: 4 sub-keys, a global key and 3 tenants, all paid for."""
    for kind, group in track(texts.items(), "whole tests"):
        found = []
        for i, ids in enumerate(group):
            tuples = distinct_tuples(ids, 2)
            for key in fresh_keys(f"whole{kind}{i}", keys):
                spec = WatermarkSpec(
                    global_share=0.5, vocabulary_size=49_152, tokenizer="none", key_fingerprint=key.fingerprint
                )
                ring = KeyRing.from_master(key, 0, ("acme", "zenith", "orion"))
                found.append(10.0 ** blind_test(spec, ring, tuples, decoy_count=0).log10_pvalue)
        _judge(report, "whole test, 3 tenants", 2, kind, np.array(found))


def mistakes(report: Report, texts: dict[str, list[U32]], keys: int) -> None:
    """What the same checks say when repeats are counted."""
    for kind, group in texts.items():
        found = [
            pvalues("green_list", {}, every_occurrence(ids, 1), f"mistake{kind}{i}", keys)
            for i, ids in enumerate(group)
        ]
        _judge(report, "MISTAKE: repeats counted", 1, kind, np.concatenate(found))


def aware(report: Report, texts: dict[str, list[U32]], keys: int) -> None:
    """e-values of the model-aware test with the demo model as the owner's model."""
    model, _ = load_model(demo_model_dir())
    known = {kind: likelihood(model, group[0][: MARKOV + 2], 2) for kind, group in texts.items()}
    for scheme in AWARE:
        for kind, document in track(known.items(), f"model-aware e-values, {scheme}"):
            likely = document.take(_own_chances(document) >= LIKELY)
            windows = [likely.take(slice(at, at + WINDOW)) for at in range(0, min(len(likely.tuples), 20), WINDOW)]
            short = [_evalues(scheme, part, f"{scheme}{kind}{i}", keys) for i, part in enumerate(windows)]
            whole = _evalues(scheme, document, f"{scheme}{kind}whole", keys)
            mean, error = _mean_and_error(np.concatenate(short)) if short else (math.nan, math.nan)
            row: dict[str, Any] = {"test": f"model-aware {scheme}", "h": 2, "text": kind, "n": keys * len(short)}
            row["mean e"] = (mean - 2 * error, mean + 2 * error) if short else None
            excess = []
            for alpha in ALPHAS:
                k = int(np.sum(whole >= 1 / alpha))
                row[f"P(e >= {1 / alpha:g}) / {alpha:g}"] = k / len(whole) / alpha
                excess.append(log10_excess(1 / np.maximum(whole, 1e-300), alpha))
            fine = not mean - 5 * error > 1 + 1e-3 and min(excess) > LOG10_ALARM
            row["verdict"] = "calibrated" if fine else "TOO LARGE"
            report.add(**row)


def _mean_and_error(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def _own_chances(document: Likelihood) -> Floats:
    """The model's chance of the text's token at each position, at temperature 1."""
    odds = np.exp(document.logits.astype(np.float64) - document.logits.max(axis=1, keepdims=True))
    return np.asarray(odds[:, 0] / odds.sum(axis=1))


def _evalues(scheme: str, document: Likelihood, seed: str, count: int) -> Floats:
    keys: list[SecretKey] = list(fresh_keys(seed, count))
    everywhere = np.ones(len(document.tuples), dtype=bool)
    return 10.0 ** log10_evalues(make_scheme(scheme, {}), keys, [everywhere] * count, document)


@click.command()
@click.option("--documents", "count", default=20, show_default=True, help="Documents of each kind of text.")
@click.option("--tokens", default=300, show_default=True, help="Tokens of each.")
@click.option("--keys", default=2_000, show_default=True, help="Fresh keys for each document, scheme and width.")
@click.option("--test", "labels", type=click.Choice([*BLIND, "whole", "aware"]), multiple=True, help="Only these.")
@click.option("--text", "kinds", type=click.Choice([*KINDS, RANDOM]), multiple=True, default=(*KINDS, RANDOM))
@quick_option
@json_option
def main(
    count: int,
    tokens: int,
    keys: int,
    labels: tuple[str, ...],
    kinds: tuple[str, ...],
    quick: bool,
    json_path: Path | None,
) -> None:
    """Check p-values and e-values of unmarked text under fresh keys."""
    if quick:
        set_threads(1)
        count, tokens, keys, kinds = 2, 60, 40, ("code", RANDOM)
    chosen = labels or (*BLIND, "whole", "aware")
    settings = {"documents": count, "tokens": tokens, "keys per document": keys}
    texts = documents(kinds, count, tokens)
    blind_report = Report(
        "Blind test: share of p-values at or below alpha, as a multiple of alpha, with its 95% interval",
        settings,
        notes=[
            "log10 KS: of the one-sided test that p-values are not smaller than uniform",
            "whole test: gumbel as reported, with 4 sub-keys, a global key and 3 tenants paid for",
            "MISTAKE: green_list gamma 0.25 on every occurrence, distinct or not, to show that the check can fail",
        ],
    )
    blind(blind_report, texts, keys, [label for label in chosen if label in BLIND])
    if "whole" in chosen:
        whole_documents(blind_report, texts, max(10, keys // 10))
    mistakes(blind_report, texts, keys)
    blind_report.finish(json_path)
    if "aware" in chosen:
        aware_report = Report(
            f"Model-aware test: mean of e over {WINDOW} likely tokens (+- 2 s.e.); how often e over {MARKOV} is large",
            settings,
        )
        aware(aware_report, texts, keys)
        aware_report.finish(json_path and json_path.with_suffix(".aware.json"))


if __name__ == "__main__":
    main()
