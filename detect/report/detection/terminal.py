"""The record in a terminal.

Everything is shown through `rich.text.Text` objects of cleaned strings: nothing in them is read as markup,
and no control character reaches the terminal. The wording is ASCII, so that it survives any encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rich.cells import set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from detect.document.blind import NOTHING
from detect.records.assumptions import Assumption
from detect.records.detection import Document, Record
from detect.records.written import clean, format_e, format_level, format_p, key_label
from detect.report.checking import TITLE, AnyRecord, how_to_check, in_words, made_line, short_check
from detect.report.controls import decoys_line
from detect.report.runs import plain
from detect.report.wording import (
    Verdict,
    assumption_lines,
    best_aware,
    best_hypothesis,
    commitment_date,
    interest,
    named_keys,
    score,
    verdicts,
)

DETAILED = 4  # up to this many documents are shown in full, more as a table
ROWS = 40  # of the table
_NAME = 120  # characters of a name, a key, a sentence
_KEY = 24
_SENTENCE = 600
_PARAGRAPH = 1500
_REASONS = 3  # different reasons for refusal that are spelt out
_NAMES = 18  # columns that names get at least
_DISPENSABLE = (
    "score",
    "tuples",
    "p",
    "e-value",
)  # table columns to leave out of a narrow terminal, in this order
_STYLES = {"marked": "bold green", "unmarked": "", "refused": "bold yellow"}


def print_record(record: Record, console: Console, *, whole: bool = False) -> None:
    """Print the record: each document (or a table of them), then a summary; ``whole`` as in `print_checks`."""
    rows = list(zip(record.documents, verdicts(record), strict=True))
    if len(rows) <= DETAILED:
        for document, answer in rows:
            _print_document(record, document, answer, console)
    else:
        _print_table(record, rows, console)
    _print_summary(record, [answer.kind for _, answer in rows], console)
    if record.calibration is not None:
        console.print(Shown(console).whole(record.calibration, "dim"))
    print_assumptions(record.assumptions, console)
    print_checks(record, console, whole)


def print_assumptions(assumptions: Sequence[Assumption], console: Console) -> None:
    """Print what the verdict assumes; older records hold none."""
    if not assumptions:
        return
    console.print()
    console.print(Text("What this verdict assumes", "bold"))
    shown = Shown(console)
    for line in assumption_lines(assumptions):
        console.print(Padding(shown.whole(f"- {line}", "dim"), (0, 0, 0, 2)))


def print_checks(record: AnyRecord, console: Console, whole: bool) -> None:
    """Print how somebody else checks the report: all of it, or no more than the commands and where the rest stands."""
    console.print()
    console.print(Text(TITLE, "bold"))
    shown = Shown(console)
    for line in in_words(how_to_check(record) if whole else short_check(record)):
        console.print(Padding(shown.whole(f"- {line}" if whole else line, "dim", _PARAGRAPH), (0, 0, 0, 2)))


Column = tuple[str, Literal["left", "right"], list[Text]]


class Shown:
    """Untrusted strings as Text that the console's encoding can carry."""

    def __init__(self, console: Console) -> None:
        self.encoding = console.encoding
        self.cut: Literal["ellipsis", "crop"] = "ellipsis" if self.encoding.startswith("utf") else "crop"

    def __call__(self, text: str, limit: int = _NAME, style: str = "") -> Text:
        """One line, cut where there is no room."""
        return Text(self._safe(text, limit), style=style, overflow=self.cut, no_wrap=True)

    def whole(self, text: str, style: str = "", limit: int = _SENTENCE) -> Text:
        """As many lines as it takes."""
        return Text(self._safe(text, limit), style=style, overflow="fold")

    def _safe(self, text: str, limit: int) -> str:
        return clean(text, limit).encode(self.encoding, "backslashreplace").decode(self.encoding)


def _print_document(record: Record, document: Document, answer: Verdict, console: Console) -> None:
    shown = Shown(console)
    console.print(shown(document.name, style="bold"))
    console.print(Padding(shown.whole(answer.line, _STYLES[answer.kind]), (0, 0, 0, 2)))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, text in _facts(record, document, answer):
        grid.add_row(label, shown.whole(text))
    console.print(Padding(grid, (0, 0, 1, 2)))


def _facts(record: Record, document: Document, answer: Verdict) -> Iterator[tuple[str, str]]:
    """Yield labels and what they say of one document."""
    known = document.prompt_tokens is not None
    prompt = f"after {document.prompt_tokens:,} prompt tokens" if known else "prompt unknown"
    yield "tokens", f"{document.tokens:,} ({prompt}), {document.tuples:,} distinct tuples"
    best = best_hypothesis(document)
    strength = score(record.spec, document, best) if best else None
    if best is not None and strength is not None:
        yield "strength", strength.text
        subkey = min(best.subkeys, key=lambda tally: tally.log10_pvalue).subkey
        pool = f", sub-key {subkey} of 0..{len(best.subkeys) - 1}" if len(best.subkeys) > 1 else ""
        among = f" (of {document.tested:,} keys tested)" if document.tested > 1 else ""
        named = best.key in answer.keys or not among
        where = f", {best.tuples:,} tuples{pool}" if named else ""
        yield "key", f"{named_keys(document, answer)}{among}{where}"
    if document.log10_pvalue is not None:
        alone = format_p(document.log10_pvalue)
        paid = format_p(document.log10_pvalue_corpus)
        count = len(record.documents)
        yield "p-value", f"{alone} alone, {paid} with {count} documents paid for" if count > 1 else alone
    if document.decoys is not None and document.decoys.drawn is not None:
        yield "decoys", f"the true key ranks {_rank(document, ' of ')}"
    elif document.decoys is not None:
        decoys = document.decoys
        agreement = plain(decoys_line(len(decoys.log10_pvalues), decoys.log10_agreement)[1])
        rank = f"the true key ranks {_rank(document, ' of ')}; " if document.refused is None else ""
        yield "decoys", rank + agreement
    elif document.log10_pvalue is not None:
        yield "decoys", "not run"
    aware = best_aware(document)
    if aware is not None and document.aware is not None:
        paid = " (keys paid for)" if document.tested > 1 else ""
        bound = format_p(document.aware.log10_pvalue)
        evidence = f"e = {format_e(aware.log10_evalue)}, p <= {bound}{paid}"
        named = document.tested == 1 or aware.key in answer.keys
        strongest = f"{key_label(aware.key)} key" if named else "the strongest key"
        where = f"{strongest}, {aware.positions:,} positions, model {document.aware.model}"
        yield "model-aware", f"{evidence}; {where}"


