"""From evidence and keys to what a trace concludes: keys, accounts, the curve, decoys, power.

It is one function of evidence, spec, keys and settings, so that a recomputation is the same call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from detect.keyed.calibration import ranks_of_decoys_log10
from detect.keyed.decoys import contradicted, decoy_rings, log10_agreement
from detect.keyed.owners import keys_to_test, tested_keys
from detect.laws.multiplicity import holm_log10, mean_log10_e
from detect.records.key_name import GLOBAL, KeyName
from detect.records.trace import (
    CurvePoint,
    Power,
    ReadoutResult,
    TraceControls,
    TraceHypothesis,
    contexts_needed,
    log10_naming_level,
)
from detect.records.written import format_p
from detect.student.verdict.evidence import Basis, Evidence, TraceSettings
from detect.student.verdict.hypothesis import I64, Floats, Sided, WeightedTest, key_test, log10_sum
from detect.student.verdict.weights import WeightedTuples
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_exact
from watermark.keys import KeyRing, MarkingKey
from watermark.spec import WatermarkSpec

MOST_TOGETHER = 5
"""Accounts whose totals are summed at most."""
_CURVE_POINTS = 16
_LOG10_2 = math.log10(2)


@dataclass(frozen=True, eq=False)
class Conclusion:
    """What a record says of keys; the fields are `detect.records.trace.TraceRecord`'s."""

    hypotheses: list[TraceHypothesis]
    identified: list[str]
    together: float | None
    identification: str
    log10_pvalue: float | None
    log10_evalue: float
    refused: str | None
    found: bool
    curve: list[CurvePoint]
    power: Power
    controls: TraceControls


@dataclass(frozen=True, eq=False)
class _Family:
    """The two tests that keys may need: on the contexts of the global key, and on those of tenants."""

    basis: Basis
    sided: Sided
    tests: dict[bool, WeightedTest]

    def test_of(self, name: KeyName) -> WeightedTest:
        return self.tests[name.is_global]


def tested_log10(basis: Basis, sided: Sided, upper: float, lower: float, log10_e: float) -> float:
    """The log10 p-value that a verdict uses."""
    if basis == "e-value":
        return min(0.0, -log10_e)
    return upper if sided == "upper" else min(0.0, _LOG10_2 + min(upper, lower))


def check_basis(spec: WatermarkSpec, basis: Basis) -> None:
    """Raise DyetraceError where a verdict would rest on an e-value that a format's words can't give."""
    scheme = spec.build_scheme()
    if basis == "e-value" and not is_exact(scheme):
        raise DyetraceError(
            f"{scheme.name} is not exact, so its key is ranked among decoys once, at the end, with weights that the "
            "key had no part in: read unmarked text without --served (or with unmarked answers there), and weights "
            "instead of an endpoint"
        )


def conclude(
    evidence: Evidence,
    spec: WatermarkSpec,
    ring: KeyRing,
    basis: Basis,
    settings: TraceSettings,
    objection: str | None = None,
) -> Conclusion:
    """Test every key of the ring.

    Parameters
    ----------
    evidence
        Weighted tuples.
    spec, ring
        The watermark and the keys to test.
    basis
        Whether the verdict rests on the exact p-value, or on the e-value: where weights were decided by earlier words
        (marked reading text), or where somebody looked before the end (an endpoint).
    settings
        Level, sidedness and decoys.
    objection
        Why no verdict may be given whatever the keys say: a control that failed, answers that were seen too early.

    Raises
    ------
    DyetraceError
        No key to test, or no evidence.
    """
    keys = keys_to_test(spec, ring)
    check_basis(spec, basis)
    of_decoys = {"decoy_seed": settings.decoy_seed, "decoy_count": settings.decoy_count}
    tests = {
        owner: key_test(spec, ring.selector, evidence.tuples, of_global=owner, **of_decoys)  # type: ignore[arg-type]
        for owner in (True, False)
    }
    family = _Family(basis, settings.sided, tests)
    hypotheses = _hypotheses(family, keys, evidence, spec, ring)
    decoys = decoy_controls(evidence, spec, ring, settings)
    refused = _refusal(evidence, decoys) or objection
    log10_alpha = math.log10(settings.alpha)
    limit = log10_naming_level(settings.alpha, len(keys.keys() - {GLOBAL}))
    identified: list[str] = []
    together = None
    if refused is None:
        identified = _identified(hypotheses, limit)
        together = _together(family, keys, evidence, spec, ring)
    log10_p = trace_log10_pvalue([h.log10_pvalue_adjusted for h in hypotheses], together)
    found = refused is None and log10_p <= log10_alpha
    return Conclusion(
        hypotheses=hypotheses,
        identified=identified,
        together=together,
        identification=identification(
            len(keys.keys() - {GLOBAL}),
            identified,
            together,
            limit,
            refused=refused is not None,
            found=found,
            bound=basis == "e-value",
        ),
        log10_pvalue=None if refused else log10_p,
        log10_evalue=mean_log10_e([h.log10_evalue for h in hypotheses]),
        refused=refused,
        found=found,
        curve=_curve(evidence, spec, ring, basis, settings),
        power=power_of(hypotheses[0], log10_alpha),
        controls=decoys,
    )


