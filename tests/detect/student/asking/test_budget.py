"""Budgets hold whatever is under way at once, and whatever endpoints count."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.answers import read_response
from detect.student.asking.budget import Budget, Budgets, BudgetSpent, cost_of, written_tokens
from detect.student.asking.usage import usage_of

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


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}, (9, 20)),
        # OpenAI: reasoning is counted in.
        (
            {"prompt_tokens": 9, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 15}},
            (9, 20),
        ),
        # xAI: beside.
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 311}, (9, 302)),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 300}},
            (9, 302),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 2, "reasoning_tokens": 300}, (9, 302)),
        ({"input_tokens": 9, "output_tokens": 20}, (9, 20)),
        ({"completion_tokens": 20, "total_tokens": 29}, (9, 20)),
        ({"prompt_tokens": 9, "total_tokens": 29}, (9, 20)),
        ({"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 5}, (9, 20)),
        ({"prompt_tokens": -9, "completion_tokens": True, "total_tokens": 1e9}, (None, None)),
        ({"completion_tokens": 20, "completion_tokens_details": [3]}, (None, 20)),
        (None, (None, None)),
        ("many", (None, None)),
    ],
)
def test_reasoning_costs_however_it_is_counted(usage: Any, found: tuple[int | None, int | None]) -> None:
    assert tuple(usage_of({"usage": usage})) == found
    body = {"choices": [{"message": {"content": "hm"}}], "usage": usage}
    response = read_response(json.dumps(body).encode(), 1)
    assert (response.prompt_tokens, response.completion_tokens) == found


def counted(answers: list[dict[str, Any]], completion: int | None, most: int = 30) -> tuple[int | None, int]:
    """Tokens of answers, and the cost of their request, of which 200 were set aside."""
    usage = {} if completion is None else {"prompt_tokens": 9, "completion_tokens": completion}
    response = read_response(json.dumps({"choices": answers, "usage": usage}).encode(), len(answers))
    return written_tokens(response, most), cost_of(response, len(answers), most, 200)


def text_of(words: int, **more: Any) -> dict[str, Any]:
    return {"message": {"content": "word " * words}, "finish_reason": "stop", **more}


def listed(tokens: int) -> dict[str, Any]:
    return {"logprobs": {"content": [{"token": "word ", "logprob": -1.0}] * tokens}}


def test_tokens_are_counted_from_answers_that_show_more_than_usage_says() -> None:
    assert counted([text_of(10)], 10) == (10, 19)  # of one answer the endpoint's own count is taken
    assert counted([text_of(10)], 500) == (500, 509)  # hidden reasoning
    assert counted([text_of(10, **listed(12))], 10) == (12, 21)
    assert counted([text_of(10, token_ids=list(range(14)))], 10) == (14, 23)
    assert counted([text_of(10)] * 3, 30) == (39, 48)  # 50 bytes each, 4 to a token
    assert counted([text_of(10)] * 3, 60) == (60, 69)
    assert counted([text_of(10)] * 3, 10) == (39, 48)
    assert counted([text_of(10, finish_reason="length")] * 3, 30) == (90, 99)
    assert counted([text_of(10, **listed(11))] * 3, 11) == (33, 42)
    assert counted([text_of(1000)] * 3, 30) == (90, 99)  # no answer may have more than 30
    thinking = {"message": {"content": "word", "reasoning_content": "word " * 40}, "finish_reason": "stop"}
    assert counted([thinking] * 2, 5) == (2 * 30, 2 * 30 + 9)


def test_where_nothing_is_counted_answers_cost_no_less_than_they_can() -> None:
    assert counted([text_of(2)] * 2, None) == (None, 200 - 2 * 30 + 2 * 11)
    assert counted([text_of(2, **listed(3))], None) == (None, 200 - 30 + 4)
    assert counted([], None) == (None, 200)
