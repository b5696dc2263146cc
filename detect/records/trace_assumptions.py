"""What a trace's verdict assumes, from its record: a sentence for each, and whether this run looked at it."""

from __future__ import annotations

from collections.abc import Iterator

from detect.records.assumptions import Assumption
from detect.records.trace import Control, Reading, TraceRecord
from detect.records.written import counted
from watermark.commitment import Commitment


def assumptions(record: TraceRecord) -> list[Assumption]:
    """All of them: of the key, of what was read, of the models, and of the way there."""
    asked = _of_endpoint if record.mode == "api" else _of_models
    return [one for part in (_of_key, _of_texts, _of_served, asked, _of_accounts) for one in part(record)]


def _of_key(record: TraceRecord) -> Iterator[Assumption]:
    yield from of_key(record.commitment)


def of_key(committed: Commitment | None) -> Iterator[Assumption]:
    """What is assumed of a key that suspects are traced with."""
    yield Assumption(
        says="The key was drawn at random, and nobody who had a hand in the suspect had it.",
        how="No statistic can tell; ask who held the key and since when.",
        checked=False,
    )
    yield Assumption(
        says="The key was fixed before the suspect was made.",
        how="No commitment is on record."
        if committed is None
        else f"A commitment is on record. Its date, {committed.created}, is what its file says, which nothing covers "
        "and anybody can edit: what shows when it was made is where and when its SHA-256 was published.",
        checked=False,
    )


def _of_texts(record: TraceRecord) -> Iterator[Assumption]:
    marked = [reading for reading in record.readings if reading.marked]
    plain = [reading for reading in record.readings if not reading.marked and record.mode == "weights"]
    for reading in marked:
        yield from of_served_answers(reading)
    for reading in plain:
        yield Assumption(
            says=f"The text of {reading.name} does not carry the mark.",
            how=f"Its blind test gives p = {_p(reading.texts_log10_pvalue)}.",
            checked=True,
        )
        yield Assumption(
            says=f"The text of {reading.name} was not chosen with the key.",
            how="Only who chose it knows.",
            checked=False,
        )
        yield from _of_ids(reading)
    for reading in record.readings:
        if record.mode == "weights" and reading.prompts_log10_pvalue is not None:
            yield Assumption(
                says=f"What stands in the prompts of {reading.name} was not copied into what the suspect predicts.",
                how=f"{reading.barred:,} contexts whose text stands in a prompt did not count; the prompts' own blind "
                f"test gives p = {_p(reading.prompts_log10_pvalue)}.",
                checked=True,
            )


def of_served_answers(reading: Reading) -> Iterator[Assumption]:
    """What is assumed of answers with the mark that a suspect reads: how they were taken, and their order."""
    yield Assumption(
        says=f"The answers of {reading.name} were taken from those that were served without regard to what they say, "
        "how long they are, or whether they ended.",
        how=_taken(reading),
        checked=reading.complete is not None,
    )
    yield Assumption(
        says=f"The answers of {reading.name} were bet on in the order in which they were served.",
        how="Their order in the file, and that of several files on the command line; ids that are numbers, or a list "
        "of hashes, would have contradicted another one. A later prompt may speak of an earlier answer; what came "
        "first must be bet on first.",
        checked=False,
    )
    yield from _of_ids(reading)


def _of_ids(reading: Reading) -> Iterator[Assumption]:
    if reading.unlike_text is None:
        return
    instead = "the text of all records was read" if reading.marked else "there the text was read"
    yield Assumption(
        says=f"The token ids of {reading.name} are those of its text.",
        how=f"They were held against it: those of {counted(reading.unlike_text, 'record')} spell other text, as "
        f"another tokenizer's do{f', and {instead}' if reading.unlike_text else ''}.",
        checked=True,
    )


def _taken(reading: Reading) -> str:
    if reading.complete is not None:
        return (
            f"They are all that is on record in {reading.complete}. That the record was made when they were served, "
            "and of all of them, is for its keeper to show."
        )
    said = {"all": "they are all that was served", "random": "they were drawn at random"}
    if reading.taken is None:
        return (
            "Nobody said how they were taken (--taken), and no record of what was served was at hand (--complete). A "
            "choice by length or content can make an innocent model look guilty."
        )
    return f"The analyst says that {said[reading.taken]}; no record of what was served was at hand (--complete)."


def _of_served(record: TraceRecord) -> Iterator[Assumption]:
    if record.served is None:
        return
    marked = record.served_marked
    yield Assumption(
        says=f"What {record.served.name} counts was recorded as it was served, without regard to what the answers say.",
        how="That a context was served is all that counts of it, so that the verdict is an e-value's; whether answers "
        "are missing was not looked at."
        if marked
        else "Its answers don't name this spec, and their blind test shows no mark.",
        checked=not marked,
    )


