"""Validity audit: unmarked text under fresh keys, through the detectors that systems ship and through ours.

What is observed is how often a detector's p-value (or z, converted as the detector itself claims) is at or below a
level: a multiple of 1 is honest, 10 means ten false alarms where one was promised. Documents are the same for all, and
no key has seen any of them.

The systems' own calls are slow, so each detector's rule is computed from our reading of its words, and held against its
own call under some of the keys: the run ends with an error where they differ. Our p-values are checked alike, against
what `dyetrace detect` computes. Systems are left out where Python finds none; wheels unpacked into folders will do:

    pip download --no-deps sglang==0.5.23 textseal==0.0.5 markllm==0.1.5      and unzip them into FOLDER
    PYTHONPATH=FOLDER python -m benchmarks.audit --keep DOCUMENTS

vLLM's detectors need vLLM itself: run the script again in its environment, with the same documents by --keep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.progress import track

from benchmarks.audit_systems import System, context_of, installed
from benchmarks.calibration import documents
from benchmarks.common import Floats, Report, json_option, quick_option, set_threads
from detect.document.blind import law_tails, log10_pvalues
from detect.keyed.calibration import bounded_log10, method_of, rank_log10
from detect.keyed.scoring import as_drawn
from detect.keyed.words import signed
from detect.laws.tails import log10_sf_pairs
from detect.text.distinct import distinct_tuples, first_occurrences
from tests.detect.calibration import LEVELS
from watermark.errors import DyetraceError
from watermark.formats.protocol import Format
from watermark.keys.foreign import ForeignKey
from watermark.prf import U32

I64 = npt.NDArray[np.int64]
Texts = dict[str, list[U32]]

KINDS = ("prose", "code", "repetitive", "languages")
VOCABULARY = 49_152
CHECKED_KEYS = 2
AGREEMENT = 1e-4  # relative, of p-values: some systems sum in float32
_NOTHING = np.empty(0, dtype=np.uint32)


@dataclass(frozen=True)
class Read:
    """Documents as a format and its detectors see them: their distinct tuples, one document after the other.

    Attributes
    ----------
    ids
        Of each document.
    starts
        Where each one's tuples begin, shape (documents,).
    contexts, tokens
        Shapes (n, h) and (n,).
    known
        Which tuples `detect` counts in a text without a prompt, (n,).
    counts
        How often each tuple occurs, (n,).
    scored
        For each detector how often it scores each tuple, (detectors, n).
    salts
        Different for each document, (n,).
    """

    ids: list[list[int]]
    starts: I64
    contexts: I64
    tokens: I64
    known: npt.NDArray[np.bool_]
    counts: I64
    scored: I64
    salts: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, system: System, texts: Sequence[U32]) -> Read:
        """Of all documents."""
        width = system.scheme.context_width
        parts = [distinct_tuples(text, width, _NOTHING) for text in texts]
        scored = np.zeros((len(system.detectors), sum(map(len, parts))), dtype=np.int64)
        starts = np.cumsum([0, *map(len, parts[:-1])])
        ids = [text.tolist() for text in texts]
        for start, part, text in zip(starts, parts, ids, strict=True):
            index = {(*context_of(text, i, width), text[i]): start + n for n, i in enumerate(part.index.tolist())}
            for row, detector in zip(scored, system.detectors, strict=True):
                places = detector.positions(text, width)
                np.add.at(row, [index[*context_of(text, i, width), text[i]] for i in places], 1)
        lengths = [len(part) for part in parts]
        salts = np.random.default_rng(0).integers(0, 2**64, len(parts), dtype=np.uint64)
        return cls(
            ids,
            starts,
            np.concatenate([signed(part.contexts) for part in parts]),
            np.concatenate([part.tokens for part in parts]).astype(np.int64),
            np.concatenate([part.index >= width for part in parts]),
            np.concatenate([part.counts for part in parts]),
            scored,
            np.repeat(salts, lengths),
        )

    def sums(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Of each document, over the last axis."""
        return np.asarray(np.add.reduceat(values, self.starts, axis=-1))

    def counting(self, scheme: Format, key: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """The tuples that count in `detect`: of those that a key hashes alike, the first in its document."""
        if scheme.context_width == 0:
            return self.known
        inputs = scheme.inputs(key, self.contexts[self.known], self.tokens[self.known])
        mixed = (inputs ^ self.salts[self.known]) * np.uint64(0x9E3779B97F4A7C15)
        found = self.known.copy()
        found[self.known] = first_occurrences(np.maximum(mixed ^ (mixed >> np.uint64(32)), np.uint64(1)))
        return found


@dataclass(frozen=True)
class Found:
    """P-values: ``own`` (detectors, keys, documents), ``ours`` (keys, documents)."""

    own: Floats
    ours: Floats


def measure(system: System, read: Read, keys: Sequence[tuple[int, ...]]) -> Found:
    """All documents under all keys, by the detectors' rules and by ours."""
    scheme, shape = system.scheme, (len(keys), len(read.starts))
    totals = np.empty((len(system.detectors), *shape))
    ns, sums = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
    for row, key in enumerate(track(keys, f"{system.name}, {scheme.name}")):
        words = scheme.words(key, read.contexts, read.tokens)
        for number, detector in enumerate(system.detectors):
            totals[number, row] = read.sums(detector.score(words) * read.scored[number])
        counts = read.counting(scheme, key)
        statistic = scheme.statistic(words)  # type: ignore[arg-type]
        ns[row], sums[row] = read.sums(counts.astype(np.int64)), read.sums(statistic * read.counts * counts)
    scored = read.sums(read.scored)
    own = np.empty_like(totals)
    for number, detector in enumerate(system.detectors):
        for place in range(shape[1]):
            own[number, :, place] = detector.pvalue(totals[number, :, place], int(scored[number, place]))
    ours = [_ours(scheme, read, place, ns[:, place], sums[:, place]) for place in range(shape[1])]
    return Found(own, np.stack(ours, axis=1))


def _ours(scheme: Format, read: Read, place: int, ns: I64, sums: I64) -> Floats:
    """P-values of one document, (keys,)."""
    if scheme.context_width == 0:
        text = np.array(read.ids[place], dtype=np.uint32)
        tails = log10_pvalues(scheme, distinct_tuples(text, 0), sums)
    else:
        tails = log10_sf_pairs(scheme.law, ns, as_drawn(scheme, sums))
    if method_of(scheme) != "ranked":
        return np.asarray(10.0 ** bounded_log10(scheme, tails))
    half = len(tails) // 2  # each half's keys are the other's decoys
    ranked = []
    for true, decoys in ((tails[:half], tails[half:]), (tails[half:], tails[:half])):
        as_extreme = np.searchsorted(np.sort(decoys), true, side="right")
        ranked.append(10.0 ** rank_log10(as_extreme, len(decoys)))
    return np.concatenate(ranked)


def check(system: System, read: Read, keys: Sequence[tuple[int, ...]], found: Found) -> int:
    """Hold the figures against the systems' own calls and `detect`'s, under the first keys; how many calls agreed.

    Raises
    ------
    DyetraceError
        They differ: the audit would be of something that nobody runs.
    """
    agreed, scheme = 0, system.scheme
    for row, key in enumerate(keys[:CHECKED_KEYS]):
        for place, ids in enumerate(read.ids):
            for number, detector in enumerate(system.detectors):
                _same(detector.own(key, ids), found.own[number, row, place], f"{system.name}, {detector.name}")
                agreed += 1
            if method_of(scheme) != "ranked":
                tuples = distinct_tuples(np.array(ids, dtype=np.uint32), scheme.context_width)
                tails = law_tails(scheme, [ForeignKey(scheme.name, key, bytes(16))], tuples)[2]
                _same(float(10 ** bounded_log10(scheme, tails)[0]), found.ours[row, place], f"detect, {scheme.name}")
    return agreed


def _same(called: float, computed: float, what: str) -> None:
    if abs(called - computed) > AGREEMENT * max(called, computed):
        raise DyetraceError(f"{what}: its own call gives p = {called:.6g}, its rule as read here {computed:.6g}")


def texts_of(folder: Path | None, count: int, tokens: int) -> Texts:
    """The documents, from ``folder`` where an earlier run left them there."""
    file = None if folder is None else folder / "audit_documents.json"
    if file is not None and file.exists():
        kept = json.loads(file.read_text())
        return {kind: [np.array(ids, dtype=np.uint32) for ids in group] for kind, group in kept.items()}
    texts = documents(KINDS, count, tokens)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({kind: [ids.tolist() for ids in group] for kind, group in texts.items()}))
    return texts


