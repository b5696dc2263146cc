"""The specs that a report names: they have their ids, and are of the key and the commitment on record."""

from __future__ import annotations

from detect.records.how_to_check import KeyedRecord, specs_of
from detect.records.race import RaceRecord
from detect.records.trace import TraceRecord
from detect.report.verify.checks import refuse
from detect.report.verify.dates import after
from watermark.commitment import COMMITMENT_VERSION


def specs(record: KeyedRecord) -> str:
    """The specs have the ids on record."""
    known = dict(specs_of(record))
    for ident, spec in known.items():
        if spec.spec_id != ident:
            refuse(f"a spec has id {spec.spec_id}, but the record says {ident}")
        if spec.key_fingerprint != record.key_fingerprint:
            refuse(f"spec {ident} is of key {spec.key_fingerprint}, but the record of {record.key_fingerprint}")
    commitment = record.commitment
    if commitment is None:
        return "the spec has the id on record"
    if commitment.version != COMMITMENT_VERSION:
        refuse(f"the commitment on record has version {commitment.version}, which no release writes")
    if commitment.spec_id not in known or commitment.key_fingerprint != record.key_fingerprint:
        refuse("the commitment on record is of another spec or key")
    return "the spec has the id on record, and the commitment is of it"


def spec_before_it(record: TraceRecord | RaceRecord) -> str:
    """The spec has the id on record and is of the key on record; its commitment is older than the report."""
    line = specs(record)
    if record.commitment is not None and after(record.commitment.created, record.created):
        refuse("the commitment on record is younger than the trace")
    return line


def stated(record: KeyedRecord, **values: object) -> None:
    """Refuse where an argument on record is not what the record goes by."""
    for name, value in values.items():
        if record.arguments.get(name, value) != value:
            refuse(f"argument {name} was {record.arguments[name]!r}, but the record goes by {value!r}")
