"""The first page of a race readout: what it says to people who decide, and the same in a few lines for a terminal."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import math
from collections.abc import Iterator

from detect.records.race import LitAnswer, RaceRecord
from detect.records.race_assumptions import SETTINGS_NAMED
from detect.records.written import counted, format_e
from detect.report.checking import commitment_line
from detect.report.race.wording import (
    SETTINGS,
    counted_hits,
    hit_line,
    hits_of,
    label,
    share,
    stopped_early,
    strongest,
)
from detect.report.runs import Runs, e_value, level, listed, p_value, runs, said
from detect.report.story import Fact
from detect.report.wording import (
    LIMITS_OF_SERVED,
    SECRECY,
    capital,
    decoys_run,
    in_tosses,
    own_sampling,
    tosses_line,
    watermark_line,
)

_SENTENCE = 600  # characters of one in a terminal
_NAMED = 6  # accounts that are told one by one
_LIT = 4  # answers that are told one by one
_ASKED = {
    "weights": "It read the answers, and its weights gave its chances of every next word.",
    "prompt-logprobs": "Its endpoint was sent whole answers, and said which next words it finds likeliest at each of "
    "their places.",
    "echo": "Its endpoint was sent whole answers, and said how likely it finds each of their words.",
    "logprobs": "Its endpoint was sent beginnings of answers and asked for one word more, with the chances of the "
    "likeliest words.",
    "bias": "Its endpoint was sent beginnings of answers and asked for one word more, with a bias against words that "
    "would be said anyway.",
    "greedy": "Its endpoint was sent beginnings of answers and asked how it goes on, by its likeliest words, and for "
    "nothing else.",
}


def headline(record: RaceRecord) -> str:
    """The answer in one sentence."""
    if record.refused is not None:
        return "No answer is given."
    if record.found:
        return "This model learnt from answers that were served."
    return "No sign of the served answers was found in this model."


def lead(record: RaceRecord) -> Iterator[Runs]:
    """The sentences that belong to the answer."""
    if record.refused is not None:
        yield runs("$why.", why=capital(record.refused).rstrip("."))
        return
    yield _what_happened(record)
    yield runs(
        "The verdict rests on bets on what the key chose, placed place after place in the order of serving. If the "
        "suspect never learnt from these answers they are fair. They have turned a stake of 1 into <b>$e</b>; the "
        f"chance of that, whenever one looks, is then at most <b>$p</b>{in_tosses(record.log10_pvalue or 0.0)}.",
        e=e_value(record.log10_evalue),
        p=p_value(record.log10_pvalue),
    )
    if not record.found:
        yield runs("The mark is called found at $level or less.", level=level(record.alpha))
    else:
        yield runs(
            "If what this report assumes is true, the suspect learnt, directly or through other models or texts, from "
            "answers that were served with this key. The last section lists what it assumes."
        )


def _what_happened(record: RaceRecord) -> Runs:
    """At how many places the suspect was asked, and how often it hit."""
    places = runs(
        "At $n of $answers our key had chosen between words that are likely there, and the suspect, shown what stood "
        "before, said how it would go on.",
        n=counted(hits_of(record).cuts, "place"),
        answers=counted(record.counts.answers, "served answer"),
    )
    return runs("$places $hits", places=places, hits=hit_line(record))


def facts(record: RaceRecord) -> list[Fact]:
    """The numbers that are looked for first."""
    counts, hits = record.counts, hits_of(record)
    shown = [Fact("Places", f"{counts.asked:,}", f"of {counts.cuts:,} planned")]
    if record.refused is None:
        if hits.known:
            shown.append(Fact("Hits", hits.share, f"{hits.by_chance} by chance"))
        if abs(record.log10_evalue) < 6:
            shown.append(Fact("e-value", format_e(record.log10_evalue), "1 or less is expected"))
    shown.append(Fact("Served answers", f"{counts.answers:,}"))
    if record.queries is not None:
        shown.append(Fact("Requests", f"{record.queries.requests:,}"))
    return shown


def parts(record: RaceRecord) -> list[tuple[str, list[Runs]]]:
    """What stands behind the answer."""
    scheme = runs("<code>$scheme</code>", scheme=record.spec.scheme)
    accounts = counted(len(record.accounts), "account") if record.accounts else ""
    against = watermark_line([scheme], record.key_fingerprint, accounts)
    what = [*(line for _, line in tested(record)), against, commitment_line(record.commitment, "model")]
    told = [
        ("What was tested", what),
        ("What a hit is", list(what_a_hit_is(record))),
        ("How sure the answer is", list(_sure(record))),
    ]
    if record.refused is None:
        if record.accounts or record.spec.global_share < 1:
            told.append(("Whose account", list(account_lines(record))))
        told.append(("Which answers it learnt from", list(lit_lines(record))))
    return [*told, ("What it does not show", list(_limits(record)))]


def brief(record: RaceRecord) -> Iterator[Runs]:
    """The answer for a terminal."""
    yield runs(headline(record))
    if record.refused is not None:
        yield said(record.refused, _SENTENCE)
        return
    yield _what_happened(record)
    yield runs(
        "e = $e by bets on what the key chose, so p <= $p; found at $level or less",
        e=e_value(record.log10_evalue),
        p=p_value(record.log10_pvalue),
        level=level(record.alpha),
    )
    yield from tosses_line(record.log10_pvalue, found=record.found)
    if record.accounts:
        yield from account_lines(record)


def tested(record: RaceRecord) -> Iterator[tuple[str, Runs]]:
    """What was read or asked, each with a word for it."""
    suspect = record.suspect
    at_hand = "whose weights were at hand (SHA-256 <code>$hash</code>…)" if suspect.sha256 else "asked at its endpoint"
    yield "Suspect", runs(f"The model <code>$name</code>, {at_hand}.", name=suspect.name, hash=suspect.sha256[:12])
    yield "Asked" if record.mode == "api" else "Read", runs(_ASKED[record.ask])
    yield from own_sampling(record.queries)
    yield "Served answers", _read(record)
    yield "Owner’s model", _owner(record)
    if record.reference is not None:
        yield (
            "Reference",
            runs(
                "What the suspect says is held against what <code>$name</code> (SHA-256 <code>$hash</code>…) says.",
                name=record.reference.name,
                hash=record.reference.sha256[:12],
            ),
        )


def _read(record: RaceRecord) -> Runs:
    counts, reading = record.counts, record.reading
    barred = "; $barred stood in a prompt and did not count" if reading.barred else ""
    unheld = ", and $unheld of them are of keys that were not tested" if counts.unheld else ""
    silent = "; to $silent of them it said nothing of use" if counts.silent else ""
    return runs(
        "$answers of $tokens tokens from <code>$name</code>, in the order of serving. At $fresh places a context is "
        f"used for the first time{barred}{unheld}. $cuts might be asked about, and $asked were bet on{silent}.",
        answers=counted(counts.answers, "answer"),
        tokens=reading.tokens,
        name=reading.name,
        fresh=counts.fresh,
        barred=reading.barred,
        unheld=counts.unheld,
        cuts=counts.cuts,
        asked=counts.asked,
        silent=counts.silent,
    )


def _owner(record: RaceRecord) -> Runs:
    sampling = record.sampling
    named = [said(text) for text in sampling.settings[:SETTINGS_NAMED]]
    if len(sampling.settings) > SETTINGS_NAMED:
        named.append(runs("$n more", n=len(sampling.settings) - SETTINGS_NAMED))
    return runs(
        "The chances are those of <code>$name</code> (SHA-256 <code>$hash</code>…), which drew its answers at "
        f"$settings, {SETTINGS[sampling.source]}.",
        name=record.owner.name,
        hash=record.owner.sha256[:12],
        settings=listed(named) or runs("settings of which nothing is known"),
    )


def what_a_hit_is(record: RaceRecord) -> Iterator[Runs]:
    """The notion that the report rests on, for people who decide."""
    yield runs(
        "At each place the owner’s model was about to draw one of several words, each with a chance of its own, and "
        "the secret key and the words before decided which. To anyone without the key that is a draw by these chances."
    )
    if record.spec.scheme == "gumbel":
        yield runs(
            "A hit is a place where the suspect’s likeliest next word is the one that the key chose. Chance has hits, "
            "too: as often as the owner’s chances of the suspect’s words say, whatever the suspect is. One that never "
            "learnt from what was served has no more."
        )
    else:
        yield runs(
            "Here the key chose no single word: it made some likelier. So each of the suspect’s likeliest words counts "
            "by the weight that the key gave it, which on average is the owner’s chance of that word, whatever the "
            "suspect is. One that never learnt from what was served has no more."
        )


def _sure(record: RaceRecord) -> Iterator[Runs]:
    yield runs(
        "The chance of finding the mark in a model that never learnt from what was served is at most $level, if what "
        "this report assumes is true. The last section lists that, and what of it was checked.",
        level=level(record.alpha),
    )
    yield runs(
        "Nothing is assumed about language or about the suspect, and no other model is needed for comparison: given "
        "all that was shown to it, what the key chose next is a draw by the owner’s chances. A model of the same "
        "teacher, and one that learnt other answers to the same prompts, are innocent in this sense and come out so."
    )
    if stopped_early(record):
        yield runs(
            "Asking ended when the target was reached. The e-value may be looked at after every place, so that this "
            "needs no correction."
        )
    elif len(record.hypotheses) == 1 and record.hypotheses[0].log10_pvalue is not None:
        yield runs(
            "So many hits come about by chance with p = $p, had the places and their chances been fixed beforehand. "
            "That is there to be compared; the verdict rests on the bets.",
            p=p_value(record.hypotheses[0].log10_pvalue),
        )
    yield decoys_run(len(record.controls.decoy_log10_evalues))


def account_lines(record: RaceRecord) -> Iterator[Runs]:
    """Which accounts' own keys the suspect knows."""
    if record.refused is not None:
        return
    if not record.accounts:
        yield runs("No account was tested: the answer tells that answers were used, and not whose.")
        return
    named = [found for found in strongest(record) if label(found) in set(record.identified)]
    if not named:
        yield runs(
            "No account is named: none of the $n accounts’ own keys is enough by itself.", n=len(record.accounts)
        )
    for found in named[:_NAMED]:
        hits = runs(
            "hits at $share of its own $cuts places, where chance gives $chance, ",
            share=share(found.hits, found.cuts),
            cuts=found.cuts,
            chance=share(found.expected, found.cuts),
        )
        yield runs(
            "<b>$account</b>: $hits<n>e = $e</n>, the choice among $accounts paid for.",
            account=label(found),
            hits=hits if found.expected > 0 else (),
            e=e_value(found.log10_evalue_adjusted),
            accounts=counted(len(record.accounts), "account"),
        )
    if len(named) > _NAMED:
        yield runs("$n more accounts are named in the table below.", n=len(named) - _NAMED)


