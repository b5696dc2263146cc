"""Whether a server marks its answers as it should: each check with its reason, and a verdict for a run book."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from detect.laws.multiplicity import sidak_log10
from detect.records.how_to_check import in_words
from detect.records.key_name import KeyName
from detect.records.made import made_by
from detect.records.report import versions
from detect.records.server_check import AnswerFound, Check, KeyFound, ServeCheck, Status
from detect.records.text_assumptions import of_serve_check
from detect.records.written import format_level, format_p
from detect.server.answers import Served
from detect.server.evidence import Findings, Keys, examine
from watermark.spec import WatermarkSpec

if TYPE_CHECKING:
    from detect.server.ask import Manner

LOG10_MARKED = -3.0
"""An answer is marked by itself at or below this."""
_UNMARKED = 0.1  # an answer whose p is above this looks unmarked,
_LOG10_TELLING = -6.0  # if as much evidence a tuple as in the marked ones would have taken it here
_TOLERATED = 0.05  # share of such answers: marked text can have little entropy for once
_LOG10_WEAK = -2.0
_FEWEST = 50  # tuples from which on the lack of a mark says something,
_OF_EACH = 6  # beside those that each answer spends on the choice among its sub-keys: log 4 nats at 0.23 a tuple
SHORT = 16
"""Tokens below which two samples may well be the same."""


def judge(found: Findings, alpha: float) -> list[Check]:
    """The checks that say whether the mark is there."""
    tested = sum(answer.tuples > 0 for answer in found.answers)
    return [*_keys(found.keys, tested, alpha), _others(found.others, alpha), _each_answer(found.answers)]


def conclude(
    spec: WatermarkSpec,
    keys: Keys,
    served: Sequence[Served],
    lacking: Sequence[str],
    special: Sequence[Check],
    alpha: float,
    manner: Manner,
    endpoint: str,
    created: str,
) -> ServeCheck:
    """The record of a check.

    Parameters
    ----------
    served, lacking
        Answers, and why others could not be had.
    special
        Lines on special requests (`detect.server.special`).
    manner, endpoint
        How was asked, and what answered.
    """
    found = examine(spec, keys, served)
    answered = max(Counter(text.part for text in served).values(), default=0)
    checks = [*judge(found, alpha), *_lacking(lacking, answered), *special]
    record = ServeCheck(
        created=created,
        versions=versions(),
        made=made_by(),
        url=manner.url,
        model=manner.model,
        endpoint=endpoint,
        spec=spec,
        spec_id=spec.spec_id,
        scheme=spec.scheme,
        epoch=spec.epoch,
        key_fingerprint=keys.ring.master_fingerprint,
        tenant=manner.tenant,
        alpha=alpha,
        temperature=manner.temperature,
        max_tokens=manner.max_tokens,
        token_ids="server" if all(answer.exact for answer in served) else "text",
        keys=found.keys,
        answers=found.answers,
        others=found.others,
        checks=checks,
        verdict=verdict(checks, found.keys, manner.tenant),
        assumptions=of_serve_check(len({answer.prompt for answer in served}), len(served)),
    )
    return msgspec.structs.replace(record, how_to_check=in_words(record))


def _lacking(lacking: Sequence[str], had: int) -> list[Check]:
    if not lacking:
        return []
    reason = f"{len(lacking)} of {len(lacking) + had} could not be had ({max(set(lacking), key=lacking.count)})"
    return [Check(name="answers", status="OPEN" if len(lacking) > had else "NOTE", reason=reason)]


def verdict(checks: Sequence[Check], keys: Sequence[KeyFound], tenant: str | None) -> str:
    """The checks in a few words."""
    failed = [check.name for check in checks if check.status == "FAIL"]
    left_open = [check.name for check in checks if check.status == "OPEN"]
    named = [check.name for check in checks[: len(keys)]]
    missing = [name for name in named if name in failed]
    unsure = [name for name in named if name in left_open]
    shown = len(named) - len(missing) - len(unsure)
    if missing:
        return f"MARKED, BUT NOT BY THE KEY OF {missing[0]}" if tenant and shown else "NOT MARKED"
    if "other keys" in failed:
        return "MARKED BY A KEY THAT SHOULD SHOW NOTHING"
    if unsure:
        known = "CAN'T TELL" if not shown else f"MARKED, BUT CAN'T TELL OF {unsure[0]}"
        return known + (f", AND NOT WELL: {', '.join(failed)}" if failed else "")
    if "each answer" in failed:
        return "PARTLY UNMARKED"
    if failed:
        return f"MARKED, BUT NOT WELL: {', '.join(failed)}"
    if left_open:
        return "MARKED, BUT TOO FEW ANSWERS CAME TO TELL OF ALL"
    return "MARKED" if tenant is None else f"MARKED, for account {tenant}"


def _keys(keys: Sequence[KeyFound], answers: int, alpha: float) -> list[Check]:
    limit = math.log10(alpha)
    by_global = any(KeyName.read(found.key).is_global and found.log10_pvalue <= limit for found in keys)
    checks = []
    for found in keys:
        key = KeyName.read(found.key)
        nats = -found.log10_pvalue * math.log(10) / max(1, found.tuples)
        reason = f"p = {format_p(found.log10_pvalue)} over {found.tuples:,} tuples ({nats:.2f} nats a tuple)"
        status: Status = "PASS"
        if found.log10_pvalue > limit:
            reason += f", {format_level(alpha)} is needed"
            status = "OPEN"
            if found.tuples < _FEWEST + _OF_EACH * answers:
                reason += "; too few tuples to tell: ask for more by --count or --max-tokens"
            elif found.log10_pvalue <= _LOG10_WEAK:
                reason += "; a weak mark, or chance: ask for more by --count, or for less predictable text"
            else:
                status = "FAIL"
                reason += "; there is no mark, or there was next to nothing to choose"
            if status == "FAIL" and not key.is_global and by_global:
                reason += "; the global mark is there: does the request's dyetrace_tenant reach the hook?"
        name = "global key" if key.is_global else f"account {key.tenant}"
        checks.append(Check(name=name, status=status, reason=reason))
    return checks


def _others(others: dict[str, float], alpha: float) -> Check:
    paid = sidak_log10(list(others.values()))
    best = min(others, key=lambda name: others[name])
    if paid > math.log10(alpha):
        reason = f"nothing under {len(others)} of them: the smallest p is {format_p(paid)}, all paid for"
        return Check(name="other keys", status="PASS", reason=reason)
    reason = f"{best} shows a mark: p = {format_p(paid)}, all {len(others)} paid for"
    return Check(name="other keys", status="FAIL", reason=reason)


def _each_answer(answers: Sequence[AnswerFound]) -> Check:
    tested = [answer for answer in answers if answer.tuples]
    marked = [answer for answer in tested if answer.log10_pvalue <= LOG10_MARKED]
    reason = f"{len(marked)} of {len(tested)} marked by themselves at p <= {10**LOG10_MARKED:g}"
    if not marked:
        return Check(name="each answer", status="NOTE", reason=reason)
    rate = float(np.median([answer.log10_pvalue / answer.tuples for answer in marked]))
    telling = [answer for answer in tested if rate * answer.tuples <= _LOG10_TELLING]
    bare = sum(answer.log10_pvalue > math.log10(_UNMARKED) for answer in telling)
    if not telling:
        return Check(name="each answer", status="NOTE", reason=reason + "; all too short to tell one by one")
    share = 1 - min(1.0, bare / (1 - _UNMARKED) / len(telling))
    reason += f"; of {len(telling)} long enough to tell, {bare} look unmarked (about {share:.0%} of answers marked)"
    status: Status = "PASS" if not bare else "FAIL" if bare > max(1, _TOLERATED * len(telling)) else "NOTE"
    return Check(name="each answer", status=status, reason=reason)
