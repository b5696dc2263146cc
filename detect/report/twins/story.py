"""What the report of a test by twins says: the answer, the pairs side by side, the evidence, and how it came about."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.records.twins import TwinRecord
from detect.report import closing
from detect.report.checking import made_facts
from detect.report.closing import cell, code, e_cell, name_cell, p_cell
from detect.report.model_rows import model_rows
from detect.report.runs import Runs, e_value, level, runs, said
from detect.report.story import (
    Block,
    Code,
    Items,
    Leaf,
    Pairs,
    Section,
    Story,
    Table,
    Text,
    column,
    heading,
    lines,
    text,
)
from detect.report.twins import plots
from detect.report.twins.first_page import (
    brief,
    facts,
    headline,
    lead,
    parts,
    share_line,
    tested,
)
from detect.report.twins.method import PAPERS, method
from detect.report.twins.wording import LEVELS, control_items, excerpt, leading, side_by_side

SHOWN, SHOWN_ON_PAPER, SHOWN_ON_SCREEN = 40, 12, 3
ROWS, ROWS_ON_PAPER, ROWS_ON_SCREEN = 200, 40, 8
_COMMANDS = """dyetrace report verify report.json --public-key OWNER.pub
dyetrace recompute report.json --key file:TWINKEY --inputs FOLDER"""


def story(record: TwinRecord) -> Story:
    """Tell what the record of a test by twins says."""
    return Story(
        kind="twins",
        tone="refused" if record.refused is not None else "marked" if record.found else "unmarked",
        headline=headline(record),
        lead=list(lead(record)),
        facts=facts(record),
        parts=parts(record),
        sections=[
            _pairs(record),
            _evidence(record),
            *_law(record),
            Section(
                "Method",
                "method",
                [*method(record), heading("References"), lines([*map(said, PAPERS)], small=True)],
            ),
            closing.checking(record),
            Section("Record and recomputation", "record", list(_manifest(record))),
            *closing.assumed(record),
        ],
        brief=list(brief(record)),
        **closing.by_whom(record, "Test by twins", record.ledger.key_fingerprint, _about(record)),
    )


def _about(record: TwinRecord) -> str:
    return f"twin key {record.ledger.key_fingerprint}, {LEVELS[record.level]}; ledger root {record.ledger.root}"


def _pairs(record: TwinRecord) -> Section:
    title, ident = "Pairs side by side", "pairs"
    if not record.shown:
        why = (
            "This report quotes no text of any pair."
            if not record.quotes
            else "No pair was asked about that says anything."
        )
        return Section(title, ident, [text(why)], short="Pairs")
    spoke = any(pair.suspect is not None for pair in record.shown)
    told = (
        "The $n pairs in which the leading number differs most, whichever answer it speaks for, the most telling "
        "first. The evidence is of all $all."
    )
    bold = (
        " Bold, where letters can be: three words in a row or more that the suspect shares with one of the two alone."
    )
    note = text(told + (bold if spoke else ""), soft=True, n=len(record.shown), all=record.pairs.asked)
    return Section(title, ident, [note, _side_by_side(record, spoke)], True, "Pairs")


def _side_by_side(record: TwinRecord, spoke: bool) -> Table:
    said_by = [column("The suspect said", width=3)] if spoke else []
    columns = [
        column("Asked", width=2, rank=3),
        column("Delivered", width=3),
        *said_by,
        column("Withheld" if record.level == "withheld" else "Drawn later", width=3, rank=1),
        column("For the delivered", "r", rank=2),
    ]
    rows = []
    for pair in record.shown[:SHOWN]:
        served, withheld, own = side_by_side(pair)
        rows.append(
            [
                cell(said(excerpt(pair.prompt), 2000)),
                cell(served),
                *([cell(own)] if spoke else []),
                cell(withheld),
                cell(f"{pair.difference:+.2f}".replace("-", "−")),
            ]
        )
    return Table("Pairs side by side, most telling first", columns, rows, SHOWN_ON_PAPER, SHOWN_ON_SCREEN)


def _evidence(record: TwinRecord) -> Section:
    title, ident = "Evidence", "evidence"
    read = Pairs("What was looked at", [*tested(record), *_asked(record), ("Used", share_line(record))])
    if record.refused is not None:
        refused = text("No answer is given. The numbers of every pair are in <code>twins.npz</code>.")
        return Section(title, ident, [refused], True, brief=[read])
    grown = (
        "The evidence as it grew, in the order in which the requests came. Dashed: the level of the report. The "
        "verdict rests on the e-value; the sign test is of the leading number and for the eye."
    )
    told = "The leading number is green; the dashed line is what fair coins give."
    drawn = closing.plotted([(plots.evidence(record, "curve"), grown), (plots.measures(record, "by-measure"), told)])
    tables = [_measures(record), *_accounts(record)]
    note = text("The verdict rests on the bets; each number alone has a sign test for information.", soft=True)
    return Section(title, ident, [*drawn, note, *tables], True, brief=[read, *tables])


def _measures(record: TwinRecord) -> Table:
    columns = [
        column("Number", width=3),
        *(column(name, "r") for name in ("For the delivered", "For the withheld", "p")),
        column("For neither", "r", rank=1),
    ]
    rows = [
        [
            name_cell(found.name + (" (leading)" if not i and len(record.measures) > 1 else "")),
            cell(found.wins),
            cell(found.losses),
            p_cell(found.log10_pvalue),
            cell(found.ties),
        ]
        for i, found in enumerate(record.measures[:ROWS])
    ]
    return Table("What each number says, by its sign test", columns, rows, ROWS_ON_PAPER, ROWS_ON_SCREEN)


def _accounts(record: TwinRecord) -> list[Table]:
    if not record.accounts:
        return []
    columns = [
        column("Account", width=3),
        column("e, accounts paid for", "r"),
        *(column(name, "r", rank=1) for name in ("For the delivered", "For the withheld")),
        column("Pairs", "r", rank=2),
        column("e, alone", "r", rank=3),
    ]
    strongest_first = sorted(record.accounts, key=lambda found: (-found.log10_evalue, found.account))
    rows = [
        [
            name_cell(found.account),
            e_cell(found.log10_evalue_adjusted),
            cell(found.wins),
            cell(found.losses),
            cell(found.pairs),
            e_cell(found.log10_evalue),
        ]
        for found in strongest_first[:ROWS]
    ]
    return [Table("Accounts, each by its own coins, the strongest first", columns, rows, ROWS_ON_PAPER, ROWS_ON_SCREEN)]


def _law(record: TwinRecord) -> list[Section]:
    law = record.law
    if law is None:
        return []
    says = (
        runs(
            "Whether twins that were drawn later follow the law of the answers that were delivered: whoever never saw "
            "these must not prefer them. No control found a difference, and the verdict allows for a chance of winning "
            "of up to $most, which they leave open.",
            most=f"{0.5 + law.bias:.3f}",
        )
        if law.veto is None
        else runs(
            "Whether twins that were drawn later follow the law of the answers that were delivered: whoever never saw "
            "these must not prefer them. The law test found that they don’t: $why. No answer is given.",
            why=law.veto.rstrip("."),
        )
    )
    items = Items(control_items(record))
    blocks: list[Block] = [Text(says), items] if law.controls else [Text(says)]
    return [Section("The law test", "law", blocks, True, "Law test", brief=[items] if law.controls else [Text(says)])]


def _manifest(record: TwinRecord) -> Iterator[Leaf]:
    yield text(
        "Anyone can run the first of these where <code>report.json</code> and <code>twins.npz</code> lie in one "
        "folder; the second takes the twin key, TWINKEY being its file, and the private ledger, which lies in FOLDER:"
    )
    yield Code(_COMMANDS)
    yield heading("Models", "models")
    models = [("suspect", record.suspect), *([("reference", record.reference)] if record.reference else [])]
    columns = [column("Role", width=2), column("Name", width=3), column("Tokenizer"), column("SHA-256", width=3)]
    yield Table(
        "Models that were read or asked",
        columns,
        list(model_rows(models)),
    )
    yield heading("Files of this report", "files")
    yield closing.files_table("Files that belong to this report", record.files)
    yield heading("Ledger and pairs")
    yield Pairs("Ledger and pairs", list(_ledger(record)))
    asked = list(_asked(record))
    if asked:
        yield heading("Plan and queries")
        yield Pairs("Plan and queries", asked)
    yield heading("This test")
    yield Pairs("This test", list(_facts(record)))


def _ledger(record: TwinRecord) -> Iterator[tuple[str, Runs]]:
    ledger, pairs = record.ledger, record.pairs
    yield "Ledger", code(ledger.name)
    yield "Twin key, fingerprint", code(ledger.key_fingerprint)
    yield "Last hash of its chain", code(ledger.head)
    yield "Merkle root", code(ledger.root)
    yield "Published beforehand", runs("nothing") if ledger.committed is None else code(ledger.committed)
    counts = (
        ("in the ledger", ledger.pairs),
        ("of the accounts and times asked for", pairs.eligible),
        ("sampled", pairs.sampled),
        ("left out with equal answers", pairs.tied),
        ("left out as their prompt quotes an earlier pair", pairs.follow_ups),
        ("erased", pairs.erased),
        ("planned", pairs.used),
        ("bet on", pairs.asked),
        ("of these without any difference", pairs.silent),
    )
    yield from ((f"Pairs {what}", said(count)) for what, count in counts)


def _asked(record: TwinRecord) -> Iterator[tuple[str, Runs]]:
    """The plan of the queries, and what was sent; nothing for open weights."""
    if (plan := record.plan) is not None:
        yield closing.planned(plan)
        if plan.seed is not None:
            yield "Seed of the sample", code(plan.seed)
    if (sent := record.queries) is not None:
        yield from closing.replies(sent)


def _facts(record: TwinRecord) -> Iterator[tuple[str, Runs]]:
    yield from made_facts(record)
    yield "Level of the report", level(record.alpha)
    yield "Level of the twins", said(LEVELS[record.level])
    yield "Leading number", code(leading(record).name)
    yield "Target", runs("an e-value of $e", e=e_value(record.target_log10))
    yield from closing.environment(record)
