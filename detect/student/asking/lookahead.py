"""Whether the log-probabilities that an endpoint gives of a text look ahead, as a model's do that sees both sides.

Such a model "predicts" the very words that it is shown, so that an innocent one is found. Two texts that begin alike
give it away: what follows must not show in the places before, and no place can make two words near certain. Models at
hand have the same test (`detect.models.soundness`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detect.student.asking.answers import Prompted, TokenLogprob

F64 = npt.NDArray[np.float64]

AHEAD = "what follows a place shows in its log-probabilities, as in a model that looks at both sides"

NOISE = 0.05
"""Mean change of log-probabilities, in their standard deviations over places, that rounding in half precision and other
batches may cause: it causes 0.01 or so, and the demo model without its causal mask 0.16."""
_LEAST_SD = 0.02
_LARGEST = 5.0  # nats of one change that count, so that a single rare token decides nothing
_CERTAIN = 1.1  # what the probabilities of two words at one place may add up to
_FEWEST = 4


def looks_ahead(one: F64, two: F64, parted: tuple[float, float] = (-math.inf, -math.inf)) -> bool:
    """Whether two texts' log-probabilities say that places see what follows them.

    Parameters
    ----------
    one, two
        Of the same tokens after the same tokens, in either text; NaN where unknown. Shape (n,).
    parted
        Of the two tokens at the place where the texts part.
    """
    known = np.isfinite(one) & np.isfinite(two)
    if math.fsum(math.exp(log) for log in parted if not math.isnan(log)) > _CERTAIN:
        return True
    if int(known.sum()) < _FEWEST:
        return False
    changes = np.minimum(np.abs(one[known] - two[known]), _LARGEST)
    spread = float(np.concatenate([one[known], two[known]]).std())
    return float(changes.mean()) > NOISE * max(spread, _LEAST_SD)


def prompt_looks_ahead(one: Prompted, two: Prompted) -> bool:
    """`looks_ahead` of two prompts that begin alike, by the log-probabilities of their tokens."""
    first, second = (read.tokens[: len(read.tokens) - read.written] for read in (one, two))
    same = next(
        (n for n, pair in enumerate(zip(first, second, strict=False)) if _name(pair[0]) != _name(pair[1])), None
    )
    if same is None:  # the one is the other's beginning
        same = min(len(first), len(second))
        return looks_ahead(_logs(first[:same]), _logs(second[:same]))
    return looks_ahead(_logs(first[:same]), _logs(second[:same]), (first[same].logprob, second[same].logprob))


def _name(token: TokenLogprob) -> tuple[str, bytes, int | None]:
    return token.text, token.raw, token.id


def _logs(tokens: Sequence[TokenLogprob]) -> F64:
    return np.array([token.logprob for token in tokens], dtype=np.float64)