def add_rows(report: Report, system: System, texts: Texts, found: Found) -> None:
    """One row for each detector and kind of text."""
    ends = np.cumsum([len(group) for group in texts.values()])
    floor = 2 / len(found.ours) if method_of(system.scheme) == "ranked" else 0.0
    for detector, own in zip(system.detectors, found.own, strict=True):
        for kind, end in zip(texts, ends, strict=True):
            part = slice(end - len(texts[kind]), end)
            row: dict[str, Any] = {"detector": f"{system.name} {detector.name}", "text": kind}
            row["trials"] = own[:, part].size
            for level in LEVELS:
                row[f"theirs at {level:g}"] = float(np.mean(own[:, part] <= level) / level)
                reachable = floor <= level
                row[f"ours at {level:g}"] = float(np.mean(found.ours[:, part] <= level) / level) if reachable else "-"
            report.add(**row)


@click.command()
@click.option("--documents", "count", default=3, show_default=True, help="Documents of each kind of text.")
@click.option("--tokens", default=400, show_default=True, help="Tokens of each.")
@click.option(
    "--keys", default=40_000, show_default=True, help="Fresh keys; an eighth to a half of them where words are slow."
)
@click.option("--only", multiple=True, help="Only systems whose format has this in its name; may be repeated.")
@click.option("--keep", "folder", type=click.Path(path_type=Path), help="Keep the documents there, or take them.")
@quick_option
@json_option
def main(
    count: int,
    tokens: int,
    keys: int,
    only: tuple[str, ...],
    folder: Path | None,
    quick: bool,
    json_path: Path | None,
) -> None:
    """Count false positives of the systems' own detectors, and of ours, on unmarked text."""
    set_threads(1)
    if quick:
        count, tokens, keys = 1, 60, 400
    texts = texts_of(folder, count, tokens)
    systems, missing = installed(VOCABULARY)
    systems = [s for s in systems if not only or any(part in s.scheme.name for part in only)]
    report = Report(
        "Validity audit: false positives over nominal on unmarked text, by the systems' own detectors and by ours",
        {"documents of each kind": len(next(iter(texts.values()))), "tokens": tokens, "keys": keys},
        notes=["1 is honest; at 1e-4 a multiple of 1 is trials / 10,000 p-values, so few trials show little"],
    )
    for system in systems:
        number = max(20, keys // system.cost // 2 * 2)
        native = [_key(system.scheme, i) for i in range(number)]
        read = Read.of(system, [ids for group in texts.values() for ids in group])
        found = measure(system, read, native)
        agreed = check(system, read, native, found)
        add_rows(report, system, texts, found)
        ours = {"law": "exact tail", "bounded": "tail with the bound of its seeds"}.get(
            method_of(system.scheme), f"rank among {number // 2:,} decoy keys"
        )
        report.notes += [f"{system.name} {d.name}: {d.claims}; ours: {ours}" for d in system.detectors]
        report.notes.append(f"{system.name}, {system.scheme.name}: {agreed} own calls agreed with what is counted here")
        report.save(json_path)
    if missing:
        report.notes.append(f"not installed, left out: {', '.join(missing)}")
    report.finish(json_path)


def _key(scheme: Format, number: int) -> tuple[int, ...]:
    return scheme.draw_key(hashlib.sha256(f"audit {scheme.name} {number}".encode()).digest())


if __name__ == "__main__":
    main()
