"""Schemes fused with the primitive over whole vocabulary rows: picks the kernel for the device that holds the logits.

Each function takes logits (b, V), and one key and nonce for each row: numpy uint32 arrays (b, 8) and (3, b) beside CPU
logits, int32 tensors of the same shapes beside logits on another device. Each returns None where no fused kernel
serves that device, and the caller falls back to the scheme's own ``transform``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


_WORTH_THREADS = 1 << 21  # entries of a step: a millisecond's work


def settle_threads(entries: int) -> None:
    """Let kernels called from this thread use one thread for a small step in main memory, else as many as torch does.

    Waking a second thread takes as long as a small step does, and beside an engine that keeps all cores busy the
    wait for it takes many times as long.

    Parameters
    ----------
    entries
        Logits of a step, over all rows.
    """
    try:
        import numba
    except ImportError:
        return
    import torch

    threads = 1 if entries < _WORTH_THREADS else torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))


def green_list(logits: torch.Tensor, keys: Any, nonces: Any, threshold: int, delta: float) -> torch.Tensor | None:
    """Logits plus ``delta`` where the word is below ``threshold``; float32."""
    kernels = _kernels(logits)
    return None if kernels is None else kernels.green_list(logits, keys, nonces, threshold, delta)


def gumbel(logits: torch.Tensor, keys: Any, nonces: Any) -> torch.Tensor | None:
    """0 at the winner of the exponential race and -inf elsewhere; float32."""
    kernels = _kernels(logits)
    return None if kernels is None else kernels.gumbel(logits, keys, nonces)


def gumbel_choices(logits: torch.Tensor, keys: Any, nonces: Any) -> torch.Tensor | None:
    """The winners of the exponential race alone, (b,) int64."""
    kernels = _kernels(logits)
    return None if kernels is None else kernels.gumbel_choices(logits, keys, nonces)


def tournament(logits: torch.Tensor, keys: Any, nonces: Any, depth: int) -> torch.Tensor | None:
    """Log-probabilities after ``depth`` tournament layers; float32."""
    kernels = _kernels(logits)
    return None if kernels is None else kernels.tournament(logits, keys, nonces, depth)


def _kernels(logits: torch.Tensor) -> Any:
    try:
        if logits.device.type == "cpu":
            from watermark.backends import numba_rows

            return numba_rows
        from watermark.backends import triton_backend
    except ImportError:
        return None
    return triton_backend if triton_backend.serves(logits) else None