def _of_models(record: TraceRecord) -> Iterator[Assumption]:
    yield Assumption(
        says="The models were loaded with the weights of their folders, and predict each token from earlier ones "
        "alone.",
        how="All parameters fitted, and later tokens moved no prediction.",
        checked=True,
    )
    controls = record.controls.models
    for reference in record.references:
        own = [c for c in controls if c.what.startswith("reference") and c.model.sha256 == reference.model.sha256]
        yield Assumption(
            says=f"The reference {reference.model.name} never learnt from text with this mark.",
            how=_of_reference(own[0]) if own else "It was not traced.",
            checked=bool(own) and own[0].readout == "reference",
        )
    placebo = [control for control in controls if control.what == "placebo key"]
    yield Assumption(
        says="What is measured is training, and neither copying nor the way in which texts were chosen.",
        how=f"The same trace under a placebo key, on answers that nobody was served, gives p = "
        f"{_p(placebo[0].log10_pvalue)} over {placebo[0].contexts:,} contexts, where the verdict has "
        f"{record.contexts:,}. What was chosen by hand among the true answers alone it does not see."
        if placebo
        else "No placebo key was run (--placebo).",
        checked=bool(placebo) and 2 * placebo[0].contexts >= record.contexts,
    )
    yield Assumption(
        says="Texts, references, readout and the number of contexts were fixed before anything was seen, and this is "
        "the only trace of this suspect.",
        how="Whoever traces again with other settings until one fits has looked that many times.",
        checked=False,
    )


def _of_reference(control: Control) -> str:
    p = _p(control.log10_pvalue)
    if control.readout == "reference":
        return (
            f"The same trace of it, compared with another model, gives p = {p}. Two that learnt the same would not "
            "show it."
        )
    return (
        f"Its own trace gives p = {p}, but without another model to compare it with that sees little: a second "
        "reference or a control model (--control) sees more."
    )


def _of_endpoint(record: TraceRecord) -> Iterator[Assumption]:
    plan, asked = record.plan, record.queries
    if plan is not None and plan.seed is not None:
        yield Assumption(
            says="The prompts that were asked were picked by a public seed.",
            how=f"The plan took them from {plan.offered:,} by the seed {plan.seed!r}; that it is the only seed that "
            "was tried is for its maker to show.",
            checked=True,
        )
    yield Assumption(
        says="The prompts that were offered were written and chosen without regard to answers under this key: no later "
        "turn of a conversation that speaks of an earlier answer, and no choice by what was answered.",
        how="Only who wrote and who chose them knows. Offer the first turns of conversations, or prompts of your own.",
        checked=False,
    )
    for reading in record.readings:
        yield Assumption(
            says="The prompts do not carry the mark.",
            how=f"Their blind test gives p = {_p(reading.prompts_log10_pvalue)}, and their contexts did not count.",
            checked=reading.prompts_log10_pvalue is not None,
        )
    yield Assumption(
        says="The plan was made before any of the answers was seen.",
        how=f"{asked.before_plan:,} answers were on record before it in this ledger; answers that were asked for "
        "elsewhere, and other runs of this plan, are not seen."
        if asked is not None
        else "No queries are on record.",
        checked=asked is not None,
    )
    yield nothing_hidden()
    for reference in record.references:
        yield Assumption(
            says=f"The reference {reference.model.name} never learnt from text with this mark.",
            how="Trace it by its weights to see.",
            checked=False,
        )


def nothing_hidden() -> Assumption:
    """That an endpoint has nothing of the served answers but what its model learnt."""
    return Assumption(
        says="Nothing with the mark was put before the suspect but what it was asked: no hidden system prompt, "
        "retrieval or memory that holds served answers.",
        how="Only the endpoint's keeper knows.",
        checked=False,
    )


def _of_accounts(record: TraceRecord) -> Iterator[Assumption]:
    if record.accounts:
        yield marked_by_account()


def marked_by_account() -> Assumption:
    """That an account's own key marked its answers."""
    return Assumption(
        says="The server marked each account's answers with that account's key.",
        how="The server's own records tell; `dyetrace serve-check` looks from outside.",
        checked=False,
    )


def _p(log10_pvalue: float | None) -> str:
    if log10_pvalue is None:
        return "(not known)"
    return f"{10**log10_pvalue:.2g}" if log10_pvalue > -4 else f"10^{log10_pvalue:.1f}"
