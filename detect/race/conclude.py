"""What the evidence of a race readout comes to: keys, accounts, answers, curve and verdict.

All of it is computed from `RaceEvidence`, the spec and the keys, so that another party computes it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from detect.keyed.choices import LATTICE
from detect.keyed.decoys import decoy_rings
from detect.keyed.owners import owned_contexts, tested_keys
from detect.laws.multiplicity import mean_log10_e
from detect.race.bets import Growth, log10_evalues, stakes
from detect.race.evidence import I32, NOT_SAID, U32, RaceEvidence, repeated
from detect.race.hits import log10_tail
from detect.race.tilts import tilts
from detect.records.key_name import GLOBAL, KeyName
from detect.records.race import LitAnswer, RaceControls, RaceFound
from detect.records.trace import CurvePoint
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys import KeyRing, SecretKey
from watermark.schemes.gumbel import Gumbel
from watermark.spec import WatermarkSpec

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_CURVE_POINTS = 60
_LIT = 20
_BLOCK = 4096  # cuts whose stakes are in memory at a time
LOG10_CONTRADICTION = 3.0
"""Log10 of the mean of the decoys' e-values from which on they contradict the test: it is reached once in a thousand
sound reports."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The fields of `detect.records.race.RaceRecord` of these names; ``silent`` is that of its counts."""

    hypotheses: list[RaceFound]
    identified: list[str]
    log10_evalue: float
    log10_pvalue: float | None
    refused: str | None
    found: bool
    curve: list[CurvePoint]
    lit: list[LitAnswer]
    controls: RaceControls
    silent: int


def log10_threshold(alpha: float) -> float:
    """Log10 of the e-value from which on something is found: 1 / alpha (Ville's inequality)."""
    return -math.log10(alpha)


