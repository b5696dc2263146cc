"""How many pairs and questions a test by twins takes, on students of several kinds, and how often innocents are hit.

    python -m benchmarks.twins --keep DIR --json figures.json

The demo model answers each of 300 prompts; a coin serves one of two answers; students learn from what was served, as it
was or in other words, or from a part of it, or are of another family; others learn from third answers, which the coin
had no part in. Every number comes from the product's own measures, bets and tests, through weights or a real HTTP
server. Seeds are of prompts, answers, coins and training alike. On 2 cores a seed takes about an hour.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.common import Report, json_option, quick_option, set_threads, threads_option
from benchmarks.distillation.teacher import _tiny
from benchmarks.twins.figures import TARGETS, Numbers, found, retossed
from benchmarks.twins.material import Material, Setting, owner_folder
from benchmarks.twins.measuring import ASKS, Ask, Bench
from benchmarks.twins.paraphrase import WORDNET, Thesaurus
from benchmarks.twins.students import Training
from benchmarks.twins.suspects import SUSPECTS, Suspect
from detect.twins.forecast import pairs_needed
from watermark.models.demo import demo_model_dir

QUICK = ("plain", "base", "others")
_SAID = {"logprobs": "log-probabilities", "parting": "turns taken", "answers": "free answers"}


@click.command(help=__doc__)
@quick_option
@json_option
@threads_option
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Folder of all that is made.")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0, 5), help="0, 1 and 2 where none is given.")
@click.option("--suspect", "names", multiple=True, type=click.Choice([s.name for s in SUSPECTS]), help="Default: all.")
@click.option("--ask", "asks", multiple=True, type=click.Choice(ASKS), help="By default all of them.")
@click.option("--temperature", default=0.8, show_default=True, help="Of the owner's answers.")
@click.option("--coins", type=click.IntRange(min=1), help="How often all coins are tossed again.")
@click.option(
    "--wordnet",
    type=click.Path(path_type=Path),
    default=WORDNET,
    show_default=True,
    help="WordNet's dict files, for paraphrase by rules.",
)
@click.option("--kept-only", is_flag=True, help="Figures of what earlier runs made; train and ask nothing.")
def main(
    quick: bool,
    json_path: Path | None,
    threads: int | None,
    keep: Path | None,
    seeds: tuple[int, ...],
    names: tuple[str, ...],
    asks: tuple[Ask, ...],
    temperature: float,
    coins: int | None,
    wordnet: Path,
    kept_only: bool,
) -> None:
    start = time.perf_counter()
    set_threads(1 if quick else threads)
    folder = (keep or demo_model_dir().parent / "twins") / ("quick" if quick else "")
    folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(temperature, prompts=8, tokens=8) if quick else Setting(temperature)
    owner = _tiny(owner_folder(), folder) if quick else owner_folder()
    tosses = coins or (50 if quick else 10_000)
    chosen = [one for one in SUSPECTS if one.name in (names or (QUICK if quick else [s.name for s in SUSPECTS]))]
    settings = {
        "temperature": temperature,
        "prompts": setting.prompts,
        "tokens": setting.tokens,
        "coins": tosses,
        "owner": owner.name,
    }
    guilty = Report("Twins: pairs and questions to a target", settings)
    guilty.notes = [
        "pairs and questions: medians over the order of time and 20 other orders; empty where most never got there",
        "log10 p: exact sign test of the first number; log10 e: the bets after all pairs; forecast: pairs to 1e-6 with "
        "probability .9, from the wins that were seen",
    ]
    again = Report("Twins: the same numbers when all coins are tossed again", settings)
    again.notes = ["ever e >= 20 and p <= .05 must not be above .05, p <= .01 not above .01"]
    innocents = Report("Twins: innocents under the real coins", settings)
    for seed in seeds or ((0,) if quick else (0, 1, 2)):
        bench = Bench(
            Material(folder, seed, owner, setting), Thesaurus(wordnet), Training(epochs=1, batch=4) if quick else None
        )
        for suspect in chosen:
            for ask in asks or ASKS:
                if kept_only and not bench.kept(suspect, ask):
                    continue
                for label, numbers in _numbers(bench, suspect, ask):
                    row = {"seed": seed, "suspect": suspect.said, "asked for": label}
                    (guilty if suspect.guilty else innocents).add(**row, **_found(numbers, seed))
                    again.add(**row, **_again(numbers, tosses, seed))
                    _save(json_path, guilty, again, innocents)
            click.echo(f"seed {seed}, {suspect.name}: done after {time.perf_counter() - start:.0f} s", err=True)
    guilty.notes.append(f"{time.perf_counter() - start:.0f} s in all, less what was kept from earlier runs")
    for report in (again, innocents, guilty):
        report.finish(None)
    _save(json_path, guilty, again, innocents)


def _numbers(bench: Bench, suspect: Suspect, ask: Ask) -> Iterator[tuple[str, Numbers]]:
    """What is measured of a suspect, under the name that rows give it."""
    if ask == "logprobs" and suspect.texts != "none":
        yield f"{_SAID[ask]} less its base", bench.numbers(suspect, ask)
    yield _SAID[ask], bench.numbers(suspect, ask, reference=False)


def _found(numbers: Numbers, seed: int) -> dict[str, Any]:
    one = found(numbers, seed)
    shown = one.wins + one.losses
    rate = one.wins / shown if shown else 0.5
    forecast = None
    if one.log10_p < -2:
        forecast = pairs_needed(min(rate, 0.999), speaking=shown / len(numbers.signs), target_log10=6.0, most=4000)
    row: dict[str, Any] = {
        "wins": one.wins, "losses": one.losses, "log10 p": one.log10_p, "log10 flip": one.log10_flip,
        "log10 e": one.log10_e,
    }  # fmt: skip
    for target, pairs, questions in zip(TARGETS, one.pairs, one.questions, strict=True):
        row |= {f"pairs to 1e-{target:g}": pairs, f"questions to 1e-{target:g}": questions}
    return {**row, "forecast": forecast}


def _again(numbers: Numbers, coins: int, seed: int) -> dict[str, Any]:
    one = retossed(numbers, coins, seed)
    return {
        "coins": one.coins, "ever e >= 20": one.ever, "sign p <= .05": one.sign_05,
        "sign p <= .01": one.sign_01, "flip p <= .05": one.flip_05, "flip p <= .01": one.flip_01,
    }  # fmt: skip


def _save(json_path: Path | None, guilty: Report, again: Report, innocents: Report) -> None:
    """The first table goes to the path itself, the others beside it."""
    if json_path is None:
        return
    guilty.save(json_path)
    for name, report in (("coins", again), ("innocents", innocents)):
        if report.rows:
            report.save(json_path.with_suffix(f".{name}.json"))


if __name__ == "__main__":
    main()
