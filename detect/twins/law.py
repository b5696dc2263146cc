"""Whether twins that were drawn later follow the law of the served answers: controls, a veto, and the bias left open.

Regenerated twins are exchangeable with served answers only as far as model, prompt, settings and numerics are the same.
Where they are not, whoever finds one law's answers more natural prefers them without ever having seen one. So those
who can't have learnt from served answers are asked first, and must find fair coins. What a finite number of
pairs can't exclude is allowed for: the verdict's null is a coin as far from fair as ``LawTest.bias``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detect.records.twins import NEEDED_KINDS, ControlKind, LawControl, LawTest
from detect.twins.regression import EarlierPairs
from detect.twins.signs import sign_test
from watermark.errors import DyetraceError

F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]

CONFIDENCE = 0.99
"""Of the limits of all bounding controls together."""
VETO_LEVEL = 0.01
"""Chance that any of the controls refuses twins of the right law."""
MOST_BIAS = 0.2
"""A null that allows for more says that a suspect may prefer seven of ten served answers and be innocent."""
BETS_PER_PAIR = 4
"""Most bets for each pair of a control (`law_test` says why)."""


@dataclass(frozen=True, eq=False)
class Control:
    """One number of each pair, from somebody who can't have learnt from the served answers.

    Attributes
    ----------
    name
        For people.
    kind
        As of `detect.records.twins.LawControl`; what a classifier learnt from earlier pairs is `learnt_scores`.
    differences
        First side less second, shape (n,); 0 says nothing, and the pair isn't counted.
    signs
        1 where the first side was served (or logged), -1 where it was drawn later, shape (n,).
    bounds
        Whether the verdict's bias rests on this number: it is of the kind that the verdict bets on, or explains such
        numbers. Others can refuse only.
    """

    name: str
    kind: ControlKind
    differences: F64
    signs: I8
    bounds: bool = True

    @property
    def wins(self) -> int:
        """Pairs in which the number is larger for what was served."""
        return int(np.sum(self.differences * self.signs > 0))

    @property
    def losses(self) -> int:
        """Pairs in which it is smaller."""
        return int(np.sum(self.differences * self.signs < 0))

    def largest_half(self) -> Control:
        """The half of the pairs with the largest differences, of which the coin knows nothing; it can refuse only.

        Not for the classifier: how sure it is of a pair rests on the coins of others.
        """
        sizes = np.abs(self.differences)
        kept = sizes >= np.median(sizes[sizes > 0]) if np.any(sizes > 0) else np.zeros(len(sizes), dtype=bool)
        differences = np.where(kept, self.differences, 0.0)
        return Control(f"{self.name}, the half with the largest differences", self.kind, differences, self.signs, False)


def law_test(controls: Sequence[Control], *, bets: int, differing: Sequence[str] = ()) -> LawTest:
    """Decide whether regenerated twins can stand, and for how large a bias the verdict has to allow.

    Parameters
    ----------
    controls
        At least one of the owner's model, of an unrelated one and of the classifier; each number must be the one that
        the suspect is judged by (`flat`), or one that can refuse only (``bounds=False``).
    bets
        How many pairs the suspect will be bet on.
    differing
        What on record is not the same for served answers and twins (`watermark.regenerate.differing`): any is a veto.

    Returns
    -------
    LawTest
        ``bias`` is the largest `bias_upper` of the controls that bound it. It holds with confidence 99%, and that
        it does not says little: a limit that is missed is missed by little. Let a suspect that is as biased as the
        control be bet on r times as many pairs. The e-value reaches 10^k only if its share of wins exceeds the limit
        by z2 = sqrt(2 k ln 10) of its standard errors (Hoeffding 1963), while the limit lies z1 > 2.9 of the control's
        above the control's share. Both together have about the chance of a normal deviate of (z1 sqrt(r) + z2) /
        sqrt(1 + r): for k = 6 and r <= `BETS_PER_PAIR` that is 10^-6 or less. Therefore fewer pairs of a control are
        refused.

    Raises
    ------
    DyetraceError
        A control's numbers and signs are not of the same pairs, or no numbers.
    """
    for control in controls:
        _check(control)
    bounding = [control for control in controls if control.bounds]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(bounding))
    found = [
        LawControl(
            name=control.name,
            kind=control.kind,
            pairs=len(control.differences),
            wins=control.wins,
            losses=control.losses,
            log10_pvalue=sign_test(control.wins, control.losses, "two-sided"),
            bias_upper=bias_upper(control.wins, control.losses, confidence),
            bounds=control.bounds,
        )
        for control in controls
    ]
    bias = max((one.bias_upper for one in found if one.bounds), default=0.0)
    reasons = list(differing)
    reasons += [f"no control is {what}" for kind, what in NEEDED_KINDS.items() if all(c.kind != kind for c in bounding)]
    reasons += _too_few(found, bets, fewest(confidence))
    if not reasons and bias > MOST_BIAS:
        widest = max((one for one in found if one.bounds), key=lambda one: one.bias_upper)
        reasons.append(
            f"{widest.name} prefers one of the two in {max(widest.wins, widest.losses):,} of "
            f"{widest.wins + widest.losses:,} pairs, which leaves a bias of up to {bias:.2f} open, and more than "
            f"{MOST_BIAS} leaves nothing to prove"
        )
    level = math.log10(VETO_LEVEL / max(1, len(found)))
    reasons += [
        f"{one.name} tells served answers from twins ({one.wins:,} to {one.losses:,}), and can't have learnt from "
        "either: model, prompt, settings or arithmetic were not the same"
        for one in found
        if one.log10_pvalue <= level
    ]
    return LawTest(controls=found, bias=min(bias, 0.499), veto="; ".join(reasons) or None)


def _too_few(found: Sequence[LawControl], bets: int, least: int) -> list[str]:
    """Controls that are too small to bound anything, each in words."""
    needed = max(least, -(-bets // BETS_PER_PAIR))
    return [
        f"{one.name} says something of {one.wins + one.losses:,} pairs, and {needed:,} are the fewest that bound a bias"
        for one in found
        if one.bounds and one.wins + one.losses < needed
    ]


def _check(control: Control) -> None:
    x, signs = control.differences, control.signs
    if x.ndim != 1 or x.shape != signs.shape:
        raise DyetraceError(f"control {control.name!r} has numbers of shape {x.shape} and signs of shape {signs.shape}")
    if not np.isfinite(x).all() or not np.isin(signs, (-1, 1)).all():
        raise DyetraceError(f"control {control.name!r} has a number that is not finite, or a sign that is not 1 or -1")


def bias_upper(wins: int, losses: int, confidence: float = CONFIDENCE) -> float:
    """Upper limit of |P(win) - 1/2|: the further end of the two-sided interval of Clopper and Pearson.

    References
    ----------
    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26, 1934.

    Examples
    --------
    >>> bias_upper(0, 0)
    0.5
    >>> round(bias_upper(100, 100), 3)
    0.093
    """
    from scipy.stats import beta

    n, tail = wins + losses, (1 - confidence) / 2
    more, fewer = max(wins, losses), min(wins, losses)
    if fewer == 0:
        return 0.5
    return float(beta.ppf(1 - tail, more + 1, n - more)) - 0.5


def fewest(confidence: float = CONFIDENCE) -> int:
    """The fewest pairs of a control that bound a bias by `MOST_BIAS`, should it win just half of them.

    Examples
    --------
    >>> fewest()
    44
    """
    half = 1
    while bias_upper(half, half, confidence) > MOST_BIAS:
        half += 1
    return 2 * half


_RIDGE = 1.0  # a pair's worth of "no influence" that a covariate's influence starts from


def flat(differences: F64, covariates: F64 | None = None) -> F64:
    """What is bet on for regenerated twins: the sign of the leading number, less what covariates account for.

    The limit of a control is one of its share of wins. A bet that is higher on pairs with larger differences wins or
    loses more on those, and there a wrong law shows most: its bias may be larger than that of all pairs. A bet of the
    same height on each pair has no such way: with win chances p_i, and factors a + b p_i with b > 0, the mean of the
    product is at most that of equal chances of the same average (means of numbers and of their logarithms). So the
    sign alone is bet on, of one number.

    Parameters
    ----------
    differences
        First side less second, shape (n, k), in the order of time; the first column leads.
    covariates
        What flips with a pair and has nothing to do with the suspect: the owner's log-probabilities, lengths, the
        numbers of unrelated models; shape (n, c). Each pair's are taken out by a regression through the origin on the
        pairs before, in which products of two antisymmetric numbers enter and so no coin.

    Returns
    -------
    array
        Of -1, 0 and 1, shape (n, 1): 0 where the difference is 0.
    """
    x = np.asarray(differences, dtype=np.float64)[:, 0]
    z = np.zeros((len(x), 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    signs = FlatSigns(z.shape[1])
    return np.array([signs.next(float(number), row) for number, row in zip(x, z, strict=True)]).reshape(-1, 1)


class FlatSigns:
    """What `flat` gives, pair after pair."""

    def __init__(self, covariates: int) -> None:
        self._earlier = EarlierPairs(covariates, 1, _RIDGE)

    def next(self, x: float, z: F64) -> float:
        """-1, 0 or 1, from the leading number and the covariates of the next pair; a pair without a number is none."""
        if x == 0:
            return 0.0
        left = x - float(self._earlier.explained(z)[0])
        self._earlier.add(z, np.array([x]))
        return float(np.sign(left))


_BLOCKS = 12  # in which the classifier goes over the pairs
_STEPS = 20  # of Newton's method


def learnt_scores(features: F64, signs: I8, ridge: F64 | float = 1.0) -> F64:
    """A classifier of served against regenerated: each pair's score, learnt from earlier pairs alone.

    Logistic regression through the origin with a ridge, fitted anew at each of `_BLOCKS` blocks of pairs to all those
    before. Swapping a pair flips its features and its sign, so that no intercept is wanted. A score never rests on its
    own coin or a later one; so with fair coins the number of wins is exactly binomial, which it isn't with
    cross-validation, where each coin has a say in the scores of all other folds.

    Parameters
    ----------
    features
        First side less second, shape (n, k), in the order of time.
    signs
        1 where the first side was served, shape (n,).
    ridge
        Penalty of each standardised feature's weight, in pairs; shape (k,) or one for all.

    Returns
    -------
    array
        Shape (n,); 0 in the first block.
    """
    n, k = features.shape
    scale = np.sqrt(np.mean(features**2, axis=0)) if n else np.ones(k)
    x = np.clip(features / np.where(scale > 0, scale, 1.0), -5, 5)
    penalty = np.broadcast_to(np.asarray(ridge, dtype=np.float64), (k,))
    scores, edges = np.zeros(n), np.linspace(0, n, _BLOCKS + 1).astype(int)
    weights = np.zeros(k)
    for start, stop in zip(edges[1:-1].tolist(), edges[2:].tolist(), strict=True):
        weights = _logistic(x[:start] * signs[:start, None], penalty, weights)
        scores[start:stop] = np.sum(x[start:stop] * weights, axis=1)
    return scores


def _logistic(turned: F64, penalty: F64, weights: F64) -> F64:
    """Weights w with the least sum log(1 + exp(-turned w)) + sum penalty w^2 / 2, by Newton's method."""

    def loss(w: F64) -> float:
        return float(np.sum(np.logaddexp(0, -turned @ w)) + np.sum(penalty * w * w) / 2)

    best = loss(weights)
    for _ in range(_STEPS):
        surprise = 1 / (1 + np.exp(np.clip(turned @ weights, -500, 500)))
        gradient = penalty * weights - turned.T @ surprise
        curvature = (turned * (surprise * (1 - surprise))[:, None]).T @ turned + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (now := loss(weights - size * step)) > best and size > 1e-4:
            size /= 2
        if best - now < 1e-9:
            break
        weights, best = weights - size * step, now
    return weights
