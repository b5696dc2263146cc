"""What the type of a record of twins allows and no test by twins writes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from detect.records.twins import NEEDED_KINDS, LawTest, TwinRecord


def contradictions(record: TwinRecord) -> Iterator[str]:
    """Yield them, a few words each."""
    if not 0 < record.alpha < 1:
        yield f"alpha must lie in (0, 1) (got {record.alpha})"
    if (record.log10_pvalue is None) != (record.refused is not None):
        yield "it must have either a p-value or a reason why it has none"
    if record.refused is not None and (record.found or record.identified):
        yield "no answer is given, and yet the suspect is found to prefer served answers or an account is named"
    if (record.mode == "api") != (record.queries is not None):
        yield "a test of an endpoint must say what was asked, and no other may"
    if record.plan is None:
        yield "it has no plan, which says which pairs were to be bet on"
    if record.mode == "weights" and record.ask != "logprobs":
        yield f"weights give log-probabilities, and this says that {record.ask} were read of them"
    if (record.level == "regenerated") != (record.law is not None):
        yield "twins that were drawn later need a law test, and no others have one"
    if record.shown and not record.quotes:
        yield "it quotes nothing, and yet it shows pairs"
    for where, log10_p in _pvalues(record):
        if not log10_p <= 0:
            yield f"the log10 p-value of {where} must be 0 or less (got {log10_p})"
    if record.share is not None and not record.share.is_sound:
        yield "share must be an interval within 0 .. 1 with its estimate in it"
    yield from _of_counts(record)
    yield from _of_accounts(record)
    if record.law is not None:
        yield from _of_law(record.law)
        if record.law.veto is not None and record.refused is None:
            yield "the law test has a veto, and yet an answer is given"


def _pvalues(record: TwinRecord) -> Iterator[tuple[str, float]]:
    if record.log10_pvalue is not None:
        yield "the record", record.log10_pvalue
    yield from ((f"measure {found.name!r}", found.log10_pvalue) for found in record.measures)
    yield from (
        (f"the curve at {point.count:,}", point.log10_pvalue)
        for point in record.curve
        if point.log10_pvalue is not None
    )
    if record.law is not None:
        yield from ((f"control {control.name!r}", control.log10_pvalue) for control in record.law.controls)


def _of_counts(record: TwinRecord) -> Iterator[str]:
    pairs = record.pairs
    if min(pairs.tied, pairs.follow_ups, pairs.erased, pairs.silent, record.ledger.pairs) < 0:
        yield "a count of pairs is below 0"
    if not pairs.silent <= pairs.asked <= pairs.used:
        yield f"{pairs.silent:,} pairs were silent of {pairs.asked:,} asked of {pairs.used:,} planned"
    if not pairs.used + pairs.tied + pairs.follow_ups <= pairs.sampled <= pairs.eligible:
        yield f"{pairs.used:,} pairs were planned of {pairs.sampled:,} sampled of {pairs.eligible:,} eligible"
    if max(pairs.eligible, pairs.erased) > record.ledger.pairs:
        yield f"the ledger holds {record.ledger.pairs:,} pairs, which is fewer than are counted"
    for found in record.measures:
        if min(found.wins, found.losses, found.ties) < 0 or found.wins + found.losses + found.ties != pairs.asked:
            yield f"measure {found.name!r} has {found.wins:,}, {found.losses:,} and {found.ties:,} of {pairs.asked:,}"
    if not record.measures:
        yield "it has no measure"
    steps = [0, *(point.count for point in record.curve)]
    if any(after <= before for before, after in itertools.pairwise(steps)) or steps[-1] > pairs.asked:
        yield "the curve's counts must ascend to the number of pairs asked"
    asked = record.queries
    if asked is not None and min(asked.requests, asked.answers, asked.prompt_tokens, asked.completion_tokens) < 0:
        yield "a count of requests, answers or tokens is below 0"
    if asked is not None and (asked.texts or asked.without_logprobs or asked.unusable or asked.refused):
        yield "replies are said to be read as a trace reads whole answers"
    if asked is not None and asked.looks:
        yield "it may be looked at after any pair, and yet moments of looking are said to be fixed"


def _of_accounts(record: TwinRecord) -> Iterator[str]:
    names = [found.account for found in record.accounts]
    if any(after <= before for before, after in itertools.pairwise(names)):
        yield "accounts must stand once each, in the order of their names"
    unknown = sorted({*record.identified} - {*names})
    if unknown:
        yield f"identified names account {unknown[0]!r}, which was not looked at"
    for found in record.accounts:
        if min(found.wins, found.losses) < 0 or found.wins + found.losses > found.pairs:
            yield f"account {found.account!r} has {found.wins:,} and {found.losses:,} of {found.pairs:,} pairs"
    if sum(found.pairs for found in record.accounts) > record.pairs.asked:
        yield "the accounts have more pairs than were asked about"


def _of_law(law: LawTest) -> Iterator[str]:
    if not (0 <= law.bias < 0.5 and math.isfinite(law.bias)):
        yield f"law.bias must lie in 0 .. 0.5 (got {law.bias})"
    if law.veto is None:
        bounding = {control.kind for control in law.controls if control.bounds}
        yield from (
            f"the law test has no veto, and no control that bounds the bias is {what}"
            for kind, what in NEEDED_KINDS.items()
            if kind not in bounding
        )
    for control in law.controls:
        if min(control.wins, control.losses) < 0 or control.wins + control.losses > control.pairs:
            yield f"control {control.name!r} has {control.wins:,} and {control.losses:,} of {control.pairs:,} pairs"
        if not 0 <= control.bias_upper <= 0.5:
            yield f"the bias of control {control.name!r} must lie in 0 .. 0.5 (got {control.bias_upper})"
