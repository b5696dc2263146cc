"""The record of a scan: what `report.json` holds, from which every other form of the report is drawn.

It holds no secret and nothing about workers, so that the same inputs, spec, keys and packages give the same bytes on
one machine or a thousand, after any interruption, but for when and by whom it was made (``created``, ``made``).
`documents.parquet` beside it (named here with its SHA-256) has a row for each document.
"""

from __future__ import annotations

import builtins
import hashlib
from typing import Literal

import msgspec

from detect.records.detection import Input, SubkeyTally
from detect.records.key_name import KeyName
from detect.records.report import Report
from detect.records.seen import ColumnSeen, TurnCount
from watermark.commitment import Commitment
from watermark.spec import WatermarkSpec

SCAN_VERSION = 1
HISTOGRAM_BINS = 20


class FileHash(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file that belongs to the report: its name beside report.json, SHA-256 and size in bytes."""

    name: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, name: str, data: builtins.bytes) -> FileHash:
        """What the record says of a file with this content."""
        return cls(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


class Skipped(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A broken line, row or file that was skipped. ``record`` counts from 1; null when the whole file is meant."""

    record: int | None
    reason: str


class UnreadFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file that was meant and not read, and why."""

    name: str
    reason: str


class ScannedInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One input file: what it is, how it was read and what it gave.

    Attributes
    ----------
    name
        Path as given or found below a given folder.
    form
        "jsonl", "parquet", "arrow", "text" and so on (`detect.readers.Form`).
    column
        Which field was read, and as what: "text", "messages" or "tokens"; "" for plain text.
    records
        Lines, rows or files seen, blank lines excluded.
    documents, tokens
        Read and scanned.
    skipped
        How many records were broken; the first ones are listed in ``skipped_first``, all of them in skipped.jsonl.
    columns
        The fields of the file's first records that may hold documents, and which of them are read: a file of which
        several are read is as many inputs. None for plain text, and in older reports.
    turns
        Of chats: how often which parts of whose turns came up in the records seen, and whether they were read. None in
        older reports.
    """

    name: str
    sha256: str
    bytes: int
    form: str
    column: str
    kind: str
    records: int
    documents: int
    tokens: int
    skipped: int
    skipped_first: list[Skipped]
    columns: list[ColumnSeen] = []
    turns: list[TurnCount] = []


class ScanHypothesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The test of one key over the whole corpus.

    Attributes
    ----------
    key
        "global" or "tenant:NAME"; with several specs preceded by "epoch N ".
    spec
        Index into the record's specs.
    tuples
        Tuples distinct in the corpus whose contexts this key marks.
    documents
        Documents that own at least one of them.
    subkeys
        Each sub-key's total over all of them, with its exact log10 p-value.
    log10_pvalue_pooled
        Of the sum over all sub-keys' totals: one exact test of ``tuples`` times the number of sub-keys draws.
    log10_pvalue_rare
        Of the documents' own p-values, for marks in a few documents only (`detect.corpus.rare`).
    smallest_log10_pvalues
        The documents' smallest p-values under this key, ascending: what ``log10_pvalue_rare`` was computed from.
    log10_pvalue
        Both tests together: twice the smaller p-value.
    log10_pvalue_adjusted
        The same, the choice among all keys paid for (Holm).
    pointed
        Discovered documents that point to this key (`Hit.points_to`).
    """

    key: str
    spec: int
    tuples: int
    documents: int
    subkeys: list[SubkeyTally]
    log10_pvalue_pooled: float
    log10_pvalue_rare: float
    smallest_log10_pvalues: list[float]
    log10_pvalue: float
    log10_pvalue_adjusted: float
    pointed: int


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An estimate with a confidence interval; ``estimate`` or ``high`` are null where the data don't identify them."""

    low: float
    estimate: float | None
    high: float | None
    confidence: float
    method: str

    @property
    def is_sound(self) -> bool:
        """Whether it lies within 0 .. 1 and has its estimate in it."""
        middle = self.low if self.estimate is None else self.estimate
        high = 1.0 if self.high is None else self.high
        return 0 <= self.low <= middle <= high <= 1 and 0 < self.confidence < 1


class Shares(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much of the corpus is marked.

    Attributes
    ----------
    documents
        Share of the tested documents that hold the mark.
    tokens
        Share of the distinct tuples that were sampled under the mark.
    """

    documents: Interval
    tokens: Interval


class Discoveries(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Documents in which the mark is found at a stated false-discovery rate.

    Attributes
    ----------
    rate
        The rate q.
    tested
        Documents that own at least one tuple.
    benjamini_hochberg, e_benjamini_hochberg
        Discoveries by p-values (BH) and by e-values (e-BH, which needs no independence).
    tokens
        Tokens in the BH discoveries.
    """

    rate: float
    tested: int
    benjamini_hochberg: int
    e_benjamini_hochberg: int
    tokens: int


class Controls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same scan where no mark can be: whether the test's p-values can be believed.

    Attributes
    ----------
    decoy_seed
        Public seed of the decoy keys.
    decoy_tuples
        Distinct tuples on which the decoys were run: all of them, or a sample chosen by fingerprint, without any key.
    decoy_log10_pvalues
        Pooled log10 p-value of the corpus under each decoy key.
    decoy_log10_agreement
        log10 p-value of these against "uniform or larger".
    null_key_histogram
        Documents by p-value under one decoy key, in `HISTOGRAM_BINS` equal bins of (0, 1].
    null_key_discoveries
        BH discoveries under that key at the report's rate.
    null_key_log10_pvalue
        log10 p-value of the documents' p-values under that key against "uniform or larger": the smaller of their
        agreement and of the test of the smallest few (`detect.corpus.rare`), doubled. Null in older reports, and for
        formats whose p-values are ranks among decoys.
    null_corpus
        What the unmarked control corpus is; null when there was none.
    null_corpus_inputs
        Its files. The text that comes with dyetrace is one file here, with the SHA-256 and size of its lines. Empty in
        older reports, whose "natural" control corpus was the documentation of the Python that made them.
    null_corpus_documents, null_corpus_log10_pvalue, null_corpus_histogram, null_corpus_discoveries
        The true keys' test of it: documents, the corpus p-value over all keys, documents by p-value, BH discoveries.
    """

    decoy_seed: str
    decoy_tuples: int
    decoy_log10_pvalues: list[float]
    decoy_log10_agreement: float
    null_key_histogram: list[int]
    null_key_discoveries: int
    null_corpus: str | None
    null_corpus_documents: int
    null_corpus_log10_pvalue: float | None
    null_corpus_histogram: list[int]
    null_corpus_discoveries: int
    null_key_log10_pvalue: float | None = None
    null_corpus_inputs: list[Input] = []


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Marked stretch of a document: token positions [start, end), log10 p-value paid for over its whole document."""

    start: int
    end: int
    log10_pvalue: float


class Hit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A discovered document.

    Attributes
    ----------
    ordinal
        Number of the document in the corpus, from 0; its row in documents.parquet.
    input
        Index into the record's inputs.
    record
        Line or row in that file, from 1.
    id
        The record's own id, where it has one and the report may quote.
    tokens, tuples
        Its length; the distinct tuples that no earlier document has.
    key, subkey
        The key and sub-key with the smallest p-value: some key has it in any text, so that this points to nobody.
    score, expected
        Mean statistic per tuple under them, and its mean without the key, in the scheme's units.
    log10_pvalue
        Over all keys and sub-keys, for this document alone.
    log10_pvalue_adjusted
        Benjamini and Hochberg's adjusted value over all documents.
    log10_evalue
        The document's e-value; null when it is 0.
    points_to
        All keys whose p-value for this document times the record's `ScanRecord.pairs_paid` is at or below the report's
        alpha. (In reports without that number: adjusted over the keys of this document alone.)
    segments
        Where the mark is.
    scores
        Mean statistic in consecutive stretches of equal length (at most 60), null where a stretch holds no tuple.
    excerpt
        The beginning of its text; "" where no tokenizer was given, or the report quotes nothing.
    """

    ordinal: int
    input: int
    record: int
    id: str | None
    tokens: int
    tuples: int
    key: str
    subkey: int
    score: float
    expected: float
    log10_pvalue: float
    log10_pvalue_adjusted: float
    log10_evalue: float | None
    points_to: list[str] = []
    segments: list[Segment]
    scores: list[float | None]
    excerpt: str


class ScanRecord(Report, frozen=True, kw_only=True):
    """A whole scan.

    Attributes
    ----------
    arguments
        Options of the command, by name, those that change the result.
    specs
        One for each epoch (or several schemes) tested; all with one context width and tokenizer.
    tokens, tuples, distinct_tuples
        Tokens scanned; (context, token) positions counted; of those, distinct ones in the whole corpus.
    log10_pvalue
        That no key left its mark in this corpus: the smallest adjusted p-value. Null when it is refused.
    refused
        Why no p-value is given; then ``hypotheses`` keep their totals and nothing is "found".
    found
        Whether ``log10_pvalue`` is at or below log10 alpha.
    histogram
        Documents by p-value, in `HISTOGRAM_BINS` equal bins of (0, 1].
    hits
        The strongest discoveries (all of them are in hits.jsonl).
    calibration
        How p-values came about where they aren't the law's tails (a foreign format that is not exact).
    pairs_paid
        Pairs of a tested document and a key: what a document pays for before it points to a key, so that the chance of
        any wrong pointing in the whole report is at most alpha. 0 in older reports, which paid for keys alone.
    quotes
        Whether texts of the corpus, the ids that records bear, and what a reader says of broken ones may stand in the
        report.
    reference_inputs
        Files of text that is known to be marked (--reference); empty in older reports.
    unread, unread_first
        Files that were meant and not read: how many, and the first of them with why; skipped.jsonl has all. 0 in older
        reports, which don't say.
    """

    format: Literal["dyetrace-scan"] = "dyetrace-scan"
    version: int = SCAN_VERSION
    created: str = ""
    arguments: dict[str, str | int | float | bool | list[str] | None]
    specs: list[WatermarkSpec]
    spec_ids: list[str]
    key_fingerprint: str
    commitment: Commitment | None
    encoder: str
    inputs: list[ScannedInput]
    files: list[FileHash]
    documents: int
    tokens: int
    tuples: int
    distinct_tuples: int
    hypotheses: list[ScanHypothesis]
    log10_pvalue: float | None
    refused: str | None
    found: bool
    discoveries: Discoveries
    shares: Shares
    histogram: list[int]
    controls: Controls
    hits: list[Hit]
    calibration: str | None = None
    pairs_paid: int = 0
    quotes: bool = True
    reference_inputs: list[Input] = msgspec.field(default_factory=list)
    unread: int = 0
    unread_first: list[UnreadFile] = msgspec.field(default_factory=list)

    @property
    def files_read(self) -> list[ScannedInput]:
        """The inputs, of each file one: several of its fields may be read."""
        return list({(source.name, source.sha256): source for source in reversed(self.inputs)}.values())[::-1]

    @property
    def accounts(self) -> list[ScanHypothesis]:
        """The accounts' keys among those tested."""
        return [h for h in self.hypotheses if not KeyName.read(h.key).is_global]
