"""What the evidence of a test by twins comes to: bets, measures, accounts, share, curve and verdict.

All of it is computed from `TwinEvidence` and the law test alone, so that another party computes it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from detect.laws.tails import log10_sf
from detect.records.scan import Interval
from detect.records.trace import CurvePoint
from detect.records.twins import AccountFound, LawTest, MeasureFound
from detect.twins.bets import Bettor, bets
from detect.twins.evidence import TwinEvidence
from detect.twins.law import FlatSigns, flat
from detect.twins.share import share_of_pairs
from detect.twins.signs import sign_flip, sign_test
from watermark.laws import Bernoulli

F64 = npt.NDArray[np.float64]

_CURVE_POINTS = 60
_LOG10_AWAY = -2.0  # of the tests against what was served


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The fields of `detect.records.twins.TwinRecord` of these names."""

    measures: list[MeasureFound]
    accounts: list[AccountFound]
    identified: list[str]
    log10_evalue: float
    log10_pvalue: float | None
    refused: str | None
    found: bool
    share: Interval | None
    share_reason: str
    curve: list[CurvePoint]


def conclude(evidence: TwinEvidence, law: LawTest | None, alpha: float, objection: str | None = None) -> Conclusion:
    """Conclude from the evidence.

    Parameters
    ----------
    evidence
        Of at least one pair.
    law
        Of regenerated twins; None for withheld ones.
    alpha
        Level of the verdict.
    objection
        Why the way in which the evidence came about allows no verdict.
    """
    refused = objection if law is None or law.veto is None else law.veto
    if refused is None and not np.any(evidence.differences):
        refused = "none of the pairs that were asked about gave a difference, so nothing was measured"
    evalues = log10_evalues(evidence, law)
    found_accounts = accounts(evidence, law)
    log10_evalue = float(evalues[-1]) if len(evalues) else 0.0
    wins, losses, _ = tally(evidence, 0)
    if refused is None and log10_evalue >= log10_threshold(alpha):
        refused = leans_away(evidence)
    share, share_reason = share_of_pairs(wins, losses, bias=_bias(law))
    return Conclusion(
        measures=measures(evidence, law),
        accounts=found_accounts,
        identified=[
            one.account
            for number, one in enumerate(found_accounts)
            if refused is None
            and one.log10_evalue_adjusted >= log10_threshold(alpha)
            and _is_bounded(one, evidence, law)
            and leans_away(part(evidence, evidence.account == number)) is None
        ],
        log10_evalue=log10_evalue,
        log10_pvalue=None if refused is not None else min(0.0, -log10_evalue),
        refused=refused,
        found=refused is None and log10_evalue >= log10_threshold(alpha),
        share=share,
        share_reason=share_reason,
        curve=curve(evidence, evalues, law),
    )


def leans_away(evidence: TwinEvidence) -> str | None:
    """Why a suspect that leans to the withheld twins gets no verdict, though the coins speak: bets learn either way.

    A reference that learnt from the served answers has the same effect: whoever is compared with it leans away. Where
    it learnt from few of them, that shows in the largest differences alone; so their sum is looked at as well as their
    number.
    """
    wins, losses, _ = tally(evidence, 0)
    by_number = sign_test(losses, wins)
    if by_number > _LOG10_AWAY:
        x = evidence.differences[:, 0]
        # A sum for what was served is no small chance against it, and its exact tail would take long.
        if float(x @ evidence.signs) > 0 or sign_flip(x, -evidence.signs) > _LOG10_AWAY:
            return None
    how = "" if by_number <= _LOG10_AWAY else ", by the largest differences"
    return (
        f"the suspect leans to the answers that were withheld ({losses:,} to {wins:,}{how}), which no training on "
        "served ones explains: a reference that learnt from them would, so test without one or with another"
    )


def _is_bounded(account: AccountFound, evidence: TwinEvidence, law: LawTest | None) -> bool:
    """Whether a law test bounds the bias of an account's own pairs: it bounds that of all pairs together.

    An account may have had a system prompt of its own, and its twins another law than its answers.
    """
    return law is None or account.pairs == len(evidence)


def log10_threshold(alpha: float) -> float:
    """Log10 of the e-value from which on something is found: 1 / alpha (Ville's inequality)."""
    return -math.log10(alpha)


