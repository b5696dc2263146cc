"""How fast foreign marks that are drawn with hashes are scored, beside the systems' own detectors in the same run.

Ours is what `detect` does from ids to a total: distinct tuples, each input once, words, statistics. Texts are stretches
of natural text, the next one at every call. The systems are read from wherever Python finds them, each without its
package's ``__init__`` (which wants servers and models), and left out where it finds none; wheels unpacked into a folder
will do:

    pip download --no-deps sglang==0.5.23 textseal==0.0.5 sbw==1.0.0     and unzip them into FOLDER
    PYTHONPATH=FOLDER python -m benchmarks.formats_hash

vLLM's detector needs vLLM itself: run the script in its environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np

from benchmarks.common import Report, json_option, quick_option, set_threads, threads_option, timings
from detect.keyed.words import Source
from detect.text.distinct import distinct_tuples
from detect.text.encode import Encoder
from detect.text.natural_text import KINDS, natural_documents
from watermark.formats.protocol import Format
from watermark.keys.foreign import ForeignKey
from watermark.models.demo import demo_model_dir
from watermark.prf import U32
from watermark.registry import load_format

Step = Callable[[], object]
Ids = list[int]

OWN_TOKENS = 1_000  # of the texts that the systems' own detectors read
TEXTSEAL = "textseal score_tokens, each tuple once"
SEED = b"formats hash benchmark          "

FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("vllm-gumbel", {}),
    ("vllm-dual-key-gumbel", {}),
    ("sglang", {}),
    ("sglang-two-keys", {}),
    ("textseal-green", {"context_width": 2}),
    ("textseal-gumbel", {"context_width": 2}),
    ("textseal-dual-key", {"context_width": 2}),
    ("synthid-text", {}),
    ("sbw", {"seeding": "selfhash"}),
    ("sbw", {"seeding": "simple_1"}),
]


def one_total(scheme: Format, key: ForeignKey, ids: U32) -> tuple[int, int]:
    """From ids to the number of inputs and their total, each input once."""
    source = Source.of(scheme, distinct_tuples(ids, scheme.context_width))
    first = source.first_inputs(key)
    statistics = scheme.statistic(source.under(key)[first])
    return len(statistics), int(statistics.sum())


def own_detectors() -> dict[str, Callable[[Ids], object]]:
    """Those of the systems that Python finds."""
    found: dict[str, Callable[[Ids], object]] = {}
    if importlib.util.find_spec("textseal") is not None:
        core = _inside("textseal.common.watermark.core")
        for label, method in (("each tuple once", "v2"), ("repeats too", "none")):
            settings = core.WatermarkConfig(ngram=2, scoring_method=method)
            found[f"textseal score_tokens, {label}"] = lambda ids, c=core, s=settings: c.score_tokens(ids, s)  # type: ignore[misc]
    if importlib.util.find_spec("sglang") is not None:
        own = _inside("sglang.srt.sampling.watermarking.detector")
        one, two = own.WatermarkDetector("2a"), own.WatermarkDetector("2a", key_b="2b")
        found["SGLang WatermarkDetector"] = one.detect_tokens
        found["SGLang WatermarkDetector, two keys"] = two.detect_tokens
    if importlib.util.find_spec("sbw") is not None:
        import torch

        torch.compiler.set_stance("force_eager")  # else it compiles anew for each number of distinct tuples
        own = importlib.import_module("sbw.detector")
        for scheme in ("gpu-selfhash", "gpu-simple_1"):
            detector = own.WatermarkDetector(
                device=torch.device("cpu"),
                tokenizer=SimpleNamespace(bos_token_id=None),
                vocab=list(range(50_000)),
                seeding_scheme=scheme,
                normalizers=[],
            )
            found[f"sbw WatermarkDetector, {scheme}"] = lambda ids, d=detector: d.detect(  # type: ignore[misc]
                tokenized_text=torch.tensor(ids)
            )
    if importlib.util.find_spec("vllm") is not None:
        own = importlib.import_module("vllm.v1.watermarking")
        found["vLLM GumbelWatermarkDetector"] = own.GumbelWatermarkDetector(42).detect
        found["vLLM DualKeyGumbelWatermarkDetector"] = own.DualKeyGumbelWatermarkDetector(42).detect
    return found


def _inside(name: str) -> ModuleType:
    """A module of a package whose parents' own code is not run."""
    parts = name.split(".")
    spec = importlib.util.find_spec(parts[0])
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    for depth in range(1, len(parts)):
        parent = ModuleType(".".join(parts[:depth]))
        parent.__path__ = [str(folder.joinpath(*parts[1:depth]))]
        sys.modules.setdefault(parent.__name__, parent)
    return importlib.import_module(name)


def in_turn(texts: list[Any], work: Callable[[Any], object]) -> Step:
    """``work`` on the next of the texts at every call."""
    turn = iter(range(1 << 40))
    return lambda: work(texts[next(turn) % len(texts)])


@click.command()
@click.option("--tokens", "sizes", multiple=True, type=int, default=(OWN_TOKENS, 65_000), show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Time for each figure.")
@threads_option
@quick_option
@json_option
def main(sizes: tuple[int, ...], seconds: float, threads: int | None, quick: bool, json_path: Path | None) -> None:
    """Time the scoring of formats against the systems' own detectors."""
    rounds = 200
    if quick:
        sizes, rounds = (OWN_TOKENS,), 1
    encoder = Encoder.load(demo_model_dir())
    ids = encoder.encode_batch([text for kind in KINDS for _, text in natural_documents(kind, 3 if quick else 60)]).ids
    work: dict[str, tuple[Step, int]] = {}
    own = own_detectors()
    short = [piece.tolist() for piece in _stretches(ids, OWN_TOKENS)]
    for name, detect in own.items():
        work[name] = (in_turn(short, detect), OWN_TOKENS)
    for size in sizes:
        pieces = _stretches(ids, size)
        for name, fields in FORMATS:
            scheme: Format = load_format(name)(**fields)
            key = ForeignKey(name, scheme.draw_key(SEED))
            label = ", ".join([name, *(f"{value}" for value in fields.values()), f"texts of {size:,} tokens"])
            work[label] = (in_turn(pieces, lambda text, s=scheme, k=key: one_total(s, k, text)), size)  # type: ignore[misc]
    reference = TEXTSEAL if TEXTSEAL in work else next(iter(own or work))
    report = Report(
        f"Foreign marks that are drawn with hashes: tokens scored a second; x: multiples of {reference}",
        {**set_threads(threads or 1), "systems": ", ".join(sorted(own)) or "none found"},
        notes=[f"the systems' own detectors read texts of {OWN_TOKENS:,} tokens"],
    )
    found = timings({name: step for name, (step, _) in work.items()}, reference, seconds=seconds, rounds=rounds)
    base = work[reference][1]
    for name, timing in found.items():
        size = work[name][1]
        low, high = timing.ratio_quartiles
        report.add(
            work=name,
            tokens_a_second=1e3 * size / timing.milliseconds,
            x=size / base / timing.ratio,
            quartiles=(size / base / high, size / base / low),
            rounds=len(timing.seconds),
        )
    report.finish(json_path)


def _stretches(ids: U32, length: int) -> list[U32]:
    pieces = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    return [np.ascontiguousarray(piece) for piece in pieces]


if __name__ == "__main__":
    main()
