"""A detection's record as PDF/A: the answer on the first page, then documents, evidence, method and manifest.

What is said is what the page says (`detection_text`, `detection_method`); `typeset` sets it. Texts of documents are
not in it: the page shows them.
"""

from __future__ import annotations

from typing import Any

from detect.records.detection import Document, Record
from detect.records.written import clean, format_time, key_label
from detect.report.checking import made_facts
from detect.report.controls import decoys_line
from detect.report.detection.method import method, references
from detect.report.detection.page import shown_argument
from detect.report.detection.text import Told, several_keys, summary, told
from detect.report.paper import plots, typeset
from detect.report.runs import Runs, e_value, level, p_value, runs
from detect.report.wording import (
    Verdict,
    best_aware,
    best_hypothesis,
    limit_per_test,
    named_keys,
    recompute_command,
    score,
)

DOCUMENTS = 60  # of the table
DETAILED = 6  # of the strongest documents, keys and decoys
KEYS = 8  # of each
PLOTTED = 8  # from this many documents on their p-values are plotted
INPUTS = 200
Blocks = list[dict[str, Any]]


def render_detection_pdf(record: Record) -> bytes:
    """Render the record as PDF/A; the same record gives the same bytes.

    Raises
    ------
    DyetraceError
        The PDF compiler isn't installed, or can't set this record.
    """
    return typeset.compile_pdf(_content(record), "scan")


def _content(record: Record) -> dict[str, Any]:
    found = told(record)
    sections = [
        ("Documents", _documents(record, found)),
        *([("Evidence", _evidence(record, found))] if found.rows else []),
        ("Method", typeset.method_blocks(method(record), references())),
        *typeset.closing(record, "Record and recomputation", _manifest(record)),
    ]
    return typeset.document(record, "detection", "Watermark detection report", summary(record), sections)


def _documents(record: Record, found: Told) -> Blocks:
    if not found.rows:
        return [typeset.text("There were none.")]
    several, aware = several_keys(record), any(document.aware for document in record.documents)
    rows = [_row(record, document, answer, several, aware) for _, document, answer in found.rows[:DOCUMENTS]]
    head = ["Document", "Verdict", "p", "p, all doc.", "Strength", "Tuples", *(["Key"] if several else []), "Rank"]
    align, widths = "llrrrr" + ("l" if several else "") + "r", [3, 0, 0, 0, 0, 0, *([2] if several else []), 0]
    if aware:
        head, align, widths = [*head, "e-value"], align + "r", [*widths, 0]
    blocks = [
        typeset.text(
            "Strongest results first. “p” pays for all sub-keys and keys; “p, all doc.” for the number of documents as "
            "well (Holm). $shown of $all are shown; the JSON record has all.",
            shown=len(rows),
            all=len(found.rows),
        ),
        typeset.table(head, align, widths, rows),
    ]
    tested = [(d.log10_pvalue, d.found) for d in record.documents if d.log10_pvalue is not None]
    if len(tested) >= PLOTTED:
        drawn = plots.document_plot(tested, limit_per_test(record), "all")
        caption = (
            "Each circle is a document; filled ones are marked. Dashed: what text written without the key gives. "
            "Dotted: what the strongest must reach."
        )
        blocks.append({"kind": "plots", "plots": [typeset.plot(drawn, caption)]})
    return blocks


def _row(record: Record, document: Document, answer: Verdict, several: bool, aware: bool) -> list[Runs]:
    best, bet = best_hypothesis(document), best_aware(document)
    strength = score(record.spec, document, best) if best else None
    nothing = typeset.plain("–")  # noqa: RUF001
    rank = nothing
    if document.decoys is not None and document.refused is None:
        rank = typeset.plain(document.decoys.rank_of())
    return [
        typeset.name(document.name),
        typeset.plain(answer.short),
        nothing if document.log10_pvalue is None else p_value(document.log10_pvalue),
        nothing if document.log10_pvalue_corpus is None else p_value(document.log10_pvalue_corpus),
        typeset.plain(strength.short) if strength else nothing,
        typeset.plain(document.tuples),
        *([typeset.name(named_keys(document, answer), 60) if best else nothing] if several else []),
        rank,
        *([e_value(bet.log10_evalue) if bet else nothing] if aware else []),
    ]


def _evidence(record: Record, found: Told) -> Blocks:
    shown = found.rows[:DETAILED]
    blocks: Blocks = []
    if len(shown) < len(found.rows):
        blocks.append(
            typeset.text("For the $n strongest documents. The JSON record has the numbers of all.", n=len(shown))
        )
    for number, (_, document, answer) in enumerate(shown):
        blocks += _of_document(record, document, answer, f"d{number}")
    return blocks


