"""What marking adds to each generation step, in multiples of the softmax that the step pays anyway.

Every figure of one batch and vocabulary comes from one run: softmax, top-k, our schemes and transformers' watermarks
take turns on the same logits (normal, sd 4: a few nats of entropy), each step with new contexts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from transformers.generation import SynthIDTextWatermarkLogitsProcessor, WatermarkLogitsProcessor

from benchmarks.common import Report, clock, json_option, quick_option, set_threads, threads_option, timings
from watermark.engines.transformers.context import next_contexts
from watermark.engines.transformers.processor import WatermarkProcessor
from watermark.keys import KeyRing, SecretKey
from watermark.rowkeys import RowKeys
from watermark.schemes.marking import mark_rows
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec

SCHEMES = ("gumbel", "tournament", "green_list")
LENGTH = 256  # tokens so far, half of them the prompt
STEPS = 16  # different contexts, in turn
TOP_K = {"gumbel": 64, "tournament": 100, "green_list": 64}
SKIP = "skipped"
SYNTHID_LOGITS = 64 * 128_256  # it makes several int64 arrays of 30 per logit: 2 GB each from here on

Step = Callable[[], object]


def _logits(batch: int, vocabulary: int) -> torch.Tensor:
    generator = np.random.default_rng(0)
    return torch.from_numpy(4 * generator.standard_normal((batch, vocabulary), dtype=np.float32))


def _kept(logits: torch.Tensor, k: int) -> torch.Tensor:
    """What top-k leaves: the others at -inf."""
    top = logits.topk(k)
    return torch.full_like(logits, -torch.inf).scatter_(-1, top.indices, top.values)


def _spec(scheme: str, vocabulary: int, key: SecretKey) -> WatermarkSpec:
    return WatermarkSpec(scheme=scheme, vocabulary_size=vocabulary, tokenizer="none", key_fingerprint=key.fingerprint)


def _texts(batch: int, vocabulary: int) -> Iterator[torch.Tensor]:
    """Token ids so far of each row, another set for each step."""
    generator = np.random.default_rng(1)
    sets = [torch.from_numpy(generator.integers(0, vocabulary, (batch, LENGTH))) for _ in range(STEPS)]
    return itertools.cycle(sets)


def our_steps(logits: torch.Tensor) -> dict[str, Step]:
    """Each scheme: marking alone on full rows and on rows after top-k; and the whole hook."""
    batch, vocabulary = logits.shape
    key = SecretKey(bytes(32))
    ring = KeyRing.from_master(key)
    nothing = torch.zeros(batch, dtype=torch.long)
    steps: dict[str, Step] = {}
    for name in SCHEMES:
        spec = _spec(name, vocabulary, key)
        subkeys = [row % spec.subkeys for row in range(batch)]
        row_keys = RowKeys.of(spec, ring, [None] * batch, subkeys, logits.device)
        picked = [
            row_keys.at(next_contexts(ids, nothing, 2)) for ids in itertools.islice(_texts(batch, vocabulary), STEPS)
        ]
        hook = WatermarkProcessor(spec, ring, [None] * batch, subkeys, nothing, LENGTH // 2, 0.0, logits.device)
        k = min(TOP_K[name], vocabulary)
        kept = _kept(logits, k)
        scheme = spec.build_scheme()
        steps[f"{name}: full rows"] = _marking(scheme, logits, picked)
        steps[f"{name}: rows after top-k {k}"] = _marking(scheme, kept, picked)
        steps[f"{name}: hook, full rows"] = _hook(hook, _texts(batch, vocabulary), logits)
        steps[f"{name}: hook, after top-k {k}"] = _hook(hook, _texts(batch, vocabulary), kept)
    return steps


def _marking(scheme: Scheme, logits: torch.Tensor, picked: list[tuple[Any, Any]]) -> Step:
    turns = itertools.cycle(picked)
    return lambda: mark_rows(scheme, logits, *next(turns))


def _hook(hook: Callable[..., torch.Tensor], texts: Iterator[torch.Tensor], logits: torch.Tensor) -> Step:
    return lambda: hook(next(texts), logits)


def peers(logits: torch.Tensor) -> dict[str, Step]:
    """Build transformers' own watermarks with their default parameters; SynthID with 30 keys."""
    batch, vocabulary = logits.shape
    steps: dict[str, Step] = {}
    for seeding in ("lefthash", "selfhash"):
        hook = WatermarkLogitsProcessor(vocabulary, "cpu", seeding_scheme=seeding)
        steps[f"transformers {seeding}"] = _hook(hook, _texts(batch, vocabulary), logits)
    steps["transformers SynthID, depth 30"] = _hook(_synthid(), _texts(batch, vocabulary), logits)
    steps["SynthID, 100 candidates"] = _synthid_candidates(logits)
    return steps


