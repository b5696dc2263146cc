"""Decoy keys: the same test under keys that nobody used, which shows whether the test's own p-values can be believed.

A decoy's key is as independent of the document as the true key is under the null, so its p-value is uniform or larger.
Decoys that look significant mean that the test is broken for this text (or the key is not secret), and then no
p-value is given.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from watermark.formats.protocol import is_format
from watermark.keys import KeyRing, MarkingKey, SecretKey
from watermark.keys.foreign import SALT_BYTES, ForeignKey
from watermark.spec import WatermarkSpec

# Chance that sound decoys are called a contradiction: one report in ten thousand.
LOG10_CONTRADICTION = -4.0


def log10_control_limit(controls: int) -> float:
    """Log10 p at or below which one of so many controls, where no mark can be, contradicts the test (Bonferroni)."""
    return LOG10_CONTRADICTION - math.log10(max(1, controls))


def contradicted(log10_agreement: float, what: str = "decoy keys") -> str | None:
    """Why p-values under unused keys allow no answer, by the log10 p of their agreement; None where they allow one."""
    if log10_agreement < LOG10_CONTRADICTION:
        return (
            f"the {what} contradict the test: their p-values are too small to be uniform "
            f"(log10 p of agreement {log10_agreement:.1f})"
        )
    return None


_MANY = 10_000  # p-values; the exact law takes time in proportion
_KEYS = 1000  # accounts' keys that all decoys have together, at most


def decoy_rings(
    seed: str, count: int, spec: WatermarkSpec, like: KeyRing, *, first: int = 0, accounts: int | None = None
) -> list[KeyRing]:
    """Rings of decoys derived from a public seed, holding the same kinds of keys as ``like``.

    Parameters
    ----------
    seed
        Public.
    count, first
        Decoys number ``first`` to ``count`` - 1.
    spec
        The watermark; a foreign format's decoys are drawn from its own keys.
    like
        The ring of the true keys.
    accounts
        For how many of its accounts a decoy has keys; None: for all.
    """
    scheme = spec.build_scheme()
    rings = []
    for number in range(first, count):
        drawn = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=32, person=b"dyt:decoy").digest()
        if is_format(scheme):
            key = ForeignKey(scheme.name, scheme.draw_key(drawn), drawn[:SALT_BYTES])
            rings.append(KeyRing.from_foreign(key))
            continue
        ring = KeyRing.from_master(SecretKey(drawn), spec.epoch, tuple(like.tenants)[:accounts])
        if like.global_key is None:
            ring = replace(ring, global_key=None)
        rings.append(ring)
    return rings


def decoy_globals(seed: str, count: int, spec: WatermarkSpec, *, first: int = 0) -> list[MarkingKey]:
    """The global keys of decoys number ``first`` to ``count`` - 1, each tested as if it marked every context."""
    rings = decoy_rings(seed, count, spec, KeyRing.from_master(SecretKey(bytes(32)), spec.epoch), first=first)
    return [ring.global_key for ring in rings if ring.global_key is not None]


def accounts_of_decoys(accounts: int, decoys: int) -> int:
    """How many accounts' keys each decoy has: all, while that is little work, else one.

    The p-value of a decoy pays for its own keys, so it is uniform or larger either way. A rank among decoys of fewer
    keys says the same; and a hundred decoys of ten thousand accounts would be a million keys.
    """
    return accounts if accounts * decoys <= _KEYS else min(accounts, 1)


def log10_agreement(log10_pvalues: npt.NDArray[np.float64]) -> float:
    """log10 p-value of "these p-values are independent and uniform or larger".

    The smaller of two tests, doubled: the exact one-sided Kolmogorov-Smirnov statistic D+ (Smirnov 1944; Birnbaum and
    Tingey 1951; for very many p-values Massart's bound on it, 1990) for the bulk, and the smallest p-value,
    1 - (1 - p)^n, for the tail.
    """
    n = len(log10_pvalues)
    if n == 0:
        return 0.0
    from scipy.special import smirnov

    p = np.sort(10.0 ** np.minimum(log10_pvalues, 0.0))
    distance = float(np.max(np.arange(1, n + 1) / n - p))
    if n > _MANY:
        bulk = -2 * n * max(0.0, distance) ** 2 / np.log(10)
    else:
        bulk = 0.0 if distance <= 0 else float(np.log10(max(smirnov(n, min(1.0, distance)), 1e-300)))
    smallest = float(np.min(log10_pvalues))
    tail = float(np.log10(-np.expm1(n * np.log1p(-(10.0**smallest))))) if -12 < smallest < 0 else smallest + np.log10(n)
    return float(min(0.0, min(bulk, tail) + np.log10(2.0)))
