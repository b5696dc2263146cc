"""The primitive in plain torch operations, for tensors on any device; nothing here waits for the device.

What holds 32 bits travels as int32, the one 32-bit integer type that torch supports in full everywhere: its
additions wrap, and its right shift is masked to become a logical one. Words come back as int64 in [0, 2^32),
which is what `Scheme.transform` takes. Shapes never depend on data, so that the functions can be captured in
a CUDA graph, and ``torch.compile`` takes them without a graph break.
"""

from __future__ import annotations

import numpy as np
import torch

from watermark.chacha import BLOCK_WORDS, CONSTANTS, MISSING, NONCE_WORDS, ROUNDS, U32

# Elements of one state word in a chunk, on a CPU: the state stays in cache, and is large enough for torch to
# use several threads. Measured at 8 x 128,256 on 2 cores: 4.8 ms, against 14.5 for 2^12 and 9.1 for 2^16.
_CHUNK = 1 << 15
_WORD_MASK = 0xFFFFFFFF


def key_tensor(words: U32, device: torch.device | str = "cpu") -> torch.Tensor:
    """Move keys (b, 8) or nonces (3, b) from numpy uint32 to an int32 tensor that holds the same bits."""
    return torch.from_numpy(np.array(words, dtype=np.uint32).view(np.int32)).to(device, non_blocking=True)


def nonces(contexts: torch.Tensor, context_keys: torch.Tensor | None) -> torch.Tensor:
    """Map contexts to nonces, as `watermark.prf.nonces` does.

    Parameters
    ----------
    contexts
        Shape (b, h) int64, oldest token first, `MISSING` (4294967295) before the beginning.
    context_keys
        Shape (b, 8) int32, one context key for each row; None where h <= 3.

    Returns
    -------
    Shape (3, b) int32.
    """
    rows, width = contexts.shape
    blocks = max(1, -(-width // NONCE_WORDS))
    padded = contexts.new_full((blocks * NONCE_WORDS, rows), MISSING, dtype=torch.int64)
    padded[:width] = contexts.flip(1).T
    bits = padded.to(torch.int32)  # keeps the low 32 bits
    if width <= NONCE_WORDS:
        return bits
    if context_keys is None:
        raise ValueError("a context of more than 3 tokens needs context keys")
    chain = torch.zeros_like(bits[:NONCE_WORDS])
    counter = bits.new_full((rows,), width)
    for block in bits.view(blocks, NONCE_WORDS, rows):
        chain = _chacha(context_keys.T, counter, chain ^ block)[:NONCE_WORDS]
    return chain


def words_at(key: torch.Tensor, nonce: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Words of n tuples under one key: key (8,) int32, nonce (3, n) int32, tokens (n,) -> (n,) int64."""
    return _pick(_chacha(key[:, None], _counter(tokens), nonce), tokens)


def words_among(keys: torch.Tensor, nonce: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Words of given candidates: keys (b, 8) int32, nonce (3, b) int32, tokens (b, k) -> (b, k) int64."""
    return _pick(_chacha(keys.T[:, :, None], _counter(tokens), nonce[:, :, None]), tokens)


def words_rows(keys: torch.Tensor, nonce: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Words of the whole vocabulary: keys (b, 8) int32, nonce (3, b) int32 -> (b, vocabulary) int64."""
    rows = len(keys)
    blocks = -(-vocabulary // BLOCK_WORDS)
    out = keys.new_empty((rows, blocks, BLOCK_WORDS), dtype=torch.int64)
    # On a CPU every operation of the cipher re-reads the state, so it must stay in cache; other devices are
    # better served by few large operations.
    chunk = max(1, _CHUNK // max(1, rows)) if keys.device.type == "cpu" else blocks
    for start in range(0, blocks, chunk):
        counter = torch.arange(start, min(blocks, start + chunk), dtype=torch.int32, device=keys.device)
        block = _chacha(keys.T[:, :, None], counter.expand(rows, -1), nonce[:, :, None])
        out[:, start : start + chunk] = block.permute(1, 2, 0)
    return out.bitwise_and_(_WORD_MASK).view(rows, blocks * BLOCK_WORDS)[:, :vocabulary]


def _counter(tokens: torch.Tensor) -> torch.Tensor:
    # The mask makes the shift logical where int32 holds an id from 2^31 on.
    return ((tokens >> 4) & 0x0FFFFFFF).to(torch.int32)


def _pick(block: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Word ``token & 15`` of each block: block (16, ...), tokens (...) -> (...) int64."""
    word = (tokens & 15).to(torch.int64)
    return block.gather(0, word[None])[0].to(torch.int64) & _WORD_MASK


def _chacha(key: torch.Tensor, counter: torch.Tensor, nonce: torch.Tensor) -> torch.Tensor:
    """ChaCha blocks, as `watermark.prf.chacha_block`.

    Four quarter rounds run at once: ``a``, ``b``, ``c`` and ``d`` are the four rows of the state matrix. Each
    step on columns is ``x[j] op= y[j]``, each step on diagonals is ``x[j] op= y[j + 1 mod 4]``.

    Parameters
    ----------
    key
        Shape (8, ...) int32, which broadcasts against the counter's shape behind its first axis.
    counter
        Shape (...) int32.
    nonce
        Shape (3, ...) int32, broadcast alike.

    Returns
    -------
    Shape (16, ...) int32.
    """
    state = counter.new_empty((16, *counter.shape))
    for word, constant in enumerate(CONSTANTS):
        state[word] = constant
    state[4:12] = key
    state[12] = counter
    state[13:] = nonce
    x = state.clone()
    a, b, c, d = x[:4], x[4:8], x[8:12], x[12:]
    high = torch.empty_like(a)
    for _ in range(ROUNDS // 2):
        for diagonal in (False, True):
            for target, source, turned, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                if diagonal:
                    target[:3].add_(source[1:])
                    target[3].add_(source[0])
                    turned[:3].bitwise_xor_(target[1:])
                    turned[3].bitwise_xor_(target[0])
                else:
                    target.add_(source)
                    turned.bitwise_xor_(target)
                _rotate_(turned, bits, high)
    return x.add_(state)


def _rotate_(x: torch.Tensor, bits: int, high: torch.Tensor) -> None:
    """Rotate left in place; ``high`` is scratch of the same shape."""
    torch.bitwise_right_shift(x, 32 - bits, out=high)
    high.bitwise_and_((1 << bits) - 1)
    torch.add(high, x, alpha=1 << bits, out=x)  # the parts share no bit: shift and or in one
