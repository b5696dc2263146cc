"""The benchmark's server answers as an OpenAI-compatible one does, and its numbers are the model's."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from benchmarks.distillation.server import Fault, Server
from detect.student.asking.answers import read_response

Serve = Callable[..., Server]

MESSAGES = [{"role": "user", "content": "Tell me about owls."}]


def post(server: Server, path: str, key: str | None = None, **body: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = json.dumps({"model": "student", **body}).encode()
    request = urllib.request.Request(server.url + path, data, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        found: dict[str, Any] = json.load(response)
    return found


def refusal(server: Server, path: str = "/chat/completions", **body: Any) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(server, path, **body)
    with caught.value as error:
        return error.code, json.load(error)["error"]["message"]


def test_chat_and_completions_have_the_expected_form(serve: Serve) -> None:
    server = serve()
    chat = post(server, "/chat/completions", messages=MESSAGES, max_tokens=5, n=3)
    assert [choice["index"] for choice in chat["choices"]] == [0, 1, 2]
    assert chat["object"] == "chat.completion" and chat["usage"]["completion_tokens"] <= 15
    assert all(choice["message"]["content"] for choice in chat["choices"])
    text = post(server, "/completions", prompt="Owls are", max_tokens=5)
    assert text["object"] == "text_completion" and text["choices"][0]["logprobs"] is None
    assert text["usage"]["total_tokens"] == text["usage"]["prompt_tokens"] + text["usage"]["completion_tokens"]
    with urllib.request.urlopen(server.url + "/models", timeout=30) as response:
        assert [model["id"] for model in json.load(response)["data"]] == ["student"]


@pytest.mark.parametrize("chat", [True, False])
def test_logprobs_are_the_models_own_and_bytes_spell_the_text(
    serve: Serve, tiny_model: tuple[Any, Any], chat: bool
) -> None:
    model, tokenizer = tiny_model
    ids_of = spelled(tokenizer)
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 6} if chat else {"logprobs": 6}
    prompt: dict[str, Any] = {"messages": MESSAGES} if chat else {"prompt": "Owls are"}
    path = "/chat/completions" if chat else "/completions"
    body = post(serve(), path, **prompt, **asked, max_tokens=12, temperature=0.7, top_p=0.9)
    (choice,) = read_response(json.dumps(body).encode(), 1).choices
    ids = (
        tokenizer(tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)).input_ids
        if chat
        else tokenizer("Owls are").input_ids
    )
    assert choice.tokens is not None
    assert b"".join(p.chosen.raw for p in choice.tokens).decode("utf-8", "replace") == choice.text
    for position in choice.tokens:
        with torch.inference_mode():
            wanted = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        values, _ = wanted.topk(6)
        assert [t.logprob for t in position.top] == pytest.approx(values.tolist(), abs=1e-3)
        assert all(0.0 < math.exp(t.logprob) <= 1.0 for t in position.top)
        chosen = ids_of[position.chosen.raw]
        assert position.chosen.logprob == pytest.approx(wanted[chosen].item(), abs=1e-3)
        ids = [*ids, chosen]


def spelled(tokenizer: Any) -> dict[bytes, int]:
    """The first token with these bytes, by transformers' own table."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    table = {character: byte for byte, character in bytes_to_unicode().items()}
    special = set(tokenizer.all_special_ids)
    found: dict[bytes, int] = {}
    for piece, token in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        found.setdefault(piece.encode() if token in special else bytes(table[c] for c in piece), token)
    return found


