"""What the reports of all kinds end with: the method, how it is checked, the record, and what the verdict assumes.

Makers of cells and of lists of facts stand here as well, so that hashes, names and numbers look alike everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypedDict

import msgspec
from markupsafe import Markup

from detect.records.detection import Input
from detect.records.how_to_check import KeyedRecord, how_to_check, short_check, specs_of
from detect.records.report import Report
from detect.records.scan import FileHash
from detect.records.trace import PlanSeen, Queries
from detect.records.twins import TwinRecord
from detect.records.written import clean, format_time
from detect.report.checking import for_whom, made_line
from detect.report.paper import plots
from detect.report.runs import Run, Runs, commanded, e_value, p_value, runs, said
from detect.report.story import (
    Block,
    Cell,
    Code,
    Leaf,
    Pairs,
    Plot,
    Plots,
    Section,
    Table,
    Tone,
    column,
    heading,
    lines,
    text,
)
from detect.report.wording import capital, commitment_date
from watermark.spec import WatermarkSpec

DASH = "–"  # noqa: RUF001 (an en dash is meant): stands where there is nothing to say
_ITEMS = 50  # of an argument that is a list
_SENTENCE = 1500  # characters of an assumption


class Written(TypedDict):
    """What a report is called, and who wrote it: fields of a story."""

    title: str
    program: str
    made: str
    footer: str
    created: str
    foot: Sequence[Runs]


def written(record: KeyedRecord, title: str) -> Written:
    """Which program, who, when and with which key, as fields of the story; its title is "Corpus scan report"."""
    key = record.key_fingerprint
    schemes = ", ".join(f"{ident} ({spec.scheme})" for ident, spec in specs_of(record))
    return by_whom(record, title, key, f"key {key}, {commitment_date(record.commitment)}; spec {schemes}")


def by_whom(record: Report, title: str, key: str = "", about: str = "") -> Written:
    """The same of any record: with the fingerprint of a key, and a line about key and spec."""
    program = f"dyetrace {clean(record.versions.get('dyetrace', ''), 40)}"
    when = clean(format_time(record.created), 40) if record.created else ""
    given = "; ".join(f"{what}: {clean(text, 200)}" for what, text in for_whom(record))
    return {
        "title": title,
        "program": ", ".join(part for part in (program, when) if part),
        "made": capital(given),
        "footer": f"{program}, {title[:1].lower()}{title[1:]}" + (f"; key {clean(key, 64)}" if key else ""),
        "created": record.created,
        "foot": [said(line, _SENTENCE) for line in (about, made_line(record))] if about else [],
    }


def closing(
    record: KeyedRecord, method: Sequence[Block], papers: Sequence[str], manifest: Sequence[Block]
) -> list[Section]:
    """The last sections of every report: the method, how it is checked, its ``manifest``, and what it assumes."""
    return [
        Section("Method", "method", [*method, heading("References"), lines([*map(said, papers)], small=True)]),
        checking(record),
        Section("Record and recomputation", "record", manifest),
        *assumed(record),
    ]


def checking(record: Report) -> Section:
    """How somebody else checks the report."""
    whole = [runs(sentence.template, **sentence.values) for sentence in how_to_check(record)]
    short = [text(sentence.template, soft=True, **sentence.values) for sentence in short_check(record)]
    return Section("How to check this without us", "check", [lines(whole)], True, "How to check it", short)


def assumed(record: Report) -> list[Section]:
    """What the verdict assumes; older records hold nothing of it."""
    if not record.assumptions:
        return []
    over = "results over the toss of the coins" if isinstance(record, TwinRecord) else "scores over the draw of the key"
    intro = text(f"The numbers are the chances of such {over}. They mean what they say where this is true:")
    each = [f"{one.says} ({one.status}: {one.how})" for one in record.assumptions]
    listed = lines([commanded(line, _SENTENCE) for line in each])
    return [Section("What this verdict assumes", "assumes", [intro, listed], True, "What it assumes", [listed])]


def spec_blocks(ident: str, spec: WatermarkSpec) -> list[Leaf]:
    """A spec as JSON, under its id."""
    pretty = msgspec.json.format(msgspec.json.encode(spec, order="sorted"), indent=2).decode()
    shown = "\n".join(clean(line, 500) for line in pretty.split("\n"))
    return [text("Spec <code>$id</code>", soft=True, id=ident), Code(shown)]


def drawn_decoys(
    log10_decoys: Sequence[float], log10_true: float | None, ident: str, every: str, several: bool = False
) -> list[Plot]:
    """The decoys' p-values, the true key's among them; nothing where there are none.

    Parameters
    ----------
    ident
        What the names of places in the drawings begin with.
    every
        Which p-values the first one shows: "Every decoy's p-value on a logarithmic scale."
    several
        Whether corrections for several keys are part of them.
    """
    if not log10_decoys:
        return []
    why = ", which corrections for several keys make them do" if several else ""
    note = (
        f"The decoys should follow the dashed diagonal or run below it{why}. They leave the shaded area in at most 5 "
        "of 100 sound runs."
    )
    return [
        Plot(plots.decoy_strip(log10_decoys, log10_true, f"{ident}s"), runs(every)),
        Plot(plots.decoy_curve(log10_decoys, log10_true, f"{ident}c"), runs(note)),
    ]


def plotted(drawings: Iterable[tuple[Markup | None, str]]) -> list[Plots]:
    """Those drawings that there are, with their captions, side by side; nothing where there are none."""
    there = [Plot(svg, runs(caption)) for svg, caption in drawings if svg is not None]
    return [Plots(there)] if there else []


def files_table(caption: str, files: Sequence[Input | FileHash]) -> Table:
    """Files with their sizes and hashes."""
    columns = [column("Name", width=2), column("Bytes", "r", rank=1), column("SHA-256", width=3)]
    names = ["standard input" if file.name == "-" else file.name for file in files]
    rows = [
        [name_cell(name), cell(file.bytes), digest_cell(file.sha256)] for name, file in zip(names, files, strict=True)
    ]
    return Table(caption, columns, rows, on_paper=1000)


def watermark(record: KeyedRecord) -> Iterator[Leaf]:
    """What was looked for, as a part of the manifest: the key's fingerprint, its commitment, and the specs."""
    yield heading("Watermark and key")
    yield Pairs("Key and commitment", list(_key(record)))
    for ident, spec in specs_of(record):
        yield from spec_blocks(ident, spec)


