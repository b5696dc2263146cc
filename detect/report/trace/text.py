"""What a trace's report says to people who decide: written once, for its page and its PDF."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.records.key_name import KeyName
from detect.records.trace import ModelSeen, Reading, TraceRecord, tenant_name
from detect.records.written import format_e, format_time, percent
from detect.report.paper.typeset import Summary
from detect.report.runs import Runs, e_value, level, listed, p_value, runs
from detect.report.scan.wording import interval
from detect.report.story import Fact
from detect.report.trace.wording import (
    answer,
    deviations,
    identification,
    leans_against,
    names,
    number,
    phrase,
    signed,
    strongest_keys,
    tenants_tested,
)

_TOKENIZERS = {
    "same": "It has the watermark’s own tokenizer.",
    "aligned": "It has a tokenizer of its own, whose tokens were mapped onto the watermark’s through their text. That "
    "costs power and not validity.",
    "text": "Only its text was seen, cut into tokens by the watermark’s tokenizer.",
}


def summary(record: TraceRecord) -> Summary:
    """Write the first page."""
    says = answer(record)
    parts = [("What was tested", list(_tested(record))), ("How sure the answer is", list(_sure(record)))]
    if record.refused is None:
        parts += [("What could have been seen", list(power_lines(record)))]
        if tenants_tested(record) or record.spec.global_share < 1:
            parts.append(("Whose account", list(_account(record))))
        parts.append(("How much of its training was marked", list(share_lines(record))))
    return Summary(says.kind, says.headline, list(_lead(record)), _facts(record), parts, list(_limits(record)))


def _lead(record: TraceRecord) -> Iterator[Runs]:
    says = answer(record)
    if record.refused is not None:
        yield runs("$why.", why=record.refused[:1].upper() + record.refused[1:].rstrip("."))
        return
    p = p_value(record.log10_pvalue)
    at_most = " at most" if record.basis == "e-value" else ""
    best = strongest_keys(record)[0]
    lean = "away from the words of the key" if leans_against(record, best) else "to the words of the key"
    chance = runs(
        f"Had this model been made without the key, it would lean this far {lean} with a chance of{at_most} <b>$p</b>",
        p=p,
    )
    likely = f", the chance of calling {says.tosses:,} tosses of a fair coin, each one right" if says.tosses > 9 else ""
    yield runs(f"$chance{likely}.", chance=chance)
    if record.basis == "e-value":
        yield runs(
            "This follows from a bet on the mark, fair if the model was made without the key, that has turned a stake "
            "of 1 into <b>$e</b>.",
            e=e_value(record.log10_evalue),
        )
    if not record.found:
        yield runs("A mark is called found at $level or less.", level=level(record.alpha))
        return
    if says.against:
        yield runs(
            "A model that learnt from marked text leans to the key’s words. One that leans away from them was made, by "
            "whatever means, with regard to them: such as by subtracting the mark, and too much of it."
        )
    else:
        yield runs(
            "If what this report assumes is true, it learnt, directly or through other models, from text that was "
            "generated with this key. The last section lists what it assumes."
        )


def _facts(record: TraceRecord) -> list[Fact]:
    facts = [Fact("Contexts", f"{record.contexts:,}", "distinct")]
    if record.queries is not None:
        facts.append(Fact("Answers", f"{record.queries.answers:,}", f"from {record.queries.requests:,} requests"))
    else:
        tokens = sum(reading.tokens for reading in record.readings)
        facts.append(Fact("Tokens read", f"{tokens:,}"))
    if record.refused is not None:
        return facts
    best = strongest_keys(record)[0]
    facts.append(Fact("Words scored", f"{best.tuples:,}", "under the strongest key" if record.hypotheses[1:] else ""))
    facts.append(Fact("Above the mean", f"{signed(deviations(best)).replace('-', '−')} sd", "0 is expected"))
    if abs(record.log10_evalue) < 6:
        facts.append(Fact("e-value", format_e(record.log10_evalue), "1 or less is expected"))
    return facts


def _tested(record: TraceRecord) -> Iterator[Runs]:
    yield runs("The model $model. $how", model=_model(record.student), how=_TOKENIZERS[record.student.tokenizer])
    if record.references:
        rows = [
            runs("<code>$name</code> ($share)", name=r.model.name, share=percent(r.share))
            for r in record.references[:4]
        ]
        if len(record.references) > len(rows):
            rows.append(runs("$n more", n=len(record.references) - len(rows)))
        yield runs(
            "Compared with $models: what the suspect says more, or less, than its reference is what counts.",
            models=listed(rows),
        )
    for reading in record.readings[:4]:
        yield _reading(record, reading)
    if record.served is not None:
        yield runs(
            "Contexts weigh by how often they were served, counted in <code>$name</code>.", name=record.served.name
        )
    keys = len(tenants_tested(record))
    derived = f", and the keys derived from it for {keys:,} account{'' if keys == 1 else 's'}" if keys else ""
    yield runs(
        f"Against the <code>$scheme</code> watermark of the key with fingerprint <code>$key</code>{derived}.",
        scheme=record.spec.scheme,
        key=record.key_fingerprint,
    )
    if record.commitment is None:
        yield runs(
            "No commitment is on record. This report alone cannot show that the key was fixed before the model existed."
        )
    else:
        yield runs(
            "A commitment to key and watermark is on record. Its file is dated <n>$time</n>, which nothing proves: its "
            "hash does not cover the date, and anybody can edit it. The commitment shows that the key was fixed before "
            "any model that is later than the publication of its hash.",
            time=format_time(record.commitment.created),
        )


def _model(model: ModelSeen) -> Runs:
    if not model.sha256:
        return runs("<code>$name</code>, asked through its endpoint", name=model.name)
    return runs("<code>$name</code>, whose weights were at hand (SHA-256 <code>$hash</code>…)", name=model.name,
                hash=model.sha256[:12])  # fmt: skip


def _reading(record: TraceRecord, reading: Reading) -> Runs:
    gave = runs("$n distinct contexts", n=reading.contexts)
    if record.mode == "api":
        planned = record.plan is not None and reading.sha256 == record.plan.sha256
        return runs(
            "It was asked $prompts and gave $n answers of $tokens tokens: $contexts.",
            prompts=runs("the plan’s prompts")
            if planned
            else runs("the prompts of <code>$name</code>", name=reading.name),
            n=reading.documents,
            tokens=reading.tokens,
            contexts=gave,
        )
    kind = "the owner’s own marked answers" if reading.marked else "text without the mark"
    return runs(
        f"It read $n documents of $tokens tokens from <code>$name</code>, {kind}: $contexts.",
        n=reading.documents,
        tokens=reading.tokens,
        name=reading.name,
        contexts=gave,
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
    decoys = len(record.controls.decoy_log10_pvalues)
    if decoys:
        yield runs(
            "The same test ran under $n decoy keys that nobody used. A p-value that they contradict is not printed.",
            n=decoys,
        )
    else:
        yield runs("No decoy keys were run.")
    controls = record.controls.models
    models = [control.model.name for control in controls if control.what != "placebo key"]
    if len(models) < len(controls):
        yield runs("It also ran under a placebo key, on answers that nobody was served, where no mark can be.")
    if models:
        yield runs("It also ran on $models, where no mark can be.", models=listed(names(models, "models")))


def power_lines(record: TraceRecord) -> Iterator[Runs]:
    """What this budget could have shown, and what was seen."""
    power, contexts = record.power, record.hypotheses[0].contexts
    whose = "The first key’s" if len(record.hypotheses) > 1 else "These"
    yield runs(
        f"{whose} $n contexts would have shown a lean of $d standard deviations per context with a chance of 95%. "
        "Seen: $seen.",
        n=contexts,
        d=number(power.detectable_z_per_context),
        seen=number(power.observed_z_per_context).replace("-", "−"),
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
    tested = tenants_tested(record)
    if not tested:
        yield runs(
            "No account’s key was tested. The global key shows that the model learnt from the owner’s generator, and "
            "not from whose answers."
        )
        return
    yield runs("$says", says=identification(record))
    named = {tenant_name(name) for name in record.identified}
    accounts = [h for h in strongest_keys(record) if not KeyName.read(h.key).is_global]
    for key in [h for h in accounts if tenant_name(h.key) in named][:6]:
        yield runs(
            "<b>$key</b>: p = $p, the choice among $n keys paid for.",
            key=_capital(phrase(record, key)),
            p=p_value(key.log10_pvalue_adjusted),
            n=len(record.hypotheses),
        )


def share_lines(record: TraceRecord) -> Iterator[Runs]:
    """The share of its training that was marked, or why it is not identified."""
    found = record.share
    if found.interval is None:
        yield runs("It is not identified. $why", why=_sentence(found.reason))
        return
    yield runs(
        "<b>$share</b> of its training text, at $confidence confidence. $how",
        share=interval(found.interval),
        confidence=percent(found.interval.confidence),
        how=_sentence(found.reason),
    )


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
    if tenants_tested(record):
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
    yield runs("Whoever holds the key can make marked text. The answer is as good as the key’s secrecy.")
    if record.mode == "api":
        yield runs(
            "The answers are what the endpoint gave under this name. Whether one and the same model stood behind it "
            "all along, only its keeper knows."
        )


def _sentence(text: str) -> str:
    """A reason as a sentence of its own."""
    text = text.strip()
    return _capital(text) + ("" if text.endswith((".", "!", "?")) or not text else ".")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
