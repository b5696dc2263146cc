r"""Bets on what the key chose at each cut, from what the suspect said there: an e-value to be watched as it grows.

At a cut the served answer up to it, the owner's chances p of the k candidates and the suspect's reply are given. The
key's weights K (`detect.race.tilts`) are of a context that is used for the first time, so its words are as good as
newly drawn: the mean of K(v) over keys, given all that came before, is at most p'(v) = p(v) + k 2^-33
(`detect.keyed.choices`). A bet lays a stake on each candidate, c(v) >= 0, and keeps the rest, a >= 0, with

.. math:: a + \sum_v p'(v) c(v) \le 1, \qquad e = a + \sum_v K(v) c(v),

and so :math:`E[e] \le 1` whatever the reply is, since the stakes are made of it and of p alone: e is what a gambler has
after a bet at fair odds (Shafer 2021, "Testing by betting", section 2). Three forms are used:

* one word y: c(v) = h(v) / sum p' h, a = 0, where h(v) is how likely a suspect says y that draws from a sharpened p,
  s(v) = p(v)^kappa / sum p^kappa, with the odds of v raised to e^beta times what they were, since the key chose v: h(y)
  = s(y) e^beta / (1 - s(y) + s(y) e^beta), for others h(v) = s(y) / (1 - s(v) + s(v) e^beta). The likelihood ratio is
  the bet that grows fastest if that is so (Shafer 2021, section 2.2). A word that the owner finds unlikely wins more
  than by staking a fixed share on it, and a miss costs little where no other word was to be expected;
* probabilities q of all candidates: the same with h = exp(theta max(0, 1 + log p / 14) clip(log q - log p, -3, 3)): of
  rare words a suspect's probabilities differ more for no reason, so that less is believed of them;
* probabilities of some, as an echo has them: a = 1 - w and c(v) = w q(v) / p'(v) where q(v) is known. That a server
  tells just the one of the token that it was shown is harmless: with all of them a + sum p' c = 1 - w + w sum q <= 1,
  and what is not known could only add to e.

Where a reference's probabilities r are at hand (`RaceEvidence.base`), r stands for p in s(v) and in log q - log p: what
the suspect has from its own base model is then no reason for a bet. r is made without the key, as q is, and the stakes
are divided by p' as before, so that nothing changes for their means.

Products. Let F be what is known before a cut: earlier cuts, their words and replies, and this answer up to here. Each
e has mean at most 1 given F, so the product over the cuts of one answer, E_d, is a test supermartingale. So is

.. math:: \prod_d (1 - \pi + \pi E_d)

(each cut multiplies one factor's E_d by an e, and the whole is linear in it): a gambler who puts the share pi of all
into each new answer, for a suspect that learnt from few of them. With pi = 1 it is the plain product. Averages of such
with weights fixed before are test supermartingales too (Vovk and Wang 2021, "E-values: calibration, combination and
applications", section 3 on averages and section 4 on products of sequential e-values): over the bets, over pi, and
inside an answer over the sub-keys that may have marked it, where that is not on record. By Ville's inequality the
chance that the result ever reaches 1 / alpha is at most alpha: one may stop asking at any time.

What is fixed before the key matters: the grids below; p, which the owner's model makes at the answer so far; the
candidates; the order, which is that of serving; and which cuts are bet on, which their prefixes decide. A reply that
depended on what follows its cut would break all of this (`tests/detect/race/test_calibration.py` shows one caught). One
place is open to that: whether a request over a whole answer fails may depend on words that the key chose later in it.
So where such a reply is missing, each of its cuts counts at the least that it could have been.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from detect.keyed.choices import LATTICE
from detect.records.race import RaceAsk
from watermark.backends.numba_backend import jit

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

Bet = Literal["words", "whole", "known"]
"""On one word; on probabilities of all candidates; on those that are known."""

STAKES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""w: shares of what there is that are laid on probabilities of which some are known."""
RAISES = (0.25, 0.5, 1.0, 2.0, 3.0)
"""beta: by how many nats the suspect raises what the key chose, for bets on one word."""
SHARPNESS: dict[RaceAsk, float] = {"greedy": 2.5, "bias": 0.625}
"""kappa: how much surer of likely words a suspect is in what it says than the owner's chances are. A suspect says its
likeliest word, so that its wavering between likely ones is small; against a bias of -0.75 log p a quarter is left."""
THETAS = (0.5, 1.0, 2.0, 3.0, 4.0)
"""How far what the suspect raises is believed to be what the key chose, for bets on probabilities of all."""
CLIP = 3.0
"""The largest log-ratio that is taken, in nats."""
RARE = 14.0
"""-log p at which it isn't believed at all: fitted, as `SHARPNESS` is, to students of answers without this mark."""
PARTS = (1.0, 0.3, 0.1, 0.03)
"""pi: shares of the answers that the suspect may have learnt from."""

LEAVES = -0.3
"""Nats that an answer's bets may have lost before it is left (`goes_on`): what an answer that was learnt from may lose
at its first cuts by bad luck."""

