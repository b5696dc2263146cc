"""Whether the mark is still found after what happens to text on its way into a corpus.

Marked answers of the demo model are cut, edited, turned into text and tested blind from that text alone: power is the
share of documents whose p-value, all sub-keys paid for, reaches a level. The same edits of unmarked answers under
fresh keys give the false positives. Documents of 200 tokens are also hidden in a corpus of clean text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import track

from benchmarks.answers import SCHEMES, TEMPERATURES, Cell, Setting, setting
from benchmarks.calibration import binomial_interval
from benchmarks.common import Floats, Report, json_option, quick_option, set_threads, threads_option
from benchmarks.edits import (
    edit_words,
    lower_case,
    one_space,
    plain_markdown,
    plain_unicode,
    sentences,
    words,
)
from benchmarks.mixing import COUNTS, LEVELS, Hiding, clean_text
from detect.document.blind import blind_test
from detect.text.distinct import Tuples, distinct_tuples
from detect.text.encode import Encoder
from watermark.keys import KeyRing, SecretKey
from watermark.prf import U32
from watermark.spec import WatermarkSpec

LENGTHS = (50, 100, 200, 400)
MAIN = 200  # the length that stands out
CLEAN = (0.99, 0.999)

UNEDITED, PARAPHRASED = "none (cut, then text)", "paraphrased by the model"
Edit = Callable[[str, np.random.Generator, Sequence[str]], str]


def _plain(change: Callable[[str], str]) -> Edit:
    return lambda text, generator, others: change(text)


def _words(share: float) -> Edit:
    return lambda text, generator, others: edit_words(text, share, others, generator)


EDITS: dict[str, Edit] = {
    UNEDITED: _plain(str),
    "words, 5%": _words(0.05),
    "words, 10%": _words(0.10),
    "words, 30%": _words(0.30),
    "lower case": _plain(lower_case),
    "white space to one space": _plain(one_space),
    "NFKC, straight quotes": _plain(plain_unicode),
    "markdown stripped": _plain(plain_markdown),
    "last four together": _plain(lambda text: one_space(lower_case(plain_unicode(plain_markdown(text))))),
}
REWRITE = "Rewrite this sentence in your own words. Keep its meaning and answer with the new sentence alone.\n\n{}"


@dataclass(frozen=True)
class Sizes:
    """How much of everything: as asked for, or tiny."""

    lengths: tuple[int, ...] = LENGTHS
    main: int = MAIN
    keys: int = 250
    draws: int = 20
    paraphrased: int = 32
    rewritten_tokens: int = 80
    clean_documents: int | None = None
    counts: tuple[int, ...] = COUNTS


QUICK = Sizes((6, 12, 24), 12, 5, 2, 1, 8, 20, (1, 2, 4))


@dataclass(frozen=True)
class Material:
    """Texts after an edit, as a test reads them, and means over what the edit did to them.

    Attributes
    ----------
    tuples
        Of each edited text.
    changed
        Share of the texts that the edit changed.
    words_kept, tuples_kept
        Share of a text's distinct words, and of its distinct (context, token) tuples, that are still there.
    length
        Tokens after the edit over tokens before.
    """

    tuples: list[Tuples]
    changed: float
    words_kept: float
    tuples_kept: float
    length: float

    @classmethod
    def of(
        cls, encoder: Encoder, width: int, written: Sequence[U32], before: Sequence[str], after: Sequence[str]
    ) -> Material:
        """Read texts; ``written`` are the ids that the model wrote."""
        ids = [encoder.encode(text) for text in after]
        tuples = [distinct_tuples(one, width) for one in ids]
        own = [distinct_tuples(one, width) for one in written]
        return cls(
            tuples=tuples,
            changed=_mean(map(str.__ne__, before, after)),
            words_kept=_mean(
                _kept(set(words(one)), set(words(other))) for one, other in zip(before, after, strict=True)
            ),
            tuples_kept=_mean(_kept(_as_set(one), _as_set(other)) for one, other in zip(own, tuples, strict=True)),
            length=_mean(len(other) / max(1, len(one)) for one, other in zip(written, ids, strict=True)),
        )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _kept(before: set[Any], after: set[Any]) -> float:
    return len(before & after) / max(1, len(before))


def _as_set(tuples: Tuples) -> set[tuple[int, ...]]:
    return set(map(tuple, np.column_stack([tuples.contexts, tuples.tokens]).tolist()))


class Answers:
    """The texts of one cell: cut, edited, paraphrased."""

    def __init__(self, chosen: Setting, cell: Cell, others: Sequence[str], sizes: Sizes) -> None:
        self.chosen, self.cell, self.others, self.sizes = chosen, cell, others, sizes
        self.ids = [np.array(answer.token_ids, dtype=np.uint32) for answer in chosen.answers(cell)]

    def cut(self, length: int, start: int = 0) -> list[str]:
        """Part of each answer, as text."""
        decode = partial(self.chosen.model.tokenizer.decode, skip_special_tokens=True)
        return [decode(ids[start : start + length]) for ids in self.ids]

    def edited(self, edit: str, length: int) -> tuple[list[U32], list[str], list[str]]:
        """The beginnings of the answers: as ids, as text, and as text after an edit."""
        ids, before = [one[:length] for one in self.ids], self.cut(length)
        if edit == PARAPHRASED:
            ids, before = ids[: self.sizes.paraphrased], before[: self.sizes.paraphrased]
            return ids, before, paraphrased(self.chosen, before, self.sizes.rewritten_tokens)
        seeds = [list(f"{edit} {length} {number}".encode()) for number in range(len(before))]
        generators = map(np.random.default_rng, seeds)
        return ids, before, [EDITS[edit](*pair, self.others) for pair in zip(before, generators, strict=True)]


def paraphrased(chosen: Setting, texts: Sequence[str], tokens: int) -> list[str]:
    """Let the model itself, unmarked, rewrite texts sentence by sentence."""
    parts = [sentences(text) for text in texts]
    asked = sorted({part for text in parts for part in text}, key=lambda part: (len(part), part))  # batches alike
    writer = replace(chosen, tokens=tokens, full_length=False)
    answers = writer.rewritten([REWRITE.format(part) for part in asked], temperature=0.7)
    new = {part: answer.text.strip() for part, answer in zip(asked, answers, strict=True)}
    return [" ".join(new[part] for part in text) for text in parts]


def power_row(
    spec: WatermarkSpec, ring: KeyRing, marked: Material, unmarked: Material, keys: int, seed: str
) -> dict[str, Any]:
    """Marked documents found under their key, and unmarked ones under fresh keys."""
    found = np.array([blind_test(spec, ring, one, decoy_count=0).log10_pvalue for one in marked.tuples])
    null = np.concatenate(
        [_under_fresh_keys(spec, ring, one, keys, f"{seed} {number}") for number, one in enumerate(unmarked.tuples)]
    )
    row: dict[str, Any] = {
        "n": len(found),
        "changed": marked.changed,
        "words kept": marked.words_kept,
        "tuples kept": marked.tuples_kept,
        "length": marked.length,
        "median log10 p": float(np.median(found)),
        "null n": len(null),
    }
    for level in LEVELS:
        for name, log10_ps in (("power", found), ("false", null)):
            k = int(np.sum(log10_ps <= math.log10(level)))
            row[f"{name} {level:g}"] = k / len(log10_ps)
            row[f"{name} {level:g} interval"] = binomial_interval(k, len(log10_ps))
    return row


def _under_fresh_keys(spec: WatermarkSpec, ring: KeyRing, tuples: Tuples, keys: int, seed: str) -> Floats:
    """The document's own p-value under keys that nobody used: what the test calls its decoys."""
    decoys = blind_test(spec, ring, tuples, decoy_seed=seed, decoy_count=keys).decoys
    return np.zeros(keys) if decoys is None else np.array(decoys.log10_pvalues)


