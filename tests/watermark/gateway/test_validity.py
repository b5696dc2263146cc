"""A pair enters the ledger whole or not at all, and neither the coin nor the client has a say in it.

Where it matters the tests run once for each way in which the coin can fall (`coin`).
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.distillation.server import Fault, Server
from tests.watermark.gateway.conftest import CHAT, TEXT, TWIN_KEY, USAGE_LAST, Gate, pieces_of, text_of
from watermark.errors import MachineError
from watermark.gateway.choices import Chunks, Unreadable
from watermark.gateway.drawing import Drawing
from watermark.gateway.events import DONE, event_of
from watermark.gateway.requests import read
from watermark.keys import write_key_file
from watermark.twins.data_keys import keys_path
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair, coin_key, coin_proof, new_nonce, request_time, tossed

Serve = Callable[..., Server]
Gates = Callable[..., Gate]

PATH = "/v1/chat/completions"
HOW = pytest.mark.parametrize("two_requests", [False, True])


def first_of_two(fault: Fault) -> Callable[[dict[str, Any]], Fault | None]:
    """The fault for the first request that comes, and none for others."""
    left = [fault]
    return lambda _: left.pop() if left else None


# --- clients -------------------------------------------------------------------------------------------------


@HOW
def test_a_client_that_goes_away_changes_nothing(gate: Gates, serve: Serve, coin: int, two_requests: bool) -> None:
    server = serve(faults=lambda _: Fault("pause"))
    own = gate(server, two_requests=two_requests)
    with own.client.stream("POST", PATH, json=CHAT | {"stream": True, "max_tokens": 9}) as response:
        next(response.iter_raw())
    assert own.counted()["under_way"] == 1
    server.release()
    assert own.wait(1) == ["recorded"]
    (pair,) = own.pairs()
    assert [answer.finish_reason is None for answer in pair.answers] == [False, False]
    assert server.left == 0


@HOW
def test_a_client_that_goes_away_ends_an_answer_that_has_no_twin(gate: Gates, serve: Serve, two_requests: bool) -> None:
    server = serve(faults=lambda _: Fault("pause"))
    own = gate(server, share=0.0, two_requests=two_requests)
    with own.client.stream("POST", PATH, json=CHAT | {"stream": True, "max_tokens": 200}) as response:
        next(response.iter_raw())
    server.release()
    server.wait_until_left(1)


def test_a_client_that_does_not_read_stops_neither_answer(gate: Gates, serve: Serve, coin: int) -> None:
    """It takes 4 kB of an answer of some eighty times that; both answers are complete all the same."""
    own = gate(serve(), send_buffer=4096)
    body = json.dumps(CHAT | {"stream": True, "max_tokens": 150, "logprobs": True, "top_logprobs": 20}).encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", httpx2.URL(own.url).port or 0))
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        slow.sendall(head.encode() + body)
        assert own.wait(1) == ["recorded"]
        (pair,) = own.pairs()
        # What the client has not taken waits for it, and comes.
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += slow.recv(1 << 16)
    assert len(got) > 50 * 4096 and json.dumps(pair.answers[coin].finish_reason).encode() in got


def test_follow_up_turns_are_requests_with_coins_of_their_own(gate: Gates, serve: Serve) -> None:
    own = gate(serve())
    first = own.post(max_tokens=4).json()["choices"][0]["message"]
    more = [*CHAT["messages"], first, {"role": "user", "content": "And then?"}]
    own.post(max_tokens=4, messages=more)
    assert own.wait(2) == ["recorded"] * 2
    one, two = own.pairs()
    assert one.id != two.id and two.request["messages"] == more


# --- engines -------------------------------------------------------------------------------------------------


@HOW
@pytest.mark.parametrize("streamed", [False, True])
def test_an_engine_that_fails_midway_gives_no_pair(
    gate: Gates, serve: Serve, coin: int, two_requests: bool, streamed: bool
) -> None:
    own = gate(serve(faults=lambda _: Fault("late drop")), two_requests=two_requests)
    if streamed:
        with pytest.raises(httpx2.RemoteProtocolError):  # the client sees that it was cut off
            own.post(stream=True, max_tokens=5)
    else:
        assert own.post(max_tokens=5).status_code == 502
    assert own.wait(1) == ["engine failed"] and own.pairs() == []


@pytest.mark.parametrize("fault", [Fault("drop"), Fault("status", 503), Fault("late drop")])
def test_where_one_of_two_requests_fails_there_is_no_pair_whichever_it_is(
    gate: Gates, serve: Serve, coin: int, fault: Fault
) -> None:
    own = gate(serve(faults=first_of_two(fault)), two_requests=True)
    response = own.post(max_tokens=3)
    assert own.wait(1)[0].startswith("engine ") and own.pairs() == []
    # Which of them came first is the network's affair: the client has an answer, or what became of its own request.
    assert response.status_code in (200, 502, 503)
    if response.status_code == 200:
        assert response.json()["choices"][0]["message"]["content"]


def test_what_an_engine_refuses_is_refused_to_the_client(gate: Gates, serve: Serve, coin: int) -> None:
    limit = Fault("status", 429, {"retry-after": "7"})
    own = gate(serve(faults=first_of_two(limit)))
    response = own.post(max_tokens=3)
    assert response.status_code == 429 and response.headers["retry-after"] == "7"
    assert own.wait(1) == ["engine refused"]
    assert own.post(max_tokens=3).status_code == 200


@pytest.mark.parametrize("status", [400, 501])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_engine_that_refuses_two_answers_is_asked_for_one(
    gate: Gates, serve: Serve, coin: int, status: int, streamed: bool
) -> None:
    server = serve(faults=lambda body: Fault("status", status) if body.get("n") == 2 else None)
    own = gate(server)
    response = own.post(max_tokens=3, stream=streamed)
    assert response.status_code == 200 and own.wait(1) == ["engine refused two"]
    assert [request.body.get("n") for request in server.received] == [2, None]
    assert text_of(pieces_of(response.text)) if streamed else response.json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_one_answer_where_two_were_asked_for_is_served_and_no_pair(
    gate: Gates, serve: Serve, coin: int, streamed: bool
) -> None:
    own = gate(serve(knows_n=False))
    response = own.post(max_tokens=3, stream=streamed, stream_options={"include_usage": True})
    if streamed:
        pieces = pieces_of(response.text)
        assert text_of(pieces) and pieces[-1]["usage"]["completion_tokens"] == 3
    else:
        assert response.json()["usage"]["completion_tokens"] == 3
    assert own.wait(1) == ["one answer"] and own.pairs() == []


def test_an_answer_that_takes_too_long_is_served_and_no_pair(gate: Gates, serve: Serve, coin: int) -> None:
    server = serve(faults=lambda _: Fault("pause"))
    own = gate(server, time_limit=0.5)
    with own.client.stream("POST", PATH, json=CHAT | {"stream": True, "max_tokens": 5}) as response:
        parts = response.iter_raw()
        first = next(parts)
        # The engine says nothing for longer than the limit, so that even the client's answer is given up.
        assert own.wait(1)[0] in ("took too long", "engine failed")
        with pytest.raises(httpx2.RemoteProtocolError):
            first += b"".join(parts)
    server.release()
    assert own.pairs() == []


def test_answers_of_more_bytes_than_are_kept_are_served_and_no_pair(
    gate: Gates, serve: Serve, coin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watermark.gateway.app._LARGEST_PAIR", 500)
    own = gate(serve())
    assert text_of(own.stream(max_tokens=20))
    assert own.post(max_tokens=20).json()["usage"]["completion_tokens"] == 20
    assert own.wait(2) == ["too large"] * 2


# --- the operator's limits -----------------------------------------------------------------------------------


def test_over_the_days_budget_requests_pass_untwinned(gate: Gates, serve: Serve) -> None:
    own = gate(serve(), tokens_a_day=9)
    for done in range(1, 4):
        own.post(max_tokens=5)
        own.wait(min(done, 2))
    assert own.counted()["requests"] == {"twinned": 2, "budget": 1} and own.counted()["tokens_today"] == 10


def test_only_so_many_twins_are_drawn_at_once(gate: Gates, serve: Serve, coin: int) -> None:
    server = serve(faults=lambda body: Fault("pause") if body.get("n") else None)
    own = gate(server, at_once=1)
    with own.client.stream("POST", PATH, json=CHAT | {"stream": True, "max_tokens": 3}) as response:
        next(response.iter_raw())
        assert text_of(own.stream(max_tokens=3))
    server.release()
    assert own.wait(1) == ["recorded"] and own.counted()["requests"] == {"twinned": 1, "at once": 1}


class Full:
    """A ledger whose disk is full for a while."""

    def __init__(self, ledger: TwinLedger) -> None:
        self.ledger, self.left = ledger, 1

    def append(self, pair: Pair) -> str:
        if self.left:
            self.left -= 1
            raise MachineError("cannot write ledger twins.ledger: No space left on device")
        return self.ledger.append(pair)


def test_a_full_disk_stops_twins_and_not_answers(
    gate: Gates, serve: Serve, coin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = gate(serve(), wrapped=Full)
    assert own.post(max_tokens=3).status_code == 200 and own.wait(1) == ["not written"]
    assert own.post(max_tokens=3).status_code == 200
    assert own.counted()["requests"] == {"twinned": 1, "ledger": 1} and len(own.told) == 1
    health = httpx2.get(f"{own.operator}/health")
    assert health.status_code == 503 and "No space left" in health.json()["trouble"]


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_ledger_whose_keys_are_gone_or_damaged_stops_twins_and_the_operator_is_told(
    gate: Gates, serve: Serve, coin: int, harm: str
) -> None:
    own = gate(serve())
    assert own.post(max_tokens=3).status_code == 200 and own.wait(1) == ["recorded"]
    assert httpx2.get(f"{own.operator}/health").status_code == 200
    keys = keys_path(own.path)
    keys.unlink() if harm == "gone" else keys.write_bytes(b"damaged")
    assert own.post(max_tokens=3).status_code == 200 and own.wait(2) == ["recorded", "not written"]
    assert own.post(max_tokens=3).status_code == 200
    assert own.counted()["requests"] == {"twinned": 2, "ledger": 1}
    assert len(own.told) == 1 and own.told[0].startswith("no twins for a while: ")
    health = httpx2.get(f"{own.operator}/health")
    assert health.status_code == 503 and health.json()["trouble"] in own.told[0]


def test_when_it_ends_pairs_under_way_are_dropped_at_once_and_clients_are_served(
    gate: Gates, serve: Serve, coin: int
) -> None:
    """To wait for clients would be to wait for served answers alone: then the coin would have a say."""
    server = serve(faults=lambda _: Fault("pause"))
    own = gate(server)
    with own.client.stream("POST", PATH, json=CHAT | {"stream": True, "max_tokens": 5}) as response:
        parts = response.iter_raw()
        first = next(parts)
        own.running.end()
        assert own.wait(1) == ["gateway ended"]
        server.release()
        assert text_of(pieces_of((first + b"".join(parts)).decode()))
    assert own.pairs() == []


def test_a_gateway_that_is_killed_loses_what_was_under_way_and_goes_on_with_its_ledger(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(faults=lambda body: Fault("pause") if body.get("max_tokens") == 7 else None)
    write_key_file(tmp_path / "twin.key", TWIN_KEY)
    words = ["--upstream", server.url, "--twin-ledger", "t.ledger", "--twin-key", "file:twin.key", "--twins", "1"]
    command = [sys.executable, "-m", "detect.cli", "gateway", *words, "--port", "0", "--operator-port", "0"]
    for round_ in (1, 2):
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.endswith(f"t.ledger has {2 * (round_ - 1)} pairs\n"), line
            url, page = (word.rstrip(",;") for word in line.split() if word.startswith("http"))
            with httpx2.Client(timeout=60) as client:
                for _ in range(2):
                    client.post(f"{url}/completions", json=TEXT | {"max_tokens": 3}).raise_for_status()
                counters = page.replace("health", "counters")
                while client.get(counters).json()["pairs"].get("recorded") != 2:
                    time.sleep(0.01)
                paused = CHAT | {"stream": True, "max_tokens": 7}
                with client.stream("POST", f"{url}/chat/completions", json=paused) as answer:
                    next(answer.iter_raw())
                    process.send_signal(signal.SIGKILL)
                    process.wait()
        with TwinLedger.open(tmp_path / "t.ledger", TWIN_KEY) as ledger:
            assert ledger.count == 2 * round_ and ledger.unfinished == 0


# --- any stream ----------------------------------------------------------------------------------------------


def nonce_of(served: int) -> str:
    while tossed(coin_proof(coin_key(TWIN_KEY), nonce := new_nonce())) != served:
        pass
    return nonce


def drawing_of(served: int) -> Drawing:
    return Drawing(coin_key(TWIN_KEY), nonce_of(served), chat=True, request={}, account=None, asked="n = 2")


def test_a_pairs_time_is_that_of_its_request_and_not_of_its_end() -> None:
    """Who was served the shorter answer may have sent the next request before the longer one was complete."""
    first = drawing_of(0)
    came = request_time()
    second = drawing_of(1)
    for drawing in (second, first):  # complete in the other order
        for side in drawing.sides:
            side.add({}, {"delta": {"content": "Yes."}, "finish_reason": "stop"})
        drawing.look()
    assert first.pair is not None and second.pair is not None
    assert first.pair.made <= came <= second.pair.made


PIECE = st.fixed_dictionaries(
    {"index": st.sampled_from([0, 1]), "finish_reason": st.sampled_from([None, None, None, "stop", "length", "abort"])},
    optional={
        "delta": st.fixed_dictionaries(
            {},
            optional={
                "content": st.sampled_from(["", "a", "bc"]),
                "tool_calls": st.just([{}]),
                "refusal": st.just("no"),
                "reasoning": st.just("hm"),
            },
        ),
        "token_ids": st.lists(st.integers(0, 9), max_size=2),
    },
)
EVENTS = st.lists(
    st.one_of(
        st.lists(PIECE, min_size=0, max_size=2).map(
            lambda choices: event_of(json.dumps({"choices": choices}).encode())
        ),
        st.sampled_from([event_of(DONE), b": ping\n\n", event_of(b'{"error": {}}'), event_of(b"{"), event_of(b"[]")]),
    ),
    max_size=12,
)


def played(events: list[bytes], served: int) -> tuple[Drawing, bytes]:
    """What becomes of a stream, and what the client gets."""
    drawing = drawing_of(served)
    chunks = Chunks(read(b'{"messages": [{"role": "user"}]}', True), drawing, USAGE_LAST)
    got = b""
    try:
        for event in events:
            got += chunks.feed(event)
    except Unreadable:
        return drawing, got
    drawing.end()
    return drawing, got


@given(EVENTS)
def test_whatever_an_engine_streams_the_coin_has_no_say_in_what_becomes_of_a_pair(events: list[bytes]) -> None:
    (one, _), (two, _) = played(events, 0), played(events, 1)
    assert one.dropped == two.dropped and not one.under_way
    assert (one.pair is None) == (two.pair is None)
    if one.pair is not None and two.pair is not None:
        assert one.pair.answers == two.pair.answers
        assert (one.pair.served, two.pair.served) == (0, 1)


@given(EVENTS, st.sampled_from([0, 1]))
def test_whatever_an_engine_streams_the_client_gets_one_answer_and_never_both(events: list[bytes], served: int) -> None:
    drawing, got = played(events, served)
    pieces = [json.loads(part[6:]) for part in got.decode().split("\n\n") if part.startswith("data: {")]
    choices = [choice for piece in pieces for choice in piece.get("choices", [])]
    assert all(choice["index"] == 0 and "token_ids" not in choice for choice in choices)
    said = "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)
    if drawing.pair is not None:
        assert said == drawing.pair.answers[served].text


TEXTS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5)


@given(TEXTS, TEXTS, st.randoms(use_true_random=False), st.sampled_from([0, 1]), st.booleans())
def test_however_two_answers_come_interleaved_they_are_a_pair_and_the_served_one_ends_first_for_its_client(
    first: list[str], second: list[str], order: Any, served: int, usage_last: bool
) -> None:
    turns = [0] * len(first) + [1] * len(second)
    order.shuffle(turns)
    drawing = drawing_of(served)
    asked = read(json.dumps({"messages": [{}], "stream_options": {"include_usage": usage_last}}).encode(), True)
    chunks, got, left = Chunks(asked, drawing, USAGE_LAST), b"", [list(first), list(second)]
    for turn in turns:
        text, more = left[turn].pop(0), bool(left[turn])
        choice = {
            "index": turn,
            "delta": {"content": text},
            "finish_reason": None if more else "stop",
            "token_ids": [1],
        }
        got += chunks.feed(event_of(json.dumps({"id": "x", "prompt_token_ids": [1, 2], "choices": [choice]}).encode()))
        assert chunks.finished == (not left[served]) == got.endswith(event_of(DONE))
    before = got
    got += chunks.feed(event_of(b'{"choices": [], "usage": {"completion_tokens": 99}}')) + chunks.feed(event_of(DONE))
    assert got == before and drawing.pair is not None
    assert [answer.text for answer in drawing.pair.answers] == ["".join(first), "".join(second)]
    pieces = pieces_of(got.decode())
    if usage_last:
        assert pieces[-1]["id"] == "x" and pieces.pop()["usage"] == {
            "prompt_tokens": 2,
            "completion_tokens": len((first, second)[served]),
            "total_tokens": 2 + len((first, second)[served]),
        }
    assert text_of(pieces) == "".join((first, second)[served])


@given(EVENTS, EVENTS)
def test_whatever_two_requests_are_answered_it_is_the_same_for_both_coins(
    first: list[bytes], second: list[bytes]
) -> None:
    from watermark.gateway.tape import Tape

    def outcome(served: int) -> tuple[Any, ...]:
        drawing = drawing_of(served)
        for number, events in enumerate((first, second)):
            tape = Tape(drawing, number, stream=True)
            for event in events:
                tape.feed(event)
            tape.end()
        return drawing.dropped, drawing.pair and drawing.pair.answers, drawing.tokens

    assert outcome(0) == outcome(1)
