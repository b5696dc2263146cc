"""The open-weights half of the experiment: students read, and each readout is tested on the same predictions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.common import Floats
from benchmarks.distillation.published import reading_mode, under
from benchmarks.distillation.suspects import Suspect, Suspects
from benchmarks.distillation.teacher import ALL_PROMPTS, Mark, Teacher, owner_key
from detect.models.forward import Model, Predictions, Predictor, candidates, predictions
from detect.models.reading import (
    NO_SUBKEY,
    Positions,
    ReadingText,
    context_at,
    positions,
    read_text,
    served_subkeys,
)
from detect.models.seen import model_hash
from detect.student.verdict.hypothesis import WeightedTest
from detect.student.verdict.score import TraceScore
from detect.student.verdict.weights import WeightedTuples, gathered, gathered_served, readout
from watermark.generate import Answer
from watermark.keys import KeyRing, SecretKey
from watermark.models.folder import load_model
from watermark.models.tokenizer import tokenizer_fingerprint

I64 = npt.NDArray[np.int64]

TARGET = -10.0
Z_AT_TARGET = 6.361  # of the normal law at that log10 p
PUBLISHED = "argmax (published)"
BASE, OTHER = "reference: base", "reference: Gemma"
_CLEAR = 2.0  # a smaller z says little about the contexts that are needed
_UPPER = 1.645


@dataclass(frozen=True, eq=False)
class Text:
    """What suspects read: documents, positions that count, and, for held-out text, what was served of each context.

    Attributes
    ----------
    name
        "served" or "held out".
    served
        Of each context that was served, in how many answers under each sub-key; None for the served answers themselves.
    """

    name: str
    text: ReadingText
    where: Positions
    contexts: npt.NDArray[np.uint32]
    subkeys: I64
    served: Mapping[int, Mapping[int, int]] | None = None

    def first(self, documents: int) -> npt.NDArray[np.bool_]:
        """Which positions stand in the first so many documents."""
        return np.asarray(self.where.document < documents)


@dataclass(frozen=True, eq=False)
class Weighed:
    """A readout on one text: weighted tuples and their name."""

    readout: str
    tuples: WeightedTuples


@dataclass(frozen=True)
class Found:
    """What a test says."""

    contexts: int
    z: float
    log10_p: float
    log10_e: float

    @property
    def needed(self) -> float | None:
        """Contexts (or queries) to `TARGET`: z grows like the square root of their number. None where z is noise."""
        return self.contexts * (Z_AT_TARGET / self.z) ** 2 if self.z >= _CLEAR else None

    @property
    def at_least(self) -> float:
        """The same, or a lower bound where z is noise: from the upper end of its 90% interval."""
        return self.contexts * (Z_AT_TARGET / (self.z if self.z >= _CLEAR else max(self.z, 0) + _UPPER)) ** 2


@dataclass(eq=False)
class Bench:
    """Students, what they read and what they predict; all of it kept.

    Attributes
    ----------
    contexts
        Most contexts of a text.
    held_out
        How many unmarked answers to other prompts.
    attackers_answers
        How many the one who neutralises reads.
    other
        Folder of a model of another family that serves as reference.
    """

    suspects: Suspects
    contexts: int
    held_out: int
    attackers_answers: int
    other: Path | None = None
    loaded: dict[tuple[Path, int], Predictor] = field(default_factory=dict)

    @property
    def teacher(self) -> Teacher:
        """Whose spec and keys are used."""
        return self.suspects.teacher

    def test(self, mark: Mark, tuples: WeightedTuples) -> WeightedTest:
        """The exact test of weighted tuples."""
        spec = self.teacher.spec(mark)
        return WeightedTest(TraceScore.of(spec.build_scheme()), tuples, spec.subkeys)

    def found(self, mark: Mark, tuples: WeightedTuples, key: SecretKey | None = None) -> Found:
        """Test under the owner's key, or another."""
        test = self.test(mark, tuples)
        if not len(tuples):
            return Found(len(tuples.contexts), 0.0, 0.0, 0.0)
        total = int(test.totals([key or self.teacher.key])[0])
        return Found(
            len(tuples.contexts), test.z(total), float(test.log10_pvalues([total])[0]), test.log10_evalue(total)
        )

    @cache  # noqa: B019 (a bench lives as long as the run)
    def served(self, mark: Mark, answers: int) -> Text:
        """The served answers of a mark."""
        found = self.teacher.answers(mark, answers)
        return self._text("served", mark, self.teacher.file(found, f"{mark.scheme}{mark.width}"))

    def held_out_for(self, suspect: Suspect) -> Text:
        """Unmarked answers to prompts of which no student saw answers; contexts are weighed by what was served."""
        text = self._held_out(suspect.mark)
        path = self._file(self.suspects.served(suspect), "served")
        documents = read_text(path, self.teacher.spec(suspect.mark), self.teacher.encoder).documents
        return replace(text, served=served_subkeys(documents, suspect.mark.width))

    @cache  # noqa: B019
    def _held_out(self, mark: Mark) -> Text:
        answers = self.teacher.answers(None, self.held_out, ALL_PROMPTS - self.held_out)
        return self._text("held out", mark, self.teacher.file(answers, "held-out"))

    @cache  # noqa: B019
    def attackers(self, mark: Mark) -> Text:
        """Text of the one who neutralises: unmarked answers of which students may have seen some."""
        answers = self.teacher.answers(None, self.attackers_answers)
        return self._text("attacker's", mark, self.teacher.file(answers, "attacker"))

    def _file(self, answers: Sequence[Answer], name: str) -> str:
        return str(self.teacher.file(answers, name))

    def _text(self, name: str, mark: Mark, path: Path) -> Text:
        text = read_text(str(path), self.teacher.spec(mark), self.teacher.encoder)
        where = positions(text, mark.width, self.contexts)
        subkeys = np.array([text.documents[i].subkey for i in where.document.tolist()], dtype=np.int64)
        return Text(name, text, where, context_at(text.documents, where, mark.width), subkeys)

    def predictions(self, folder: Path, of: Text) -> Predictions:
        """What a model predicts at the positions of a text."""
        width = of.contexts.shape[1]
        settings = f"{_hash(folder)} bfloat16 {_fingerprint(self.teacher.folder)} {width}"
        name = hashlib.sha256(settings.encode()).hexdigest()

        def shown(done: int, total: int) -> None:
            if (folder, width) in self.loaded:
                click.echo(f"{folder.name} reads {of.name}: {done} of {total} positions", err=True)

        return predictions(
            lambda: self._load(folder, width), name, of.text, of.where, self.suspects.keep / "predictions", shown
        )

    def _load(self, folder: Path, width: int) -> Predictor:
        if (folder, width) not in self.loaded:
            self.loaded.clear()  # one at a time
            network, tokenizer = load_model(folder)
            network.to(self.teacher.device)
            vocabulary = self.teacher.spec(Mark("gumbel", 2)).vocabulary_size
            if _fingerprint(folder) == _fingerprint(self.teacher.folder):
                self.loaded[folder, width] = Model(network, vocabulary)
            else:
                from detect.models.alignment import AlignedModel

                model = AlignedModel(network, tokenizer, self.teacher.tokenizer, vocabulary, width)
                self.loaded[folder, width] = model
        return self.loaded[folder, width]


