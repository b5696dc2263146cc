"""Traces made by hand: weights and totals at choice, and all that a trace computes from them, with its evidence."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.special import log_ndtr, ndtri

from detect.keyed.decoys import log10_agreement
from detect.laws.multiplicity import holm_log10, mean_log10_e
from detect.records.made import Made
from detect.records.reading import write_record
from detect.records.scan import FileHash
from detect.records.trace import (
    Coalition,
    Control,
    CurvePoint,
    DosePoint,
    ModelSeen,
    PlanSeen,
    Power,
    Queries,
    Reading,
    ReadoutResult,
    Reference,
    TraceControls,
    TraceHypothesis,
    TraceRecord,
    TrainingShare,
)
from detect.records.trace_assumptions import assumptions
from detect.student.verdict.conclude import decoy_controls, tails, tested_log10, trace_log10_pvalue
from detect.student.verdict.evidence import Basis, Evidence, TraceSettings, encode_evidence
from detect.student.verdict.hypothesis import Sided, WeightedTest
from detect.student.verdict.score import TraceScore
from detect.student.verdict.share import estimated
from detect.student.verdict.weights import WeightedTuples
from tests.detect.report.examples import HEX, MADE, make_spec
from watermark.commitment import Commitment
from watermark.keys import KeyRing, SecretKey

replace = msgspec.structs.replace
SUSPECT = ModelSeen(name="models/suspect-135m", sha256=HEX, tokenizer="same")
BASE = ModelSeen(name="models/base-135m", sha256=HEX[::-1], tokenizer="same")
OTHER = ModelSeen(name="models/gemma-3-270m", sha256=HEX, tokenizer="aligned")
SERVED = ModelSeen(name="suspect-mini at https://models.example/v1", sha256="", tokenizer="text")
CONTEXTS = 4096
Z_AT_AIM = 6.361340902404  # scipy.stats.norm.isf(1e-10)
TUPLES = 3  # of each context


def make_evidence(last: int = CONTEXTS) -> Evidence:
    """Contexts with a few weighted tuples each, found in so many steps."""
    draw = np.random.default_rng(3)
    weights = draw.integers(-40, 60, CONTEXTS * TUPLES)
    weights[weights == 0] = 1
    tuples = WeightedTuples(
        np.arange(2 * CONTEXTS, dtype=np.uint32).reshape(CONTEXTS, 2),
        np.repeat(np.arange(CONTEXTS), TUPLES),
        np.tile(np.arange(TUPLES, dtype=np.uint32), CONTEXTS),
        weights,
        np.full(CONTEXTS, -1),
    )
    return Evidence(tuples, np.arange(CONTEXTS) * last // CONTEXTS + 1)


@lru_cache(maxsize=8)
def make_test(key: str, shared: bool) -> WeightedTest:
    """The test of a key: the global key's contexts are the first half where tenants share them, else all."""
    spec, tuples = make_spec(), make_evidence().tuples
    half = (np.arange(CONTEXTS) < CONTEXTS // 2) == (key == "global")
    chosen = half if shared else np.ones(CONTEXTS, dtype=np.bool_)
    return WeightedTest(TraceScore.of(spec.build_scheme()), tuples.of_contexts(chosen), spec.subkeys)


def tail(z: float) -> float:
    """Log10 of the normal upper tail: near enough to a trace's p-value where nothing follows from it."""
    return min(0.0, float(log_ndtr(-z)) / math.log(10))


@lru_cache(maxsize=64)
def make_hypothesis(key: str, z: float, *, shared: bool, basis: Basis, sided: Sided) -> TraceHypothesis:
    """A key whose total lies ``z`` standard deviations above its mean; the choice among keys is not paid for."""
    test = make_test(key, shared)
    mean, sd = test.moments
    total = round(mean + z * sd)
    upper, lower = (min(0.0, log10_p) for log10_p in tails(test, total, basis))
    log10_e = test.log10_evalue(total, sided)
    return TraceHypothesis(
        key=key,
        contexts=len(test.tuples.contexts),
        tuples=test.words,
        total=total,
        expected=mean,
        sd=sd,
        log10_pvalue=upper,
        log10_pvalue_lower=lower,
        log10_evalue=log10_e,
        log10_pvalue_tested=tested_log10(basis, sided, upper, lower, log10_e),
        log10_pvalue_adjusted=0.0,
    )


@lru_cache(maxsize=16)
def make_curve(z: float, end: int, *, shared: bool, sided: Sided, basis: Basis) -> tuple[CurvePoint, ...]:
    """The global key's evidence after each sixteenth of the steps, growing unevenly."""
    test = make_test("global", shared)
    draw = np.random.default_rng(5)
    points = []
    for i in range(1, 17):
        part = test.tuples.first(len(test.tuples.contexts) * i // 16)
        known = WeightedTest(test.score, part, test.pool)
        mean, sd = known.moments
        total = round(mean + sd * (z * math.sqrt(i / 16) + (0 if i == 16 else float(draw.normal(0, 0.25)))))
        log10_p = None if basis == "e-value" else min(0.0, float(known.log10_pvalues([total])[0]))
        points.append(
            CurvePoint(count=end * i // 16, log10_pvalue=log10_p, log10_evalue=known.log10_evalue(total, sided))
        )
    return tuple(points)


def make_controls(*, broken: bool = False, **changes: Any) -> TraceControls:
    """Controls that agree with chance, or don't."""
    draw = np.random.default_rng(11)
    log10_ps = np.log10(draw.random(100)) * (8 if broken else 1)
    unmarked = "trained on unmarked text of the same teacher"
    fields: dict[str, Any] = {
        "decoy_seed": "dyetrace",
        "decoy_log10_pvalues": log10_ps.tolist(),
        "decoy_log10_agreement": log10_agreement(log10_ps),
        "models": [
            Control(what="reference in the suspect's place", model=OTHER, log10_pvalue=-0.21, log10_evalue=-0.4),
            Control(what=unmarked, model=replace(BASE, name="models/control"), log10_pvalue=-0.6, log10_evalue=0.1),
        ],
    }
    return TraceControls(**(fields | changes))


@lru_cache(maxsize=2)
def public_decoys(sided: Sided) -> dict[str, Any]:
    """The decoys of a trace of the global key alone, which anybody can test."""
    ring = KeyRing.from_master(SecretKey(b"a key that everybody knows......"))
    found = decoy_controls(make_evidence(), make_spec(global_share=1.0), ring, TraceSettings(sided=sided))
    return {
        "decoy_log10_pvalues": found.decoy_log10_pvalues,
        "decoy_log10_agreement": found.decoy_log10_agreement,
    }


def make_trace(
    folder: Path,
    zs: dict[str, float],
    *,
    basis: Basis = "p-value",
    sided: Sided = "upper",
    refused: str | None = None,
    alpha: float = 1e-6,
    steps: int = CONTEXTS,
    **changes: Any,
) -> TraceRecord:
    """Write report.json and evidence.npz into ``folder``; return the record."""
    folder.mkdir(parents=True, exist_ok=True)
    data = encode_evidence(make_evidence(steps))
    (folder / "evidence.npz").write_bytes(data)
    shared = any(key != "global" for key in zs)
    alone = [make_hypothesis(key, z, shared=shared, basis=basis, sided=sided) for key, z in zs.items()]
    adjusted = holm_log10([h.log10_pvalue_tested for h in alone])
    hypotheses = [replace(h, log10_pvalue_adjusted=float(p)) for h, p in zip(alone, adjusted, strict=True)]
    smallest = trace_log10_pvalue(adjusted.tolist(), changes.get("together"))
    tenants = [h for h in hypotheses if h.key.startswith("tenant:")]
    identified = [
        h.key.removeprefix("tenant:")
        for h in tenants
        if h.log10_pvalue_adjusted <= math.log10(alpha) and refused is None
    ]
    says = (
        f"Identified: {', '.join(identified)}." if identified else "Not identified: no tenant's own evidence is enough."
    )
    spec = make_spec(global_share=0.5 if tenants else 1.0)
    z = next(iter(zs.values()))
    fields: dict[str, Any] = {
        "mode": "weights",
        "created": "2026-02-03T04:05:06+00:00",
        "made": MADE,
        "arguments": {"readout": "reference", "batch": 16, "references": ["models/base-135m"], "limit": None},
        "versions": {"dyetrace": "0.1.0", "numpy": "2.4.6", "torch": "2.9.1", "python": "3.11.7"},
        "spec": spec,
        "spec_id": spec.spec_id,
        "key_fingerprint": HEX[:32],
        "commitment": Commitment(
            sha256=HEX, spec_id=spec.spec_id, key_fingerprint=HEX[:32], created="2025-11-02T09:00:00+00:00"
        ),
        "alpha": alpha,
        "student": SUSPECT,
        "references": [Reference(model=BASE, share=0.94), Reference(model=OTHER, share=0.06)],
        "readings": [
            Reading(
                name="prompts/unmarked.jsonl", sha256=HEX, marked=False, documents=220, tokens=48_211, contexts=CONTEXTS
            )
        ],
        "served": FileHash(name="ledger.npz", sha256=HEX, bytes=81_220),
        "readout": "reference",
        "sided": sided,
        "basis": basis,
        "contexts": CONTEXTS,
        "hypotheses": hypotheses,
        "identified": identified,
        "identification": says if tenants else "No tenant was tested.",
        "log10_pvalue": None if refused else smallest,
        "log10_evalue": mean_log10_e([h.log10_evalue for h in hypotheses]),
        "refused": refused,
        "found": refused is None and smallest <= math.log10(alpha),
        "comparisons": [make_readout(name, hypotheses[0], part, basis) for name, part in READOUT_PARTS.items()],
        "curve": list(make_curve(z, steps, shared=shared, sided=sided, basis=basis)),
        "power": make_power(hypotheses[0], alpha),
        "share": not_identified(),
        "controls": make_controls(broken=refused is not None, **({} if shared else public_decoys(sided))),
        "plan": None,
        "queries": None,
        "files": [FileHash(name="evidence.npz", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))],
    }
    record = TraceRecord(**(fields | changes))
    record = replace(record, assumptions=changes.get("assumptions", assumptions(record)))
    write_record(folder / "report.json", record)
    return record


def make_power(first: TraceHypothesis, alpha: float) -> Power:
    """What so many contexts can show, by the normal law."""
    needed_z, observed = -float(ndtri(alpha)), (first.total - first.expected) / first.sd / math.sqrt(first.contexts)
    return Power(
        detectable_z_per_context=(needed_z + float(ndtri(0.95))) / math.sqrt(first.contexts),
        observed_z_per_context=observed,
        contexts_needed=math.ceil((needed_z / observed) ** 2) if observed > 0 else None,
    )


READOUT_PARTS = {"argmax": 0.11, "mass": 0.18, "entropy": 0.23, "log": 0.31, "reference": 1.0}


def make_readout(name: str, first: TraceHypothesis, part: float, basis: Basis) -> ReadoutResult:
    """A readout that shows so large a part of what the verdict's own shows."""
    z = part * (first.total - first.expected) / first.sd
    return ReadoutResult(
        readout=name,
        contexts=first.contexts,
        z=z,
        log10_pvalue=None if basis == "e-value" else first.log10_pvalue if part == 1 else tail(z),
        contexts_needed=math.ceil(first.contexts * (Z_AT_AIM / z) ** 2) if z > 0 else None,
    )


def not_identified() -> TrainingShare:
    why = (
        "no calibration students were given, and the strength of a lean depends on the training as much as on the share"
    )
    return TrainingShare(interval=None, reason=why, effect=None, standard_error=None, doses=[])


def dose_response(z: float) -> TrainingShare:
    draw = np.random.default_rng(13)
    doses = [
        DosePoint(
            name=f"students/s{share:g}-{number}",
            share=share,
            effect=0.31 * share**0.6 + 0.001 + float(draw.normal(0, 0.004)),
            standard_error=0.006,
        )
        for share in (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
        for number in range(3)
    ]
    return estimated(0.31 * 0.1**0.6, 0.006, doses)


def found_trace(folder: Path, **changes: Any) -> TraceRecord:
    """Open weights with four keys, one tenant's mark in them, and calibration students."""
    zs = {"global": 21.4, "tenant:acme": 14.9, "tenant:zenith": 0.4, "tenant:north-wind": -1.1}
    return make_trace(folder, zs, **({"share": dose_response(21.4)} | changes))


def clean_trace(folder: Path, **changes: Any) -> TraceRecord:
    """Open weights without any mark."""
    return make_trace(folder, {"global": 0.8, "tenant:acme": -0.3}, **changes)


def together_trace(folder: Path, **changes: Any) -> TraceRecord:
    """Accounts whose evidence adds up, none of whom is identified alone."""
    zs = {"global": 8.2, "tenant:acme": 4.1, "tenant:zenith": 4.3, "tenant:north-wind": 0.2}
    says = "No single account is identified. One at least of the 3 accounts tested left its mark (p = 10^-8.6)."
    fields: dict[str, Any] = {"together": -8.6, "identification": says}
    return make_trace(folder, zs, **(fields | changes))


def old_group_trace(folder: Path, **changes: Any) -> TraceRecord:
    """The same as dyetrace 0.1.0 wrote it: a group with names, which could hold an innocent."""
    group = Coalition(tenants=["acme", "zenith"], log10_pvalue=-9.4, log10_pvalue_adjusted=-8.6)
    says = "No single tenant is identified; together acme, zenith are: outputs of at least one of them were used."
    return together_trace(folder, **({"coalitions": [group], "together": None, "identification": says} | changes))


def refused_trace(folder: Path, **changes: Any) -> TraceRecord:
    """A trace that its own decoys contradict."""
    why = "the decoy keys contradict the test: their p-values are too small to be uniform (log10 p of agreement -19.3)"
    return make_trace(folder, {"global": 9.8, "tenant:acme": 8.1}, refused=why, **changes)


def turned_trace(folder: Path, **changes: Any) -> TraceRecord:
    """A suspect that leans away from the key's words, tested on both sides."""
    return make_trace(folder, {"global": -9.3}, sided="two-sided", **changes)


def marked_reading_trace(folder: Path, **changes: Any) -> TraceRecord:
    """The owner's own marked answers were read, beside unmarked text: the e-value decides."""
    readings = [
        Reading(name="served/answers.jsonl", sha256=HEX, marked=True, documents=180, tokens=39_900, contexts=3000),
        Reading(name="prompts/wiki.jsonl", sha256=HEX, marked=False, documents=60, tokens=12_300, contexts=1096),
    ]
    return make_trace(folder, {"global": 11.2}, basis="e-value", **({"readings": readings} | changes))


def api_trace(folder: Path, **changes: Any) -> TraceRecord:
    """Samples of an endpoint under a plan, stopped at the target."""
    fields: dict[str, Any] = {
        "mode": "api",
        "student": SERVED,
        "references": [],
        "served": None,
        "readings": [
            Reading(
                name="the plan's prompts", sha256=HEX, marked=False, documents=610, tokens=71_480, contexts=CONTEXTS
            )
        ],
        "arguments": {"target_log10_p": -6.0, "budget_requests": 5000, "concurrency": 8},
        "readout": "samples",
        "comparisons": [],
        "plan": PlanSeen(
            sha256=HEX, created="2026-02-02T09:00:00+00:00", first_query="2026-02-02T10:30:00+00:00"
        ),
        "queries": Queries(
            evidence="samples",
            requests=622,
            answers=610,
            prompt_tokens=31_000,
            completion_tokens=71_900,
            ledger_sha256=HEX,
            ledger_head=HEX,
            stopped="target reached",
        ),
    }  # fmt: skip
    return make_trace(folder, {"global": 8.4}, basis="e-value", steps=610, **(fields | changes))


def hostile_trace(text: str, folder: Path) -> TraceRecord:
    """A marked trace in which ``text`` stands wherever a suspect, or anyone else, could have put it."""
    record = api_trace(folder)
    full = old_group_trace(folder)
    model = ModelSeen(name=text, sha256=text, tokenizer="same")
    key = f"tenant:{text}"
    keys = [key, *(h.key for h in full.hypotheses[1:])]
    assert record.queries is not None and record.plan is not None
    return replace(
        full,
        mode="api",
        created=text,
        made=Made(code_sha256=text, examiner=text, case=text),
        how_to_check=[text],
        arguments={text: text, "list": [text]},
        versions={text: text, "dyetrace": text},
        spec_id=text,
        key_fingerprint=text,
        commitment=Commitment(sha256=text, spec_id=text, key_fingerprint=text, created=text),
        student=model,
        references=[Reference(model=model, share=1.0)],
        readings=[replace(r, name=text, sha256=text) for r in full.readings],
        served=FileHash(name=text, sha256=text, bytes=1),
        readout=text,
        hypotheses=[replace(h, key=key) for h, key in zip(full.hypotheses, keys, strict=True)],
        coalitions=[Coalition(tenants=[text, "acme"], log10_pvalue=-9.0, log10_pvalue_adjusted=-8.0)],
        identified=[text],
        identification=text,
        comparisons=[replace(full.comparisons[0], readout=text), *full.comparisons[1:]],
        share=replace(
            dose_response(8.0), reason=text, doses=[replace(d, name=text) for d in dose_response(8.0).doses]
        ),
        controls=make_controls(
            decoy_seed=text, models=[Control(what=text, model=model, log10_pvalue=-0.3, log10_evalue=0.0)]
        ),
        plan=PlanSeen(sha256=text, created=text, first_query=text),
        queries=replace(record.queries, ledger_sha256=text, ledger_head=text, stopped=text),
        files=[FileHash(name=text, sha256=text, bytes=1)],
    )  # fmt: skip


Maker = Callable[[Path], TraceRecord]
KINDS: dict[str, Maker] = {
    "found": found_trace,
    "clean": clean_trace,
    "together": together_trace,
    "old group": old_group_trace,
    "refused": refused_trace,
    "turned": turned_trace,
    "marked reading": marked_reading_trace,
    "api": api_trace,
}
