"""A trace's record as PDF/A: the answer on the first page, then the sceptic's questions, evidence, method and manifest.

What is said is what the page says (`trace_text`, `trace_sceptic`, `trace_method`); `typeset` sets it.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from detect.records.trace import TraceRecord
from detect.records.written import format_time, key_label, percent
from detect.report.paper import plots, typeset
from detect.report.runs import Run, Runs, e_value, p_value, runs, to_data
from detect.report.trace import plots as trace_plots
from detect.report.trace.manifest import asked, manifest, models
from detect.report.trace.method import method, references
from detect.report.trace.sceptic import hypotheses, objections
from detect.report.trace.text import share_lines, summary
from detect.report.trace.wording import (
    RECOMPUTE,
    VERIFY,
    control_lines,
    decoys_beside,
    deviations,
    number,
    readouts,
    signed,
    strongest_keys,
)

KEYS = 40
ROWS = 60  # of every other table
Blocks = list[dict[str, Any]]


def render_trace_pdf(record: TraceRecord) -> bytes:
    """Render the record as PDF/A; the same record gives the same bytes.

    Raises
    ------
    DyetraceError
        The PDF compiler isn't installed, or can't set this record.
    """
    return typeset.compile_pdf(_content(record), "scan")


def _content(record: TraceRecord) -> dict[str, Any]:
    sections = [
        ("The court of a sceptic", _court(record)),
        ("Evidence", _evidence(record)),
        ("Controls", _controls(record)),
        ("Share of the training text", _share(record)),
        ("Method", typeset.method_blocks(method(record), references())),
        *typeset.closing(record, "Record and recomputation", _manifest(record)),
    ]
    return typeset.document(record, "trace", "Student trace report", summary(record), sections)


def _court(record: TraceRecord) -> Blocks:
    blocks = [typeset.text("<b>$name.</b> $text", name=name, text=text) for name, text in hypotheses()]
    for objection in objections(record):
        blocks.append(
            typeset.heading(objection.question + ("" if objection.sound else " (not answered by this report)"))
        )
        blocks += [{"kind": "text", "runs": to_data(line)} for line in objection.lines]
    return blocks


def _evidence(record: TraceRecord) -> Blocks:
    if record.refused is not None:
        return [typeset.text("No p-value is given. The totals of every key are in the JSON record.")]
    drawn = [
        (trace_plots.evidence(record, "a"), "The evidence as it grew, for the first key alone. Dashed: the level."),
        (trace_plots.keys(record, "b"), "Each key, the choice among all of them paid for. Dashed: the level."),
        (
            trace_plots.comparison(record, "c"),
            "Contexts that each readout needs; all but one have no part in the verdict.",
        ),
    ]
    keys, tails = strongest_keys(record)[:KEYS], record.sided == "two-sided"
    rows = [
        [
            typeset.name(key_label(k.key)),
            p_value(k.log10_pvalue_adjusted),
            p_value(k.log10_pvalue_tested),
            *([p_value(k.log10_pvalue), p_value(k.log10_pvalue_lower)] if tails else []),
            e_value(k.log10_evalue),
            _minus(signed(deviations(k))),
            typeset.plain(k.contexts),
            typeset.plain(k.tuples),
        ]
        for k in keys
    ]
    between = ["Upper tail", "Lower tail"] if tails else []
    head = ["Key", "p", "p, alone", *between, "e-value", "Lean, sd", "Contexts", "Words"]
    paid = "“p” pays for all $n keys (Holm); “p, alone” is what it would be of one. $shown are shown."
    text = paid if len(record.hypotheses) > 1 else "Only one key was tested, so that there is no choice to pay for."
    blocks = [
        _plots(drawn),
        typeset.heading("Keys"),
        typeset.text(text, n=len(record.hypotheses), shown=len(rows)),
        typeset.table(head, "l" + "r" * (len(head) - 1), [3, *[0] * (len(head) - 1)], rows),
    ]
    return [*blocks, *_readouts(record)]


def _readouts(record: TraceRecord) -> Blocks:
    compared = readouts(record)
    if len(compared) < 2:
        return []
    exact = record.basis == "p-value"  # else there is no p-value of a readout that is valid
    rows = [
        [
            typeset.name(f"{r.readout}{' (the one used)' if own else ''}"),
            _minus(signed(r.z)),
            *([p_value(r.log10_pvalue)] if exact else []),
            typeset.plain(r.contexts),
            typeset.plain("–" if r.contexts_needed is None else r.contexts_needed),  # noqa: RUF001
        ]
        for own, r in compared[:ROWS]
    ]
    return [
        typeset.heading("Other ways to read the same model"),
        typeset.text("They read the same contexts, under the first key, and have no part in the verdict."),
        typeset.table(
            ["Readout", "Lean, sd", *(["p"] if exact else []), "Contexts", "Contexts to p = 1e-10"],
            "lrrrr" if exact else "lrrr",
            [3, *[0] * (4 if exact else 3)],
            rows,
        ),
    ]


def _controls(record: TraceRecord) -> Blocks:
    lines = [to_data((Run("" if sound else "Take note: ", ("b",)), *line)) for sound, line in control_lines(record)]
    decoys, beside = record.controls.decoy_log10_pvalues, decoys_beside(record)
    drawn: list[tuple[Markup | None, str]] = []
    if decoys:
        drawn = [
            (plots.decoy_strip(decoys, beside, "d"), "Every decoy’s p-value."),  # noqa: RUF001
            (plots.decoy_curve(decoys, beside, "e"), "Sound decoys leave the shaded area in at most 5 of 100 runs."),
        ]
    return [{"kind": "list", "items": lines}, _plots(drawn)]


def _share(record: TraceRecord) -> Blocks:
    if record.refused is not None:
        return [typeset.text("No share is given.")]
    blocks: Blocks = [{"kind": "text", "runs": to_data(line)} for line in share_lines(record)]
    if not record.share.doses:
        return blocks
    rows = [
        [
            typeset.name(dose.name),
            typeset.plain(percent(dose.share) if dose.share else "0"),
            _minus(number(dose.effect, 3)),
            typeset.plain(number(dose.standard_error)),
        ]
        for dose in record.share.doses[:ROWS]
    ]
    caption = (
        "Dots: calibration students; bars: what contexts add by chance, common to them all; red: the suspect; shaded: "
        "the interval of its share."
    )
    return [
        *blocks,
        _plots([(trace_plots.dose_response(record.share, "f"), caption)]),
        typeset.table(["Student", "Marked share", "Effect per context", "Standard error"], "lrrr", [3, 0, 0, 0], rows),
    ]


def _manifest(record: TraceRecord) -> Blocks:
    seen = [
        [
            typeset.name(role),
            typeset.name(model.name),
            typeset.plain(model.tokenizer),
            typeset.digest(model.sha256),
        ]
        for role, model in models(record)[:ROWS]
    ]
    texts = [
        [
            typeset.name(r.name),
            typeset.plain("marked" if r.marked else "unmarked"),
            *(typeset.plain(count) for count in (r.documents, r.tokens, r.contexts)),
            typeset.digest(r.sha256),
        ]
        for r in record.readings[:ROWS]
    ]
    rows = [[typeset.name(file.name), typeset.plain(file.bytes), typeset.digest(file.sha256)] for file in record.files]
    facts: list[tuple[str, Runs]] = [("Key fingerprint", typeset.value(record.key_fingerprint))]
    if record.commitment is not None:
        made = format_time(record.commitment.created)
        facts += [
            ("Commitment, SHA-256", typeset.digest(record.commitment.sha256)),
            ("Commitment, dated", runs("$time; its file says so, and nothing proves it", time=made)),
        ]
    facts += [(name, typeset.breakable(value)) for name, value in [*asked(record), *manifest(record)]]
    what = "Answers" if record.mode == "api" else "Documents"
    return [
        typeset.text("Anyone can run the first of these, and whoever has the key the second:"),
        typeset.code(f"{VERIFY}\n{RECOMPUTE}"),
        typeset.heading("Models"),
        typeset.table(["Role", "Name", "Tokenizer", "SHA-256"], "llll", [2, 3, 0, 3], seen),
        typeset.heading("Prompts" if record.mode == "api" else "Texts read"),
        typeset.table(["Name", "Kind", what, "Tokens", "Contexts", "SHA-256"], "llrrrl", [2, 0, 0, 0, 0, 3], texts),
        typeset.heading("Files of this report"),
        typeset.table(["Name", "Bytes", "SHA-256"], "lrl", [1, 0, 2], rows),
        typeset.heading("Watermark, key and trace"),
        typeset.table(["What", "Value"], "ll", [1, 3], [[typeset.name(name, 80), value] for name, value in facts]),
        typeset.heading("Spec"),
        *typeset.spec_blocks(record.spec_id, record.spec),
    ]


def _minus(written: str) -> Runs:
    return typeset.plain(written.replace("-", "\N{MINUS SIGN}"))


def _plots(drawn: list[tuple[Markup | None, str]]) -> dict[str, Any]:
    return {"kind": "plots", "plots": [typeset.plot(plot, caption) for plot, caption in drawn if plot is not None]}