def test_a_seed_gives_the_same_sample_alone_or_in_company(serve: Serve) -> None:
    """Padding and batch don't reach into a row."""
    server = serve(largest_batch=8)
    wanted: dict[str, Any] = {"max_tokens": 8, "seed": 7, "messages": MESSAGES}
    alone = post(server, "/chat/completions", **wanted)["choices"][0]["message"]["content"]
    long = [{"role": "user", "content": "Tell me a very long story. " * 9}]
    server.batcher._gather = 600.0  # until all eight are there
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(post, server, "/chat/completions", max_tokens=3, messages=long) for _ in range(7)]
        beside = pool.submit(post, server, "/chat/completions", **wanted).result()
        for other in others:
            other.result()
    assert server.batcher.sizes == [1, 8]
    server.batcher._gather = 0.0
    assert beside["choices"][0]["message"]["content"] == alone
    other = post(server, "/chat/completions", **{**wanted, "seed": 8})["choices"][0]["message"]["content"]
    assert other != alone


def test_temperature_zero_takes_the_likeliest_token(serve: Serve) -> None:
    body = post(serve(), "/completions", prompt="Owls are", max_tokens=6, temperature=0, logprobs=1)
    (choice,) = read_response(json.dumps(body).encode(), 1).choices
    assert choice.tokens
    assert all(position.chosen.logprob == position.top[0].logprob for position in choice.tokens)


@pytest.mark.parametrize("chat", [True, False])
def test_a_streamed_answer_is_the_one_that_comes_whole(serve: Serve, chat: bool) -> None:
    server = serve()
    path = "/chat/completions" if chat else "/completions"
    asked: dict[str, Any] = {"messages": MESSAGES, "logprobs": True} if chat else {"prompt": "Owls are", "logprobs": 1}
    asked |= {"model": "student", "seed": 3, "n": 2, "max_tokens": 12, "return_token_ids": True}
    whole = post(server, path, **asked)
    data = json.dumps(asked | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        events = response.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    pieces = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert pieces.pop()["usage"] == whole["usage"]
    for choice in whole["choices"]:
        own = [piece["choices"][0] for piece in pieces if piece["choices"][0]["index"] == choice["index"]]
        assert "".join((c["delta"].get("content") or "") if chat else c["text"] for c in own) == (
            choice["message"]["content"] if chat else choice["text"]
        )
        assert [token for c in own for token in c.get("token_ids", [])] == choice["token_ids"]
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == [own[-1]["finish_reason"]]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        said = [(c.get("logprobs") or {}).get("content" if chat else "tokens") or [] for c in own]
        assert [one for part in said for one in part] == choice["logprobs"]["content" if chat else "tokens"]


def test_bad_requests_are_refused_with_a_reason(serve: Serve) -> None:
    server = serve(api_key="secret-key")
    assert refusal(server, messages=MESSAGES)[0] == 401
    good: dict[str, Any] = {"messages": MESSAGES, "key": "secret-key"}
    for change, words in (
        ({"model": "other"}, "does not exist"),
        ({"messages": "x"}, "messages must be"),
        ({"n": 0}, "n must lie in"),
        ({"temperature": -1}, "temperature must lie in"),
        ({"max_tokens": True}, "max_tokens must lie in"),
        ({"seed": "x"}, "seed must be"),
    ):
        status, message = refusal(server, **{**good, **change})
        assert status == 400 and words in message
    assert refusal(server, "/embeddings", **good)[0] == 404


def test_it_misbehaves_as_told_and_then_serves_well(serve: Serve) -> None:
    late = Fault("status", 429, {"Retry-After": "1"})
    server = serve(faults=[late, Fault("drop"), None], knows_n=False, says_usage=False)
    assert refusal(server, messages=MESSAGES) == (429, "injected")
    with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
        post(server, "/chat/completions", messages=MESSAGES)
    body = post(server, "/chat/completions", messages=MESSAGES, n=4, max_tokens=2)
    assert len(body["choices"]) == 1 and "usage" not in body
    assert len(server.received) == 3


def logs_of(model: Any, ids: list[int]) -> Any:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].float().log_softmax(-1)


