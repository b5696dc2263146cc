"""From tuples and a key to a tally: how many tuples, and the sum of their statistics in integer units.

Sums are integers, so the order of tuples, chunks and threads cannot change them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from detect.distinct import I64, Mask, Tuples
from watermark import prf
from watermark.keys import SecretKey
from watermark.laws import Exponential
from watermark.rowkeys import selector_threshold
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec

_CHUNK = 1 << 16  # tuples whose words stay in cache; small enough that no backend starts threads of its own
_WORTH_THREADS = 1 << 20  # words from which on starting threads pays


@dataclass(frozen=True, slots=True)
class Tally:
    """``n`` tuples (for h = 0: token types) whose statistics sum to ``total`` units."""

    n: int
    total: int


def as_drawn(scheme: Scheme, totals: npt.ArrayLike) -> npt.NDArray[Any]:
    """Integer totals as the scheme's law draws them, and as `detect.tails` takes them: nats for the exponential law."""
    sums = np.asarray(totals)
    return sums * scheme.unit if isinstance(scheme.law, Exponential) else sums


def words_of(key: SecretKey, tuples: Tuples) -> prf.U32:
    """The words of the tuples under one key, shape (n,)."""
    nonces = tuples.nonces(prf.context_key_words(key, tuples.width))
    return prf.words_at(key.words, nonces, tuples.tokens)


def statistics_of(scheme: Scheme, key: SecretKey, tuples: Tuples) -> I64:
    """The statistic of each tuple under one key in integer units, shape (n,)."""
    return scheme.statistic(words_of(key, tuples))


def totals(scheme: Scheme, keys: Sequence[SecretKey], tuples: Tuples) -> I64:
    """Sum of count times statistic over all tuples, for each key: shape (len(keys),).

    Work is cut into chunks that stay in cache and spread over threads; memory does not grow with the number of keys.
    """
    chunks = [tuples.take(slice(start, start + _CHUNK)) for start in range(0, len(tuples), _CHUNK)]
    score = partial(_chunk_totals, scheme, keys)
    nothing = np.zeros(len(keys), dtype=np.int64)
    threads = min(numba.get_num_threads(), len(chunks))
    if threads < 2 or len(tuples) * len(keys) < _WORTH_THREADS:
        return sum(map(score, chunks), start=nothing)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(score, chunks), start=nothing)


def _chunk_totals(scheme: Scheme, keys: Sequence[SecretKey], tuples: Tuples) -> I64:
    tokens = tuples.tokens
    shared = tuples.nonces(None) if tuples.width <= prf.NONCE_WORDS else None
    sums = np.empty(len(keys), dtype=np.int64)
    for i, key in enumerate(keys):
        nonces = tuples.nonces(prf.context_key_words(key, tuples.width)) if shared is None else shared
        statistic = scheme.statistic(prf.words_at(key.words, nonces, tokens))
        sums[i] = statistic.sum() if tuples.width else statistic @ tuples.counts
    return sums


def global_contexts(spec: WatermarkSpec, selector: SecretKey, tuples: Tuples) -> Mask:
    """Which tuples the global key marks, (n,) bool; the tenant's key marks the others."""
    return global_among(spec, selector, len(tuples), tuples.nonces)


def global_among(
    spec: WatermarkSpec, selector: SecretKey, count: int, nonces: Callable[[prf.U32 | None], prf.U32]
) -> Mask:
    """Which of ``count`` contexts the global key marks, (count,) bool; ``nonces`` gives theirs for a context key."""
    threshold = selector_threshold(spec)
    if threshold in (0, 2**32):
        return np.full(count, threshold > 0)
    of_contexts = nonces(prf.context_key_words(selector, spec.context_width))
    words: npt.NDArray[np.uint32] = prf.words_at(selector.words, of_contexts, np.zeros(count, dtype=np.uint32))
    return words < np.uint32(threshold)