def trace_log10_pvalue(adjusted: Sequence[float], together: float | None) -> float:
    """Log10 p that no key left its mark: of single keys, and of all accounts together where there are several.

    Each of the two questions has half of the level, so that the headline, the names (`_identified`) and what is said of
    all accounts together are true at once with a chance of at least 1 - alpha.
    """
    smallest = min(adjusted)
    return smallest if together is None else min(0.0, _LOG10_2 + min(smallest, together))


def log10_evalue_of(
    evidence: Evidence, spec: WatermarkSpec, ring: KeyRing, keys: Sequence[MarkingKey], sided: Sided, *, of_global: bool
) -> float | None:
    """Log10 of the e-value of a key, or of several accounts' summed totals; None before the first of several looks.

    Where the moments of looking were fixed beforehand, it is the mean of the values at those that were reached, others
    counting 0. A mean of e-values is one, and what is left out is not below 0: so whoever stops for what was seen at a
    look gains nothing (Markov's inequality; line "looks" of `docs/validity.md`). It serves where weights are
    predictable in the order in which served answers were generated, which is not the order in which they are asked for.
    """

    def value(known: Evidence) -> float:
        test = key_test(spec, ring.selector, known.tuples, of_global=of_global)
        return test.log10_evalue(int(test.totals(keys).sum()), sided, keys=len(keys))

    if not evidence.planned:
        return value(evidence)
    if not evidence.looks:
        return None
    return log10_sum([value(evidence.until(look)) for look in evidence.looks]) - math.log10(evidence.planned)


def _hypotheses(
    family: _Family, keys: dict[KeyName, MarkingKey], evidence: Evidence, spec: WatermarkSpec, ring: KeyRing
) -> list[TraceHypothesis]:
    found = []
    for name, key in keys.items():
        test = family.test_of(name)
        total = int(test.totals([key])[0])
        if evidence.planned:
            log10_e = log10_evalue_of(evidence, spec, ring, [key], family.sided, of_global=name.is_global) or 0.0
            upper, lower = min(0.0, -log10_e), 0.0
        else:
            log10_e = test.log10_evalue(total, family.sided)
            upper, lower = tails(test, total, family.basis)
        mean, sd = test.moments
        found.append(
            TraceHypothesis(
                key=str(name),
                contexts=len(test.tuples.contexts),
                tuples=test.words,
                total=total,
                expected=mean,
                sd=sd,
                log10_pvalue=upper,
                log10_pvalue_lower=lower,
                log10_evalue=log10_e,
                log10_pvalue_tested=tested_log10(family.basis, family.sided, upper, lower, log10_e),
                log10_pvalue_adjusted=0.0,
            )
        )
    adjusted = holm_log10(np.array([h.log10_pvalue_tested for h in found]))
    return [msgspec.structs.replace(h, log10_pvalue_adjusted=float(a)) for h, a in zip(found, adjusted, strict=True)]