def test_ids_are_read_as_they_are_and_a_prompts_likely_tokens_are_listed_as_vllm_lists_them(
    serve: Serve, tiny_model: tuple[Any, Any]
) -> None:
    model, tokenizer = tiny_model
    ids = tokenizer("Owls are awake at night, most of them.").input_ids
    body = post(serve(), "/completions", prompt=ids, prompt_logprobs=3, max_tokens=1, temperature=0)
    first, *listed = body["choices"][0]["prompt_logprobs"]
    assert first is None and len(listed) == len(ids) - 1
    for place, entry in enumerate(listed):
        logs = logs_of(model, ids)[place]
        own = ids[place + 1]
        assert next(iter(entry)) == str(own)  # whatever its rank
        assert entry[str(own)]["rank"] == int((logs >= logs[own]).sum())
        likely = {int(token): one for token, one in entry.items() if one["rank"] <= 3}
        assert set(logs.topk(3).indices.tolist()) == set(likely)
        assert all(one["logprob"] == pytest.approx(logs[token].item(), abs=1e-3) for token, one in likely.items())


def test_a_bias_changes_the_word_and_no_log_probability(serve: Serve, tiny_model: tuple[Any, Any]) -> None:
    server, (_, tokenizer) = serve(), tiny_model
    word = tokenizer(" owl").input_ids[0]
    asked: dict[str, Any] = {"prompt": "Owls are", "max_tokens": 1, "temperature": 0, "logprobs": 5}
    plain, forced = (
        post(server, "/completions", **asked, logit_bias=bias)["choices"][0] for bias in ({}, {str(word): 100})
    )
    assert forced["text"] == tokenizer.decode([word]) != plain["text"]
    assert forced["logprobs"]["top_logprobs"] == plain["logprobs"]["top_logprobs"]
    ids = post(server, "/completions", **asked, logprob_token_ids=[5, 6], return_tokens_as_token_ids=True)
    assert set(ids["choices"][0]["logprobs"]["top_logprobs"][0]) > {"token_id:5", "token_id:6"}


@pytest.mark.parametrize(
    ("goes_on", "last", "asked", "does"),
    [
        ("asked", {}, {"continue_final_message": True, "add_generation_prompt": False}, True),
        ("asked", {"prefix": True}, {}, False),
        ("prefix", {"prefix": True}, {}, True),
        ("prefix", {}, {"continue_final_message": True}, False),
        ("always", {}, {}, True),
        ("never", {"prefix": True}, {"continue_final_message": True}, False),
    ],
)
def test_a_begun_answer_is_gone_on_with_as_this_kind_of_server_does(
    serve: Serve, tiny_model: tuple[Any, Any], goes_on: str, last: dict[str, Any], asked: dict[str, Any], does: bool
) -> None:
    _, tokenizer = tiny_model
    messages = [*MESSAGES, {"role": "assistant", "content": "Owls hunt", **last}]
    server = serve(goes_on=goes_on)
    body = post(server, "/chat/completions", messages=messages, max_tokens=1, return_token_ids=True, **asked)
    assert tokenizer.decode(body["prompt_token_ids"]).endswith("Owls hunt") == does


def test_it_repeats_what_it_goes_on_from_and_ignores_fields_where_it_is_to(serve: Serve) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "Owls hunt"}]
    server = serve(goes_on="always", repeats=True, ignores=["return_token_ids"])
    body = post(server, "/chat/completions", messages=messages, max_tokens=1, return_token_ids=True)
    assert body["choices"][0]["message"]["content"].startswith("Owls hunt")
    assert "prompt_token_ids" not in body and "token_ids" not in body["choices"][0]


@pytest.mark.parametrize("field", [{"prompt": [10**9]}, {"prompt": ["a"]}, {"logit_bias": {"a": 1}}, {"prompt": []}])
def test_what_are_no_token_ids_is_refused(serve: Serve, field: dict[str, Any]) -> None:
    assert refusal(serve(), "/completions", **{"prompt": "Owls", **field})[0] == 400
