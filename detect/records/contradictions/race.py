"""What the type of a record of a race readout allows and no race readout writes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from detect.records.key_name import KeyName, is_key_name
from detect.records.race import RaceRecord

_ROUNDED = 1e-6  # by which a sum of chances may exceed the number of places


def contradictions(record: RaceRecord) -> Iterator[str]:
    """Yield them, a few words each."""
    if not 0 < record.alpha < 1:
        yield f"alpha must lie in (0, 1) (got {record.alpha})"
    if (record.log10_pvalue is None) != (record.refused is not None):
        yield "it must have either a p-value or a reason why it has none"
    if record.refused is not None and (record.found or record.identified):
        yield "no answer is given, and yet the mark is found or an account is named"
    if record.log10_pvalue is not None and not record.log10_pvalue <= 0:
        yield f"the log10 p-value must be 0 or less (got {record.log10_pvalue})"
    if (record.mode == "weights") != (record.ask == "weights"):
        yield f"{record.mode} were at hand, and this says that {record.ask} was read of them"
    if (record.mode == "api") != (record.queries is not None):
        yield "a readout through an endpoint must say what was asked, and no other may"
    if (record.mode == "api") != (record.plan is not None):
        yield "a readout through an endpoint has a plan, and no other has one"
    if record.plan is not None and (record.plan.seed is not None or record.plan.offered):
        yield "a race readout chooses no prompts by a seed, and yet its plan is said to"
    if record.shown and not record.quotes:
        yield "it quotes nothing, and yet it shows places"
    if not record.reading.marked:
        yield "what was read must be answers with the mark"
    yield from _of_counts(record)
    yield from _of_keys(record)
    yield from _of_answers(record)


def _of_counts(record: RaceRecord) -> Iterator[str]:
    counts, reading = record.counts, record.reading
    if min(counts.answers, counts.unheld, counts.silent, reading.documents, reading.tokens, reading.barred) < 0:
        yield "a count of answers, tokens or places is below 0"
    if not counts.silent <= counts.asked <= counts.cuts:
        yield f"{counts.silent:,} places were silent of {counts.asked:,} asked of {counts.cuts:,} planned"
    if counts.cuts + counts.unheld > counts.fresh:
        yield f"{counts.cuts:,} places were planned and {counts.unheld:,} left out of {counts.fresh:,} fresh ones"
    steps = [0, *(point.count for point in record.curve)]
    if any(after <= before for before, after in itertools.pairwise(steps)) or steps[-1] > counts.asked:
        yield "the curve's counts must ascend to the number of places that were bet on"
    if any(point.log10_pvalue is not None for point in record.curve):
        yield "the curve has p-values, and the bets have none"
    asked = record.queries
    if asked is None:
        return
    if min(asked.requests, asked.answers, asked.prompt_tokens, asked.completion_tokens, asked.before_plan) < 0:
        yield "a count of requests, replies or tokens is below 0"
    if asked.texts or asked.without_logprobs or asked.unusable or asked.refused:
        yield "replies are said to be read as a trace reads whole answers"
    if asked.looks:
        yield "it may be looked at after any place, and yet moments of looking are said to be fixed"


def _of_keys(record: RaceRecord) -> Iterator[str]:
    if not record.hypotheses:
        yield "it tests no key"
    twice = [key for key, count in Counter(found.key for found in record.hypotheses).items() if count > 1]
    if twice:
        yield f"key {twice[0]!r} is tested twice"
    for i, found in enumerate(record.hypotheses):
        if not is_key_name(found.key) or KeyName.read(found.key).of_spec:
            yield f"hypotheses[{i}] has key {found.key!r}, which is neither 'global' nor 'tenant:NAME'"
        if found.log10_pvalue is not None and not found.log10_pvalue <= 0:
            yield f"the log10 p-value of hypotheses[{i}] must be 0 or less (got {found.log10_pvalue})"
        yield from _of_hits(f"hypotheses[{i}]", found.cuts, found.hits, found.expected)
    if sum(found.cuts for found in record.hypotheses) > record.counts.asked - record.counts.silent:
        yield "the keys have more places than those where the suspect said something"
    tested = {KeyName.read(found.key).tenant for found in record.accounts}
    unknown = [name for name in record.identified if name not in tested]
    if unknown:
        yield f"identified names account {unknown[0]!r}, which was not tested"
    if len(set(record.identified)) != len(record.identified):
        yield "identified names an account twice"


def _of_answers(record: RaceRecord) -> Iterator[str]:
    for i, lit in enumerate(record.lit):
        if not lit.log10_evalue > 0:
            yield f"lit[{i}] has an e-value of 1 or less"
        yield from _of_hits(f"lit[{i}]", lit.cuts, lit.hits, lit.expected)
    evalues = [lit.log10_evalue for lit in record.lit]
    if any(after > before for before, after in itertools.pairwise(evalues)):
        yield "the answers that light up must stand with the largest e-value first"
    chances = [cut.chance for cut in record.shown]
    if any(not 0 < chance <= 1 for chance in chances):
        yield "the chance of a place that is shown must lie in 0 .. 1"
    if any(after < before for before, after in itertools.pairwise(chances)):
        yield "the places that are shown must stand with the smallest chance first"


def _of_hits(where: str, cuts: int, hits: float, expected: float) -> Iterator[str]:
    # Under green_list the key's weight on a word may be above 1; a count of hits is held against the evidence.
    if cuts < 0 or not (0 <= hits < math.inf and 0 <= expected <= cuts + _ROUNDED):
        yield f"{where} has {hits:g} hits where {expected:g} are expected, of {cuts:,} places"
