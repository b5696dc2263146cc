"""The cost of a hook in vLLM's V1 runner: every variant in one engine, in turn, on the same prompts.

    python -m benchmarks.serving.cost --model DIR [--batches 1,8] [--rounds 4] [--json FILE]

It runs inside vLLM's Python. An engine is loaded once; between rounds the processors in its sampler are exchanged, so
that all variants meet the same machine. A step's time is its inter-token latency.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

SCHEMES = ("gumbel", "green_list", "tournament")
ACCOUNT = "acme"
TOKENS = 48


@dataclass
class Timed:
    """A processor whose calls are timed."""

    inner: Any
    seconds: float = 0.0
    steps: int = 0

    def is_argmax_invariant(self) -> bool:
        """As the inner one says."""
        return bool(self.inner.is_argmax_invariant())

    def update_state(self, update: Any) -> None:
        """Timed."""
        started = time.perf_counter()
        self.inner.update_state(update)
        self.seconds += time.perf_counter() - started

    def apply(self, logits: Any) -> Any:
        """Timed."""
        started = time.perf_counter()
        found = self.inner.apply(logits)
        self.seconds += time.perf_counter() - started
        self.steps += 1
        return found


class Naive:
    """What a first attempt looks like: a seeded permutation of the vocabulary for each row and step (KGW, lefthash)."""

    def __init__(self) -> None:
        self._rows: dict[int, list[int]] = {}

    def is_argmax_invariant(self) -> bool:
        """It biases logits."""
        return False

    def update_state(self, update: Any) -> None:
        """Follow the batch."""
        if update is None:
            return
        for index in update.removed:
            self._rows.pop(index, None)
        for index, _, prompt, tokens in update.added:
            self._rows[index] = tokens or prompt
        for one, other, _ in update.moved:
            self._rows[one], self._rows[other] = self._rows.get(other, []), self._rows.get(one, [])

    def apply(self, logits: Any) -> Any:
        """Add 2 nats to a quarter of the vocabulary."""
        import torch

        generator = torch.Generator()
        for row in range(len(logits)):
            generator.manual_seed(15485863 * (self._rows.get(row) or [1])[-1])
            green = torch.randperm(logits.shape[1], generator=generator)[: logits.shape[1] // 4]
            logits[row, green] += 2.0
        return logits


@dataclass
class Figures:
    """Of one variant at one batch size: each round's step time and hook time, milliseconds, and tokens a second."""

    step: list[float] = field(default_factory=list)
    hook: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)


def _ours(scheme: str, folder: Path, model: str, vocabulary: int) -> Any:
    """The adapter with a spec of its own."""
    import torch

    from watermark.engines.hook.hook import Hook
    from watermark.engines.hook.settings import Settings
    from watermark.engines.vllm.first_runner import FirstRunner
    from watermark.engines.vllm.processor import DyetraceProcessor
    from watermark.keys import SecretKey, write_key_file
    from watermark.spec import WatermarkSpec, write_spec

    key = SecretKey.generate()
    spec = WatermarkSpec(
        scheme=scheme, vocabulary_size=vocabulary, tokenizer=model, key_fingerprint=key.fingerprint, global_share=0.5
    )
    write_spec(folder / f"{scheme}.json", spec)
    write_key_file(folder / f"{scheme}.key", key)
    hook = Hook(
        Settings(
            spec=str(folder / f"{scheme}.json"),
            key=f"file:{folder / f'{scheme}.key'}",
            ledger=str(folder / scheme),
            metrics=str(folder / f"{scheme}.prom"),
        )
    )
    hook.start(torch.device("cpu"), vocabulary)
    made = DyetraceProcessor.__new__(DyetraceProcessor)
    made._hook, made._batch, made._slots = hook, FirstRunner(hook), None
    return made


@click.command()
@click.option("--model", required=True, help="Folder of the model.")
@click.option("--batches", default="1,8", show_default=True)
@click.option("--rounds", default=4, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(model: str, batches: str, rounds: int, json_path: Path | None) -> None:
    """Time vLLM's step without a hook, with each scheme, and with a naive processor."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name in ("DYETRACE_CONFIG", "DYETRACE_SPEC"):
        os.environ.pop(name, None)
    sizes = [int(size) for size in batches.split(",")]
    from vllm import LLM, SamplingParams

    llm = LLM(model, enforce_eager=True, max_model_len=512, max_num_seqs=max(sizes), gpu_memory_utilization=0.3)
    core: Any = llm.llm_engine.engine_core
    runner = core.engine_core.model_executor.driver_worker.worker.model_runner
    processors = runner.input_batch.logitsprocs
    invariant, others = list(processors.argmax_invariant), list(processors.non_argmax_invariant)
    vocabulary = runner.model_config.get_vocab_size()
    found: dict[tuple[int, str, str], Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        variants: dict[str, Any] = {"none": None, "naive": Timed(Naive())}
        variants |= {scheme: Timed(_ours(scheme, Path(folder), model, vocabulary)) for scheme in SCHEMES}
        for turn in range(rounds + 1):  # the first is for warming up
            for size in sizes:
                for sampling, settings in (("T 1", {}), ("top-p 0.95", {"top_p": 0.95})):
                    for name in random.sample(list(variants), len(variants)):
                        timed = variants[name]
                        extra = [] if timed is None else [timed]
                        first = bool(extra) and extra[0].is_argmax_invariant()
                        processors.argmax_invariant = [*invariant, *(extra if first else [])]
                        processors.non_argmax_invariant = [*others, *([] if first else extra)]
                        params = SamplingParams(
                            max_tokens=TOKENS,
                            min_tokens=TOKENS,
                            extra_args={"dyetrace_tenant": ACCOUNT},
                            detokenize=False,
                            **settings,
                        )
                        prompts = [{"prompt_token_ids": [1, 30 + row, 40 + turn, 50]} for row in range(size)]
                        if timed is not None:
                            timed.seconds, timed.steps = 0.0, 0
                        started = time.perf_counter()
                        llm.generate(prompts, params, use_tqdm=False)
                        seconds = time.perf_counter() - started
                        if turn:
                            of = found.setdefault((size, sampling, name), Figures())
                            of.step.append(1e3 * seconds / TOKENS)
                            of.rate.append(size * TOKENS / seconds)
                            of.hook.append(0.0 if timed is None else 1e3 * timed.seconds / max(1, timed.steps))
    rows = []
    for (size, sampling, name), of in found.items():
        plain = found[size, sampling, "none"]
        step, hook = statistics.median(of.step), statistics.median(of.hook)
        rows.append(
            {
                "batch": size,
                "sampling": sampling,
                "hook": name,
                "tokens/s": round(statistics.median(of.rate), 1),
                "ms a token": round(step, 2),
                "x no hook": round(step / statistics.median(plain.step), 3),
                "hook ms": round(hook, 3),
                "hook, % of a plain step": round(100 * hook / statistics.median(plain.step), 2),
            }
        )
    for row in rows:
        click.echo("  ".join(f"{key}: {value}" for key, value in row.items()))
    if json_path is not None:
        json_path.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
