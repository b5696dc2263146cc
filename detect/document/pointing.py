"""Which keys the documents of a detection point to, so that no innocent account is named, whoever else is guilty."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detect.laws.multiplicity import holm_log10
from detect.records.detection import AwareHypothesis, Document, Hypothesis


def pointing(
    families: Sequence[Sequence[Hypothesis | AwareHypothesis]], level: float, tests: int | None = None
) -> list[list[str]]:
    """Each document's keys that left their mark there, strongest first.

    Holm's procedure over all pairs of a document and a key. A pair's p-value is right if this key had no say in this
    document, whatever other keys did to it or to others, and Holm needs no independence: equal documents and accounts
    that share contexts are allowed for. So the chance of one wrong pair in the whole report is at most ``level``.

    Parameters
    ----------
    families
        Each document's tests of its keys.
    level
        The family-wise level, in (0, 1).
    tests
        How many pairs were tested, where large families hold only keys that might be named; None for these alone.
    """
    log10_ps = np.array([h.log10_pvalue for family in families for h in family])
    passed = iter((holm_log10(log10_ps, tests) <= math.log10(level)).tolist())
    named = [[h for h, yes in zip(family, passed, strict=False) if yes] for family in families]
    return [[h.key for h in sorted(family, key=lambda h: h.log10_pvalue)] for family in named]


def level_per_test(documents: Sequence[Document], alpha: float) -> float:
    """The level of each test: alpha, or half of it where documents were tested both blindly and with the model."""
    return alpha / 2 if any(d.aware is not None for d in documents) else alpha


def blind_and_aware(documents: Sequence[Document], alpha: float) -> tuple[list[list[str]], list[list[str]]]:
    """`pointing` by the blind and by the model-aware tests, each at its level."""
    level = level_per_test(documents, alpha)
    blind = [d.hypotheses if d.refused is None else [] for d in documents]
    aware = [d.aware.hypotheses if d.aware is not None and d.refused is None else [] for d in documents]
    tested = sum(d.tested for d in documents if d.refused is None)
    return pointing(blind, level, tested), pointing(aware, level, tested if any(aware) else None)