@cache
def _hash(folder: Path) -> str:
    return model_hash(folder)


@cache
def _fingerprint(folder: Path) -> str:
    return tokenizer_fingerprint(str(folder))


@dataclass(frozen=True, eq=False)
class Seen:
    """A suspect's and references' probabilities of the same candidates at some positions of a text.

    Attributes
    ----------
    chosen
        Which of the text's positions, shape (n,) bool.
    ids, suspect
        Candidates and the suspect's probabilities, both (k, m) for the k chosen.
    references
        By readout name, (k, m).
    likeliest
        The suspect's first choice, (k,).
    """

    text: Text
    chosen: npt.NDArray[np.bool_]
    ids: I64
    suspect: Floats
    references: dict[str, Floats]
    likeliest: I64

    @classmethod
    def of(cls, bench: Bench, suspect: Suspect, text: Text, documents: int | None = None) -> Seen:
        """Let the suspect, its base and models of another family read."""
        mine = bench.predictions(bench.suspects.folder(suspect), text)
        others = {BASE: bench.predictions(bench.suspects.base(suspect), text)}
        if bench.other is not None and suspect.kind != "Gemma":
            others[OTHER] = bench.predictions(bench.other, text)
        chosen = np.all([mine.known, *(other.known for other in others.values())], axis=0)
        if documents is not None:
            chosen &= text.first(documents)
        vocabulary = bench.teacher.spec(suspect.mark).vocabulary_size
        mine, others = _part(mine, chosen), {name: _part(other, chosen) for name, other in others.items()}
        ids = candidates(mine, list(others.values()))
        beside = {name: other.at(ids, vocabulary) for name, other in others.items()}
        return cls(text, chosen, ids, mine.at(ids, vocabulary), beside, mine.ids[:, 0].astype(np.int64))

    def tuples(self, weights: Floats, known: bool) -> WeightedTuples:
        """Weighted tuples; contexts of held-out text weigh by what was served of them."""
        of = self.text
        if of.served is None:
            groups = of.where.fingerprint[self.chosen].astype(np.int64)
            subkeys = of.subkeys[self.chosen] if known else np.full(len(groups), NO_SUBKEY, dtype=np.int64)
            return gathered(of.contexts[self.chosen], groups, subkeys, self.ids, weights)
        contexts, prints = of.contexts[self.chosen], of.where.fingerprint[self.chosen]
        return gathered_served(contexts, prints, self._counts(known), self.ids, weights, marked=True)

    def published(self, known: bool) -> WeightedTuples:
        """The published test; on held-out text with its filter on served contexts."""
        contexts, prints = self.text.contexts[self.chosen], self.text.where.fingerprint[self.chosen]
        subkeys, likeliest = self.text.subkeys[self.chosen], self.likeliest
        if self.text.served is not None:
            row, subkeys = under(prints, self._counts(known))
            contexts, prints, likeliest = contexts[row], prints[row], likeliest[row]
        elif not known:
            subkeys = np.full(len(prints), NO_SUBKEY, dtype=np.int64)
        return reading_mode(contexts, prints, subkeys, likeliest)

    def _counts(self, known: bool) -> Mapping[int, Mapping[int, int]]:
        """Served counts by context and sub-key, or by context alone."""
        served = self.text.served or {}
        return served if known else {value: {NO_SUBKEY: sum(counts.values())} for value, counts in served.items()}

    def readouts(self, known: bool) -> Iterator[Weighed]:
        """Every readout on the same predictions, the published one first."""
        yield Weighed(PUBLISHED, self.published(known))
        for name, reference in self.references.items():
            yield Weighed(name, self.tuples(readout("reference", self.suspect, reference), known))
        yield Weighed("entropy", self.tuples(readout("entropy", self.suspect, None), known))
        yield Weighed("mass", self.tuples(readout("mass", self.suspect, None), known))


