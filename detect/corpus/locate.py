"""Fourth step of a scan: the discovered documents once more, to say whose mark it is and where in the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from detect.corpus.gather import Block, in_reading_order, read_block, read_gathered
from detect.corpus.score import document_tests, expectation
from detect.corpus.segments import marked_segments
from detect.corpus.settle import read_kept
from detect.corpus.work import Plan, WorkFolder
from detect.keyed.batch import TestedKey
from detect.keyed.calibration import method_of
from detect.keyed.owners import parted
from detect.keyed.rings import KeySet
from detect.keyed.scoring import counting, statistics_of
from detect.records.scan import Hit, Segment
from detect.text.distinct import I64, Mask, Tuples, once
from detect.text.encode import Encoder
from watermark.formats.protocol import is_exact

STRETCHES = 60  # of a document whose mean score is kept
EXCERPT = 60  # tokens of a document that are quoted
SEGMENT_ALPHA = 0.01
"""Family-wise chance, over one document, that a stretch is called marked that isn't."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """A discovered document: its number in the shard, its ordinal in the corpus, and what its row says."""

    document: int
    ordinal: int
    log10_pvalue: float
    log10_adjusted: float
    log10_evalue: float


def locate_documents(
    work: WorkFolder,
    plan: Plan,
    index: int,
    blocks: Sequence[tuple[int, int]],
    first_record: int,
    keys: KeySet,
    found: Sequence[Discovery],
    encoder: Encoder | None,
    pairs: int,
) -> list[Hit]:
    """Describe the discovered documents of shard number ``index``.

    Parameters
    ----------
    work, plan, keys
        The scan.
    index
        Which shard.
    blocks
        Shard and number of every block of the corpus, in order.
    first_record
        Records of the same input in earlier shards.
    found
        Ascending by document.
    encoder
        Quotes the text; without it nothing is quoted.
    pairs
        Of a tested document and a key in the whole corpus: what pointing to a key pays for.
    """
    shard = plan.shards[index]
    buckets = [work.settled(plan, bucket) for bucket in range(plan.buckets)]
    numbers = [at for at, (owner, _) in enumerate(blocks) if owner == index]
    hits: list[Hit] = []
    before = 0
    for number, info in enumerate(read_gathered(work.gathered(shard)).blocks):
        here = [d for d in found if before <= d.document < before + info.documents]
        if here:
            block = read_block(work.gathered(shard), number)
            kept = read_kept(buckets, numbers[number], len(blocks), block.starts)
            first, _ = in_reading_order(block, plan.specs[0].context_width, kept)
            ends = np.searchsorted(block.document, np.arange(block.documents + 1))
            tokens = block.offsets[ends]
            for discovery in here:
                local = discovery.document - before
                part = _Part(block, local, int(tokens[local]), int(tokens[local + 1]), first)
                hit = _hit(part, discovery, keys, plan, encoder, pairs)
                record = first_record + int(block.records[local]) + 1
                hits.append(msgspec.structs.replace(hit, input=shard.source, record=record))
        before += info.documents
    return hits


@dataclass(frozen=True, eq=False)
class _Part:
    """A document in its block: its number, its tokens from ``start`` to ``stop``, and the mask of first places."""

    block: Block
    number: int
    start: int
    stop: int
    first: Mask


