"""The first page of a test by twins: what it says to people who decide, and the same in a few lines for a terminal."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.records.twins import TwinRecord
from detect.records.written import counted, format_e, percent
from detect.report import wording
from detect.report.runs import Runs, e_value, level, listed, p_value, runs, said
from detect.report.story import Fact
from detect.report.twins.wording import LEVELS, leading, once_in, stopped_early, tallied
from detect.report.wording import capital, in_tosses, own_sampling

_SENTENCE = 600  # characters of one in a terminal
_NAMED = 6  # accounts that are told one by one


def headline(record: TwinRecord) -> str:
    """The answer in one sentence, with the level of the twins."""
    says = "This model prefers the answers that were delivered" if record.found else "No preference was found"
    return f"{says if record.refused is None else 'No answer is given'} ({LEVELS[record.level]})."


def lead(record: TwinRecord) -> Iterator[Runs]:
    """The sentences that belong to the answer."""
    if record.refused is not None:
        yield runs("$why.", why=capital(record.refused).rstrip("."))
        return
    yield _what_happened(record)
    yield _chance(record)
    yield runs(
        "The verdict rests on bets on the coins, placed pair after pair. If the suspect never learnt from what was "
        "delivered they are fair. They have turned a stake of 1 into <b>$e</b>; the chance of that, whenever one "
        f"looks, is then at most <b>$p</b>{in_tosses(record.log10_pvalue or 0.0)}.",
        e=e_value(record.log10_evalue),
        p=p_value(record.log10_pvalue),
    )
    if not record.found:
        yield runs("A preference is called found at $level or less.", level=level(record.alpha))
    elif record.level == "regenerated":
        yield runs(
            "These twins were drawn after the fact, so that the answer rests also on a law test, which found no "
            "difference that could explain it. It is weaker evidence than twins that were withheld at serving."
        )
    else:
        yield runs(
            "If what this report assumes is true, the suspect learnt, directly or through other models or texts, from "
            "answers that were delivered. The last section lists what it assumes."
        )


def _what_happened(record: TwinRecord) -> Runs:
    n = counted(record.pairs.asked, "pair")
    tossed = (
        f"For {n} we had tossed a coin which of two answers to deliver."
        if record.level == "withheld"
        else f"For {n} the same model has drawn a second answer beside the one that had been delivered."
    )
    return runs(f"{tossed} $tallied", tallied=tallied(record))


def _chance(record: TwinRecord) -> Runs:
    found = leading(record)
    coin = "Chance"
    if record.law is not None and record.law.bias:
        coin = f"A coin that falls for the delivered one with a chance of {0.5 + record.law.bias:.3f}"
    if stopped_early(record):
        return runs(
            f"{coin} does as well $often where the number of pairs is fixed beforehand; here asking ended when the "
            "target was reached, which the bets allow for.",
            often=once_in(found.log10_pvalue),
        )
    return runs(f"{coin} does as well $often.", often=once_in(found.log10_pvalue))


def facts(record: TwinRecord) -> list[Fact]:
    """The numbers that are looked for first."""
    found, pairs = leading(record), record.pairs
    shown = [Fact("Pairs", f"{pairs.asked:,}", f"of {pairs.eligible:,} there are")]
    if record.refused is None:
        differ = found.wins + found.losses
        share = f"{percent(found.wins / differ)} of those that differ" if found.wins else ""
        shown.append(Fact("For the delivered", f"{found.wins:,}", share))
        shown.append(Fact("For the other", f"{found.losses:,}", "as many are expected"))
        if abs(record.log10_evalue) < 6:
            shown.append(Fact("e-value", format_e(record.log10_evalue), "1 or less is expected"))
    if record.queries is not None:
        shown.append(Fact("Requests", f"{record.queries.requests:,}"))
    return shown


def parts(record: TwinRecord) -> list[tuple[str, list[Runs]]]:
    """What stands behind the answer."""
    told = [
        ("What was tested", [line for _, line in tested(record)]),
        ("How sure the answer is", list(_sure(record))),
    ]
    if record.refused is None:
        if record.accounts:
            told.append(("Whose account", list(account_lines(record))))
        told.append(("How many of the answers it learnt from", [share_line(record)]))
        if record.watermark is not None:
            told.append(("Beside the watermark", list(beside_the_watermark(record))))
    return [*told, ("What it does not show", list(_limits(record)))]


def brief(record: TwinRecord) -> Iterator[Runs]:
    """The answer for a terminal."""
    yield runs(headline(record))
    if record.refused is not None:
        yield said(record.refused, _SENTENCE)
        return
    yield _what_happened(record)
    yield _chance(record)
    yield runs(
        "e = $e by bets on the coins, so p <= $p; found at $level or less",
        e=e_value(record.log10_evalue),
        p=p_value(record.log10_pvalue),
        level=level(record.alpha),
    )
    yield from wording.tosses_line(record.log10_pvalue, found=record.found)
    if record.accounts:
        yield from account_lines(record)


def tested(record: TwinRecord) -> Iterator[tuple[str, Runs]]:
    """What was asked or read, each with a word for it."""
    suspect = record.suspect
    at_hand = "whose weights were at hand (SHA-256 <code>$hash</code>…)" if suspect.sha256 else "asked at its endpoint"
    yield "Suspect", runs(f"The model <code>$name</code>, {at_hand}.", name=suspect.name, hash=suspect.sha256[:12])
    yield "Asked" if record.mode == "api" else "Read", _asked(record)
    yield from own_sampling(record.queries)
    if record.reference is not None:
        yield (
            "Reference",
            runs("Compared with <code>$name</code>, a model without these answers.", name=record.reference.name),
        )
    yield "Ledger", _ledger(record)
    yield "Pairs", _chosen(record)


def _asked(record: TwinRecord) -> Runs:
    return runs(
        {
            "answers": "It answered the prompts of the pairs freely. It was shown neither answer.",
            "parting": "It was asked how beginnings of both answers of each pair go on, by the same questions "
            "whichever was delivered.",
            "logprobs": "It was read how likely it finds each of the two answers after their prompt, both alike.",
        }[record.ask]
    )


def _ledger(record: TwinRecord) -> Runs:
    ledger = record.ledger
    committed = (
        "its root was published before the first query"
        if ledger.committed is not None
        else "nothing of it was published beforehand"
    )
    return runs(f"The private ledger <code>$name</code> holds $n pairs; {committed}.", name=ledger.name, n=ledger.pairs)


def _chosen(record: TwinRecord) -> Runs:
    pairs = record.pairs
    out = [
        runs(f"$n {what}", n=count)
        for count, what in (
            (pairs.tied, "with equal answers"),
            (pairs.follow_ups, "that quote an earlier pair"),
            (pairs.erased, "whose text was erased"),
        )
        if count
    ]
    left = runs(" Left out: $what.", what=listed(out)) if out else ()
    sampled = "all" if pairs.sampled == pairs.eligible else f"{pairs.sampled:,}, picked by a public seed,"
    silent = f"; in {pairs.silent:,} of them the suspect said nothing of use" if pairs.silent else ""
    erasure = ", if none had in what was erased" if pairs.erased else ""
    return runs(
        f"Of $eligible pairs of the accounts and times in question {sampled} might enter, and $asked were bet "
        f"on{silent}.$left No coin had a part in that{erasure}.",
        eligible=pairs.eligible,
        asked=pairs.asked,
        left=left,
    )


def _sure(record: TwinRecord) -> Iterator[Runs]:
    yield runs(
        "The chance of finding this preference in a model that never learnt from what was delivered is at most $level, "
        "if what this report assumes is true. The last section lists that, and what of it was checked.",
        level=level(record.alpha),
    )
    if record.law is None:
        yield runs(
            "Nothing is assumed about language, about models or about prompts: given the two answers, which of them "
            "was delivered was decided by a coin, and an innocent suspect can’t know coins. A model of the same "
            "teacher, one that knows all prompts, and one that learnt other answers to them are innocent in this "
            "sense, and come out so."
        )
    else:
        yield runs(
            "Here no coin was tossed: the delivered answers are of the past. That the twins might as well have been "
            "delivered in their place is what the law test looks at. The bets allow for a chance of up to $most that "
            "a delivered answer is preferred by a model that never saw it.",
            most=f"{0.5 + record.law.bias:.3f}",
        )
    yield runs(
        "The e-value may be looked at after every pair, and asking may end whenever one likes. The sign test beside it "
        "is exact where the number of pairs was fixed beforehand and nobody asked the owner’s server anything because "
        "of an earlier answer; it is there to be checked with a table."
    )


def account_lines(record: TwinRecord) -> Iterator[Runs]:
    """Which accounts' own coins the suspect knows."""
    if record.refused is not None:
        return
    names = set(record.identified)
    if not names:
        yield runs(
            f"No account is named: {_unnamed(record)}.",
            n=len(record.accounts),
        )
    for found in [found for found in record.accounts if found.account in names][:_NAMED]:
        yield runs(
            "<b>$account</b>: $wins to $losses on its own $pairs pairs, e = $e, the choice among $n accounts paid for.",
            account=found.account,
            wins=found.wins,
            losses=found.losses,
            pairs=found.pairs,
            e=e_value(found.log10_evalue_adjusted),
            n=len(record.accounts),
        )
    if len(names) > _NAMED:
        yield runs("$n more accounts are named in the table below.", n=len(names) - _NAMED)


