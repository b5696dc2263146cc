"""A trace's record in a terminal: the answer, what was read, the keys, other readouts, and the controls.

As in `terminal`, everything is shown through `rich.text.Text` objects of cleaned strings, and the wording is ASCII.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from detect.records.trace import ModelSeen, TraceRecord
from detect.records.written import format_e, format_level, format_p, format_time, key_label
from detect.report.checking import made_line
from detect.report.detection.terminal import Shown, print_assumptions, print_checks
from detect.report.runs import plain
from detect.report.scan.wording import interval
from detect.report.trace.wording import (
    answer,
    control_lines,
    deviations,
    identification,
    number,
    readouts,
    signed,
    strongest_keys,
    tenants_tested,
)
from detect.report.wording import commitment_date

KEYS = 8
READINGS = 4
_STYLES = {"marked": "bold green", "unmarked": "bold", "refused": "bold yellow"}
_TOKENIZERS = {"same": "same tokenizer", "aligned": "another tokenizer, aligned", "text": "through its text"}


def print_trace(record: TraceRecord, console: Console, *, whole: bool = False) -> None:
    """Print the record; ``whole`` as in `terminal.print_checks`."""
    shown = Shown(console)
    says = answer(record)
    console.print(shown.whole(says.headline, _STYLES[says.kind]))
    for line in _answer_lines(record):
        console.print(Padding(shown.whole(line), (0, 0, 0, 2)))
    console.print()
    _print_facts(record, console, shown)
    _print_keys(record, console, shown)
    _print_readouts(record, console, shown)
    for sound, control in control_lines(record):
        console.print(shown.whole(f"control: {plain(control)}", "dim" if sound else "yellow"))
    committed = commitment_date(record.commitment)
    about = f"key {record.key_fingerprint}, {committed}; spec {record.spec_id} ({record.spec.scheme})"
    console.print(shown.whole(about, "dim"))
    console.print(shown.whole(made_line(record), "dim"))
    print_assumptions(record.assumptions, console)
    print_checks(record, console, whole)


def _answer_lines(record: TraceRecord) -> Iterator[str]:
    if record.log10_pvalue is None:
        yield record.refused or ""
        return
    says = answer(record)
    p, alpha = format_p(record.log10_pvalue), format_level(record.alpha)
    if record.basis == "e-value":
        by = "the keys' e-values, all keys paid for" if record.hypotheses[1:] else "the e-value"
        yield f"p <= {p} by {by} ({format_e(record.log10_evalue)}); found at {alpha} or less"
    else:
        how = ", all keys paid for" if record.hypotheses[1:] else ", exact" if record.calibration is None else ""
        yield f"p = {p}{how}; found at {alpha} or less"
    if record.calibration is not None:
        yield record.calibration
    if says.kind == "marked" and says.tosses > 9:
        yield f"As likely as calling {says.tosses:,} tosses of a fair coin, each one right."
    if tenants_tested(record):
        yield identification(record)


def _print_facts(record: TraceRecord, console: Console, shown: Shown) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, fact in _facts(record):
        grid.add_row(label, shown.whole(fact))
    console.print(Padding(grid, (0, 0, 1, 2)))


def _facts(record: TraceRecord) -> Iterator[tuple[str, str]]:
    yield "suspect", _model(record.student)
    if record.references:
        yield "reference", ", ".join(f"{r.model.name} ({r.share:.0%})" for r in record.references)
    for reading in record.readings[:READINGS]:
        what = "answers to" if record.mode == "api" else "marked documents of" if reading.marked else "documents of"
        counts = (
            f"{reading.documents:,} {what} {reading.name}, {reading.tokens:,} tokens, {reading.contexts:,} contexts"
        )
        if reading.barred:
            counts += f"; {reading.barred:,} stood in a prompt and did not count"
        yield "read" if record.mode == "weights" else "asked", counts
    if record.queries is not None:
        asked = record.queries
        yield (
            "queries",
            f"{asked.requests:,} requests, {asked.answers:,} answers used ({asked.evidence}); {asked.stopped}",
        )
    if record.plan is not None:
        first = format_time(record.plan.first_query) if record.plan.first_query else "not sent"
        yield "plan", f"{record.plan.sha256[:16]}, made {format_time(record.plan.created)}, first query {first}"
    power = record.power
    yield (
        "power",
        f"{number(power.detectable_z_per_context)} sd per context would be found with chance 95%; "
        f"seen {number(power.observed_z_per_context) if record.refused is None else 'not given'}",
    )
    if record.refused is None:
        share = record.share
        yield "training", interval(share.interval) if share.interval else f"share not identified: {share.reason}"


def _model(model: ModelSeen) -> str:
    digest = f", sha256 {model.sha256[:12]}" if model.sha256 else ""
    return f"{model.name} ({_TOKENIZERS[model.tokenizer]}{digest})"


def _print_keys(record: TraceRecord, console: Console, shown: Shown) -> None:
    if record.refused is not None:
        return
    keys = strongest_keys(record)[:KEYS]
    columns = {
        "p": [format_p(key.log10_pvalue_adjusted) for key in keys],
        "p alone": [format_p(key.log10_pvalue_tested) for key in keys],
        "e-value": [format_e(key.log10_evalue) for key in keys],
        "sd": [signed(deviations(key)) for key in keys],
        "contexts": [f"{key.contexts:,}" for key in keys],
    }
    names = {"key": [shown(key_label(key.key)) for key in keys]}
    hidden = len(record.hypotheses) - len(keys)
    note = f"{hidden:,} more keys are in the JSON record" if hidden else ""
    print_table(console, shown, names, columns, {"p", "sd"}, note)


def _print_readouts(record: TraceRecord, console: Console, shown: Shown) -> None:
    rows = readouts(record)
    if record.refused is not None or len(rows) < 2:
        return
    exact = record.basis == "p-value"  # else there is no p-value of a readout that is valid
    columns = {
        "sd": [signed(result.z) for _, result in rows],
        **({"p": [format_p(r.log10_pvalue) if r.log10_pvalue is not None else "-" for _, r in rows]} if exact else {}),
        "contexts to 10^-10": ["-" if r.contexts_needed is None else f"{r.contexts_needed:,}" for _, r in rows],
    }
    names = {"readout": [shown(f"{result.readout}{' (the one used)' if own else ''}") for own, result in rows]}
    print_table(
        console, shown, names, columns, {"sd", "contexts to 10^-10"}, "other readouts have no part in the verdict"
    )


_PLACE = 40
_NARROW = 70


def print_table(
    console: Console,
    shown: Shown,
    names: dict[str, list[Text]],
    columns: dict[str, list[str]],
    kept: set[str],
    note: str,
) -> None:
    """Print names, cut where they are long, and numbers, which never are: a narrow terminal gets the ``kept`` ones."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    if console.width < _NARROW:
        columns = {header: cells for header, cells in columns.items() if header in kept}
    for header in names:
        table.add_column(header, no_wrap=True, overflow=shown.cut, max_width=_PLACE)
    for header, cells in columns.items():
        table.add_column(header, justify="right", no_wrap=True, min_width=max(map(len, [header, *cells])))
    for row in zip(*names.values(), *columns.values(), strict=True):
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console.print(table)
    if note:
        console.print(shown.whole(f" {note}", "dim"))
    console.print()