def log10_evalues(evidence: TwinEvidence, law: LawTest | None) -> F64:
    """Log10 of the e-value after each pair, shape (n,).

    Withheld twins are bet on with all that the numbers say; regenerated ones with the sign of the first number alone,
    less what covariates account for, under a null that allows for a bias (`detect.twins.law.flat`).
    """
    x, z = evidence.differences, evidence.covariates
    if law is None:
        return bets(x, evidence.signs, z, combination=evidence.combination).log10_evalues
    return bets(flat(x, z), evidence.signs, bias=law.bias).log10_evalues


class Growth:
    """The evidence as it grows, pair after pair.

    Parameters
    ----------
    columns, covariates
        How many of each.
    law, combination
        As for `log10_evalues`, whose values these are, bit for bit.
    """

    def __init__(self, columns: int, covariates: int, law: LawTest | None, combination: F64 | None = None) -> None:
        self._signs = None if law is None else FlatSigns(covariates)
        self._bettor = Bettor(columns, covariates, combination=combination) if law is None else Bettor(1, bias=law.bias)

    @property
    def log10_evalue(self) -> float:
        """So far."""
        return self._bettor.log10_evalue

    def observe(self, x: F64, z: F64, sign: int) -> float:
        """Take a pair and its coin in; log10 of the e-value as it is now known."""
        if self._signs is None:
            return self._bettor.observe(x, z, sign)
        return self._bettor.observe([self._signs.next(float(x[0]), z)], [], sign)


def tally(evidence: TwinEvidence, column: int) -> tuple[int, int, int]:
    """Wins, losses and ties of one number."""
    signed = evidence.differences[:, column] * evidence.signs
    wins, losses = int(np.sum(signed > 0)), int(np.sum(signed < 0))
    return wins, losses, len(signed) - wins - losses


def measures(evidence: TwinEvidence, law: LawTest | None) -> list[MeasureFound]:
    """Each number alone."""
    found = []
    for column, name in enumerate(evidence.columns):
        wins, losses, ties = tally(evidence, column)
        found.append(
            MeasureFound(
                name=name, wins=wins, losses=losses, ties=ties, log10_pvalue=log10_tail(wins, losses, _bias(law))
            )
        )
    return found


def log10_tail(wins: int, losses: int, bias: float = 0.0) -> float:
    """Log10 of the chance of so many wins or more with coins of chance 1/2 + bias, the worst that is allowed for."""
    return sign_test(wins, losses) if bias == 0 else log10_sf(Bernoulli(0.5 + bias), wins + losses, wins)


def accounts(evidence: TwinEvidence, law: LawTest | None) -> list[AccountFound]:
    """Each named account's own coins, the choice among the accounts paid for by their number (Bonferroni)."""
    found = []
    for number, name in enumerate(evidence.accounts):
        own = part(evidence, evidence.account == number)
        wins, losses, _ = tally(own, 0)
        evalues = log10_evalues(own, law)
        log10_evalue = float(evalues[-1]) if len(evalues) else 0.0
        found.append(
            AccountFound(
                account=name,
                pairs=len(own),
                wins=wins,
                losses=losses,
                log10_evalue=log10_evalue,
                log10_evalue_adjusted=log10_evalue - math.log10(len(evidence.accounts)),
            )
        )
    return found


def part(evidence: TwinEvidence, kept: npt.NDArray[np.bool_]) -> TwinEvidence:
    """The evidence of some of the pairs."""
    rows = np.flatnonzero(kept)
    return replace(
        evidence,
        ids=tuple(evidence.ids[row] for row in rows),
        made=tuple(evidence.made[row] for row in rows),
        differences=evidence.differences[rows],
        covariates=evidence.covariates[rows],
        signs=evidence.signs[rows],
        account=evidence.account[rows],
    )


def curve(evidence: TwinEvidence, evalues: F64, law: LawTest | None) -> list[CurvePoint]:
    """The evidence after some of the pairs, and the first number's sign test there."""
    n = len(evidence)
    if not n:
        return []
    counts = sorted({1, n, *np.rint(np.geomspace(1, n, _CURVE_POINTS)).astype(int).tolist()})
    signed = evidence.differences[:, 0] * evidence.signs
    wins, losses = np.cumsum(signed > 0), np.cumsum(signed < 0)
    return [
        CurvePoint(
            count=count,
            log10_pvalue=log10_tail(int(wins[count - 1]), int(losses[count - 1]), _bias(law)),
            log10_evalue=float(evalues[count - 1]),
        )
        for count in counts
    ]


def _bias(law: LawTest | None) -> float:
    return 0.0 if law is None else law.bias
