"""Clients get one answer of two and can't see that there was another; the ledger gets both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Fault, Server
from tests.watermark.gateway.conftest import TWIN_KEY, Gate, pieces_of, text_of
from watermark.gateway.app import is_drawn
from watermark.twins.pair import coin_key, coin_proof, new_nonce, tossed

Serve = Callable[..., Server]
Gates = Callable[..., Gate]

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
EITHER = pytest.mark.parametrize("path", [CHAT, TEXT])
HOW = pytest.mark.parametrize("two_requests", [False, True])


def said(response: dict[str, Any]) -> str:
    (choice,) = response["choices"]
    assert choice["index"] == 0
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def shape(value: Any) -> Any:
    """The form of a JSON value: members in their order, and kinds of values."""
    if isinstance(value, dict):
        return [(name, shape(part)) for name, part in value.items()]
    if isinstance(value, list):
        return [shape(part) for part in value[:1]]
    return type(value).__name__


@EITHER
@HOW
def test_the_client_gets_the_coins_answer_and_the_ledger_both(
    gate: Gates, serve: Serve, coin: int, path: str, two_requests: bool
) -> None:
    server = serve()
    own = gate(server, two_requests=two_requests, looks=not two_requests)
    start = len(server.received)
    response = own.post(path, max_tokens=12, temperature=0.9).json()
    assert own.wait(1) == ["recorded"]
    (pair,) = own.pairs()
    assert pair.served == coin and pair.answers[coin].text == said(response)
    assert pair.answers[0].text != pair.answers[1].text and pair.prompt and pair.request["temperature"] == 0.9
    assert pair.proof == coin_proof(coin_key(TWIN_KEY), pair.id) and tossed(pair.proof) == coin
    assert response["usage"]["completion_tokens"] <= 12
    asked = [request.body for request in server.received[start:]]
    assert [body.get("n") for body in asked] == ([None, None] if two_requests else [2])
    assert asked[0] == asked[-1] and "n" not in pair.request
    assert pair.engine["asked"] == ("two requests" if two_requests else "n = 2")


@EITHER
@HOW
def test_a_streamed_answer_is_the_coins_too(
    gate: Gates, serve: Serve, coin: int, path: str, two_requests: bool
) -> None:
    own = gate(serve(), two_requests=two_requests)
    pieces = own.stream(path, max_tokens=12)
    assert own.wait(1) == ["recorded"]
    (pair,) = own.pairs()
    assert text_of(pieces) == pair.answers[coin].text != pair.answers[1 - coin].text
    assert [piece["choices"][0]["finish_reason"] for piece in pieces][-1] == pair.answers[coin].finish_reason


@EITHER
@pytest.mark.parametrize("streamed", [False, True])
def test_tokens_are_counted_of_the_served_answer_alone(
    gate: Gates, serve: Serve, coin: int, path: str, streamed: bool
) -> None:
    """Of answers of different length, which random models' are not by themselves: one of the two is cut by a stop."""
    own = gate(serve())
    for _ in range(3):
        asked: dict[str, Any] = {"max_tokens": 9, "return_token_ids": True}
        if streamed:
            *pieces, last = own.stream(path, stream_options={"include_usage": True}, **asked)
            tokens = sum(len(piece["choices"][0].get("token_ids", [])) for piece in pieces)
            prompt = pieces[0].get("prompt_token_ids") or pieces[0]["choices"][0]["prompt_token_ids"]
            usage = last["usage"]
            assert last["choices"] == [] and last["id"] == pieces[0]["id"]
        else:
            response = own.post(path, **asked).json()
            (choice,) = response["choices"]
            tokens, usage = len(choice["token_ids"]), response["usage"]
            prompt = response.get("prompt_token_ids") or choice["prompt_token_ids"]
        assert usage == {
            "prompt_tokens": len(prompt),
            "completion_tokens": tokens,
            "total_tokens": len(prompt) + tokens,
        }
    own.wait(3)
    assert all(pair.prompt_token_ids == prompt and pair.answers[coin].token_ids for pair in own.pairs())


@EITHER
@HOW
@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_twinned_looks_like_what_is_not(
    serve: Serve, coin: int, path: str, two_requests: bool, streamed: bool, tmp_path: Path
) -> None:
    server = serve()
    logprobs: dict[str, Any] = {"logprobs": True, "top_logprobs": 1} if path == CHAT else {"logprobs": 1}
    counting = {"stream_options": {"include_usage": True}}
    looks: list[list[Any]] = []
    for share in (0.0, 1.0):
        looks.append([])
        with Gate(server.url, tmp_path / f"{share}.ledger", share=share, two_requests=two_requests) as own:
            for more in ({}, {"return_token_ids": True}, logprobs, counting):
                # All answers are the same, or forms would differ by what they say.
                response = own.post(path, max_tokens=8, temperature=0.001, stream=streamed, **more)
                forms = [shape(piece) for piece in (pieces_of(response.text) if streamed else [response.json()])]
                headers = [name for name, _ in response.headers.raw]
                begins = response.text.partition("cmpl")[0]
                looks[-1].append((response.status_code, headers, begins, forms))
            assert own.counted()["requests"] == {"twinned" if share else "not drawn": 4}
    assert looks[0] == looks[1]