def certain(record: RaceRecord) -> list[LitAnswer]:
    """The answers that stand out at the level of the report, the choice among all answers paid for."""
    limit = math.log10(max(1, record.counts.answers)) - math.log10(record.alpha)
    return [lit for lit in record.lit if lit.log10_evalue >= limit]


def lit_lines(record: RaceRecord) -> Iterator[Runs]:
    """Which answers light up."""
    answers = record.counts.answers
    if not record.lit:
        yield runs("None stands out: on no answer have the bets gained anything.")
        return
    sure = certain(record)
    if sure:
        reach = "$n of them reach the level of this report, each by itself"
        yield runs(
            "With the choice among $answers paid for, "
            f"{'one of them reaches the level of this report by itself' if len(sure) == 1 else reach}.",
            answers=counted(answers, "answer"),
            n=len(sure),
        )
    else:
        yield runs(
            "None reaches the level of this report by itself, the choice among $answers paid for. Those that stand out "
            "most are a hint, and no proof of each.",
            answers=counted(answers, "answer"),
        )
    for lit in record.lit[:_LIT]:
        hits = runs(
            "$hits hits at $cuts places, $expected by chance, ",
            hits=counted_hits(lit.hits),
            cuts=lit.cuts,
            expected=f"{lit.expected:,.1f}",
        )
        yield runs(
            "<code>$name</code>: $hits<n>e = $e</n>.",
            name=lit.name,
            hits=hits if lit.expected > 0 else (),
            e=e_value(lit.log10_evalue),
        )


def _limits(record: RaceRecord) -> Iterator[Runs]:
    yield from LIMITS_OF_SERVED
    if record.mode == "api":
        yield runs(
            "To ask the suspect was to show it beginnings of served answers. If it is trained on what it is asked, it "
            "has learnt from them now, and no later readout of these answers, of it or of its successors, would show "
            "anything about before."
        )
        yield runs(
            "An endpoint that looks served answers up, from a cache or a search, knows them without having learnt "
            "anything. Whether one and the same model stood behind it, only its keeper knows."
        )
    if not record.found and record.refused is None:
        yield runs(
            "No sign found does not mean that no answer was used. Few of these may have been, once, or much rewritten; "
            "or too few places were asked."
        )
    if record.accounts:
        yield runs(
            "An account’s key shows that answers to its requests were used. It does not say who trained the model, nor "
            "that the account’s holder passed the answers on."
        )
    yield SECRECY
