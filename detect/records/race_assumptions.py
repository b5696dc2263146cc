"""What a verdict by a race readout assumes, from its record: a sentence for each, and whether this run looked at it."""

from __future__ import annotations

from collections.abc import Iterator

from detect.records.assumptions import Assumption
from detect.records.race import RaceRecord, SamplingSeen
from detect.records.trace_assumptions import marked_by_account, nothing_hidden, of_key, of_served_answers
from detect.records.written import counted

SETTINGS_NAMED = 6
"""Different settings of sampling that are told one by one; more are counted."""


def assumptions(record: RaceRecord) -> list[Assumption]:
    """All of them: of the key, of the served answers, of the owner's chances, of the choice of places, of the suspect.

    The last ones are of the way there.
    """
    parts = (_of_key, _of_answers, _of_chances, _of_reference, _of_places, _of_suspect, _of_asking, _of_accounts)
    return [one for part in parts for one in part(record)]


def _of_key(record: RaceRecord) -> Iterator[Assumption]:
    yield from of_key(record.commitment)


def _of_answers(record: RaceRecord) -> Iterator[Assumption]:
    yield from of_served_answers(record.reading)
    yield Assumption(
        says=f"Each answer of {record.reading.name} has every token that the key chose for it, its end too.",
        how="Only the owner knows. A stop string, a filter, or the choice of the best of several answers, which takes "
        "away what was chosen already, is a choice by the key.",
        checked=False,
    )
    yield Assumption(
        says=f"Its prompts owe nothing to answers with this mark that don't stand in {record.reading.name}.",
        how="Only the owner knows: where a client had earlier answers, or those of another account, they must be in "
        "the file, before the prompts that came of them.",
        checked=False,
    )


def _of_chances(record: RaceRecord) -> Iterator[Assumption]:
    yield Assumption(
        says=f"The owner's model {record.owner.name} never learnt from the answers that were read here.",
        how="Its keeper knows: it is the model that gave these answers, or an older one, and its SHA-256 stands here. "
        "A later one that was trained on them would have chances that the key had a say in.",
        checked=False,
    )
    yield Assumption(
        says="The owner's chances at each place were computed without the key, from what stood before that place "
        "alone.",
        how=f"They are those of that model. {_settings(record.sampling)} Wrong settings cost evidence, and can't make "
        "an innocent model look guilty.",
        checked=True,
    )


def _of_reference(record: RaceRecord) -> Iterator[Assumption]:
    if record.reference is not None:
        yield Assumption(
            says=f"The reference {record.reference.name} never learnt from the answers that were read here, or from "
            "others with this mark.",
            how="Only its keeper knows; its SHA-256 stands here. What it says decides what is staked on each word, and "
            "must owe nothing to the key.",
            checked=False,
        )


def _settings(sampling: SamplingSeen) -> str:
    named = "; ".join(sampling.settings[:SETTINGS_NAMED])
    more = len(sampling.settings) - SETTINGS_NAMED
    named += f"; and {more:,} more" if more > 0 else ""
    return {
        "recorded": f"How answers were drawn stands on record with each of them ({named}).",
        "given": f"How answers were drawn is what the analyst said ({named}).",
        "assumed": f"How answers were drawn is not on record, and was assumed ({named}).",
    }[sampling.source]


def _of_places(record: RaceRecord) -> Iterator[Assumption]:
    counts, reading = record.counts, record.reading
    yield Assumption(
        says="Nothing that the suspect was shown at a place holds what the key chose there.",
        how="A context counts once under the key that marks it, where it is used for the first time in all answers, "
        f"whether or not that answer is asked about: {counts.fresh:,} places of {counted(counts.answers, 'answer')}"
        + (f"; {reading.barred:,} whose context stands in a prompt did not count." if reading.barred else "."),
        checked=True,
    )
    chosen = (
        "All of these places that a tested key marks were read."
        if record.ask in ("weights", "prompt-logprobs", "echo")
        else "In each answer the first places were asked whose chances are spread widely enough, by a rule that was "
        "fixed before, as long as the bets on that answer won."
    )
    yield Assumption(
        says="Which places were asked was decided by what stands before each of them, and never by what comes after.",
        how=f"{chosen} How long an answer is, how it ends, and how many answers follow had no say.",
        checked=True,
    )
    yield Assumption(
        says="The bets were placed in the order of serving, each on what earlier places had shown.",
        how="The order stands in race.npz, and the bets are computed from it anew with the key.",
        checked=True,
    )


def _of_suspect(record: RaceRecord) -> Iterator[Assumption]:
    yield Assumption(
        says="The suspect has what it says of served answers from being trained on them.",
        how="It may also look them up, or hand the question on to the owner's own service: then what it says follows "
        "the key as well, and it is as little independent of it.",
        checked=False,
    )
    if record.mode == "weights":
        yield Assumption(
            says="The models were loaded with the weights of their folders, and predict each token from earlier ones "
            "alone.",
            how="All parameters fitted, and later tokens moved no prediction.",
            checked=True,
        )
        return
    yield nothing_hidden()
    yield Assumption(
        says="The suspect was not trained on the questions of an earlier readout of the same answers.",
        how="Only its keeper knows. This readout itself showed it beginnings of served answers, in the order of "
        "serving: a suspect that trains on what it is asked has learnt from served answers afterwards. So what is "
        "asked of it later, or of its successors, must rest on other answers.",
        checked=False,
    )
    yield Assumption(
        says="One and the same model answered all along.",
        how="Only the endpoint's keeper knows. If not, the evidence is of all that answered.",
        checked=False,
    )


def _of_asking(record: RaceRecord) -> Iterator[Assumption]:
    asked = record.queries
    if asked is not None:
        yield Assumption(
            says="The plan was made before any of the suspect's replies was seen.",
            how=f"{asked.before_plan:,} replies were on record before it in this ledger; replies that were asked for "
            "elsewhere are not seen.",
            checked=True,
        )
    yield Assumption(
        says="Answers, owner's model, settings and the way of asking were fixed before anything was seen, and this is "
        "the only readout of this suspect.",
        how="Whoever reads it again with other settings until one fits has looked that many times.",
        checked=False,
    )


def _of_accounts(record: RaceRecord) -> Iterator[Assumption]:
    if record.accounts:
        yield marked_by_account()
