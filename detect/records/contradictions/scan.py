"""What the type of a scan's record allows and no scan writes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from detect.records.scan import HISTOGRAM_BINS, Hit, ScanRecord

MOST_SCORES = 60


def contradictions(record: ScanRecord) -> Iterator[str]:
    """Yield them, a few words each."""
    for name, value in (("alpha", record.alpha), ("discoveries.rate", record.discoveries.rate)):
        if not 0 < value < 1:
            yield f"{name} must lie in (0, 1) (got {value})"
    if not record.specs or len(record.specs) != len(record.spec_ids):
        yield f"{len(record.specs)} specs but {len(record.spec_ids)} spec_ids"
    for where, log10_ps in _pvalues(record):
        if not all(log10_p <= 0 for log10_p in log10_ps):
            yield f"log10 p-values of {where} must be 0 or less (got {log10_ps})"
    for i, hypothesis in enumerate(record.hypotheses):
        if not 0 <= hypothesis.spec < len(record.specs):
            yield f"hypotheses[{i}].spec is {hypothesis.spec}, but there are {len(record.specs)} specs"
        if sorted(hypothesis.smallest_log10_pvalues) != hypothesis.smallest_log10_pvalues:
            yield f"hypotheses[{i}].smallest_log10_pvalues must ascend"
    if (record.log10_pvalue is None) != (record.refused is not None):
        yield "it must have either a p-value or a reason why it has none"
    if record.found and record.log10_pvalue is None:
        yield "the mark is found, but there is no p-value"
    controls = record.controls
    histograms = [
        ("histogram", record.histogram),
        ("controls.null_key_histogram", controls.null_key_histogram),
        ("controls.null_corpus_histogram", controls.null_corpus_histogram),
    ]
    for where, bins in histograms:
        if len(bins) not in (0, HISTOGRAM_BINS) or min(bins, default=0) < 0:
            yield f"{where} must have {HISTOGRAM_BINS} counts or none (got {bins})"
    for where, share in (("documents", record.shares.documents), ("tokens", record.shares.tokens)):
        if not share.is_sound:
            yield f"shares.{where} must be an interval within 0 .. 1 with its estimate in it"
    if not record.quotes and any(hit.excerpt or hit.id is not None for hit in record.hits):
        yield "it quotes nothing, and yet a listed document has an excerpt or an id"
    for i, source in enumerate(record.inputs):
        seen = [*((c.records, c.characters) for c in source.columns), *((t.count, t.characters) for t in source.turns)]
        if any(number < 0 for pair in seen for number in pair):
            yield f"inputs[{i}]: what was seen of fields and turns can't be less than nothing"
    if record.unread < len(record.unread_first):
        yield f"{record.unread} files were not read, but {len(record.unread_first)} of them are named"
    for i, hit in enumerate(record.hits):
        for what in _hit_contradictions(hit, len(record.inputs)):
            yield f"hits[{i}]: {what}"


def _pvalues(record: ScanRecord) -> Iterator[tuple[str, list[float]]]:
    controls = record.controls
    yield "the record", [p for p in (record.log10_pvalue,) if p is not None]
    yield "the decoys", [*controls.decoy_log10_pvalues, controls.decoy_log10_agreement]
    yield "the control corpus", [p for p in (controls.null_corpus_log10_pvalue,) if p is not None]
    yield "the null key", [p for p in (controls.null_key_log10_pvalue,) if p is not None]
    for i, h in enumerate(record.hypotheses):
        tests = [h.log10_pvalue_pooled, h.log10_pvalue_rare, h.log10_pvalue, h.log10_pvalue_adjusted]
        yield f"hypotheses[{i}]", [*tests, *h.smallest_log10_pvalues, *(tally.log10_pvalue for tally in h.subkeys)]
    for i, hit in enumerate(record.hits):
        segments = [segment.log10_pvalue for segment in hit.segments]
        yield f"hits[{i}]", [hit.log10_pvalue, hit.log10_pvalue_adjusted, *segments]


def _hit_contradictions(hit: Hit, inputs: int) -> Iterator[str]:
    if not 0 <= hit.input < inputs:
        yield f"input is {hit.input}, but there are {inputs} inputs"
    if hit.ordinal < 0 or hit.record < 1:
        yield f"there is no document {hit.ordinal} at record {hit.record}"
    ends = [0, *(edge for segment in hit.segments for edge in (segment.start, segment.end)), hit.tokens]
    if sorted(ends) != ends or any(segment.start == segment.end for segment in hit.segments):
        yield f"segments must follow each other within {hit.tokens} tokens"
    if len(hit.scores) > MOST_SCORES or not all(math.isfinite(x) for x in hit.scores if x is not None):
        yield f"there must be at most {MOST_SCORES} scores (got {len(hit.scores)})"
