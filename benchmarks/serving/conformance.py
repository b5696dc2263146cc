"""Every (context, token) that a real vLLM server says over HTTP, checked against the reference.

    python -m benchmarks.serving.conformance --python VLLM_PYTHON [--tuples 100000]

Requests mix accounts, lengths, opt-outs, several samples, truncations, penalties and cancellations. Where top_k is 20
at temperature 1, the 20 log-probabilities that come back are the whole final distribution, and each choice is checked;
the others count for the exact tests. The checks are those that every engine's tests use.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx2
import numpy as np

from benchmarks.common import Report, json_option, quick_option
from benchmarks.serving.server import vllm_server
from tests.watermark.engines.conformance import Answered, conform
from watermark.keys import SecretKey, write_key_file
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec

TENANTS = ("acme", "zeta", "umbra")
_AT_ONCE = 16
_PATIENCE = 600.0


@dataclass(frozen=True)
class Asked:
    """A request, and whether its answers are to be marked and can be checked choice by choice."""

    body: dict[str, Any]
    tenant: str
    marked: bool = True
    checked: bool = True
    cancelled: bool = False


def request(number: int, rng: np.random.Generator, vocabulary: int) -> Asked:
    """One of the mix."""
    tenant = TENANTS[number % 3]
    body: dict[str, Any] = {
        "model": "served",
        "prompt": rng.integers(10, vocabulary, int(rng.integers(1, 60))).tolist(),
        "max_tokens": int(rng.choice([20, 100, 250])),
        "temperature": 1.0,
        "top_k": 20,
        "logprobs": 20,
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
        "vllm_xargs": {"dyetrace_tenant": tenant},
    }
    match number % 12:
        case 1:
            body["vllm_xargs"]["dyetrace_mark"] = "off"
            return Asked(body, tenant, marked=False)
        case 2 | 5:
            body["n"] = 3
        case 3:
            return Asked(body | {"repetition_penalty": 1.1, "top_p": 0.9}, tenant, checked=False)
        case 4:
            return Asked(body | {"temperature": 0.7, "top_p": 0.95, "min_p": 0.02, "top_k": 0}, tenant, checked=False)
        case 7:
            return Asked(body, tenant, cancelled=True)
    return Asked(body, tenant)


async def _answers(url: str, tuples: int, seed: int, vocabulary: int) -> tuple[list[Answered], Counter[str]]:
    rng = np.random.default_rng(seed)
    found: list[Answered] = []
    counts: Counter[str] = Counter()
    number = 0
    limits = httpx2.Limits(max_connections=_AT_ONCE)
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=_PATIENCE) as client:

        async def worker() -> None:
            nonlocal number
            while counts["tokens"] < tuples:
                asked = request(number, rng, vocabulary)
                number += 1
                counts["requests"] += 1
                if asked.cancelled:
                    counts["cancelled"] += 1
                    try:
                        await client.post("/v1/completions", json=asked.body, timeout=0.3)
                    except httpx2.TimeoutException:
                        pass
                    continue
                reply = await client.post("/v1/completions", json=asked.body)
                if reply.status_code != 200:
                    counts[f"status {reply.status_code}"] += 1
                    continue
                for choice in reply.json()["choices"]:
                    answer = _answered(choice, asked)
                    found.append(answer)
                    if asked.checked and asked.marked:
                        counts["tokens"] += len(answer.tokens)

        await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
    return found, counts


def _answered(choice: dict[str, Any], asked: Asked) -> Answered:
    candidates = None
    if asked.checked and asked.marked:
        rows = choice["logprobs"]["top_logprobs"]
        candidates = [_likeliest({int(name.split(":")[1]): value for name, value in row.items()}) for row in rows]
    return Answered(asked.tenant, choice["prompt_token_ids"], choice["token_ids"], asked.marked, candidates)


def _likeliest(row: dict[int, float], k: int = 20) -> dict[int, float]:
    """The server adds the chosen token where it is not among the k likeliest; only they can come."""
    return dict(sorted(row.items(), key=lambda item: -item[1])[:k])


def small_model(folder: Path, tokenizer: Path) -> Path:
    """A random two-layer Llama with the demo model's tokenizer: its text is noise, its plumbing is real and fast."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    words = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            eos_token_id=words.eos_token_id,
        )
    )
    with torch.no_grad():
        network.lm_head.weight.mul_(30)
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@click.command()
@click.option("--python", required=True, help="An interpreter with vLLM and dyetrace in it.")
@click.option("--model", type=click.Path(path_type=Path), help="Folder of a model; by default a small random one.")
@click.option("--tuples", default=100_000, show_default=True, help="Choices to check.")
@click.option("--seed", default=0, show_default=True)
@quick_option
@json_option
def main(python: str, model: Path | None, tuples: int, seed: int, quick: bool, json_path: Path | None) -> None:
    """Check a real server's choices against the reference."""
    from watermark.models.demo import demo_model_dir

    tokenizer = demo_model_dir()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        served = model or small_model(folder / "model", tokenizer)
        key = SecretKey.generate()
        spec = WatermarkSpec(
            vocabulary_size=vocabulary_size(str(served)),
            tokenizer=tokenizer_fingerprint(str(served)),
            key_fingerprint=key.fingerprint,
            global_share=0.5,
        )
        write_spec(folder / "spec.json", spec)
        write_key_file(folder / "owner.key", key)
        settings = {
            "spec": str(folder / "spec.json"),
            "key": f"file:{folder / 'owner.key'}",
            "allow_off": True,
            "metrics": str(folder / "metrics.prom"),
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        options = ["--max-model-len", "512", "--max-num-seqs", "8", "--gpu-memory-utilization", "0.3"]
        with vllm_server(python, served, folder / "settings.json", folder / "server.log", *options) as url:
            started = time.perf_counter()
            wanted = 2000 if quick else tuples
            answers, counts = asyncio.run(_answers(url, int(wanted * 1.15), seed, spec.vocabulary_size))
            seconds = time.perf_counter() - started
        metrics = (folder / "metrics.prom").read_text()
    found = conform(spec, key, answers, log10_p=-10)
    report = Report("conformance: vLLM over HTTP against the reference", {"model": str(model or "small"), "seed": seed})
    report.add(
        requests=counts["requests"],
        cancelled=counts["cancelled"],
        answers=len(answers),
        **{"choices checked": found.tuples, "mismatches": found.mismatches, "decided by rounding": found.close},
        **{f"log10 p, {name or 'all'}": round(value, 1) for name, value in found.log10_pvalues.items()},
        **{"log10 p, opted out": round(found.log10_unmarked, 2), "seconds": round(seconds)},
    )
    report.notes += [line for line in metrics.splitlines() if not line.startswith("#")]
    report.finish(json_path)


if __name__ == "__main__":
    main()