def test_logprobs_are_of_the_served_answer(gate: Gates, serve: Serve, coin: int) -> None:
    own = gate(serve())
    response = own.post(max_tokens=6, logprobs=True, return_token_ids=True).json()
    (choice,) = response["choices"]
    assert "".join(one["token"] for one in choice["logprobs"]["content"]) == choice["message"]["content"]
    own.wait(1)
    assert own.pairs()[0].answers[coin].text == choice["message"]["content"]


def test_over_many_requests_the_coin_decides_and_not_the_engines_order(gate: Gates, serve: Serve) -> None:
    own = gate(serve())
    texts = [said(own.post(TEXT, max_tokens=4).json()) for _ in range(40)]
    own.wait(40)
    pairs = own.pairs()
    assert [pair.answers[pair.served].text for pair in pairs] == texts
    assert all(pair.served == tossed(coin_proof(coin_key(TWIN_KEY), pair.id)) for pair in pairs)
    assert min(Counter(pair.served for pair in pairs)[side] for side in (0, 1)) >= 8  # below that once in 10^4
    assert min(Counter(pair.sign for pair in pairs)[sign] for sign in (1, -1)) >= 8


def test_a_share_of_the_requests_is_twinned_by_nonces_that_say_nothing_of_coins() -> None:
    nonces = [new_nonce() for _ in range(4000)]
    drawn = [nonce for nonce in nonces if is_drawn(nonce, 0.25)]
    assert abs(len(drawn) - 1000) < 150
    assert all(is_drawn(nonce, 0.3) for nonce in drawn)
    heads = sum(tossed(coin_proof(coin_key(TWIN_KEY), nonce)) for nonce in drawn)
    assert abs(heads - len(drawn) / 2) < 90


def test_equal_answers_make_a_pair_that_is_tied(gate: Gates, serve: Serve) -> None:
    own = gate(serve())
    own.post(max_tokens=5, temperature=0.001)
    assert own.wait(1) == ["recorded"] and own.pairs()[0].tied and own.counted()["tied"] == 1


@pytest.mark.parametrize(
    ("path", "asked", "reason"),
    [
        (CHAT, {"n": 2}, "several answers"),
        (TEXT, {"best_of": 3}, "several answers"),
        (CHAT, {"temperature": 0}, "greedy"),
        (CHAT, {"top_k": 1}, "greedy"),
        (CHAT, {"seed": 7}, "seed"),
        (TEXT, {"prompt": ["one", "two"]}, "several prompts"),
        (TEXT, {"prompt": [5, 6]}, "not text alone"),
        (TEXT, {"prompt": ""}, "not text alone"),
        (TEXT, {"echo": True}, "echo"),
        (CHAT, {"use_beam_search": True}, "beam search"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not text alone"),
        (CHAT, {"modalities": ["text", "audio"]}, "not text alone"),
    ],
)
def test_what_can_not_be_twinned_goes_on_as_it_is_and_is_counted(
    gate: Gates, serve: Serve, path: str, asked: dict[str, Any], reason: str
) -> None:
    server = serve(faults=lambda _: Fault("status", 200, body=b'{"as": "it is"}'))
    own = gate(server)
    assert own.post(path, **asked).content == b'{"as": "it is"}'
    assert {name: server.received[0].body.get(name) for name in asked} == asked
    assert "return_token_ids" not in server.received[0].body
    assert own.counted()["requests"] == {reason: 1}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (CHAT, {"n": 1, "seed": None, "stop": ["x"], "temperature": 0.2, "user": "me"}),
        (CHAT, {"messages": [{"role": "user", "content": "a"}], "tools": [], "response_format": {"type": "text"}}),
        (TEXT, {"prompt": ["one prompt in a list"]}),
    ],
)
def test_what_can_be_twinned_is(gate: Gates, serve: Serve, path: str, asked: dict[str, Any]) -> None:
    server = serve(faults=lambda body: None if isinstance(body.get("prompt", ""), str) else Fault("status", 200))
    own = gate(server)
    own.post(path, max_tokens=2, **asked)
    own.wait(1)
    assert own.counted()["requests"] == {"twinned": 1} and server.received[0].body["n"] == 2
