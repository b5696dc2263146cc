"""Schemes fused with the primitive over whole vocabulary rows, for logits in main memory.

The words of 256 tokens at a time are made in cache and used at once. A tile whose words cannot matter is skipped: one
whose logits are all -inf (top-k and top-p leave few alive), or, for `gumbel`, one that cannot beat the best so far.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from watermark.backends.numba_backend import TILE, contiguous, jit, tile_words, words_span
from watermark.chacha import U32

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_SPAN = 16 * TILE  # tokens per parallel task
# -log(-log u) <= -log(1 - u) <= 33 log 2 for every 32-bit word; rounded up for float32 arithmetic.
_LARGEST_RACE = np.float32(22.875)
_LOG2 = np.float32(math.log(2.0) * (1 + 1e-6))
# Below this share of live entries a row is gathered before its tournament.
_SPARSE = 8


def _float32(logits: torch.Tensor) -> F32:
    array: F32 = logits.detach().to(torch.float32).contiguous().numpy()
    return array


@jit(parallel=True)
def _green_list(logits: F32, keys: U32, nonces: U32, threshold: np.uint32, delta: np.float32, out: F32) -> None:
    rows, vocabulary = logits.shape
    tasks = (vocabulary + _SPAN - 1) // _SPAN
    for task in numba.prange(rows * tasks):
        row, span = task // tasks, task % tasks
        words = np.empty(TILE, dtype=np.uint32)
        for start in range(span * _SPAN, min(vocabulary, (span + 1) * _SPAN), TILE):
            tile_words(keys[row], nonces[row], start // TILE, words)
            stop = min(vocabulary, start + TILE)
            before, after = logits[row, start:stop], out[row, start:stop]
            for i in range(stop - start):
                after[i] = before[i] + (delta if words[i] < threshold else np.float32(0))


def green_list(logits: torch.Tensor, keys: U32, nonces: U32, threshold: int, delta: float) -> torch.Tensor:
    """See `watermark.backends.rows.green_list`."""
    before = _float32(logits)
    out = np.empty_like(before)
    _green_list(before, contiguous(keys), contiguous(nonces.T), np.uint32(threshold), np.float32(delta), out)
    return torch.from_numpy(out)


@jit(inline="always")
def _race(logit: float, word: int) -> float:
    """logit - log(-log u), u = (word + 1/2) / 2^32, in float64."""
    return logit - math.log(-math.log((np.float64(word) + 0.5) / 4294967296.0))


@intrinsic  # type: ignore[untyped-decorator]
def _leading_zeros(typing: Any, word: Any) -> Any:
    """Zeros above the highest set bit of a uint32 (32 for 0)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint32(types.uint32), generate


@jit()
def _count_above(logits: F32, limit: float) -> int:
    """How many logits exceed ``limit``. LLVM vectorises counts but neither searches nor maxima."""
    floor = np.float32(limit)
    count = 0
    for i in range(len(logits)):
        count += logits[i] > floor
    return count


@jit()
def _count_bound_above(logits: F32, words: U32, best: float) -> int:
    """How many races may exceed ``best``, by an upper bound without logarithms.

    -log(-log u) <= -log(1 - u), and 1 - u = (~word + 1/2) / 2^32 is at least 2^(-1 - leading zeros of ~word).
    """
    floor = np.float32(best) - _LOG2
    count = 0
    for i in range(len(logits)):
        zeros = np.float32(np.int32(_leading_zeros(~words[i])))
        count += logits[i] + zeros * _LOG2 >= floor
    return count


