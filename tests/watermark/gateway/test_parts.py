"""The gateway's parts by themselves: events, limits, and what waits for clients."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from watermark.gateway.budget import Budget
from watermark.gateway.events import Events, data_of
from watermark.gateway.json_parts import joined, parts_of
from watermark.gateway.outlet import Outlet
from watermark.gateway.requests import read

LINE = st.sampled_from([b"data: a", b"data:b", b": ping", b"event: x", b"id: 7"])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=6), ENDS, st.lists(st.integers(0, 200), max_size=8))
def test_events_are_the_same_however_their_bytes_come(blocks: list[list[bytes]], end: bytes, cuts: list[int]) -> None:
    wanted = [b"".join(line + end for line in block) + end for block in blocks]
    data = b"".join(wanted)
    events, found = Events(), []
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, stop in pairwise(places):
        found += events.feed(data[begin:stop])
    assert found == wanted and events.rest == b""
    for block, event in zip(blocks, found, strict=True):
        lines = [line[5:].lstrip() for line in block if line.startswith(b"data:")]
        assert data_of(event) == (b"\n".join(lines) if lines else None)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_members_that_are_not_exchanged_keep_what_they_say(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode("utf-8", "surrogatepass")
    try:
        parts = parts_of(data)
    except ValueError:  # half of a surrogate pair, which no text has
        assert "\\ud" in json.dumps(value)
        return
    assert json.loads(joined(parts)) == value


@given(st.binary(max_size=40))
def test_any_bytes_may_be_a_request(raw: bytes) -> None:
    for chat in (True, False):
        assert read(raw, chat).untwinned is not None


@given(
    st.dictionaries(st.sampled_from(["messages", "prompt", "n", "temperature", "seed", "top_k", "modalities"]), JSON)
)
def test_any_json_may_be_a_request(body: dict[str, Any]) -> None:
    for chat in (True, False):
        asked = read(json.dumps(body).encode(), chat)
        if asked.untwinned is None:
            assert json.loads(asked.asking_for(2)) == body | {"n": 2, "return_token_ids": True}


def test_a_new_day_has_a_budget_of_its_own_and_coins_have_no_say_in_it() -> None:
    days = [date(2026, 11, 29)]
    budget = Budget(10, at_once=2, today=lambda: days[-1])
    budget.begin()
    budget.begin()
    assert budget.refusal() == "at once"
    budget.end(tokens=20)
    assert budget.refusal() == "budget" and budget.spent == 10
    days.append(date(2026, 11, 30))
    budget.end(tokens=6)  # one that began the day before counts for the day on which it ends
    assert budget.refusal() is None and budget.spent == 3 and budget.under_way == 0
    assert Budget(0, at_once=1).refusal() == "budget"


def test_whoever_fills_an_outlet_waits_for_the_client_unless_a_pair_hangs_on_it() -> None:
    async def filled(independent: bool) -> int:
        outlet = Outlet(independent)

        async def fill() -> None:
            outlet.start(200, [])
            for _ in range(100):
                await outlet.put(b"x" * 10_000)
            outlet.end()

        task = asyncio.create_task(fill())
        outlet.filled_by(task)
        for _ in range(300):  # turns of the loop: all that can happen without a client happens
            await asyncio.sleep(0)
        waiting = outlet.waiting
        got: list[Any] = []

        async def send(message: Any) -> None:
            got.append(message)

        assert await outlet.send_all(send)
        assert sum(len(message.get("body", b"")) for message in got) == 1_000_000
        assert got[-1]["more_body"] is False and task.done()
        return waiting

    assert asyncio.run(filled(True)) == 1_000_000
    assert asyncio.run(filled(False)) < 300_000


def test_when_the_client_has_gone_what_fills_its_outlet_ends_once_no_pair_hangs_on_it() -> None:
    async def run() -> None:
        for dropped in (True, False):
            outlet, forever = Outlet(independent=True), asyncio.Event()

            async def fill() -> None:
                await forever.wait()  # noqa: B023

            task = asyncio.create_task(fill())
            outlet.filled_by(task)
            outlet.leave()
            await asyncio.sleep(0)
            assert not task.done()
            outlet.release(dropped=dropped)
            await asyncio.wait([task])
            assert task.cancelled()

    asyncio.run(run())
