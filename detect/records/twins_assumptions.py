"""What a verdict by twins assumes, from its record: a sentence for each, and whether this run looked at it."""

from __future__ import annotations

from collections.abc import Iterator

from detect.records.assumptions import Assumption
from detect.records.twins import LawTest, TwinRecord


def assumptions(record: TwinRecord) -> list[Assumption]:
    """All of them: of the coins and the twins, of the pairs that entered, of the suspect, and of the way there."""
    twins = _of_withheld if record.law is None else _of_regenerated
    parts = [twins(record), _of_choice(record), _of_suspect(record), _of_asking(record), _of_accounts(record)]
    return [one for part in parts for one in part]


def _of_withheld(record: TwinRecord) -> Iterator[Assumption]:
    yield Assumption(
        says="Each pair's coin was tossed under a secret key before either answer existed.",
        how="With the ledger and the twin key `dyetrace recompute` shows that every coin follows from its pair's "
        "number and the key; that numbers were drawn at random, and not until a coin suited, is for the server's "
        "keeper to show.",
        checked=False,
    )
    yield Assumption(
        says="Both answers of a pair came about by one law: the same model, context, settings and limits, and nothing "
        "looked at one of them and not at the other (filters, moderation, retries, time-outs, a client that hung up, "
        "another cache).",
        how="The gateway draws both in one request and keeps a pair only where both are whole; what the engine behind "
        "it does is for its keeper to show.",
        checked=False,
    )
    yield from _never_shown()


def _of_regenerated(record: TwinRecord) -> Iterator[Assumption]:
    yield Assumption(
        says="The twins that were drawn later follow the law of the answers that were served: the same model, system "
        "prompt, settings, numerics and limits.",
        how=_law(record.law),
        checked=record.law is not None and record.law.veto is None,
    )
    yield Assumption(
        says="Which answers of the past were paired was decided without regard to what they say, how long they are, or "
        "whether they ended.",
        how="Only who paired them knows.",
        checked=False,
    )
    yield from _never_shown()


def _law(law: LawTest | None) -> str:
    if law is None or not law.controls:
        return "No control was run."
    of = ", ".join(f"{control.name} ({control.wins:,} to {control.losses:,})" for control in law.controls)
    if law.veto is not None:
        return f"The law test found that they don't: {of}."
    allowed = f"a chance of winning up to {0.5 + law.bias:.3f}"
    return (
        f"The law test saw no difference: {of}. The verdict allows for {allowed}, which is as far from fair as these "
        "controls leave open; models that were not among them may see more."
    )


def _never_shown() -> Iterator[Assumption]:
    yield Assumption(
        says="No withheld answer was shown to anybody before the suspect was asked.",
        how="Only the ledger's keeper knows. A withheld answer that leaked makes the evidence weaker and accuses "
        "nobody.",
        checked=False,
    )


def _of_choice(record: TwinRecord) -> Iterator[Assumption]:
    pairs, root = record.pairs, record.ledger
    published = (
        f"The root of the ledger was published before the first query (`{root.committed}`)"
        if root.committed is not None
        else "Nothing of the ledger was published before the first query"
    )
    yield Assumption(
        says="Which pairs entered was decided without their coins: all of the accounts and times asked for, or a "
        "sample by a public seed.",
        how=f"{pairs.sampled:,} of {pairs.eligible:,} pairs were sampled by a seed on record. {pairs.tied:,} with "
        f"equal answers and {pairs.follow_ups:,} whose prompt quotes an answer of an earlier pair were left out, which "
        f"no coin decides. {published}; that the ledger holds all pairs that were made is for its keeper to show.",
        checked=True,
    )
    if pairs.erased:
        yield Assumption(
            says="Erased pairs were not chosen by their coins.",
            how=f"{pairs.erased:,} pairs of the ledger can't be read any more. Pairs are erased by account and date "
            "alone; that nobody chose these after a look at coins or replies is for the ledger's keeper to show.",
            checked=False,
        )
    yield Assumption(
        says="The bets were placed in the order in which the requests came, each on what earlier pairs had shown.",
        how="The order stands in twins.npz, and the bets are computed from it anew.",
        checked=True,
    )


def _of_suspect(record: TwinRecord) -> Iterator[Assumption]:
    yield Assumption(
        says="Nobody who had a hand in the suspect had the coins, the ledger or the twin key, but for the answers that "
        "were served.",
        how="No statistic can tell; ask who held them and since when.",
        checked=False,
    )
    if record.reference is not None:
        yield Assumption(
            says=f"The reference {record.reference.name} never learnt from what was served.",
            how="One that did leans to the served answers itself, and whoever is compared with it leans away from "
            "them, which gets no verdict. Test the reference in the suspect's place to see.",
            checked=False,
        )
    shown = {
        "logprobs": "both answers of every pair whole",
        "parting": "beginnings of both answers of every pair",
        "answers": "prompts alone, and no answer",
    }[record.ask]
    yield Assumption(
        says="What the suspect was shown in this test does not tell it the coins.",
        how=f"It was shown {shown}, in questions that are the same whichever was served.{_remembering(record)}",
        checked=True,
    )


def _remembering(record: TwinRecord) -> str:
    if record.mode == "weights":
        return ""
    return (
        " Prompts that quote an earlier pair's answer were left out; an endpoint that remembers its requests might "
        "still guess from later prompts of the same client what it was served before."
    )


def _of_asking(record: TwinRecord) -> Iterator[Assumption]:
    plan, asked = record.plan, record.queries
    if plan is not None and plan.seed is not None:
        yield Assumption(
            says="The seed of the sample was not chosen with the coins.",
            how=f"It is {plan.seed!r}; that it is the only one that was tried is for its maker to show.",
            checked=False,
        )
    if asked is not None:
        yield Assumption(
            says="The plan was made before any of the suspect's replies was seen.",
            how=f"{asked.before_plan:,} replies were on record before it in this ledger; those that were asked for "
            "elsewhere are not seen.",
            checked=True,
        )
        yield Assumption(
            says="One and the same model answered all along.",
            how="Only the endpoint's keeper knows. If not, the coins are fair all the same: the evidence is of all "
            "that answered.",
            checked=False,
        )
    yield Assumption(
        says="This is the only test of this suspect by these coins.",
        how="Whoever tests again with other measures, samples or references until one fits has looked that many times.",
        checked=False,
    )


def _of_accounts(record: TwinRecord) -> Iterator[Assumption]:
    if record.accounts:
        yield Assumption(
            says="Each pair was written down under the account whose request it was.",
            how="The server's own records tell.",
            checked=False,
        )