_LOG_PARTS = np.log(PARTS)
_LOG_RESTS = np.array([math.log1p(-part) if part < 1 else -math.inf for part in PARTS])
_LEAST_SHARE = 1e-30  # its logarithm is a number; the clip takes it anyway


def bet_of(ask: RaceAsk) -> Bet:
    """How the replies to an ask are bet on."""
    if ask in ("greedy", "bias"):
        return "words"
    return "known" if ask == "echo" else "whole"


def goes_on(cuts: int, log_evalue: float) -> bool:
    """Whether it pays to ask about an answer once more, where each cut is a request of its own.

    A suspect that learnt from few answers shows in few; so an answer is left as soon as its bets lose, and the next
    one is begun. That is decided by words and replies at earlier cuts alone, so the bets stay fair: leaving an
    answer is no more than a stake of nothing on its later cuts.

    Parameters
    ----------
    cuts
        Of this answer that were asked about.
    log_evalue
        Log of the mean over all bets of the product over these cuts, in nats (`Growth.log_answer`).
    """
    return cuts == 0 or log_evalue >= LEAVES


@dataclass(frozen=True, slots=True, eq=False)
class Stakes:
    """What is laid at each cut, before the key has a say.

    Attributes
    ----------
    kept
        a, shape (n, bets).
    laid
        c, on each candidate, shape (n, bets, k).
    """

    kept: F64
    laid: F64

    def log_growths(self, tilt: F64) -> F64:
        """Log of each e-value in nats, shape (s, n, bets), for the key's weights, shape (s, n, k)."""
        out = np.empty((len(tilt), *self.kept.shape))
        _settle(self.kept, self.laid, tilt, out)
        return out


def stakes(ask: RaceAsk, chances: F64, said: I32, shares: F64, base: F64 | None = None) -> Stakes:
    """Lay the stakes of all bets.

    Parameters
    ----------
    ask
        What was read of the suspect.
    chances, said, shares, base
        As `detect.race.evidence.RaceEvidence` has them.
    """
    raised = chances + (LATTICE * np.count_nonzero(chances, axis=1))[:, None]
    bet = bet_of(ask)
    if bet == "known":
        return _on_known(raised, shares)
    usual = chances if base is None else _usual(chances, base)
    if bet == "words":
        return _on_words(raised, usual, said, SHARPNESS[ask])
    return _on_all(raised, chances, usual, shares, paid=ask == "prompt-logprobs")


def log_growths(ask: RaceAsk, tilt: F64, chances: F64, said: I32, shares: F64, base: F64 | None = None) -> F64:
    """Log of each bet's e-value at each cut, in nats, shape (s, n, bets), for weights ``tilt`` (s, n, k)."""
    return stakes(ask, chances, said, shares, base).log_growths(tilt)


def _usual(chances: F64, base: F64) -> F64:
    """What a suspect that learnt nothing here might say: the reference's probabilities, or else the owner's; (n, k)."""
    there = chances > 0
    known = np.asarray((~np.isnan(base) | ~there).all(axis=1, keepdims=True))
    return np.where(there, np.where(known, np.maximum(base, _LEAST_SHARE), chances), 0.0)


def _on_words(raised: F64, usual: F64, said: I32, sharpness: float) -> Stakes:
    """By the word that was said; nothing where there is none: the prefix alone decides whether there is."""
    there = usual > 0
    sharp = usual**sharpness
    sharp /= sharp.sum(axis=1, keepdims=True)
    odds = np.exp(RAISES)
    rows = np.flatnonzero(said >= 0)
    # Of h what all candidates have in common is left out.
    h = there[:, None, :] / (1 + sharp[:, None, :] * (odds[:, None] - 1))
    h[rows, :, said[rows]] *= odds
    laid = h / (h * raised[:, None, :]).sum(axis=2, keepdims=True)
    silent = said < 0
    laid[silent] = 0.0
    return Stakes(np.repeat(silent[:, None].astype(np.float64), len(RAISES), axis=1), laid)


def _on_known(raised: F64, shares: F64) -> Stakes:
    """On each candidate in the measure of its share; what is not known is not bet on, and is not kept either."""
    w = np.array(STAKES)
    known = np.minimum(np.nan_to_num(shares, nan=0.0), 1.0) / raised
    return Stakes(np.tile(1 - w, (len(shares), 1)), w[:, None] * known[:, None, :])


def _on_all(raised: F64, chances: F64, usual: F64, shares: F64, *, paid: bool) -> Stakes:
    """On each candidate in the measure of a power of how far the suspect raises it, a smaller one for rare ones.

    paid
        Whether cuts without a reply count at the least that they could have been, else they don't count.
    """
    theta = np.array(THETAS)[:, None]
    there = chances > 0
    silent = np.asarray(np.isnan(shares).all(axis=1))
    log_p = np.log(np.where(there, chances, 1.0))
    with np.errstate(invalid="ignore"):
        ratio = np.log(np.maximum(shares, _LEAST_SHARE)) - np.log(np.where(there, usual, 1.0))
    ratio = np.clip(np.where(there & ~silent[:, None], ratio, 0.0), -CLIP, CLIP)
    h = there[:, None, :] * np.exp(theta * (np.maximum(1 + log_p / RARE, 0.0) * ratio)[:, None, :])
    laid = h / (h * raised[:, None, :]).sum(axis=2, keepdims=True)
    laid[silent] = 0.0
    least = np.exp(-2 * CLIP * theta[:, 0]) / raised.sum(axis=1)[:, None] if paid else np.ones((1, len(theta)))
    return Stakes(np.where(silent[:, None], np.broadcast_to(least, (len(chances), len(theta))), 0.0), laid)