@jit(parallel=True)
def _gumbel(logits: F32, keys: U32, nonces: U32, tasks: int, races: npt.NDArray[np.float64], choices: I64) -> None:
    rows, vocabulary = logits.shape
    span = (vocabulary + tasks * TILE - 1) // (tasks * TILE) * TILE
    for task in numba.prange(rows * tasks):
        row, part = task // tasks, task % tasks
        words = np.empty(TILE, dtype=np.uint32)
        best, choice = -np.inf, -1
        for start in range(part * span, min(vocabulary, (part + 1) * span), TILE):
            stop = min(vocabulary, start + TILE)
            tile = logits[row, start:stop]
            if _count_above(tile, best - _LARGEST_RACE) == 0:
                continue
            tile_words(keys[row], nonces[row], start // TILE, words)
            if _count_bound_above(tile, words, best) == 0:
                continue
            for i in range(len(tile)):
                race = _race(tile[i], words[i])
                if race > best:
                    best, choice = race, start + i
        races[row, part], choices[row, part] = best, choice


def gumbel_choices(logits: torch.Tensor, keys: U32, nonces: U32) -> torch.Tensor:
    """See `watermark.backends.rows.gumbel_choices`."""
    before = _float32(logits)
    tasks = max(1, numba.get_num_threads() * 2 // len(before))
    races = np.empty((len(before), tasks))
    choices = np.empty((len(before), tasks), dtype=np.int64)
    _gumbel(before, contiguous(keys), contiguous(nonces.T), tasks, races, choices)
    best = choices[:, 0] if tasks == 1 else np.take_along_axis(choices, races.argmax(1)[:, None], 1)[:, 0]
    return torch.from_numpy(best)


def gumbel(logits: torch.Tensor, keys: U32, nonces: U32) -> torch.Tensor:
    """See `watermark.backends.rows.gumbel`."""
    out = torch.full(logits.shape, -torch.inf)
    return out.scatter_(-1, gumbel_choices(logits, keys, nonces)[:, None], 0.0)


@jit(fastmath={"reassoc", "contract", "nsz", "nnan"})
def _two_layers(
    p: F32,
    words: U32,
    low: np.uint32,
    high: np.uint32,
    factors: F32,
    next_low: np.uint32,
    next_high: np.uint32,
) -> tuple[np.float32, np.float32, np.float32]:
    """Multiply p by the factor that its bits ``low`` and ``high`` select, and return the next pair's three moments."""
    f00, f01, f10, f11 = factors[0], factors[1], factors[2], factors[3]
    zero = np.float32(0)
    a = b = c = zero
    for i in range(len(p)):
        word = words[i]
        updated = p[i] * ((f11 if word & high else f10) if word & low else (f01 if word & high else f00))
        p[i] = updated
        n1, n2 = word & next_low, word & next_high
        a += updated if n1 else zero
        b += updated if n2 else zero
        c += updated if (n1 != 0) & (n2 != 0) else zero
    return a, b, c


@jit()
def tournament_layers(p: F32, words: U32, depth: int) -> None:
    """All layers of the tournament on one distribution, in place: p and words (k,).

    Two layers to a pass. With a = sum p g1, b = sum p g2 and c = sum p g1 g2, layer 1 has mean a and layer 2, whose
    distribution is p (1 + g1 - a), has mean (1 - a) b + c; so the pass that applies one pair also sums the next pair's
    three moments. An odd depth ends with a layer whose g is 0 everywhere, which changes nothing.
    """
    factors = np.ones(4, dtype=np.float32)
    low = high = np.uint32(0)
    for layer in range(0, depth + 2, 2):
        next_low = np.uint32(1 << layer) if layer < depth else np.uint32(0)
        next_high = np.uint32(1 << (layer + 1)) if layer + 1 < depth else np.uint32(0)
        a = b = c = 0.0
        for start in range(0, len(p), _SPAN):  # float64 between spans keeps the moments accurate over 128k entries
            stop = min(len(p), start + _SPAN)
            moments = _two_layers(p[start:stop], words[start:stop], low, high, factors, next_low, next_high)
            a, b, c = a + moments[0], b + moments[1], c + moments[2]
        mean = (1 - a) * b + c
        lost, lost_next = max(0.0, 1 - a), max(0.0, 1 - mean)  # rounding may put a mean above 1
        factors[0], factors[1] = lost * lost_next, lost * (2 - mean)
        factors[2], factors[3] = (2 - a) * lost_next, (2 - a) * (2 - mean)
        low, high = next_low, next_high


@jit(parallel=True)
def _tournament_dense(p: F32, keys: U32, nonces: U32, depth: int) -> None:
    rows, vocabulary = p.shape
    tiles = (vocabulary + TILE - 1) // TILE
    for row in numba.prange(rows):
        words = np.empty(tiles * TILE, dtype=np.uint32)
        for tile in range(tiles):
            tile_words(keys[row], nonces[row], tile, words[tile * TILE : (tile + 1) * TILE])
        tournament_layers(p[row], words[:vocabulary], depth)


@jit()
def _tournament_row(logits: F32, tokens: U32, key: U32, nonce_words: U32, depth: int, out: F32) -> None:
    """Log-probabilities of k candidates after all layers: logits, tokens and out (k,), -inf where excluded."""
    k = len(tokens)
    nonce = np.empty((3, k), dtype=np.uint32)
    p = np.empty(k, dtype=np.float32)
    highest = np.float32(-np.inf)
    for i in range(k):
        highest = max(highest, logits[i])
    for i in range(k):
        nonce[:, i] = nonce_words
        p[i] = math.exp(logits[i] - highest)
    p /= p.sum()
    words = np.empty(k, dtype=np.uint32)
    words_span(key, nonce, tokens, words, 0, k)
    tournament_layers(p, words, depth)
    for i in range(k):
        out[i] = math.log(p[i]) if p[i] > 0 else -np.inf


@jit()
def _sparse_row(logits: F32, live: int, key: U32, nonce_words: U32, depth: int, out: F32) -> None:
    tokens = np.empty(live, dtype=np.uint32)
    few = np.empty(live, dtype=np.float32)
    found = 0
    for start in range(0, len(logits), TILE):
        tile = logits[start : start + TILE]
        if _count_above(tile, -np.inf) > 0:
            for i in range(len(tile)):
                if tile[i] > -np.inf:
                    tokens[found], few[found] = start + i, tile[i]
                    found += 1
    marked = np.empty(live, dtype=np.float32)
    _tournament_row(few, tokens, key, nonce_words, depth, marked)
    for i in range(live):
        out[tokens[i]] = marked[i]


@jit(parallel=True)
def _tournament_sparse(logits: F32, live: I64, keys: U32, nonces: U32, depth: int, out: F32) -> None:
    for row in numba.prange(len(logits)):
        _sparse_row(logits[row], live[row], keys[row], nonces[row], depth, out[row])


@jit(parallel=True)
def _live(logits: F32) -> I64:
    counts = np.empty(len(logits), dtype=np.int64)
    for row in numba.prange(len(logits)):
        counts[row] = _count_above(logits[row], -np.inf)
    return counts


def tournament(logits: torch.Tensor, keys: U32, nonces: U32, depth: int) -> torch.Tensor:
    """See `watermark.backends.rows.tournament`."""
    before = _float32(logits)
    keys, by_row = contiguous(keys), contiguous(nonces.T)
    live = _live(before)
    if live.max() * _SPARSE < before.shape[1]:
        out = np.full_like(before, -np.inf)
        _tournament_sparse(before, live, keys, by_row, depth, out)
        return torch.from_numpy(out)
    p = torch.from_numpy(before).softmax(-1)
    _tournament_dense(p.numpy(), keys, by_row, depth)
    return p.log_()
