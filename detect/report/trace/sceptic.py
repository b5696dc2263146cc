"""A trace before the court of a sceptic: each objection, what answers it in this record, and whether that is there."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from detect.keyed.decoys import LOG10_CONTRADICTION
from detect.records.trace import TraceRecord, log10_naming_level
from detect.records.written import format_time
from detect.report.runs import Run, Runs, level, p_value, runs
from detect.report.story import Block, Heading, Pairs, Section, Text
from detect.report.trace.first_page import power_lines
from detect.report.trace.wording import control_items, phrase, readouts

_NULL = (
    "The suspect was made without knowledge of the key: neither the key nor any text that was generated with it had a "
    "part in its making."
)
_ALTERNATIVE = (
    "The suspect learnt, directly or through other models, from text that the owner’s generator wrote with this key."
)


def court(record: TraceRecord) -> Section:
    """All objections, in the order in which they would be raised."""
    sound = all(item.standing == "good" for item in control_items(record))
    asked = record.queries
    fixed = asked is None or asked.looks > 0 or record.basis == "e-value" or asked.stopped != "target reached"
    blocks = [
        Pairs("Hypotheses", [("Null hypothesis", runs(_NULL)), ("Alternative", runs(_ALTERNATIVE))]),
        *_asked("Could it be chance?", _chance(record), record.refused is None),
        *_asked("Was the key chosen to fit this model?", _key(record), record.commitment is not None),
        *_asked("Is it only the way this model writes?", _style(record)),
        *_asked("Does the model repeat what it was given to read?", _echo(record)),
        *_asked("Was the way of measuring picked after looking?", *_measure(record)),
        *_asked("Was it stopped at a lucky moment?", _stopping(record), fixed),
        *_asked("How many keys were tried?", _keys(record)),
        *_asked("Would the same test accuse an innocent model?", _controls(record), sound),
        *([] if record.refused else _asked("Would a mark have been seen?", power_lines(record))),
        *_asked("What if somebody else had the key?", _secrecy()),
        *_asked("Who says that these numbers are right?", _again(record)),
    ]
    return Section("The court of a sceptic", "court", blocks)


def _asked(question: str, answer: Iterable[Runs], sound: bool = True) -> list[Block]:
    """An objection and its answer; where it isn't ``sound`` the record lacks what would answer it."""
    head = Heading(runs(question), badge="" if sound else "not answered by this report")
    return [head, *map(Text, answer)]


def _chance(record: TraceRecord) -> Iterator[Runs]:
    at_most: Runs = (Run("at most "),) if record.basis == "e-value" else ()
    p = at_most + p_value(record.log10_pvalue)
    if record.refused is not None:
        yield runs("No p-value is given, so the question is open: $why.", why=record.refused.rstrip("."))
    elif record.found:
        yield runs(
            "Hardly: the chance is $p. At the level of this report, $level, at most one in $many models made without "
            "the key would be called marked.",
            p=p,
            level=level(record.alpha),
            many=round(1 / record.alpha),
        )
    else:
        yield runs("Yes: with a chance of $p, which is above the level of $level.", p=p, level=level(record.alpha))
    yield runs(
        "“Exact” means this. The suspect and all that was read of it are held fixed, and the key, 256 bits drawn at "
        "random, is what varies. Under the null hypothesis the words of different (context, token) pairs are then "
        "independent and uniform, so that the law of the total is known completely. Its tail is computed to many "
        "digits: no simulation, no bell curve, no model of language."
    )
    yield runs(
        "It assumes that the key was drawn at random, kept secret, and fixed before the suspect was made; that "
        "nothing that was read or weighed was chosen with the key, or by answers in which the key had a say; and that "
        "the cipher behind the words (ChaCha8) cannot be told from chance. The last section says which of this was "
        "checked."
    )
    if record.basis == "e-value":
        marked = record.served_marked or any(reading.marked for reading in record.readings)
        why = (
            "weights depend on words of the key that came before"
            if marked
            else "one may look at every answer and stop at will"
        )
        yield runs(
            f"Here {why}, so the verdict does not use the exact tail. It uses the e-value, which is 1 on average, or "
            "less, for every model made without the key: it exceeds 1/α with a chance of at most α."
        )


