"""How many twins may be drawn: so many at once, and so many tokens of them a day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Literal


def _today() -> date:
    return datetime.now(UTC).date()


class Budget:
    """The operator's limits. They are asked before a coin is tossed.

    Parameters
    ----------
    tokens_a_day
        Of twins, by the calendar of UTC; None for no limit. Half of what two answers have together counts as the
        twin's, and not what the withheld one has, so that no coin has a say in when twins stop.
    at_once
        Twins under way at most.
    today
        The calendar.

    Examples
    --------
    >>> budget = Budget(100, at_once=1)
    >>> budget.begin(), budget.refusal()
    (None, 'at once')
    >>> budget.end(tokens=240)
    >>> budget.refusal()
    'budget'
    """

    def __init__(self, tokens_a_day: int | None, at_once: int, today: Callable[[], date] = _today) -> None:
        self._most, self._at_once, self._today = tokens_a_day, at_once, today
        self._day = today()
        self._halves = 0
        self.under_way = 0

    def refusal(self) -> Literal["budget", "at once"] | None:
        """Why no twin may be drawn now; None where one may."""
        if self._most is not None and self.spent >= self._most:
            return "budget"
        return "at once" if self.under_way >= self._at_once else None

    @property
    def spent(self) -> float:
        """Tokens of today's twins."""
        self._turn()
        return self._halves / 2

    def begin(self) -> None:
        """Note a twin that is being drawn."""
        self.under_way += 1

    def end(self, tokens: int) -> None:
        """Note that one is drawn, or given up.

        Parameters
        ----------
        tokens
            Of both answers, as far as they came.
        """
        self._turn()
        self.under_way -= 1
        self._halves += tokens

    def _turn(self) -> None:
        if (day := self._today()) != self._day:
            self._day, self._halves = day, 0
