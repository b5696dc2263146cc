"""The law test of a plan's regenerated twins, by the owner's model and unrelated ones, before the suspect is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detect.records.twins import LawTest
from detect.twins.controls import law_controls, log_probability
from detect.twins.law import law_test
from detect.twins.measuring import covariates_of
from detect.twins.readings import Readings
from watermark.regenerate import differing
from watermark.twins.pair import Pair


def law_of(pairs: Sequence[Pair], owner: Path, unrelated: Sequence[Path], readings: Readings) -> LawTest:
    """Whether the twins follow the law of the served answers.

    Parameters
    ----------
    pairs
        Regenerated ones, in the order of the bets.
    owner, unrelated
        Folders of the model that made them, and of models that can't have learnt from them.
    readings
        Reads pairs with models.
    """
    controls = law_controls(
        pairs,
        readings.owner_numbers(owner, pairs),
        {folder.name: log_probability(readings.read(folder, pairs), pairs) for folder in unrelated},
        covariates_of(pairs, owner, (), readings),
    )
    return law_test(controls, bets=len(pairs), differing=differing(pairs))
