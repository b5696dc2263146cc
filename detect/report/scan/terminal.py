"""A scan's record in a terminal: the answer, the keys, the strongest documents, the shares and the controls.

As in `terminal`, everything is shown through `rich.text.Text` objects of cleaned strings, and the wording is ASCII.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from detect.records.scan import ScanRecord
from detect.records.written import format_level, format_p, key_label
from detect.report.checking import made_line
from detect.report.detection.terminal import Shown, print_assumptions, print_checks
from detect.report.runs import plain
from detect.report.scan.wording import (
    WHY_UNTESTED,
    answer,
    control_lines,
    discoveries_line,
    interval,
    named_in,
    place,
    skipped,
    skipped_reasons,
    strongest_keys,
    untested,
)
from detect.report.wording import commitment_date

KEYS = 8
DOCUMENTS = 10
_INPUTS = 3
_STYLES = {"marked": "bold green", "unmarked": "", "refused": "bold yellow"}
_PLACE = 40  # columns that the place of a document gets at most
_NARROW = 70  # columns below which tables leave out what can be left out


def print_scan(record: ScanRecord, console: Console, *, whole: bool = False) -> None:
    """Print the record; ``whole`` as in `terminal.print_checks`."""
    shown = Shown(console)
    says = answer(record)
    console.print(shown.whole(says.headline, _STYLES[says.kind] or "bold"))
    for line in _answer_lines(record):
        console.print(Padding(shown.whole(line), (0, 0, 0, 2)))
    console.print()
    _print_facts(record, console, shown)
    _print_keys(record, console, shown)
    _print_documents(record, console, shown)
    _print_controls(record, console, shown)
    committed = commitment_date(record.commitment)
    specs = ", ".join(f"{i} ({spec.scheme})" for i, spec in zip(record.spec_ids, record.specs, strict=True))
    console.print(shown.whole(f"key {record.key_fingerprint}, {committed}; spec {specs}", "dim"))
    console.print(shown.whole(made_line(record), "dim"))
    print_assumptions(record.assumptions, console)
    print_checks(record, console, whole)


def _answer_lines(record: ScanRecord) -> Iterator[str]:
    if record.refused is not None:
        yield record.refused
        return
    says = answer(record)
    p, limit = format_p(record.log10_pvalue), format_level(record.alpha)
    yield f"p = {p}, all keys of this scan paid for; found at {limit} or less"
    if record.calibration is not None:
        yield record.calibration
    if says.kind == "marked" and says.tosses > 9:
        yield f"As likely as calling {says.tosses:,} tosses of a fair coin, each one right."
    if says.kind == "unmarked" and record.discoveries.benjamini_hochberg:
        yield "The list of documents below rests on the false-discovery rate alone."


def _print_facts(record: ScanRecord, console: Console, shown: Shown) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    names = [source.name for source in record.inputs[:_INPUTS]]
    more = len(record.inputs) - len(names)
    files = ", ".join(names) + (f" and {more:,} more files" if more else "")
    broken = skipped(record)
    reasons = "; ".join(f"{reason} ({count}x)" for reason, count in skipped_reasons(record)[:2])
    rows = [
        (
            "corpus",
            f"{record.documents:,} documents, {record.tokens:,} tokens, {record.distinct_tuples:,} distinct tuples",
        ),
        ("from", files or "no file"),
    ]
    if untested(record):
        rows.append(("untested", f"{untested(record):,} documents have nothing to test ({WHY_UNTESTED})"))
    if broken:
        rows.append(("skipped", f"{broken:,} broken records: {reasons}"))
    if record.refused is None:
        rows += [
            ("documents", discoveries_line(record)),
            ("share", f"{interval(record.shares.documents)} of documents, {interval(record.shares.tokens)} of tuples"),
        ]
    for label, text in rows:
        grid.add_row(label, shown.whole(text))
    console.print(Padding(grid, (0, 0, 1, 2)))


def _print_keys(record: ScanRecord, console: Console, shown: Shown) -> None:
    if record.refused is not None or not record.hypotheses:
        return
    keys = strongest_keys(record)[:KEYS]
    columns = {
        "p": [format_p(key.log10_pvalue_adjusted) for key in keys],
        "p pooled": [format_p(key.log10_pvalue_pooled) for key in keys],
        "p rare": [format_p(key.log10_pvalue_rare) for key in keys],
        "tuples": [f"{key.tuples:,}" for key in keys],
        "points to it": [f"{key.pointed:,}" for key in keys],
    }
    names = {"key": [shown(key_label(key.key)) for key in keys]}
    hidden = len(record.hypotheses) - len(keys)
    note = f"{hidden:,} more keys are in the JSON record" if hidden else ""
    print_table(console, shown, names, columns, {"p", "tuples"}, note)


def _print_documents(record: ScanRecord, console: Console, shown: Shown) -> None:
    if record.refused is not None or not record.hits:
        return
    hits = record.hits[:DOCUMENTS]
    columns = {
        "p": [format_p(hit.log10_pvalue) for hit in hits],
        "p, all": [format_p(hit.log10_pvalue_adjusted) for hit in hits],
        "tokens": [f"{hit.tokens:,}" for hit in hits],
        "segments": [", ".join(f"{s.start}-{s.end}" for s in hit.segments[:2]) or "-" for hit in hits],
    }
    names = {
        "document": [shown(place(record, hit) + (f" {hit.id}" if hit.id else "")) for hit in hits],
        "key": [shown(named_in(record, hit)) for hit in hits],
    }
    hidden = record.discoveries.benjamini_hochberg - len(hits)
    note = f"{hidden:,} more documents are in hits.jsonl" if hidden > 0 else ""
    print_table(console, shown, names, columns, {"p", "tokens"}, note)


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


def _print_controls(record: ScanRecord, console: Console, shown: Shown) -> None:
    for standing, line in control_lines(record):
        console.print(shown.whole(f"control: {plain(line)}", "dim" if standing == "sound" else "yellow"))
