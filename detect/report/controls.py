"""What reports of all kinds say of their controls: what was seen, from where on it would be odd, and what then happens.

The level is that of `keyed.decoys`, at which answers are withheld; every line names it, so that nobody has to guess
whether p = 0.0078 is alarming (of 128 sound reports one shows as little). Lines are plain ASCII.
"""

from __future__ import annotations

from detect.keyed.decoys import LOG10_CONTRADICTION, log10_control_limit
from detect.report.runs import Runs, level, p_value, runs
from detect.report.story import Item


def contradiction_level(controls: int = 1) -> Runs:
    """The level at which one of so many controls contradicts the test, as reports write it: "10^-4", "10^-4 / 3"."""
    single = level(10.0**LOG10_CONTRADICTION)
    return single if controls <= 1 else runs("$single / $n", single=single, n=controls)


def absent(line: str) -> Item:
    """A control that was not run."""
    return Item(runs(line), "absent")


def decoys(count: int, log10_agreement: float) -> Item:
    """Whether decoy keys agree with chance."""
    if not count:
        return absent("no decoy keys were run")
    sound = log10_agreement >= LOG10_CONTRADICTION
    says = (
        "agree with chance (p of agreement $p; below $level they would contradict the test and no p-value be given)"
        if sound
        else "contradict the test (p of agreement $p, which is below $level): no p-value is given"
    )
    return _item(sound, runs(f"$n decoy keys {says}", n=count, p=p_value(log10_agreement), level=contradiction_level()))


def unused_key(discoveries: int, log10_p: float | None) -> Item:
    """The same of the documents under one key that nobody used; older reports have no p-value of theirs."""
    line = runs("$n documents listed under a key that nobody used", n=discoveries)
    if log10_p is None:
        return _item(discoveries == 0, line)
    sound = log10_p >= LOG10_CONTRADICTION
    says = (
        " (p of their p-values against chance $p; below $level no p-value would be given)"
        if sound
        else " (p of their p-values against chance $p, which is below $level): no p-value is given"
    )
    return _item(sound, line + runs(says, p=p_value(log10_p), level=contradiction_level()))


def no_mark(line: Runs, log10_p: float | None, controls: int = 1) -> Item:
    """One of so many controls in which no mark can be (Bonferroni); ``line`` ends with its p-value."""
    sound = log10_p is None or log10_p > log10_control_limit(controls)
    says = "; at $level or less no answer would be given" if sound else ", which is $level or less: no answer is given"
    return _item(sound, line + runs(says, level=contradiction_level(controls)))


def _item(sound: bool, line: Runs) -> Item:
    return Item(line, "good" if sound else "odd")
