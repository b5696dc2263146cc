"""Whether text that is taken for unmarked carries the mark: the blind test of all that a suspect is shown.

A student copies from its window. What it is shown must therefore be known to be free of the mark, or else be treated as
marked; a record that lost its ``spec_id``, or a prompt that quotes an answer, says nothing of it. The key is at hand,
so it is asked. Line "shown text" of `docs/validity.md`: to refuse by this test is no selection that could make a
finding, since it is decided before the suspect is read, and it refuses sound text with a chance of `LOG10_MARKED`
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detect.calibration import method_of
from detect.decoys import LOG10_CONTRADICTION
from detect.distinct import distinct_tuples
from detect.document import blind_test
from watermark.keys import KeyRing
from watermark.prf import U32
from watermark.spec import WatermarkSpec

LOG10_MARKED = LOG10_CONTRADICTION
"""Text at or below this counts as marked."""
_RANKED_DECOYS = 100


def marked_log10(spec: WatermarkSpec, ring: KeyRing, texts: Sequence[U32]) -> float:
    """Log10 p-value of "no key of the ring marked any of these texts".

    Two tests at half of the level each: of all texts together, every tuple once, and of each text by itself, their
    number paid for (Bonferroni). So neither a little in all texts nor a lot in one stays hidden.

    Parameters
    ----------
    spec, ring
        The watermark and its keys.
    texts
        Token ids of each text, shape (n,) each.
    """
    known = [text for text in texts if len(text) > spec.context_width]
    if not known:
        return 0.0
    width = spec.context_width
    ranked = method_of(spec.build_scheme()) == "ranked"
    decoys = _RANKED_DECOYS if ranked else 0
    # Where one text follows another a few tuples have a context that nobody read; their words are as random as any.
    together = blind_test(spec, ring, distinct_tuples(np.concatenate(known), width), decoy_count=decoys).log10_pvalue
    if ranked or len(known) == 1:
        return together
    alone = min(blind_test(spec, ring, distinct_tuples(text, width), decoy_count=0).log10_pvalue for text in known)
    return min(0.0, min(together, alone + math.log10(len(known))) + math.log10(2))