def _key(record: TraceRecord) -> Iterator[Runs]:
    if record.commitment is None:
        yield runs(
            "This report cannot exclude it: no commitment is on record. A key that is picked after looking at the "
            "model can be made to fit any model. Ask the owner for a commitment, published before the suspect was "
            "made."
        )
        return
    yield runs(
        "A commitment to key and watermark is on record: SHA-256 <code>$hash</code>. Compare this hash with one that "
        "was published, timestamped or deposited with others before the suspect was made. Only that, and not the date "
        "in this report, shows that the key was there first.",
        hash=record.commitment.sha256,
    )
    if record.plan is not None:
        yield runs("The plan of the queries names the key as well, by its fingerprint.")


def _style(record: TraceRecord) -> Iterator[Runs]:
    yield runs(
        "No. Which words the key favours after which context is as good as drawn by lot, and drawn anew for every "
        "context. A habit of style, a subject, a language, a benchmark, even text chosen by an opponent, favours them "
        "no more often than any other words, and just as often under any other key."
    )
    decoys = len(record.controls.decoy_log10_pvalues)
    if decoys and record.controls.decoy_log10_agreement < LOG10_CONTRADICTION:
        yield runs(
            "But the $n decoy keys, which were put to the same model, do not bear that out here: something is wrong "
            "with the test or its evidence.",
            n=decoys,
        )
    elif decoys:
        yield runs(
            "The $n decoy keys are put to the same model, the same contexts and the same weights. They show that the "
            "arithmetic is right. They cannot show how texts and prompts were chosen.",
            n=decoys,
        )


def _echo(record: TraceRecord) -> Iterator[Runs]:
    marked = any(reading.marked for reading in record.readings)
    asked = record.mode == "api"
    source, what = ("It was asked", "prompts that are") if asked else ("It read", "text that is")
    if not all(reading.marked for reading in record.readings):
        yield runs(
            f"{source} {what} not marked with this key, which was tested: there is nothing in the window from which "
            "the mark could be copied. A model that repeats itself gains nothing, since each (context, token) pair "
            "counts once."
        )
    if marked:
        yield runs(
            f"{source} the owner’s own marked answers, and a model that never saw the mark copies from its window: a "
            "context that stood there before was followed by a token that the key chose. So each context counts only "
            "where it stands first in all documents, and never where its text stands in the prompt, so that there is "
            "nothing to copy."
        )
        yield runs(
            "Which contexts come up, and how they weigh, still depends on the words of earlier ones. The weights are "
            "therefore not independent of the whole key, and the verdict rests on the e-value: a bet made context by "
            "context, each at odds that are fair given all that came before."
        )


def _measure(record: TraceRecord) -> tuple[list[Runs], bool]:
    shown = readouts(record)
    sound, lines = True, []
    if record.plan is not None:
        plan = record.plan
        lines.append(
            runs(
                "Prompts, statistic, keys and target were fixed in a plan with SHA-256 <code>$hash</code>, made on "
                "<n>$made</n>; the first query went out on <n>$first</n>. These are the analyst’s clocks: a hash that "
                "was lodged with others before the first query proves it.",
                hash=plan.sha256,
                made=format_time(plan.created),
                first=format_time(plan.first_query) if plan.first_query else "no day",
            )
        )
        if plan.seed is not None:
            said = "Prompts were taken from $n by the public seed <code>$seed</code>, whatever was answered to them."
            lines.append(runs(said, n=plan.offered, seed=plan.seed))
        if record.queries is not None and record.queries.before_plan:
            sound = False
            said = "But $n of the answers were on record before the plan was: its prompts may have been picked by them."
            lines.append(runs(said, n=record.queries.before_plan))
    elif record.mode == "api":
        sound = False
        lines.append(runs("No plan is on record, so that this report cannot show it."))
    others = " Others are shown below for comparison, and have no part in it." if len(shown) > 1 else ""
    lines.append(runs(f"The verdict uses the readout <code>$name</code> alone.{others}", name=record.readout))
    if record.plan is None and record.log10_pvalue is not None and record.found and len(shown) > 1:
        paid = min(0.0, record.log10_pvalue + math.log10(len(shown)))
        holds = paid <= math.log10(record.alpha)
        ends = "the mark would still be found" if holds else "the mark would not be found"
        said = f"Had it been picked as the best of the $n, $n times the p-value would pay for that: $p, and {ends}."
        lines.append(runs(said, n=len(shown), p=p_value(paid)))
        sound = sound and holds
    return lines, sound


