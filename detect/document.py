"""The blind test of one document: needs the tokens and the keys, and no model.

H0: the key had no say in the document, neither in its text nor in the choice of it. Then, whatever the text is, the
words of its distinct (context, token) tuples are independent and uniform over the choice of the key, so the sum of
their statistics has exactly the scheme's null law. Where a foreign format's words are no match for that,
`detect.calibration` says what becomes of the law's tail.

A text that was picked by its p-value is not of H0: the most marked of 1,000 unmarked texts has p = 10^-3 or so. Line
"text" of `docs/validity.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detect import tails
from detect.calibration import below_floor, bounded_log10, method_of, rank_log10, staged_rank, stages
from detect.decoys import LOG10_CONTRADICTION, decoy_rings, log10_agreement
from detect.distinct import I64, Tuples
from detect.evidence import DecoyRun, Hypothesis, SubkeyTally
from detect.multiplicity import holm_log10, sidak_log10
from detect.scoring import as_drawn, global_contexts, tallies
from detect.tail_pairs import log10_sf_pairs
from watermark.keys import KeyRing, MarkingKey
from watermark.laws import in_nats
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
    key: MarkingKey
    tuples: Tuples


def tested_keys(spec: WatermarkSpec, ring: KeyRing) -> dict[str, MarkingKey]:
    """The keys of the ring that mark anything under this spec, by the name that the record gives them."""
    threshold = selector_threshold(spec)
    found: dict[str, MarkingKey] = {}
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
    if in_nats(law):
        return np.asarray(tails.log10_sf_many(law, len(tuples), sums * scheme.unit))
    if tuples.width == 0:
        return np.asarray(tails.log10_sf_weighted_many(law, tuples.counts, sums))  # type: ignore[arg-type]
    return np.asarray(tails.log10_sf_many(law, len(tuples), sums))


def law_tails(scheme: Scheme, keys: Sequence[MarkingKey], tuples: Tuples) -> tuple[I64, I64, Floats]:
    """Tuples that count, their total, and the law's log10 tail of it, under each key: shapes (len(keys),)."""
    ns, sums = tallies(scheme, keys, tuples)
    if np.all(ns == len(tuples)):
        return ns, sums, log10_pvalues(scheme, tuples, sums)
    return ns, sums, log10_sf_pairs(scheme.law, ns, as_drawn(scheme, sums))


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
    if method_of(scheme) == "ranked" and len(tuples):
        return _ranked_test(spec, ring, scheme, tuples, decoy_seed, decoy_count)
    hypotheses = _hypotheses(spec, scheme, candidates(spec, ring, tuples))
    log10_p = _family(hypotheses)
    decoys = None
    if decoy_count and len(tuples):
        log10_ps = _decoy_log10_pvalues(spec, scheme, decoy_rings(decoy_seed, decoy_count, spec, ring), tuples)
        rank = 1 + int(np.sum(log10_ps <= log10_p))
        decoys = DecoyRun(log10_pvalues=log10_ps.tolist(), rank=rank, log10_agreement=log10_agreement(log10_ps))
    return BlindTest(hypotheses, log10_p, decoys)


def _ranked_test(
    spec: WatermarkSpec, ring: KeyRing, scheme: Scheme, tuples: Tuples, decoy_seed: str, decoy_count: int
) -> BlindTest:
    """The test of a format whose words hang together: its one key's rank among decoys, by the law's tail of each."""
    (candidate,) = candidates(spec, ring, tuples)
    ns, sums, own = law_tails(scheme, [candidate.key], tuples)
    drawn: list[Floats] = []

    def decoy_tails(first: int, last: int) -> Floats:
        rings = decoy_rings(decoy_seed, last, spec, ring, first=first)
        keys = [decoy.global_key for decoy in rings if decoy.global_key is not None]
        drawn.append(law_tails(scheme, keys, tuples)[2])
        return drawn[-1]

    exceeding, decoys = staged_rank(float(own[0]), decoy_tails, stages(decoy_count, len(tuples)))
    log10_p = float(rank_log10(exceeding, decoys))
    if not exceeding:
        log10_p = below_floor(scheme, candidate.key, tuples, log10_p)
    hypothesis = Hypothesis(
        key=candidate.name,
        tuples=int(ns[0]),
        subkeys=[SubkeyTally(subkey=0, total=int(sums[0]), log10_pvalue=float(own[0]))],
        log10_pvalue=log10_p,
        log10_pvalue_adjusted=log10_p,
    )
    run = DecoyRun(log10_pvalues=drawn[0].tolist(), rank=1 + exceeding, log10_agreement=0.0, drawn=decoys)
    return BlindTest([hypothesis], log10_p, run)


def _family(hypotheses: Sequence[Hypothesis]) -> float:
    return min((h.log10_pvalue_adjusted for h in hypotheses), default=0.0)


def _hypotheses(spec: WatermarkSpec, scheme: Scheme, tested: Sequence[Candidate]) -> list[Hypothesis]:
    found = []
    for candidate in tested:
        keys = [subkey(candidate.key, index) for index in range(spec.subkeys)]
        ns, sums, log10_ps = law_tails(scheme, keys, candidate.tuples)
        subkeys = [
            SubkeyTally(subkey=index, total=int(total), log10_pvalue=float(log10_p))
            for index, (total, log10_p) in enumerate(zip(sums, log10_ps, strict=True))
        ]
        found.append((candidate.name, int(ns[0]), subkeys, sidak_log10(bounded_log10(scheme, log10_ps))))
    adjusted = holm_log10(np.array([log10_p for *_, log10_p in found]))
    return [
        Hypothesis(
            key=name,
            tuples=n,
            subkeys=subkeys,
            log10_pvalue=log10_p,
            log10_pvalue_adjusted=float(holm),
        )
        for (name, n, subkeys, log10_p), holm in zip(found, adjusted, strict=True)
    ]


def _decoy_log10_pvalues(spec: WatermarkSpec, scheme: Scheme, rings: Sequence[KeyRing], tuples: Tuples) -> Floats:
    """The family's log10 p-value under each decoy ring; without a selector all decoys share one pass and one null."""
    if selector_threshold(spec) < 2**32:
        return np.array([_family(_hypotheses(spec, scheme, candidates(spec, ring, tuples))) for ring in rings])
    keys = [subkey(ring.global_key, i) for ring in rings if ring.global_key for i in range(spec.subkeys)]
    log10_ps = bounded_log10(scheme, law_tails(scheme, keys, tuples)[2]).reshape(len(rings), spec.subkeys)
    return np.array([sidak_log10(row) for row in log10_ps])
