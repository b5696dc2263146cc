"""The owner's sampling distribution at each place, from what the owner's model predicts and how answers were drawn.

The test is exact for any chances that were made without the key, and the served token has no part in them: the
candidates are the model's likeliest tokens whatever was served. Wrong ones only cost evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detect.models.forward import Predictions
from watermark.generate import SamplingUsed

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

FLOOR = 1e-4
"""Least chance of a candidate: settings on record may be wrong, and no bet may come to more than this allows."""


@dataclass(frozen=True, eq=False)
class Chances:
    """Candidates for the next token at n places, and the owner's chances of them.

    Attributes
    ----------
    tokens
        Ids of the spec's tokenizer by falling probability, shape (n, k); -1 for none.
    chances
        Shape (n, k); each row sums to 1, with 0 where there is no token.
    """

    tokens: I32
    chances: F64

    def __len__(self) -> int:
        """How many places."""
        return len(self.tokens)

    @property
    def spread(self) -> F64:
        """1 - sum p^2 of each place, shape (n,): how often two draws differ."""
        return np.asarray(1.0 - np.square(self.chances).sum(axis=1))

    def take(self, chosen: npt.NDArray[Any] | slice) -> Chances:
        """The chosen places."""
        return Chances(self.tokens[chosen], self.chances[chosen])


def chances(predictions: Predictions, settings: Sequence[SamplingUsed], which: npt.NDArray[Any]) -> Chances:
    """The chances that a sampler with these settings gives to what the model predicts.

    Temperature divides logits, which raises probabilities to 1/T. Then tokens are left out by top-k, top-p and min-p,
    each of what the one before has left, as transformers and vLLM do. What remains is normalised, lifted to `FLOOR`
    and normalised again. Of the tokens that were not kept only the mass at temperature 1 is known; for top-p they are
    taken to be as likely as the least one that was.

    Parameters
    ----------
    predictions
        Of the owner's model at n places; every place has one.
    settings
        The different ones.
    which
        Index among them of each place, shape (n,).

    Examples
    --------
    >>> seen = Predictions(np.array([[5, 7, 9]], dtype=np.int32), np.array([[0.5, 0.3, 0.2]], dtype=np.float32))
    >>> warped = chances(seen, [SamplingUsed(top_p=0.7)], np.array([0]))
    >>> warped.tokens.tolist(), np.round(warped.chances, 3).tolist()
    ([[5, 7, 9]], [[0.625, 0.375, 0.0]])
    """
    tokens = np.asarray(predictions.ids, dtype=np.int32)
    out = np.zeros(tokens.shape)
    given = predictions.probabilities.astype(np.float64)
    for number, one in enumerate(settings):
        rows = np.flatnonzero(which == number)
        out[rows] = _warped(np.where(tokens[rows] >= 0, given[rows], 0.0), one)
    live = tokens >= 0
    out = np.where(live, np.maximum(out, FLOOR), 0.0)
    return Chances(tokens, out / out.sum(axis=1, keepdims=True))


def _warped(kept: F64, settings: SamplingUsed) -> F64:
    """Rows (m, k) of probabilities by falling size, 0 for none -> what the sampler leaves of them, normalised."""
    if not len(kept):
        return kept
    if settings.temperature == 0:
        likeliest = np.zeros_like(kept)
        likeliest[:, 0] = 1.0
        return likeliest
    power = 1 / settings.temperature
    # Beside the likeliest one, so that a cold sampler doesn't underflow.
    p = (kept / kept[:, :1]) ** power
    left = np.clip(1 - kept.sum(axis=1), 0, None)
    counts = (kept > 0).sum(axis=1)
    least = kept[np.arange(len(kept)), np.maximum(counts - 1, 0)]
    unseen = left / least * (least / kept[:, 0]) ** power
    if settings.top_k:
        p[:, settings.top_k :] = 0
        if settings.top_k <= kept.shape[1]:
            unseen = np.zeros_like(unseen)
    p /= (p.sum(axis=1) + unseen)[:, None]
    if settings.top_p < 1:
        before = np.cumsum(p, axis=1) - p
        p = np.where(before < settings.top_p, p, 0.0)
    if settings.min_p > 0:
        p = np.where(p >= settings.min_p * p[:, :1], p, 0.0)
    return np.asarray(p / p.sum(axis=1, keepdims=True))
