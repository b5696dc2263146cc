"""Marked documents hidden in a corpus of clean text: how many it takes until the corpus shows the mark.

Two tests of a whole corpus are compared: one exact sum over its distinct tuples under all sub-keys, and the best
p-value of its documents, paid for by their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.common import Floats
from detect.keyed.scoring import totals
from detect.laws import tails
from detect.text.distinct import I64, Tuples, distinct_tuples
from detect.text.encode import Encoder
from detect.text.natural_text import natural_documents
from watermark.keys import SecretKey
from watermark.laws import Exponential
from watermark.prf import U32
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

LEVELS = (1e-3, 1e-6)
CLEAN_KINDS = ("prose", "code", "licences", "languages")
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)  # of marked documents in a corpus
OFTEN = (0.5, 0.95)


@dataclass(frozen=True)
class Mixture:
    """A corpus in which each marked document is followed by its share of clean ones, all of one length.

    Attributes
    ----------
    tuples
        Distinct over the corpus, in order of first occurrence, none across two documents.
    group
        Which marked document each tuple stood with, (n,): the first k groups are the corpus with k marked documents.
    groups
        How many there are.
    """

    tuples: Tuples
    group: I64
    groups: int

    @classmethod
    def draw(
        cls, marked: Sequence[U32], clean: U32, clean_each: int, width: int, nobody: int, generator: np.random.Generator
    ) -> Mixture:
        """Put documents in random order.

        Parameters
        ----------
        marked
            Ids of the marked documents; longer ones are cut to the length of clean ones.
        clean
            Shape (documents, tokens). A pool that is used up is used again with other ids for the same tokens: to
            the test that is new text, with the repetitions of the old.
        clean_each
            Clean documents for each marked one.
        width
            Of the contexts.
        nobody
            An id that stands for no token, and between documents.
        generator
            Chooses order and ids.
        """
        length = clean.shape[1]
        rows = np.full((len(marked), clean_each + 1, width + length), nobody, dtype=np.uint32)
        for place, number in enumerate(generator.permutation(len(marked))):
            ids = marked[int(number)][:length]
            rows[place, 0, width : width + len(ids)] = ids
        needed = len(marked) * clean_each
        pool = rows[:, 1:, width:]
        places = np.arange(needed)
        for start in range(0, needed, len(clean)):
            part = places[start : start + len(clean)]
            names = generator.permutation(nobody).astype(np.uint32)
            chosen = generator.permutation(len(clean))[: len(part)]
            pool[part // clean_each, part % clean_each] = names[clean[chosen]]
        tuples = distinct_tuples(rows.reshape(-1), width)
        unknown = tuples.sequence == nobody
        within = np.ones(len(tuples), dtype=bool)
        for back in range(width + 1):
            within &= ~unknown[tuples.index - back]
        tuples = tuples.take(within)
        return cls(tuples, tuples.index // rows[0].size, len(marked))

    def beginning(self, groups: int) -> Mixture:
        """The corpus that is its first groups."""
        kept = min(groups, self.groups)
        return Mixture(self.tuples.take(self.group < kept), self.group[self.group < kept], kept)

    def log10_p(self, spec: WatermarkSpec, key: SecretKey, counts: Sequence[int]) -> Floats:
        """Pooled p-values of the corpora that are the first ``counts`` groups."""
        scheme = spec.build_scheme()
        bounds = np.searchsorted(self.group, np.arange(self.groups + 1))
        spans = [self.tuples.take(slice(low, high)) for low, high in pairwise(bounds.tolist())]
        sums = np.cumsum([int(totals(scheme, _subkeys(spec, key), span).sum()) for span in spans])
        return np.array([_pooled(spec, int(bounds[k]), sums[k - 1 : k])[0] for k in counts])

    def null_log10_p(self, spec: WatermarkSpec, keys: Sequence[SecretKey]) -> Floats:
        """Pooled p-values of all of it under keys that marked none of it."""
        tried = [own for key in keys for own in _subkeys(spec, key)]
        sums = totals(spec.build_scheme(), tried, self.tuples).reshape(len(keys), spec.subkeys).sum(axis=1)
        return _pooled(spec, len(self.tuples), sums)


def _subkeys(spec: WatermarkSpec, key: SecretKey) -> list[SecretKey]:
    return [subkey(key, index) for index in range(spec.subkeys)]


def _pooled(spec: WatermarkSpec, tuples: int, sums: I64) -> Floats:
    """Exact log10 p-values of sums over tuples and sub-keys, which are independent draws of one law."""
    scheme = spec.build_scheme()
    worth = sums * scheme.unit if isinstance(scheme.law, Exponential) else sums
    return tails.log10_sf_many(scheme.law, spec.subkeys * tuples, worth)


def clean_text(encoder: Encoder, length: int, limit: int | None) -> U32:
    """Natural text of several kinds in pieces of one length, (documents, length)."""
    kinds = CLEAN_KINDS if limit is None else CLEAN_KINDS[:1]
    texts = [text for kind in kinds for _, text in natural_documents(kind, limit)]
    pieces = [ids[: len(ids) // length * length].reshape(-1, length) for ids in encoder.encode_batch(texts)]
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Hiding:
    """What is hidden where.

    Attributes
    ----------
    marked
        Ids of marked documents.
    log10_ps
        Their own p-values, sub-keys paid for, shape (len(marked),).
    clean
        Ids of clean documents, shape (documents, tokens).
    counts
        Numbers of marked documents to try; larger ones than there are fall away.
    draws
        Corpora of each composition.
    """

    marked: list[U32]
    log10_ps: Floats
    clean: U32
    counts: Sequence[int] = COUNTS
    draws: int = 20

    def rows(
        self, spec: WatermarkSpec, key: SecretKey, share: float, null_keys: Sequence[SecretKey]
    ) -> list[dict[str, Any]]:
        """How many marked documents it takes when a share of the documents is clean; one row for each test."""
        each = round(1 / (1 - share)) - 1
        counts = [k for k in self.counts if k <= len(self.marked)]
        curves, null = [], np.empty(0)
        for draw in range(self.draws):
            generator = np.random.default_rng([draw, each])
            mixture = Mixture.draw(self.marked, self.clean, each, spec.context_width, spec.vocabulary_size, generator)
            curves.append(mixture.log10_p(spec, key, counts))
            if draw == 0 and len(null_keys):
                null = mixture.beginning(8).null_log10_p(spec, null_keys)
        return [self._pooled(share, counts, np.array(curves), null), self._best(share)]

    def _pooled(self, share: float, counts: Sequence[int], curves: Floats, null: Floats) -> dict[str, Any]:
        row: dict[str, Any] = {"clean": f"{share:.1%}", "test": "pooled"}
        last = float(np.median(curves[:, -1]))
        for level in LEVELS:
            for often in OFTEN:
                enough = np.mean(curves <= math.log10(level), axis=0) >= often
                row[_name(often, level)] = _first(counts, enough, len(self.marked))
            short = last > math.log10(level)
            row[f"expected {level:g}"] = _extrapolated(counts[-1], last, level) if short else None
        row["log10 p of all"] = last
        row["false / n"] = f"{int(np.sum(null <= math.log10(LEVELS[0])))} / {len(null):,}" if len(null) else None
        return row

    def _best(self, share: float) -> dict[str, Any]:
        row: dict[str, Any] = {"clean": f"{share:.1%}", "test": "best document"}
        counts = range(1, 1 + len(self.marked))
        for level in LEVELS:
            chances = np.array([_best_found(self.log10_ps, k, share, level) for k in counts])
            for often in OFTEN:
                row[_name(often, level)] = _first(counts, chances >= often, len(self.marked))
        return row


def _name(often: float, level: float) -> str:
    return f"{often:.0%} at p<={level:g}"


def _first(counts: Sequence[int], enough: Any, most: int) -> int | str:
    """The smallest count from which on it is always enough."""
    short = np.flatnonzero(~np.asarray(enough))
    after = short[-1] + 1 if len(short) else 0
    return counts[after] if after < len(counts) else f"> {most}"


def _best_found(log10_ps: Floats, k: int, share: float, level: float) -> float:
    """Chance that one of k marked documents has a p-value that pays for all documents of the corpus."""
    log10_documents = math.log10(k / (1 - share))
    return 1 - (1 - float(np.mean(log10_ps + log10_documents <= math.log10(level)))) ** k


def _extrapolated(count: int, log10_p: float, level: float) -> int | None:
    """Documents at which the median p-value would reach a level: the pooled z grows with their square root."""
    z = float(norm.isf(10**log10_p))
    return math.ceil(count * (float(norm.isf(level)) / z) ** 2) if z > 0 else None
