"""What both kinds of trace share at their two ends: checks of what was given, and the report that is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from detect.folders.published import Unwritten, replace_report
from detect.keyed.calibration import explanation
from detect.keyed.decoys import log10_control_limit
from detect.keyed.owners import keys_to_test
from detect.records.how_to_check import in_words
from detect.records.made import made_by, now
from detect.records.reading import encode_record
from detect.records.report import versions
from detect.records.scan import FileHash
from detect.records.trace import Control, TraceRecord
from detect.records.trace_assumptions import assumptions
from detect.student.verdict.conclude import Conclusion, conclude
from detect.student.verdict.evidence import EVIDENCE_FILE, Basis, Evidence, TraceSettings, encode_evidence
from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, check_key, check_tokenizer


def check_traceable(spec: WatermarkSpec, ring: KeyRing, tokenizer: Any) -> None:
    """Raise DyetraceError unless key and tokenizer are the spec's, and there is a key that a student can reveal."""
    check_key(spec, ring.master_fingerprint)
    check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    if spec.context_width < 1:
        raise DyetraceError("a spec without a context (context_width 0) marks token types, which no student reveals")
    keys_to_test(spec, ring)


def failed_control(models: Sequence[Control]) -> str | None:
    """Why a control forbids a verdict: where no mark can be it must not be found, their number paid for."""
    if not models:
        return None
    limit = log10_control_limit(len(models))
    worst = min(models, key=lambda control: control.log10_pvalue)
    if worst.log10_pvalue > limit:
        return None
    said = f"p = 10^{worst.log10_pvalue:.1f}"
    if worst.what == "placebo key":
        return (
            f"the same trace finds the placebo key's mark ({said}), which was never served to anybody: what is "
            "measured here is not training (a model that copies, looks ahead or was loaded wrongly; or texts chosen by "
            "answers)"
        )
    if worst.what == "control model":
        return (
            f"the same trace finds the mark in the control model {worst.model.name} ({said}): either it has seen the "
            "mark and is no control, or the trace accuses the innocent"
        )
    return (
        f"the same trace finds the mark in {worst.model.name} in the suspect's place ({said}): a reference that has "
        "seen the mark takes the suspect's away, so compare with another, or trace without one"
    )


def leans_away(found: Conclusion, readout: str, alpha: float) -> str | None:
    """Why a suspect that leans away from a key, compared with a reference, gets no verdict.

    It may have had the mark subtracted too far; or the reference learnt the mark, and then any suspect leans away from
    it. No control tells the two apart for certain: what the reference is compared with may have learnt the same.
    """
    away = [h for h in found.hypotheses if h.log10_pvalue_lower < h.log10_pvalue]
    if readout != "reference" or all(h.log10_pvalue_adjusted > math.log10(alpha) for h in away):
        return None
    return (
        "the suspect leans away from the key's words when it is compared with its reference: either a mark was "
        "subtracted from it, or the reference itself learnt the mark; trace with --readout entropy, which needs no "
        "reference"
    )


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
        As for `detect.student.verdict.conclude.conclude`.
    seen
        The fields of the record that this kind of trace knows alone. ``models`` are the controls by other models;
        ``objection`` says why the way in which the evidence was gathered allows no verdict, ``acquittal`` why it allows
        none that nothing was found, ``made`` who makes the report.
    """
    models: list[Control] = seen.pop("models", [])
    objection, acquittal = seen.pop("objection", None), seen.pop("acquittal", None)
    made = seen.pop("made", None) or made_by()
    objection = failed_control(models) or objection
    found = conclude(evidence, spec, ring, basis, settings, objection)
    withheld = None
    if found.found:
        withheld = leans_away(found, seen["readout"], settings.alpha)
    elif found.refused is None:
        withheld = acquittal
    if withheld is not None:
        found = conclude(evidence, spec, ring, basis, settings, withheld)
    data = encode_evidence(evidence)
    record = TraceRecord(
        created=now(),
        versions=versions(),
        spec=msgspec.json.decode(spec.canonical_json, type=WatermarkSpec),
        spec_id=spec.spec_id,
        key_fingerprint=ring.master_fingerprint,
        alpha=settings.alpha,
        sided=settings.sided,
        basis=basis,
        contexts=evidence.contexts,
        hypotheses=found.hypotheses,
        identified=found.identified,
        together=found.together,
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
        made=made,
        **seen,
    )
    record = msgspec.structs.replace(record, assumptions=assumptions(record), how_to_check=in_words(record))
    try:
        replace_report(output, {EVIDENCE_FILE: data, "report.json": encode_record(record)})
    except DyetraceError as error:
        raise Unwritten(record, str(error)) from None
    return record
