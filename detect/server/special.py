"""What a server makes of requests that a hook has to treat with care: greedy, several samples, opting out, seeds.

Where the operator's own policy decides (``on_unmarkable``, ``allow_off``), the line says what happened and no more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from detect.records.server_check import Check, Status
from detect.records.written import format_p
from detect.server.answers import Refused, Served, Special
from detect.server.check import LOG10_MARKED, SHORT
from detect.server.evidence import Keys, fresh_tuples, weigh
from detect.student.asking.fields import SETTINGS, in_words
from watermark.spec import WatermarkSpec

Outcome = list[Served] | Refused
_EMPTY = "an empty answer"


def judge_special(spec: WatermarkSpec, keys: Keys, special: Special) -> list[Check]:
    """A line for each of the special requests that were made."""
    checks = []
    if special.greedy is not None:
        checks.append(_line("temperature 0", *_greedy(spec, keys, special.greedy)))
    if special.samples is not None:
        checks.append(_line("n = 3", *_samples(spec, special.samples)))
    if special.opted_out is not None:
        checks.append(_line("opting out", *_opted_out(spec, keys, special.opted_out)))
    if special.seeded is not None:
        checks.append(_line("seed", *_seeded(*special.seeded)))
    return checks


def judge_settings(left_out: Collection[str], refusals: Sequence[str]) -> list[Check]:
    """A line for settings that no request had; none where all had all.

    Parameters
    ----------
    left_out
        These settings, and what else the server takes no notice of.
    refusals
        What the server said of those that it refuses.
    """
    settings = [name for name in left_out if name in SETTINGS]
    if not settings:
        return []
    said = f"; it refuses them: {'; '.join(refusals)}" if refusals else ", as was asked for"
    own = "; answers are drawn at the server's own temperature" if "temperature" in settings else ""
    return [_line("settings", "NOTE", f"{in_words(settings)}{own}{said}")]


def _line(name: str, status: Status, reason: str) -> Check:
    return Check(name=name, status=status, reason=reason)


def _log10_p(spec: WatermarkSpec, keys: Keys, served: list[Served]) -> float:
    """Of one answer, over the keys; 0 where there is nothing to test."""
    ps = weigh(spec, keys.ring, fresh_tuples(spec, served)).by_answer()
    return float(ps.min(initial=0.0))


def _greedy(spec: WatermarkSpec, keys: Keys, outcome: Outcome) -> tuple[Status, str]:
    samples = spec.build_scheme().samples
    if isinstance(outcome, Refused):
        if samples:
            return "PASS", f"refused, for there is nothing to choose ({outcome.says})"
        return "NOTE", f"refused, though {spec.scheme} could mark it ({outcome.says})"
    if not outcome:
        return "NOTE", _EMPTY
    log10_p = _log10_p(spec, keys, outcome)
    p = format_p(log10_p)
    if log10_p <= LOG10_MARKED:
        return "PASS", f"served and marked (p = {p})"
    if samples:
        return "NOTE", f"served unmarked (p = {p}): the hook's setting on_unmarkable is 'pass', or there is no hook"
    return "NOTE", f"served; one answer's mark does not show (p = {p})"


def _samples(spec: WatermarkSpec, outcome: Outcome) -> tuple[Status, str]:
    if isinstance(outcome, Refused):
        if spec.build_scheme().samples and spec.subkeys < 3:
            return "PASS", f"refused, for the spec has fewer sub-keys ({outcome.says})"
        return "NOTE", f"refused ({outcome.says})"
    if len(outcome) < 3:
        return "NOTE", f"{len(outcome)} of 3 samples came: the server does not know n, or some were empty"
    if len({answer.ids.tobytes() for answer in outcome}) == len(outcome):
        return "PASS", "3 samples of one prompt, all different"
    if min(len(answer.ids) for answer in outcome) < SHORT:
        return "NOTE", "samples of one prompt are the same, but they are short"
    return "FAIL", "samples of one prompt repeat each other: do they get sub-keys of their own?"


def _opted_out(spec: WatermarkSpec, keys: Keys, outcome: Outcome) -> tuple[Status, str]:
    if isinstance(outcome, Refused):
        return "PASS", f"refused ({outcome.says})"
    if not outcome:
        return "NOTE", _EMPTY
    log10_p = _log10_p(spec, keys, outcome)
    if log10_p <= LOG10_MARKED:
        return "PASS", f"ignored: served and marked all the same (p = {format_p(log10_p)})"
    return "NOTE", f"honoured: served without a mark (p = {format_p(log10_p)}); is allow_off what you want?"


def _seeded(first: Outcome, second: Outcome) -> tuple[Status, str]:
    for outcome in (first, second):
        if isinstance(outcome, Refused):
            return "NOTE", f"refused ({outcome.says})"
        if not outcome:
            return "NOTE", _EMPTY
    assert not isinstance(first, Refused) and not isinstance(second, Refused)
    if np.array_equal(first[0].ids, second[0].ids):
        return "PASS", "the same request with the same seed gave the same answer"
    length = min(len(first[0].ids), len(second[0].ids))
    same = int(np.cumprod(first[0].ids[:length] == second[0].ids[:length]).sum())
    return "NOTE", f"the same request with the same seed gave another answer after {same} tokens"
