"""torch's CPU generator, bit for bit and without torch: which tokens stand first in `randperm`, and what `rand` holds.

Many systems seed `torch.Generator("cpu")` with a hash of the context and take the first part of `randperm(V)` as the
green list. The generator is MT19937 (Matsumoto and Nishimura 1998) seeded with the low 32 bits of the seed;
`randperm` is a forward Fisher-Yates shuffle whose step i swaps entry i with entry i + (next draw mod (V - i)). To know
whether one token ends among the first G entries takes G draws and one scan of them, never the permutation itself.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from watermark.backends.numba_backend import jit
from watermark.prf import U32

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SEED_MODULUS = 2**64 - 1
"""What systems reduce their seeds by before they pass them to `manual_seed`."""

_STATE = 624
_MIDDLE = 397
_MANY = 64  # tokens of one seed from which on the whole shuffle is cheaper than one scan for each token
_U = np.uint32
_HIGH, _LOW, _TWIST = _U(0x80000000), _U(0x7FFFFFFF), _U(0x9908B0DF)


def seeds_of(values: I64) -> U32:
    """The 32 bits that the generator keeps of seeds ``value % (2^64 - 1)``: int64 values, of either sign."""
    return ((values - (values < 0)) & 0xFFFFFFFF).astype(np.uint32)


def seeds_of_products(key: int, values: I64) -> U32:
    """The 32 bits that the generator keeps of ``(key * value) % (2^64 - 1)``, the product being Python's, unbounded."""
    if len(values) == 0:
        return np.empty(0, dtype=np.uint32)
    largest = max(abs(int(values.max())), abs(int(values.min())))
    if abs(key) * largest < 2**63:
        return seeds_of(values * key)
    distinct, inverse = np.unique(values, return_inverse=True)
    kept = [(key * value) % SEED_MODULUS & 0xFFFFFFFF for value in distinct.tolist()]
    return np.array(kept, dtype=np.uint32)[inverse]


def greens(seeds: U32, tokens: I64, vocabulary_size: int, count: int) -> Mask:
    """Whether each token is among the first ``count`` entries of ``randperm(vocabulary_size)`` under its own seed.

    Parameters
    ----------
    seeds
        Shape (n,). Equal seeds are handled together.
    tokens
        Shape (n,); one outside the vocabulary is never green.
    """
    if count >= vocabulary_size:
        return (tokens >= 0) & (tokens < vocabulary_size)
    order, starts = _groups(seeds)
    found = np.zeros(len(seeds), dtype=np.bool_)
    _greens(seeds, tokens, order, starts, vocabulary_size, _reciprocals(vocabulary_size, count), found)
    return found


def uniforms(seeds: U32, tokens: I64, vocabulary_size: int) -> U32:
    """Entry ``token`` of float32 ``rand(vocabulary_size)`` under each token's own seed, in units of 2^-24: (n,) uint32.

    A token outside the vocabulary has 0.
    """
    order, starts = _groups(seeds)
    found = np.zeros(len(seeds), dtype=np.uint32)
    _uniforms(seeds, np.where(tokens < vocabulary_size, tokens, -1), order, starts, found)
    return found


@lru_cache(maxsize=4)
def permutation(seed: int, n: int) -> I64:
    """``randperm(n)`` after ``manual_seed(seed)``, shape (n,); read-only, since it is shared."""
    entries = np.empty(n, dtype=np.int64)
    _permutation(_U(seed & 0xFFFFFFFF), _reciprocals(n, n), entries)
    entries.flags.writeable = False
    return entries


@lru_cache(maxsize=4)
def coin_flips(seed: int, n: int) -> npt.NDArray[np.uint8]:
    """``randint(0, 2, (n,))`` after ``manual_seed(seed)``, shape (n,); read-only, since it is shared."""
    draws = np.empty(n, dtype=np.uint32)
    _draw(_U(seed & 0xFFFFFFFF), draws, np.empty(_STATE, dtype=np.uint32))
    flips = (draws & 1).astype(np.uint8)
    flips.flags.writeable = False
    return flips


def _groups(seeds: U32) -> tuple[I64, I64]:
    """An order that puts equal seeds side by side, and where each group starts in it, and the end."""
    order = np.argsort(seeds, kind="stable")
    arranged = seeds[order]
    starts = np.flatnonzero(arranged[1:] != arranged[:-1]) + 1
    return order, np.concatenate([[0], starts, [len(seeds)]]) if len(seeds) else np.zeros(1, dtype=np.int64)


@lru_cache(maxsize=4)
def _reciprocals(n: int, count: int) -> F64:
    """1 / (n - i) for the steps i < count of a shuffle; the last entry of a permutation takes no draw."""
    inverse: F64 = 1.0 / (n - np.arange(min(count, n - 1), dtype=np.float64))
    inverse.flags.writeable = False
    return inverse


@jit()
def _seed(seed: np.uint32, state: U32) -> None:
    state[0] = seed
    for k in range(1, _STATE):
        before = state[k - 1]
        state[k] = _U(_U(1812433253) * _U(before ^ (before >> _U(30))) + _U(k))


