"""The gateway in front of a real vLLM server, over HTTP. Runs where vLLM is installed; one server for all tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.filterwarnings("default")

import httpx2  # noqa: E402

from tests.watermark.gateway.conftest import Gate, pieces_of, text_of  # noqa: E402
from tests.watermark.gateway.test_serving import shape  # noqa: E402

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MORE: tuple[dict[str, Any], ...] = (
    {},
    {"stop": ["."]},
    {"logprobs": 1},
    {"return_token_ids": True},
    {"stream_options": {"include_usage": True}},
)


@pytest.fixture(scope="module")
def vllm(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--model", str(smollm2_dir), "--served-model-name", "student", "--port", str(port), "--enforce-eager"]
    options += ["--max-model-len", "512", "--max-num-seqs", "8", "--host", "127.0.0.1"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options],
            env=environment,
            stdout=out,
            stderr=out,
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        while True:
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                if httpx2.get(f"{url}/health").status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.5)
        yield f"{url}/v1"
        process.terminate()
        process.wait()


def asked(path: str, streamed: bool, more: dict[str, Any]) -> dict[str, Any]:
    if path == CHAT and "logprobs" in more:
        more = {"logprobs": True, "top_logprobs": 1}
    if not streamed and "stream_options" in more:
        more = {}
    return {"max_tokens": 20, "stream": streamed, **more}


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_client_gets_the_coins_answer_and_its_own_count(
    vllm: str, tmp_path: Path, coin: int, path: str, streamed: bool
) -> None:
    said = []
    with Gate(vllm, tmp_path / "t.ledger", looks=True) as own:
        for more in MORE:
            response = own.post(path, **asked(path, streamed, more))
            body: Any = pieces_of(response.text) if streamed else response.json()
            if streamed:
                said.append((text_of(body), body[-1].get("usage")))
            else:
                (choice,) = body["choices"]
                said.append((choice["message"]["content"] if path == CHAT else choice["text"], body["usage"]))
        assert own.wait(len(MORE)) == ["recorded"] * len(MORE)
        pairs = own.pairs()
    for pair, (text, usage) in zip(pairs, said, strict=True):
        served = pair.answers[coin]
        assert served.text == text and served.token_ids and pair.prompt_token_ids and pair.served == coin
        if usage is not None:
            assert usage["completion_tokens"] == len(served.token_ids)
            assert usage["prompt_tokens"] == len(pair.prompt_token_ids)
            assert usage["total_tokens"] == usage["completion_tokens"] + usage["prompt_tokens"]


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_twinned_looks_like_what_is_not(
    vllm: str, tmp_path: Path, coin: int, path: str, streamed: bool
) -> None:
    looks: list[list[Any]] = []
    for share in (0.0, 1.0):
        looks.append([])
        with Gate(vllm, tmp_path / f"{share}.ledger", share=share, looks=True) as own:
            for more in MORE:
                response = own.post(path, **asked(path, streamed, more), top_k=2, temperature=0.01)
                forms = [shape(piece) for piece in (pieces_of(response.text) if streamed else [response.json()])]
                # Answers of a step more or less have pieces more or less: kinds of pieces are compared, in their order.
                forms = [form for number, form in enumerate(forms) if form not in forms[:number]]
                looks[-1].append((response.status_code, [name for name, _ in response.headers.raw], forms))
    assert looks[0] == looks[1]


def test_a_client_that_goes_away_changes_nothing(vllm: str, tmp_path: Path, coin: int) -> None:
    with Gate(vllm, tmp_path / "t.ledger", looks=True) as own:
        body = {"model": "student", "messages": [{"role": "user", "content": "Count."}], "stream": True}
        with own.client.stream("POST", CHAT, json=body | {"max_tokens": 60, "ignore_eos": True}) as response:
            next(response.iter_raw())
        assert own.wait(1) == ["recorded"]
        (pair,) = own.pairs()
        assert [len(answer.token_ids or ()) for answer in pair.answers] == [60, 60]