def _part(whole: Predictions, chosen: npt.NDArray[np.bool_]) -> Predictions:
    return Predictions(whole.ids[chosen], whole.probabilities[chosen])


def labels(suspect: Suspect) -> dict[str, Any]:
    """The columns that name a student."""
    return {"scheme": suspect.mark.scheme, "h": suspect.mark.width, "share": suspect.share, "kind": suspect.kind}


def readings(bench: Bench, suspect: Suspect) -> Iterator[tuple[Seen, bool]]:
    """What a suspect read, with the sub-keys known or not."""
    served = bench.served(suspect.mark, suspect.answers)
    seen = Seen.of(bench, suspect, served, suspect.marked or None)
    yield seen, True
    yield seen, False
    held_out = Seen.of(bench, suspect, bench.held_out_for(suspect))
    yield held_out, True
    yield held_out, False


def open_rows(bench: Bench, suspect: Suspect) -> Iterator[dict[str, Any]]:
    """One row for each reading and readout of a suspect."""
    for seen, known in readings(bench, suspect):
        found = {part.readout: bench.found(suspect.mark, part.tuples) for part in seen.readouts(known)}
        published = found[PUBLISHED]
        for name, one in found.items():
            yield {
                **labels(suspect),
                "reading": seen.text.name,
                "sub-keys": "known" if known else "all",
                "readout": name,
                "contexts": one.contexts,
                "z": one.z,
                "log10 p": one.log10_p,
                "log10 e": one.log10_e,
                "to 1e-10": one.needed,
                "times fewer": None if one.needed is None or name == PUBLISHED else published.at_least / one.needed,
                "published seen": published.needed is not None,
            }


def curve(bench: Bench, suspect: Suspect, tuples: WeightedTuples, points: int = 12) -> list[tuple[float, float]]:
    """Log10 p after the first contexts, for more and more of them."""
    whole = len(tuples.contexts)
    counts = np.unique(np.geomspace(min(10, whole), whole, points).astype(int)) if whole else np.empty(0, np.int64)
    return [(float(n), bench.found(suspect.mark, tuples.first(int(n))).log10_p) for n in counts]


def fresh_key_rows(bench: Bench, suspect: Suspect, keys: int) -> Iterator[dict[str, Any]]:
    """P-values of a never-marked student under fresh keys: Kolmogorov and Smirnov's test of uniformity."""
    from scipy.stats import kstest

    random = np.random.default_rng(20240401)
    fresh = [owner_key(KeyRing.from_master(SecretKey(random.bytes(32)))) for _ in range(keys)]
    for seen, known in readings(bench, suspect):
        for part in seen.readouts(known):
            if part.readout not in (PUBLISHED, BASE):
                continue
            test = bench.test(suspect.mark, part.tuples)
            p = 10.0 ** test.log10_pvalues(test.totals(fresh))
            yield {
                **labels(suspect),
                "reading": seen.text.name,
                "sub-keys": "known" if known else "all",
                "readout": part.readout,
                "contexts": len(part.tuples.contexts),
                "keys": keys,
                "KS p": float(kstest(p, "uniform").pvalue),
                "p <= 0.01": float(np.mean(p <= 0.01)),
                "p <= 0.05": float(np.mean(p <= 0.05)),
                "least log10 p": math.log10(max(float(p.min()), 1e-300)),
            }
