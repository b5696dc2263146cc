"""What a gateway with twins costs: tokens that the server draws besides, and what clients wait.

    python -m benchmarks.gateway

One server (`benchmarks.distillation.server` over a model folder), clients that ask it directly, through a gateway
without twins and through one with 2% of them, each in blocks of requests in turn, in random order. Latencies are
compared within a round; p99 is of all rounds together. Half of the answers are streamed.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx2
import numpy as np

from benchmarks.common import Report, json_option, quick_option
from benchmarks.distillation.teacher import _tiny
from watermark.keys import SecretKey, write_key_file
from watermark.models.demo import demo_model_dir
from watermark.twins.ledger import TwinLedger

WAYS = ("direct", "no twins", "twins")
SUBJECTS = ("rain", "owls", "a harbour at night", "bread", "the moon", "an old bridge", "maps", "a violin")


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[str]:
    """A process of this Python that serves, and its address, which stands in its first line."""
    with subprocess.Popen([sys.executable, "-m", *command], cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found: list[str] = []
            for line in process.stderr:  # on a busy machine it first says that it is still at it
                found = [word.rstrip(",;") for word in line.split() if word.startswith("http")]
                if found:
                    break
            if not found:
                raise click.ClickException(f"{command[0]} did not start")
            yield found[0]
        finally:
            process.terminate()
            process.wait()


async def block(url: str, bodies: list[dict[str, Any]], at_once: int) -> tuple[list[float], int]:
    """Seconds of each request, so many at once, and tokens that clients were told of."""
    waiting, seconds, tokens = list(bodies), list[float](), 0

    async def worker(client: httpx2.AsyncClient) -> None:
        nonlocal tokens
        while waiting:
            body = waiting.pop()
            started = time.perf_counter()
            response = await client.post("/chat/completions", json=body)
            seconds.append(time.perf_counter() - started)
            response.raise_for_status()
            data = response.text
            if body["stream"]:
                data = data.rstrip().removesuffix("data: [DONE]").rstrip().rpartition("data: ")[2]
            tokens += httpx2.Response(200, text=data).json()["usage"]["completion_tokens"]

    async with httpx2.AsyncClient(base_url=url, timeout=600) as client:
        await asyncio.gather(*(worker(client) for _ in range(at_once)))
    return seconds, tokens


def bodies_of(count: int, tokens: int, seed: int) -> list[dict[str, Any]]:
    """Requests of several lengths, half of them streamed."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        messages = [{"role": "user", "content": f"Write about {rng.choice(SUBJECTS)}, part {rng.randrange(1000)}."}]
        body: dict[str, Any] = {
            "model": "student",
            "messages": messages,
            "max_tokens": rng.randint(tokens // 4, tokens),
        }
        body |= {"temperature": 0.9, "stream": number % 2 == 0}
        made.append(body | ({"stream_options": {"include_usage": True}} if body["stream"] else {}))
    return made


def p99(blocks: list[list[float]]) -> Any:
    """Of all blocks together."""
    return np.percentile(np.concatenate(blocks), 99)


@click.command(help=__doc__)
@quick_option
@json_option
@click.option("--model", "model_dir", type=click.Path(path_type=Path), help="By default the demo model.")
@click.option("--twins", default=0.02, show_default=True, help="Share of requests that get twins.")
@click.option("--rounds", default=8, show_default=True)
@click.option("--requests", "count", default=100, show_default=True, help="In each block.")
@click.option("--tokens", default=32, show_default=True, help="Of the longest answer.")
@click.option("--at-once", default=4, show_default=True, help="Clients.")
@click.option("--two-requests", is_flag=True)
def main(
    quick: bool,
    json_path: Path | None,
    model_dir: Path | None,
    twins: float,
    rounds: int,
    count: int,
    tokens: int,
    at_once: int,
    two_requests: bool,
) -> None:
    if quick:
        rounds, count, tokens, twins = 1, 4, 4, 0.5
    settings = {"twins": twins, "rounds": rounds, "requests": count, "tokens": tokens, "at once": at_once}
    report = Report("Gateway: tokens and what clients wait", settings | {"two requests": two_requests})
    seconds: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    served = dict.fromkeys(WAYS, 0)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, root = Path(name), Path(__file__).parents[1]
        key = SecretKey.generate()
        write_key_file(folder / "twin.key", key)
        found = model_dir or demo_model_dir()
        model = str((_tiny(found, folder) if quick else found).resolve())
        options = ["--threads", "1", "--dtype", "bfloat16", "--port", "0"]
        urls = {"direct": stack.enter_context(running(["benchmarks.distillation.server", model, *options], root))}
        for way, share in (("no twins", 0.0), ("twins", twins)):
            more = ["--twins", str(share), "--twin-ledger", str(folder / f"{way}.ledger"), "--at-once", "1000"]
            more += ["--twin-key", f"file:{folder / 'twin.key'}", "--port", "0", "--operator-port", "0"]
            more += ["--two-requests"] if two_requests else []
            gateway = ["detect.cli", "gateway", "--upstream", urls["direct"], *more]
            urls[way] = stack.enter_context(running(gateway, root))
        rng = random.Random(0)
        for number in range(rounds):
            for way in rng.sample(WAYS, len(WAYS)):
                took, told = asyncio.run(block(urls[way], bodies_of(count, tokens, number), at_once))
                seconds[way].append(took)
                served[way] += told
        stack.close()  # the ledger is its gateway's until that has ended
        with TwinLedger.open(folder / "twins.ledger", key) as ledger:
            extra = sum(len(pair.answers[1 - pair.served].token_ids or ()) for pair in ledger.pairs())
            pairs = ledger.count
    for way in WAYS:
        figures: dict[str, Any] = {"clients ask": way}
        for reference in ("no twins", "direct"):
            within = [np.median(a) / np.median(b) for a, b in zip(seconds[way], seconds[reference], strict=True)]
            figures[f"p50 / {reference}"] = float(np.median(within))
            figures[f"p99 / {reference}"] = float(p99(seconds[way]) / p99(seconds[reference]))
        figures["p50 s"], figures["p99 s"] = float(np.median(np.concatenate(seconds[way]))), float(p99(seconds[way]))
        figures["pairs"] = pairs if way == "twins" else 0
        figures["tokens drawn / served"] = 1 + extra / served[way] if way == "twins" else 1.0
        report.add(**figures)
    report.notes.append("p50: median over rounds of ratios within a round; p99: of all rounds together")
    report.finish(json_path)


if __name__ == "__main__":
    main()
