"""The one primitive: ``prf_u32(key, context, token)``, a keyed pseudo-random 32-bit word per (context, token).

The reference is numpy; `watermark.backends` holds the same function for numba, torch and Triton, bit for bit.

The cipher is ChaCha with 8 rounds (`watermark.chacha`). The nonce is the context, the counter is ``token >> 4`` and the
word is number ``token & 15`` of the block's sixteen, so that 16 neighbouring vocabulary entries share one block.

Contexts are arrays of shape (n, h), oldest token first, with `MISSING` where a sequence begins. Nonces are arrays of
shape (3, n): one row per nonce word, which keeps every backend's loads contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from watermark.chacha import BLOCK_WORDS, MISSING, NONCE_WORDS, U32, chacha_block, words_at_reference

if TYPE_CHECKING:
    from watermark.keys import SecretKey

__all__ = [
    "BLOCK_WORDS",
    "MISSING",
    "NONCE_WORDS",
    "U32",
    "backend",
    "chacha_block",
    "context_key_words",
    "nonces",
    "prf_u32",
    "words_among",
    "words_at",
    "words_at_reference",
    "words_rows",
]


def prf_u32(key: SecretKey, context: list[int], token: int) -> int:
    """The primitive for one tuple, in plain terms; everything else in this package must agree with it.

    Parameters
    ----------
    key
        The key that marks this context.
    context
        The h token ids before the position, oldest first; `MISSING` before the beginning.
    token
        The candidate's id.
    """
    contexts = np.array([context], dtype=np.uint32).reshape(1, len(context))
    nonce = _nonces(contexts, context_key_words(key, len(context)), words_at_reference, words_at_reference)
    return int(words_at_reference(key.words, nonce, np.array([token], dtype=np.uint32))[0])


def context_key_words(key: SecretKey, width: int) -> U32 | None:
    """The key words that compress contexts of more than three tokens, or None where the context itself is the nonce."""
    return None if width <= NONCE_WORDS else key.derive("context").words


def nonces(contexts: U32, context_key: U32 | None) -> U32:
    """Map contexts of shape (n, h), oldest token first, to nonces of shape (3, n).

    Up to three tokens are the nonce themselves, most recent first. Longer contexts go through CBC-MAC (Bellare,
    Kilian and Rogaway 2000; sound here because h is fixed and stands in the counter) over blocks of three tokens,
    most recent first, under a key of its own: ``context_key`` of shape (8,), or (n, 8) for one key per context.
    No context is ever cut to fewer bits.
    """
    return _nonces(contexts, context_key, words_at, words_among)


def _nonces(contexts: U32, context_key: U32 | None, at: Callable[..., U32], among: Callable[..., U32]) -> U32:
    n, width = contexts.shape
    blocks = max(1, -(-width // NONCE_WORDS))
    padded = np.full((blocks * NONCE_WORDS, n), MISSING, dtype=np.uint32)
    padded[:width] = contexts[:, ::-1].T
    if width <= NONCE_WORDS:
        return padded
    if context_key is None:
        raise ValueError("a context of more than 3 tokens needs a context key")
    # The first three words of the block with counter h are the words of tokens 16 h, 16 h + 1 and 16 h + 2.
    first_words = np.arange(NONCE_WORDS, dtype=np.uint32) + np.uint32(BLOCK_WORDS * width)
    chain = np.zeros((NONCE_WORDS, n), dtype=np.uint32)
    for block in padded.reshape(blocks, NONCE_WORDS, n):
        mixed = np.ascontiguousarray(chain ^ block)
        if context_key.ndim == 2:
            chain = among(context_key, mixed, np.tile(first_words, (n, 1))).T
        else:
            chain = np.stack([at(context_key, mixed, np.full(n, word)) for word in first_words])
    return chain


def words_at(key: U32, nonce: U32, tokens: U32) -> U32:
    """Words of n tuples under one key: key (8,), nonce (3, n), tokens (n,) -> (n,) uint32; the analyst's entry."""
    words: U32 = backend().words_at(key, nonce, tokens)
    return words


def words_among(keys: U32, nonce: U32, tokens: U32) -> U32:
    """Words of given candidates: keys (b, 8), nonce (3, b), tokens (b, k) -> (b, k) uint32."""
    words: U32 = backend().words_among(keys, nonce, tokens)
    return words


def words_rows(keys: U32, nonce: U32, vocabulary: int) -> U32:
    """Words of the whole vocabulary: keys (b, 8), nonce (3, b) -> (b, vocabulary) uint32. The server's entry."""
    words: U32 = backend().words_rows(keys, nonce, vocabulary)
    return words


def backend() -> ModuleType:
    """The fastest backend on this machine for arrays in main memory: numba where it is installed, else numpy."""
    global _backend
    if _backend is None:
        try:
            from watermark.backends import numba_backend

            _backend = numba_backend
        except ImportError:
            from watermark.backends import numpy_backend

            _backend = numpy_backend
    return _backend


_backend: ModuleType | None = None
