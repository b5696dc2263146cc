"""Third step of a scan: the statistics of a block's own tuples under all keys, for each document and in total.

A tuple is scored once for each key and sub-key, and only here do keys come in: what was gathered and settled serves any
number of them. A document's tests are done as soon as its block is scored, so nothing of the size of documents times
keys is ever kept. Of a foreign format whose words are no match for its law, documents are tested as
`detect.corpus.foreign` says, and the corpus by the ranks of the true keys' totals among decoys' on a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from detect.corpus import foreign, rare
from detect.corpus.bins import StatisticBins
from detect.corpus.gather import Block
from detect.corpus.segments import log10_segment_pvalues
from detect.corpus.settings import ScanSettings
from detect.corpus.tally import Documents, Floats, Tally, empty_tally
from detect.keyed.batch import CHUNK, Batch, Rows, TestedKey, add_by_row, document_sums
from detect.keyed.calibration import method_of
from detect.keyed.owners import owned
from detect.keyed.rings import KeySet, decoy_keys
from detect.keyed.scoring import as_drawn, statistics_of
from detect.keyed.words import Source
from detect.laws.evalues import calibrated_log10, log10_evalues, moments
from detect.laws.multiplicity import sidak_rows_log10
from detect.laws.tails import log10_sf_pairs
from detect.text.distinct import I64, U64, Mask, Tuples, once
from watermark.keys import MarkingKey
from watermark.laws import Bernoulli, Exponential, Hypoexponential, Law, WeightedBits
from watermark.schemes.protocol import Scheme

_SUMS = 1 << 23  # sums of documents under keys that are held at a time
LONG = 1000
"""Tuples of a document from which on its stretches are tested as well: a mark in a part of it would drown."""
DECOY_TUPLES = 1 << 16
"""Tuples on which decoys are run; of more, a sample by fingerprint."""


def score_block(
    block: Block, first: Mask, prints: U64, distinct: int, keys: KeySet, settings: ScanSettings
) -> tuple[Tally, Documents]:
    """Score the tuples that stand for the first time in this block.

    Parameters
    ----------
    block
        Token ids and documents.
    first, prints
        Mask of those tuples and all fingerprints, as `detect.corpus.gather.in_reading_order` gives them.
    distinct
        Tuples distinct in the whole corpus, which sets the decoys' share of them.
    keys, settings
        What to test.
    """
    width = keys.specs[0].context_width
    index = np.flatnonzero(first)
    tuples = Tuples(block.ids, width, index, once(len(index)), 0)
    rows = block.document_of_token[index]
    best = _Best.nothing(block.documents, keys)
    score = _score_keys if method_of(keys.schemes[0]) == "law" else partial(_score_foreign, settings)
    parts = [score(tuples, rows, block.documents, keys, group, best) for group in _groups(keys, block.documents)]
    decoys = decoy_keys(settings.decoy_seed, settings.decoys + 1, keys.specs[0])
    sampled = prints[index] < np.uint64(min(2**64 - 1, DECOY_TUPLES * 2**64 // max(1, distinct)))
    scheme = keys.schemes[0]
    own = np.bincount(rows, minlength=block.documents)
    tally = Tally(
        tuples=np.concatenate([part[0] for part in parts]),
        documents=np.concatenate([part[1] for part in parts]),
        totals=np.concatenate([part[2] for part in parts]),
        smallest=np.concatenate([part[3] for part in parts]),
        histogram=best.histogram,
        decoy_tuples=np.array([sampled.sum()]),
        decoy_totals=_decoy_totals(tuples.take(sampled), scheme, decoys[:-1], keys.subkeys),
        sampled_totals=_sampled_totals(tuples.take(sampled), keys),
    )
    owned = np.diff(block.offsets)
    documents = Documents(
        records=block.records,
        tokens=np.bincount(block.document, weights=owned, minlength=block.documents).astype(np.int64),
        tuples=own,
        key=best.key,
        key_tuples=best.tuples,
        totals=best.totals,
        log10_pvalue=np.minimum(best.log10_p + np.log10(len(keys.keys)), 0.0),
        log10_segment=best.log10_segment,
        log10_evalue=best.log10_e - np.log10(len(keys.keys)),
        first_tuples=best.first_tuples,
        first_excess=best.first_excess,
        null_log10_pvalue=_null_log10_pvalues(tuples, rows, own, keys, decoys[-1][0], settings),
    )
    return tally, documents


def unscored(keys: KeySet, settings: ScanSettings) -> Tally:
    """The tally that scored blocks are merged into."""
    return empty_tally(len(keys.keys), keys.subkeys, settings.decoys, 0, statistic_bins(keys).count)


def _groups(keys: KeySet, documents: int) -> Iterator[Sequence[TestedKey]]:
    """Keys of one spec, as many at a time as their sums fit the memory set aside."""
    size = max(1, _SUMS // max(1, documents * keys.subkeys))
    for spec in range(len(keys.specs)):
        mine = [key for key in keys.keys if key.spec == spec]
        for start in range(0, len(mine), size):
            yield mine[start : start + size]


@dataclass(eq=False)
class _Best:
    """The best key of each document so far."""

    done: int
    log10_p: Floats
    log10_e: Floats
    key: Rows
    tuples: I64
    totals: I64
    log10_segment: Floats
    first_tuples: I64
    first_excess: Floats
    histogram: I64

    @classmethod
    def nothing(cls, documents: int, keys: KeySet) -> _Best:
        return cls(
            done=0,
            log10_p=np.zeros(documents),
            log10_e=np.full(documents, -np.inf),
            key=np.zeros(documents, np.int32),
            tuples=np.zeros(documents, np.int64),
            totals=np.zeros((documents, keys.subkeys), np.int64),
            log10_segment=np.full(documents, np.nan),
            first_tuples=np.zeros(documents, np.int64),
            first_excess=np.zeros(documents),
            histogram=np.zeros(statistic_bins(keys).count, np.int64),
        )

    def add(self, scheme: Scheme, tuples: I64, totals: I64, segment: Floats, log10_p: Floats, log10_e: Floats) -> None:
        """Compare the next key: tuples (n,), totals (S, n), segments' and documents' p-values and e-values (n,)."""
        better = (log10_p < self.log10_p) | (self.done == 0)
        self.key[better] = self.done
        self.tuples[better] = tuples[better]
        self.totals[better] = 0
        self.totals[better, : len(totals)] = totals.T[better]
        self.log10_segment[better] = segment[better]
        self.log10_p[better] = log10_p[better]
        self.log10_e = np.logaddexp(self.log10_e * np.log(10), log10_e * np.log(10)) / np.log(10)
        if self.done == 0:
            self.first_tuples = tuples
            self.first_excess = totals.sum(axis=0) - tuples * (len(totals) * expectation(scheme))
        self.done += 1


def _score_keys(
    tuples: Tuples, rows: Rows, documents: int, keys: KeySet, group: Sequence[TestedKey], best: _Best
) -> tuple[I64, I64, I64, Floats]:
    """Tuples, documents, totals and smallest p-values of a group of keys of one spec."""
    number = group[0].spec
    spec, scheme = keys.specs[number], keys.schemes[number]
    bins = statistic_bins(keys)

    def seen(key: TestedKey, statistics: I64) -> None:
        if key is keys.keys[0]:
            bins.add(statistics, best.histogram)

    counts, sums = document_sums(Batch(tuples, rows, documents), spec, scheme, keys.selectors[number], group, seen)
    long = {owner: counts[owner] >= LONG for owner in counts}
    smallest = np.zeros((len(group), rare.KEPT))
    totals = np.zeros((len(group), keys.subkeys), np.int64)
    totals[:, : spec.subkeys] = sums.sum(axis=2)
    for number, key in enumerate(group):
        own = counts[key.name.is_global]
        log10_ps, log10_es = document_tests(scheme, own, sums[number])
        segment = np.full(documents, np.nan)
        if long[key.name.is_global].any():
            segment = _segments(tuples, rows, key, keys, long[key.name.is_global])
            log10_ps = with_segments(log10_ps, segment)
        best.add(scheme, own, sums[number], segment, log10_ps, log10_es)
        ranked = np.sort(log10_ps[own > 0])[: rare.KEPT]
        smallest[number, : len(ranked)] = ranked
    owned = [counts[key.name.is_global] for key in group]
    return (
        np.array([own.sum() for own in owned]),
        np.array([(own > 0).sum() for own in owned]),
        totals,
        smallest,
    )


def _segments(tuples: Tuples, rows: Rows, key: TestedKey, keys: KeySet, long: Mask) -> Floats:
    """Each long document's log10 p-value of its most marked stretch under any sub-key; NaN for the others."""
    spec, scheme = keys.specs[key.spec], keys.schemes[key.spec]
    part, where = tuples.take(long[rows]), rows[long[rows]]
    mine = owned(spec, keys.selectors[key.spec], part)[key.name.is_global]
    part, where = part.take(mine), where[mine]
    numbers = np.flatnonzero(long)
    offsets = np.searchsorted(where, np.append(numbers, len(long))).astype(np.int64)
    rounds = [
        log10_segment_pvalues(scheme.law, scheme.unit, statistics_of(scheme, sub, part), offsets) for sub in key.subkeys
    ]
    found = np.full(len(long), np.nan)
    found[numbers] = sidak_rows_log10(np.array(rounds))
    return found