def _of_document(record: Record, document: Document, answer: Verdict, ident: str) -> Blocks:
    strength = score(record.spec, document, best) if (best := best_hypothesis(document)) else None
    blocks: Blocks = [
        typeset.heading(clean(document.name, 120)),
        typeset.text(
            "$sentence$p.$strength $tokens tokens, $tuples distinct tuples; SHA-256 of the token ids "
            "<code>$hash</code>.",
            sentence=answer.sentence[:1].upper() + answer.sentence[1:],
            p=_paid(answer, len(record.documents)),
            strength=f" Strength: {strength.text}." if strength else "",
            tokens=document.tokens,
            tuples=document.tuples,
            hash=typeset.digest(document.sha256),
        ),
    ]
    if document.refused is None and document.hypotheses:
        keys = sorted(document.hypotheses, key=lambda h: (h.log10_pvalue_adjusted, h.log10_pvalue))[:KEYS]
        rows = [
            [
                typeset.name(key_label(key.key)),
                typeset.plain(key.tuples),
                typeset.plain(", ".join(f"{tally.subkey}: {tally.total:,}" for tally in key.subkeys), 400),
                p_value(key.log10_pvalue),
                p_value(key.log10_pvalue_adjusted),
            ]
            for key in keys
        ]
        head = ["Key", "Tuples", "Sub-keys: sums, units", "p, sub-keys", "p, keys"]
        blocks.append(typeset.table(head, "lrlrr", [2, 0, 4, 0, 0], rows))
        if len(keys) < document.tested:
            blocks.append(typeset.text("The best $n of $all keys.", n=len(keys), all=document.tested))
    return [*blocks, *_decoys(document, ident)]


def _paid(answer: Verdict, documents: int) -> Runs:
    if answer.log10_pvalue is None:
        return ()
    said = ", p ≤ $p with the model-aware test" if answer.aware else ", p = $p"
    return runs(said + (", all documents paid for" if documents > 1 else ""), p=p_value(answer.log10_pvalue))


def _decoys(document: Document, ident: str) -> Blocks:
    decoys = document.decoys
    if decoys is None or not decoys.log10_pvalues:
        return []
    true = document.log10_pvalue
    if decoys.drawn is not None:
        if document.hypotheses:  # ranks: shown by the law's tails that are compared
            true = document.hypotheses[0].subkeys[0].log10_pvalue
        line = runs("The p-value is the true key's rank among $n decoy keys", n=decoys.drawn)
    else:
        line = decoys_line(len(decoys.log10_pvalues), decoys.log10_agreement)[1]
    drawn = [
        typeset.plot(plots.decoy_strip(decoys.log10_pvalues, true, f"{ident}s"), "Every key’s p-value."),  # noqa: RUF001
        typeset.plot(
            plots.decoy_curve(decoys.log10_pvalues, true, f"{ident}c"),
            "Sound decoys leave the shaded area in at most 5 of 100 runs.",
        ),
    ]
    return [typeset.text("$line.", line=line), {"kind": "plots", "plots": drawn}]


def _manifest(record: Record) -> Blocks:
    inputs = [
        [
            typeset.name("standard input" if one.name == "-" else one.name),
            typeset.plain(one.bytes),
            typeset.digest(one.sha256),
        ]
        for one in record.inputs[:INPUTS]
    ]
    facts: list[tuple[str, Runs]] = [("Key fingerprint", typeset.value(record.key_fingerprint))]
    if record.commitment is not None:
        facts += [
            ("Commitment, SHA-256", typeset.digest(record.commitment.sha256)),
            (
                "Commitment, dated",
                typeset.plain(f"{format_time(record.commitment.created)}; its file says so, and nothing proves it"),
            ),
        ]
    facts += [
        *((name, typeset.breakable(value)) for name, value in made_facts(record)),
        ("Tests", typeset.plain(", ".join(record.tests))),
        ("Level of the report", level(record.alpha)),
        ("Decoy keys", runs("$n, seed <code>$seed</code>", n=record.decoy_count, seed=record.decoy_seed)),
        ("Text to token ids", typeset.name(record.encoder)),
        ("Record format", typeset.plain(f"{record.format} {record.version}")),
        *((f"Argument {name}", typeset.value(shown_argument(v))) for name, v in sorted(record.arguments.items())),
        *((name, typeset.name(version)) for name, version in sorted(record.versions.items())),
    ]
    rows = [[typeset.name(clean(name, 80)), value] for name, value in facts]
    more = len(record.inputs) - len(inputs)
    return [
        typeset.text("This makes the same record again, but for when and by whom:"),
        typeset.code(recompute_command(record)),
        typeset.heading("Inputs"),
        *([typeset.text("$n more inputs are in the JSON record.", n=more)] if more else []),
        typeset.table(["Name", "Bytes", "SHA-256"], "lrl", [2, 0, 3], inputs),
        typeset.heading("Watermark, key and run"),
        typeset.table(["What", "Value"], "ll", [1, 3], rows),
        typeset.heading("Spec"),
        *typeset.spec_blocks(record.spec_id, record.spec),
    ]
