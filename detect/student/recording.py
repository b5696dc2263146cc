"""What both kinds of trace share at their two ends: checks of what was given, and the report that is written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from detect.calibration import explanation
from detect.corpus.record import FileHash
from detect.evidence import versions
from detect.student.conclude import conclude, keys_to_test
from detect.student.evidence import EVIDENCE_FILE, Basis, Evidence, TraceSettings, encode_evidence
from detect.student.record import TraceRecord
from watermark.errors import DyetraceError
from watermark.files import write_atomically
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec, check_key, check_tokenizer
from watermark.tokenizer import tokenizer_fingerprint, vocabulary_size


def check_traceable(spec: WatermarkSpec, ring: KeyRing, tokenizer: Any) -> None:
    """Raise DyetraceError unless key and tokenizer are the spec's, and there is a key that a student can reveal."""
    check_key(spec, ring.master_fingerprint)
    check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    if spec.context_width < 1:
        raise DyetraceError("a spec without a context (context_width 0) marks token types, which no student reveals")
    keys_to_test(spec, ring)


def write_report(
    output: Path,
    evidence: Evidence,
    spec: WatermarkSpec,
    ring: KeyRing,
    basis: Basis,
    settings: TraceSettings,
    **seen: Any,
) -> TraceRecord:
    """Conclude from the evidence, and write it and the record to ``output``.

    Parameters
    ----------
    output
        Folder.
    evidence, spec, ring, basis, settings
        As for `detect.student.conclude.conclude`.
    seen
        The fields of the record that this kind of trace knows alone. ``models`` are the controls by other models.
    """
    found = conclude(evidence, spec, ring, basis, settings)
    data = encode_evidence(evidence)
    models = seen.pop("models", [])
    record = TraceRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        spec=msgspec.json.decode(spec.canonical_json, type=WatermarkSpec),
        spec_id=spec.spec_id,
        key_fingerprint=ring.master_fingerprint,
        alpha=settings.alpha,
        sided=settings.sided,
        basis=basis,
        contexts=evidence.contexts,
        hypotheses=found.hypotheses,
        coalitions=found.coalitions,
        identified=found.identified,
        identification=found.identification,
        log10_pvalue=found.log10_pvalue,
        log10_evalue=found.log10_evalue,
        refused=found.refused,
        found=found.found,
        curve=found.curve,
        power=found.power,
        controls=msgspec.structs.replace(found.controls, models=models),
        files=[FileHash.of(EVIDENCE_FILE, data)],
        calibration=explanation(spec.build_scheme(), by_rank=True),
        **seen,
    )
    from detect.report.trace_schema import write_trace

    write_atomically(output / EVIDENCE_FILE, data)
    write_trace(output / "report.json", record)
    return record
