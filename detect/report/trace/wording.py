"""Words and numbers that several parts of a trace's story share. Every string is untrusted."""

from __future__ import annotations

import math

from detect.records.trace import ReadoutResult, TraceHypothesis, TraceRecord, contexts_needed
from detect.records.written import key_phrase
from detect.report import controls
from detect.report.runs import e_value, p_value, runs
from detect.report.story import Item
from detect.student.verdict.conclude import one_of_them


def strongest_keys(record: TraceRecord) -> list[TraceHypothesis]:
    """The keys tested, smallest p-value first."""
    return sorted(record.hypotheses, key=lambda h: (h.log10_pvalue_adjusted, h.log10_pvalue_tested, h.log10_pvalue))


def leans_against(record: TraceRecord) -> bool:
    """Whether the strongest key's test rests on a total that is too small, as after a mark that was subtracted."""
    best = strongest_keys(record)[0]
    return record.sided == "two-sided" and best.log10_pvalue_lower < best.log10_pvalue


def phrase(record: TraceRecord, h: TraceHypothesis) -> str:
    """Name a key in a sentence: "the global key", "the key of tenant acme"; "this key" where it is the only one."""
    return "this key" if len(record.hypotheses) == 1 and h.key == "global" else key_phrase(h.key)


def identification(record: TraceRecord) -> str:
    """Who is identified. Reports of dyetrace 0.1.0 named a group where nobody was; such names are not repeated."""
    if not record.coalitions or record.identified:
        return record.identification
    log10_p = record.coalitions[0].log10_pvalue_adjusted
    return one_of_them(len(record.accounts), log10_p, bound=record.basis == "e-value")


def number(value: float, digits: int = 2) -> str:
    """Write a small number with so many digits that count."""
    short = 1e-4 <= abs(value) < 1e6 or value == 0
    return (f"{value:.{digits}g}" if short else f"{value:.{digits - 1}e}").replace("-", "\N{MINUS SIGN}")


def signed(value: float, form: str = "+.1f") -> str:
    """Write standard deviations: "+12.3", "−0.4"."""
    return format(value, form).replace("-", "\N{MINUS SIGN}")


def readouts(record: TraceRecord) -> list[tuple[bool, ReadoutResult]]:
    """The readouts, the one that needs the fewest contexts first, and whether it is the verdict's own."""
    rows = [(result.readout == record.readout, result) for result in record.comparisons]
    if not any(own for own, _ in rows) and record.hypotheses:
        first = record.hypotheses[0]
        own = ReadoutResult(
            readout=record.readout,
            contexts=first.contexts,
            z=first.z,
            log10_pvalue=None if record.basis == "e-value" else first.log10_pvalue,
            contexts_needed=contexts_needed(first.z, first.contexts),
        )
        rows.append((True, own))
    return sorted(rows, key=lambda row: (row[1].contexts_needed or math.inf, -row[1].z, row[1].readout))


def control_items(record: TraceRecord) -> list[Item]:
    """What each control says, in plain ASCII but for names."""
    ran = record.controls
    items = [controls.decoys(len(ran.decoy_log10_pvalues), ran.decoy_log10_agreement)]
    for control in ran.models:
        at_most = "<=" if record.basis == "e-value" or control.what == "placebo key" else "="
        line = runs(
            f"$what ($name): e = $e, p {at_most} $p",
            what=control.what,
            name=control.model.name,
            p=p_value(control.log10_pvalue),
            e=e_value(control.log10_evalue),
        )
        items.append(controls.no_mark(line, control.log10_pvalue, len(ran.models)))
    return items if ran.models else [*items, controls.absent("no other model was put in the suspect's place")]