def _unnamed(record: TwinRecord) -> str:
    """Why no account is named: by twins that were drawn later, one alone whose pairs are all of them can be."""
    if record.law is not None and all(found.pairs < record.pairs.asked for found in record.accounts):
        return (
            "these twins were drawn later, and then one is named only where all pairs are its own, as the law test "
            "limits the bias of all of them together ($n accounts here)"
        )
    return "the coins of none of the $n accounts are enough by themselves"


def share_line(record: TwinRecord) -> Runs:
    """How many of the delivered answers were used, or why that is not identified."""
    return wording.share_line(record.share, record.share_reason, "the pairs")


def beside_the_watermark(record: TwinRecord) -> Iterator[Runs]:
    """What the other line of evidence says alone, and what both say together."""
    other = record.watermark
    if other is None:
        return
    yield runs(
        "A trace of the watermark in the same suspect (report with SHA-256 <code>$hash</code>) has an e-value of $e, "
        "under another secret.",
        hash=other.report_sha256,
        e=e_value(other.log10_evalue),
    )
    how = (
        "multiplied, as the trace read no answer that these coins decided about"
        if other.rule == "product"
        else "averaged, as the trace read answers that these coins decided about"
    )
    yield runs(f"Both lines together: <b>$e</b> ({how}).", e=e_value(other.log10_evalue_together))


def _limits(record: TwinRecord) -> Iterator[Runs]:
    yield from wording.LIMITS_OF_SERVED
    yield runs(
        "A withheld answer that leaked would make the evidence weaker. It could not make an innocent model look guilty."
    )
    if record.mode == "api":
        yield runs(
            "An endpoint that looks delivered answers up, from a cache or a search, prefers them too, without having "
            "learnt anything. Whether one and the same model stood behind it, only its keeper knows."
        )
    if not record.found and record.refused is None:
        yield runs(
            "No preference found does not mean that nothing was used. Few of the pairs may have been, once, or much "
            "rewritten; or the measure sees too little."
        )
    if record.accounts:
        yield runs(
            "An account’s coins show that answers to its requests were used. They don’t say who trained the model, nor "
            "that the account’s holder passed the answers on."
        )
    yield runs(
        "Whoever holds the ledger and the coins could train a model so that it looks guilty. The answer is as good as "
        "their secrecy."
    )
