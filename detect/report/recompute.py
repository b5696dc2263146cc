"""Compute a report anew with its key: one function for each kind of record, which lists every difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detect.corpus.engines import make_engine
from detect.corpus.recompute import held_of_scan, recompute_scan
from detect.corpus.recompute import keys_on_record as keys_of_scan
from detect.corpus.scan import Progress
from detect.document.recompute import keys_on_record
from detect.document.recompute import recompute as recompute_detection
from detect.keyed.held import held_keys, ring_on_record
from detect.race.recompute import recompute_race
from detect.records.detection import Record
from detect.records.race import RaceRecord
from detect.records.recorded_inputs import recorded_path
from detect.records.scan import ScanRecord
from detect.records.trace import TraceRecord
from detect.records.twins import TwinRecord
from detect.student.verdict.recompute import recompute_trace
from detect.twins.recompute import recompute_twins
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, load_key, load_master


@dataclass(frozen=True, slots=True)
class Request:
    """How a report is to be computed anew.

    Attributes
    ----------
    report
        Path of its report.json.
    key
        Where the key is, by a path that holds in any folder.
    tokenizer, inputs
        Of the spec, and the folder with the files that were read; None where nobody said.
    default_tokenizer
        Finds the one to use where none was given.
    doing, note, progress
        Told what goes on, what of an older report can't be compared, and how far a scan is.
    """

    report: Path
    key: str
    tokenizer: str | None
    inputs: Path | None
    default_tokenizer: Callable[[], str]
    doing: Callable[[str], None]
    note: Callable[[str], None]
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Anew:
    """What came of it.

    Attributes
    ----------
    report
        What it is a report of.
    differences
        In the record's order; none where the report holds.
    count, unit
        What was computed anew.
    keys, held
        Names of all keys on record, and of those that the party's key gives.
    """

    report: Literal["detection", "scan", "trace", "twins", "race"]
    differences: Sequence[str]
    count: int
    unit: Literal["documents", "contexts", "pairs", "places"]
    keys: Sequence[str]
    held: Sequence[str]


def detection(record: Record, asked: Request) -> Anew:
    """Test the documents of a detection anew."""
    keys = keys_on_record(record)
    ring = ring_on_record(asked.key, record.spec, keys)
    tokenizer = asked.tokenizer or asked.default_tokenizer()
    asked.doing("computing the detection anew")
    differences = recompute_detection(record, ring, tokenizer, asked.report, asked.inputs)
    return Anew("detection", differences, len(record.documents), "documents", keys, held_keys(record.spec, ring))


def scan(record: ScanRecord, asked: Request) -> Anew:
    """Scan the corpus anew."""
    held = held_of_scan(record, load_key(asked.key))
    tokenizer = asked.tokenizer
    if tokenizer is None and any(source.kind != "tokens" for source in record.inputs):
        tokenizer = asked.default_tokenizer()
    engine = make_engine("local", None, None)
    differences = recompute_scan(
        record, asked.key, tokenizer, asked.report, asked.inputs, engine, note=asked.note, progress=asked.progress
    )
    return Anew("scan", differences, record.documents, "documents", keys_of_scan(record), held)


def trace(record: TraceRecord, asked: Request) -> Anew:
    """Sum the evidence of a trace anew; neither a model nor a text is read."""
    keys, ring = _of_evidence(record, asked, "trace")
    differences = recompute_trace(record, ring, asked.report.parent)
    return Anew("trace", differences, record.contexts, "contexts", keys, held_keys(record.spec, ring))


def race(record: RaceRecord, asked: Request) -> Anew:
    """Bet on the evidence of a race readout anew; neither a model nor a text is read."""
    keys, ring = _of_evidence(record, asked, "race readout")
    differences = recompute_race(record, ring, asked.report.parent)
    return Anew("race", differences, record.counts.asked, "places", keys, held_keys(record.spec, ring))


def _of_evidence(record: TraceRecord | RaceRecord, asked: Request, what: str) -> tuple[list[str], KeyRing]:
    """Names of all keys on record, and the keys; refuse options that have no effect on such a report."""
    for option, given in (("--inputs", asked.inputs), ("--tokenizer", asked.tokenizer)):
        if given is not None:
            raise DyetraceError(
                f"{option} has no effect: a {what} is recomputed from the evidence beside it; leave it out"
            )
    keys = [h.key for h in record.hypotheses]
    ring = ring_on_record(asked.key, record.spec, keys)
    asked.doing(f"computing the {what} anew")
    return keys, ring


def twins(record: TwinRecord, asked: Request) -> Anew:
    """Open the private ledger of pairs and hold their choice and their coins against the report's."""
    if asked.tokenizer is not None:
        raise DyetraceError("--tokenizer has no effect: no token is looked at in a test by twins; leave it out")
    secret = load_master(asked.key)
    path = recorded_path(record.ledger.name, asked.inputs, asked.report)
    asked.doing("opening the private ledger of pairs")
    differences = recompute_twins(record, secret, path, asked.report.parent, asked.note)
    return Anew("twins", differences, record.pairs.asked, "pairs", [], [])
