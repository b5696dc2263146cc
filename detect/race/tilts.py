"""How much of each candidate the key took at a cut: weights whose mean over keys is the owner's chances, exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from watermark.keys import SecretKey
from watermark.spec import WatermarkSpec

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]


def tilts(spec: WatermarkSpec, key: SecretKey, contexts: U32, subkeys: I32, tokens: I32, chances: F64) -> F64:
    """The weights K, shape (s, n, k): under each sub-key that may have marked a cut, s = 1 where all are known.

    Parameters
    ----------
    spec
        The watermark.
    key
        The global key or an account's, which marks all these contexts.
    contexts, subkeys, tokens, chances
        As `detect.race.evidence.RaceEvidence` has them.
    """
    raise NotImplementedError