def _identified(hypotheses: Sequence[TraceHypothesis], limit: float) -> list[str]:
    """The accounts whose own p-value, the choice among all keys paid for, is at or below the level of names.

    An innocent is named with a chance of at most that level whoever else is guilty. Given the suspect, whatever it
    learnt from others, an innocent's key is still as drawn: its total rests on the words of this key alone, with
    weights that it had no part in, so that its p-value is valid. Holm's rule pays for all keys however they depend.
    """
    named = [KeyName.read(h.key).tenant for h in hypotheses if h.log10_pvalue_adjusted <= limit]
    return [tenant for tenant in named if tenant is not None]


def _together(
    family: _Family, keys: dict[KeyName, MarkingKey], evidence: Evidence, spec: WatermarkSpec, ring: KeyRing
) -> float | None:
    """`together_log10` of the accounts' totals, or of their e-values at the looks that were fixed beforehand."""
    tenants = [key for name, key in keys.items() if not name.is_global]
    test = family.tests[False]

    def at_looks(chosen: list[int]) -> float:
        summed = [tenants[i] for i in chosen]
        return -(log10_evalue_of(evidence, spec, ring, summed, "upper", of_global=False) or 0.0)

    return together_log10(test, test.totals(tenants), family.basis, at_looks if evidence.planned else None)


def together_log10(
    test: WeightedTest, totals: I64, basis: Basis, log10_p_of: Callable[[list[int]], float] | None = None
) -> float | None:
    """Log10 of the adjusted p-value of "none of the accounts left its mark"; None where fewer than two were tested.

    The largest totals are summed, two, three and so on up to `MOST_TOGETHER`, and the smallest p-value pays for all
    groups of each size and for the sizes (Bonferroni). Which accounts are summed says nothing: where some are guilty
    the group may hold an innocent with a large total, so that only "one of all of them at least" can be concluded.

    Parameters
    ----------
    test, totals
        Of accounts, and each one's total (k,).
    basis
        Of the verdict.
    log10_p_of
        The log10 p-value of a group, by the places of its accounts, where it is not that of its total.
    """
    sizes = range(2, min(MOST_TOGETHER, len(totals)) + 1)
    if not sizes:
        return None
    order = np.argsort(-totals, kind="stable").tolist()
    adjusted = []
    for size in sizes:
        chosen = order[:size]
        total = int(totals[chosen].sum())
        if log10_p_of is not None:
            log10_p = log10_p_of(chosen)
        elif basis == "e-value":
            log10_p = -test.log10_evalue(total, keys=size)
        else:
            log10_p = float(test.log10_pvalues([total], keys=size)[0])
        adjusted.append(log10_p + math.log10(math.comb(len(totals), size) * len(sizes)))
    return min(0.0, *adjusted)


def identification(
    accounts: int,
    identified: Sequence[str],
    together: float | None,
    limit: float,
    *,
    refused: bool,
    found: bool,
    bound: bool,
) -> str:
    """One sentence: who, or that nobody is identified; ``limit`` is the level of names, ``bound`` as `one_of_them`."""
    if not accounts:
        return "Not identified: no account was tested."
    if refused:
        return "Not identified: no answer is given."
    if identified:
        return f"The outputs of {', '.join(identified)} were in the training data, as far as this test can tell."
    if together is not None and together <= limit:
        return one_of_them(accounts, together, bound=bound)
    if found:
        return f"Not identified: the mark is there, but none of the {accounts:,} accounts tested stands out."
    return f"Not identified: none of the {accounts:,} accounts tested left evidence."


def one_of_them(accounts: int, log10_p: float, *, bound: bool) -> str:
    """Say that none of the accounts stands out and yet not all of them are innocent; ``bound``: p is an upper bound."""
    sign = "<=" if bound else "="
    return (
        f"No single account is identified. One at least of the {accounts:,} accounts tested left its mark "
        f"(p {sign} {format_p(log10_p)})."
    )