def rows_of(
    contexts: U32, account: I32, accounts: Sequence[str], spec: WatermarkSpec, ring: KeyRing
) -> list[KeyName | None]:
    """The key that marks each cut; None where the ring doesn't hold it.

    Parameters
    ----------
    contexts
        Of the cuts, shape (n, h).
    account
        Whom the answer of each cut was served to: a place in ``accounts``, or -1. Shape (n,).
    accounts
        Names.
    spec, ring
        The watermark and the keys that are tested.
    """
    held = tested_keys(spec, ring)
    of_global = owned_contexts(spec, ring.selector, contexts)[True]
    own = [KeyName(name) if KeyName(name) in held else None for name in accounts]
    common = GLOBAL if GLOBAL in held else None
    return [
        common if of_all else (own[whose] if whose >= 0 else None)
        for of_all, whose in zip(of_global.tolist(), account.tolist(), strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Owned:
    """Which key marks which of the cuts: masks (n,) by the key's name, those that mark any of them."""

    masks: dict[KeyName, Mask] = field(repr=False)

    @classmethod
    def of(cls, evidence: RaceEvidence, spec: WatermarkSpec, ring: KeyRing) -> _Owned:
        if evidence.contexts.shape[1] != spec.context_width or evidence.subkeys.max(initial=-1) >= spec.subkeys:
            raise EvidenceError("the evidence was made under another spec: its contexts or sub-keys are not this one's")
        names = rows_of(evidence.contexts, evidence.account[evidence.documents], evidence.accounts, spec, ring)
        unheld = names.count(None)
        if unheld:
            raise DyetraceError(
                f"{unheld:,} of {len(names):,} cuts are marked by keys that are not among those that were loaded; "
                "name the accounts of the report, and give the key that it was made with"
            )
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        each = np.array([numbers[name] for name in names], dtype=np.int32)
        if repeated(evidence, each):
            raise EvidenceError("a context stands twice in the evidence under one key: the second use says nothing new")
        return cls({name: each == number for name, number in numbers.items() if name is not None})

    def part(self, rows: slice) -> _Owned:
        return _Owned({name: mask[rows] for name, mask in self.masks.items()})

    def tilts(self, rows: RaceEvidence, spec: WatermarkSpec, keys: Mapping[KeyName, SecretKey]) -> F64:
        """`detect.race.tilts.tilts` of the cuts, each under its own key."""
        unknown = bool((rows.subkeys < 0).any())
        found = np.zeros((spec.subkeys if unknown else 1, *rows.chances.shape))
        for name, mask in self.masks.items():
            mine = np.flatnonzero(mask)
            if len(mine):
                found[:, mine] = tilts(
                    spec,
                    keys[name],
                    rows.contexts[mine],
                    rows.subkeys[mine],
                    rows.tokens[mine],
                    rows.chances[mine],
                )
        return found


def _keys(spec: WatermarkSpec, ring: KeyRing) -> dict[KeyName, SecretKey]:
    return {name: key for name, key in tested_keys(spec, ring).items() if isinstance(key, SecretKey)}


@dataclass(frozen=True, slots=True, eq=False)
class _Settled:
    """The evidence under the true keys.

    Attributes
    ----------
    growths
        Of all bets, shape (s, n, bets).
    taken
        How much of the suspect's word the key took: 1 for a hit, where hits are counts; shape (n,).
    chances
        Of the suspect's word, shape (n,).
    decoys
        log10 e-values under decoys.
    """

    growths: F64
    taken: F64
    chances: F64
    decoys: list[float]


def conclude(
    evidence: RaceEvidence,
    spec: WatermarkSpec,
    ring: KeyRing,
    *,
    alpha: float,
    decoy_seed: str,
    decoy_count: int,
    objection: str | None = None,
    early: bool = False,
) -> Conclusion:
    """Conclude from the evidence.

    Parameters
    ----------
    evidence
        Cuts whose keys the ring holds.
    spec, ring
        The watermark and its keys.
    alpha
        Level of the verdict.
    decoy_seed, decoy_count
        Public seed and number of the keys that nobody used.
    objection
        Why the way in which the evidence came about allows no verdict.
    early
        Whether asking might have ended early, by the evidence: then hits have no p-value.

    Raises
    ------
    DyetraceError
        The ring lacks the key of a cut, or the scheme is none of ours.
    """
    owners = _Owned.of(evidence, spec, ring)
    settled = _settle(evidence, spec, ring, owners, decoy_seed, decoy_count)
    evalues = log10_evalues(evidence.documents, settled.growths)
    log10_evalue = float(evalues[-1]) if len(evalues) else 0.0
    refused = objection or _contradiction(settled.decoys)
    if refused is None and evidence.silent.all():
        refused = "none of the suspect's replies could be used, so nothing was measured"
    hypotheses = _hypotheses(evidence, spec, ring, owners, settled, counted=not early)
    return Conclusion(
        hypotheses=hypotheses,
        identified=[
            name.tenant
            for name, one in zip(tested_keys(spec, ring), hypotheses, strict=True)
            if refused is None and name.tenant is not None and one.log10_evalue_adjusted >= log10_threshold(alpha)
        ],
        log10_evalue=log10_evalue,
        log10_pvalue=None if refused is not None else min(0.0, -log10_evalue),
        refused=refused,
        found=refused is None and log10_evalue >= log10_threshold(alpha),
        curve=_curve(evalues),
        lit=_lit(evidence, settled),
        controls=RaceControls(decoy_seed=decoy_seed, decoy_log10_evalues=settled.decoys),
        silent=int(evidence.silent.sum()),
    )


class Live:
    """The evidence of a readout as it grows, for whoever asks and may stop.

    Parameters
    ----------
    spec, ring
        The watermark and its keys.
    """

    def __init__(self, spec: WatermarkSpec, ring: KeyRing) -> None:
        self._spec, self._ring, self._keys = spec, ring, _keys(spec, ring)
        self._growth = Growth()

    @property
    def log10_evalue(self) -> float:
        """So far: what `conclude` gives for the same cuts, bit for bit."""
        return self._growth.log10_evalue

    @property
    def log_answer(self) -> float:
        """Of the answer that the last cut is in, in nats (`detect.race.bets.goes_on`)."""
        return self._growth.log_answer

    def observe(self, rows: RaceEvidence) -> float:
        """Take the cuts that follow in, each answer's one behind the other; log10 of the e-value as it is now."""
        tilt = _Owned.of(rows, self._spec, self._ring).tilts(rows, self._spec, self._keys)
        laid = stakes(rows.ask, rows.chances, rows.said, rows.shares, rows.base)
        self._growth.observe_all(rows.documents, laid.log_growths(tilt), each=False)
        return self.log10_evalue


def _settle(
    evidence: RaceEvidence, spec: WatermarkSpec, ring: KeyRing, owners: _Owned, decoy_seed: str, decoy_count: int
) -> _Settled:
    """The bets under the true keys and all decoys' in one pass."""
    used = replace(ring, tenants={name: key for name, key in ring.tenants.items() if KeyName(name) in owners.masks})
    decoys = [_keys(spec, decoy) for decoy in decoy_rings(decoy_seed, decoy_count, spec, used)]
    watched = [Growth() for _ in decoys]
    keys = _keys(spec, ring)
    growths, taken, chances = [], [], []
    for block in _blocks(len(evidence)):
        rows, mine = evidence.part(block), owners.part(block)
        laid = stakes(rows.ask, rows.chances, rows.said, rows.shares, rows.base)
        tilt = mine.tilts(rows, spec, keys)
        growths.append(laid.log_growths(tilt))
        each, said = np.arange(len(rows)), np.maximum(rows.said, 0)
        taken.append(np.where(rows.said != NOT_SAID, tilt[:, each, said].mean(axis=0), 0.0))
        chances.append(chances_said(rows))
        for growth, decoy in zip(watched, decoys, strict=True):
            growth.observe_all(rows.documents, laid.log_growths(mine.tilts(rows, spec, decoy)), each=False)
    layers = max((len(one) for one in growths), default=1)
    return _Settled(
        growths=np.concatenate([np.broadcast_to(one, (layers, *one.shape[1:])) for one in growths], axis=1)
        if growths
        else np.zeros((1, 0, 0)),
        taken=np.concatenate([*taken, np.zeros(0)]),
        chances=np.concatenate([*chances, np.zeros(0)]),
        decoys=[growth.log10_evalue for growth in watched],
    )


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(count, start + _BLOCK))


def _contradiction(decoys: Sequence[float]) -> str | None:
    """Why decoys allow no verdict: the mean of their e-values is an e-value of "the test is sound"."""
    if not decoys or mean_log10_e(decoys) < LOG10_CONTRADICTION:
        return None
    return (
        f"the test contradicts itself: under {len(decoys)} keys that nobody used the mean of the e-values is "
        f"10^{mean_log10_e(decoys):.1f}, where 1 is to be expected"
    )


def _hypotheses(
    evidence: RaceEvidence, spec: WatermarkSpec, ring: KeyRing, owners: _Owned, settled: _Settled, *, counted: bool
) -> list[RaceFound]:
    """Each key that is tested, on the cuts that it marks; the choice among the accounts paid for by their number."""
    names = list(tested_keys(spec, ring))
    accounts = sum(not name.is_global for name in names)
    # A hit is an event only where the key chose one word, by one sub-key.
    counted = counted and isinstance(spec.build_scheme(), Gumbel) and bool((evidence.subkeys >= 0).all())
    speaking = ~evidence.silent
    found = []
    for name in names:
        mine = owners.masks.get(name, np.zeros(len(evidence), dtype=np.bool_))
        evalues = log10_evalues(evidence.documents[mine], settled.growths[:, mine])
        log10_evalue = float(evalues[-1]) if len(evalues) else 0.0
        hits = float(settled.taken[mine].sum())
        found.append(
            RaceFound(
                key=str(name),
                cuts=int((mine & speaking).sum()),
                hits=hits,
                expected=float(settled.chances[mine].sum()),
                log10_pvalue=log10_hits(evidence, mine, round(hits)) if counted else None,
                log10_evalue=log10_evalue,
                log10_evalue_adjusted=log10_evalue - (0.0 if name.is_global else math.log10(accounts)),
            )
        )
    return found


def chances_said(evidence: RaceEvidence) -> F64:
    """The owner's chances of the suspect's words, shape (n,); 0 where it said none."""
    rows = np.arange(len(evidence))
    return np.where(evidence.said == NOT_SAID, 0.0, evidence.chances[rows, np.maximum(evidence.said, 0)])


def log10_hits(evidence: RaceEvidence, mine: Mask, hits: int) -> float:
    """Log10 of the chance of so many hits or more at the cuts of ``mine``, shape (n,): an upper bound by `LATTICE`."""
    raised = chances_said(evidence) + LATTICE * np.count_nonzero(evidence.chances, axis=1)
    return log10_tail(np.minimum(raised[mine & (evidence.said != NOT_SAID)], 1.0), hits)


def _lit(evidence: RaceEvidence, settled: _Settled) -> list[LitAnswer]:
    """The answers with the largest e-values of their own."""
    if not len(evidence):
        return []
    starts = np.flatnonzero(np.diff(evidence.documents, prepend=-1))
    # The mean over bets and sub-keys of the product over the answer's cuts.
    logs = np.add.reduceat(settled.growths, starts, axis=1)
    top = logs.max(axis=(0, 2), keepdims=True)
    log10 = (top[0, :, 0] + np.log(np.exp(logs - top).mean(axis=(0, 2)))) / math.log(10.0)
    bounds = [*starts.tolist(), len(evidence)]
    speaking = ~evidence.silent
    found = []
    for place in np.argsort(-log10, kind="stable")[:_LIT].tolist():
        if log10[place] <= 0:
            break
        rows = slice(bounds[place], bounds[place + 1])
        document = int(evidence.documents[bounds[place]])
        whose = int(evidence.account[document])
        found.append(
            LitAnswer(
                name=evidence.names[document],
                account=None if whose < 0 else evidence.accounts[whose],
                cuts=int(speaking[rows].sum()),
                hits=float(settled.taken[rows].sum()),
                expected=float(settled.chances[rows].sum()),
                log10_evalue=float(log10[place]),
            )
        )
    return found


def _curve(evalues: F64) -> list[CurvePoint]:
    """The evidence after some of the cuts."""
    return [
        CurvePoint(count=count, log10_pvalue=None, log10_evalue=float(evalues[count - 1]))
        for count in curve_counts(len(evalues))
    ]


def curve_counts(n: int) -> list[int]:
    """After how many of n cuts the curve has a point."""
    return sorted({1, n, *np.rint(np.geomspace(1, n, _CURVE_POINTS)).astype(int).tolist()}) if n else []
