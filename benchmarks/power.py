"""How many tokens of the model's own text prove the mark: blind and model-aware, per scheme and temperature.

An answer's "tokens needed" is the length of its shortest beginning with log10 p at most the target (p = 1/e for the
model-aware test), the sub-keys paid for; an answer that ended before counts as longer than any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.answers import Cell, Setting, cell_options, setting
from benchmarks.common import Floats, Report, json_option, quick_option, set_threads, threads_option
from detect.document.aware import log10_evalues
from detect.document.blind import log10_pvalues
from detect.document.likelihood import likelihood
from detect.keyed.scoring import statistics_of
from detect.laws.multiplicity import mean_log10_e, sidak_log10
from detect.text.distinct import distinct_tuples
from watermark.generate import Answer
from watermark.prf import U32
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

RESAMPLES = 2_000


@dataclass(frozen=True)
class Curve:
    """Evidence, -log10 p, of the beginnings of one answer: ``tokens`` ascending, (n,), and ``evidence`` (n,)."""

    tokens: Floats
    evidence: Floats

    def needed(self, target: float) -> float:
        """Tokens at which the evidence first reaches ``target``, interpolated; inf where it never does."""
        reached = np.flatnonzero(self.evidence >= target)
        if not len(reached):
            return math.inf
        at = reached[0]
        below = self.evidence[at - 1] if at else 0.0
        start = self.tokens[at - 1] if at else 0.0
        return float(start + (self.tokens[at] - start) * (target - below) / (self.evidence[at] - below))


def blind_curve(spec: WatermarkSpec, setting: Setting, ids: U32) -> Curve:
    """After every tuple: distinct tuples stand in order of first occurrence, so each beginning is a prefix sum."""
    scheme = spec.build_scheme()
    tuples = distinct_tuples(ids, spec.context_width)
    assert setting.ring.global_key is not None
    keys = [subkey(setting.ring.global_key, index) for index in range(spec.subkeys)]
    sums = np.array([np.cumsum(statistics_of(scheme, key, tuples)) for key in keys])
    evidence = [
        -sidak_log10(log10_pvalues(scheme, tuples.take(slice(0, n)), sums[:, n - 1])) for n in range(1, len(tuples) + 1)
    ]
    return Curve(tuples.positions + 1.0, np.array(evidence))


def aware_curve(spec: WatermarkSpec, setting: Setting, ids: U32, prompt: U32 | None) -> Curve:
    """At a grid of lengths, all from one pass of the model."""
    known = likelihood(setting.model.network, ids, spec.context_width, prompt)
    lengths = np.unique(np.minimum(np.round(np.geomspace(8, 512, 25)), len(ids)))
    masks = [known.tuples.positions < length for length in lengths]
    assert setting.ring.global_key is not None
    keys = [subkey(setting.ring.global_key, index) for index in range(spec.subkeys)]
    log10_e = log10_evalues(
        spec.build_scheme(), [key for _ in masks for key in keys], [mask for mask in masks for _ in keys], known
    ).reshape(len(masks), len(keys))
    return Curve(lengths, np.array([mean_log10_e(row) for row in log10_e]))


def tests_of(spec: WatermarkSpec, setting: Setting, answer: Answer) -> dict[str, Curve]:
    ids, prompt = np.array(answer.token_ids, dtype=np.uint32), np.array(answer.prompt_token_ids, dtype=np.uint32)
    return {
        "blind": blind_curve(spec, setting, ids),
        "aware": aware_curve(spec, setting, ids, None),
        "aware, prompt known": aware_curve(spec, setting, ids, prompt),
    }


def median_interval(values: Floats) -> tuple[float, float]:
    """95% bootstrap interval of the median; inf is a value like others."""
    samples = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.quantile(_medians(samples), [0.025, 0.975], method="nearest")
    return float(low), float(high)


def _medians(samples: Floats) -> Floats:
    """Lower medians, which exist even among infinities."""
    ordered = np.sort(samples, axis=-1)
    return np.asarray(ordered[..., (samples.shape[-1] - 1) // 2])


@click.command()
@click.option(
    "--log10-p",
    "targets",
    type=float,
    multiple=True,
    default=(-6.0, -20.0),
    show_default=True,
    help="P-values to reach.",
)
@cell_options
@threads_option
@quick_option
@json_option
def main(
    targets: tuple[float, ...],
    folder: Path | None,
    keep: Path | None,
    count: int,
    tokens: int,
    batch: int,
    temperatures: tuple[float, ...],
    schemes: tuple[str, ...],
    threads: int | None,
    quick: bool,
    json_path: Path | None,
) -> None:
    """Measure tokens needed and nats of evidence per token."""
    if quick:
        count, tokens, temperatures, targets = 2, 12, temperatures[-1:], (-1.0,)
    set_threads(1 if quick else threads)
    chosen = setting(folder, keep, count, tokens, batch)
    report = Report(
        "Tokens needed for a log10 p: median over answers with its 95% bootstrap interval",
        {"answers": count, "tokens": tokens, "model": chosen.model.folder.name, "context width": 2, "sub-keys": 4},
        notes=[
            "aware: the model reads the answer alone; prompt known: it reads the prompt too, as the owner's logs allow",
            "nats a token: evidence of whole answers over tokens, sub-keys paid for; entropy: of the model's choice",
        ],
    )
    for temperature in temperatures:
        for scheme in schemes:
            cell = Cell(scheme, temperature)
            _add(report, cell, chosen, targets)
            report.save(json_path)
    report.finish(json_path)


def _add(report: Report, cell: Cell, chosen: Setting, targets: tuple[float, ...]) -> None:
    assert cell.scheme is not None
    spec = chosen.spec(cell.scheme)
    answers = chosen.answers(cell)
    entropy = np.concatenate([one.entropy for one in chosen.scores(cell, chosen.model)]).mean()
    curves = []
    for number, answer in enumerate(answers):
        curves.append(tests_of(spec, chosen, answer))
        click.echo(f"{cell.name}: {number + 1} of {len(answers)} tested", err=True)
    total = sum(len(answer.token_ids) for answer in answers)
    needed = {
        (test, target): np.array([curve[test].needed(-target) for curve in curves])
        for test in curves[0]
        for target in targets
    }
    for test in curves[0]:
        row: dict[str, Any] = {
            "cell": f"{cell.name}: {test}",
            "entropy": float(entropy),
            "nats a token": sum(float(curve[test].evidence[-1]) for curve in curves) * math.log(10) / total,
        }
        for target in targets:
            blind, median = (float(_medians(needed[each, target])) for each in ("blind", test))
            row[f"tokens to {target:g}"] = median
            row[f"interval {target:g}"] = median_interval(needed[test, target])
            row[f"blind/this {target:g}"] = blind / median if math.isfinite(blind) else None
            row[f"reached {target:g}"] = f"{np.isfinite(needed[test, target]).mean():.0%}"
        report.add(**row)


if __name__ == "__main__":
    main()