def _rank(document: Document, between: str) -> str:
    decoys = document.decoys
    if decoys is None or document.refused is not None:
        return "-"
    return decoys.rank_of(between)


def _print_table(record: Record, rows: list[tuple[Document, Verdict]], console: Console) -> None:
    shown = Shown(console)
    kept = sorted(rows, key=lambda row: interest(*row))[:ROWS] if len(rows) > ROWS else rows
    columns = list(_columns(record, kept, shown))
    for header in _DISPENSABLE:
        if _NAMES + sum(_breadth(column) for column in columns[1:]) > console.width:
            columns = [column for column in columns if column[0] != header]
    table = Table(box=None, padding=(0, 1), header_style="dim")
    room = console.width - sum(_breadth(column) for column in columns[1:]) - 2
    for name in columns[0][2]:
        _cut_front(name, max(_NAMES, room))
    for header, justify, _ in columns:
        table.add_column(header, justify=justify, no_wrap=True, overflow=shown.cut)
    for row in zip(*(cells for _, _, cells in columns), strict=True):
        table.add_row(*row)
    console.print(table)
    if len(rows) > len(kept):
        hidden = f"{len(rows) - len(kept):,} more documents are not shown"
        note = f"{hidden}: these {len(kept)} have the strongest results. The JSON record has all."
        console.print(shown.whole(note, "dim"))
    reasons = sorted({answer.sentence for _, answer in rows if answer.kind == "refused"})
    for reason in reasons[:_REASONS]:
        console.print(shown.whole(reason, _STYLES["refused"]))
    if len(reasons) > _REASONS:
        console.print(f"... and {len(reasons) - _REASONS:,} more reasons for refusal")
    console.print()


def _cut_front(name: Text, room: int) -> None:
    """Cut a name to ``room`` columns at its front: its end has the line number or the file."""
    if name.cell_len > room:
        name.plain = "..." + set_cell_size(name.plain[::-1], room - 3)[::-1].lstrip()


def _breadth(column: Column) -> int:
    header, _, cells = column
    return 2 + max(len(header), *(cell.cell_len for cell in cells))


def _columns(record: Record, rows: list[tuple[Document, Verdict]], shown: Shown) -> Iterator[Column]:
    """Yield header, alignment and cells of each column, the document's name first."""
    documents = [document for document, _ in rows]
    bests = [best_hypothesis(document) for document in documents]
    yield "document", "left", [shown(document.name) for document in documents]
    yield "verdict", "left", [Text(answer.short, _STYLES[answer.kind]) for _, answer in rows]
    yield "p", "right", [_number(document.log10_pvalue) for document in documents]
    yield "p, all", "right", [_number(document.log10_pvalue_corpus) for document in documents]
    scores = [score(record.spec, d, best) if best else None for d, best in zip(documents, bests, strict=True)]
    yield "score", "right", [Text(s.short if s else "-") for s in scores]
    yield "tuples", "right", [Text(f"{document.tuples:,}") for document in documents]
    if any(document.tested > 1 for document in documents):
        yield "key", "left", [shown(named_keys(*row) if row[0].hypotheses else "-", _KEY) for row in rows]
    yield "rank", "right", [Text(_rank(document, "/")) for document in documents]
    if any(document.aware for document in documents):
        awares = [best_aware(document) for document in documents]
        yield "e-value", "right", [Text(format_e(a.log10_evalue) if a else "-") for a in awares]


def _number(log10_p: float | None) -> Text:
    return Text("-" if log10_p is None else format_p(log10_p))


def _print_summary(record: Record, kinds: list[str], console: Console) -> None:
    marked, refused = kinds.count("marked"), kinds.count("refused")
    documents = f"{len(kinds):,} document{'' if len(kinds) == 1 else 's'}"
    line = Text(f"Mark found in {marked:,} of {documents}", "bold")
    line.append(f" at level {format_level(record.alpha)}, all keys and documents of this run paid for", "not bold")
    empty = sum((document.refused or "").startswith(NOTHING) for document in record.documents)
    if refused > empty:
        line.append(f"; {refused - empty:,} refused", _STYLES["refused"])
    if empty:
        line.append(f"; {empty:,} with nothing to test", _STYLES["refused"])
    console.print(line)
    committed = commitment_date(record.commitment)
    key = f"key {record.key_fingerprint}, {committed}; spec {record.spec_id} ({record.spec.scheme})"
    console.print(Shown(console).whole(key, "dim"))
    console.print(Shown(console).whole(made_line(record), "dim"))
