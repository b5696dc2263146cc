"""What covariates explain of a pair's numbers, by a regression through the origin on the pairs before it.

A product of two numbers that flip with a pair is the same when it is swapped: no coin has a say in it, and no later
pair, which may be what an earlier coin led to.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


class EarlierPairs:
    """The products of earlier pairs' numbers, pair after pair.

    Parameters
    ----------
    covariates, numbers
        How many of each.
    ridge
        Pairs' worth of "no influence" that each covariate's influence starts from.
    """

    def __init__(self, covariates: int, numbers: int, ridge: float) -> None:
        self._products = np.zeros((covariates, covariates))
        self._moments = np.zeros((covariates, numbers))
        self._ridge, self._seen = ridge, 0

    def explained(self, z: F64) -> F64:
        """Shape (numbers,), by what earlier pairs say of the influence of the covariates ``z``; zeros at first."""
        if not self._seen:
            return np.zeros(self._moments.shape[1])
        diagonal = np.diag(self._products)
        ridge = np.where(diagonal > 0, diagonal * (self._ridge / self._seen), 1.0)
        found: F64 = z @ np.linalg.solve(self._products + np.diag(ridge), self._moments)
        return found

    def add(self, z: F64, x: F64) -> None:
        """Take a pair in: covariates ``z`` and numbers ``x``."""
        self._products += np.outer(z, z)
        self._moments += np.outer(z, x)
        self._seen += 1
