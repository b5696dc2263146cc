"""Words and numbers that several parts of a story of a race readout share. Every string is untrusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detect.laws.multiplicity import mean_log10_e
from detect.race.conclude import LOG10_CONTRADICTION
from detect.records.key_name import KeyName
from detect.records.race import RaceFound, RaceRecord
from detect.records.written import percent
from detect.report import controls
from detect.report.runs import Runs, e_value, runs
from detect.report.story import Item

SETTINGS = {
    "recorded": "as it stands on record with each answer",
    "given": "as the analyst said",
    "assumed": "which is not on record and was assumed; a wrong assumption costs evidence and accuses nobody",
}


@dataclass(frozen=True, slots=True)
class Hits:
    """How often the suspect said what the key chose.

    Attributes
    ----------
    cuts
        Places where the suspect said something.
    hits, expected
        There, and by chance.
    """

    cuts: int
    hits: float
    expected: float

    @property
    def known(self) -> bool:
        """Whether it is known anywhere which word the suspect finds likeliest."""
        return self.cuts > 0 and self.expected > 0

    @property
    def share(self) -> str:
        """Of the places, those with a hit: "43%"."""
        return share(self.hits, self.cuts)

    @property
    def by_chance(self) -> str:
        """The same as chance has it: "27%"."""
        return share(self.expected, self.cuts)


def share(part: float, whole: int) -> str:
    """A share of places, as a whole per cent where it is one or more."""
    if not whole or part <= 0:
        return "0%"
    value = part / whole
    return f"{100 * value:.0f}%" if value >= 0.01 else percent(value)


def hits_of(record: RaceRecord) -> Hits:
    """Of all keys together."""
    found = record.hypotheses
    return Hits(sum(h.cuts for h in found), math.fsum(h.hits for h in found), math.fsum(h.expected for h in found))


def one_word(record: RaceRecord) -> bool:
    """Whether the key chose a single word at each place, and it is known which: so that hits are counted."""
    return record.spec.scheme == "gumbel" and all(float(h.hits).is_integer() for h in record.hypotheses)


def hit_line(record: RaceRecord) -> Runs:
    """The share of hits against chance, as a sentence that follows one about the places."""
    hits = hits_of(record)
    if not hits.known:
        return runs("Its endpoint does not tell which words it finds likeliest, so that no hits are counted.")
    if one_word(record):
        return runs(
            "The suspect chose the word that our key had chosen in <b>$share</b> of these places, where chance gives "
            "<b>$chance</b>.",
            share=hits.share,
            chance=hits.by_chance,
        )
    return runs(
        "Our key gave the words that the suspect chose there a weight of <b>$share</b> on average, where chance gives "
        "<b>$chance</b>.",
        share=hits.share,
        chance=hits.by_chance,
    )


def counted_hits(hits: float) -> str:
    """A number of hits, with a decimal where it is no count."""
    return f"{hits:,.0f}" if float(hits).is_integer() else f"{hits:,.1f}"


def label(found: RaceFound) -> str:
    """Name a key where accounts are told apart: "global key", "acme"."""
    return KeyName.read(found.key).tenant or "global key"


def strongest(record: RaceRecord) -> list[RaceFound]:
    """The keys tested, the largest e-value first."""
    return sorted(record.hypotheses, key=lambda found: (-found.log10_evalue_adjusted, found.key))


def stopped_early(record: RaceRecord) -> bool:
    """Whether what was seen had a say in when it ended."""
    return record.queries is not None and record.queries.stopped == "target reached"


def control_items(record: RaceRecord) -> list[Item]:
    """What the decoys say."""
    decoys = record.controls.decoy_log10_evalues
    if not decoys:
        return [controls.absent("no decoy keys were run")]
    mean = mean_log10_e(decoys)
    sound = mean < LOG10_CONTRADICTION
    says = (
        "agree with chance (the mean of their e-values is $e, and 1 or less is expected; from $limit on they would "
        "contradict the test and no answer be given)"
        if sound
        else "contradict the test (the mean of their e-values is $e, which is $limit or more): no answer is given"
    )
    line = runs(f"$n decoy keys {says}", n=len(decoys), e=e_value(mean), limit=f"{10**LOG10_CONTRADICTION:,.0f}")
    return [Item(line, "good" if sound else "odd")]