def decoy_controls(evidence: Evidence, spec: WatermarkSpec, ring: KeyRing, settings: TraceSettings) -> TraceControls:
    """The first key's test under keys that nobody used, on the same contexts.

    Of the ring it takes the names of its keys, and which contexts are theirs: where all are, any ring will do.
    """
    rings = decoy_rings(settings.decoy_seed, settings.decoy_count, spec, ring)
    name = next(iter(tested_keys(spec, ring)))
    test = key_test(spec, ring.selector, evidence.tuples, of_global=name.is_global)
    exact = is_exact(spec.build_scheme())
    keys = [key for other in rings for key in list(tested_keys(spec, other).values())[:1]]
    log10_ps: Floats = np.zeros(0)
    if keys and len(test.tuples):
        sums = test.totals(keys)
        log10_ps = test.log10_pvalues(sums) if exact else ranks_of_decoys_log10(sums)
    return TraceControls(
        decoy_seed=settings.decoy_seed,
        decoy_log10_pvalues=log10_ps.tolist(),
        decoy_log10_agreement=log10_agreement(log10_ps) if len(log10_ps) else 0.0,
        models=[],
    )


def _refusal(evidence: Evidence, decoys: TraceControls) -> str | None:
    if not len(evidence.tuples):
        return "nothing to test: the readings gave no weighted tuple"
    return contradicted(decoys.decoy_log10_agreement)


def tails(test: WeightedTest, total: int, basis: Basis) -> tuple[float, float]:
    """Log10 p-values of totals as large and as small that are valid on this basis: exact, or bounds by e-values."""
    if basis == "e-value":
        return test.log10_bounds(total)
    return float(test.log10_pvalues([total])[0]), float(test.log10_pvalues_lower([total])[0])


def first_test(spec: WatermarkSpec, ring: KeyRing, tuples: WeightedTuples) -> tuple[WeightedTest, int]:
    """The test of the ring's first key on its contexts, and its total."""
    name, key = next(iter(tested_keys(spec, ring).items()))
    test = key_test(spec, ring.selector, tuples, of_global=name.is_global)
    return test, int(test.totals([key])[0])


def compared(label: str, spec: WatermarkSpec, ring: KeyRing, tuples: WeightedTuples, basis: Basis) -> ReadoutResult:
    """The first key's test of some weighted tuples, as a row of the record; a p-value only where one is valid."""
    test, total = first_test(spec, ring, tuples)
    z, contexts = test.z(total), len(test.tuples.contexts)
    return ReadoutResult(
        readout=label,
        contexts=contexts,
        z=z,
        log10_pvalue=None if basis == "e-value" else float(test.log10_pvalues([total])[0]),
        contexts_needed=contexts_needed(z, contexts),
    )


def _curve(
    evidence: Evidence, spec: WatermarkSpec, ring: KeyRing, basis: Basis, settings: TraceSettings
) -> list[CurvePoint]:
    """The first key's evidence as it grew; none where each point would take decoys of its own."""
    if not is_exact(spec.build_scheme()):
        return []
    points = []
    for step in curve_steps(evidence):
        known = evidence.until(step)
        name, key = next(iter(tested_keys(spec, ring).items()))
        log10_e = log10_evalue_of(known, spec, ring, [key], settings.sided, of_global=name.is_global)
        if log10_e is None:
            continue
        log10_p = None
        if basis == "p-value":
            test, total = first_test(spec, ring, known.tuples)
            log10_p = float(test.log10_pvalues([total])[0])
        points.append(CurvePoint(count=step, log10_pvalue=log10_p, log10_evalue=log10_e))
    return points


def curve_steps(evidence: Evidence) -> list[int]:
    """After how many steps the curve may have a point."""
    last = int(evidence.steps[-1]) if evidence.contexts else 0
    steps: list[int] = np.unique(np.linspace(0, last, _CURVE_POINTS + 1).astype(np.int64))[1:].tolist()
    return steps


def _z_of(log10_p: float) -> float:
    """The normal law's deviation with this upper tail."""
    from scipy.special import ndtri_exp

    return -float(ndtri_exp(log10_p * math.log(10)))


def power_of(first: TraceHypothesis, log10_alpha: float) -> Power:
    """By the normal law; for orientation, never for the verdict."""
    from scipy.special import ndtri

    contexts = max(1, first.contexts)
    needed_z = _z_of(log10_alpha)
    observed = (first.total - first.expected) / first.sd / math.sqrt(contexts) if first.sd else 0.0
    return Power(
        detectable_z_per_context=(needed_z + float(ndtri(0.95))) / math.sqrt(contexts),
        observed_z_per_context=observed,
        contexts_needed=math.ceil((needed_z / observed) ** 2) if observed > 0 else None,
    )
