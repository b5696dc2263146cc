"""How much of each candidate the key took at a cut: weights whose mean over keys is the owner's chances, exactly.

Where nobody recorded which sub-key marked an answer, there are weights under each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detect.keyed.choices import candidate_words, choices, keyed_scheme
from watermark.keys import SecretKey
from watermark.rowkeys import subkey
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

    Raises
    ------
    DyetraceError
        The scheme is none of ours.
    """
    scheme = keyed_scheme(spec.build_scheme())
    known = bool((subkeys >= 0).all())
    found = np.zeros((1 if known else spec.subkeys, *chances.shape))
    for index in range(spec.subkeys):
        mine = np.flatnonzero((subkeys == index) | (subkeys < 0))
        if not len(mine):
            continue
        words = candidate_words(subkey(key, index), contexts[mine], tokens[mine])
        weights = choices(scheme, words, chances[mine])
        if known:
            found[0, mine] = weights
            continue
        sure = subkeys[mine] >= 0
        found[:, mine[sure]] = weights[sure]
        found[index, mine[~sure]] = weights[~sure]
    return found
