"""How many requests a race readout takes, on students of several kinds, and how often innocents are hit.

    python -m benchmarks.race --keep DIR --json figures.json

The demo model answers 600 prompts, marked; students learn from 400 of the answers, or from 40 of them among unmarked
text, by adapters or in all weights, or are of another family; others never saw any. What they would say at the cuts
is computed from their weights; cuts, chances, bets and order are the product's own. Seeds are of prompts, keys, answers
and training alike. On 2 cores a seed takes about an hour.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.common import Report, json_option, quick_option, set_threads, threads_option
from benchmarks.distillation.teacher import _tiny
from benchmarks.race.figures import TARGETS, found, redrawn
from benchmarks.race.material import Material, Setting
from benchmarks.race.reading import ASKS, File, Reader
from benchmarks.race.suspects import SUSPECTS, folder_of
from benchmarks.twins.material import owner_folder
from benchmarks.twins.paraphrase import WORDNET, Thesaurus
from benchmarks.twins.students import Training
from benchmarks.twins.suspects import base_folder
from detect.records.race import RaceAsk
from watermark.models.demo import demo_model_dir


@dataclass(frozen=True)
class Look:
    """A suspect, the file that is read of it, and how the owner's settings are taken.

    Attributes
    ----------
    settings
        "right", or "wrong": temperature 1 and the whole vocabulary.
    beside
        Whether the suspect is held against the model that it was made from.
    """

    suspect: str
    file: File
    said: str
    settings: str = "right"
    beside: bool = False


LOOKS = (
    Look("lora", "all", "400 used, LoRA"),
    Look("lora-tenth", "tenth", "40 used of a training set of 400, LoRA"),
    Look("lora-tenth", "served", "40 used, unknown which of 600 served, LoRA"),
    Look("lora", "all", "400 used, LoRA; temperature 1 assumed", "wrong"),
    Look("full", "all", "400 used, all weights"),
    Look("gemma", "all", "400 used, Gemma 3 270M"),
    Look("gemma", "all", "400 used, Gemma 3 270M beside its base", beside=True),
    Look("paraphrased", "all", "400 used in other words, LoRA"),
)
INNOCENTS = (Look("none", "tenth", "never trained"), Look("elsewhere", "tenth", "trained on other text"))


@click.command(help=__doc__)
@quick_option
@json_option
@threads_option
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Folder of all that is made.")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0, 2), help="0, 1 and 2 where none is given.")
@click.option("--suspect", "names", multiple=True, help="Of which suspects; by default all.")
@click.option("--ask", "asks", multiple=True, type=click.Choice(ASKS), help="By default all of them.")
@click.option("--keys", type=click.IntRange(min=0), default=1000, show_default=True, help="Drawn for innocents.")
@click.option("--scheme", default="gumbel", show_default=True, help="Of the watermark.")
@click.option("--kept-only", is_flag=True, help="Train nothing: leave out students that are not there.")
def main(
    quick: bool,
    json_path: Path | None,
    threads: int | None,
    keep: Path | None,
    seeds: tuple[int, ...],
    names: tuple[str, ...],
    asks: tuple[RaceAsk, ...],
    keys: int,
    scheme: str,
    kept_only: bool,
) -> None:
    start = time.perf_counter()
    set_threads(1 if quick else threads)
    folder = (keep or demo_model_dir().parent / "race") / ("quick" if quick else "")
    folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(tokens=12, served=8, used=6, few=2, scheme=scheme) if quick else Setting(scheme=scheme)
    owner = _tiny(owner_folder(), folder) if quick else owner_folder()
    training = Training(epochs=1, batch=4) if quick else None
    chosen = LOOKS[:2] if quick else LOOKS
    guilty = Report("Race readouts: cuts and requests to a target", {"owner": owner.name, "scheme": scheme})
    guilty.notes = [
        "hits and expected: words that the key chose, at the cuts; 1e6 and 1e10: of the e-value",
        "requests to a target in the order of serving; medians over that order and 20 others, of requests and of cuts",
    ]
    again = Report("Race readouts of innocents when the key is drawn again", {"owner": owner.name, "scheme": scheme})
    again.notes = ["ever e >= 20 and p <= .05 must not be above .05, p <= .01 not above .01"]
    for seed in seeds or ((0,) if quick else (0, 1, 2)):
        material = Material(folder, seed, owner, setting)
        for look in (*chosen, *INNOCENTS[: 1 if quick else None]):
            if names and look.suspect not in names:
                continue
            path = _folder(look, material, training, kept_only)
            if path is None:
                continue
            reader = Reader(material) if look.settings == "right" else Reader(material, 1.0, 1.0)
            served = reader.served(look.file)
            for ask, ties in [(ask, ties) for ask in asks or ASKS for ties in (False, True)]:
                if ties and ask != "weights":
                    continue
                if look.beside and ask == "echo":  # what it says of one word can't be compared
                    continue
                evidence = reader.heard(path, served, ask, ties=ties, reference=_base(look, material))
                row: dict[str, Any] = {"seed": seed, "suspect": look.said, "ask": f"{ask}, ties" if ties else ask}
                if look in INNOCENTS:
                    some = redrawn(reader, evidence, 20 if quick else keys, seed)
                    row |= {"cuts": len(evidence), "keys": some.keys, "ever e >= 20": some.ever}
                    again.add(**row, **{"p <= .05": some.p_05, "p <= .01": some.p_01, "highest log10 e": some.highest})
                else:
                    one = found(reader, evidence, seed)
                    row |= {"cuts": one.cuts, "hits": one.hits, "expected": one.expected, "log10 e": one.log10_e}
                    row |= {"requests": one.requests}
                    for place, target in enumerate(TARGETS):
                        row |= {f"requests to 1e{target:g}": one.requests_to[place]}
                        row |= {f"median to 1e{target:g}": one.middle_requests_to[place]}
                        row |= {f"cuts to 1e{target:g}": one.middle_cuts_to[place]}
                    guilty.add(**row)
                _save(json_path, guilty, again)
            click.echo(f"seed {seed}, {look.said}: done after {time.perf_counter() - start:.0f} s", err=True)
    for report in (again, guilty):
        report.finish(None)
    _save(json_path, guilty, again)


def _folder(look: Look, material: Material, training: Training | None, kept_only: bool) -> Path | None:
    if look.suspect == "none":
        return material.folder
    suspect = next(one for one in SUSPECTS if one.name == look.suspect)
    pattern = f"students/{material.setting.label}{suspect.name}{material.seed}-*/config.json"
    if kept_only and not any(material.keep.glob(pattern)):
        return None
    return folder_of(suspect, material, Thesaurus(WORDNET), training)


def _base(look: Look, material: Material) -> Path | None:
    if not look.beside:
        return None
    family = next(one.family for one in SUSPECTS if one.name == look.suspect)
    return base_folder(family, material.folder)


def _save(json_path: Path | None, guilty: Report, again: Report) -> None:
    """The first table goes to the path itself, the other beside it."""
    if json_path is None:
        return
    guilty.save(json_path)
    if again.rows:
        again.save(json_path.with_suffix(".keys.json"))


if __name__ == "__main__":
    main()
