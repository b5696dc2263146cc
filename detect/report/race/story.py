"""What the report of a race readout says: the answer, the answers that light up, the places, and how it came about."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.records.race import RaceRecord
from detect.records.written import key_label
from detect.report import closing
from detect.report.checking import made_facts
from detect.report.closing import cell, code, e_cell, name_cell, p_cell
from detect.report.model_rows import model_rows
from detect.report.race import plots
from detect.report.race.first_page import brief, facts, headline, lead, parts, tested
from detect.report.race.method import PAPERS, method
from detect.report.race.wording import control_items, counted_hits, hits_of, one_word, share, strongest
from detect.report.runs import Runs, e_value, level, runs, said
from detect.report.story import (
    Block,
    Cell,
    Code,
    Items,
    Leaf,
    Pairs,
    Section,
    Story,
    Table,
    column,
    heading,
    lines,
    text,
)

SHOWN, SHOWN_ON_PAPER, SHOWN_ON_SCREEN = 40, 20, 5
ROWS, ROWS_ON_PAPER, ROWS_ON_SCREEN = 200, 40, 8
_SETTINGS = 50  # different ones of sampling
_LONGEST = 160  # characters of what the suspect was shown
_COMMANDS = """dyetrace report verify report.json --public-key OWNER.pub
dyetrace recompute report.json --key file:KEYFILE"""


def story(record: RaceRecord) -> Story:
    """Tell what the record of a race readout says."""
    return Story(
        kind="race readout",
        tone="refused" if record.refused is not None else "marked" if record.found else "unmarked",
        headline=headline(record),
        lead=list(lead(record)),
        facts=facts(record),
        parts=parts(record),
        sections=[
            _lit(record),
            _places(record),
            _evidence(record),
            _controls(record),
            *closing.closing(record, method(record), PAPERS, list(_manifest(record))),
        ],
        brief=list(brief(record)),
        **closing.written(record, "Race readout report"),
    )


def _lit(record: RaceRecord) -> Section:
    title, ident, short = "Answers that light up", "lit", "Answers"
    if record.refused is not None:
        return Section(title, ident, [text("No answer is given.")], short=short)
    if not record.lit:
        return Section(title, ident, [text("On no answer have the bets gained anything.")], short=short)
    drawn = closing.plotted(
        [(plots.lit(record, "by-answer"), "Each answer by itself. By chance one in ten reaches 10, at most.")]
    )
    note = text(
        "Each e-value is of the bets on that answer alone. Whoever looks for the largest among $n answers divides it "
        "by their number.",
        soft=True,
        n=record.counts.answers,
    )
    columns = [
        column("Answer", width=3),
        column("e, by itself", "r"),
        *(column(name, "r", rank=1) for name in ("Hits", "By chance")),
        column("Places", "r", rank=2),
        *([column("Account", width=2, rank=3)] if record.accounts else []),
    ]
    rows = [
        [
            name_cell(one.name),
            e_cell(one.log10_evalue),
            *_hits(one.hits, one.expected),
            cell(one.cuts),
            *([name_cell(one.account or closing.DASH)] if record.accounts else []),
        ]
        for one in record.lit[:ROWS]
    ]
    table = Table("Answers that stand out, the strongest first", columns, rows, ROWS_ON_PAPER, ROWS_ON_SCREEN)
    return Section(title, ident, [*drawn, note, table], True, short, brief=[table])


def _hits(hits: float, expected: float) -> list[Cell]:
    """Hits, and those by chance; dashes where the suspect's words are not known."""
    if expected <= 0:
        return [cell(None), cell(None)]
    return [cell(counted_hits(hits)), cell(f"{expected:,.1f}")]


def _places(record: RaceRecord) -> Section:
    title, ident, short = "Places with a hit", "places", "Places"
    if record.refused is not None:
        return Section(title, ident, [text("No answer is given.")], short=short)
    if not record.shown:
        why = "This report quotes no text of any answer." if not record.quotes else "No hit is there to be shown."
        return Section(title, ident, [text(why)], short=short)
    chosen = "the key chose" if record.spec.scheme == "gumbel" else "the key made likelier than any other"
    note = text(
        f"Hits, those first that chance has least often. The suspect was shown all of the answer up to the place, here "
        f"its end; then stands the word that {chosen}, what the suspect said, and how often chance has that word.",
        soft=True,
    )
    columns = [
        column("It was shown", width=4),
        column("Our key chose", width=1),
        column("The suspect said", width=1, rank=2),
        column("By chance", "r", rank=1),
        column("Answer", width=2, rank=3),
    ]
    rows = [
        [
            cell(_end(cut.begun)),
            cell(_word(cut.chosen)),
            cell(_word(cut.said)),
            cell(share(cut.chance, 1)),
            name_cell(cut.answer),
        ]
        for cut in record.shown[:SHOWN]
    ]
    table = Table("Places with a hit, the least likely first", columns, rows, SHOWN_ON_PAPER, SHOWN_ON_SCREEN)
    return Section(title, ident, [note, table], True, short)


def _end(begun: str) -> Runs:
    """The end of what was shown, on one line."""
    whole = " ".join(begun[-4 * _LONGEST :].split())
    return said(f"…{whole[-_LONGEST:]}" if len(whole) > _LONGEST or len(begun) > 4 * _LONGEST else whole, 2 * _LONGEST)


def _word(word: str) -> Runs:
    """A word in its quotes, since its blanks count."""
    return said(f"“{word[:_LONGEST]}”", 2 * _LONGEST)


