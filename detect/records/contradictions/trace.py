"""What the type of a trace's record allows and no trace writes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from detect.records.key_name import GLOBAL, KeyName, is_key_name
from detect.records.trace import TraceHypothesis, TraceRecord, tenant_name

_SHARES = 1e-3  # by which the references' shares may miss 1, being rounded


def contradictions(record: TraceRecord) -> Iterator[str]:
    """Yield them, a few words each."""
    if not 0 < record.alpha < 1:
        yield f"alpha must lie in (0, 1) (got {record.alpha})"
    for where, log10_ps in _pvalues(record):
        if not all(log10_p <= 0 for log10_p in log10_ps):
            yield f"log10 p-values of {where} must be 0 or less (got {log10_ps})"
    if (record.log10_pvalue is None) != (record.refused is not None):
        yield "it must have either a p-value or a reason why it has none"
    if record.refused is not None and (record.found or record.identified):
        yield "no answer is given, and yet a mark is found or a tenant named"
    if (record.mode == "api") != (record.queries is not None):
        yield "an endpoint's trace must say what was asked, and no other may"
    if record.mode == "weights" and record.plan is not None:
        yield "a trace of open weights has no plan of queries"
    if record.basis == "p-value" and (record.served_marked or any(reading.marked for reading in record.readings)):
        yield "marked text was read or counted, so that the verdict must rest on the e-value"
    yield from _of_keys(record)
    yield from _of_counts(record)
    yield from _of_share(record)


def _pvalues(record: TraceRecord) -> Iterator[tuple[str, list[float]]]:
    yield "the record", [p for p in (record.log10_pvalue,) if p is not None]
    yield "the decoys", [*record.controls.decoy_log10_pvalues, record.controls.decoy_log10_agreement]
    for i, h in enumerate(record.hypotheses):
        tails = [h.log10_pvalue, h.log10_pvalue_lower, h.log10_pvalue_tested, h.log10_pvalue_adjusted]
        yield f"hypotheses[{i}]", tails
    for i, c in enumerate(record.coalitions):
        yield f"coalitions[{i}]", [c.log10_pvalue, c.log10_pvalue_adjusted]
    yield "all accounts together", [p for p in (record.together,) if p is not None]
    yield "the readouts", [result.log10_pvalue for result in record.comparisons if result.log10_pvalue is not None]
    yield "the curve", [point.log10_pvalue for point in record.curve if point.log10_pvalue is not None]
    yield "the control models", [control.log10_pvalue for control in record.controls.models]


def _of_keys(record: TraceRecord) -> Iterator[str]:
    if not record.hypotheses:
        yield "it tests no key"
    twice = [key for key, count in Counter(h.key for h in record.hypotheses).items() if count > 1]
    if twice:
        yield f"key {twice[0]!r} is tested twice"
    for i, h in enumerate(record.hypotheses):
        for what in _of_hypothesis(h, record.contexts):
            yield f"hypotheses[{i}] {what}"
    tested = {tenant_name(h.key) for h in record.hypotheses if h.key != str(GLOBAL)}
    if record.together is not None and (len(tested) < 2 or record.refused is not None):
        yield "together is a p-value of two accounts or more, where an answer is given"
    groups = [(f"coalitions[{i}]", coalition.tenants) for i, coalition in enumerate(record.coalitions)]
    for where, tenants in [("identified", record.identified), *groups]:
        unknown = [name for name in tenants if tenant_name(name) not in tested]
        if unknown:
            yield f"{where} names tenant {unknown[0]!r}, which was not tested"
    for where, tenants in groups:
        if len({tenant_name(name) for name in tenants}) < max(2, len(tenants)):
            yield f"{where} must name two tenants or more, each once"


def _of_hypothesis(h: TraceHypothesis, contexts: int) -> Iterator[str]:
    if not is_key_name(h.key) or KeyName.read(h.key).of_spec:
        yield f"has key {h.key!r}, which is neither 'global' nor 'tenant:NAME'"
    if not 0 <= h.contexts <= contexts:
        yield f"has {h.contexts} contexts of {contexts}"
    if h.tuples < 0 or h.sd < 0:
        yield "has fewer than no tuples, or a standard deviation below 0"


def _of_counts(record: TraceRecord) -> Iterator[str]:
    counts = [record.contexts, *(n for r in record.readings for n in (r.documents, r.tokens, r.contexts))]
    if record.queries is not None:
        asked = record.queries
        counts += [asked.requests, asked.answers, asked.prompt_tokens, asked.completion_tokens, asked.without_logprobs]
        counts += [n for one in asked.texts.values() for n in (one.answers, one.tokens)]
        counts += [*asked.unusable.values(), *asked.refused.values()]
        if max([asked.without_logprobs, *(one.answers for one in asked.texts.values())]) > asked.answers:
            yield "more answers were read in one way than came"
        if asked.without_logprobs and asked.evidence == "samples":
            yield "answers lack log-probabilities, and none were asked for"
    if min(counts) < 0:
        yield "a count of contexts, documents, tokens or answers is below 0"
    steps = [0, *(point.count for point in record.curve)]
    if any(after <= before for before, after in itertools.pairwise(steps)):
        yield "the curve's counts must ascend"
    if record.power.detectable_z_per_context < 0:
        yield f"power.detectable_z_per_context must be 0 or more (got {record.power.detectable_z_per_context})"


def _of_share(record: TraceRecord) -> Iterator[str]:
    shares = [reference.share for reference in record.references]
    if shares and (min(shares) < 0 or not math.isclose(math.fsum(shares), 1.0, abs_tol=_SHARES)):
        yield f"the references' shares must add up to 1 (got {shares})"
    found = record.share
    if found.interval is not None and not found.interval.is_sound:
        yield "share.interval must be an interval within 0 .. 1 with its estimate in it"
    for i, dose in enumerate(found.doses):
        if not (0 <= dose.share <= 1 and dose.standard_error >= 0):
            yield f"share.doses[{i}] must have a share in 0 .. 1 and a standard error of 0 or more"
