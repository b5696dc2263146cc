"""Every number of a scan's record that follows from others, computed again without any key.

Each function returns a line that says what holds, raises `DyetraceError` with what doesn't, or `NotDone`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from detect.corpus import rare
from detect.corpus.conclude import marked_control
from detect.corpus.score import DECOY_TUPLES, with_segments
from detect.corpus.share import marked_documents
from detect.keyed.calibration import explanation
from detect.keyed.decoys import LOG10_CONTRADICTION, log10_agreement
from detect.keyed.scoring import as_drawn
from detect.laws.agreement import RELATIVE
from detect.laws.multiplicity import benjamini_hochberg_log10, e_benjamini_hochberg, holm_log10, sidak_rows_log10
from detect.laws.tails import log10_sf_many, log10_sf_pairs
from detect.readers import ReadOptions
from detect.readers.turns import is_answer, is_call, is_read, wanted
from detect.records.key_name import KeyName
from detect.records.results import Check
from detect.records.scan import HISTOGRAM_BINS, Hit, ScanHypothesis, ScannedInput, ScanRecord, Skipped, UnreadFile
from detect.records.text_assumptions import of_scan
from detect.report.verify import files
from detect.report.verify.checks import (
    Floats,
    NotDone,
    check,
    close,
    each,
    found_fits,
    refuse,
    same,
    slack,
    sound_decoys,
)
from detect.report.verify.documents import Rows, SkippedRow, read_hits, read_rows, read_skipped
from detect.report.verify.specs import specs, stated
from detect.report.verify.words import assumptions, by_this_code
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_exact
from watermark.spec import WatermarkSpec

_EDGE = 1e-9  # relative; p-values so near the edge of a bin may be counted on either side


_FILES = frozenset(["documents.parquet", "hits.jsonl", "skipped.jsonl"])


def checks(record: ScanRecord, report: Path, folder: Path | None) -> Iterator[Check]:
    """All checks of a scan's report."""
    paths: Any = record.arguments.get("paths")
    below = [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []
    read = [files.Read(source.name, source.sha256, source.bytes) for source in record.files_read]
    yield check("inputs", lambda: files.inputs(read, folder, below=below, named=record.quotes))
    whole = check("files", lambda: files.beside(report.parent, record.files, _FILES))
    yield whole
    yield from each({"specs": specs, "keys": keys, "answer": answer, "controls": controls}, record)
    yield from _of_files(record, report.parent, whole.outcome == "ok")


def _of_files(record: ScanRecord, folder: Path, whole: bool) -> Iterator[Check]:
    """Checks against the files beside the report, which must be the report's for these to mean anything."""
    looks = {
        "documents": documents,
        "document p-values": document_pvalues,
        "keys and documents": keys_of_documents,
        "discoveries": discoveries,
        "histogram": histogram,
        "shares": shares,
    }
    names = [*looks, "hits", "skipped"]
    if not whole:
        yield from (Check(name, "not done", "the files are not those of the report") for name in names)
        return
    try:
        listed = read_skipped(folder / "skipped.jsonl")
        unreadable = sum(row.record is None for row in listed)
        said = record.calibration, explanation(record.specs[0].build_scheme(), by_rank=True)
        yield from assumptions(record, (of_scan(record, unreadable, opened) for opened in (False, True)), said)
        rows = read_rows(folder / "documents.parquet", record)
    except NotDone as reason:
        yield from (Check(name, "not done", str(reason)) for name in names)
        return
    except DyetraceError as error:
        yield Check(names[0], "failed", str(error))
        return
    yield from each(looks, record, rows)
    yield check("hits", lambda: hits(record, rows, read_hits(folder / "hits.jsonl")))
    yield check("skipped", lambda: skipped(record, listed))


def keys(record: ScanRecord) -> str:
    """Each key's tests follow from its totals and from the smallest p-values on record."""
    for h in record.hypotheses:
        spec = record.specs[h.spec]
        if is_exact(spec.build_scheme()):
            _exact_key(spec, h)
        else:
            _ranked_key(record, h)
        both = min(0.0, min(h.log10_pvalue_pooled, h.log10_pvalue_rare) + math.log10(2))
        close(f"p-value of {h.key!r}", [h.log10_pvalue], [both])
    return f"all tests of {len(record.hypotheses):,} keys follow from their totals"


def _exact_key(spec: WatermarkSpec, h: ScanHypothesis) -> None:
    """A key whose p-values are the law's tails: all of them follow from its totals."""
    if [tally.subkey for tally in h.subkeys] != list(range(spec.subkeys)):
        refuse(f"{h.key!r} must have the totals of {spec.subkeys} sub-keys")
    totals = np.array([tally.total for tally in h.subkeys], dtype=np.int64)
    alone = _log10_sf(spec, h.tuples, totals)
    close(f"sub-key p-values of {h.key!r}", [tally.log10_pvalue for tally in h.subkeys], alone)
    pooled = _log10_sf(spec, h.tuples * spec.subkeys, totals.sum(keepdims=True))
    close(f"pooled p-value of {h.key!r}", [h.log10_pvalue_pooled], pooled)
    try:
        few = float(rare.log10_pvalue(np.array(h.smallest_log10_pvalues), h.documents))
    except ValueError as error:
        raise DyetraceError(f"the smallest p-values of {h.key!r} are not all there: {error}") from None
    close(f"rare-documents p-value of {h.key!r}", [h.log10_pvalue_rare], [few])


def _ranked_key(record: ScanRecord, h: ScanHypothesis) -> None:
    """A format's key that was ranked among decoys: that rank takes the key, what follows from it doesn't."""
    least, decoys = -math.log10(1 + len(record.controls.decoy_log10_pvalues)), record.controls.decoy_log10_pvalues
    if not least - RELATIVE <= h.log10_pvalue_pooled <= 0:
        refuse(f"the rank of {h.key!r} among {len(decoys):,} decoys can't give its pooled p-value")
    smallest = h.smallest_log10_pvalues
    few = min(0.0, smallest[0] + math.log10(h.documents)) if smallest else 0.0
    close(f"rare-documents p-value of {h.key!r}", [h.log10_pvalue_rare], [few])


def answer(record: ScanRecord) -> str:
    """The answer follows from the keys' p-values (Holm)."""
    stated(record, alpha=record.alpha, fdr=record.discoveries.rate, decoy_seed=record.controls.decoy_seed)
    log10_ps = [h.log10_pvalue for h in record.hypotheses]
    adjusted = [h.log10_pvalue_adjusted for h in record.hypotheses]
    close("adjusted p-values of the keys", adjusted, holm_log10(log10_ps))
    if record.log10_pvalue is None:
        return "no answer is given; the keys' adjusted p-values are right"
    close("p-value of the corpus", [record.log10_pvalue], [min(adjusted, default=0.0)])
    found_fits(record)
    return "the p-value of the corpus and the answer follow from those of the keys"


def controls(record: ScanRecord) -> str:
    """The decoys' agreement follows from their p-values, and a contradiction was not passed over."""
    found = record.controls
    sound_decoys(record)
    if record.refused is None:
        if (found.null_key_log10_pvalue or 0.0) < LOG10_CONTRADICTION:
            refuse("documents under a decoy key contradict the test, and yet an answer is given")
        if marked_control(found) is not None:
            refuse(
                f"the control corpus is marked (log10 p {found.null_corpus_log10_pvalue:.1f}), and yet an answer is "
                "given: scan again with another control corpus, or with a key that this text did not choose"
            )
    counts = [
        ("null key", found.null_key_histogram, record.discoveries.tested),
        ("control corpus", found.null_corpus_histogram, found.null_corpus_documents),
    ]
    for what, bins, documents in counts:
        if bins and sum(bins) != documents:
            refuse(f"the histogram of the {what} counts {sum(bins):,} documents, not {documents:,}")
    _of_histogram("null key", found.null_key_histogram, found.null_key_discoveries, record.discoveries.rate)
    _of_histogram("control corpus", found.null_corpus_histogram, found.null_corpus_discoveries, record.discoveries.rate)
    _sampled(record)
    return f"the {len(found.decoy_log10_pvalues):,} decoys' agreement with chance follows from their p-values"


def _of_histogram(what: str, bins: list[int], listed: int, rate: float) -> None:
    """Documents listed where no mark can be are as many as p-values in these bins allow (Benjamini and Hochberg)."""
    n = sum(bins)
    if not bins or not n:
        same(f"documents listed of the {what}", listed, 0)
        return
    below = np.concatenate([[0], np.cumsum(bins)])  # p-values at or below each edge
    edges = np.arange(HISTOGRAM_BINS + 1) / HISTOGRAM_BINS
    counts = np.arange(1, n + 1)
    limits = rate * counts / n
    most = below[np.searchsorted(edges, limits * (1 - _EDGE))]  # p-values at or below these limits: at most,
    least = below[np.searchsorted(edges, limits * (1 + _EDGE), side="right") - 1]  # and at least
    fewest = int(counts[least >= counts].max(initial=0))
    largest = int(counts[most >= counts].max(initial=0))
    if not fewest <= listed <= largest:
        refuse(f"{listed:,} documents of the {what} are listed, where its p-values give {fewest:,} to {largest:,}")


def _sampled(record: ScanRecord) -> None:
    """Decoys were run on all distinct tuples, or on a sample of about `DECOY_TUPLES`; as many as were asked for."""
    found, distinct = record.controls, record.distinct_tuples
    if found.null_key_log10_pvalue is not None:
        # As if every p-value were the largest of its bin: the test of all can't be milder than that.
        uppers = np.repeat(np.log10(np.arange(1, HISTOGRAM_BINS + 1) / HISTOGRAM_BINS), found.null_key_histogram or 0)
        most = min(0.0, log10_agreement(uppers) + math.log10(2)) if len(uppers) else 0.0
        if found.null_key_log10_pvalue > most + RELATIVE:
            refuse("documents under a decoy key agree better with chance on record than in their histogram")
    if distinct <= DECOY_TUPLES:
        same("tuples of the decoys", found.decoy_tuples, distinct)
    elif abs(found.decoy_tuples - DECOY_TUPLES) > 8 * math.sqrt(DECOY_TUPLES):
        refuse(f"the decoys were run on {found.decoy_tuples:,} tuples, where a sample has about {DECOY_TUPLES:,}")
    if found.decoy_log10_pvalues:
        stated(record, decoys=len(found.decoy_log10_pvalues))


def documents(record: ScanRecord, rows: Rows) -> str:
    """The table's rows add up to the record's counts, in all and for each input."""
    sums = [
        ("documents", record.documents, len(rows)),
        ("tokens", record.tokens, int(rows.tokens.sum())),
        ("distinct tuples", record.distinct_tuples, int(rows.tuples.sum())),
        ("tested documents", record.discoveries.tested, int(rows.tested.sum())),
    ]
    for what, said, counted in sums:
        if said != counted:
            refuse(f"the record says {said:,} {what}, the table has {counted:,}")
    if len(rows) and rows.input.max() >= len(record.inputs):
        refuse("the table names an input that the record lacks")
    inputs = len(record.inputs)
    documents = np.bincount(rows.input, minlength=inputs)
    for i, source in enumerate(record.inputs):
        tokens = int(rows.tokens[rows.input == i].sum())
        if (source.documents, source.tokens) != (documents[i], tokens):
            refuse(f"{source.name}: {source.documents:,} documents on record, {documents[i]:,} in the table")
        _seen(record, source)
        kept, every = source.documents + source.skipped, record.arguments.get("sample", 1) == 1
        if source.records < kept or (every and source.records > kept):
            refuse(f"{source.name}: {source.records:,} records are not its {kept:,} documents and skipped ones")
    if not record.distinct_tuples <= record.tuples <= record.tokens:
        refuse("there must be no more tuples than tokens, and no more distinct ones than tuples")
    if np.any(rows.tuples > rows.tokens) or np.any(rows.key_tuples > rows.tuples):
        refuse("a document has more tuples than tokens, or more of its key than in all")
    places = np.stack([rows.input, rows.record], axis=1)
    steps = np.diff(places, axis=0)
    if np.any(rows.record < 1) or np.any((steps[:, 0] < 0) | ((steps[:, 0] == 0) & (steps[:, 1] <= 0))):
        refuse("the table's rows are not in the order of the corpus")
    return f"{len(rows):,} rows add up to the documents, tokens and tuples on record"


def _words(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _seen(record: ScanRecord, source: ScannedInput) -> None:
    """What an input says of its fields and turns fits what was read of it."""
    read = [column for column in source.columns if column.read]
    if source.columns and source.column not in [column.name for column in read]:
        refuse(f"{source.name}: the field that was read, {source.column!r}, is not among those that were chosen")
    siblings = [other.column for other in record.inputs if (other.name, other.sha256) == (source.name, source.sha256)]
    if source.columns and sorted(siblings) != sorted(column.name for column in read):
        refuse(f"{source.name}: the fields that were chosen are not those that were read")
    texts = sum(one.count for one in source.turns if one.read)
    if source.kind != "messages" and any(one.read or one.role for one in source.turns):
        refuse(f"{source.name} has turns on record, but no chats")
    if source.columns and source.kind == "messages" and source.tokens and not texts:
        refuse(f"{source.name} has tokens of chats, but no turn that was read")
    roles, left_out = (record.arguments.get(name) for name in ("roles", "leave_out"))
    want = wanted(ReadOptions(roles=_words(roles) or ("assistant",)))
    for one in source.turns:
        asked = is_read(one.role, want.roles) and one.part not in _words(left_out)
        if one.part in ("text", "reasoning", "tools") and asked and not one.read:
            refuse(f"{source.name}: {one.part} of turns of {one.role!r} was asked for and not read")
        named = record.quotes and one.role not in ("", "...")
        calls = is_call(one.role) and "assistant" in want.roles
        if one.read and named and not calls and not is_answer(one.role, want.roles):
            refuse(f"{source.name}: {one.part} of turns of {one.role!r} was read and not asked for")
    if any(one.count < 1 for one in source.turns):
        refuse(f"{source.name} has turns on record that never came up")


def document_pvalues(record: ScanRecord, rows: Rows) -> str:
    """Each document's p-value follows from its totals: Šidák over sub-keys, times the number of keys.

    Of a long document its most marked stretch counts as well, whose p-value the table gives.
    """
    if record.calibration is not None:
        raise NotDone("these p-values take the key, its decoys and the texts: scan again with the key")
    for number, h in enumerate(record.hypotheses):
        mine = rows.key == number
        if not mine.any():
            continue
        spec = record.specs[h.spec]
        scheme = spec.build_scheme()
        totals = rows.totals[mine, : spec.subkeys]
        try:
            log10_ps = log10_sf_pairs(scheme.law, rows.key_tuples[mine][:, None], as_drawn(scheme, totals))
        except ValueError as error:
            raise DyetraceError(f"totals under {h.key!r} are none that the scheme gives: {error}") from None
        alone = with_segments(sidak_rows_log10(log10_ps.T), rows.log10_segment[mine])
        paid = np.minimum(0.0, alone + math.log10(len(record.hypotheses)))
        close(f"p-values of documents under {h.key!r}", rows.log10_pvalue[mine], paid)
    return f"the p-values of {int(rows.tested.sum()):,} documents follow from their totals"


def keys_of_documents(record: ScanRecord, rows: Rows) -> str:
    """What the table holds of each key fits what the record says of it."""
    for number in range(len(record.specs)):
        _cover(record, number)
    choice = math.log10(max(1, len(record.hypotheses)))
    alone = len(record.hypotheses) == 1
    best = np.sort(rows.log10_pvalue[rows.tested & (rows.log10_pvalue < 0)] - choice)
    for number, h in enumerate(record.hypotheses):
        mine = rows.tested & (rows.key == number) & (rows.key_tuples > 0)
        if int(rows.key_tuples[mine].sum()) > h.tuples or int(mine.sum()) > h.documents:
            refuse(f"the table has more tuples or documents of {h.key!r} than the record")
        totals = rows.totals[mine].sum(axis=0)[: len(h.subkeys)].tolist()
        if alone and totals != [tally.total for tally in h.subkeys]:
            refuse(f"totals of {h.key!r}: the documents' don't add up to the corpus'")
        own = np.sort(rows.log10_pvalue[mine & (rows.log10_pvalue < 0)] - choice)[: len(h.smallest_log10_pvalues)]
        listed = np.array(h.smallest_log10_pvalues)[: len(own)]
        if len(listed) < len(own) or np.any(listed > own + slack(own)):
            refuse(f"the smallest p-values of {h.key!r} leave out documents of the table")
        if alone:
            close(f"smallest p-values of {h.key!r}", listed, own)
        floor = best[: len(h.smallest_log10_pvalues)]  # no key's are smaller than those of each document's best
        if np.any(np.array(h.smallest_log10_pvalues)[: len(floor)] < floor - slack(floor)):
            refuse(f"the smallest p-values of {h.key!r} are smaller than any of the table")
    smallest = min((h.smallest_log10_pvalues[0] for h in record.hypotheses if h.smallest_log10_pvalues), default=0.0)
    least = float(rows.log10_pvalue.min(initial=0.0))
    close("the smallest p-value of any document", [min(0.0, smallest + choice)], [least])
    return "the keys' tuples, totals and smallest p-values fit the table"


def _cover(record: ScanRecord, number: int) -> None:
    """Tuples of a spec belong to the global key or to accounts' keys; both together have all of them."""
    ident, share = record.spec_ids[number], record.specs[number].global_share
    mine = [h for h in record.hypotheses if h.spec == number]
    sizes = [{h.tuples for h in mine if KeyName.read(h.key).is_global == of_global} for of_global in (True, False)]
    if any(len(size) > 1 for size in sizes):
        refuse(f"keys of spec {ident} disagree about the tuples that they mark")
    total = sum(sum(size) for size in sizes)
    known = mine and (share in (0.0, 1.0) or all(sizes))  # else one of the two kinds was not tested
    known = known and record.calibration is None  # else what is hashed alike counts once in a document
    if total > record.distinct_tuples or (known and total != record.distinct_tuples):
        refuse(f"tuples of the keys of spec {ident} don't add up to those of the corpus")


def discoveries(record: ScanRecord, rows: Rows) -> str:
    """Adjusted p-values, the list of documents and its counts follow from the p-values and e-values."""
    rate, tested = record.discoveries.rate, rows.tested
    if np.any(np.isnan(rows.log10_adjusted) == tested):
        refuse("documents without tuples must have no adjusted p-value, all others one")
    adjusted = np.full(len(rows), np.nan)
    adjusted[tested] = benjamini_hochberg_log10(rows.log10_pvalue[tested])
    close("adjusted p-values of documents", rows.log10_adjusted[tested], adjusted[tested])
    with np.errstate(invalid="ignore"):
        listed = rows.log10_adjusted <= math.log10(rate)
    if not np.array_equal(listed, rows.found):
        refuse("the documents marked as found are not those at or below the rate")
    counts = [
        ("documents listed", record.discoveries.benjamini_hochberg, int(listed.sum())),
        (
            "documents listed by e-values",
            record.discoveries.e_benjamini_hochberg,
            int(e_benjamini_hochberg(rows.log10_evalue[tested], rate).sum()),
        ),
        ("tokens in listed documents", record.discoveries.tokens, int(rows.tokens[listed].sum())),
    ]
    for what, said, counted in counts:
        if said != counted:
            refuse(f"{what}: {said:,} on record, {counted:,} by the table")
    return f"{int(listed.sum()):,} listed documents follow from the table's p-values and e-values"


def histogram(record: ScanRecord, rows: Rows) -> str:
    """The histogram counts the table's p-values."""
    ps = 10.0 ** rows.log10_pvalue[rows.tested]
    bins = record.histogram or [0] * HISTOGRAM_BINS
    edges = np.arange(1, HISTOGRAM_BINS + 1) / HISTOGRAM_BINS
    said = np.cumsum(bins)
    fewest = np.array([(ps <= edge * (1 - _EDGE)).sum() for edge in edges])
    most = np.array([(ps <= edge * (1 + _EDGE)).sum() for edge in edges])
    if np.any(said < fewest) or np.any(said > most) or said[-1] != len(ps):
        refuse("the histogram of p-values is not the table's")
    return "the histogram counts the table's p-values"


def shares(record: ScanRecord, rows: Rows) -> str:
    """The share of documents follows from the table's p-values; that of tuples needs the key."""
    if record.calibration is not None:
        raise NotDone("no share is given: documents are not independent under a key of this format")
    said = record.shares.documents
    computed = marked_documents(rows.log10_pvalue[rows.tested])
    for what, one in (("documents", said), ("tuples", record.shares.tokens)):
        same(f"confidence of the share of {what}", one.confidence, computed.confidence)
    older = computed.low == 0 and said.estimate is not None  # gave an estimate of what it could not bound
    if (said.estimate is None, said.high) != (computed.estimate is None and not older, computed.high):
        refuse("the share of documents has other ends than the table gives")
    close("least share of documents", [said.low], [computed.low])
    if said.estimate is not None and not older:
        close("estimated share of documents", [said.estimate], [computed.estimate or 0.0])
    return "the share of documents follows from the table (that of tuples can't be checked without the key)"


def skipped(record: ScanRecord, listed: list[SkippedRow]) -> str:
    """The inputs' counts of skipped records, and the first of them, are those of skipped.jsonl."""
    rows: dict[tuple[str, str | None], list[Skipped]] = {}
    unread = [UnreadFile(name=row.input, reason=row.reason) for row in listed if row.record is None]
    older = not by_this_code(record) and not any(source.columns for source in record.inputs)  # doesn't say
    if record.unread != len(unread) and not older:
        refuse(f"{record.unread:,} files are not read on record, but skipped.jsonl has {len(unread):,}")
    if record.unread_first != unread[: len(record.unread_first)] or (record.unread and not record.unread_first):
        refuse("the files on record that are not read are not the first of skipped.jsonl")
    for row in listed:
        if row.record is not None:
            rows.setdefault((row.input, row.column), []).append(Skipped(record=row.record, reason=row.reason))
    names = Counter(source.name for source in record.inputs)
    for source in record.inputs:
        mine = rows.pop((source.name, source.column if names[source.name] > 1 else None), [])
        if source.skipped != len(mine):
            refuse(f"{source.name}: {source.skipped:,} skipped records, but skipped.jsonl has {len(mine):,}")
        if source.skipped_first != mine[: len(source.skipped_first)] or (mine and not source.skipped_first):
            refuse(f"{source.name}: the skipped records on record are not the first of skipped.jsonl")
    if rows:
        refuse(f"skipped.jsonl names inputs that the record lacks: {min(name for name, _ in rows)}")
    return f"{len(listed):,} skipped records and files are those of skipped.jsonl"


def hits(record: ScanRecord, rows: Rows, found: list[Hit]) -> str:
    """The log of hits describes the table's listed documents, and the record has its strongest."""
    if [hit.ordinal for hit in found] != np.flatnonzero(rows.found).tolist():
        refuse("hits.jsonl does not describe exactly the documents that are listed")
    units = [record.specs[h.spec].build_scheme().unit for h in record.hypotheses]
    for hit in found:
        for what in _differences(record, rows, hit, units):
            refuse(f"hits.jsonl, document {hit.ordinal}: {what} is not the table's")
    strongest = sorted(found, key=lambda hit: (hit.log10_pvalue, hit.ordinal))[: len(record.hits)]
    if record.hits != strongest or (found and not record.hits):
        refuse("the record's hits are not the strongest of hits.jsonl")
    pairs = max(1, record.discoveries.tested) * len(record.hypotheses)
    if record.pairs_paid not in ((pairs,) if by_this_code(record) else (0, pairs)):  # older reports don't say
        refuse(f"{record.pairs_paid:,} pairs of documents and keys are paid for on record, but there are {pairs:,}")
    for hit in found:
        _pays(record, hit)
    for h in record.hypotheses:
        pointed = sum(h.key in hit.points_to for hit in found)
        if h.pointed != pointed:
            refuse(f"{h.pointed:,} documents point to {h.key!r} on record, {pointed:,} in hits.jsonl")
    return f"{len(found):,} hits agree with the table, and the record has the strongest of them"


def _pays(record: ScanRecord, hit: Hit) -> None:
    """A document points to a key only where its p-value pays for all pairs of a document and a key.

    A long document's p-value may be that of a stretch, twice as large as the whole document's under one key.
    """
    if not record.pairs_paid or not hit.points_to:
        return
    alone = hit.log10_pvalue - math.log10(2 * len(record.hypotheses))
    if alone > math.log10(record.alpha / record.pairs_paid) + RELATIVE * abs(alone):
        refuse(f"hits.jsonl, document {hit.ordinal} points to a key, but its p-value does not pay for that")


def _differences(record: ScanRecord, rows: Rows, hit: Hit, units: list[float]) -> Iterator[str]:
    i = hit.ordinal
    h = record.hypotheses[rows.key[i]]
    log10_e = -math.inf if hit.log10_evalue is None else hit.log10_evalue
    pairs = [
        ("its place", (hit.input, hit.record), (rows.input[i], rows.record[i])),
        ("its id", hit.id, rows.ids[i].as_py()),
        ("its length", (hit.tokens, hit.tuples), (rows.tokens[i], rows.tuples[i])),
        ("its key", hit.key, h.key),
        ("its p-value", hit.log10_pvalue, rows.log10_pvalue[i]),
        ("its adjusted p-value", hit.log10_pvalue_adjusted, rows.log10_adjusted[i]),
        ("its e-value", log10_e, rows.log10_evalue[i]),
    ]
    yield from (what for what, said, is_ in pairs if said != is_)
    totals = rows.totals[i, : len(h.subkeys)]
    if not 0 <= hit.subkey < len(totals) or totals[hit.subkey] != totals.max():
        yield "its sub-key"
        return
    mean = totals[hit.subkey] * units[rows.key[i]] / max(1, rows.key_tuples[i])
    if abs(mean - hit.score) > RELATIVE * max(1.0, abs(mean)):
        yield "its score"


def _log10_sf(spec: WatermarkSpec, draws: int, totals: ArrayLike) -> Floats:
    scheme = spec.build_scheme()
    try:
        return log10_sf_many(scheme.law, draws, as_drawn(scheme, totals))
    except ValueError as error:
        raise DyetraceError(f"totals are none that {draws:,} draws give: {error}") from None