class Run:
    """Cells, texts and tests of one call."""

    def __init__(self, chosen: Setting, sizes: Sizes, counts: Callable[[Cell], int]) -> None:
        self.chosen, self.sizes, self.counts = chosen, sizes, counts
        self.encoder = Encoder.load(chosen.model.folder)
        self._unmarked: dict[tuple[float, str, int], Material] = {}

    def answers(self, cell: Cell) -> Answers:
        """The texts of a cell; words to put in come from the unmarked answers at its temperature."""
        plain = Cell(None, cell.temperature)
        unmarked = [one.text for one in self._setting(plain).answers(plain)]
        return Answers(self._setting(cell), cell, words(" ".join(unmarked)), self.sizes)

    def _setting(self, cell: Cell) -> Setting:
        return replace(self.chosen, count=self.counts(cell))

    def material(self, answers: Answers, edit: str, length: int, width: int) -> Material:
        """Texts after an edit; those of unmarked answers serve every scheme."""
        key = (answers.cell.temperature, edit, length)
        if answers.cell.scheme is None and key in self._unmarked:
            return self._unmarked[key]
        material = Material.of(self.encoder, width, *answers.edited(edit, length))
        if answers.cell.scheme is None:
            self._unmarked[key] = material
        return material

    def power(self, cell: Cell) -> list[dict[str, Any]]:
        """A row for every edit and length."""
        assert cell.scheme is not None
        spec = self.chosen.spec(cell.scheme)
        marked, unmarked = self.answers(cell), self.answers(Cell(None, cell.temperature))
        wanted = [(edit, length) for edit in EDITS for length in self.sizes.lengths]
        if cell.scheme == "gumbel":
            wanted.append((PARAPHRASED, self.sizes.main))
        rows = []
        for edit, length in track(wanted, cell.name):
            own, plain = (self.material(one, edit, length, spec.context_width) for one in (marked, unmarked))
            row = power_row(spec, self.chosen.ring, own, plain, self.sizes.keys, f"{cell.name} {edit} {length}")
            rows.append({"cell": cell.name, "edit": edit, "tokens": length, **row})
        return rows

    def hiding(self, cell: Cell, clean: U32) -> Hiding:
        """Documents of the main length, as many as the answers give, to be hidden in clean text."""
        assert cell.scheme is not None
        spec, length, answers = self.chosen.spec(cell.scheme), self.sizes.main, self.answers(cell)
        starts = range(0, self.chosen.tokens - length + 1, length)
        ids = [self.encoder.encode(text) for start in starts for text in answers.cut(length, start)]
        tuples = [distinct_tuples(one, spec.context_width) for one in ids]
        log10_ps = [blind_test(spec, self.chosen.ring, one, decoy_count=0).log10_pvalue for one in tuples]
        return Hiding(ids, np.array(log10_ps), clean, self.sizes.counts, self.sizes.draws)

    def mixed(self, cell: Cell, clean: U32) -> list[dict[str, Any]]:
        """Rows for every share of clean text; false positives are counted where the corpus is small."""
        owner = self.chosen.ring.global_key
        assert cell.scheme is not None and isinstance(owner, SecretKey)
        hiding, spec = self.hiding(cell, clean), self.chosen.spec(cell.scheme)
        rows = []
        for share in track(CLEAN, f"{cell.name}, mixed"):
            fresh = [
                SecretKey(blake2b(f"{cell.name} {n}".encode(), digest_size=32).digest()) for n in range(self.sizes.keys)
            ]
            rows += hiding.rows(spec, owner, share, fresh if share == CLEAN[0] else ())
        return [{"cell": cell.name, "n": len(hiding.marked), **row} for row in rows]


