"""Makes ``foreign_formats_permutation.json`` with the systems' own code, which the tests themselves do without.

    PYTHONPATH=. python tests/watermark/vectors/make_foreign_formats_permutation.py FOLDER

FOLDER holds lm-watermarking's ``alternative_prf_schemes.py`` (commit 5b0e207), three_bricks' ``wm/`` (e7b7909), Text
Generation Inference's ``server/text_generation_server/utils/watermark.py`` (05e9a79) as ``tgi_watermark.py``, and the
unpacked wheel of markllm 0.1.5. (The file at hand was made with the wheel itself, and with copies of the functions
concerned from the other three.) All permutations are torch's, on the CPU (2.13.0 for the file at hand). For each case
the file holds the first words, their sum and a SHA-256 of all as little-endian uint32; ``small`` came with the formats'
definitions, from transformers, lm-watermarking and three_bricks as well.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.watermark.formats.foreign_vectors import tuples

FILE = Path(__file__).with_name("foreign_formats_permutation.json")
SHOWN = 20
SIZE, TUPLES, FEWER = 1000, 100_000, 20_000
KEY, OTHER_KEY, LARGE_KEY = 15485863, 7046029254386353131, 2**63 + 12345

Vector = dict[str, Any]


def vector(words: Iterable[Any], **facts: Any) -> Vector:
    array = np.array(list(words)).astype("<u4")
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return facts | {"sum": int(array.sum(dtype=np.int64)), "first": array[:SHOWN].tolist(), "sha256": digest}


@lru_cache(maxsize=5000)
def permuted(seed: int) -> np.ndarray:
    """Where each token stands in ``randperm``."""
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(seed))
    return order.argsort().numpy()


@lru_cache(maxsize=5000)
def drawn(seed: int) -> np.ndarray:
    return (torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)).double() * 2**24).numpy()


def lm_watermarking() -> list[Vector]:
    functions = importlib.import_module("alternative_prf_schemes").prf_lookup

    def case(function: str, width: int, salted: bool, scheme: str, *, key: int, count: int, tail: bool) -> Vector:
        contexts, tokens = tuples(count, width - salted, SIZE)
        windows = torch.from_numpy(np.column_stack([contexts, tokens]) if salted else contexts)
        gamma = 0.5 if tail else 0.25
        words = []
        for window, token in zip(windows, tokens.tolist(), strict=True):
            rank = permuted(functions[function](window, salt_key=key) % (2**64 - 1))[token]
            words.append(rank >= SIZE - int(SIZE * gamma) if tail else rank < int(SIZE * gamma))
        fields = {"seeding_scheme": scheme, "gamma": gamma, "tail": tail}
        return vector(words, parameters=fields, key=key, tuples=count)

    named = {
        "simple_1": ("additive_prf", 1, False),
        "selfhash": ("anchored_minhash_prf", 4, True),
        "minhash": ("minhash_prf", 4, False),
        "skipgram": ("skipgram_prf", 5, False),
    }
    out = [case(*named[scheme], scheme, key=KEY, count=TUPLES, tail=False) for scheme in named]
    out.append(case(*named["simple_1"], "simple_1", key=KEY, count=TUPLES, tail=True))
    for number, function in enumerate(functions):
        salted = number % 2 == 1
        scheme = f"ff-{function}-3-{salted}"
        out.append(case(function, 3, salted, scheme, key=OTHER_KEY, count=FEWER, tail=False))
    return out


def tgi() -> list[Vector]:
    system = importlib.import_module("tgi_watermark").WatermarkLogitsProcessor()
    heads = {p: set(system._get_greenlist_ids([p], SIZE, torch.device("cpu")).tolist()) for p in range(SIZE)}
    contexts, tokens = tuples(TUPLES, 1, SIZE)
    pairs = zip(contexts[:, 0].tolist(), tokens.tolist(), strict=True)
    return [vector((token in heads[previous] for previous, token in pairs), parameters={}, key=KEY, tuples=TUPLES)]


def three_bricks(word: Callable[[int, int], Any]) -> list[Vector]:
    get_seed = importlib.import_module("wm.detector").WmDetector.get_seed_rng
    out = []
    for key, width, payload, count in ((0, 1, 0, TUPLES), (KEY, 2, 0, FEWER), (LARGE_KEY, 4, 7, FEWER)):
        system = SimpleNamespace(seeding="hash", seed=key, salt_key=35317)
        contexts, tokens = tuples(count, width, SIZE)
        rows = zip(contexts.tolist(), tokens.tolist(), strict=True)
        words = [word(get_seed(system, window), (token + payload) % SIZE) for window, token in rows]
        out.append(vector(words, parameters={"context_width": width, "payload": payload}, key=key, tuples=count))
    return out


def markllm_settings(**fields: Any) -> SimpleNamespace:
    common = {"gamma": 0.5, "hash_key": KEY, "vocab_size": SIZE, "device": "cpu", "prefix_length": 1}
    return SimpleNamespace(**(common | {"f_scheme": "time", "window_scheme": "left"} | fields))


def markllm_kgw() -> list[Vector]:
    system = importlib.import_module("markllm.watermark.kgw.kgw").KGWUtils
    out = []
    for function, width, count in (
        ("time", 1, TUPLES),
        ("time", 3, FEWER),
        ("additive", 2, FEWER),
        ("skip", 2, FEWER),
        ("min", 2, FEWER),
    ):
        own = system(markllm_settings(f_scheme=function, prefix_length=width))
        heads = lru_cache(maxsize=5000)(
            lambda window, own=own: set(own.get_greenlist_ids(torch.tensor(window)).tolist())
        )
        contexts, tokens = tuples(count, width, SIZE)
        rows = zip(contexts.tolist(), tokens.tolist(), strict=True)
        words = [token in heads(tuple(window)) for window, token in rows]
        fields = {"context_width": width, "f_scheme": function}
        out.append(vector(words, parameters=fields, key=KEY, tuples=count))
    # One call takes a permutation for every token, so here are few contexts and all tokens of each.
    own = system(markllm_settings(window_scheme="self", gamma=0.25))
    lists = [set(own.get_greenlist_ids(torch.tensor([previous]))) for previous in range(100)]
    words = [token in head for head in lists for token in range(SIZE)]
    out.append(vector(words, parameters={"window_scheme": "self", "gamma": 0.25}, key=KEY, grid=[100, SIZE]))
    return out


def markllm_unigram() -> list[Vector]:
    system = importlib.import_module("markllm.watermark.unigram.unigram").UnigramUtils
    out = []
    for key, size, gamma in ((KEY, SIZE, 0.5), (0, SIZE, 0.5), (2**62 + 5, SIZE, 0.5), (KEY, TUPLES, 0.25)):
        mask = system(markllm_settings(hash_key=key, vocab_size=size, gamma=gamma)).mask
        out.append(vector(mask, parameters={"vocabulary_size": size, "gamma": gamma}, key=key, grid=[1, size]))
    return out


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    torch.set_num_threads(1)
    formats = {
        "lm-watermarking": lm_watermarking(),
        "tgi": tgi(),
        "three-bricks": three_bricks(lambda seed, token: permuted(seed)[token] < SIZE // 2),
        "three-bricks-gumbel": three_bricks(lambda seed, token: drawn(seed)[token]),
        "markllm-kgw": markllm_kgw(),
        "markllm-unigram": markllm_unigram(),
    }
    data = json.loads(FILE.read_text()) | {"vocabulary_size": SIZE, "formats": formats}
    lines = [f"{json.dumps(name)}: {json.dumps(data[name])}" for name in ("vocabulary_size", "small")]
    for name, vectors in formats.items():
        rows = ",\n".join(f"   {json.dumps(entry)}" for entry in vectors)
        lines.append(f"{json.dumps(name)}: [\n{rows}\n  ]")
    head, body = ",\n ".join(lines[:2]), ",\n  ".join(lines[2:])
    FILE.write_text(f'{{\n {head},\n "formats": {{\n  {body}\n }}\n}}\n')


if __name__ == "__main__":
    main(sys.argv[1])
