"""Bets on what the key chose at each cut, from what the suspect said there."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from detect.records.race import RaceAsk

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

Bet = Literal["words", "whole", "known"]
"""On one word; on probabilities of all candidates; on those that are known."""


def bet_of(ask: RaceAsk) -> Bet:
    """How the replies to an ask are bet on."""
    if ask in ("greedy", "bias"):
        return "words"
    return "known" if ask == "echo" else "whole"


def log_growths(ask: RaceAsk, tilt: F64, chances: F64, said: I32, shares: F64) -> F64:
    """Log of each bet's e-value at each cut, in nats, shape (s, n, bets), for weights ``tilt`` (s, n, k)."""
    raise NotImplementedError


class Growth:
    """The evidence as it grows, cut after cut: a test martingale."""

    def __init__(self, subkeys: int, bets: int) -> None:
        raise NotImplementedError

    @property
    def log10_evalue(self) -> float:
        """So far."""
        raise NotImplementedError

    def observe(self, document: int, growth: F64) -> float:
        """Take a cut's row of `log_growths`, (s, bets), in; log10 of the e-value as it is now."""
        raise NotImplementedError


def log10_evalues(documents: I32, growths: F64) -> F64:
    """Log10 of the e-value after each cut, shape (n,), for growths (s, n, bets): what `Growth` gives, bit for bit."""
    raise NotImplementedError
