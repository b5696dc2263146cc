"""The exact tail of a count of hits: a sum of independent events of different chances (Poisson-binomial)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def log10_tail(chances: F64, hits: int) -> float:
    """Log10 of the chance of ``hits`` or more of independent events with these chances, shape (n,)."""
    raise NotImplementedError