def _synthid() -> SynthIDTextWatermarkLogitsProcessor:
    keys = np.random.default_rng(2).integers(1, 2**16, 30).tolist()
    return SynthIDTextWatermarkLogitsProcessor(5, keys, 2**16, 0, 1024, torch.device("cpu"))


def _synthid_candidates(logits: torch.Tensor) -> Step:
    """The same on top-k candidates, as Google's synthid-text calls it."""
    hook = _synthid()
    top = logits.topk(min(100, logits.shape[1]))
    texts = _texts(*logits.shape)

    def step() -> torch.Tensor:
        keys, _ = hook._compute_keys(next(texts)[:, -4:], top.indices)
        return hook.update_scores(top.values, hook.sample_g_values(keys))

    return step


@click.command()
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 8, 64), show_default=True)
@click.option(
    "--vocabulary", "vocabularies", multiple=True, type=int, default=(32_768, 128_256, 262_144), show_default=True
)
@click.option("--seconds", default=2.0, show_default=True, help="Time for each figure.")
@click.option("--longest", default=20.0, show_default=True, help="Leave out a peer whose step takes more seconds.")
@click.option("--peers/--no-peers", "with_peers", default=True, show_default=True)
@threads_option
@quick_option
@json_option
def main(
    batches: tuple[int, ...],
    vocabularies: tuple[int, ...],
    seconds: float,
    longest: float,
    with_peers: bool,
    threads: int | None,
    quick: bool,
    json_path: Path | None,
) -> None:
    """Time the hook against softmax, top-k and transformers' watermarks."""
    if quick:
        batches, vocabularies, seconds, threads = (2,), (400,), 0.01, 1
    report = Report(
        "Cost of one step; x softmax: median over rounds of the ratio in the same round, with quartiles",
        set_threads(threads),
        notes=["candidates: of top-k values and ids that are there already; the top-k itself is timed above"],
    )
    pace: dict[str, float] = {}  # seconds of a peer's step per logit, from the size before
    for batch, vocabulary in sorted(itertools.product(batches, vocabularies), key=lambda size: size[0] * size[1]):
        logits = _logits(batch, vocabulary)
        functions: dict[str, Step] = {
            "softmax": lambda x=logits: x.softmax(-1),  # type: ignore[misc]
            "top-k 64": lambda x=logits: x.topk(min(64, x.shape[1])),  # type: ignore[misc]
            "top-k 100": lambda x=logits: x.topk(min(100, x.shape[1])),  # type: ignore[misc]
        }
        functions |= our_steps(logits)
        skipped = {}
        if with_peers:
            for name, step in peers(logits).items():
                expected = pace.get(name, 0.0) * logits.numel()
                if "depth" in name and logits.numel() > SYNTHID_LOGITS:
                    skipped[name] = "needs tens of GB"
                    continue
                if expected < longest:
                    expected = clock(step)
                    pace[name] = expected / logits.numel()
                if expected < longest:
                    functions[name] = step
                else:
                    skipped[name] = f"about {expected:.0f} s a step"
        size = f"{batch} x {vocabulary:,}"
        with torch.inference_mode():
            for name, timing in timings(functions, "softmax", seconds=seconds).items():
                report.add(
                    step=f"{size}: {name}",
                    ms=timing.milliseconds,
                    x_softmax=timing.ratio,
                    quartiles=timing.ratio_quartiles,
                    rounds=len(timing.seconds),
                )
        for name, reason in skipped.items():
            report.add(step=f"{size}: {name}", quartiles=f"{SKIP}: {reason}")
        report.save(json_path)
        click.echo(f"{size} done", err=True)
    report.finish(json_path)


if __name__ == "__main__":
    main()
