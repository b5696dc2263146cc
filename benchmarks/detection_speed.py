"""How fast detection is, from token ids and from text, per core; by stages; and how much memory it takes.

The material is natural text of this Python installation. Where more tokens are asked for than it holds, further copies
follow under a random renaming of the ids, which keeps their repetitions and repeats no tuple.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # every figure is per core

import click
import numba
import numpy as np
import torch
from transformers import AutoTokenizer, PretrainedConfig
from transformers.generation import SynthIDTextWatermarkLogitsProcessor, WatermarkDetector, WatermarkingConfig

from benchmarks.common import Report, json_option, quick_option, timings
from detect.detector import Detector
from detect.document.blind import blind_test, log10_pvalues
from detect.keyed.scoring import totals
from detect.text.distinct import distinct_tuples, first_occurrences, tuple_fingerprints
from detect.text.encode import Encoder
from detect.text.natural_text import KINDS, natural_documents
from watermark import prf
from watermark.keys import KeyRing, SecretKey
from watermark.models.demo import demo_model_dir
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.prf import U32
from watermark.registry import make_scheme
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec

SCHEMES = ("gumbel", "tournament", "green_list")
WIDTH = 2
KEY = SecretKey(bytes(32))
PEER_TOKENS = 1_000

Step = Callable[[], object]


def material(encoder: Encoder, texts: Sequence[str], tokens: int) -> U32:
    """``tokens`` ids of natural text."""
    ids = encoder.encode_batch(texts).ids
    generator = np.random.default_rng(0)
    copies = [ids]
    for _ in range(tokens // len(ids)):
        copies.append(generator.permutation(encoder.vocabulary_size).astype(np.uint32)[ids])
    return np.concatenate(copies)[:tokens]


def one_key(scheme: Scheme, ids: U32) -> float:
    """From ids to log10 p."""
    tuples = distinct_tuples(ids, WIDTH)
    return float(log10_pvalues(scheme, tuples, totals(scheme, [KEY], tuples))[0])


def whole_test(scheme: str, ids: U32, vocabulary: int) -> float:
    """The test of one document as users get it: 4 sub-keys and 100 decoys of as many, 404 keys in all."""
    spec = WatermarkSpec(scheme=scheme, vocabulary_size=vocabulary, tokenizer="none", key_fingerprint=KEY.fingerprint)
    return blind_test(spec, KeyRing.from_master(KEY), distinct_tuples(ids, WIDTH)).log10_pvalue


def stages(scheme: Scheme, ids: U32) -> dict[str, tuple[Step, int]]:
    """What a detection consists of, each part alone: the work, and how many tokens or tuples it handles."""
    n = len(ids)
    fingerprints = tuple_fingerprints(ids, WIDTH, WIDTH)
    tuples = distinct_tuples(ids, WIDTH)
    part = tuples.take(slice(0, 1 << 16))  # the rest goes in chunks of this size
    contexts, tokens = part.contexts, part.tokens
    nonces = prf.nonces(contexts, None)
    words = prf.words_at(KEY.words, nonces, tokens)
    sums = totals(scheme, [KEY], tuples)
    return {
        "fingerprints of all tuples": (lambda: tuple_fingerprints(ids, WIDTH, WIDTH), n),
        "first occurrences": (lambda: first_occurrences(fingerprints), n),
        "contexts and nonces": (lambda: prf.nonces(part.contexts, None), len(part)),
        "words": (lambda: prf.words_at(KEY.words, nonces, tokens), len(part)),
        "statistic and its sum": (lambda: scheme.statistic(words).sum(), len(part)),
        "tail": (lambda: log10_pvalues(scheme, tuples, sums), n),
    }


def peak_bytes_per_token(scheme: Scheme, tokens: int) -> float:
    """Peak memory of one detection, ids included: numpy tells tracemalloc of its arrays.

    Random ids, the worst case: all tuples are distinct. The tables that compiled code makes for itself, some MB however
    long the text, are not seen.
    """
    tracemalloc.start()
    try:
        one_key(scheme, np.random.default_rng(0).integers(0, 49_152, tokens, dtype=np.uint32))
        return tracemalloc.get_traced_memory()[1] / tokens
    finally:
        tracemalloc.stop()


def peers(ids: U32, vocabulary: int) -> dict[str, tuple[Step, int]]:
    """transformers' detectors on ids: a new stretch of text at every call, since the first one keeps a cache."""
    stretches = [torch.from_numpy(part.astype(np.int64))[None] for part in np.array_split(ids, len(ids) // PEER_TOKENS)]
    turn = iter(range(1 << 30))
    model = PretrainedConfig(vocab_size=vocabulary, bos_token_id=0)
    found: dict[str, tuple[Step, int]] = {}
    for seeding in ("lefthash", "selfhash"):
        detector = WatermarkDetector(
            model, "cpu", WatermarkingConfig(seeding_scheme=seeding), ignore_repeated_ngrams=True
        )
        found[f"transformers WatermarkDetector, {seeding}"] = (
            lambda d=detector: d(stretches[next(turn) % len(stretches)], return_dict=True),  # type: ignore[misc]
            PEER_TOKENS,
        )
    keys = np.random.default_rng(2).integers(1, 2**16, 30).tolist()
    synthid = SynthIDTextWatermarkLogitsProcessor(5, keys, 2**16, 0, 1024, torch.device("cpu"))

    def mean_score() -> torch.Tensor:
        text = stretches[next(turn) % len(stretches)]
        g = synthid.compute_g_values(text).float()
        mask = synthid.compute_context_repetition_mask(text)
        return (g * mask[:, :, None]).sum() / (mask.sum() * g.shape[-1])

    found["transformers SynthID mean score, depth 30"] = (mean_score, PEER_TOKENS)
    return found


def from_text(texts: Sequence[str], folder: Path, share: float) -> dict[str, Step]:
    """From text to one log10 p for all of it, and to one for each document; and encoders alone."""
    encoder = Encoder.load(folder, fast=True, check_share=share)
    tokenizer = load_tokenizer(folder)
    scheme = make_scheme("gumbel", {})
    slow = AutoTokenizer.from_pretrained(folder)
    few = texts[::20]
    return {
        "encoder": lambda: encoder.encode_batch(texts),
        "encoder and one test": lambda: one_key(scheme, encoder.encode_batch(texts).ids),
        "encoder and a test of each document": lambda: [one_key(scheme, ids) for ids in encoder.encode_batch(texts)],
        "tokenizers, encode": lambda: [tokenizer.encode(text, add_special_tokens=False).ids for text in few],
        "AutoTokenizer": lambda: [slow(text, add_special_tokens=False)["input_ids"] for text in few],
    }


def prepared(text: str, folder: Path) -> dict[str, Step]:
    """A program's test of one text, 4 sub-keys and 100 decoys: made ready once, and made ready for each text."""
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(folder),
        tokenizer=tokenizer_fingerprint(folder),
        key_fingerprint=KEY.fingerprint,
    )
    ring = KeyRing.from_master(KEY)
    detector = Detector(spec, ring, folder)
    return {
        "a text, its detector made ready once": lambda: detector.test(text),
        "a text, its detector made ready anew": lambda: Detector(spec, ring, folder).test(text),
    }


@click.command()
@click.option("--tokens", "sizes", multiple=True, type=int, default=(1_000, 100_000, 10_000_000), show_default=True)
@click.option("--threads", "threads", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--seconds", default=3.0, show_default=True, help="Time for each figure.")
@quick_option
@json_option
def main(sizes: tuple[int, ...], threads: tuple[int, ...], seconds: float, quick: bool, json_path: Path | None) -> None:
    """Time detection and its parts against transformers' detectors and encoders."""
    kinds, rounds = KINDS, 20
    if quick:
        sizes, threads, kinds, rounds = (3_000,), (1,), ("code",), 1
    report = Report(
        "Detection: tokens a second; x peer: how many times the last line of its group",
        {"context width": WIDTH},
        notes=["bytes a token: peak of one detection under one key, ids included"],
    )
    folder = demo_model_dir()
    texts = [text for kind in kinds for _, text in natural_documents(kind, 3 if quick else None)]
    encoder = Encoder.load(folder, fast=not quick)
    ids = material(encoder, texts, max(sizes))
    before = numba.get_num_threads()
    try:
        for count in threads:
            numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
            torch.set_num_threads(count)
            for size in sizes:
                _from_ids(report, ids[:size], count, encoder.vocabulary_size, seconds, rounds)
                report.save(json_path)
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(before)
    for scheme in SCHEMES[: 1 if quick else 3]:
        report.add(
            work=f"memory, {scheme}, {max(sizes):,} random tokens",
            bytes_a_token=peak_bytes_per_token(make_scheme(scheme, {}), max(sizes)),
        )
    _from_text(report, texts, folder, seconds, rounds)
    report.finish(json_path)


def _from_ids(report: Report, ids: U32, threads: int, vocabulary: int, seconds: float, rounds: int) -> None:
    size = len(ids)
    work: dict[str, tuple[Step, int]] = {}
    for name in SCHEMES:
        scheme = make_scheme(name, {})
        work[f"{name}, one key"] = (lambda s=scheme: one_key(s, ids), size)  # type: ignore[misc]
        if size <= 100_000:  # its cost per tuple and key no longer changes
            work[f"{name}, 4 sub-keys and 100 decoys"] = (lambda n=name: whole_test(n, ids, vocabulary), size)  # type: ignore[misc]
        if threads == 1:
            for stage, (step, handled) in stages(scheme, ids).items():
                if name == SCHEMES[0] or stage in ("statistic and its sum", "tail"):
                    work[f"stage of {name}: {stage}"] = (step, handled)
    work |= peers(ids if size >= PEER_TOKENS else np.resize(ids, PEER_TOKENS), vocabulary)
    reference = "transformers SynthID mean score, depth 30"
    _add(report, f"{threads} thread{'s' * (threads > 1)}, {size:,} tokens: ", work, reference, seconds, rounds)


def _from_text(report: Report, texts: Sequence[str], folder: Path, seconds: float, rounds: int) -> None:
    numba.set_num_threads(1)
    encoder = Encoder.load(folder)
    tokens = len(encoder.encode_batch(texts).ids)
    few = len(encoder.encode_batch(texts[::20]).ids)
    work = {
        name: (step, few if name.startswith(("tokenizers", "AutoTokenizer")) else tokens)
        for name, step in from_text(texts, folder, 0.01).items()
    }
    _add(
        report,
        f"1 thread, text of {len(texts):,} documents, {tokens:,} tokens: ",
        work,
        "AutoTokenizer",
        seconds,
        rounds,
    )
    text = max(texts, key=len)[:2_000]
    few = len(encoder.encode(text))
    work = {name: (step, few) for name, step in prepared(text, folder).items()}
    _add(report, f"1 thread, {few:,} tokens: ", work, "a text, its detector made ready anew", seconds, rounds)


def _add(
    report: Report, where: str, work: dict[str, tuple[Step, int]], reference: str, seconds: float, rounds: int
) -> None:
    found = timings({name: step for name, (step, _) in work.items()}, reference, seconds=seconds, rounds=rounds)
    for name, timing in found.items():
        handled, base = work[name][1], work[reference][1]
        low, high = timing.ratio_quartiles
        report.add(
            work=where + name,
            ms=timing.milliseconds,
            million_a_second=handled / timing.milliseconds / 1e3,
            x_peer=handled / base / timing.ratio,
            quartiles=(handled / base / high, handled / base / low),
            rounds=len(timing.seconds),
        )


if __name__ == "__main__":
    main()
