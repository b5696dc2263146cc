"""What was put into a trace: models, queries, options and versions, for its page and its PDF."""

from __future__ import annotations

from detect.records.trace import ModelSeen, TraceRecord
from detect.records.written import format_time
from detect.report.checking import made_facts
from detect.report.detection.page import shown_argument
from detect.report.runs import Runs, level, runs

_SIDES = {"upper": "upper: a lean to the key’s words", "two-sided": "both sides"}  # noqa: RUF001


def models(record: TraceRecord) -> list[tuple[str, ModelSeen]]:
    """Every model that was read, with its role."""
    references = [("reference", reference.model) for reference in record.references]
    controls = [(f"control: {control.what}", control.model) for control in record.controls.models]
    return [("suspect", record.student), *references, *controls]


def asked(record: TraceRecord) -> list[tuple[str, Runs]]:
    """The plan of the queries, and what was sent; nothing for open weights."""
    rows: list[tuple[str, Runs]] = []
    if record.plan is not None:
        plan = record.plan
        first = format_time(plan.first_query) if plan.first_query else "none was sent"
        rows += [
            ("Plan, SHA-256", code(plan.sha256)),
            ("Plan made", runs("$time, by the analyst’s clock", time=format_time(plan.created))),  # noqa: RUF001
            ("First query", runs("$time", time=first)),
        ]
    if record.queries is not None:
        sent = record.queries
        rows += [
            ("Evidence", runs(sent.evidence)),
            ("Requests", runs("$n, retries excluded", n=sent.requests)),
            ("Answers used", runs("$n", n=sent.answers)),
            ("Tokens", runs("$n of prompts, $m of answers", n=sent.prompt_tokens, m=sent.completion_tokens)),
            ("Stopped", runs("$why", why=sent.stopped)),
            ("Ledger, SHA-256", code(sent.ledger_sha256)),
            ("Last hash of its chain", code(sent.ledger_head)),
        ]
    return rows


def manifest(record: TraceRecord) -> list[tuple[str, Runs]]:
    """The options, packages and times of the trace."""
    decoys = len(record.controls.decoy_log10_pvalues)
    rows = [
        *made_facts(record),
        ("Level of the report", level(record.alpha)),
        ("Readout", code(record.readout)),
        ("Sides", runs(_SIDES[record.sided])),
        ("Verdict rests on", runs(f"the {record.basis}")),
        ("Decoy keys", runs("$n, seed <code>$seed</code>", n=decoys, seed=record.controls.decoy_seed)),
    ]
    if record.served is not None:
        rows.append(("Served contexts, SHA-256", code(record.served.sha256)))
    rows += [
        (f"Share of reference {i + 1}", runs(f"{reference.share:.4f}")) for i, reference in enumerate(record.references)
    ]
    rows.append(("Record format", runs(f"{record.format} {record.version}")))
    rows += [(f"Argument {name}", code(shown_argument(value))) for name, value in sorted(record.arguments.items())]
    return [*rows, *((name, runs("$version", version=version)) for name, version in sorted(record.versions.items()))]


def code(text: str) -> Runs:
    """A value as it stands."""
    return runs("<code>$text</code>", text=text)