def with_segments(log10_ps: Floats, segments: Floats) -> Floats:
    """The whole document's p-value and its most marked stretch's, where there is one, as one: twice the smaller."""
    both = np.minimum(np.fmin(log10_ps, segments) + np.log10(2), 0.0)
    return np.where(np.isnan(segments), log10_ps, both)


def statistic_bins(keys: KeySet) -> StatisticBins:
    """Bins of the first key's statistics."""
    scheme = keys.schemes[keys.keys[0].spec]
    return StatisticBins.of_law(scheme.law, scheme.unit)


def document_tests(scheme: Scheme, tuples: I64, totals: I64) -> tuple[Floats, Floats]:
    """Each document's log10 p-value and log10 e-value under one key.

    Parameters
    ----------
    scheme
        Its law and unit.
    tuples
        Shape (n,).
    totals
        Under each sub-key, shape (S, n).
    """
    flat, owned = as_drawn(scheme, totals).ravel(), np.tile(tuples, len(totals))
    log10_ps = log10_sf_pairs(scheme.law, owned, flat).reshape(totals.shape)
    log10_es = log10_evalues(scheme.law, owned, flat).reshape(totals.shape)
    mean = np.logaddexp.reduce(log10_es * np.log(10), axis=0) / np.log(10) - np.log10(len(totals))
    return sidak_rows_log10(log10_ps), mean


