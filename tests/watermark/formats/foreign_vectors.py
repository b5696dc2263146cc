"""Words that other systems' own code gave, and the tuples that they were asked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "foreign_formats_permutation.json").read_text())
SMALL = VECTORS["small"]


def tuples(count: int, width: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Contexts (count, width) and tokens (count,): SplitMix64 of 0, 1, 2, ... modulo the vocabulary, row by row."""
    z = np.arange(1, count * (width + 1) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    ids = ((z ^ (z >> np.uint64(31))) % np.uint64(vocabulary)).astype(np.int64).reshape(count, width + 1)
    return ids[:, :width], ids[:, width]


def cases(name: str) -> list[tuple[dict, int, dict]]:
    """Parameters, key and expectation of each vector of a format."""
    vectors = VECTORS["formats"][name]
    return [({"vocabulary_size": VECTORS["vocabulary_size"]} | v["parameters"], v["key"], v) for v in vectors]


def check(scheme, key: int, vector: dict) -> None:
    """The format gives the words that the system gave, on all the vector's tuples."""
    width = scheme.context_width
    if "grid" in vector:
        contexts, vocabulary = vector["grid"]
        context = np.repeat(np.arange(contexts), vocabulary)[:, None][:, :width]
        token = np.tile(np.arange(vocabulary), contexts)
    else:
        context, token = tuples(vector["tuples"], width, scheme.vocabulary_size)
    words = scheme.words((key,), context, token)
    assert words.dtype == np.uint32
    if getattr(scheme, "keyless_seed", None) is not None:  # there we differ on purpose
        seeds = scheme.seeds((key,), context, token)
        known = words[seeds != scheme.keyless_seed]
        words = scheme.is_green(seeds, token).astype(np.uint32)
        assert (known == words[seeds != scheme.keyless_seed]).all()
    assert words[:20].tolist() == vector["first"]
    assert int(words.sum(dtype=np.int64)) == vector["sum"]
    assert hashlib.sha256(words.astype("<u4").tobytes()).hexdigest() == vector["sha256"]


def one_group(inputs: np.ndarray, words: np.ndarray) -> bool:
    """Whether tuples of one input have one word."""
    _, first, inverse = np.unique(inputs, return_index=True, return_inverse=True)
    return bool((words[first][inverse] == words).all())
