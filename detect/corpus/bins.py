"""Bins of one tuple's statistic: what a histogram over a corpus and the scores of marked stretches are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detect.laws.evalues import value_table
from detect.laws.tails import log10_sf_many
from watermark.backends.numba_backend import jit
from watermark.laws import Law, in_nats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_BINS = 1024
_NATS_BITS = 4  # an exponential statistic is sorted into bins of 2^-4 nats
_MOST_NATS = 32 * math.log(2)  # of a 32-bit word


@dataclass(frozen=True)
class StatisticBins:
    """Bin i holds the statistics ``lowest + (i << shift)`` and following; the last one all above as well.

    Attributes
    ----------
    law, unit
        Of the scheme.
    lowest, shift, count
        Integers; ``lowest`` in the scheme's units.
    """

    law: Law
    unit: float
    lowest: int
    shift: int
    count: int

    @classmethod
    def of_law(cls, law: Law, unit: float) -> StatisticBins:
        """Single values of a short lattice; 2^-4 nats where it is in nats, whose unit must be a power of two below."""
        if in_nats(law):
            shift = round(-math.log2(unit)) - _NATS_BITS
            if shift < 0 or 2.0 ** -(shift + _NATS_BITS) != unit:
                raise ValueError(f"unit must be a power of two of at most 2^-{_NATS_BITS} nats, got {unit}")
            return cls(law, unit, 0, shift, int(_MOST_NATS * 2**_NATS_BITS) + 1)
        values, _ = value_table(law)
        low, high = int(values.min()), int(values.max())
        shift = max(0, math.ceil(math.log2((high - low + 1) / _MOST_BINS)))
        return cls(law, unit, low, shift, ((high - low) >> shift) + 1)

    def of(self, statistics: Ints) -> Ints:
        """The bin of each statistic."""
        bins: Ints = np.minimum((statistics - self.lowest) >> self.shift, self.count - 1)
        return bins

    @property
    def least_values(self) -> Floats:
        """The least statistic of each bin, (count,): in nats where the law is, else in units of the law's values."""
        edges: Floats = (self.lowest + (np.arange(self.count, dtype=np.int64) << self.shift)).astype(np.float64)
        return edges * self.unit if in_nats(self.law) else edges

    @property
    def log10_survival(self) -> Floats:
        """Log10 P(statistic >= least value of the bin) under the null, (count,)."""
        return log10_sf_many(self.law, 1, self.least_values)

    def add(self, statistics: Ints, histogram: Ints) -> None:
        """Count statistics (n,) into ``histogram``, int64 (count,)."""
        _add(statistics, self.lowest, self.shift, histogram)


@jit()
def _add(statistics: Ints, lowest: int, shift: int, histogram: Ints) -> None:
    last = len(histogram) - 1
    for i in range(len(statistics)):
        histogram[min((statistics[i] - lowest) >> shift, last)] += 1
