"""The first page of a trace's story: what it says to people who decide, and the same in a few lines for a terminal."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator, Sequence

from detect.records.key_name import KeyName
from detect.records.trace import Reading, TraceRecord, tenant_name
from detect.records.written import counted, format_e, percent
from detect.report import wording
from detect.report.checking import commitment_line
from detect.report.runs import Runs, e_value, level, listed, p_value, runs, said
from detect.report.story import Fact
from detect.report.trace.wording import (
    identification,
    leans_against,
    number,
    phrase,
    signed,
    strongest_keys,
)
from detect.report.wording import SECRECY, capital, decoys_run, in_tosses, own_sampling, watermark_line

_SHOWN = 4  # readings and models that are told one by one; more are counted
_SENTENCE = 600  # characters of one in a terminal
_TOKENIZERS = {
    "same": "It has the watermark’s own tokenizer.",
    "aligned": "It has a tokenizer of its own, whose tokens were mapped onto the watermark’s through their text. That "
    "costs power and not validity.",
    "aligned endpoint": "Its tokens were mapped onto the watermark’s through their text, whichever tokenizer it has. "
    "With another one that costs power and not validity.",
    "text": "Only its text was seen, cut into tokens by the watermark’s tokenizer.",
}
_MARKED = "The mark was found in this model"


def headline(record: TraceRecord) -> str:
    """The answer in one sentence."""
    if record.log10_pvalue is None:
        return "No answer is given."
    if not record.found:
        return "No mark was found in this model."
    return f"{_MARKED}, turned against itself." if leans_against(record) else f"{_MARKED}."


def lead(record: TraceRecord) -> Iterator[Runs]:
    """The sentences that belong to the answer."""
    if record.log10_pvalue is None:
        yield runs("$why.", why=capital(record.refused or "").rstrip("."))
        return
    against = leans_against(record)
    at_most = " at most" if record.basis == "e-value" else ""
    lean = "away from the words of the key" if against else "to the words of the key"
    yield runs(
        f"Had this model been made without the key, it would lean this far {lean} with a chance of{at_most} "
        f"<b>$p</b>{in_tosses(record.log10_pvalue)}.",
        p=p_value(record.log10_pvalue),
    )
    if record.basis == "e-value":
        yield runs(
            "This follows from a bet on the mark, fair if the model was made without the key, that has turned a stake "
            "of 1 into <b>$e</b>.",
            e=e_value(record.log10_evalue),
        )
    if not record.found:
        yield runs("A mark is called found at $level or less.", level=level(record.alpha))
    elif against:
        yield runs(
            "A model that learnt from marked text leans to the key’s words. One that leans away from them was made, by "
            "whatever means, with regard to them: such as by subtracting the mark, and too much of it."
        )
    else:
        yield runs(
            "If what this report assumes is true, it learnt, directly or through other models, from text that was "
            "generated with this key. The last section lists what it assumes."
        )


def facts(record: TraceRecord) -> list[Fact]:
    """The numbers that are looked for first."""
    shown = [Fact("Contexts", f"{record.contexts:,}", "distinct")]
    if record.queries is not None:
        shown.append(Fact("Answers", f"{record.queries.answers:,}", f"from {record.queries.requests:,} requests"))
    else:
        shown.append(Fact("Tokens read", f"{sum(reading.tokens for reading in record.readings):,}"))
    if record.refused is None:
        best = strongest_keys(record)[0]
        which = "under the strongest key" if record.hypotheses[1:] else ""
        shown.append(Fact("Words scored", f"{best.tuples:,}", which))
        shown.append(Fact("Above the mean", f"{signed(best.z)} sd", "0 is expected"))
        if abs(record.log10_evalue) < 6:
            shown.append(Fact("e-value", format_e(record.log10_evalue), "1 or less is expected"))
    return shown


def parts(record: TraceRecord) -> list[tuple[str, list[Runs]]]:
    """What stands behind the answer."""
    keys = len(record.accounts)
    scheme = runs("<code>$scheme</code>", scheme=record.spec.scheme)
    accounts = counted(keys, "account") if keys else ""
    against = watermark_line([scheme], record.key_fingerprint, accounts)
    what = [*(line for _, line in tested(record)), against, commitment_line(record.commitment, "model")]
    told = [("What was tested", what), ("How sure the answer is", list(_sure(record)))]
    if record.refused is None:
        told.append(("What could have been seen", list(power_lines(record))))
        if keys or record.spec.global_share < 1:
            told.append(("Whose account", list(_account(record))))
        told.append(("How much of its training was marked", [share_line(record)]))
    return [*told, ("What it does not show", list(_limits(record)))]


def brief(record: TraceRecord) -> Iterator[Runs]:
    """The answer for a terminal."""
    yield runs(headline(record))
    if record.log10_pvalue is None:
        yield said(record.refused or "", _SENTENCE)
        return
    several = bool(record.hypotheses[1:])
    if record.basis == "e-value":
        bets = "the keys' e-values, all keys paid for" if several else "the e-value"
        chance = f"p <= $p by {bets} ($e)"
    else:
        chance = "p = $p" + (", all keys paid for" if several else ", exact" if record.calibration is None else "")
    p, e = p_value(record.log10_pvalue), e_value(record.log10_evalue)
    yield runs(f"{chance}; found at $level or less", p=p, e=e, level=level(record.alpha))
    if record.calibration is not None:
        yield said(record.calibration, _SENTENCE)
    yield from wording.tosses_line(record.log10_pvalue, found=record.found)
    if record.accounts:
        yield said(identification(record), _SENTENCE)


def tested(record: TraceRecord) -> Iterator[tuple[str, Runs]]:
    """What was read or asked, each with a word for it."""
    suspect = record.student
    at_hand = "whose weights were at hand (SHA-256 <code>$hash</code>…)" if suspect.sha256 else "asked at its endpoint"
    tokens = "aligned endpoint" if suspect.tokenizer == "aligned" and not suspect.sha256 else suspect.tokenizer
    which = f"The model <code>$name</code>, {at_hand}. {_TOKENIZERS[tokens]}"
    yield "Suspect", runs(which, name=suspect.name, hash=suspect.sha256[:12])
    if record.references:
        given = [(r.model.name, percent(r.share)) for r in record.references]
        models = _some([runs("<code>$name</code> ($share)", name=name, share=share) for name, share in given], "more")
        than = "Compared with $models: what the suspect says more, or less, than its reference is what counts."
        yield "Reference", runs(than, models=models)
    for reading in record.readings[:_SHOWN]:
        yield "Read" if record.mode == "weights" else "Asked", _reading(record, reading)
    yield from own_sampling(record.queries)
    if record.served is not None:
        weigh = "Contexts weigh by how often they were served, counted in <code>$name</code>."
        yield "Served contexts", runs(weigh, name=record.served.name)


def _some(given: Sequence[Runs], more: str) -> Runs:
    """The first few, the rest counted: "a, b and 12 more"."""
    rest = len(given) - _SHOWN
    return listed([*given[:_SHOWN], *([runs(f"$n {more}", n=rest)] if rest > 0 else [])])


def _reading(record: TraceRecord, reading: Reading) -> Runs:
    name = runs("<code>$name</code>", name=reading.name)
    if record.mode == "api":
        planned = record.plan is not None and reading.sha256 == record.plan.sha256
        what = "It was asked $name and gave $n answers of $tokens tokens"
        name = runs("the plan’s prompts") if planned else runs("the prompts of $name", name=name)
    else:
        kind = "the owner’s own marked answers" if reading.marked else "text without the mark"
        what = f"It read $n documents of $tokens tokens from $name, {kind}"
    barred = "; $barred stood in a prompt and did not count" if reading.barred else ""
    return runs(
        f"{what}: $contexts distinct contexts{barred}.",
        name=name,
        n=reading.documents,
        tokens=reading.tokens,
        contexts=reading.contexts,
        barred=reading.barred,
    )


def _sure(record: TraceRecord) -> Iterator[Runs]:
    several = "; every key that was tried is paid for" if len(record.hypotheses) > 1 else ""
    yield runs(
        f"The chance of calling a model marked that was made without the key is at most $level{several}, if what this "
        "report assumes is true. The last section lists that, and what of it was checked.",
        level=level(record.alpha),
    )
    if record.refused is not None:
        yield runs("No p-value is given here, for the reason above.")
    elif record.calibration is not None:
        yield runs("$said.", said=record.calibration.rstrip("."))
    elif record.basis == "p-value":
        yield runs(
            "The p-value is exact: the law of the result over the draw of the key is known, whatever the model is and "
            "however it writes, and no approximation is used."
        )
    else:
        yield runs(
            "The verdict rests on the e-value, whose inverse bounds the p-value over the draw of the key, whatever the "
            "model is."
        )
    if record.sided == "two-sided":
        yield runs(
            "Both sides were tested, and twice the smaller tail is the p-value: a mark that was subtracted too far "
            "shows as well."
        )
    yield decoys_run(len(record.controls.decoy_log10_pvalues))
    controls = record.controls.models
    models = [said(control.model.name) for control in controls if control.what != "placebo key"]
    if len(models) < len(controls):
        yield runs("It also ran under a placebo key, on answers that nobody was served, where no mark can be.")
    if models:
        yield runs("It also ran on $models, where no mark can be.", models=_some(models, "more models"))


def power_lines(record: TraceRecord) -> Iterator[Runs]:
    """What this budget could have shown, and what was seen."""
    power, contexts = record.power, record.hypotheses[0].contexts
    whose = "The first key’s" if len(record.hypotheses) > 1 else "These"
    yield runs(
        f"{whose} $n contexts would have shown a lean of $d standard deviations per context with a chance of 95%. "
        "Seen: $seen.",
        n=contexts,
        d=number(power.detectable_z_per_context),
        seen="not given" if record.refused else number(power.observed_z_per_context),
    )
    if record.found:
        if power.contexts_needed is not None and power.contexts_needed < contexts:
            yield runs("For the lean that was seen, about $n contexts would have done.", n=power.contexts_needed)
        return
    yield runs(
        "A model with a weaker lean than that would often be missed by this trace: it learnt from little marked text, "
        "from text marked with long contexts, or the mark was worn off."
    )
    if power.contexts_needed is not None:
        how = (
            "They may be read on from here: an e-value may be looked at whenever one likes."
            if record.basis == "e-value"
            else "They must be read in a new trace: reading on until a p-value suits is no test."
        )
        yield runs(
            f"If the lean that was seen were real, about $n contexts would show it at the level of this report. {how}",
            n=power.contexts_needed,
        )


def _account(record: TraceRecord) -> Iterator[Runs]:
    if not record.accounts:
        yield runs(
            "No account’s key was tested. The global key shows that the model learnt from the owner’s generator, and "
            "not from whose answers."
        )
        return
    yield runs("$says", says=identification(record))
    named = {tenant_name(name) for name in record.identified}
    for key in [h for h in strongest_keys(record) if KeyName.read(h.key).tenant in named][:6]:
        yield runs(
            "<b>$key</b>: p = $p, the choice among $n keys paid for.",
            key=capital(phrase(record, key)),
            p=p_value(key.log10_pvalue_adjusted),
            n=len(record.hypotheses),
        )


def share_line(record: TraceRecord) -> Runs:
    """The share of its training that was marked, or why it is not identified."""
    return wording.share_line(record.share.interval, record.share.reason, "its training text")


def _limits(record: TraceRecord) -> Iterator[Runs]:
    yield runs(
        "A p-value is the chance of such a lean if the model was made without the key. It is not the chance that the "
        "model was made without the key."
    )
    yield runs(
        "A mark shows that text from the owner’s generator went into the model. It does not show who trained it, who "
        "gathered the text, or that anyone meant to. The owner’s customers publish answers, and others copy them: a "
        "model trained on what stands on the open web may carry the mark."
    )
    yield runs(
        "It does not show that the suspect itself asked for the text. A mark passes on from a model to those that are "
        "trained on its answers, or made from its weights."
    )
    if record.accounts:
        yield runs(
            "A tenant’s key names the account that the text was generated for. It does not say who trained the model, "
            "nor that the account’s holder passed the text on."
        )
    if not record.found and record.refused is None:
        yield runs(
            "No mark found does not mean that the model never saw marked text. Little of it, long contexts, "
            "paraphrase, or training that removes the mark can leave too little to see."
        )
    if record.share.interval is None and record.found:
        yield runs("How strong the lean is does not tell, by itself, how much marked text there was.")
    yield SECRECY
    if record.mode == "api":
        yield runs(
            "The answers are what the endpoint gave under this name. Whether one and the same model stood behind it "
            "all along, only its keeper knows."
        )
