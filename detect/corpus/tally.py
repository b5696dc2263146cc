"""Tallies of tested keys: integer sums that merge in any order, so that no grouping of work changes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detect.corpus.work import new_file
from detect.text.distinct import I64

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tally:
    """What a part of the corpus adds to the corpus' tests; a commutative monoid under `merged`.

    Attributes
    ----------
    tuples, documents
        For each key (K,): tuples of its contexts, and documents that own some of them.
    totals
        Sums of their statistics, (K, S) for S sub-keys, in integer units. 2^24 units a nat leave room for 10^11 tuples.
    smallest
        The smallest log10 p-values of documents under each key, (K, m) ascending, padded with 0.
    histogram
        Statistics of the first key's tuples under all its sub-keys, in the bins of `detect.corpus.bins`, (B,).
    decoy_tuples
        How many tuples the decoys were run on, shape (1,).
    decoy_totals
        Their sums, (D, S).
    sampled_totals
        The true keys' sums over the same tuples, (K, S), for formats whose p-values are ranks among decoys; else 0.
    """

    tuples: I64
    documents: I64
    totals: I64
    smallest: Floats
    histogram: I64
    decoy_tuples: I64
    decoy_totals: I64
    sampled_totals: I64

    def merged(self, other: Tally) -> Tally:
        """Both parts together."""
        smallest = np.sort(np.concatenate([self.smallest, other.smallest], axis=1), axis=1)
        return Tally(
            tuples=self.tuples + other.tuples,
            documents=self.documents + other.documents,
            totals=self.totals + other.totals,
            smallest=smallest[:, : max(self.smallest.shape[1], other.smallest.shape[1])],
            histogram=self.histogram + other.histogram,
            decoy_tuples=self.decoy_tuples + other.decoy_tuples,
            decoy_totals=self.decoy_totals + other.decoy_totals,
            sampled_totals=self.sampled_totals + other.sampled_totals,
        )


def empty_tally(keys: int, subkeys: int, decoys: int, kept: int, bins: int) -> Tally:
    """The tally of nothing: merging it changes nothing."""
    return Tally(
        tuples=np.zeros(keys, np.int64),
        documents=np.zeros(keys, np.int64),
        totals=np.zeros((keys, subkeys), np.int64),
        smallest=np.zeros((keys, kept)),
        histogram=np.zeros(bins, np.int64),
        decoy_tuples=np.zeros(1, np.int64),
        decoy_totals=np.zeros((decoys, subkeys), np.int64),
        sampled_totals=np.zeros((keys, subkeys), np.int64),
    )


def merge(tallies: Iterable[Tally], nothing: Tally) -> Tally:
    """All parts together."""
    return reduce(Tally.merged, tallies, nothing)


@dataclass(frozen=True, eq=False)
class Documents:
    """Results of documents one by one, in the corpus's order; every array has a row for each.

    Attributes
    ----------
    records
        Record number within the shard.
    tokens
        Length.
    tuples
        Distinct tuples that no earlier document has.
    key
        Index of the key with the smallest p-value.
    key_tuples, totals
        That key's tuples, and its total for each sub-key (n, S).
    log10_pvalue
        Over all keys and sub-keys; 0 for a document without tuples.
    log10_segment
        That key's p-value of its most marked stretch, of long documents; NaN of others.
    log10_evalue
        Mean of all keys' and sub-keys' e-values.
    first_tuples, first_excess
        Of the first key (the global one, where there is one): its tuples, and its sub-keys' totals less expectation.
    null_log10_pvalue
        Under one decoy key.
    """

    records: I64
    tokens: I64
    tuples: I64
    key: npt.NDArray[np.int32]
    key_tuples: I64
    totals: I64
    log10_pvalue: Floats
    log10_segment: Floats
    log10_evalue: Floats
    first_tuples: I64
    first_excess: Floats
    null_log10_pvalue: Floats

    def __len__(self) -> int:
        return len(self.records)


def joined(parts: Sequence[Documents], subkeys: int) -> Documents:
    """The documents of all parts, in order."""
    if not parts:
        return no_documents(subkeys)
    return Documents(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Documents)})


def no_documents(subkeys: int) -> Documents:
    """The results of no documents."""
    none, real = np.empty(0, np.int64), np.empty(0)
    wide = np.empty((0, subkeys), np.int64)
    return Documents(none, none, none, none.astype(np.int32), none, wide, real, real, real, none, real, real)


def write_scores(path: Path, tally: Tally, documents: Documents) -> None:
    """Keep both in one file, whole or not at all."""
    arrays = {f"tally.{f.name}": getattr(tally, f.name) for f in fields(tally)}
    arrays |= {f"documents.{f.name}": getattr(documents, f.name) for f in fields(documents)}
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_tally(path: Path) -> Tally:
    """The tally that `write_scores` kept."""
    with np.load(path) as arrays:
        return Tally(**{f.name: arrays[f"tally.{f.name}"] for f in fields(Tally)})


def read_documents(path: Path) -> Documents:
    """The documents that `write_scores` kept."""
    with np.load(path) as arrays:
        return Documents(**{f.name: arrays[f"documents.{f.name}"] for f in fields(Documents)})
