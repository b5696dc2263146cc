"""The number of requests at once follows what the endpoint bears."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.pace import LONGEST_BACKOFF, Pace, Stopped, backoff, retry_after


async def answered(pace: Pace, seconds: float = 1.0, rounds: int = 1) -> None:
    """Fill every place and have all of them answered, so many times over."""
    for _ in range(rounds):
        taken = int(pace.limit)
        for place in range(taken):
            await pace.enter((place,))
        for _ in range(taken):
            pace.went_well(seconds, tokens=100)
            pace.leave()


def test_the_first_request_goes_alone_and_then_places_open_one_by_one() -> None:
    async def scenario() -> list[float]:
        pace = Pace(start=4, most=6)
        limits = [pace.limit]
        for _ in range(12):
            await answered(pace)
            limits.append(pace.limit)
        return limits

    limits = asyncio.run(scenario())
    assert limits[:2] == [1, 4]
    assert all(after - before <= 1 for before, after in pairwise(limits[1:]))
    assert limits[-1] == 6


def test_refusals_halve_it_once_for_all_that_were_under_way_together() -> None:
    async def scenario() -> list[float]:
        pace = Pace(start=16, most=32)
        await answered(pace)
        epochs = [await pace.enter((place,)) for place in range(8)]
        limits = []
        for epoch in epochs:
            pace.refused(epoch)
            pace.leave()
            limits.append(pace.limit)
        for _ in range(9):
            pace.refused(await pace.enter((0,)))
            pace.leave()
        return [*limits, pace.limit]

    assert asyncio.run(scenario()) == [8] * 8 + [1]


def test_much_longer_waits_for_each_token_lower_it() -> None:
    async def scenario() -> tuple[float, float]:
        pace = Pace(start=8, most=8)
        await answered(pace, seconds=1.0, rounds=3)
        before = pace.limit
        await answered(pace, seconds=20.0, rounds=2)
        return before, pace.limit

    before, after = asyncio.run(scenario())
    assert before == 8 and after < before


def test_places_go_to_what_comes_first_in_the_plan() -> None:
    async def scenario() -> list[int]:
        pace = Pace(start=1, most=1)
        await pace.enter((0,))
        order: list[int] = []

        async def worker(number: int) -> None:
            await pace.enter((number,))
            order.append(number)
            pace.leave()

        tasks = [asyncio.create_task(worker(number)) for number in (5, 2, 9, 1)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        pace.leave()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pace.in_flight == 0
        return order

    assert asyncio.run(scenario()) == [1, 2, 5]


def test_a_pause_holds_for_everybody_and_closing_ends_the_wait() -> None:
    async def scenario() -> float:
        pace = Pace(start=4, most=4)
        pace.pause(0.2)
        started = time.monotonic()
        await pace.enter((0,))
        waited = time.monotonic() - started
        waiting = asyncio.create_task(pace.enter((1,)))
        await asyncio.sleep(0)
        pace.close()
        with pytest.raises(Stopped):
            await waiting
        with pytest.raises(Stopped):
            await pace.enter((2,))
        return waited

    assert asyncio.run(scenario()) >= 0.19


def test_retry_after_is_read_in_all_its_forms() -> None:
    now = 1_700_000_000.0
    assert retry_after({"retry-after": "7"}, now) == 7
    assert retry_after({"retry-after": "1.5"}, now) == 1.5
    assert retry_after({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, now) == 60
    assert retry_after({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, now) == 0
    assert retry_after({"retry-after": "7", "retry-after-ms": "250"}, now) == 0.25
    assert retry_after({}, now) is None


@given(st.text(max_size=40))
def test_no_header_is_too_odd(value: str) -> None:
    wait = retry_after({"retry-after": value, "retry-after-ms": value}, time.time())
    assert wait is None or wait >= 0


def test_backoff_doubles_with_jitter_up_to_a_minute() -> None:
    for attempt in range(12):
        longest = min(LONGEST_BACKOFF, 0.5 * 2**attempt)
        waits = [backoff(attempt, 0.5) for _ in range(50)]
        assert all(longest / 2 <= wait <= longest for wait in waits) and len(set(waits)) > 1
