"""How strongly marked text shows its mark: what a forecast, and a verdict on a short text, may say about power.

For planning and for words alone: no p-value depends on it.
"""

from __future__ import annotations

import math
from statistics import NormalDist

ENTROPIES = 0.5, 3.0
"""Nats a token: of predictable text, and of text that is hardly predictable."""

EFFECTS = {"gumbel": (0.33, 1.6), "tournament": (0.3, 1.7), "green_list": (0.2, 0.9)}
"""Standardised excess of a marked token's statistic, mean less expectation over its standard deviation without the key,
at these two entropies, in simulation; at 1 nat benchmarks/power.py measures 0.65, 0.55 and 0.4 on real answers."""


def fewest_tuples(scheme: str, alpha: float) -> int:
    """Of how many tuples the mark is found as often as not, in text that is hardly predictable, under a single key.

    By the normal approximation, n with sqrt(n) times the effect equal to the level's deviation: fewer could hardly show
    a mark at this level, whatever the text.

    Parameters
    ----------
    scheme
        Its name.
    alpha
        Level of the test, in (0, 1).

    Returns
    -------
    int
        0 for a scheme of which no effect is known.

    Examples
    --------
    >>> fewest_tuples("gumbel", 1e-6)
    9
    """
    if scheme not in EFFECTS:
        return 0
    deviation = max(0.0, -NormalDist().inv_cdf(max(alpha, 1e-300)))
    return math.ceil((deviation / EFFECTS[scheme][1]) ** 2)
