"""What a detection's report says: the answer, each document with its keys, decoys and text, and how it came about."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from detect.document.pointing import level_per_test
from detect.records.detection import Document, Record, TokenView
from detect.records.written import format_p, key_label
from detect.report import closing, controls
from detect.report.checking import made_facts
from detect.report.closing import cell, code, e_cell, name_cell, p_cell
from detect.report.detection import first_page
from detect.report.detection.method import PAPERS, method
from detect.report.detection.wording import (
    Verdict,
    recompute_command,
    score,
    several_keys,
    strongest_keys,
    verdicts,
)
from detect.report.paper import plots
from detect.report.runs import Runs, e_value, level, p_value, runs, said
from detect.report.story import (
    Block,
    Cell,
    Code,
    Details,
    Leaf,
    Pairs,
    Plots,
    Section,
    Story,
    Table,
    Text,
    Token,
    Tokens,
    column,
    heading,
    text,
)
from watermark.laws import Bernoulli, Exponential, Law

ROWS = 1000  # of the table of documents
DETAILS = 20  # up to this many documents are all shown in full; of more, the strongest and those with a token view
BRIEF = 4  # up to this many documents a terminal has the facts of each, of more the table
PLOTTED = 8  # from this many documents on their p-values are plotted
KEYS = 12  # shown of each document, best first
SUBKEYS = 8  # shown of each key, best first
ON_PAPER = 6  # of the strongest documents are always shown in full, and no more in a PDF
REASONS = 3  # different reasons for refusal that are spelt out
# A token is tinted by the smallest of these that its p-value reaches. Without the key at most that share is.
LEVELS = (0.3, 0.1, 0.03, 0.01, 0.001)
_GREEN = 3  # tint of a token on the green list
_DOT = "\N{MIDDLE DOT} "  # stands for a token that is not quoted
_NAME = 300


def story(record: Record) -> Story:
    """Tell what the record of a detection says."""
    answers = verdicts(record)
    return Story(
        kind="detection",
        tone=first_page.tone(answers),
        headline=first_page.headline(answers),
        lead=list(first_page.lead(record, answers)),
        facts=first_page.facts(record, answers),
        parts=first_page.parts(record),
        sections=[
            *_documents(record, answers),
            *closing.closing(record, list(method(record)), PAPERS, list(_manifest(record))),
        ],
        brief=list(first_page.brief(record, answers)),
        **closing.written(record, "Watermark detection report"),
    )


def _documents(record: Record, answers: Sequence[Verdict]) -> Iterator[Section]:
    """The documents in a table, and those that are shown in full; a single one is shown in full alone."""
    if not answers:
        yield Section("Documents", "documents", [text("There were none.")], True)
        return
    every = len(answers) <= DETAILS
    full = {f"d{n}": a for n, a in enumerate(answers, 1) if every or n <= ON_PAPER or a.document.view is not None}
    details: list[Block] = [Details(_name(a), ident, list(_in_full(record, a, ident))) for ident, a in full.items()]
    short = [Details(_name(a), "", list(_facts(record, a))) for a in answers[:BRIEF]]
    if len(answers) == 1:
        yield Section("Document", "documents", details, True, brief=short)
        return
    yield _overview(record, answers, set(full), short if len(answers) <= BRIEF else ())
    some = text("For $n documents. The JSON record has the numbers of all.", soft=True, n=len(full))
    shown = details if len(full) == len(answers) else [some, *details]
    yield Section("Evidence document by document", "details", shown, short="Evidence", on_paper=ON_PAPER)


def _overview(record: Record, answers: Sequence[Verdict], linked: set[str], brief: Sequence[Block]) -> Section:
    """All documents in one table; ``brief`` instead of it in a terminal, if there is anything in it."""
    intro = text(
        "“p” pays for all sub-keys and keys; “p, all documents” for the number of documents as well (Holm).", soft=True
    )
    table, reasons, hidden = _table(record, answers, linked), list(_reasons(answers)), len(answers) - ROWS
    more = text("$n more documents, with weaker results, are in the JSON record only.", n=hidden)
    blocks = [intro, table, *([more] if hidden > 0 else []), *reasons, *_document_plot(record)]
    return Section("Documents, strongest first", "documents", blocks, True, "Documents", brief or [table, *reasons])


def _name(answer: Verdict) -> Runs:
    return said(answer.document.name, _NAME)


def _table(record: Record, answers: Sequence[Verdict], linked: set[str]) -> Table:
    several, aware = several_keys(record), any(answer.document.aware for answer in answers)
    columns = [
        column("Document", width=3),
        column("Verdict"),
        column("p", "r", rank=2),
        column("p, all documents", "r"),
        column("Strength", "r", rank=4),
        column("Tuples", "r", rank=3),
        *([column("Key", width=2)] if several else []),
        column("Rank of key", "r"),
        *([column("e-value", "r", rank=1)] if aware else []),
    ]
    rows: list[list[Cell]] = []
    for number, answer in enumerate(answers[:ROWS], 1):
        document, strength, ident = answer.document, score(record.spec, answer), f"d{number}"
        rows.append(
            [
                name_cell(document.name, link=ident if ident in linked else ""),
                cell(answer.short, tone=answer.tone),
                p_cell(document.log10_pvalue),
                p_cell(document.log10_pvalue_corpus),
                cell(strength.short if strength else None),
                cell(document.tuples),
                *([name_cell(answer.named) if answer.best else cell(None)] if several else []),
                cell(answer.rank),
                *([e_cell(answer.best_aware.log10_evalue if answer.best_aware else None)] if aware else []),
            ]
        )
    return Table("Verdict and numbers of each document", columns, rows)


def _reasons(answers: Sequence[Verdict]) -> Iterator[Text]:
    """Why documents were refused."""
    reasons = sorted({answer.sentence for answer in answers if answer.tone == "refused"})
    for reason in reasons[:REASONS]:
        yield Text(runs("$reason.", reason=said(reason[:1].upper() + reason[1:], 600)), tone="refused")
    if len(reasons) > REASONS:
        yield text("... and $n more reasons for refusal", n=len(reasons) - REASONS)


def _document_plot(record: Record) -> Iterator[Leaf]:
    tested = [(d.log10_pvalue, d.found) for d in record.documents if d.log10_pvalue is not None]
    if len(tested) >= PLOTTED:
        drawing = plots.document_plot(tested, level_per_test(record.documents, record.alpha), "all")
        caption = (
            "Each circle is a document; filled ones are marked. The dashed curve is what text written without the key "
            "gives. The dotted line is what the strongest document must reach."
        )
        yield from closing.plotted([(drawing, caption)])


def _facts(record: Record, answer: Verdict) -> Iterator[Leaf]:
    """The verdict of a document and the numbers that it rests on."""
    yield Text(answer.line, tone=answer.tone)
    yield Pairs("Numbers of this document", list(_pairs(record, answer)))


def _pairs(record: Record, answer: Verdict) -> Iterator[tuple[str, Runs]]:
    document, best, strength = answer.document, answer.best, score(record.spec, answer)
    known = document.prompt_tokens is not None
    prompt = f"after {document.prompt_tokens:,} known prompt tokens" if known else "prompt unknown"
    yield "Tokens", runs(f"$n ({prompt}), $tuples distinct tuples", n=document.tokens, tuples=document.tuples)
    if best is not None and strength is not None:
        yield "Strength", runs(strength.text)
        subkey = min(best.subkeys, key=lambda tally: tally.log10_pvalue).subkey
        pool = f", sub-key {subkey} of 0..{len(best.subkeys) - 1}" if len(best.subkeys) > 1 else ""
        among = f" (of {document.tested:,} keys tested)" if document.tested > 1 else ""
        where = f", {best.tuples:,} tuples{pool}" if best.key in answer.keys or not among else ""
        yield "Key", runs(f"$key{among}{where}", key=answer.named)
    if document.log10_pvalue is not None:
        alone, count = p_value(document.log10_pvalue), len(record.documents)
        both = "$p alone, $paid with $n documents paid for" if count > 1 else "$p"
        yield "p-value", runs(both, p=alone, paid=p_value(document.log10_pvalue_corpus), n=count)
    if answer.rank is not None:
        yield "Rank of the key", runs("<b>$rank</b> keys, the others decoys", rank=answer.rank)
    decoys = document.decoys
    if decoys is not None and decoys.drawn is None:  # ranks agree with decoys by construction
        yield "Decoys", controls.decoys(len(decoys.log10_pvalues), decoys.log10_agreement).text
    elif decoys is None and document.log10_pvalue is not None:
        yield "Decoys", runs("not run")
    aware, bet = document.aware, answer.best_aware
    if aware is not None and bet is not None:
        named = document.tested == 1 or bet.key in answer.keys
        yield (
            "Model-aware",
            runs(
                f"e = $e, p ≤ $p{' (keys paid for)' if document.tested > 1 else ''}; $key, $n positions, model $model",
                e=e_value(bet.log10_evalue),
                p=p_value(aware.log10_pvalue),
                key=f"{key_label(bet.key)} key" if named else "the strongest key",
                n=bet.positions,
                model=aware.model,
            ),
        )


def _in_full(record: Record, answer: Verdict, ident: str) -> Iterator[Leaf]:
    document = answer.document
    verdict, pairs = _facts(record, answer)
    yield verdict
    assert isinstance(pairs, Pairs)
    yield Pairs(pairs.caption, [*pairs.pairs, ("Token ids, SHA-256", code(document.sha256))])
    if strongest_keys(document):
        yield from _keys(record, document)
    if document.aware is not None:
        yield from _aware(document)
    decoys = document.decoys
    if decoys is not None and decoys.log10_pvalues:
        yield heading("Decoy keys", level=4)
        true = document.log10_pvalue
        if decoys.drawn is not None and document.hypotheses:  # ranks: shown by the law's tails that are compared
            true = document.hypotheses[0].subkeys[0].log10_pvalue
        every = "Every key’s p-value on a logarithmic scale." + ("" if true is None else " Diamond: the true key.")
        yield Plots(closing.drawn_decoys(decoys.log10_pvalues, true, ident, every, several=True))
    if document.view is not None:
        yield from _text(record, answer, document.view)


def _keys(record: Record, document: Document) -> Iterator[Leaf]:
    nats = isinstance(record.spec.build_scheme().law, Exponential)
    yield heading("Keys tested", level=4)
    yield text(
        f"Each sub-key’s sum of scores and {'the law’s tail of it' if record.calibration else 'its exact p-value'}; "
        "then the key’s, with the choice among sub-keys paid for (Šidák), and among keys as well (Holm)."
        + (
            " Some key is the strongest in any text: the verdict above names only those that pay for all keys and all "
            "documents."
            if document.tested > 1
            else ""
        )
        + (" $units units are one nat." if nats else ""),
        soft=True,
        units=round(1 / record.spec.build_scheme().unit),
    )
    names = ["Tuples", "Sub-key", "Sum, units" if nats else "Sum", "p", "p, sub-keys", "p, keys"]
    rows: list[list[Cell]] = []
    keys = strongest_keys(document)[:KEYS]
    for key in keys:
        tallies = sorted(key.subkeys, key=lambda tally: tally.log10_pvalue)[:SUBKEYS]
        n = len(tallies)
        for number, tally in enumerate(tallies):
            own = [cell(tally.subkey), cell(tally.total), p_cell(tally.log10_pvalue)]
            if number == 0:
                left = [name_cell(key_label(key.key), rows=n), cell(key.tuples, rows=n)]
                own = [*left, *own, p_cell(key.log10_pvalue, rows=n), p_cell(key.log10_pvalue_adjusted, rows=n)]
            rows.append(own)
    columns = [column("Key", width=2), *(column(name, "r") for name in names)]
    yield Table("Sub-keys and keys of this document", columns, rows)
    if len(keys) < document.tested or any(len(key.subkeys) > SUBKEYS for key in keys):
        whole = len(document.hypotheses) == document.tested
        held = "all $all keys and their sub-keys" if whole else "the numbers of the $held strongest of $all keys"
        hashes = "" if whole else " and their sub-keys, and of each key the hash of all its sums"
        yield text(
            f"Only the best are shown; the JSON record has {held}{hashes}.",
            soft=True,
            all=document.tested,
            held=len(document.hypotheses),
        )


def _aware(document: Document) -> Iterator[Leaf]:
    found = document.aware
    assert found is not None
    yield heading("With the owner’s model", level=4)
    yield text(
        "Model: $model. An e-value is the factor by which a bet against “written without the key” grew; p is at most "
        "1/e.",
        soft=True,
        model=found.model,
    )
    names = ["Positions", "e-value", "p at most", "p at most, keys"]
    rows = [
        [
            name_cell(key_label(h.key)),
            cell(h.positions),
            e_cell(h.log10_evalue),
            p_cell(h.log10_pvalue),
            p_cell(h.log10_pvalue_adjusted),
        ]
        for h in sorted(found.hypotheses, key=lambda h: -h.log10_evalue)[:KEYS]
    ]
    columns = [column("Key", width=2), *(column(name, "r") for name in names)]
    yield Table("Model-aware e-values of this document", columns, rows)
    if found.decoy_log10_evalues:
        yield text(
            "Largest e-value among $n decoy keys: $e.",
            soft=True,
            n=len(found.decoy_log10_evalues),
            e=e_value(max(found.decoy_log10_evalues)),
        )


def _text(record: Record, answer: Verdict, view: TokenView) -> Iterator[Leaf]:
    """The text, tinted by what its tokens score, and how many of them score so."""
    document, law = answer.document, record.spec.build_scheme().law
    key = "the global key" if view.hypothesis == "global" else key_label(view.hypothesis)
    if document.tested > 1 and view.hypothesis not in answer.keys:
        key = "the strongest of the keys tested"
    yield heading("Text", level=4)
    yield text(
        "How surprising each token’s score is without the key, under sub-key $subkey of $key. Not counted: "
        "repeats, tokens whose context is unknown, and contexts of another key."
        + ("" if record.quotes else " The text is not quoted: a dot stands for each token.")
        + (" The first $n of $all tokens." if len(view.texts) < document.tokens else ""),
        soft=True,
        subkey=view.subkey,
        key=key,
        n=len(view.texts),
        all=document.tokens,
    )
    pieces = view.texts if record.quotes else [_DOT] * len(view.texts)
    tokens = [_token(piece, p, law) for piece, p in zip(pieces, view.pvalues, strict=True)]
    if isinstance(law, Bernoulli):
        legend = [(_GREEN, "on the green list"), (0, "not on it")]
    else:
        legend = [(tint, f"p ≤ {bound:g}") for tint, bound in enumerate(LEVELS, 1)]
    yield Tokens(tokens, [*legend, (-1, "not counted; hover over the others for p")])
    yield from _shares(view, law)


def _token(piece: str, p: float | None, law: Law) -> Token:
    if p is None:
        return Token(piece, -1)
    tint = _GREEN * (p < 1) if isinstance(law, Bernoulli) else sum(p <= bound for bound in LEVELS)
    return Token(piece, tint, f"p = {format_p(math.log10(p) if p > 0 else -math.inf)}")


def _shares(view: TokenView, law: Law) -> Iterator[Leaf]:
    """What share of the counted tokens scores so high, beside the largest that is expected without the key."""
    counted = [p for p in view.pvalues if p is not None]
    if not counted:
        return
    if isinstance(law, Bernoulli):
        shares = [("on the green list", sum(p < 1 for p in counted), law.gamma)]
    else:
        shares = [(f"p ≤ {bound:g}", sum(p <= bound for p in counted), bound) for bound in LEVELS]
    exact = isinstance(law, (Bernoulli, Exponential))
    names = ["Here", "Without the key" if exact else "Without the key, at most"]
    rows = [[cell(what), cell(f"{n / len(counted):.1%}"), cell(f"{share:.1%}")] for what, n, share in shares]
    columns = [column("Counted tokens"), *(column(name, "r") for name in names)]
    yield Table("Share of counted tokens at or below each p-value", columns, rows)


def _manifest(record: Record) -> Iterator[Block]:
    accounts = " (or of an account’s own)" if record.spec.global_share < 1 else ""
    yield text(
        "This makes the same record again, but for when and by whom, where the spec below is saved as "
        f"<code>spec.json</code> and KEYFILE is the file of the key{accounts}:"
    )
    yield Code(recompute_command(record))
    yield heading("Inputs", "inputs")
    yield closing.files_table("Input files", record.inputs)
    yield from closing.watermark(record)
    yield heading("This run")
    facts = [
        ("Tests", said(", ".join(record.tests))),
        ("Level of the report", level(record.alpha)),
        ("Decoy keys", runs("$n, seed <code>$seed</code>", n=record.decoy_count, seed=record.decoy_seed)),
        ("Text to token ids", said(record.encoder)),
    ]
    yield Pairs("This run", [*made_facts(record), *facts, *closing.environment(record)])
