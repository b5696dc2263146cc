"""How a p-value comes about: the law's tail where words deserve it, else a bound on it, or a rank among decoy keys.

* **law**: words of distinct tuples are independent and uniform for a random key, so the law's tail is the p-value. All
  schemes of dyetrace, and foreign formats with a proper keyed function.
* **bounded**: the words come from a generator under a short seed. Words of distinct seeds behave like independent
  draws, and those of one seed's permutation like draws without replacement, whose number of hits is a sum of
  independent trials with the same mean [1]_, so that from one above the mean on the binomial tail bounds theirs [2]_.
  But there are only 2^b seeds, and no key can show more than that: p is the law's tail plus 2^-b.
* **ranked**: tuples hang together whatever the key. Then the true key is compared with keys drawn as an operator would
  draw them: p = (1 + decoys at least as extreme) / (1 + decoys), which needs nothing but that the true key was drawn
  like them, before the text was written [3]_. It cannot be below 1 / (1 + decoys), so decoys are added in stages while
  fewer than `FEW` are as extreme. Where none is in the end and the format can prove a
  bound (``log10_bound``), that stands in: levels below the floor are reached by it alone, larger ones by the rank.

A sequence of stages keeps the p-value valid: to end at or below a level alpha below the smallest p at which a stage
stops, later stages are reached, each of which alone has that chance at most; at larger levels the event is one of the
stage's own.

References
----------
.. [1] V. A. Vatutin and V. G. Mikhailov, "Limit theorems for the number of empty cells in an equiprobable scheme for
   group allocation of particles", Theory Probab. Appl. 27, 1982 (hypergeometric as a sum of independent trials).
.. [2] W. Hoeffding, "On the distribution of the number of successes in independent trials", Ann. Math. Statist. 27,
   1956, theorem 5.
.. [3] J. Besag and P. Clifford, "Sequential Monte Carlo p-values", Biometrika 78, 1991.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from detect.keyed.words import signed
from detect.text.distinct import Tuples
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_format
from watermark.keys import MarkingKey
from watermark.keys.foreign import ForeignKey
from watermark.schemes.protocol import Scheme

Floats = npt.NDArray[np.float64]
Method = Literal["law", "bounded", "ranked"]

FEW = 5
"""Decoys as extreme as the true key below which a rank is taken further."""
_STAGE = 10  # times as many decoys in each stage
_STAGES = 3
_WORDS = 1 << 28  # that later stages may compute


def method_of(scheme: Scheme) -> Method:
    """How p-values of a scheme or format come about."""
    if not is_format(scheme) or scheme.exact:
        return "law"
    return "bounded" if scheme.seed_bits else "ranked"


def explanation(scheme: Scheme, *, by_rank: bool = False) -> str | None:
    """What a report says of the p-values of a format that is not exact; None where they are the law's.

    Parameters
    ----------
    scheme
        The scheme or format.
    by_rank
        Whether a bounded format was ranked all the same, as over a corpus or in a trace.
    """
    if not is_format(scheme) or scheme.exact:
        return None
    why = f"p-values of {scheme.name} are not exact: {scheme.why_not_exact.rstrip('.')}. "
    if scheme.seed_bits and not by_rank:
        return why + f"They are the law's tail plus 2^-{scheme.seed_bits}, below which no key of the format shows more"
    more = "so more decoys (--decoys) show more"
    if hasattr(scheme, "log10_bound") and not by_rank:
        more = "where none is as extreme, a bound takes over that holds for every text"
    return why + (
        "They are the true key's rank among decoy keys of the format, and hold if the key was drawn at random before "
        f"the text was written; they cannot be below 1 / (1 + decoys), {more}"
    )


def bounded_log10(scheme: Scheme, log10_ps: npt.ArrayLike) -> Floats:
    """The law's log10 tails with the bound of the format's seeds added, elementwise; as they are for other schemes."""
    tails = np.asarray(log10_ps, dtype=np.float64)
    if method_of(scheme) != "bounded":
        return tails
    floor = -scheme.seed_bits * math.log10(2)  # type: ignore[attr-defined]
    return np.asarray(np.minimum(0.0, np.logaddexp(tails * math.log(10), floor * math.log(10)) / math.log(10)))


def rank_log10(as_extreme: npt.ArrayLike, decoys: npt.ArrayLike) -> Floats:
    """Log10 of (1 + decoys at least as extreme) / (1 + decoys), elementwise."""
    return np.asarray(np.log10((1.0 + np.asarray(as_extreme)) / (1.0 + np.asarray(decoys))))


def ranks_of_decoys_log10(totals: npt.NDArray[np.int64]) -> Floats:
    """Log10 of each decoy's own rank among all of them, by their totals: (n,) -> (n,)."""
    as_large = len(totals) - np.searchsorted(np.sort(totals), totals)
    return rank_log10(as_large - 1, len(totals) - 1)


def ranked_log10(scheme: Scheme, key: MarkingKey, tuples: Tuples, as_extreme: int, decoys: int) -> float:
    """Log10 of a rank's p-value; where no decoy is as extreme, the format's own bound where that is smaller.

    Parameters
    ----------
    scheme, key
        A ranked format and the true key.
    tuples
        Those that count.
    as_extreme, decoys
        As `staged_rank` gives them.
    """
    log10_p = float(rank_log10(as_extreme, decoys))
    bound = getattr(scheme, "log10_bound", None)
    if as_extreme or bound is None or not isinstance(key, ForeignKey):
        return log10_p
    contexts = signed(tuples.contexts)
    return min(log10_p, float(bound(key.native, contexts, tuples.tokens.astype(np.int64))))


def stages(decoys: int, tuples: int) -> list[int]:
    """How many decoys are drawn in all at the end of each stage, as far as the words they take are worth it.

    Raises
    ------
    DyetraceError
        No decoys at all: there would be nothing to compare with.
    """
    if decoys < 1:
        raise DyetraceError(
            "p-values of this format come from decoy keys, so there must be some: give --decoys 100 (a trace through "
            "an endpoint has them from `dyetrace trace plan`)"
        )
    sizes = [decoys * _STAGE**step for step in range(_STAGES)]
    return [size for size in sizes if size == decoys or size * tuples <= _WORDS]


def staged_rank(most_extreme: float, tails: Callable[[int, int], Floats], sizes: list[int]) -> tuple[int, int]:
    """How many decoys are at least as extreme as the true key, and among how many drawn.

    Parameters
    ----------
    most_extreme
        The true key's log10 tail; smaller is more extreme.
    tails
        ``tails(first, last)`` gives those of decoys number first .. last - 1.
    sizes
        As `stages` gives them.
    """
    exceeding, drawn = 0, 0
    for size in sizes:
        exceeding += int(np.sum(tails(drawn, size) <= most_extreme))
        drawn = size
        if exceeding >= FEW:
            break
    return exceeding, drawn