def _hit(part: _Part, discovery: Discovery, keys: KeySet, plan: Plan, encoder: Encoder | None, pairs: int) -> Hit:
    """Describe one document, but for where it was read."""
    block, start, stop = part.block, part.start, part.stop
    index = np.flatnonzero(part.first[start:stop]) + start
    tuples = Tuples(block.ids, plan.specs[0].context_width, index, once(len(index)), 0)
    level = float(np.log10(plan.settings.alpha) - np.log10(pairs))
    best, points_to = _pointing(tuples, keys, level)
    key, mine, subkey, statistics = best
    scheme = keys.schemes[key.spec]
    if not is_exact(scheme):  # what was found of it is not the law's tail, and its choice among keys is paid for
        points_to = [str(key.name)] if discovery.log10_pvalue <= level + np.log10(len(keys.keys)) else []
    positions = mine.index - start
    looks = sum(len(tested.subkeys) for tested in keys.keys)
    quoted = block.ids[start : min(stop, start + EXCERPT)]
    # What hangs together whatever the key may do so in one stretch.
    sound = method_of(scheme) != "ranked"
    stretches = marked_segments(scheme.law, scheme.unit, statistics, SEGMENT_ALPHA, looks) if sound else []
    segments = [
        Segment(start=int(positions[a]), end=int(positions[b - 1]) + 1, log10_pvalue=p) for a, b, p in stretches
    ]
    return Hit(
        ordinal=discovery.ordinal,
        input=-1,
        record=-1,
        id=block.names[part.number] if block.names else None,
        tokens=stop - start,
        tuples=len(index),
        key=str(key.name),
        subkey=subkey,
        score=float(statistics.mean() * scheme.unit),
        expected=expectation(scheme) * scheme.unit,
        log10_pvalue=discovery.log10_pvalue,
        log10_pvalue_adjusted=discovery.log10_adjusted,
        log10_evalue=discovery.log10_evalue if np.isfinite(discovery.log10_evalue) else None,
        points_to=points_to,
        segments=segments,
        scores=_stretches(positions, statistics * scheme.unit, stop - start),
        excerpt="" if encoder is None else encoder.tokenizer.decode(quoted.tolist()),
    )


def pointed_to(log10_ps: ArrayLike, level: float) -> Mask:
    """Which keys a document points to, by its log10 p-value under each (k,): those at or below ``level``.

    With ``level`` log10 of alpha over the number of (document, key) pairs in the corpus, the chance that any document
    points to any key that had no say in it is at most alpha, whoever else marked this document or others (Bonferroni).
    For such a pair the p-value is right whatever the other keys did: accounts' keys, the global key and the selector
    are derived apart, a document's text depends on the words of those that marked it alone, and given text and
    selector the words of this key are as fresh as ever. Of a document that repeats marked text from an earlier one, the
    words that were taken away with the repeats are high ones, so that what is left errs on the safe side.

    All pairs are paid for, and not those of listed documents alone, since a document is listed by the same numbers.
    Family-wise and not by a false-discovery rate, since a document that points to an account accuses somebody, and
    alone; it costs log10 of the pairs, 6.3 for 10^5 documents and 21 keys, where 150 marked tokens give 20 and more.
    """
    return np.asarray(np.asarray(log10_ps, dtype=np.float64) <= level)


def _pointing(tuples: Tuples, keys: KeySet, level: float) -> tuple[tuple[TestedKey, Tuples, int, I64], list[str]]:
    """The key with the smallest p-value (its tuples, sub-key and statistics); all keys that are pointed to."""
    parts = [parted(spec, selector, tuples) for spec, selector in zip(keys.specs, keys.selectors, strict=True)]
    log10_ps, subkeys = [], []
    for key in keys.keys:
        scheme = keys.schemes[key.spec]
        part = counting(scheme, key.subkeys[0], parts[key.spec][key.name.is_global])
        totals = np.array([[statistics_of(scheme, sub, part).sum()] for sub in key.subkeys], dtype=np.int64)
        log10_ps.append(float(document_tests(scheme, np.array([len(part)]), totals)[0][0]))
        subkeys.append(int(totals.argmax()))
    number = int(np.argmin(log10_ps))
    key = keys.keys[number]
    part = counting(keys.schemes[key.spec], key.subkeys[0], parts[key.spec][key.name.is_global])
    statistics = statistics_of(keys.schemes[key.spec], key.subkeys[subkeys[number]], part)
    passed = pointed_to(log10_ps, level)
    names = [str(k.name) for k, yes in zip(keys.keys, passed.tolist(), strict=True) if yes]
    return (key, part, subkeys[number], statistics), names


def _stretches(positions: I64, scores: Any, tokens: int) -> list[float | None]:
    """Mean score of stretches of equal length over the document."""
    count = min(STRETCHES, tokens)
    where = positions * count // tokens
    sums, sizes = np.bincount(where, scores, count), np.bincount(where, minlength=count)
    return [round(float(s / n), 4) if n else None for s, n in zip(sums, sizes, strict=True)]
