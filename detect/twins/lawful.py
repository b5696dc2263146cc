"""The law test of a plan's regenerated twins, by the owner's model and unrelated ones, before the suspect is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detect.records.twins import LawTest
from detect.twins.controls import Beside, law_controls, leading, log_probability
from detect.twins.law import Control, flat, law_test
from detect.twins.measuring import covariates_of
from detect.twins.preparing import TwinsJob
from detect.twins.readings import Readings
from detect.twins.selection import Level, bet_order
from watermark.errors import DyetraceError
from watermark.keys import SecretKey
from watermark.regenerate import UNSERVED, differing
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair

_NEVER_SERVED = "on answers that were never served"


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
    return sorted(kept, key=bet_order)


def law_of_job(
    job: TwinsJob, level: Level, pairs: Sequence[Pair], readings: Readings, *, suspect: Path | None = None
) -> LawTest | None:
    """The law test that a command asks for (`law_of`); None for withheld twins, which rest on their coins alone."""
    if level == "withheld":
        return None
    assert job.owner is not None  # `preparing.prepare` refuses twins that were drawn later without it
    unserved = () if job.unserved is None else unserved_pairs(job.unserved, job.secret)
    return law_of(pairs, job.owner, job.controls, readings, reference=job.reference, unserved=unserved, suspect=suspect)


def names_of(folders: Sequence[Path]) -> dict[Path, str]:
    """What folders are called: by their last part, or whole where others end alike.

    Examples
    --------
    >>> sorted(names_of([Path("one/model"), Path("two/model"), Path("three/gemma")]).values())
    ['gemma', 'one/model', 'two/model']
    """
    ends = Counter(folder.name for folder in folders)
    return {folder: folder.name if ends[folder.name] == 1 else folder.as_posix() for folder in folders}


def law_of(
    pairs: Sequence[Pair],
    owner: Path,
    unrelated: Sequence[Path],
    readings: Readings,
    *,
    reference: Path | None = None,
    unserved: Sequence[Pair] = (),
    suspect: Path | None = None,
) -> LawTest:
    """Whether the twins follow the law of the served answers.

    Parameters
    ----------
    pairs
        Regenerated ones, in the order of the bets: those that are bet on and no others, since what is bounded is the
        bias of their average.
    owner, unrelated
        Folders of the model that made them, and of models that can't have learnt from them.
    readings
        Reads pairs with models.
    reference
        Folder of the model that the suspect is compared with. Controls are compared with it too, and it is one of them
        (`law_controls` says why).
    unserved
        Regenerated twins of answers that nobody can have learnt from, in the order of time. The owner's model and
        unrelated ones are asked about them by themselves, and can refuse. They bound no bias: pooled with the pairs
        that are bet on, answers of the right law would hide that those are of another.
    suspect
        Folder of the suspect, which is asked about ``unserved`` and must prefer neither.
    """
    names = names_of(unrelated)

    def beside_of(some: Sequence[Pair]) -> Beside | None:
        if reference is None:
            return None
        same = readings.seen(reference).sha256
        read = readings.read(reference, some)
        others = [folder for folder in unrelated if readings.seen(folder).sha256 != same]
        is_owner = readings.seen(owner).sha256 == same
        return Beside(
            reference.name,
            None if is_owner or len(others) < len(unrelated) else log_probability(read, some),
            None if is_owner else leading(readings.read(owner, some), read, some),
            {names[folder]: leading(readings.read(folder, some), read, some) for folder in others},
        )

    def controls_of(some: Sequence[Pair]) -> list[Control]:
        return law_controls(
            some,
            readings.owner_numbers(owner, some),
            {names[folder]: log_probability(readings.read(folder, some), some) for folder in unrelated},
            covariates_of(some, owner, (), readings),
            beside_of(some),
        )

    controls = controls_of(pairs)
    if unserved:
        controls += [
            replace(one, name=f"{one.name}, {_NEVER_SERVED}", kind="unserved", bounds=False)
            for one in controls_of(unserved)
        ]
    if suspect is not None and unserved:
        beside = None if reference is None else readings.read(reference, unserved)
        x = leading(readings.read(suspect, unserved), beside, unserved)
        covariates = covariates_of(unserved, owner, unrelated, readings)
        signs = np.array([pair.sign for pair in unserved], dtype=np.int8)
        controls.append(Control(f"the suspect, {_NEVER_SERVED}", "unserved", flat(x[:, None], covariates)[:, 0], signs))
    return law_test(controls, bets=len(pairs), differing=differing([*pairs, *unserved]))
