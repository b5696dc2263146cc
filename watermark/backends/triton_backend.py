"""The primitive in Triton, alone and fused with each scheme's arithmetic over whole vocabulary rows.

Importing this module imports Triton; `watermark.backends.rows` does so only for logits outside main memory.
With ``TRITON_INTERPRET=1`` in the environment before Triton is imported, the kernels run on the CPU, slowly,
for tests.

How tokens meet lanes: one lane computes one cipher block, and so holds the words of 16 neighbouring tokens.
Were it to load and store those 16 logits too, neighbouring lanes would touch addresses 64 bytes apart, and a
store would reach memory in 16 partial writes. So logits are addressed in the order of the tokens, which
Triton turns into coalesced accesses of 16 bytes a lane, and words cross over to that order through shared
memory (`_words_in_order`); `_green_list` lets one bit a token cross instead.

Keys (b, 8) and nonces (3, b) are int32 tensors that hold 32 bits. Nothing here waits for the device.
"""

# Device code takes no annotations but Triton's own.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl

from watermark.chacha import BLOCK_WORDS, CONSTANTS, ROUNDS

_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)

# One block for each thread of four warps: 2,048 tokens a program, so that one row of 128k makes 63 programs.
_LANES = 128
_TILE = _LANES * BLOCK_WORDS
# Fused multiply-adds are asked for by name: Triton warns where they are left to its default.
_OPTIONS = {"LANES": _LANES, "num_warps": _LANES // 32, "enable_fp_fusion": True}
# Layers of a tournament that share one pass over the row: a pass sums 2^layers classes of tokens.
_LAYERS = 4

# A kernel may read no other globals than constexprs.
_C0, _C1, _C2, _C3 = (tl.constexpr(constant) for constant in CONSTANTS)
_DOUBLE_ROUNDS = tl.constexpr(ROUNDS // 2)
_CLASSES = tl.constexpr(2**_LAYERS)


def serves(logits: torch.Tensor) -> bool:
    """Whether the kernels take these logits: floats on a GPU that Triton compiles for (or interpreted)."""
    if logits.dtype not in _FLOATS:
        return False
    if logits.is_cuda:
        return torch.version.hip is not None or torch.cuda.get_device_capability(logits.device) >= (7, 0)
    return _INTERPRETED and logits.device.type == "cpu"


def words_among(keys: torch.Tensor, nonces: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Words of given candidates: keys (b, 8), nonces (3, b), tokens (b, k) -> (b, k) int64 in [0, 2^32)."""
    rows, count = tokens.shape
    out = torch.empty((rows, count), dtype=torch.int64, device=keys.device)
    grid = (triton.cdiv(count, _LANES), rows)
    _launch(_words_among, grid, keys.contiguous(), nonces.contiguous(), tokens.contiguous(), out, count)
    return out


def words_rows(keys: torch.Tensor, nonces: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Words of the whole vocabulary: keys (b, 8), nonces (3, b) -> (b, vocabulary) int64 in [0, 2^32)."""
    out = torch.empty((len(keys), vocabulary), dtype=torch.int64, device=keys.device)
    _launch(_words_rows, _grid(out), keys.contiguous(), nonces.contiguous(), out, vocabulary)
    return out


def green_list(
    logits: torch.Tensor, keys: torch.Tensor, nonces: torch.Tensor, threshold: int, delta: float
) -> torch.Tensor:
    """Logits plus ``delta`` where the word is below ``threshold``: one read and one write of the logits.

    Parameters
    ----------
    logits
        Shape (b, V), float32, bfloat16 or float16; rows may lie apart.
    keys, nonces
        Shapes (b, 8) and (3, b), int32.
    threshold
        In [0, 2^32).
    delta
        In nats.

    Returns
    -------
    Shape (b, V), float32.
    """
    logits = _rows_of(logits)
    out = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    # The same 32 bits as an int32 argument, whatever the threshold: one compiled kernel serves all.
    limit = threshold - 2**32 if threshold >= 2**31 else threshold
    inputs = (logits, logits.stride(0), keys.contiguous(), nonces.contiguous())
    _launch(_green_list, _grid(logits), *inputs, limit, float(delta), out, logits.shape[1])
    return out


def gumbel(logits: torch.Tensor, keys: torch.Tensor, nonces: torch.Tensor) -> torch.Tensor:
    """0 at `gumbel_choices` and -inf elsewhere: (b, V) float32."""
    out = torch.full(logits.shape, -torch.inf, dtype=torch.float32, device=logits.device)
    return out.scatter_(1, gumbel_choices(logits, keys, nonces)[:, None], 0.0)


def gumbel_choices(logits: torch.Tensor, keys: torch.Tensor, nonces: torch.Tensor) -> torch.Tensor:
    """Argmax over v of logit_v - log(-log u_v), u = (word + 1/2) / 2^32: one read of the logits and no write.

    Each tile runs the race in float32 and puts forward its two best; these finalists race again in float64.
    So the choice is the one of `watermark.schemes.gumbel`, unless three tokens of one tile come within
    float32's rounding of each other.

    Parameters
    ----------
    logits
        Shape (b, V), float32, bfloat16 or float16; rows may lie apart.
    keys, nonces
        Shapes (b, 8) and (3, b), int32.

    Returns
    -------
    Shape (b,), int64.
    """
    logits = _rows_of(logits)
    tiles, rows = _grid(logits)
    finalists = torch.empty((rows, 2 * tiles), dtype=torch.int64, device=logits.device)
    words = torch.empty_like(finalists)
    inputs = (logits, logits.stride(0), keys.contiguous(), nonces.contiguous())
    _launch(_gumbel, (tiles, rows), *inputs, finalists, words, logits.shape[1])
    u = (words.to(torch.float64) + 0.5) * 2.0**-32
    race = logits.gather(1, finalists).to(torch.float64) - torch.log(-torch.log(u))
    return finalists.gather(1, race.argmax(1, keepdim=True))[:, 0]


def tournament(logits: torch.Tensor, keys: torch.Tensor, nonces: torch.Tensor, depth: int) -> torch.Tensor:
    """Log-probabilities after ``depth`` layers of p <- p (1 + g_l - sum_v p_v g_v,l), g_l bit l of the word.

    A layer needs one sum over the row, which taken alone would cost a pass for every layer. But what k layers
    do to a token depends on its k bits alone, so the masses of the 2^k classes of tokens decide all k sums:
    each pass applies four layers and adds up the 16 masses for the next four.

    Parameters
    ----------
    logits
        Shape (b, V), float32, bfloat16 or float16; rows may lie apart.
    keys, nonces
        Shapes (b, 8) and (3, b), int32.
    depth
        In 1 .. 32.

    Returns
    -------
    Shape (b, V), float32.
    """
    logits = _rows_of(logits)
    (tiles, rows), vocabulary = _grid(logits), logits.shape[1]
    peaks = logits.amax(1)
    p = torch.empty((rows, vocabulary), dtype=torch.float32, device=logits.device)
    words = torch.empty((rows, vocabulary), dtype=torch.int32, device=logits.device)
    # Two buffers, since programs of one pass still read the masses while others already write the next ones.
    masses, after = torch.empty((2, rows, tiles, 2**_LAYERS), dtype=torch.float32, device=logits.device)
    inputs = (logits, logits.stride(0), peaks, keys.contiguous(), nonces.contiguous())
    _launch(_tournament_start, (tiles, rows), *inputs, p, words, masses, vocabulary)
    for layer in range(0, depth, _LAYERS):
        _launch(
            _tournament_pass,
            (tiles, rows),
            *(p, words, masses, after, vocabulary, layer),
            TILES=triton.next_power_of_2(tiles),
            LAYERS=min(_LAYERS, depth - layer),
            LAST=layer + _LAYERS >= depth,
        )
        masses, after = after, masses
    return p


def _rows_of(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.stride(1) == 1 else logits.contiguous()


def _grid(rows: torch.Tensor) -> tuple[int, int]:
    return triton.cdiv(rows.shape[1], _TILE), rows.shape[0]


def _launch(kernel: Any, grid: tuple[int, int], *args: Any, **options: Any) -> None:
    if 0 in grid:
        return
    # Triton launches on the current device, whichever holds the arguments.
    with torch.cuda.device_of(args[0]):  # type: ignore[no-untyped-call]
        kernel[grid](*args, **_OPTIONS, **options)


# ------------------------------------------------------------------------------------------- device code


@triton.jit
def _rotate(x, bits: tl.constexpr):
    return (x << bits) | (x >> (32 - bits))  # one funnel shift on a GPU


@triton.jit
def _quarter_round(a, b, c, d):
    a += b
    d = _rotate(d ^ a, 16)
    c += d
    b = _rotate(b ^ c, 12)
    a += b
    d = _rotate(d ^ a, 8)
    c += d
    b = _rotate(b ^ c, 7)
    return a, b, c, d


@triton.jit
def _load_word(pointer):
    return tl.load(pointer).to(tl.uint32, bitcast=True)


@triton.jit
def _chacha(keys, nonces, row, counter):
    """One block in each lane: counter (n,) uint32 -> 16 words (n,) uint32."""
    rows = tl.num_programs(1)
    zero = tl.zeros_like(counter)
    s4, s5 = zero + _load_word(keys + row * 8), zero + _load_word(keys + row * 8 + 1)
    s6, s7 = zero + _load_word(keys + row * 8 + 2), zero + _load_word(keys + row * 8 + 3)
    s8, s9 = zero + _load_word(keys + row * 8 + 4), zero + _load_word(keys + row * 8 + 5)
    s10, s11 = zero + _load_word(keys + row * 8 + 6), zero + _load_word(keys + row * 8 + 7)
    s13, s14 = zero + _load_word(nonces + row), zero + _load_word(nonces + rows + row)
    s15 = zero + _load_word(nonces + 2 * rows + row)
    x0, x1, x2, x3 = zero + _C0, zero + _C1, zero + _C2, zero + _C3
    x4, x5, x6, x7, x8, x9, x10, x11 = s4, s5, s6, s7, s8, s9, s10, s11
    x12, x13, x14, x15 = counter, s13, s14, s15
    for _ in tl.static_range(_DOUBLE_ROUNDS):
        x0, x4, x8, x12 = _quarter_round(x0, x4, x8, x12)
        x1, x5, x9, x13 = _quarter_round(x1, x5, x9, x13)
        x2, x6, x10, x14 = _quarter_round(x2, x6, x10, x14)
        x3, x7, x11, x15 = _quarter_round(x3, x7, x11, x15)
        x0, x5, x10, x15 = _quarter_round(x0, x5, x10, x15)
        x1, x6, x11, x12 = _quarter_round(x1, x6, x11, x12)
        x2, x7, x8, x13 = _quarter_round(x2, x7, x8, x13)
        x3, x4, x9, x14 = _quarter_round(x3, x4, x9, x14)
    x0, x1, x2, x3 = x0 + _C0, x1 + _C1, x2 + _C2, x3 + _C3
    x4, x5, x6, x7 = x4 + s4, x5 + s5, x6 + s6, x7 + s7
    x8, x9, x10, x11 = x8 + s8, x9 + s9, x10 + s10, x11 + s11
    x12, x13, x14, x15 = x12 + counter, x13 + s13, x14 + s14, x15 + s15
    return x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15


@triton.jit
def _words_in_order(keys, nonces, row, tile, LANES: tl.constexpr):
    """Words of the tile's 16 LANES tokens in order, uint32.

    `tl.join` adds a last axis, so joining word w with w + 8, then with w + 4, w + 2 and w + 1, makes the bits
    of w the last four axes, highest first, and the reshape reads them as one number.
    """
    block = (tile * LANES + tl.arange(0, LANES)).to(tl.uint32)
    x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15 = _chacha(keys, nonces, row, block)
    even = tl.join(tl.join(tl.join(x0, x8), tl.join(x4, x12)), tl.join(tl.join(x2, x10), tl.join(x6, x14)))
    odd = tl.join(tl.join(tl.join(x1, x9), tl.join(x5, x13)), tl.join(tl.join(x3, x11), tl.join(x7, x15)))
    return tl.reshape(tl.join(even, odd), [LANES * 16])


@triton.jit
def _words_among(keys, nonces, tokens, out, count, LANES: tl.constexpr):
    row = tl.program_id(1)
    entry = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = entry < count
    token = tl.load(tokens + row.to(tl.int64) * count + entry, mask=inside, other=0).to(tl.uint32)
    block = token >> 4
    x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15 = _chacha(keys, nonces, row, block)
    # A tree of selects picks word `token & 15`.
    odd = (token & 1) != 0
    x0, x2 = tl.where(odd, x1, x0), tl.where(odd, x3, x2)
    x4, x6 = tl.where(odd, x5, x4), tl.where(odd, x7, x6)
    x8, x10 = tl.where(odd, x9, x8), tl.where(odd, x11, x10)
    x12, x14 = tl.where(odd, x13, x12), tl.where(odd, x15, x14)
    odd = (token & 2) != 0
    x0, x4 = tl.where(odd, x2, x0), tl.where(odd, x6, x4)
    x8, x12 = tl.where(odd, x10, x8), tl.where(odd, x14, x12)
    odd = (token & 4) != 0
    x0, x8 = tl.where(odd, x4, x0), tl.where(odd, x12, x8)
    word = tl.where((token & 8) != 0, x8, x0)
    tl.store(out + row.to(tl.int64) * count + entry, word.to(tl.int64), mask=inside)


@triton.jit
def _words_rows(keys, nonces, out, vocabulary, LANES: tl.constexpr):
    tile, row = tl.program_id(0), tl.program_id(1)
    token = tile * LANES * 16 + tl.arange(0, LANES * 16)
    word = _words_in_order(keys, nonces, row, tile, LANES).to(tl.int64)
    tl.store(out + row.to(tl.int64) * vocabulary + token, word, mask=token < vocabulary)


@triton.jit(do_not_specialize=["threshold"])
def _green_list(logits, stride, keys, nonces, threshold, delta, out, vocabulary, LANES: tl.constexpr):
    tile, row = tl.program_id(0), tl.program_id(1)
    block = tile * LANES + tl.arange(0, LANES)
    word = tl.arange(0, 16)
    token = block[:, None] * 16 + word[None, :]
    inside = token < vocabulary
    # Asked for before the cipher, which hides the wait.
    before = tl.load(logits + row.to(tl.int64) * stride + token, mask=inside, other=0.0).to(tl.float32)
    x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15 = _chacha(
        keys, nonces, row, block.to(tl.uint32)
    )
    limit = threshold.to(tl.uint32, bitcast=True)
    # Bit w of a lane's `green` is the verdict on its token w: 16 tokens cross over in one integer.
    green = (x0 < limit).to(tl.int32) | ((x1 < limit).to(tl.int32) << 1)
    green |= ((x2 < limit).to(tl.int32) << 2) | ((x3 < limit).to(tl.int32) << 3)
    green |= ((x4 < limit).to(tl.int32) << 4) | ((x5 < limit).to(tl.int32) << 5)
    green |= ((x6 < limit).to(tl.int32) << 6) | ((x7 < limit).to(tl.int32) << 7)
    green |= ((x8 < limit).to(tl.int32) << 8) | ((x9 < limit).to(tl.int32) << 9)
    green |= ((x10 < limit).to(tl.int32) << 10) | ((x11 < limit).to(tl.int32) << 11)
    green |= ((x12 < limit).to(tl.int32) << 12) | ((x13 < limit).to(tl.int32) << 13)
    green |= ((x14 < limit).to(tl.int32) << 14) | ((x15 < limit).to(tl.int32) << 15)
    is_green = ((green[:, None] >> word[None, :]) & 1) != 0
    marked = before + tl.where(is_green, delta, 0.0)
    tl.store(out + row.to(tl.int64) * vocabulary + token, marked, mask=inside)


@triton.jit
def _log_exponential(word):
    """log(-log u), u = (word + 1/2) / 2^32, in float32 with an absolute error below 3e-6.

    Near u = 1, float32 loses the digits of u that matter. There -log u is summed from 1 - u, which float32
    holds with full relative precision; below 1/8 the series' eight terms leave out less than 1 in 10^8.
    """
    u = word.to(tl.float32) * 2.0**-32 + 2.0**-33
    rest = (~word).to(tl.float32) * 2.0**-32 + 2.0**-33
    series = 1 / 5 + rest * (1 / 6 + rest * (1 / 7 + rest * (1 / 8)))
    series = 1.0 + rest * (1 / 2 + rest * (1 / 3 + rest * (1 / 4 + rest * series)))
    return tl.log(tl.where(rest < 0.125, rest * series, -tl.log(u)))


@triton.jit
def _gumbel(logits, stride, keys, nonces, finalists, words, vocabulary, LANES: tl.constexpr):
    tile, row = tl.program_id(0), tl.program_id(1)
    first = tile * LANES * 16
    entry = tl.arange(0, LANES * 16)
    inside = first + entry < vocabulary
    spot = logits + row.to(tl.int64) * stride + first + entry
    logit = tl.load(spot, mask=inside, other=-float("inf")).to(tl.float32)
    at = row.to(tl.int64) * 2 * tl.num_programs(0) + 2 * tile
    # After top-k or top-p most tiles hold no live token: they need no cipher, and any token of theirs loses.
    if tl.max(logit, 0) > -float("inf"):
        word = _words_in_order(keys, nonces, row, tile, LANES)
        race = logit - _log_exponential(word)
        signed = word.to(tl.int64)
        for place in tl.static_range(2):
            best = tl.argmax(race, 0)
            # The minimum matters for a row of NaN alone, whose argmax may be anywhere.
            tl.store(finalists + at + place, tl.minimum(first + best, vocabulary - 1).to(tl.int64))
            tl.store(words + at + place, tl.sum(tl.where(entry == best, signed, 0), 0))
            race = tl.where(entry == best, -float("inf"), race)
    else:
        for place in tl.static_range(2):
            tl.store(finalists + at + place, first.to(tl.int64))
            tl.store(words + at + place, tl.zeros([], tl.int64))


@triton.jit
def _class_masses(p, bits):
    """Sum of p in each class of tokens, by the lowest four of ``bits``: (n,), (n,) -> (16,)."""
    classes = tl.arange(0, _CLASSES)
    masses = tl.zeros([_CLASSES], tl.float32)
    for c in tl.static_range(_CLASSES):
        masses = tl.where(classes == c, tl.sum(tl.where((bits & (_CLASSES - 1)) == c, p, 0.0), 0), masses)
    return masses


@triton.jit
def _tournament_start(logits, stride, peaks, keys, nonces, p, words, masses, vocabulary, LANES: tl.constexpr):
    """Leave exp(logit - peak) in p, the words, and each tile's class masses for the first layers."""
    tile, row = tl.program_id(0), tl.program_id(1)
    first = tile * LANES * 16
    entry = tl.arange(0, LANES * 16)
    inside = first + entry < vocabulary
    spot = logits + row.to(tl.int64) * stride + first + entry
    logit = tl.load(spot, mask=inside, other=-float("inf")).to(tl.float32)
    q = tl.exp(logit - tl.load(peaks + row).to(tl.float32))
    at = row.to(tl.int64) * vocabulary + first + entry
    sums = tl.zeros([_CLASSES], tl.float32)
    # A tile without mass needs no words, here or in the passes.
    if tl.max(q, 0) > 0.0:
        word = _words_in_order(keys, nonces, row, tile, LANES)
        tl.store(words + at, word.to(tl.int32, bitcast=True), mask=inside)
        sums = _class_masses(q, word)
    tl.store(p + at, q, mask=inside)
    part = row.to(tl.int64) * tl.num_programs(0) + tile
    tl.store(masses + part * _CLASSES + tl.arange(0, _CLASSES), sums)


@triton.jit(do_not_specialize=["layer"])
def _tournament_pass(
    p,
    words,
    masses,
    after,
    vocabulary,
    layer,
    TILES: tl.constexpr,
    LAYERS: tl.constexpr,
    LAST: tl.constexpr,
    LANES: tl.constexpr,
):
    """Apply LAYERS layers from ``layer`` on; leave the next ones' class masses, or logarithms in the end."""
    tile, row, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    classes = tl.arange(0, _CLASSES)
    # Every program of the row adds up all tiles' masses in one order: unlike with atomics, no run differs.
    part = tl.arange(0, TILES)
    spot = masses + (row.to(tl.int64) * tiles + part[:, None]) * _CLASSES + classes[None, :]
    mass = tl.sum(tl.load(spot, mask=part[:, None] < tiles, other=0.0), 0)
    total = tl.sum(mass, 0)
    mass = mass / total

    entry = tile * LANES * 16 + tl.arange(0, LANES * 16)
    inside = entry < vocabulary
    at = row.to(tl.int64) * vocabulary + entry
    q = tl.load(p + at, mask=inside, other=0.0) / total
    sums = tl.zeros([_CLASSES], tl.float32)
    alive = tl.max(q, 0) > 0.0
    if alive:
        bits = tl.load(words + at, mask=inside, other=0).to(tl.uint32, bitcast=True) >> layer
        for i in tl.static_range(LAYERS):
            won = ((classes >> i) & 1).to(tl.float32)
            mean = tl.sum(mass * won, 0)
            mass = mass * (1.0 + won - mean)
            # Rounding may put the mean above 1.
            q = q * tl.maximum(1.0 + ((bits >> i) & 1).to(tl.float32) - mean, 0.0)
        if not LAST:
            sums = _class_masses(q, bits >> LAYERS)
    if LAST:
        tl.store(p + at, tl.where(q > 0.0, tl.log(tl.where(q > 0.0, q, 1.0)), -float("inf")), mask=inside)
    else:
        tl.store(p + at, q, mask=inside)
        tl.store(after + (row.to(tl.int64) * tiles + tile) * _CLASSES + classes, sums)
