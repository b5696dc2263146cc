"""Before a server takes requests: mark 64 tokens on synthetic logits with its own keys, and find the mark in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.engines.hook.answers import Answer, statistics
from watermark.engines.hook.epoch import Epoch
from watermark.engines.hook.rows import Rows
from watermark.errors import DyetraceError
from watermark.rowkeys import selector_threshold

if TYPE_CHECKING:
    import torch

TOKENS = 64
FOUND_Z = 5.0
"""Marked high-entropy text of 64 tokens has z of 10 and more; unmarked text reaches 5 once in three million times."""
_CANDIDATES = 32


def self_test(epoch: Epoch, device: torch.device) -> float:
    """Return the z-score of the mark in synthetic text.

    Raises
    ------
    DyetraceError
        The mark is not found: the server must not start.
    """
    import torch

    tenant = None if selector_threshold(epoch.spec) == 2**32 else "self-test"
    tokens: list[int] = []
    answer = Answer(epoch, tenant, 0, [], tokens)
    rows = Rows([answer], device)
    generator = torch.Generator().manual_seed(0)
    vocabulary = epoch.spec.vocabulary_size
    for _ in range(TOKENS):
        logits = torch.full((1, vocabulary), -torch.inf)
        likely = torch.randint(vocabulary, (_CANDIDATES,), generator=generator)
        logits[0, likely] = torch.rand(_CANDIDATES, generator=generator)
        contexts = torch.tensor([answer.context()], dtype=torch.long, device=device).reshape(1, -1)
        marked = rows.mark(logits.to(device), contexts, None).cpu().softmax(-1)
        tokens.append(int(torch.multinomial(marked, 1, generator=generator)))
    news = answer.news()
    mean, sd = epoch.moments
    z = float((statistics(epoch, tenant, 0, news) - mean).sum() / (sd * len(news) ** 0.5))
    if not z >= FOUND_Z:
        raise DyetraceError(
            f"self-test failed: {TOKENS} tokens marked with {epoch.spec_id} score z = {z:.1f}, expected {FOUND_Z} or "
            "more; nothing is served"
        )
    return z