def _evidence(record: RaceRecord) -> Section:
    title, ident = "Evidence", "evidence"
    read = Pairs("What was looked at", [*tested(record), *_asked(record)])
    if record.refused is not None:
        refused = text("No answer is given. The numbers of every place are in <code>race.npz</code>.")
        return Section(title, ident, [refused], True, brief=[read])
    grown = (
        "The evidence as it grew, in the order of serving. Dashed: the level of the report. The verdict rests on it, "
        "and it may be looked at after every place."
    )
    told = "Green: how often the suspect said what the key chose. Below it: how often chance does."
    drawn = closing.plotted([(plots.evidence(record, "curve"), grown), (plots.hits(record, "by-key"), told)])
    table = _keys(record)
    several = len(record.hypotheses) > 1
    paid = (
        "The verdict rests on the bets on all places together, each under the key that marked it. “e” of an account is "
        "divided by the number of accounts, $n."
        if several
        else "The verdict rests on the bets. The p-value of the hits, where there is one, is there to be checked."
    )
    note = text(paid, soft=True, n=len(record.accounts))
    return Section(title, ident, [*drawn, note, table], True, brief=[read, table])


def _keys(record: RaceRecord) -> Table:
    counted = "Hits" if one_word(record) else "Hits, by weight"
    columns = [
        column("Key", width=3),
        column("e", "r"),
        column(counted, "r"),
        column("By chance", "r"),
        column("Places", "r", rank=1),
        column("p of the hits", "r", rank=2),
        column("e, alone", "r", rank=3),
    ]
    rows = [
        [
            name_cell(key_label(found.key)),
            e_cell(found.log10_evalue_adjusted),
            *_hits_and_share(found.hits, found.expected, found.cuts),
            cell(found.cuts),
            p_cell(found.log10_pvalue),
            e_cell(found.log10_evalue),
        ]
        for found in strongest(record)[:ROWS]
    ]
    return Table("Hits against chance by key, the strongest first", columns, rows, ROWS_ON_PAPER, ROWS_ON_SCREEN)


def _hits_and_share(hits: float, expected: float, cuts: int) -> list[Cell]:
    if expected <= 0:
        return [cell(None), cell(None)]
    return [
        cell(f"{counted_hits(hits)} ({share(hits, cuts)})"),
        cell(f"{expected:,.1f} ({share(expected, cuts)})"),
    ]


def _controls(record: RaceRecord) -> Section:
    items = Items(control_items(record))
    why = text("The same bets under keys that nobody used, which shows whether their e-values can be believed.")
    return Section("Controls", "controls", [why, items], True, brief=[items])


def _manifest(record: RaceRecord) -> Iterator[Block]:
    own = " (or an account’s own)" if record.accounts else ""
    yield text(
        f"Anyone can run the first of these, and whoever has the key{own} the second, KEYFILE being its file, where "
        "<code>report.json</code> and <code>race.npz</code> lie in one folder:"
    )
    yield Code(_COMMANDS)
    yield heading("Models", "models")
    columns = [column("Role", width=2), column("Name", width=3), column("Tokenizer"), column("SHA-256", width=3)]
    yield Table(
        "Models that were read or asked",
        columns,
        list(
            model_rows(
                [
                    ("suspect", record.suspect),
                    ("the owner’s", record.owner),
                    *([] if record.reference is None else [("reference", record.reference)]),
                ]
            )
        ),
    )
    yield heading("Served answers", "readings")
    yield Pairs("Served answers", list(_reading(record)))
    yield from _sampling(record)
    yield heading("Files of this report", "files")
    yield closing.files_table("Files that belong to this report", record.files)
    yield from closing.watermark(record)
    asked = list(_asked(record))
    if asked:
        yield heading("Plan and queries")
        yield Pairs("Plan and queries", asked)
    yield heading("This readout")
    yield Pairs("This readout", list(_facts(record)))


def _reading(record: RaceRecord) -> Iterator[tuple[str, Runs]]:
    reading, counts = record.reading, record.counts
    yield "File", code(reading.name)
    yield "SHA-256", code(reading.sha256)
    yield "How they were taken", said(reading.taken or "nobody said")
    yield "All that is on record in", said(reading.complete or "was not looked at")
    numbers = (
        ("Answers", counts.answers),
        ("Tokens", reading.tokens),
        ("Places, fresh", counts.fresh),
        ("Places, left out as their context stands in a prompt", reading.barred),
        ("Places, of keys that were not tested", counts.unheld),
        ("Places, planned", counts.cuts),
        ("Places, bet on", counts.asked),
        ("Places, bet on without any word of use", counts.silent),
        ("Places with a word", hits_of(record).cuts),
    )
    yield from ((what, said(count)) for what, count in numbers)


def _sampling(record: RaceRecord) -> Iterator[Leaf]:
    sampling = record.sampling
    yield heading("How the owner’s model drew its answers")
    what = {"recorded": "On record with the answers:", "given": "As the analyst said:", "assumed": "Assumed:"}
    yield text(what[sampling.source])
    yield lines([said(settings) for settings in sampling.settings[:_SETTINGS]])


def _asked(record: RaceRecord) -> Iterator[tuple[str, Runs]]:
    """The plan of the queries, and what was sent; nothing for open weights."""
    if (plan := record.plan) is not None:
        yield closing.planned(plan)
    if (sent := record.queries) is not None:
        yield from closing.replies(sent)


def _facts(record: RaceRecord) -> Iterator[tuple[str, Runs]]:
    """Options, packages and times of the readout."""
    yield from made_facts(record)
    yield "Level of the report", level(record.alpha)
    yield "What was read of the suspect", code(record.ask)
    yield "Target", runs("an e-value of $e", e=e_value(record.target_log10))
    decoys = record.controls
    yield (
        "Decoy keys",
        runs("$n, seed <code>$seed</code>", n=len(decoys.decoy_log10_evalues), seed=decoys.decoy_seed),
    )
    yield from closing.environment(record)
