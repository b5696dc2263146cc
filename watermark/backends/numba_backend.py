"""The primitive in numba, 16 ChaCha blocks at a time in SIMD lanes; the default for arrays in main memory.

LLVM does not vectorise a plain loop over blocks, so two intrinsics emit the cipher on vectors of 16 lanes directly;
LLVM lowers them to AVX-512, AVX2, SSE or NEON as the machine has it. Everything else is ordinary numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from watermark.backends.machine_code import keep
from watermark.chacha import BLOCK_WORDS, CONSTANTS, MISSING, QUARTER_ROUNDS, ROUNDS, U32

I64 = npt.NDArray[np.int64]

LANES = 16
TILE = LANES * BLOCK_WORDS  # the tokens that one call of `tile_words` covers
_PARALLEL_FROM = 1 << 17  # tuples; callers that thread over smaller chunks must never start threads within threads
_SPAN = 1 << 12  # tuples per parallel task

_i32 = ir.IntType(32)
_vector = ir.VectorType(_i32, LANES)


def _splat(value: int) -> ir.Constant:
    return ir.Constant(_vector, [value] * LANES)


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    undefined = ir.Constant(_vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_i32, 0))
    return builder.shuffle_vector(first, undefined, _splat(0))


def _load_words(builder: ir.IRBuilder, address: ir.Value, count: int) -> list[ir.Value]:
    """Load ``count`` consecutive words, each broadcast to all lanes."""
    pointer = builder.inttoptr(address, _i32.as_pointer())
    return [_broadcast(builder, builder.load(builder.gep(pointer, [ir.Constant(_i32, i)]))) for i in range(count)]


def _load_lanes(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    load = builder.load(builder.inttoptr(address, _vector.as_pointer()))
    load.align = 4
    return load


def _store_lanes(builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    builder.store(value, builder.inttoptr(address, _vector.as_pointer())).align = 4


def _chacha_lanes(builder: ir.IRBuilder, state: list[ir.Value]) -> list[ir.Value]:
    """Emit 16 blocks, one per lane: state and result are 16 vectors, one per state word."""
    name = f"llvm.fshl.v{LANES}i32"
    rotate = builder.module.globals.get(name)
    if rotate is None:
        rotate = ir.Function(builder.module, ir.FunctionType(_vector, [_vector] * 3), name)
    x = list(state)
    for _ in range(ROUNDS // 2):
        for a, b, c, d in QUARTER_ROUNDS:
            for add_to, add, turn, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[add_to] = builder.add(x[add_to], x[add])
                mixed = builder.xor(x[turn], x[add_to])
                x[turn] = builder.call(rotate, [mixed, mixed, _splat(bits)])
    return [builder.add(after, before) for after, before in zip(x, state, strict=True)]


def _transpose(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Transpose 16 vectors of 16 lanes by swapping ever smaller off-diagonal squares (Eklundh 1972)."""
    rows = list(rows)
    for bit in (8, 4, 2, 1):
        keep_low = [i if not i & bit else LANES + i - bit for i in range(LANES)]
        keep_high = [i + bit if not i & bit else LANES + i for i in range(LANES)]
        for low in (i for i in range(LANES) if not i & bit):
            a, b = rows[low], rows[low | bit]
            rows[low] = builder.shuffle_vector(a, b, ir.Constant(_vector, keep_low))
            rows[low | bit] = builder.shuffle_vector(a, b, ir.Constant(_vector, keep_high))
    return rows


@intrinsic  # type: ignore[untyped-decorator]
def _lane_words(typing: Any, key: Any, n0: Any, n1: Any, n2: Any, tokens: Any, out: Any) -> Any:
    """16 tuples: addresses of 8 key words and of 16 each of nonce words, tokens and results."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        token = _load_lanes(builder, args[4])
        state = [_splat(c) for c in CONSTANTS] + _load_words(builder, args[0], 8)
        state += [builder.lshr(token, _splat(4))] + [_load_lanes(builder, a) for a in args[1:4]]
        words = _chacha_lanes(builder, state)
        for bit in (1, 2, 4, 8):  # a tree of selects picks word `token & 15` in each lane
            odd = builder.icmp_unsigned("!=", builder.and_(token, _splat(bit)), _splat(0))
            words = [builder.select(odd, words[i + 1], words[i]) for i in range(0, len(words), 2)]
        _store_lanes(builder, words[0], args[5])
        return context.get_dummy_value()

    return types.void(*[types.uintp] * 6), generate


@intrinsic  # type: ignore[untyped-decorator]
def _tile_words(typing: Any, key: Any, nonce: Any, counter: Any, out: Any) -> Any:
    """256 neighbouring tokens: addresses of 8 key words, 3 nonce words, 256 results; the first block's counter."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        counters = builder.add(_broadcast(builder, args[2]), ir.Constant(_vector, list(range(LANES))))
        state = [_splat(c) for c in CONSTANTS] + _load_words(builder, args[0], 8)
        state += [counters, *_load_words(builder, args[1], 3)]
        blocks = _transpose(builder, _chacha_lanes(builder, state))
        for i, block in enumerate(blocks):
            _store_lanes(builder, block, builder.add(args[3], ir.Constant(args[3].type, 4 * LANES * i)))
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.uint32, types.uintp), generate


def jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` that releases the interpreter lock and keeps its machine code on disk, where that is possible."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = numba.njit(nogil=True, **options)(function)
        keep(made)
        return made

    return decorate


@jit(inline="always")
def tile_words(key: U32, nonce: U32, tile: int, out: U32) -> None:
    """Fill out (256,) with the words of tokens 256*tile onward: key (8,), nonce (3,), all contiguous."""
    _tile_words(key.ctypes.data, nonce.ctypes.data, np.uint32(tile * LANES), out.ctypes.data)


@jit()
def words_span(key: U32, nonce: U32, tokens: U32, out: U32, start: int, stop: int) -> None:
    """Fill out[start:stop] with the words of those tuples, on the calling thread: nonce (3, n), tokens and out (n,)."""
    address = out.ctypes.data
    whole = start + (stop - start) // LANES * LANES
    n0, n1, n2 = nonce[0].ctypes.data, nonce[1].ctypes.data, nonce[2].ctypes.data
    for i in range(start, whole, LANES):
        o = 4 * i
        _lane_words(key.ctypes.data, n0 + o, n1 + o, n2 + o, tokens.ctypes.data + o, address + o)
    if whole < stop:
        rest = stop - whole
        lanes = np.zeros((5, LANES), dtype=np.uint32)
        lanes[:3, :rest] = nonce[:, whole:stop]
        lanes[3, :rest] = tokens[whole:stop]
        base = lanes.ctypes.data
        row = 4 * LANES
        _lane_words(key.ctypes.data, base, base + row, base + 2 * row, base + 3 * row, base + 4 * row)
        out[whole:stop] = lanes[4, :rest]


@jit(parallel=True)
def _words_at_parallel(key: U32, nonce: U32, tokens: U32, out: U32) -> None:
    n = len(tokens)
    for task in numba.prange((n + _SPAN - 1) // _SPAN):
        words_span(key, nonce, tokens, out, task * _SPAN, min(n, (task + 1) * _SPAN))


def words_at(key: U32, nonce: U32, tokens: U32) -> U32:
    """See `watermark.prf.words_at`."""
    key, nonce, tokens = contiguous(key), contiguous(nonce), contiguous(tokens)
    out = np.empty(len(tokens), dtype=np.uint32)
    if len(tokens) < _PARALLEL_FROM:
        words_span(key, nonce, tokens, out, 0, len(tokens))
    else:
        _words_at_parallel(key, nonce, tokens, out)
    return out


@jit()
def _words_among(keys: U32, nonce: U32, tokens: U32, out: U32) -> None:
    k = tokens.shape[1]
    repeated = np.empty((3, k), dtype=np.uint32)
    for row in range(len(tokens)):
        for word in range(3):
            repeated[word, :] = nonce[word, row]
        words_span(keys[row], repeated, tokens[row], out[row], 0, k)


def words_among(keys: U32, nonce: U32, tokens: U32) -> U32:
    """See `watermark.prf.words_among`."""
    out = np.empty(tokens.shape, dtype=np.uint32)
    _words_among(contiguous(keys), contiguous(nonce), contiguous(tokens), out)
    return out


@jit()
def _owned_keys(contexts: I64, selector: U32, threshold: int, keys: U32, out: U32, nonces: U32) -> None:
    rows, width = contexts.shape
    for row in range(rows):
        for back in range(3):
            nonces[back, row] = contexts[row, width - 1 - back] if back < width else MISSING
    words = np.empty(rows, dtype=np.uint32)
    words_span(selector, nonces, np.zeros(rows, dtype=np.uint32), words, 0, rows)
    for row in range(rows):
        out[row] = keys[row, 1 if words[row] < threshold else 0]


def owned_keys(contexts: I64, selector: U32, threshold: int, keys: U32) -> tuple[U32, U32]:
    """`watermark.rowkeys.RowKeys.at` for contexts of at most three tokens, in one call.

    Parameters
    ----------
    contexts
        Shape (b, h), oldest token first.
    selector, threshold
        A context belongs to the second of a row's keys when the selector's word of token 0 is below the threshold.
    keys
        Shape (b, 2, 8).

    Returns
    -------
    Keys (b, 8) and nonces (3, b).
    """
    out = np.empty((len(contexts), 8), dtype=np.uint32)
    nonces = np.empty((3, len(contexts)), dtype=np.uint32)
    _owned_keys(np.ascontiguousarray(contexts), selector, threshold, contiguous(keys), out, nonces)
    return out, nonces


@jit(parallel=True)
def _words_rows(keys: U32, nonces: U32, out: U32) -> None:
    rows, vocabulary = out.shape
    tasks = (vocabulary + _SPAN - 1) // _SPAN
    for task in numba.prange(rows * tasks):
        row, span = task // tasks, task % tasks
        tile = np.empty(TILE, dtype=np.uint32)
        for start in range(span * _SPAN, min(vocabulary, (span + 1) * _SPAN), TILE):
            tile_words(keys[row], nonces[row], start // TILE, tile)
            stop = min(vocabulary, start + TILE)
            out[row, start:stop] = tile[: stop - start]


def words_rows(keys: U32, nonce: U32, vocabulary: int) -> U32:
    """See `watermark.prf.words_rows`."""
    out = np.empty((len(keys), vocabulary), dtype=np.uint32)
    _words_rows(contiguous(keys), contiguous(nonce.T), out)
    return out


def contiguous(array: U32) -> U32:
    """The array as the kernels read it: uint32 without gaps."""
    return np.ascontiguousarray(array, dtype=np.uint32)