@jit()
def _advance(state: U32) -> None:
    """The next 624 untempered words, in three loops that each vectorise."""
    for k in range(_STATE - _MIDDLE):
        y = (state[k] & _HIGH) | (state[k + 1] & _LOW)
        state[k] = state[k + _MIDDLE] ^ (y >> _U(1)) ^ ((_U(0) - (y & _U(1))) & _TWIST)
    for k in range(_STATE - _MIDDLE, _STATE - 1):
        y = (state[k] & _HIGH) | (state[k + 1] & _LOW)
        state[k] = state[k + _MIDDLE - _STATE] ^ (y >> _U(1)) ^ ((_U(0) - (y & _U(1))) & _TWIST)
    y = (state[_STATE - 1] & _HIGH) | (state[0] & _LOW)
    state[_STATE - 1] = state[_MIDDLE - 1] ^ (y >> _U(1)) ^ ((_U(0) - (y & _U(1))) & _TWIST)


@jit()
def _tempered(y: np.uint32) -> np.uint32:
    y ^= y >> _U(11)
    y ^= (y << _U(7)) & _U(0x9D2C5680)
    y ^= (y << _U(15)) & _U(0xEFC60000)
    return _U(y ^ (y >> _U(18)))


@jit()
def _temper(state: U32, out: U32) -> None:
    for k in range(len(out)):
        out[k] = _tempered(state[k])


@jit()
def _draw(seed: np.uint32, out: U32, state: U32) -> None:
    """The generator's first len(out) draws."""
    _seed(seed, state)
    for start in range(0, len(out), _STATE):
        _advance(state)
        _temper(state, out[start : start + _STATE])


@jit()
def _partners(draws: U32, inverse: F64, n: int) -> None:
    """From draws to the entry that each step of the shuffle swaps with, in place: step i with one in i .. n - 1.

    The quotient is exact: (draw + 1/2) / m stands 1 / 2m or more from any integer, the product's error is below that.
    """
    for i in range(len(draws)):
        size = _U(n - i)
        quotient = _U((np.float64(draws[i]) + 0.5) * inverse[i])
        draws[i] = _U(i) + _U(draws[i] - _U(quotient * size))


@jit()
def _holds(values: U32, wanted: np.uint32) -> bool:
    nearest = _U(0xFFFFFFFF)
    for k in range(len(values)):
        nearest = min(nearest, _U(values[k] ^ wanted))
    return bool(nearest == _U(0))


@jit()
def _is_green(partners: U32, token: int) -> bool:
    """Follow one token through the shuffle.

    It stays at its position until a step swaps with it, which moves it to that step's entry for good; or until its
    own position's step comes, which moves it further back.
    """
    position: np.int64 = np.int64(token)
    start, count = np.int64(0), len(partners)
    while True:
        if _holds(partners[start : min(position + 1, count)], _U(position)):
            return True
        if position >= count:
            return False
        start, position = position + 1, np.int64(partners[position])


@jit()
def _shuffle(partners: U32, entries: I64) -> None:
    """The permutation whose first len(partners) entries are final."""
    for i in range(len(entries)):
        entries[i] = i
    for i in range(len(partners)):
        j = np.int64(partners[i])
        entries[i], entries[j] = entries[j], entries[i]


@jit()
def _permutation(seed: np.uint32, inverse: F64, entries: I64) -> None:
    partners = np.empty(len(inverse), dtype=np.uint32)
    _draw(seed, partners, np.empty(_STATE, dtype=np.uint32))
    _partners(partners, inverse, len(entries))
    _shuffle(partners, entries)


@jit()
def _greens(seeds: U32, tokens: I64, order: I64, starts: I64, n: int, inverse: F64, found: Mask) -> None:
    state = np.empty(_STATE, dtype=np.uint32)
    partners = np.empty(len(inverse), dtype=np.uint32)
    for group in range(len(starts) - 1):
        members = order[starts[group] : starts[group + 1]]
        _draw(seeds[members[0]], partners, state)
        _partners(partners, inverse, n)
        if len(members) < _MANY:
            for i in members:
                if 0 <= tokens[i] < n:
                    found[i] = _is_green(partners, tokens[i])
            continue
        entries = np.empty(n, dtype=np.int64)
        _shuffle(partners, entries)
        green = np.zeros(n, dtype=np.bool_)
        for k in range(len(partners)):
            green[entries[k]] = True
        for i in members:
            if 0 <= tokens[i] < n:
                found[i] = green[tokens[i]]


@jit()
def _uniforms(seeds: U32, tokens: I64, order: I64, starts: I64, found: U32) -> None:
    state = np.empty(_STATE, dtype=np.uint32)
    for group in range(len(starts) - 1):
        members = order[starts[group] : starts[group + 1]]
        members = members[np.argsort(tokens[members])]
        _seed(seeds[members[0]], state)
        reached = 0  # draws that the state has passed or holds
        for i in members:
            if tokens[i] < 0:
                continue
            while tokens[i] >= reached:
                _advance(state)
                reached += _STATE
            found[i] = _tempered(state[tokens[i] - (reached - _STATE)]) & _U(0xFFFFFF)
