"""The primitive in numpy, in chunks that stay in cache: what runs where numba is not installed."""

from __future__ import annotations

import numpy as np

from watermark.chacha import BLOCK_WORDS, U32, chacha_block, words_at_reference

_CHUNK = 1 << 14


def words_at(key: U32, nonce: U32, tokens: U32) -> U32:
    """See `watermark.prf.words_at`."""
    out = np.empty(len(tokens), dtype=np.uint32)
    for start in range(0, len(tokens), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = words_at_reference(key, nonce[:, part], tokens[part])
    return out


def words_among(keys: U32, nonce: U32, tokens: U32) -> U32:
    """See `watermark.prf.words_among`."""
    return np.stack(
        [
            words_at_reference(k, np.repeat(nonce[:, [row]], tokens.shape[1], axis=1), tokens[row])
            for row, k in enumerate(keys)
        ]
    )


def words_rows(keys: U32, nonce: U32, vocabulary: int) -> U32:
    """See `watermark.prf.words_rows`."""
    counters = np.arange(-(-vocabulary // BLOCK_WORDS), dtype=np.uint32)
    rows = [
        chacha_block(key, counters, np.repeat(nonce[:, [row]], len(counters), axis=1)).T.reshape(-1)[:vocabulary]
        for row, key in enumerate(keys)
    ]
    return np.stack(rows)
