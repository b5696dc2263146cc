"""Marked logits: a scheme's fused kernel where there is one for the device, else its definition on the words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from watermark.backends import torch_backend
from watermark.prf import words_rows
from watermark.schemes.protocol import Scheme


def mark_rows(scheme: Scheme, logits: torch.Tensor, keys: Any, nonces: Any) -> torch.Tensor:
    """Mark logits (b, V) under one key and nonce a row, by the scheme's fused kernel or its definition; float32."""
    fused: Callable[..., torch.Tensor | None] | None = getattr(scheme, "transform_rows", None)
    marked = None if fused is None else fused(logits, keys, nonces)
    if marked is not None:
        return marked
    if logits.device.type == "cpu":
        words = torch.from_numpy(words_rows(keys, nonces, logits.shape[1]).astype("int64"))
    else:
        words = torch_backend.words_rows(keys, nonces, logits.shape[1])
    return scheme.transform(logits.to(torch.float32), words)


def chooses(scheme: Scheme) -> bool:
    """Whether the scheme leaves one choice that truncation changes only where it cuts it off (`choose_rows`)."""
    return hasattr(scheme, "choose_rows")


def choose_rows(scheme: Scheme, logits: torch.Tensor, keys: Any, nonces: Any) -> torch.Tensor:
    """The choices of a scheme that `chooses`: logits (b, V) -> (b,) int64."""
    chosen: torch.Tensor | None = scheme.choose_rows(logits, keys, nonces)  # type: ignore[attr-defined]
    return mark_rows(scheme, logits, keys, nonces).argmax(-1) if chosen is None else chosen
