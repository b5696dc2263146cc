"""What the evidence of a race readout comes to: keys, accounts, answers, curve and verdict.

All of it is computed from `RaceEvidence`, the spec and the keys, so that another party computes it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detect.race.evidence import I32, U32, RaceEvidence
from detect.records.key_name import KeyName
from detect.records.race import LitAnswer, RaceControls, RaceFound
from detect.records.trace import CurvePoint
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec


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
    raise NotImplementedError


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
    """
    raise NotImplementedError


class Live:
    """The evidence of a readout as it grows, for whoever asks and may stop.

    Parameters
    ----------
    spec, ring
        The watermark and its keys.
    """

    def __init__(self, spec: WatermarkSpec, ring: KeyRing) -> None:
        raise NotImplementedError

    @property
    def log10_evalue(self) -> float:
        """So far."""
        raise NotImplementedError

    def observe(self, rows: RaceEvidence) -> float:
        """Take the cuts that follow in; log10 of the e-value as it is now."""
        raise NotImplementedError
