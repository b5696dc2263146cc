"""The law of one tuple's statistic under the null: plain data that a scheme declares and `detect.laws.tails` evaluates.

A statistic is an integer number of units (see `Scheme.unit`), so that sums are exact, order-free and mergeable.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """1 with probability ``gamma``, else 0 (a token is green, Kirchenbauer et al. 2023, section 3)."""

    gamma: float


@dataclass(frozen=True, slots=True)
class Exponential:
    """Standard exponential, in nats (``-log(1 - u)`` of a uniform u, Aaronson 2022); n of them sum to Gamma(n, 1)."""


@dataclass(frozen=True, slots=True)
class Hypoexponential:
    """Sum of two independent exponentials with the means ``weights``, in nats (two keys that may have chosen)."""

    weights: tuple[float, float]


@dataclass(frozen=True, slots=True)
class WeightedBits:
    """Sum of independent fair bits, bit l carrying the positive integer ``weights[l]`` (the layers of a tournament)."""

    weights: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lattice:
    """Any finite table: the integer ``values[i]`` with probability ``probabilities[i]`` (they sum to 1)."""

    values: tuple[int, ...]
    probabilities: tuple[float, ...]


Law = Bernoulli | Exponential | Hypoexponential | WeightedBits | Lattice


def in_nats(law: Law) -> bool:
    """Whether totals of the law are real numbers of nats; else they are integers."""
    return isinstance(law, Exponential | Hypoexponential)
