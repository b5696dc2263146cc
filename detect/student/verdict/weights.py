"""From what models predict to the weight of each (context, token): readouts, references, context weights, rounding.

Readouts and references are decided without the key, or from earlier words alone. So, given the weights, each step of
the trace's total is a weighted sum of independent scores whose law is known, whatever the suspect and the references
are, as long as none of them learnt from text that was marked with the key and is not in question (a reference that did
is caught by its own control). What of the served answers may have a say is in `gathered_served`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from watermark.prf import U32

Floats = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

Served = Mapping[int, Mapping[int, int]]
"""Context fingerprint -> sub-key (-1: any) -> in how many answers it was served so."""
Readout = Literal["argmax", "mass", "entropy", "log", "reference"]
READOUTS: tuple[Readout, ...] = get_args(Readout)
STEPS = 32  # of a weight of 1; finer steps double the number of tuples and add nothing to the signal
LARGEST_WEIGHT = 2 * STEPS  # the largest readout
HALF = 1.0
"""Served answers at which a context weighs half of what it can weigh at most."""
_BEFORE_SHARES = 256  # positions
_FLOOR = 1e-5  # probabilities below are as good as this: their logarithms are noise
_CLIP = 2.0  # nats


def readout(name: Readout, suspect: Floats, reference: Floats | None) -> Floats:
    """Weigh the candidates of each context: probabilities (n, m) -> weights (n, m).

    Parameters
    ----------
    name
        ``argmax``: 1 for the likeliest token (the radioactivity test, Sander et al. 2024); ``mass``: q; ``entropy``:
        q (1 - q); ``log``: sqrt(q) (log q + H), H the candidates' entropy; ``reference``:
        sqrt((q + r) / 2) clip(log(q / r), -2, 2).
    suspect
        q, shape (n, m); 0 where there is no candidate.
    reference
        r, shape (n, m), for ``reference``.

    Raises
    ------
    ValueError
        No such readout, or no reference where one is needed.
    """
    q, weights = suspect, None
    match name:
        case "argmax":
            weights = np.arange(q.shape[1]) == q.argmax(axis=1)[:, None]
        case "mass":
            weights = q
        case "entropy":
            weights = q * (1 - q)
        case "log":
            log_q = np.log(np.maximum(q, _FLOOR))
            weights = np.sqrt(q) * (log_q - (q * log_q).sum(axis=1, keepdims=True))
        case "reference" if reference is not None:
            r = reference
            ratio = np.log(np.maximum(q, _FLOOR)) - np.log(np.maximum(r, _FLOOR))
            weights = np.sqrt((q + r) / 2) * np.clip(ratio, -_CLIP, _CLIP)
        case "reference":
            raise ValueError("the readout 'reference' needs a reference's probabilities")
    if weights is not None:
        return np.asarray(weights, dtype=np.float64)
    raise ValueError(f"readout ({name!r}) must be one of {', '.join(READOUTS)}")


def mixture_shares(suspect: Floats, references: Floats, rounds: int = 100) -> Floats:
    """Shares of several references in the mixture that predicts the suspect best, by expectation maximisation.

    Parameters
    ----------
    suspect
        q, shape (n, m).
    references
        r, shape (k, n, m).
    rounds
        Of EM (Dempster, Laird and Rubin 1977); each raises sum q log(sum_i share_i r_i).

    Returns
    -------
    Shape (k,), summing to 1. A bad reference gets next to nothing; and no share looks at a key.
    """
    shares = np.ones(len(references)) / max(1, len(references))
    if len(references) < 2:
        return shares
    # Some thousand contexts decide as well as all of them.
    few = slice(None, None, max(1, suspect.shape[0] // 2000))
    q, r = suspect[few], np.maximum(references[:, few], 1e-9)
    some = q > 0  # the rest adds nothing
    q, r = q[some], np.ascontiguousarray(r[:, some])
    for _ in range(rounds):
        mixed = np.einsum("k,kn->n", shares, r)
        shares = shares * np.einsum("kn,n->k", r, q / mixed)
        shares /= shares.sum()
    return shares


def growing_shares(suspect: Floats, references: Floats) -> Floats:
    """`mixture_shares` of each position from the positions before it alone: (n, m), (k, n, m) -> (n, k).

    What a model predicts in marked text depends on the text's words, and so on the key. Shares that were fitted to all
    of it would give earlier positions weights that depend on later words, which no bet may. They are fitted anew each
    time that the positions have doubled; the first `_BEFORE_SHARES` have equal shares.
    """
    k, n = len(references), len(suspect)
    shares = np.full((n, k), 1 / max(1, k))
    start = _BEFORE_SHARES
    while k > 1 and start < n:
        shares[start:] = mixture_shares(suspect[:start], references[:, :start])
        start *= 2
    return shares


def context_weight(counts: npt.ArrayLike) -> Floats:
    """2 f / (f + `HALF`) for contexts that were served f times: 1 for one answer; what is remembered saturates."""
    f = np.asarray(counts, dtype=np.float64)
    return (1 + HALF) * f / (f + HALF)


@dataclass(frozen=True, eq=False)
class WeightedTuples:
    """Distinct (context, token) pairs with the integer weight of their score, grouped by context.

    Attributes
    ----------
    contexts
        Distinct contexts in reading order, shape (c, h), oldest token first.
    context
        Index into ``contexts`` of each tuple, shape (n,), ascending.
    tokens
        Shape (n,).
    weights
        Integers of either sign, none 0, shape (n,).
    subkeys
        The sub-key of each context that is in question, shape (c,); -1 means all of them.
    """

    contexts: U32
    context: I64
    tokens: U32
    weights: I64
    subkeys: I64

    def __len__(self) -> int:
        return len(self.tokens)

    def of_contexts(self, chosen: npt.NDArray[np.bool_]) -> WeightedTuples:
        """Only the tuples of the chosen contexts, (c,) bool."""
        number = np.cumsum(chosen) - 1
        kept = chosen[self.context]
        return WeightedTuples(
            self.contexts[chosen],
            number[self.context[kept]],
            self.tokens[kept],
            self.weights[kept],
            self.subkeys[chosen],
        )

    def first(self, contexts: int) -> WeightedTuples:
        """Only the first so many contexts."""
        return self.of_contexts(np.arange(len(self.contexts)) < contexts)


def rounded(weights: Floats) -> I64:
    """Integers of at most `LARGEST_WEIGHT`: the tail is then that of a short lattice.

    The step is fixed: it depends neither on the key nor on later readings.
    """
    return np.clip(np.rint(weights * STEPS), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int64)


def gathered(
    contexts: U32,
    groups: I64,
    subkeys: I64,
    tokens: I64,
    weights: Floats,
    context_weights: Floats | None = None,
) -> WeightedTuples:
    """Sum the weights of each token over the prefixes in which its context was read, and round.

    Parameters
    ----------
    contexts
        One for each reading, shape (n, h).
    groups
        Which readings are of one context, shape (n,): equal numbers for equal contexts.
    subkeys
        Of each reading, shape (n,).
    tokens, weights
        Candidates of each reading and their weights, shape (n, m); tokens below 0 are no candidates.
    context_weights
        Of each reading's context, shape (n,).

    Notes
    -----
    A context read k times gives the sum over its readings divided by sqrt(k): what it remembers is common to them, and
    the rest varies.
    """
    _, first, group, times = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)  # contexts in reading order
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    number = place[group]
    scaled = weights / np.sqrt(times[group])[:, None]
    if context_weights is not None:
        scaled = scaled * context_weights[:, None]
    real = tokens >= 0
    tuples = (number[:, None] << 32 | np.maximum(tokens, 0))[real]
    distinct, where = np.unique(tuples, return_inverse=True)
    sums = np.bincount(where, weights=scaled[real], minlength=len(distinct))
    summed = rounded(sums.astype(np.float64))
    kept = summed != 0
    distinct = distinct[kept]
    return WeightedTuples(
        np.ascontiguousarray(contexts[first[order]]),
        distinct >> 32,
        (distinct & 0xFFFFFFFF).astype(np.uint32),
        summed[kept],
        subkeys[first[order]],
    )


def gathered_served(
    contexts: U32,
    fingerprints: U64,
    served: Served,
    tokens: I64,
    weights: Floats,
    *,
    marked: bool,
) -> WeightedTuples:
    """`gathered`, each context under the sub-keys that it was served with; unmarked answers' weigh by their count.

    A context that was served under several sub-keys counts under each; one that was never served, not at all.

    Counts of marked answers are the key's own work: a word decides what comes up after it, and what customers ask next
    (line "served counts" of `docs/validity.md`). So of marked answers every context that was served weighs alike. Lay
    them open in the order in which they were served, token by token: that (c, k) comes up is known before the word that
    follows it there is. So every weight is fixed before the words that it weighs, and the e-value is a test
    martingale's.

    Parameters
    ----------
    contexts, tokens, weights
        As for `gathered`.
    fingerprints
        Of each reading's context, shape (n,).
    served
        Fingerprint -> sub-key -> number of answers (`detect.models.reading.served_subkeys`).
    marked
        Whether the served answers were marked with the key in question.
    """
    under = [list(served.get(value, {}).items()) for value in fingerprints.tolist()]
    row = np.repeat(np.arange(len(under)), [len(some) for some in under])
    pairs = [pair for some in under for pair in some]
    subkeys = np.array([subkey for subkey, _ in pairs], dtype=np.int64)
    counts = np.array([count for _, count in pairs], dtype=np.float64)
    _, group = np.unique(np.stack([fingerprints[row].view(np.int64), subkeys]), axis=1, return_inverse=True)
    weighed = np.ones(len(counts)) if marked else context_weight(counts)
    return gathered(contexts[row], group.ravel(), subkeys, tokens[row], weights[row], weighed)


def joined(parts: Sequence[WeightedTuples]) -> WeightedTuples:
    """Several readings' tuples as one; they must not share a context under one sub-key."""
    starts = np.cumsum([0, *(len(part.contexts) for part in parts)])
    return WeightedTuples(
        np.concatenate([part.contexts for part in parts]),
        np.concatenate([part.context + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.subkeys for part in parts]),
    )
