"""How often the interval of a student's marked share (`trace weights --calibrate`) holds the true share.

Calibration students and suspects are drawn from dose-response curves that rise, saturate, end flat or jump, with
training noise of several kinds. Two other ways to the interval stand beside ours: straight lines between students with
the noise of contexts alone, which every student shares, and our tests with one spread pooled over all shares.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import track

from benchmarks.common import Floats, Report, json_option, quick_option
from detect.records.trace import DosePoint
from detect.student.verdict.share import CONFIDENCE, Level, ends, levels_of

Ends = tuple[float, float | None]

CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "saturating": lambda share: 1 - math.exp(-8 * share),
    "flat top": lambda share: min(1.0, share / 0.15),
    "step": lambda share: float(share > 0.15),
}
"""Effect by marked share, of 0 to 1."""
SPREADS: dict[str, Callable[[float], float]] = {
    "none": lambda share: 1e-9,
    "small": lambda share: 0.02,
    "large": lambda share: 0.2,
    "growing": lambda share: 0.01 + 0.5 * share,
    "falling": lambda share: 0.01 + 0.2 * (1 - share),
    "heavy tails": lambda share: 0.05,
}
"""Standard deviation (of heavy tails: scale) of students' effects by share."""
SHARES = {
    3: (0.0, 0.1, 0.5),
    4: (0.0, 0.05, 0.2, 0.5),
    5: (0.0, 0.02, 0.1, 0.3, 1.0),
    6: (0.0, 0.01, 0.05, 0.2, 0.5, 1.0),
}
CONTEXT_ERROR = 0.03
"""Standard error of an effect over contexts, which all students share."""


def suspects(shares: Sequence[float]) -> list[float]:
    """True shares to look for: each calibrated one, and halfway between neighbours."""
    return sorted([*shares, *((low + high) / 2 for low, high in itertools.pairwise(shares))])


def students(rng: np.random.Generator, curve: str, noise: str, shares: Floats, runs: int) -> Floats:
    """Effects of students with these shares, (runs, len(shares))."""
    spreads = np.array([SPREADS[noise](share) for share in shares])
    size = (runs, len(shares))
    drawn = rng.standard_t(4, size) if noise == "heavy tails" else rng.standard_normal(size)
    return np.array([CURVES[curve](share) for share in shares]) + spreads * drawn


def by_contexts_alone(effect: float, shares: Sequence[float], means: Sequence[float]) -> Ends:
    """Straight lines between the means, inverted at the effect +- the errors over contexts of suspect and curve."""
    curve = np.maximum.accumulate(means)
    reach = 1.96 * math.sqrt(2) * CONTEXT_ERROR
    low = 0.0 if effect - reach < curve[0] else float(np.interp(effect - reach, curve, shares))
    return low, None if effect + reach > curve[-1] else float(np.interp(effect + reach, curve, shares))


def pooled(levels: Sequence[Level]) -> list[Level]:
    """The same levels with one spread for all, and Student's t of its degrees of freedom."""
    from scipy.special import stdtrit

    degrees = sum(level.students - 1 for level in levels)
    spread = math.sqrt(sum(level.spread**2 * (level.students - 1) for level in levels) / degrees)
    tail = (1 + CONFIDENCE) / 2
    # `Level.reach` takes the quantile of the level's own degrees of freedom.
    return [
        Level(lv.share, lv.students, lv.mean, spread * float(stdtrit(degrees, tail) / stdtrit(lv.students - 1, tail)))
        for lv in levels
    ]


def measured(rng: np.random.Generator, curve: str, noise: str, count: int, replicates: int, runs: int) -> list[Floats]:
    """For each method lower and upper ends (NaN where open), (3, runs, suspects, 2), and the true shares."""
    shares, true = SHARES[count], suspects(SHARES[count])
    calibrated = students(rng, curve, noise, np.repeat(shares, replicates), runs)
    looked_at = students(rng, curve, noise, np.array(true), runs)
    found = np.empty((3, runs, len(true), 2))
    for run in range(runs):
        doses = [
            DosePoint(name="", share=share, effect=effect, standard_error=CONTEXT_ERROR)
            for share, effect in zip(np.repeat(shares, replicates).tolist(), calibrated[run].tolist(), strict=True)
        ]
        levels = levels_of(doses)
        as_one, means = pooled(levels), [level.mean for level in levels]
        for i, effect in enumerate(looked_at[run].tolist()):
            found[0, run, i] = _numbers(ends(effect, levels))
            found[1, run, i] = _numbers(ends(effect, as_one))
            found[2, run, i] = _numbers(by_contexts_alone(effect, shares, means))
    return [found, np.array(true)]


def _numbers(pair: Ends) -> tuple[float, float]:
    return pair[0], math.nan if pair[1] is None else pair[1]


def row(rng: np.random.Generator, curve: str, noise: str, replicates: int, counts: Sequence[int], runs: int) -> Any:
    """One row of the table, over all numbers of shares and all suspects: the worst cell, and means."""
    held: list[list[Floats]] = [[], [], []]
    widths, closed = [], []
    for count in counts:
        found, true = measured(rng, curve, noise, count, replicates, runs)
        low, high = found[..., 0], np.nan_to_num(found[..., 1], nan=1.0)
        inside = ((low <= true + 1e-12) & (true - 1e-12 <= high)).mean(axis=1)
        for method in range(3):
            held[method].append(inside[method])
        widths.append((high[0] - low[0]).ravel())
        closed.append(((low[0] > 0) | (high[0] < 1)).ravel())
    ours, as_one, naive = (np.concatenate(parts) for parts in held)
    lowest = CONFIDENCE - 1.96 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / runs)
    return {
        "curve": curve,
        "student noise": noise,
        "students a share": replicates,
        "cells": len(ours),
        "worst": float(ours.min()),
        "all cells hold": "yes" if ours.min() >= lowest else f"NO: {int(np.sum(ours < lowest))} do not",
        "mean": float(ours.mean()),
        "width": float(np.concatenate(widths).mean()),
        "identified": float(np.concatenate(closed).mean()),
        "worst, one spread": float(as_one.min()),
        "worst, contexts alone": float(naive.min()),
    }


@click.command()
@click.option("--runs", default=2_000, show_default=True, help="Simulated calibrations in each cell.")
@click.option("--seed", default=13, show_default=True)
@quick_option
@json_option
def main(runs: int, seed: int, quick: bool, json_path: Path | None) -> None:
    """Measure how often intervals of the marked share hold it, over curves, noise, students and shares."""
    replicates, counts = ((2, 3), (3,)) if quick else ((2, 3, 5), tuple(SHARES))
    runs = 20 if quick else runs
    report = Report(
        "Marked share: how often its 95% interval holds",
        {"runs a cell": runs, "seed": seed, "calibrated shares": ", ".join(map(str, counts))},
        notes=[
            "a cell: one set of calibrated shares and one suspect, on a share or halfway between two; worst: the cell "
            "that is held least; all cells hold: none is below 95% by more than 1.96 standard errors of so many runs",
            "width: mean, an open end counting as 0 or 1; identified: at least one end says something",
            "one spread: pooled over all shares; contexts alone: straight lines between students and the noise of "
            "contexts, which all students share",
        ],
    )
    rng = np.random.default_rng(seed)
    cells = list(itertools.product(SPREADS, CURVES, replicates))
    for noise, curve, students_each in track(cells, "intervals"):
        report.add(**row(rng, curve, noise, students_each, counts, runs))
    report.finish(json_path)


if __name__ == "__main__":
    main()
