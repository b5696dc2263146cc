"""The words and numbers of a trace that its terminal view, its page and its PDF share. Every string is untrusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from detect.keyed.decoys import log10_control_limit
from detect.records.key_name import KeyName
from detect.records.trace import ReadoutResult, TraceHypothesis, TraceRecord
from detect.records.written import coin_tosses, key_phrase
from detect.report.controls import decoys_line, limit_note
from detect.report.runs import Runs, e_value, p_value, runs
from detect.student.verdict.conclude import one_of_them

RECOMPUTE = "dyetrace recompute report.json --key file:KEYFILE"
VERIFY = "dyetrace report verify report.json --public-key OWNER.pub"
AIM = -10.0
"""log10 p to which readouts are compared."""
_Z_AT_AIM = 6.361340902404  # of the standard normal distribution's upper tail at 10^AIM
_NAMED = 4  # tenants or models named in a sentence; more are counted


@dataclass(frozen=True, slots=True)
class Answer:
    """What the trace says of the suspect.

    Attributes
    ----------
    kind
        "marked", "unmarked" or "refused".
    headline
        A sentence for a line of its own.
    against
        Whether the suspect leans away from the key's words, as after a mark that was subtracted too far.
    tosses
        Coin tosses as unlikely as the p-value.
    """

    kind: Literal["marked", "unmarked", "refused"]
    headline: str
    against: bool
    tosses: int


def answer(record: TraceRecord) -> Answer:
    """Put the record's answer into words."""
    if record.log10_pvalue is None:
        return Answer("refused", "No answer is given.", False, 0)
    tosses = coin_tosses(record.log10_pvalue)
    if not record.found:
        return Answer("unmarked", "No mark was found in this model.", False, tosses)
    if leans_against(record, strongest_keys(record)[0]):
        return Answer("marked", "The mark was found in this model, turned against itself.", True, tosses)
    return Answer("marked", "The mark was found in this model.", False, tosses)


def leans_against(record: TraceRecord, h: TraceHypothesis) -> bool:
    """Whether the key's test rests on a total that is too small."""
    return record.sided == "two-sided" and h.log10_pvalue_lower < h.log10_pvalue


def strongest_keys(record: TraceRecord) -> list[TraceHypothesis]:
    """The keys tested, smallest p-value first."""
    return sorted(record.hypotheses, key=lambda h: (h.log10_pvalue_adjusted, h.log10_pvalue_tested, h.log10_pvalue))


def tenants_tested(record: TraceRecord) -> list[TraceHypothesis]:
    """The accounts' keys among those tested."""
    return [h for h in record.hypotheses if not KeyName.read(h.key).is_global]


def deviations(h: TraceHypothesis) -> float:
    """How many standard deviations the total lies above its mean."""
    return (h.total - h.expected) / h.sd if h.sd > 0 else 0.0


def phrase(record: TraceRecord, h: TraceHypothesis) -> str:
    """Name a key in a sentence: "the global key", "the key of tenant acme"; "this key" where it is the only one."""
    return "this key" if len(record.hypotheses) == 1 and h.key == "global" else key_phrase(h.key)


def names(given: Sequence[str], more: str) -> list[Runs]:
    """The first few names, the rest counted: "and 12 more tenants"."""
    shown = [runs("$name", name=name) for name in given[:_NAMED]]
    if len(given) > _NAMED:
        shown.append(runs(f"$n more {more}", n=len(given) - _NAMED))
    return shown


def identification(record: TraceRecord) -> str:
    """Who is identified. Reports of dyetrace 0.1.0 named a group where nobody was; such names are not repeated."""
    if not record.coalitions or record.identified:
        return record.identification
    log10_p = record.coalitions[0].log10_pvalue_adjusted
    return one_of_them(len(tenants_tested(record)), log10_p, bound=record.basis == "e-value")


def unit(record: TraceRecord) -> str:
    """What the evidence curve counts."""
    return "answers" if record.mode == "api" else "contexts"


def number(value: float, digits: int = 2) -> str:
    """Write a small number with so many digits that count."""
    return f"{value:.{digits}g}" if 1e-4 <= abs(value) < 1e6 or value == 0 else f"{value:.{digits - 1}e}"


def signed(value: float) -> str:
    """Write standard deviations: "+12.3", "-0.4" (with a hyphen: the text goes to terminals too)."""
    return f"{value:+.1f}"


def needed(z: float, contexts: int) -> int | None:
    """Contexts at which p = 10^-10 is expected, z^2 growing with their number; None where z is not above 0."""
    return None if z <= 0 or contexts == 0 else math.ceil(contexts * (_Z_AT_AIM / z) ** 2)


def readouts(record: TraceRecord) -> list[tuple[bool, ReadoutResult]]:
    """The readouts, the one that needs the fewest contexts first, and whether it is the verdict's own."""
    rows = [(result.readout == record.readout, result) for result in record.comparisons]
    if not any(own for own, _ in rows) and record.hypotheses:
        first = record.hypotheses[0]
        z = deviations(first)
        own = ReadoutResult(
            readout=record.readout,
            contexts=first.contexts,
            z=z,
            log10_pvalue=None if record.basis == "e-value" else first.log10_pvalue,
            contexts_needed=needed(z, first.contexts),
        )
        rows.append((True, own))
    return sorted(rows, key=lambda row: (row[1].contexts_needed or math.inf, -row[1].z, row[1].readout))


def target(record: TraceRecord) -> float | None:
    """log10 p at which asking was to stop, where the arguments have it."""
    for name in ("target_log10_p", "target"):
        value = record.arguments.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and -1e6 < value < 0:
            return float(value)
    return None


def decoys_beside(record: TraceRecord) -> float | None:
    """log10 p of the first key, to be seen beside the decoys'; None where it may not be shown."""
    if record.refused is not None or not record.hypotheses:
        return None
    return record.hypotheses[0].log10_pvalue_tested


def control_lines(record: TraceRecord) -> list[tuple[bool, Runs]]:
    """What each control says: whether it is as it should be, and a line that is plain ASCII but for names."""
    controls = record.controls
    lines = []
    decoys = len(controls.decoy_log10_pvalues)
    if decoys:
        lines.append(decoys_line(decoys, controls.decoy_log10_agreement))
    else:
        lines.append((False, runs("no decoy keys were run")))
    limit = log10_control_limit(len(controls.models))
    for control in controls.models:
        sound = control.log10_pvalue > limit
        at_most = "p <= $p" if record.basis == "e-value" or control.what == "placebo key" else "p = $p"
        line = runs(
            f"$what ($name): e = $e, {at_most}$limit",
            what=control.what,
            name=control.model.name,
            p=p_value(control.log10_pvalue),
            e=e_value(control.log10_evalue),
            limit=limit_note(sound, len(controls.models)),
        )
        lines.append((sound, line))
    if not controls.models:
        lines.append((False, runs("no other model was put in the suspect's place")))
    return lines
