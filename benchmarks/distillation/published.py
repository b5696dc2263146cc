"""The two published tests of a suspect student, from their formulas, as the yardstick of our own.

Sander, Fernandez, Durmus, Douze and Furon, "Watermarking Makes Language Models Radioactive" (2024, arXiv 2402.14904):
the open-model test in reading mode, and the closed-model test with the filter on contexts. Both score distinct
(context, token) tuples once each, without weights and without a reference. Theirs is the choice of tuples; the tail is
our exact one, which does them no harm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from detect.models.reading import context_fingerprints
from detect.student.verdict.weights import WeightedTuples
from watermark.prf import U32

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


def reading_mode(contexts: U32, fingerprints: U64, subkeys: I64, likeliest: I64) -> WeightedTuples:
    """The open-model test: at each position the suspect's likeliest token, each (context, token) once.

    Parameters
    ----------
    contexts
        Of each position, shape (n, h).
    fingerprints
        Of the contexts, shape (n,).
    subkeys
        Of each position, -1 where unknown, shape (n,).
    likeliest
        The suspect's argmax at each position, shape (n,).
    """
    return _once(contexts, fingerprints, subkeys, likeliest)


def closed_model(answers: Iterable[U32], served: Mapping[int, Collection[int]], width: int) -> WeightedTuples:
    """The closed-model test: what the suspect wrote, where the context was in the served answers, each tuple once.

    Parameters
    ----------
    answers
        Token ids of each answer of the suspect.
    served
        Fingerprint of each context that was served -> the sub-keys in question there, -1 for all (the filter;
        a filter on whole tuples would not be valid).
    width
        h.
    """
    contexts, prints, tokens = [np.empty((0, width), np.uint32)], [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for ids in answers:
        if len(ids) <= width:
            continue
        here = context_fingerprints(ids, width)[:-1]
        at = np.flatnonzero([value in served for value in here.tolist()])
        contexts.append(np.lib.stride_tricks.sliding_window_view(ids, width)[at].astype(np.uint32))
        prints.append(here[at])
        tokens.append(ids[at + width].astype(np.int64))
    whole = np.concatenate(tokens)
    seen = np.concatenate(prints)
    row, subkeys = under(seen, served)
    return _once(np.concatenate(contexts)[row], seen[row], subkeys, whole[row])


def under(fingerprints: U64, served: Mapping[int, Collection[int]]) -> tuple[I64, I64]:
    """Rows of contexts and the sub-keys in question there, each (m,): a context served under several has several."""
    each = [list(served.get(value, ())) for value in fingerprints.tolist()]
    rows = np.repeat(np.arange(len(each)), [len(some) for some in each])
    return rows.astype(np.int64), np.array([subkey for some in each for subkey in some], dtype=np.int64)


def _once(contexts: U32, fingerprints: U64, subkeys: I64, tokens: I64) -> WeightedTuples:
    marks = np.stack([fingerprints.view(np.int64), subkeys])
    _, first, group = np.unique(marks, axis=1, return_index=True, return_inverse=True)
    group = group.ravel()
    order = np.argsort(first)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    tuples = np.unique(place[group] << 32 | tokens)
    return WeightedTuples(
        np.ascontiguousarray(contexts[first[order]]),
        tuples >> 32,
        (tuples & 0xFFFFFFFF).astype(np.uint32),
        np.ones(len(tuples), dtype=np.int64),
        subkeys[first[order]],
    )
