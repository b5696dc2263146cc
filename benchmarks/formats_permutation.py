"""How fast foreign marks that permute the vocabulary are read, beside transformers' own detectors in the same run.

Ours is the whole test of a text under one key: distinct tuples, words, statistic, tail. Texts are stretches of natural
text, the next one at every call, under a random renaming of ids into a vocabulary of the size asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from transformers import PretrainedConfig
from transformers.generation import SynthIDTextWatermarkLogitsProcessor, WatermarkDetector, WatermarkingConfig

from benchmarks.common import Report, json_option, quick_option, set_threads, threads_option, timings
from detect.laws.tails import log10_sf, log10_sf_weighted_many
from detect.text.distinct import distinct_tuples
from detect.text.encode import Encoder
from detect.text.natural_text import KINDS, natural_documents
from watermark.formats.protocol import Format
from watermark.laws import Exponential
from watermark.models.demo import demo_model_dir
from watermark.prf import U32
from watermark.registry import load_format

Step = Callable[[], object]

PEER_TOKENS = 1_000
PEER = "transformers WatermarkDetector, lefthash"
DEPTH = 30
SEED = b"formats permutation benchmark   "

FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("transformers-kgw-lefthash", {}),
    ("transformers-kgw-selfhash", {"window": 4}),
    ("transformers-synthid", {"depth": DEPTH}),
    ("lm-watermarking", {"seeding_scheme": "simple_1"}),
    ("lm-watermarking", {"seeding_scheme": "selfhash"}),
    ("lm-watermarking", {"seeding_scheme": "minhash"}),
    ("markllm-kgw", {}),
    ("markllm-unigram", {}),
    ("tgi", {}),
    ("three-bricks", {"context_width": 2}),
    ("three-bricks-gumbel", {"context_width": 2}),
]


def stretches(encoder: Encoder, texts: list[str], vocabulary: int, length: int) -> list[U32]:
    """Texts of ``length`` ids in a vocabulary of another size."""
    renaming = np.random.default_rng(0).permutation(vocabulary).astype(np.uint32)
    ids = renaming[encoder.encode_batch(texts).ids % vocabulary]
    return [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]


def one_test(scheme: Format, key: tuple[int, ...], ids: U32) -> float:
    """From ids to log10 p by the format's law, each input once."""
    tuples = distinct_tuples(ids, scheme.context_width)
    contexts, tokens = tuples.contexts.astype(np.int64), tuples.tokens.astype(np.int64)
    _, first = np.unique(scheme.inputs(key, contexts, tokens), return_index=True)
    statistic = scheme.statistic(scheme.words(key, contexts[first], tokens[first]))  # type: ignore[arg-type]
    if scheme.context_width == 0:
        counts = tuples.counts[first]
        return float(log10_sf_weighted_many(scheme.law, counts, [statistic @ counts])[0])  # type: ignore[arg-type]
    total = int(statistic.sum())
    return log10_sf(scheme.law, len(first), total * scheme.unit if isinstance(scheme.law, Exponential) else total)


def peers(texts: list[torch.Tensor], vocabulary: int) -> dict[str, Step]:
    """transformers' detectors, each on the next text at every call."""
    model = PretrainedConfig(vocab_size=vocabulary, bos_token_id=0)
    steps: dict[str, Step] = {}
    for seeding, width in (("lefthash", 1), ("selfhash", 4)):
        config = WatermarkingConfig(seeding_scheme=seeding, context_width=width)
        detector = WatermarkDetector(model, "cpu", config, ignore_repeated_ngrams=True)
        steps[f"transformers WatermarkDetector, {seeding}"] = in_turn(
            texts,
            lambda text, d=detector: d(text, return_dict=True),  # type: ignore[misc]
        )
    keys = list(range(1, DEPTH + 1))
    synthid = SynthIDTextWatermarkLogitsProcessor(5, keys, 2**16, 0, 1024, torch.device("cpu"))

    def mean_score(text: torch.Tensor) -> float:
        mask = synthid.compute_context_repetition_mask(text)
        return float((synthid.compute_g_values(text).float() * mask[:, :, None]).sum() / (mask.sum() * DEPTH))

    steps[f"transformers SynthID, depth {DEPTH}, g-values alone"] = in_turn(texts, synthid.compute_g_values)
    steps[f"transformers SynthID, depth {DEPTH}, mean score"] = in_turn(texts, mean_score)
    return steps


def in_turn(texts: list[Any], work: Callable[[Any], object]) -> Step:
    """``work`` on the next of the texts at every call."""
    turn = iter(range(1 << 40))
    return lambda: work(texts[next(turn) % len(texts)])


@click.command()
@click.option("--vocabulary", default=128_256, show_default=True)
@click.option("--tokens", "sizes", multiple=True, type=int, default=(PEER_TOKENS, 65_000), show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Time for each figure.")
@threads_option
@quick_option
@json_option
def main(
    vocabulary: int, sizes: tuple[int, ...], seconds: float, threads: int | None, quick: bool, json_path: Path | None
) -> None:
    """Time the reading of formats against transformers' detectors."""
    rounds = 40
    if quick:
        vocabulary, sizes, rounds = 50_000, (PEER_TOKENS,), 1
    report = Report(
        "Foreign marks that permute the vocabulary: tokens a second; x lefthash: multiples of transformers' detector",
        {"vocabulary": vocabulary, **set_threads(threads or 1)},
        notes=[f"transformers' detectors read texts of {PEER_TOKENS:,} tokens"],
    )
    encoder = Encoder.load(demo_model_dir())
    texts = [text for kind in KINDS for _, text in natural_documents(kind, 3 if quick else 60)]
    short = stretches(encoder, texts, vocabulary, PEER_TOKENS)
    work = {name: (step, PEER_TOKENS) for name, step in peers(_tensors(short), vocabulary).items()}
    for size in sizes:
        pieces = stretches(encoder, texts, vocabulary, size)
        for name, fields in FORMATS:
            sized = fields if name == "transformers-synthid" else fields | {"vocabulary_size": vocabulary}
            scheme: Format = load_format(name)(**sized)
            key = scheme.draw_key(SEED)
            label = ", ".join([name, *(f"{value}" for value in fields.values()), f"texts of {size:,} tokens"])
            work[label] = (in_turn(pieces, lambda ids, s=scheme, k=key: one_test(s, k, ids)), size)  # type: ignore[misc]
    found = timings({name: step for name, (step, _) in work.items()}, PEER, seconds=seconds, rounds=rounds)
    for name, timing in found.items():
        size = work[name][1]
        low, high = timing.ratio_quartiles
        report.add(
            work=name,
            tokens_a_second=1e3 * size / timing.milliseconds,
            x_lefthash=size / PEER_TOKENS / timing.ratio,
            quartiles=(size / PEER_TOKENS / high, size / PEER_TOKENS / low),
            rounds=len(timing.seconds),
        )
    report.finish(json_path)


def _tensors(texts: list[U32]) -> list[torch.Tensor]:
    return [torch.from_numpy(ids.astype(np.int64))[None] for ids in texts]


if __name__ == "__main__":
    main()
