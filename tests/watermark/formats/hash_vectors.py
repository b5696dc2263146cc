"""What the systems' own code gave for many tuples, and how a format is held against it."""

from __future__ import annotations

import json

import numpy as np

from tests.watermark.vectors.make_foreign_formats_hash import CASES, FILE, document, summary, tuples_of

HELD = json.loads(FILE.read_text())
DETECTIONS = HELD["detections"]
GENERATIONS = HELD["generations"]
FIRST_KEY, SECOND_KEY = bytes(32), bytes(31) + b"\1"


def cases(name: str) -> list:
    """The cases of a format as parameters of a test."""
    import pytest

    return [pytest.param(*case, id=case[0]) for case in CASES[name]]


def check(scheme, name: str, case: str, key: tuple[int, ...], width: int) -> None:
    """The format gives the words that the system gave, on all tuples of the case."""
    contexts, tokens = tuples_of(name, case, width)
    assert scheme.context_width == width
    words = scheme.words(key, contexts, tokens)
    if words.dtype == np.uint64:
        words = np.stack([words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)], axis=-1)
    assert summary(words.astype(np.uint32)) == HELD["words"][name][case]


def windows(ids: list[int], width: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Contexts and tokens at the positions from ``first`` on, with -1 before the beginning."""
    padded = np.concatenate([np.full(width, -1), ids])
    grams = np.lib.stride_tricks.sliding_window_view(padded, width + 1)[first:]
    return grams[:, :-1], grams[:, -1]


def first_of_each(rows: np.ndarray) -> np.ndarray:
    """Sorted indices of the first occurrence of each row."""
    return np.sort(np.unique(rows, axis=0, return_index=True)[1])


def nats(scheme, key: tuple[int, ...], contexts: np.ndarray, tokens: np.ndarray) -> float:
    """The total score."""
    return int(scheme.statistic(scheme.words(key, contexts, tokens)).sum()) * scheme.unit


def log10_pvalue(scheme, key: tuple[int, ...], contexts: np.ndarray, tokens: np.ndarray) -> float:
    """By the law, each context once, as the engines mark it."""
    from detect.laws.tails import log10_sf

    once = first_of_each(contexts)
    return log10_sf(scheme.law, len(once), nats(scheme, key, contexts[once], tokens[once]))


def null_pvalues(scheme, contexts: np.ndarray, tokens: np.ndarray, keys: int) -> np.ndarray:
    """p-values of the law for tuples that no key marked, under fresh keys; each key's distinct inputs count once."""
    from detect.laws.tails import log10_sf_many

    by_count: dict[int, list[int]] = {}
    for number in range(keys):
        key = scheme.draw_key(number.to_bytes(32, "little"))
        once = np.sort(np.unique(scheme.inputs(key, contexts, tokens), return_index=True)[1])
        total = int(scheme.statistic(scheme.words(key, contexts[once], tokens[once])).sum())
        by_count.setdefault(len(once), []).append(total)
    scale = scheme.unit if scheme.unit < 1 else 1
    return np.concatenate([10 ** log10_sf_many(scheme.law, n, np.array(t) * scale) for n, t in by_count.items()])


__all__ = ["DETECTIONS", "FIRST_KEY", "GENERATIONS", "HELD", "SECOND_KEY", "document"]
