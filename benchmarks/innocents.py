"""How often suspects that never saw the key look guilty: the innocents' gallery of tests/innocents under many keys.

Each row is a suspect that a careless test would accuse. Its share of keys under which 1 / e (or p) is at or below a
level must not exceed the level; the table gives the ratio, and the chance of so many if the level held. Everything
that chooses, reads, weighs and tests is the product's; suspects are tables of a toy language (tests/innocents).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from rich.progress import track
from scipy.special import bdtrc

from benchmarks.common import Floats, Report, json_option, quick_option, set_threads, threads_option
from tests.innocents import askings, readings
from tests.innocents.suspects import Prompts

LEVELS = (1e-2, 1e-3, 1e-4)
CHUNK = 100  # keys whose files are kept at once

Cell = Callable[[str, Path, int], dict[str, Floats]]
"""From a seed, a folder and a number of keys to log10 e of each suspect under each key."""


def _reading(kind: str) -> Cell:
    """Marked answers read by all who never saw the key."""
    table, texts = readings.READ[kind]

    def cell(seed: str, folder: Path, count: int) -> dict[str, Floats]:
        found = readings.log10_es(seed, table, readings.SUSPECTS, folder, texts, count)
        names = [f"reads {kind}: {suspect.__name__.replace('_', ' ')}" for suspect in readings.SUSPECTS]
        return dict(zip(names, found, strict=True))

    return cell


def _served(kind: str, ledger: bool) -> Cell:
    """Unmarked answers, weighed by what was served."""
    table, prompts = readings.SERVED[kind]
    name = f"served {'ledger' if ledger else 'answers'}, {kind}: endless twin"
    return lambda seed, folder, count: {name: readings.served_es(seed, folder, table, prompts, count, ledger=ledger)}


def _asking(endpoint: Callable[..., Any], served: bool) -> Cell:
    """Prompts of marked lists asked at an endpoint; what counts is the most that is shown on the way."""
    suspect, prompts = endpoint(askings.LISTS), Prompts.of(askings.OFFERED, 3)
    name = f"asked, {'served contexts' if served else 'all contexts'}: {endpoint.__name__.replace('_', ' ')}"

    def cell(seed: str, folder: Path, count: int) -> dict[str, Floats]:
        found = [
            askings.traced(folder, world, prompts, askings.LISTS, suspect, number=number, served=served)
            for number, world in enumerate(readings.worlds(seed, count))
        ]
        return {name: np.array(found).max(axis=1)}

    return cell


def cells() -> Iterator[tuple[str, Cell]]:
    """All of them by name."""
    for kind in readings.READ:
        yield f"read {kind}", _reading(kind)
    for kind in readings.SERVED:
        for ledger in (False, True):
            yield f"served {kind} {ledger}", _served(kind, ledger)
    for endpoint in (
        askings.own_dice,
        askings.deterministic,
        askings.of_unmarked_answers,
        askings.remembering,
    ):
        for served in (True, False):
            yield f"asked {endpoint.__name__} {served}", _asking(endpoint, served)


@click.command(help=__doc__)
@quick_option
@json_option
@threads_option
@click.option("--keys", default=10_000, show_default=True, help="Fresh keys for each row.")
@click.option("--only", default="", help="Only rows whose cell's name holds this: read, served, asked, lists, ...")
def main(quick: bool, json_path: Path | None, threads: int | None, keys: int, only: str) -> None:
    keys = 3 if quick else keys
    settings = {"keys": keys, "levels": LEVELS, **set_threads(threads)}
    report = Report("Innocents: chance to look guilty, in multiples of the level", settings)
    report.notes.append("1 is as much as a level allows; e-values bound p-values, so that most rows stay well below")
    chosen = [(name, cell) for name, cell in cells() if only in name]
    for name, cell in track(chosen, description="suspects", disable=quick):
        for suspect, log10_es in _measured(name, cell, keys).items():
            counts = [int(np.sum(log10_es >= -np.log10(level))) for level in LEVELS]
            chance = min(_chance(count, keys, level) for count, level in zip(counts, LEVELS, strict=True))
            ratios = {f"at {level:g}": k / keys / level for k, level in zip(counts, LEVELS, strict=True)}
            report.add(suspect=suspect, **ratios, largest=float(log10_es.max()), chance_of_so_many=chance)
        report.save(json_path)
    report.finish(json_path)


def _measured(name: str, cell: Cell, keys: int) -> dict[str, Floats]:
    parts: list[dict[str, Floats]] = []
    for start in range(0, keys, CHUNK):
        with TemporaryDirectory() as folder:
            parts.append(cell(f"{name[:20]} {start}", Path(folder), min(CHUNK, keys - start)))
    return {suspect: np.concatenate([part[suspect] for part in parts]) for suspect in parts[0]}


def _chance(count: int, keys: int, level: float) -> float:
    """P(at least so many of the keys reach a level whose chance it is)."""
    return 1.0 if count == 0 else float(bdtrc(count - 1, keys, level))


if __name__ == "__main__":
    main()
