"""Race readouts of a real vLLM server, over HTTP, by the commands. Runs where vLLM is installed; one server for all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.filterwarnings("default")

import httpx2  # noqa: E402
import msgspec  # noqa: E402

from tests.innocents.world import KEY, run  # noqa: E402

ANSWERS, TOKENS = 24, 40


@dataclass(frozen=True)
class Served:
    """What was served under a key, and a student of it."""

    folder: Path
    owner: Path
    student: Path

    @property
    def words(self) -> list[object]:
        """Options that all commands take."""
        return ["--read", self.folder / "served.jsonl", "--spec", self.folder / "spec.json", "--key", self.key]

    @property
    def key(self) -> str:
        return f"file:{self.folder / 'owner.key'}"


@pytest.fixture(scope="module")
def served(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The demo model's own answers, and what it becomes when it learns them."""
    from benchmarks.distillation.prompts import prompts
    from benchmarks.twins.students import Training, student
    from watermark.generate import Sampling, generate_batches
    from watermark.keys import KeyRing, write_key_file
    from watermark.models.folder import load_model
    from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
    from watermark.spec import WatermarkSpec, write_spec

    folder = tmp_path_factory.mktemp("race")
    model, tokenizer = load_model(smollm2_dir)
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=KEY.fingerprint,
    )
    sampling = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=TOKENS, batch=12, seed=3)
    batches = generate_batches(model, tokenizer, prompts(ANSWERS), sampling, spec, KeyRing.from_master(KEY, 0))
    answers = [answer for batch in batches for answer in batch]
    (folder / "served.jsonl").write_bytes(b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers))
    write_spec(folder / "spec.json", spec)
    write_key_file(folder / "owner.key", KEY)
    del model
    texts = [(answer.prompt, answer.text) for answer in answers]
    learnt = student(folder, "student", smollm2_dir, texts, Training("full", epochs=4, batch=8, rate=1e-4))
    return Served(folder, smollm2_dir, learnt)


@pytest.fixture(scope="module")
def vllm(served: Served) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--model", str(served.student), "--served-model-name", "student", "--port", str(port)]
    options += ["--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "8", "--host", "127.0.0.1"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    log = served.folder / "log"
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


def traced(served: Served, url: str, output: Path, *more: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan and the report of a readout through the endpoint, until the target or the last answer."""
    plan = output / "plan.json"
    asked = ["--model", "student", "--owner-model", served.owner, "--taken", "all", "-o", plan, *more]
    made = run("trace", "plan", url, *asked, *served.words)
    assert made.exit_code == 0, made.output
    done = run("trace", "api", plan, "--no-pdf", "-o", output / "evidence", *served.words)
    assert done.exit_code in (0, 183), done.output
    return msgspec.json.decode(plan.read_bytes()), msgspec.json.decode((output / "evidence/report.json").read_bytes())


@pytest.fixture(scope="module")
def weights(served: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the student's own weights say."""
    output = tmp_path_factory.mktemp("weights") / "evidence"
    done = run(
        "trace",
        "weights",
        served.student,
        "--owner-model",
        served.owner,
        "--taken",
        "all",
        "--no-pdf",
        "-o",
        output,
        *served.words,
    )
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = msgspec.json.decode((output / "report.json").read_bytes())
    return report


def test_auto_finds_prompt_logprobs_and_a_few_requests_suffice(served: Served, vllm: str, tmp_path: Path) -> None:
    plan, report = traced(served, vllm, tmp_path)
    assert plan["asking"]["ask"] == report["ask"] == "prompt-logprobs"
    assert report["found"] and report["log10_evalue"] >= report["target_log10"] == 10
    assert report["queries"]["requests"] <= 6


def test_prompt_logprobs_say_what_the_weights_say(
    served: Served, vllm: str, weights: dict[str, Any], tmp_path: Path
) -> None:
    _, report = traced(served, vllm, tmp_path, "--ask", "prompt-logprobs", "--target", "-1000")
    assert weights["found"] and report["counts"]["cuts"] == weights["counts"]["cuts"]
    (here,), (there,) = report["hypotheses"], weights["hypotheses"]
    # The engine's arithmetic is bf16 with other kernels, and it lists 20 words at most.
    assert abs(here["hits"] - there["hits"]) <= 0.05 * there["cuts"]
    assert abs(here["log10_evalue"] - there["log10_evalue"]) < 0.15 * there["log10_evalue"]


@pytest.mark.parametrize("via", ["completions", "prefill"])
@pytest.mark.parametrize("ask", ["greedy", "bias", "logprobs"])
def test_one_token_at_a_time_finds_it_too(served: Served, vllm: str, tmp_path: Path, ask: str, via: str) -> None:
    plan, report = traced(served, vllm, tmp_path, "--ask", ask, "--via", via, "--target", "-6")
    assert plan["asking"]["ask"] == ask and report["found"]
    # Nearly every request says something of one place; a greedy one of several, while its words are the served ones.
    counts = report["counts"]
    assert counts["asked"] - counts["silent"] >= 0.9 * report["queries"]["requests"]


def test_echo_finds_it_too(served: Served, vllm: str, tmp_path: Path) -> None:
    _, report = traced(served, vllm, tmp_path, "--ask", "echo", "--target", "-6")
    assert report["ask"] == "echo" and report["found"] and report["queries"]["requests"] <= 12
