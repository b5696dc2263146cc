"""`transformers-synthid`: what `SynthIDTextWatermarkingConfig` of transformers writes (Dathathri et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError
from watermark.formats.parts.congruence import MULTIPLIER, ONE, accumulate
from watermark.formats.parts.fingerprints import as_int64
from watermark.formats.parts.permutation import coin_flips
from watermark.formats.parts.shapes import Layers
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.prf import U32


@dataclass(frozen=True)
class TransformersSynthid(Layers):
    """Tournament over ``depth`` layers, one key each, whose g-values stand in one short table that everybody knows.

    The hash starts from 1 and takes the context's tokens, the token and a layer's key, h <- (h + x) m + 1 modulo 2^64;
    the layer's g is the table's entry h mod ``sampling_table_size``. The context is the last ``context_width``
    generated tokens, 0 before the first (`ABSENT`); no prompt token is hashed and padding plays no part. A context
    that is among the last 1,024 (``context_history_size``) of its answer stays unmarked, as do the first
    ``context_width`` tokens where the mark was made with ``skip_first_ngram_calls``: such tokens only dilute the
    evidence. The table is drawn on the device that generates; one that was drawn on a GPU cannot be read here, and the
    text looks unmarked.

    With a table of 65,536 entries only the low 16 bits of all that is hashed count, so that a corpus holds no more
    than 65,536 distinct inputs; tuples that share them share all layers and count once.

    A token's score is sum_l (depth - l) g_l, as for our own tournament.

    Attributes
    ----------
    context_width
        The configuration's ``ngram_len`` - 1.
    depth
        Number of layers and keys, 1 to 32.
    sampling_table_size, sampling_table_seed
        As in the configuration.
    key_bits
        Size of the layer keys, from which decoys are drawn. The published examples stay below 1,024.
    """

    context_width: int = 4
    depth: int = 30
    sampling_table_size: int = 65536
    sampling_table_seed: int = 0
    key_bits: int = 10

    name: ClassVar[str] = "transformers-synthid"
    purpose: ClassVar[str] = "dyt:hf-synthid"
    system: ClassVar[str] = "transformers 5.24.0"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"
    why_not_exact: ClassVar[str] = (
        "all g-values of all keys are shifts of one table of 65,536 known bits, so that they neither are fair nor vary "
        "as independent bits do"
    )
    reads_prompt: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check_layers()
        if not 1 <= self.sampling_table_size <= 2**24:
            raise DyetraceError(
                f"{self.name}: sampling_table_size must lie in 1 .. 2^24 (got {self.sampling_table_size})"
            )

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Bit l is layer l's g-value."""
        self.check_count(key)
        table = coin_flips(self.sampling_table_seed, self.sampling_table_size)
        out = np.empty(len(tokens), dtype=np.uint32)
        _layers(_hashes(contexts, tokens), np.array(key, dtype=np.int64), table, self._mask, out)
        return out

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """The hash of context and token, as many of its bits as the table's size leaves."""
        hashes = _hashes(contexts, tokens).view(np.uint64)
        if self._mask:
            return (hashes & np.uint64(self._mask)) + np.uint64(1)
        return np.maximum(hashes, np.uint64(1))  # 0 is kept free

    def log10_bound(self, key: NativeKey, contexts: I64, tokens: I64) -> float:
        """Log10 bound on the chance that a random key gives these tuples as large a statistic as this one does.

        A layer's key only says by how much the table is shifted, so what a layer counts in a text under every key is
        one circular correlation, T(k), and the total is sum_l w_l T(k_l). For keys drawn at random from 1 .. 2^key_bits
        - 1, with replacement or without, E exp(theta total) <= prod_l mean_k exp(theta w_l T(k)): increasing functions
        of a random permutation's entries have at most the product of their means (Joag-Dev and Proschan, "Negative
        association of random variables", Ann. Statist. 11, 1983). So Markov's inequality bounds the tail at any theta
        (Chernoff), whatever the table is. 0 where the table's size is no power of two.
        """
        if not self._mask:
            return 0.0
        size, mask = self.sampling_table_size, self._mask
        hit = np.zeros(size)
        hit[(_hashes(contexts, tokens) * MULTIPLIER + ONE) & mask] = 1.0  # what is hashed alike counts once
        table = coin_flips(self.sampling_table_seed, size).astype(np.float64)
        counts = np.rint(np.fft.irfft(np.conj(np.fft.rfft(hit)) * np.fft.rfft(table), size))
        most = 2**self.key_bits
        every = np.arange(1, most, dtype=np.int64) if most <= size else np.arange(size)
        # Of more keys than shifts each shift has at most this much more than its share.
        spare = 0.0 if most <= size else self.depth * math.log10(most / (most - 1))
        weights = np.array(self.law.weights, dtype=np.float64)
        total = float(weights @ counts[(np.array(key, dtype=np.int64) * MULTIPLIER) & mask])
        return min(0.0, _log10_chernoff(counts[(every * MULTIPLIER) & mask], weights, total) + spare)

    @property
    def _mask(self) -> int:
        """The low bits that index the table, where its size is a power of two; else 0."""
        size = self.sampling_table_size
        return size - 1 if size & (size - 1) == 0 else 0


def _log10_chernoff(counts: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], total: float) -> float:
    """Log10 of min over theta of exp(-theta total) prod_l mean exp(theta weights_l counts); 0 below the mean."""
    mean = float(counts.mean())
    values, times = np.unique(counts - mean, return_counts=True)
    chances, excess = times / len(counts), total - mean * float(weights.sum())
    if excess <= 0:
        return 0.0

    def growth(theta: float) -> tuple[float, float]:
        """The sum of the logs of the means, and its derivative."""
        exponents = theta * np.multiply.outer(weights, values)
        top = exponents.max(axis=1, keepdims=True)
        parts = chances * np.exp(exponents - top)
        sums = parts.sum(axis=1)
        return float((np.log(sums) + top[:, 0]).sum()), float(weights @ (parts @ values / sums))

    low, high = 0.0, 1.0
    while growth(high)[1] < excess and high < 2.0**20:
        high *= 2
    for _ in range(50):
        theta = (low + high) / 2
        low, high = (theta, high) if growth(theta)[1] < excess else (low, theta)
    # Every theta gives a bound; the rounding of some hundred terms is far below the last factor.
    return min(0.0, (growth(low)[0] - low * excess) * (1 - 1e-9) / math.log(10))


def _hashes(contexts: I64, tokens: I64) -> I64:
    """What context and token come to before a layer's key is added, (n,) int64, wrapping."""
    out = np.ones(len(tokens), dtype=np.int64)
    accumulate(out, as_int64(contexts), as_int64(tokens))
    return out


@jit()
def _layers(hashes: I64, keys: I64, table: npt.NDArray[np.uint8], mask: int, out: U32) -> None:
    for i in range(len(out)):
        word = np.uint32(0)
        for layer in range(len(keys)):
            h = (hashes[i] + keys[layer]) * MULTIPLIER + ONE
            entry = h & mask if mask else h % len(table)
            word |= np.uint32(table[entry]) << np.uint32(layer)
        out[i] = word
