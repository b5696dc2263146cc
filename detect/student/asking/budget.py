"""Budgets in requests and tokens that are never exceeded: what a request can cost is set aside before it is sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from watermark.errors import DyetraceError


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The most that a trace may spend, over all its resumptions; null means no limit.

    Attributes
    ----------
    requests
        HTTP requests sent, retries included.
    tokens
        Prompt and completion tokens as the endpoint counts them; where it doesn't, an upper bound.
    """

    requests: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("requests", self.requests), ("tokens", self.tokens)):
            if value is not None and value < 1:
                raise DyetraceError(f"plan field budgets.{name} must be 1 or more, or null (got {value})")

    def tightened(self, other: Budgets | None) -> Budgets:
        """The smaller of both limits, each."""
        if other is None:
            return self
        return Budgets(
            requests=_smaller(self.requests, other.requests),
            tokens=_smaller(self.tokens, other.tokens),
        )


def _smaller(a: int | None, b: int | None) -> int | None:
    return a if b is None else b if a is None else min(a, b)


class BudgetSpent(Exception):
    """The next request could exceed the budget."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was set aside for a request: ``bound`` tokens by the request itself, ``held`` with what was learnt since."""

    bound: int
    held: int


class Budget:
    """What may still be spent; requests are served in the order in which they come.

    Parameters
    ----------
    limits
        The budgets.
    requests, tokens
        Spent already, in earlier runs.
    """

    def __init__(self, limits: Budgets, requests: int = 0, tokens: int = 0) -> None:
        self.requests, self.tokens = requests, tokens
        self.spent = False
        self._limits = limits
        self._held = self._under_way = self._excess = 0
        self._turn = asyncio.Lock()
        self._settled = asyncio.Event()

    async def reserve(self, bound: int) -> Reservation:
        """Set aside one request of at most so many tokens, waiting for others to settle if need be.

        More is set aside where earlier answers cost more than was thought possible: hidden system prompts and hidden
        reasoning show in no other way.

        Raises
        ------
        BudgetSpent
            It doesn't fit, and nothing is under way that could leave more over.
        """
        async with self._turn:
            while True:
                if self.spent:
                    raise BudgetSpent
                held = bound + self._excess
                if self._fits(held):
                    self.requests += 1
                    self._held += held
                    self._under_way += 1
                    return Reservation(bound, held)
                if self._under_way == 0 or not self._request_left():
                    self.spent = True
                    raise BudgetSpent
                self._settled.clear()
                await self._settled.wait()

    def settle(self, reserved: Reservation, cost: int) -> None:
        """Replace what was set aside by what the request did cost."""
        self._held -= reserved.held
        self._under_way -= 1
        self.tokens += cost
        self.learn(reserved.bound, cost)
        self._settled.set()

    def learn(self, bound: int, cost: int) -> None:
        """Set more aside from now on where a request cost more than its bound."""
        self._excess = max(self._excess, cost - bound)

    def _request_left(self) -> bool:
        return self._limits.requests is None or self.requests < self._limits.requests

    def _fits(self, held: int) -> bool:
        limit = self._limits.tokens
        return self._request_left() and (limit is None or self.tokens + self._held + held <= limit)
