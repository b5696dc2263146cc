"""Whether what is read is what it is taken for: text without the mark is free of it, marked answers carry it.

A student copies from its window. What it is shown must therefore be known to be free of the mark, or else be treated as
marked; a record that lost its ``spec_id``, or a prompt that quotes an answer, says nothing of it. And where marked
answers do not show it under the sub-keys that they name, a guilty student must not go free without a word. The key is
at hand, so it is asked. Line "shown text" of `docs/validity.md`: to refuse by this test is no selection that could make
a finding, since it is decided before the suspect is read, and it refuses sound text with a chance of `LOG10_MARKED`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detect.document.blind import blind_test
from detect.keyed.calibration import method_of
from detect.keyed.decoys import LOG10_CONTRADICTION
from detect.keyed.owners import tested_keys
from detect.models.reading import ReadingText, context_fingerprints
from detect.student.verdict.hypothesis import key_test
from detect.student.verdict.weights import gathered
from detect.text.distinct import distinct_tuples, first_occurrences
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_exact
from watermark.keys import KeyRing
from watermark.prf import U32
from watermark.spec import WatermarkSpec

LOG10_MARKED = LOG10_CONTRADICTION
"""Text at or below this counts as marked."""
_RANKED_DECOYS = 100
_ENOUGH = 200  # contexts of marked answers that show the mark, unless they are all but predictable


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


def check_unmarked(text: ReadingText, spec: WatermarkSpec, ring: KeyRing) -> float:
    """Log10 p of the mark in a text that is taken for unmarked; DyetraceError where it is there."""
    found = marked_log10(spec, ring, [document.sequence[document.lead :] for document in text.documents])
    if found <= LOG10_MARKED:
        raise DyetraceError(
            f"{text.name} is taken for text without the mark, as its records don't name this spec, and yet it carries "
            f"the mark (p = 10^{found:.1f}): a model that only copies what it reads would look guilty. Served answers "
            "need their 'spec_id' (JSONL of `dyetrace generate`); other text must be free of the mark"
        )
    return found


def not_carried(text: ReadingText, spec: WatermarkSpec, ring: KeyRing) -> str | None:
    """Why marked answers that don't show their mark under the sub-keys that they name allow no acquittal.

    A finding needs no such test. But where spec, sub-keys or ids on record are not those of what was served, a guilty
    student shows nothing either. Few contexts tell nothing of that; formats whose p-values are ranks are not asked.
    """
    if not is_exact(spec.build_scheme()):
        return None
    width = spec.context_width
    rows, prints, subkeys, tokens = [], [], [], []
    for document in text.documents:
        here = context_fingerprints(document.sequence, width)[:-1]  # the last context has no token yet
        at = np.flatnonzero(first_occurrences(here)) + width if len(here) else np.empty(0, dtype=np.int64)
        at = at[at >= max(document.lead, width)]
        rows.append(document.sequence[at[:, None] - np.arange(width, 0, -1)])
        prints.append(here[at - width].astype(np.int64) ^ (document.subkey + 1))
        subkeys.append(np.full(len(at), document.subkey, dtype=np.int64))
        tokens.append(document.sequence[at].astype(np.int64))
    contexts, said = np.concatenate(rows), np.concatenate(tokens)[:, None]
    if len(contexts) < _ENOUGH:
        return None
    tuples = gathered(contexts, np.concatenate(prints), np.concatenate(subkeys), said, np.ones(said.shape))
    keys = tested_keys(spec, ring)
    found = 0.0
    for name, key in keys.items():
        test = key_test(spec, ring.selector, tuples, of_global=name.is_global)
        found = min(found, float(test.log10_pvalues(test.totals([key]))[0]) + math.log10(len(keys)))
    if found <= LOG10_MARKED:
        return None
    return (
        f"nothing was found, but the answers of {text.name} do not carry the mark themselves under the sub-keys that "
        f"they name (p = {10 ** min(0.0, found):.2g}): their spec_id, sub-keys or token ids may not be those of what "
        "was served, or the text is too predictable, so that this says nothing of the suspect"
    )
