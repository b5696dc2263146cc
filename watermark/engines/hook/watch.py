"""Whether the mark is really there: rolling evidence of each account over its recent tokens, in bounded memory.

Every token that an engine says it has generated is scored under the key that should have chosen it. An engine that
overrides, reorders or drops the hook's choice brings the score down to that of unmarked text, and raises an alarm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from watermark.engines.hook.answers import Answer, Context, statistics
from watermark.engines.hook.epoch import Epoch

VANISHED_Z = 4.0
"""Marked text of this many tokens has a far larger z; unmarked text reaches it once in 30,000 looks."""
_FEWEST = 256
_ACCOUNTS = 4096
_BATCH = 256


@dataclass(slots=True)
class Evidence:
    """An account's recent tokens: how many, and the sum of their statistics, both fading."""

    tokens: float = 0.0
    squares: float = 0.0
    total: float = 0.0
    alarmed: bool = False

    def add(self, scores: npt.NDArray[np.floating[Any]], fading: float) -> None:
        """Add standardised scores, (n,)."""
        kept = fading ** len(scores)
        weights = fading ** np.arange(len(scores) - 1, -1, -1.0)
        self.tokens = self.tokens * kept + float(weights.sum())
        self.squares = self.squares * kept**2 + float((weights**2).sum())
        self.total = self.total * kept + float(weights @ scores)

    @property
    def z(self) -> float:
        """Standard deviations above what unmarked text scores."""
        return self.total / self.squares**0.5 if self.squares else 0.0


class Watch:
    """Rolling evidence of many accounts.

    Parameters
    ----------
    tokens
        How many recent tokens of each account count: older ones fade with that half-life.
    """

    def __init__(self, tokens: int) -> None:
        self._fading = 0.5 ** (1 / tokens) if tokens else 0.0
        self._accounts: OrderedDict[str | None, Evidence] = OrderedDict()
        self._pending: list[tuple[Epoch, str | None, int, Context, int]] = []

    def note(self, answer: Answer, fresh: Sequence[tuple[Context, int]]) -> None:
        """Remember tokens that the hook has chosen, by context and what the engine generated."""
        self._pending.extend((answer.epoch, answer.tenant, answer.subkey, context, token) for context, token in fresh)

    def looked(self, *, all_of_them: bool = False) -> list[str | None]:
        """Score what was noted (when there is enough of it) and return accounts whose mark has vanished since."""
        if not self._pending or (len(self._pending) < _BATCH and not all_of_them):
            return []
        groups: dict[tuple[Epoch, str | None, int], list[tuple[Context, int]]] = {}
        for epoch, tenant, subkey, context, token in self._pending:
            groups.setdefault((epoch, tenant, subkey), []).append((context, token))
        self._pending.clear()
        vanished = []
        for (epoch, tenant, subkey), tuples in groups.items():
            mean, sd = epoch.moments
            account = self._account(tenant)
            account.add((statistics(epoch, tenant, subkey, tuples) - mean) / sd, self._fading)
            gone = account.tokens >= _FEWEST and account.z < VANISHED_Z
            if gone and not account.alarmed:
                vanished.append(tenant)
            account.alarmed = gone
        return vanished

    def _account(self, tenant: str | None) -> Evidence:
        found = self._accounts.setdefault(tenant, Evidence())
        self._accounts.move_to_end(tenant)
        if len(self._accounts) > _ACCOUNTS:
            self._accounts.popitem(last=False)
        return found

    @property
    def evidence(self) -> dict[str | None, Evidence]:
        """Of each account seen lately."""
        return dict(self._accounts)