def _key(record: KeyedRecord) -> Iterator[tuple[str, Runs]]:
    commitment = record.commitment
    yield "Key fingerprint", code(record.key_fingerprint)
    if commitment is None:
        yield "Commitment", runs("none")
        return
    yield "Commitment, SHA-256", code(commitment.sha256)
    yield "Committed to spec", code(commitment.spec_id)
    dated = runs("$time; its file says so, and nothing proves it", time=format_time(commitment.created))
    yield "Commitment, dated", dated


def environment(record: KeyedRecord | TwinRecord) -> list[tuple[str, Runs]]:
    """The last facts of a manifest: the record's format, the arguments of the run and the packages."""
    arguments = sorted(record.arguments.items())
    return [
        written_as(record),
        *((f"Argument {clean(name, 60)}", code(shown_argument(value))) for name, value in arguments),
        *packages(record),
    ]


def written_as(record: Report) -> tuple[str, Runs]:
    """The record's format, as a fact."""
    return "Record format", runs("$format $version", format=record.format, version=str(record.version))


def packages(record: Report) -> list[tuple[str, Runs]]:
    """Versions of what computed the record, as facts."""
    return [(clean(name, 60), said(version, 200)) for name, version in sorted(record.versions.items())]


def planned(plan: PlanSeen) -> tuple[str, Runs]:
    """The plan that was fixed before the first query, as a fact."""
    return (
        "Plan",
        runs(
            "SHA-256 <code>$hash</code>, made $made by the analyst’s clock; first query $first",  # noqa: RUF001
            hash=plan.sha256,
            made=format_time(plan.created),
            first=format_time(plan.first_query) if plan.first_query else "not sent",
        ),
    )


def sampling(sent: Queries) -> Iterator[tuple[str, Runs]]:
    """Which sampling an endpoint was asked for, as a fact; older reports don't say."""
    if sent.sampling:
        yield "Sampling asked for", runs("$settings", settings=sent.sampling)


def replies(sent: Queries) -> Iterator[tuple[str, Runs]]:
    """What was asked of an endpoint and came back, where one may look at any time, as facts."""
    yield (
        "Queries",
        runs(
            "$requests requests, retries excluded; $answers replies used; $asked tokens of prompts, $answered of "
            "replies; stopped: $why",
            requests=sent.requests,
            answers=sent.answers,
            asked=sent.prompt_tokens,
            answered=sent.completion_tokens,
            why=sent.stopped,
        ),
    )
    yield from sampling(sent)
    yield "Ledger of replies, SHA-256", code(sent.ledger_sha256)
    yield "Last hash of the replies’ chain", code(sent.ledger_head)  # noqa: RUF001


def shown_argument(value: Any) -> str:
    """Write the value of an option."""
    if isinstance(value, list):
        more = f" and {len(value) - _ITEMS:,} more, all in the JSON record" if len(value) > _ITEMS else ""
        return ", ".join(map(str, value[:_ITEMS])) + more
    return str(value)


def code(given: str, limit: int = 1000) -> Runs:
    """A value as it stands, to be copied: a hash, a seed, an argument."""
    return (Run(clean(given, limit), ("code",)),)


def cell(given: str | int | Runs | None, *, tone: Tone | None = None, rows: int = 1) -> Cell:
    """A number, words of which nothing is markup, or runs; a dash for None."""
    if isinstance(given, tuple):
        return Cell(given, tone=tone, rows=rows)
    return Cell(said(DASH if given is None else given, 400), tone=tone, rows=rows)


def name_cell(given: str, *, link: str = "", rows: int = 1) -> Cell:
    """A name from outside: of a file, an account, a model."""
    return Cell(said(given), link=link, rows=rows, name=True)


def digest_cell(given: str | None) -> Cell:
    """A hash."""
    return Cell(code(given, 300)) if given else cell(None)


def p_cell(log10_p: float | None, *, rows: int = 1) -> Cell:
    """A p-value, rounded up; a dash where there is none."""
    return cell(None if log10_p is None else p_value(log10_p), rows=rows)


def e_cell(log10_e: float | None) -> Cell:
    """An e-value, rounded down; a dash where there is none."""
    return cell(None if log10_e is None else e_value(log10_e))
