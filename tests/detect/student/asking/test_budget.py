"""Budgets hold whatever is under way at once."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.budget import Budget, Budgets, BudgetSpent

work = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=25)


@given(work, st.integers(1, 300), st.integers(1, 30))
def test_what_is_spent_never_exceeds_the_limits(requests: list[tuple[int, float, int]], tokens: int, most: int) -> None:
    """Requests of which each costs a share of its bound, after so many turns of the loop; all at once."""

    async def scenario() -> Budget:
        budget = Budget(Budgets(requests=most, tokens=tokens))

        async def one(bound: int, share: float, turns: int) -> None:
            try:
                held = await budget.reserve(bound)
            except BudgetSpent:
                return
            for _ in range(turns):
                await asyncio.sleep(0)
            budget.settle(held, int(bound * share))
            assert budget.tokens <= tokens and budget.requests <= most

        await asyncio.gather(*(one(*request) for request in requests))
        return budget

    budget = asyncio.run(scenario())
    fits = sum(bound for bound, _, _ in requests) <= tokens and len(requests) <= most
    assert not (fits and budget.spent)
    assert fits <= (budget.requests == len(requests))


def test_it_waits_for_what_may_leave_more_over_and_keeps_the_order() -> None:
    async def scenario() -> list[str]:
        budget = Budget(Budgets(tokens=100))
        first = await budget.reserve(90)
        done: list[str] = []

        async def later(name: str, bound: int) -> None:
            await budget.reserve(bound)
            done.append(name)

        tasks = [asyncio.create_task(later("large", 60)), asyncio.create_task(later("small", 5))]
        await asyncio.sleep(0.01)
        assert done == []
        budget.settle(first, 10)
        await asyncio.gather(*tasks)
        return done

    assert asyncio.run(scenario()) == ["large", "small"]


def test_costs_beyond_the_bound_are_expected_from_then_on() -> None:
    """A hidden system prompt of 500 tokens."""

    async def scenario() -> None:
        budget = Budget(Budgets(tokens=2_000))
        budget.settle(await budget.reserve(100), 600)
        held = await budget.reserve(100)
        assert held.held == 600
        budget.settle(held, 600)
        budget.settle(await budget.reserve(100), 600)
        with pytest.raises(BudgetSpent):
            await budget.reserve(100)
        assert budget.tokens == 1_800

    asyncio.run(scenario())


def test_what_earlier_runs_spent_counts() -> None:
    async def scenario() -> None:
        with pytest.raises(BudgetSpent):
            await Budget(Budgets(requests=5), requests=5).reserve(1)
        with pytest.raises(BudgetSpent):
            await Budget(Budgets(tokens=10), tokens=8).reserve(3)
        assert (await Budget(Budgets(), requests=10**9, tokens=10**12).reserve(3)).held == 3

    asyncio.run(scenario())