def _stopping(record: TraceRecord) -> Iterator[Runs]:
    asked = record.queries
    if asked is None:
        yield runs(
            "All $n contexts count, and the verdict is of the whole. The curve is for the eye.", n=record.contexts
        )
        return
    yield runs("It stopped after $n answers: $why.", n=asked.answers, why=asked.stopped)
    target = record.arguments.get("target_log10_p", record.arguments.get("target"))
    if isinstance(target, (int, float)) and -1e6 < target < 0:
        yield runs("The target was p = $p or less.", p=p_value(target))
    if asked.looks:
        yield runs(
            "The verdict rests on the mean of the e-values at $n moments that the plan fixed beforehand, those that "
            "were not reached counting nothing. Such a mean is an e-value too, and whoever stops at one of them only "
            "lowers it: stopping when it suits gains nothing.",
            n=asked.looks,
        )
    elif record.basis == "e-value":
        yield runs(
            "The verdict rests on an e-value that may be looked at after every answer. By Ville’s inequality the "
            "chance that it ever reaches 1/α without the mark is at most α, so that stopping when it suits gains "
            "nothing."
        )
    else:
        yield runs(
            "The verdict rests on a p-value, which holds only if the number of answers was fixed beforehand and nobody "
            "stopped for what was seen."
        )


def _keys(record: TraceRecord) -> Iterator[Runs]:
    n = len(record.hypotheses)
    if n == 1:
        yield runs("One: $key. There is no choice to pay for.", key=phrase(record, record.hypotheses[0]))
    else:
        yield runs(
            "$n keys, and each p-value of the verdict pays for all of them (Holm): the smallest is multiplied by $n, "
            "the next by one less, and so on.",
            n=n,
        )
    if record.spec.subkeys > 1:
        yield runs("Each key’s $n sub-keys are summed in one total, so that they are no choice.", n=record.spec.subkeys)
    tenants = len(record.accounts)
    if tenants:
        yield runs(
            "An account is named only when its own p-value, so paid for, is at most $level. That rests on the words of "
            "its own key alone, so that it holds whoever else is guilty. Where there are several accounts, half of the "
            "level goes to the question whether one of them at least left its mark, which names nobody. Otherwise the "
            "answer is “not identified”, and not the likeliest.",
            level=level(10 ** log10_naming_level(record.alpha, tenants)),
        )


def _controls(record: TraceRecord) -> Iterator[Runs]:
    yield runs(
        "Controls cannot prove the p-value; the randomness of the key does. Decoy keys show whether the arithmetic is "
        "right. Models that stand in the suspect’s place, on which the whole trace runs again, and answers under a "
        "placebo key that nobody was served, show what decoys cannot: copying, looking ahead, and choices that favour "
        "marked text. Where one of them fails, no answer is given. The section on controls says what each of them gave."
    )
    if not record.controls.models:
        yield runs(
            "A model that is known to be innocent, such as the suspect’s own base model or one trained on the same "
            "text without the mark, would be a further check."
        )


def _secrecy() -> Iterator[Runs]:
    yield runs(
        "Whoever has the key can write text, or bend a model, so that it shows the mark. No statistic can tell that "
        "from training on the owner’s text. Ask who held the key, since when, and where it was used."
    )


def _again(record: TraceRecord) -> Iterator[Runs]:
    yield runs(
        "Anyone who is given the key. <code>evidence.npz</code> holds every context, token and weight; with it and the "
        "key, and without the suspect or any other model, <code>dyetrace recompute</code> computes every total, "
        "p-value and e-value again. Another program can: the method below says how."
    )
    if record.queries is not None:
        yield runs(
            "That the weights are those of the suspect rests on its answers. Each was written to a ledger before it "
            "was used, request and response, chained by hashes. The endpoint’s keeper may have logs to compare."
        )
    else:
        yield runs(
            "That the weights are those of the suspect can be checked by whoever has it: the same trace of its files, "
            "whose SHA-256 is on record, with the same texts and options gives the same evidence up to rounding of the "
            "hardware."
        )