@jit()
def _settle(kept: F64, laid: F64, tilt: F64, out: F64) -> None:
    subkeys, rows, k = tilt.shape
    bets = kept.shape[1]
    for s in range(subkeys):
        for row in range(rows):
            for bet in range(bets):
                value = kept[row, bet]
                for v in range(k):
                    value += tilt[s, row, v] * laid[row, bet, v]
                out[s, row, bet] = math.log(value)


class Growth:
    """The evidence as it grows, cut after cut: the average over bets and `PARTS` of the product over answers.

    Cuts of one answer come one behind the other.
    """

    def __init__(self) -> None:
        self._document = -1
        self._ended = np.zeros((0, len(PARTS)))  # log of the product over answers that are done, (bets, parts)
        self._running = np.zeros((1, 0))  # log of the running answer's product, (s, bets)
        self._value = 0.0

    @property
    def log10_evalue(self) -> float:
        """So far."""
        return self._value

    @property
    def log_answer(self) -> float:
        """Log of the mean over bets and sub-keys of the product over the cuts of the last answer, in nats."""
        if not self._running.size:
            return 0.0
        top = float(self._running.max())
        return top + math.log(float(np.exp(self._running - top).mean()))

    def observe(self, document: int, growth: F64) -> float:
        """Take one cut's `Stakes.log_growths`, shape (s, bets), in; log10 of the e-value as it is now."""
        return float(self.observe_all(np.array([document], dtype=np.int32), growth[:, None, :])[-1])

    def observe_all(self, documents: I32, growths: F64, *, each: bool = True) -> F64:
        """Take cuts in: their answers (n,) and growths (s, n, bets).

        Returns log10 of the e-value after each, shape (n,), or without ``each`` after the last alone, (1,).
        """
        n, bets = growths.shape[1:]
        if not self._running.shape[1]:
            self._ended, self._running = np.zeros((bets, len(PARTS))), np.zeros((1, bets))
        if len(self._running) < len(growths):  # a sub-key is unknown for the first time
            self._running = np.repeat(self._running, len(growths), axis=0)
        values = np.full(n if each else 1, self._value)
        if n:
            self._document = _grow(
                self._document, self._ended, self._running, documents, growths, values, _LOG_PARTS, _LOG_RESTS
            )
            self._value = float(values[-1])
        return values


def log10_evalues(documents: I32, growths: F64) -> F64:
    """Log10 of the e-value after each cut, shape (n,), for growths (s, n, bets): what `Growth` gives, bit for bit."""
    return Growth().observe_all(documents, growths)


@jit()
def _grow(
    document: int,
    ended: F64,
    running: F64,
    documents: I32,
    growths: F64,
    values: F64,
    log_parts: F64,
    log_rests: F64,
) -> int:
    layers = len(growths)
    subkeys, bets = running.shape
    rows = len(documents)
    for row in range(rows):
        if documents[row] != document:
            if document >= 0:
                for bet in range(bets):
                    own = _of_answer(running, bet)
                    for part in range(len(log_parts)):
                        ended[bet, part] += _put_in(own, log_parts[part], log_rests[part])
            running[:] = 0.0
            document = documents[row]
        for s in range(subkeys):
            for bet in range(bets):
                running[s, bet] += growths[s if layers > 1 else 0, row, bet]
        if len(values) == rows or row == rows - 1:
            values[min(row, len(values) - 1)] = _average(ended, running, log_parts, log_rests) / math.log(10.0)
    return document


@jit()
def _of_answer(running: F64, bet: int) -> float:
    """Log of the mean over sub-keys."""
    top = running[:, bet].max()
    total = 0.0
    for s in range(len(running)):
        total += math.exp(running[s, bet] - top)
    return float(top + math.log(total / len(running)))


@jit()
def _put_in(own: float, log_part: float, log_rest: float) -> float:
    """log(1 - pi + pi E)."""
    if log_rest == -math.inf:
        return own
    high, low = max(log_part + own, log_rest), min(log_part + own, log_rest)
    return high + math.log1p(math.exp(low - high))


@jit()
def _average(ended: F64, running: F64, log_parts: F64, log_rests: F64) -> float:
    """Log of the mean over bets and parts."""
    bets, parts = ended.shape
    logs = np.empty(bets * parts)
    for bet in range(bets):
        own = _of_answer(running, bet)
        for part in range(parts):
            logs[bet * parts + part] = ended[bet, part] + _put_in(own, log_parts[part], log_rests[part])
    top = logs.max()
    total = 0.0
    for one in logs:
        total += math.exp(one - top)
    return float(top + math.log(total / len(logs)))
