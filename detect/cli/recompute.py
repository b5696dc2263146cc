"""`dyetrace recompute`: a report of any kind, computed anew from its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from detect.cli.common import absolute_source, model_folder, say
from detect.cli.options.detection import Recompute
from detect.cli.results import print_result
from detect.cli.stages import StageProgress
from detect.cli.unused import refuse_unused
from detect.cli.working import doing, rest
from detect.corpus.engines import make_engine
from detect.corpus.recompute import held_of_scan, recompute_scan
from detect.corpus.recompute import keys_on_record as keys_of_scan
from detect.document.recompute import held_keys, keys_on_record, ring_on_record
from detect.document.recompute import recompute as recompute_detection
from detect.records.detection import Record
from detect.records.reading import read_report
from detect.records.results import Recomputed
from detect.records.scan import ScanRecord
from detect.records.trace import TraceRecord
from detect.student.verdict.recompute import recompute_trace
from watermark.errors import EvidenceError
from watermark.keys import KeyRing, TenantKey, load_key

_NAMED = 5  # keys that were not checked, by name


def recompute(asked: Recompute) -> None:
    """Compute it and say whether all numbers are the same."""
    doing("reading the report and its inputs")
    found, left = _recomputed(asked.report, asked.key, asked.tokenizer, asked.inputs)
    rest()
    if asked.as_json:
        print_result(found)
    if not found.holds:
        raise EvidenceError(f"the report does not hold: {'; '.join(found.differences[:5])}")
    what = f"{found.count:,} {found.unit if found.count != 1 else found.unit.removesuffix('s')} recomputed"
    if asked.as_json:
        return
    if not found.keys_unchecked:
        click.echo(f"the report holds: {what}, every number the same")
        return
    named = f"{', '.join(left[:_NAMED])}{' and more' if len(left) > _NAMED else ''}"
    click.echo(
        f"the part of account {found.account!r} holds: {what}, every number of its own test the same. Not checked "
        f"with this key: the {found.keys_unchecked:,} other keys ({named}), and what follows from all keys together "
        "(adjusted p-values, the verdict, decoys, lists and shares)"
    )


def _recomputed(report: Path, key: str, tokenizer: str | None, inputs: Path | None) -> tuple[Recomputed, Sequence[str]]:
    """Compute a report of whatever kind anew, and name the keys on record that this key can't test."""
    _, record = read_report(report)
    beside = "a trace is recomputed from the evidence beside it"
    refuse_unused("inputs", isinstance(record, TraceRecord), beside)
    refuse_unused("tokenizer", isinstance(record, TraceRecord), beside)
    loaded = load_key(key)
    account = loaded.tenant if isinstance(loaded, TenantKey) else None
    kind: Literal["detection", "scan", "trace"]
    unit: Literal["documents", "contexts"] = "documents"
    if isinstance(record, ScanRecord):
        keys, held = keys_of_scan(record), held_of_scan(record, loaded)
        differences = _recompute_scan(record, key, tokenizer, report, inputs)
        kind, count = "scan", record.documents
    elif isinstance(record, TraceRecord):
        keys = [h.key for h in record.hypotheses]
        ring = ring_on_record(key, record.spec, keys)
        held = held_keys(record.spec, ring)
        differences = _recompute_trace(record, ring, report)
        kind, unit, count = "trace", "contexts", record.contexts
    else:
        keys = keys_on_record(record)
        ring = ring_on_record(key, record.spec, keys)
        held = held_keys(record.spec, ring)
        differences = _recompute_detection(record, ring, tokenizer, report, inputs)
        kind, count = "detection", len(record.documents)
    left = [name for name in keys if name not in held]
    found = Recomputed(
        path=str(report),
        report=kind,
        holds=not differences,
        differences=differences,
        unit=unit,
        count=count,
        account=account,
        keys_unchecked=len(left),
    )
    return found, left


def _recompute_scan(
    record: ScanRecord, key: str, tokenizer: str | None, report: Path, inputs: Path | None
) -> list[str]:
    if tokenizer is None and any(source.kind != "tokens" for source in record.inputs):
        tokenizer = str(model_folder(None))
    engine = make_engine("local", None, None)
    return recompute_scan(
        record, absolute_source(key), tokenizer, report, inputs, engine, note=say, progress=StageProgress()
    )


def _recompute_trace(record: TraceRecord, ring: KeyRing, report: Path) -> list[str]:
    doing("computing the trace anew")
    return recompute_trace(record, ring, report.parent)


def _recompute_detection(
    record: Record, ring: KeyRing, tokenizer: str | None, report: Path, inputs: Path | None
) -> list[str]:
    where = tokenizer or model_folder(None)
    doing("computing the detection anew")
    return recompute_detection(record, ring, where, report, inputs)
