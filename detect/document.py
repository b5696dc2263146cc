"""The blind test of one document: needs the tokens and the keys, and no model.

H0: the document was written without knowledge of the key. Then, whatever the text is, the words of its distinct
(context, token) tuples are independent and uniform over the choice of the key, so the sum of their statistics has
exactly the scheme's null law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detect import tails
from detect.decoys import LOG10_CONTRADICTION, decoy_rings, log10_agreement
from detect.distinct import I64, Tuples
from detect.evidence import DecoyRun, Hypothesis, SubkeyTally
from detect.multiplicity import holm_log10, sidak_log10
from detect.scoring import global_contexts, totals
from watermark.keys import KeyRing, SecretKey
from watermark.laws import Exponential
from watermark.rowkeys import selector_threshold, subkey
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec

Floats = npt.NDArray[np.float64]

GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class BlindTest:
    """The result of the blind test.

    Attributes
    ----------
    hypotheses
        One for each key tested.
    log10_pvalue
        That none of the keys marked the document (the smallest Holm-adjusted p-value); 0 when nothing was tested.
    decoys
        The same under decoy keys; None when none were asked for.
    """

    hypotheses: list[Hypothesis]
    log10_pvalue: float
    decoys: DecoyRun | None

    @property
    def refused(self) -> str | None:
        """Why the p-value must not be printed, or None."""
        if not any(h.tuples for h in self.hypotheses):
            return "nothing to test: the document has no token with a known context"
        if self.decoys is not None and self.decoys.log10_agreement < LOG10_CONTRADICTION:
            return (
                "the decoy keys contradict the test: their p-values are too small to be uniform "
                f"(log10 p of agreement {self.decoys.log10_agreement:.1f})"
            )
        return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key to be tested and the tuples that it would have marked."""

    name: str
    key: SecretKey
    tuples: Tuples


def tested_keys(spec: WatermarkSpec, ring: KeyRing) -> dict[str, SecretKey]:
    """The keys of the ring that mark anything under this spec, by the name that the record gives them."""
    threshold = selector_threshold(spec)
    found = {}
    if ring.global_key is not None and threshold > 0:
        found[GLOBAL] = ring.global_key
    if threshold < 2**32:
        found |= {f"tenant:{name}": key for name, key in ring.tenants.items()}
    return found


def candidates(spec: WatermarkSpec, ring: KeyRing, tuples: Tuples) -> list[Candidate]:
    """Each tested key with the tuples whose contexts it marks."""
    mine = global_contexts(spec, ring.selector, tuples)
    parts = {True: tuples.take(mine), False: tuples.take(~mine)}
    return [Candidate(name, key, parts[name == GLOBAL]) for name, key in tested_keys(spec, ring).items()]


def log10_pvalues(scheme: Scheme, tuples: Tuples, sums: I64) -> Floats:
    """Exact log10 p-values of sums over these tuples, shape (k,) -> (k,)."""
    law = scheme.law
    if isinstance(law, Exponential):
        return np.asarray(tails.log10_sf_many(law, len(tuples), sums * scheme.unit))
    if tuples.width == 0:
        return np.asarray(tails.log10_sf_weighted_many(law, tuples.counts, sums))
    return np.asarray(tails.log10_sf_many(law, len(tuples), sums))


def blind_test(
    spec: WatermarkSpec,
    ring: KeyRing,
    tuples: Tuples,
    *,
    decoy_seed: str = "dyetrace",
    decoy_count: int = 100,
) -> BlindTest:
    """Test one document for every key of the ring.

    Parameters
    ----------
    spec, ring
        The watermark and the keys to test.
    tuples
        `distinct_tuples` of the document.
    decoy_seed, decoy_count
        Public seed and number of the decoy keys.
    """
    scheme = spec.build_scheme()
    hypotheses = _hypotheses(spec, scheme, candidates(spec, ring, tuples))
    log10_p = _family(hypotheses)
    decoys = None
    if decoy_count and len(tuples):
        log10_ps = _decoy_log10_pvalues(spec, scheme, decoy_rings(decoy_seed, decoy_count, spec.epoch, ring), tuples)
        rank = 1 + int(np.sum(log10_ps <= log10_p))
        decoys = DecoyRun(log10_pvalues=log10_ps.tolist(), rank=rank, log10_agreement=log10_agreement(log10_ps))
    return BlindTest(hypotheses, log10_p, decoys)


def _family(hypotheses: Sequence[Hypothesis]) -> float:
    return min((h.log10_pvalue_adjusted for h in hypotheses), default=0.0)


def _hypotheses(spec: WatermarkSpec, scheme: Scheme, tested: Sequence[Candidate]) -> list[Hypothesis]:
    found = []
    for candidate in tested:
        keys = [subkey(candidate.key, index) for index in range(spec.subkeys)]
        sums = totals(scheme, keys, candidate.tuples)
        log10_ps = log10_pvalues(scheme, candidate.tuples, sums)
        subkeys = [
            SubkeyTally(subkey=index, total=int(total), log10_pvalue=float(log10_p))
            for index, (total, log10_p) in enumerate(zip(sums, log10_ps, strict=True))
        ]
        found.append((candidate, subkeys, sidak_log10(log10_ps)))
    adjusted = holm_log10(np.array([log10_p for _, _, log10_p in found]))
    return [
        Hypothesis(
            key=candidate.name,
            tuples=len(candidate.tuples),
            subkeys=subkeys,
            log10_pvalue=log10_p,
            log10_pvalue_adjusted=float(holm),
        )
        for (candidate, subkeys, log10_p), holm in zip(found, adjusted, strict=True)
    ]


def _decoy_log10_pvalues(spec: WatermarkSpec, scheme: Scheme, rings: Sequence[KeyRing], tuples: Tuples) -> Floats:
    """The family's log10 p-value under each decoy ring; without a selector all decoys share one pass and one null."""
    if selector_threshold(spec) < 2**32:
        return np.array([_family(_hypotheses(spec, scheme, candidates(spec, ring, tuples))) for ring in rings])
    keys = [subkey(ring.global_key, i) for ring in rings if ring.global_key for i in range(spec.subkeys)]
    log10_ps = log10_pvalues(scheme, tuples, totals(scheme, keys, tuples)).reshape(len(rings), spec.subkeys)
    return np.array([sidak_log10(row) for row in log10_ps])
