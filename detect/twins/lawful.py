"""The law test of a plan's regenerated twins, by the owner's model and unrelated ones, before the suspect is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detect.records.twins import LawTest
from detect.twins.controls import law_controls, log_probability
from detect.twins.law import Control, flat, law_test
from detect.twins.measuring import covariates_of
from detect.twins.readings import Readings
from watermark.errors import DyetraceError
from watermark.keys import SecretKey
from watermark.regenerate import UNSERVED, differing
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair


def unserved_pairs(path: Path, secret: SecretKey) -> list[Pair]:
    """The pairs of a ledger of answers that were never served, without equal ones, in the order of time.

    Raises
    ------
    DyetraceError
        It holds others, or none.
    """
    with TwinLedger.open(path, secret) as ledger:
        found = list(ledger.pairs())
    if any(pair.level != "regenerated" or UNSERVED not in pair.engine for pair in found):
        raise DyetraceError(
            f"{path} holds pairs of answers that were served; give a ledger that `dyetrace twins regenerate "
            "--unserved` made"
        )
    kept = [pair for pair in found if not pair.tied]
    if not kept:
        raise DyetraceError(f"{path} holds no pair that says anything; leave --unserved out, or draw more twins")
    return sorted(kept, key=lambda pair: (pair.made, pair.id))


def law_of(
    pairs: Sequence[Pair],
    owner: Path,
    unrelated: Sequence[Path],
    readings: Readings,
    *,
    unserved: Sequence[Pair] = (),
    suspect: Path | None = None,
) -> LawTest:
    """Whether the twins follow the law of the served answers.

    Parameters
    ----------
    pairs
        Regenerated ones, in the order of the bets.
    owner, unrelated
        Folders of the model that made them, and of models that can't have learnt from them.
    readings
        Reads pairs with models.
    unserved
        Regenerated twins of answers that nobody can have learnt from, in the order of time. The owner's model and
        unrelated ones are asked about both kinds: more pairs leave a smaller bias open.
    suspect
        Folder of the suspect, which is asked about ``unserved`` and must prefer neither.
    """
    found = sorted([*pairs, *unserved], key=lambda pair: (pair.made, pair.id))
    controls = law_controls(
        found,
        readings.owner_numbers(owner, found),
        {folder.name: log_probability(readings.read(folder, found), found) for folder in unrelated},
        covariates_of(found, owner, (), readings),
    )
    if suspect is not None and unserved:
        x = log_probability(readings.read(suspect, unserved), unserved)
        covariates = covariates_of(unserved, owner, unrelated, readings)
        signs = np.array([pair.sign for pair in unserved], dtype=np.int8)
        name = "the suspect, on answers that were never served"
        controls.append(Control(name, "unserved", flat(x[:, None], covariates)[:, 0], signs))
    return law_test(controls, bets=len(pairs), differing=differing(found))
