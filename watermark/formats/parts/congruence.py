"""The linear congruence in which SynthID's implementations gather context and token: h <- (h + x) m + 1 modulo 2^64."""

from __future__ import annotations

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.formats.protocol import ABSENT, I64

MULTIPLIER = np.int64(6364136223846793005)
ONE = np.int64(1)


@jit()
def accumulate(states: I64, contexts: I64, tokens: I64) -> None:
    """Take the context's tokens (0 for `ABSENT`) and the token into each state: (n,) in place, (n, h), (n,)."""
    for i in range(len(states)):
        h = states[i]
        for j in range(contexts.shape[1]):
            x = contexts[i, j]
            h = (h + (np.int64(0) if x == ABSENT else x)) * MULTIPLIER + ONE
        states[i] = (h + tokens[i]) * MULTIPLIER + ONE
