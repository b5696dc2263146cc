"""Budgets in requests and tokens that are never exceeded: what a request can cost is set aside before it is sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from detect.student.asking.answers import Choice, Response
from watermark.errors import DyetraceError


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The most that a trace may spend, over all its resumptions; null means no limit.

    Attributes
    ----------
    requests
        HTTP requests sent, retries included.
    tokens
        Prompt and completion tokens as the endpoint counts them, or more where its answers show more; where it doesn't
        count, an upper bound.
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


_BYTES_PER_TOKEN = 4  # of answers beside the first where nothing counts their tokens


def written_tokens(response: Response, most: int) -> int | None:
    """Tokens that a response's answers took, reasoning included: as the endpoint counts them, or as many as they show.

    llama-server counts the first of several answers alone, so that three of them would cost three times what its
    ``usage`` says. Their log-probabilities or token ids count them, and that they were cut off at the limit; else their
    length does.

    Parameters
    ----------
    response
        As read.
    most
        Tokens that one answer may have.

    Returns
    -------
    int or None
        None where the endpoint doesn't count.
    """
    if response.completion_tokens is None:
        return None
    several = len(response.choices) > 1
    return max(response.completion_tokens, sum(_shown(choice, most, several) for choice in response.choices))


def cost_of(response: Response, count: int, most: int, held: int) -> int:
    """Tokens that a request did cost; where the endpoint doesn't count, no fewer than they can be.

    Parameters
    ----------
    response
        As read.
    count, most
        Answers that were asked for, and tokens that one of them may have.
    held
        What was set aside for it.
    """
    written = written_tokens(response, most)
    if response.prompt_tokens is not None and written is not None:
        return response.prompt_tokens + written
    sizes = [max(len(choice.tokens or ()), len(choice.token_ids or ())) or _size(choice) for choice in response.choices]
    return held - count * most + sum(min(most, size + 1) for size in sizes) if sizes else held


def _shown(choice: Choice, most: int, several: bool) -> int:
    if several and choice.finish_reason == "length":
        return most
    exact = max(len(choice.tokens or ()), len(choice.token_ids or ()))
    if exact or not several:
        return min(most, exact)  # an echo's tokens are the prompt's, and those are counted
    return min(most, -(-_size(choice) // _BYTES_PER_TOKEN))


def _size(choice: Choice) -> int:
    """UTF-8 bytes of all that an answer holds: no fewer than it has tokens."""
    said = choice.said or ()
    return sum(len(part.text.encode("utf-8", "replace")) for part in said) or len(choice.text.encode())


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