def by_length(rows: Sequence[dict[str, Any]], main: int) -> list[dict[str, Any]]:
    """One row for each cell and edit, with the power at every length."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        name = f"[reverse]{row['tokens']} tokens[/]" if row["tokens"] == main else f"{row['tokens']} tokens"
        power = " / ".join(f"{row[f'power {level:g}']:.0%}" for level in LEVELS)
        found.setdefault((row["cell"], row["edit"]), {"cell": row["cell"], "edit": row["edit"], "n": row["n"]})
        found[row["cell"], row["edit"]][name] = power
    return list(found.values())


def at_length(row: dict[str, Any]) -> dict[str, Any]:
    """All of one row, short enough for a table."""
    shown = {name: row[name] for name in ("cell", "edit", "n")}
    shown |= {name: f"{row[name]:.0%}" for name in ("changed", "words kept", "tuples kept", "length")}
    shown["log10 p"] = f"{row['median log10 p']:.1f}"
    for level in LEVELS:
        low, high = row[f"power {level:g} interval"]
        shown[f"p<={level:g}"] = f"{row[f'power {level:g}']:.0%} ({low:.0%} .. {high:.0%})"
    level = LEVELS[0]
    low, high = (end / level for end in row[f"false {level:g} interval"])
    shown["FPR/alpha"] = f"{row[f'false {level:g}'] / level:.2f} ({low:.2f} .. {high:.2f})"
    shown["false at 1e-06"] = f"{round(row[f'false {LEVELS[1]:g}'] * row['null n'])} / {row['null n']:,}"
    return shown


@click.command()
@click.option("--answers", "most", default=96, show_default=True, help="Answers per cell of gumbel; others have half.")
@click.option("--batch", default=48, show_default=True, help="Answers generated side by side.")
@click.option("--keys", default=Sizes.keys, show_default=True, help="Fresh keys for each unmarked document.")
@click.option("--draws", default=Sizes.draws, show_default=True, help="Corpora drawn for each share of clean text.")
@click.option("--temperature", "temperatures", type=float, multiple=True, default=TEMPERATURES, show_default=True)
@click.option("--scheme", "schemes", type=click.Choice(SCHEMES), multiple=True, default=SCHEMES, show_default=True)
@click.option("--model", "folder", type=click.Path(path_type=Path), help="Model folder instead of the demo model.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder of the answers; by default in the cache.")
@threads_option
@quick_option
@json_option
def main(
    most: int,
    batch: int,
    keys: int,
    draws: int,
    temperatures: tuple[float, ...],
    schemes: tuple[str, ...],
    folder: Path | None,
    keep: Path | None,
    threads: int | None,
    quick: bool,
    json_path: Path | None,
) -> None:
    """Measure what is found after edits and in mixed corpora."""
    sizes = QUICK if quick else replace(Sizes(), keys=keys, draws=draws)
    if quick:
        most, temperatures = 2, temperatures[-1:]
    set_threads(1 if quick else threads)
    chosen = replace(setting(folder, keep, most, max(sizes.lengths), batch), full_length=True)
    run = Run(chosen, sizes, lambda cell: most if cell.scheme == "gumbel" else max(1, most // 2))
    settings = {"model": chosen.model.folder.name, "context width": 2, "sub-keys": 4, "batch": batch}
    power = Report("Power after edits: every length", settings)
    mixed = Report(
        f"Mixed into clean text: marked documents of {sizes.main} tokens until found in 50% and 95% of corpora",
        {**settings, "draws": sizes.draws},
        notes=[
            "pooled: one sum over the corpus's distinct tuples and all sub-keys",
            "expected: documents for 50% by the normal law, where the answers are too few",
            "best document: its p-value, sub-keys paid for, times the number of documents",
            "false / n: pooled p<=0.001 of a corpus with 8 marked documents under n other keys",
        ],
    )
    clean = clean_text(run.encoder, sizes.main, sizes.clean_documents)
    for cell in [Cell(scheme, temperature) for temperature in temperatures for scheme in schemes]:
        power.rows += run.power(cell)
        power.save(json_path)
        mixed.rows += run.mixed(cell, clean)
        mixed.save(json_path and json_path.with_suffix(".mixed.json"))
    lengths = Report("Power after edits: share with p<=0.001 / p<=1e-06, by length", settings)
    lengths.rows = by_length(power.rows, sizes.main)
    lengths.finish(None)
    mixed.finish(json_path and json_path.with_suffix(".mixed.json"))
    at_main = Report(
        f"Power after edits: documents of {sizes.main} tokens",
        settings,
        notes=[
            "changed: share of the documents that the edit changes; log10 p: median",
            "tuples kept: of those that the model wrote; power with its 95% interval (Clopper and Pearson)",
            "FPR/alpha: the same edit of unmarked answers under fresh keys, at 0.001",
        ],
    )
    at_main.rows = [at_length(row) for row in power.rows if row["tokens"] == sizes.main]
    at_main.finish(None)


if __name__ == "__main__":
    main()