def expectation(scheme: Scheme) -> float:
    """Mean of one tuple's statistic without the key, in integer units."""
    law: Law = scheme.law
    if isinstance(law, Exponential | Hypoexponential):
        return moments(law)[0] / scheme.unit
    if isinstance(law, Bernoulli):
        return law.gamma
    if isinstance(law, WeightedBits):
        return sum(law.weights) / 2
    return float(np.dot(law.values, law.probabilities))


def _null_log10_pvalues(
    tuples: Tuples, rows: Rows, own: I64, keys: KeySet, key: MarkingKey, settings: ScanSettings
) -> Floats:
    """Each document's log10 p-value under a key that nobody used."""
    scheme = keys.schemes[0]
    if method_of(scheme) != "law":
        return foreign.test_documents(tuples, rows, len(own), keys.specs[0], key, settings, stages=1).log10_pvalue
    sums = np.zeros(len(own), np.int64)
    for chunk, places in Batch(tuples, rows, len(own)).chunks():
        add_by_row(statistics_of(scheme, key, chunk), places, sums)
    return log10_sf_pairs(scheme.law, own, as_drawn(scheme, sums))


def _decoy_totals(tuples: Tuples, scheme: Scheme, decoys: Sequence[Sequence[MarkingKey]], subkeys: int) -> I64:
    totals = np.zeros((len(decoys), subkeys), np.int64)
    for start in range(0, len(tuples), CHUNK):
        source = Source.of(scheme, tuples.take(slice(start, start + CHUNK)))
        for number, decoy in enumerate(decoys):
            for s, sub in enumerate(decoy):
                totals[number, s] += scheme.statistic(source.under(sub)).sum()
    return totals


def _sampled_totals(tuples: Tuples, keys: KeySet) -> I64:
    """The true keys' sums over the tuples that decoys are run on, where those decide; else 0."""
    if method_of(keys.schemes[0]) == "law":
        return np.zeros((len(keys.keys), keys.subkeys), np.int64)
    parts = [_decoy_totals(tuples, keys.schemes[key.spec], [key.subkeys], keys.subkeys) for key in keys.keys]
    return np.concatenate(parts)


def _score_foreign(
    settings: ScanSettings,
    tuples: Tuples,
    rows: Rows,
    documents: int,
    keys: KeySet,
    group: Sequence[TestedKey],
    best: _Best,
) -> tuple[I64, I64, I64, Floats]:
    """`_score_keys` of a foreign format that is not exact; each spec of it has one key, which marks every context."""
    counted, owners, totals, smallest = [], [], [], np.zeros((len(group), rare.KEPT))
    for number, key in enumerate(group):
        spec, scheme = keys.specs[key.spec], keys.schemes[key.spec]
        found = foreign.test_documents(tuples, rows, documents, spec, key.subkeys[0], settings)
        sums = np.zeros((keys.subkeys, documents), np.int64)
        sums[0] = found.totals
        nowhere = np.full(documents, np.nan)
        log10_es = calibrated_log10(found.log10_pvalue)
        best.add(scheme, found.tuples, sums, nowhere, found.log10_pvalue, log10_es)
        ranked = np.sort(found.log10_pvalue[found.tuples > 0])[: rare.KEPT]
        smallest[number, : len(ranked)] = ranked
        counted.append(found.tuples.sum())
        owners.append((found.tuples > 0).sum())
        totals.append(sums.sum(axis=1))
    return np.array(counted), np.array(owners), np.array(totals), smallest
