"""ChaCha8 in numpy: what every backend of the primitive must give, bit for bit, and the constants that they share.

The cipher is ChaCha with 8 rounds (Bernstein 2008), its state laid out as in RFC 8439, section 2.3: four constants,
eight key words, the block counter, three nonce words. How a tuple becomes counter and nonce is `watermark.prf`'s.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]

MISSING = 0xFFFFFFFF  # stands for a context token before the beginning of the sequence
NONCE_WORDS = 3
BLOCK_WORDS = 16
ROUNDS = 8
CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # "expand 32-byte k"

# One double round: four quarter rounds on columns, four on diagonals (RFC 8439, section 2.3).
QUARTER_ROUNDS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def chacha_block(key: U32, counter: U32, nonce: U32, rounds: int = ROUNDS) -> U32:
    """ChaCha blocks (RFC 8439, section 2.3, with ``rounds`` in place of 20).

    Parameters
    ----------
    key
        Shape (8,) or (8, n).
    counter
        Shape (n,).
    nonce
        Shape (3, n).

    Returns
    -------
    Shape (16, n), uint32.
    """
    n = len(counter)
    state = np.empty((16, n), dtype=np.uint32)
    state[:4] = np.array(CONSTANTS, dtype=np.uint32)[:, None]
    state[4:12] = key.reshape(8, -1)
    state[12] = counter
    state[13:] = nonce
    x = [row.copy() for row in state]
    for _ in range(rounds // 2):
        for a, b, c, d in QUARTER_ROUNDS:
            x[a] += x[b]
            x[d] = _rotate(x[d] ^ x[a], 16)
            x[c] += x[d]
            x[b] = _rotate(x[b] ^ x[c], 12)
            x[a] += x[b]
            x[d] = _rotate(x[d] ^ x[a], 8)
            x[c] += x[d]
            x[b] = _rotate(x[b] ^ x[c], 7)
    return np.stack(x) + state


def _rotate(x: U32, bits: int) -> U32:
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))


def words_at_reference(key: U32, nonce: U32, tokens: U32) -> U32:
    """`words_at` in numpy: the reference that the backends are checked against."""
    block = chacha_block(key, tokens >> np.uint32(4), nonce)
    words: U32 = block[tokens & np.uint32(15), np.arange(len(tokens))]
    return words
