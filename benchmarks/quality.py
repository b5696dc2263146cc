"""Whether marked text is worse: perplexity, repetition and variety of marked against unmarked answers.

All cells answer the same prompts. A second set of unmarked answers, from another seed, shows
how much chance alone does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.answers import Cell, Model, Setting, cell_options, setting
from benchmarks.common import Floats, Report, json_option, quick_option, set_threads, threads_option
from watermark.generate import Answer

RESAMPLES = 4_000
MEASURES = ("log perplexity", "repeated 3-grams", "distinct-1", "distinct-2", "distinct-3")


def ngrams(ids: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """All n-grams of a text, in order."""
    return list(zip(*(ids[start:] for start in range(n)), strict=False))


def repeated_share(answer: Answer) -> float:
    """Share of an answer's 3-grams that stood in it before."""
    grams = ngrams(answer.token_ids, 3)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def paired_interval(marked: Floats, plain: Floats) -> tuple[float, float]:
    """95% bootstrap interval of the difference of means; both are of the same prompts, shape (n,)."""
    differences = marked - plain
    means = np.random.default_rng(0).choice(differences, (RESAMPLES, len(differences))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def log_perplexity(nats: Sequence[Floats]) -> tuple[float, Floats]:
    """Mean surprise of a cell's tokens, and what each answer contributes to it (delete-one pseudo-values)."""
    sums, counts = np.array([one.sum() for one in nats]), np.array([len(one) for one in nats])
    whole = sums.sum() / counts.sum()
    return float(whole), _pseudo_values(whole, (sums.sum() - sums) / (counts.sum() - counts))


def distinct_share(answers: Sequence[Answer], n: int) -> tuple[float, Floats]:
    """Distinct-n over all answers of a cell, and what each answer contributes to it (delete-one pseudo-values)."""
    each = [Counter(ngrams(answer.token_ids, n)) for answer in answers]
    together = sum(each, Counter())
    total = together.total()
    whole = len(together) / total
    without = [sum(count > one[gram] for gram, count in together.items()) / max(1, total - one.total()) for one in each]
    return whole, _pseudo_values(whole, np.array(without))


def _pseudo_values(whole: float, without: Floats) -> Floats:
    """Jackknife: their mean is the estimate and their spread its error (Miller 1974)."""
    n = len(without)
    return np.asarray(n * whole - (n - 1) * without)


def figures(chosen: Setting, cell: Cell, judge: Model) -> dict[str, tuple[float, Floats]]:
    """Each measure of a cell: its value, and a value for each answer whose mean it is."""
    answers = chosen.answers(cell)
    repeated = np.array([repeated_share(answer) for answer in answers])
    found = {
        "log perplexity": log_perplexity([one.nats for one in chosen.scores(cell, judge)]),
        "repeated 3-grams": (float(repeated.mean()), repeated),
    }
    return found | {f"distinct-{n}": distinct_share(answers, n) for n in (1, 2, 3)}


@click.command()
@click.option(
    "--judge", type=click.Path(path_type=Path), help="Model folder whose perplexity counts, with the same tokenizer."
)
@cell_options
@threads_option
@quick_option
@json_option
def main(
    judge: Path | None,
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
    """Compare marked answers with unmarked ones."""
    if quick:
        count, tokens, temperatures = 2, 12, temperatures[-1:]
    set_threads(1 if quick else threads)
    chosen = setting(folder, keep, count, tokens, batch)
    judging = Model(judge) if judge else chosen.model
    report = Report(
        "Text quality: each value, and its difference from unmarked answers to the same prompts with a 95% interval",
        {"answers": count, "tokens": tokens, "model": chosen.model.folder.name, "judge": judging.folder.name},
        notes=[
            "log perplexity: nats a token under the judge at temperature 1, with prompt; distinct-n: of the whole cell"
        ],
    )
    for temperature in temperatures:
        plain = figures(chosen, Cell(None, temperature), judging)
        _add(report, Cell(None, temperature), plain, None)
        for cell in (Cell(None, temperature, seed=2), *(Cell(scheme, temperature) for scheme in schemes)):
            _add(report, cell, figures(chosen, cell, judging), plain)
    report.rows.sort(key=lambda row: MEASURES.index(row["measure"]))
    report.finish(json_path)


def _add(
    report: Report,
    cell: Cell,
    found: dict[str, tuple[float, Floats]],
    plain: dict[str, tuple[float, Floats]] | None,
) -> None:
    for measure, (value, parts) in found.items():
        difference = None if plain is None else paired_interval(parts, plain[measure][1])
        report.add(measure=measure, cell=cell.name, value=value, difference=difference)


if __name__ == "__main__":
    main()
