"""What a trace's report says: the answer, the court of a sceptic, the evidence, and how it came about."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.records.trace import Queries, TraceRecord
from detect.records.written import key_label, percent
from detect.report import closing
from detect.report.checking import made_facts
from detect.report.closing import cell, code, digest_cell, e_cell, name_cell, p_cell
from detect.report.model_rows import model_rows
from detect.report.runs import Runs, level, listed, runs
from detect.report.story import (
    Block,
    Cell,
    Code,
    Items,
    Leaf,
    Pairs,
    Plots,
    Section,
    Story,
    Table,
    Text,
    column,
    heading,
    text,
)
from detect.report.trace import plots
from detect.report.trace.first_page import brief, facts, headline, lead, parts, power_lines, share_line, tested
from detect.report.trace.method import PAPERS, method
from detect.report.trace.sceptic import court
from detect.report.trace.wording import (
    control_items,
    number,
    readouts,
    signed,
    strongest_keys,
)

KEYS, KEYS_ON_PAPER, KEYS_ON_SCREEN = 200, 40, 8
ROWS = 200  # of every other table; a PDF shows fewer
_COMMANDS = """dyetrace report verify report.json --public-key OWNER.pub
dyetrace recompute report.json --key file:KEYFILE"""


def story(record: TraceRecord) -> Story:
    """Tell what the record of a trace says."""
    return Story(
        kind="trace",
        tone="refused" if record.log10_pvalue is None else "marked" if record.found else "unmarked",
        headline=headline(record),
        lead=list(lead(record)),
        facts=facts(record),
        parts=parts(record),
        sections=[
            court(record),
            _evidence(record),
            _controls(record),
            _share(record),
            *closing.closing(record, method(record), PAPERS, list(_manifest(record))),
        ],
        brief=list(brief(record)),
        **closing.written(record, "Student trace report"),
    )


def _evidence(record: TraceRecord) -> Section:
    title, ident = "Evidence", "evidence"
    shows = [("Power", next(power_lines(record))), *([] if record.refused else [("Training", share_line(record))])]
    read = Pairs("What was looked at", [*tested(record), *_asked(record), *shows])
    if record.refused is not None:
        refused = text("No p-value is given. The totals of every key are in the JSON record.")
        return Section(title, ident, [refused], True, brief=[read])
    rests = (
        "The verdict rests on the e-value."
        if record.basis == "e-value"
        else "The verdict rests on the last p-value; the line before it is for the eye."
    )
    grown = f"The evidence as it grew, for the first key alone. Dashed: the level of the report. {rests}"
    paid = "Each key, the choice among all of them paid for. A key beyond the dashed line is found."
    drawn = closing.plotted([(plots.evidence(record, "curve"), grown), (plots.keys(record, "by-key"), paid)])
    keys, compared = list(_keys(record)), list(_readouts(record))
    tables = [block for block in (*keys, *compared) if isinstance(block, Table)]
    note = [text("Other readouts have no part in the verdict.", soft=True)] if compared else []
    return Section(title, ident, [*drawn, *keys, *compared], True, brief=[read, *tables, *note])


def _keys(record: TraceRecord) -> Iterator[Leaf]:
    keys, several = strongest_keys(record)[:KEYS], len(record.hypotheses) > 1
    tails = record.sided == "two-sided"
    exact = "twice the smaller tail" if tails else "the exact upper tail"
    alone = "the inverse of the e-value, at most 1" if record.basis == "e-value" else exact
    paid = "“p” pays for all $n keys (Holm)." if several else "Only one key was tested: there is no choice to pay for."
    yield heading("Keys", "keys")
    yield text(
        f"{paid} “p, alone” is {alone}. “Lean” is the total above its mean, in standard deviations.",
        soft=True,
        n=len(record.hypotheses),
    )
    ranks = {"p": 0, "p, alone": 2, "Upper tail": 5, "Lower tail": 5, "e-value": 3, "Lean, sd": 1, "Contexts": 4}
    ranks |= {"Words": 6, "Total": 7, "Mean": 8, "sd": 9}
    columns = [column(name, "r", rank=rank) for name, rank in ranks.items() if tails or "tail" not in name]
    rows = [
        [
            name_cell(key_label(k.key)),
            p_cell(k.log10_pvalue_adjusted),
            p_cell(k.log10_pvalue_tested),
            *([p_cell(k.log10_pvalue), p_cell(k.log10_pvalue_lower)] if tails else []),
            e_cell(k.log10_evalue),
            cell(signed(k.z)),
            *(cell(n) for n in (k.contexts, k.tuples, k.total, signed(k.expected, ",.1f"), f"{k.sd:,.1f}")),
        ]
        for k in keys
    ]
    caption = "Keys tested, the strongest first"
    yield Table(caption, [column("Key", width=3), *columns], rows, KEYS_ON_PAPER, KEYS_ON_SCREEN)
    if len(keys) < len(record.hypotheses):
        yield text(f"The {KEYS} strongest of $n; the JSON record has all.", soft=True, n=len(record.hypotheses))


def _readouts(record: TraceRecord) -> Iterator[Leaf]:
    compared = readouts(record)
    if len(compared) < 2:
        return
    yield heading("Other ways to read the same model", "readouts")
    yield text(
        "The verdict uses <code>$name</code> alone. The others read the same contexts, under the first key, and have "
        "no part in it. Contexts are a forecast: the square of the lean grows with their number.",
        soft=True,
        name=record.readout,
    )
    needed = "Contexts at which each readout would reach p = 10<sup>−10</sup>, fewer is better."
    yield from closing.plotted([(plots.comparison(record, "compared"), needed)])
    exact = record.basis == "p-value"  # else there is no p-value of a readout that is valid
    shown = [column("p", "r", rank=2)] if exact else []
    needs = [column("Contexts read", "r", rank=3), column("Contexts to 10<sup>−10</sup>", "r")]
    columns = [column("Readout", width=3), column("Lean, sd", "r"), *shown, *needs]
    rows = [
        [
            name_cell(r.readout + (" (the one used)" if own else "")),
            cell(signed(r.z)),
            *([p_cell(r.log10_pvalue)] if exact else []),
            cell(r.contexts),
            cell(r.contexts_needed),
        ]
        for own, r in compared[:ROWS]
    ]
    yield Table("Readouts compared", columns, rows)


def _controls(record: TraceRecord) -> Section:
    items = control_items(record)
    decoys, given = record.controls.decoy_log10_pvalues, record.refused is None
    first = record.hypotheses[0].log10_pvalue_tested if given else None
    every = "Every decoy’s p-value on a logarithmic scale." + (" Diamond: the first key’s own." if given else "")
    drawn = closing.drawn_decoys(decoys, first, "decoys", every)
    why = text("The same test where no mark can be, which shows whether its p-values can be believed.")
    blocks: list[Block] = [why, Items(items), *([Plots(drawn)] if drawn else [])]
    return Section("Controls", "controls", blocks, True, brief=[Items(items)])


def _share(record: TraceRecord) -> Section:
    title, ident, short = "Share of the training text", "share", "Training share"
    share = record.share
    if record.refused is not None:
        return Section(title, ident, [text("No share is given.")], short=short)
    blocks: list[Block] = [Text(share_line(record))]
    if share.doses:
        shaded = " Shaded: the interval of its share." if share.interval else ""
        what = (
            "Dots: calibration students of known marked share; bars: what contexts add by chance, which is common to "
            f"them all. Red: the suspect.{shaded} The axis of shares is stretched near 0."
        )
        blocks += closing.plotted([(plots.dose_response(share, "doses"), what)])
        names = ("Marked share", "Effect per context", "Standard error")
        columns = [column("Student", width=3), *(column(name, "r") for name in names)]
        rows = [
            [name_cell(d.name), cell(percent(d.share) if d.share else "0"), *_effect(d.effect, d.standard_error)]
            for d in share.doses[:ROWS]
        ]
        if share.effect is not None:
            rows.append([cell("the suspect"), cell(None), *_effect(share.effect, share.standard_error)])
        blocks.append(Table("Calibration students", columns, rows))
    return Section(title, ident, blocks, short=short)


def _effect(effect: float, error: float | None) -> list[Cell]:
    return [cell(number(effect, 3)), cell(None if error is None else number(error))]


def _manifest(record: TraceRecord) -> Iterator[Block]:
    own = " (or a tenant’s own)" if record.accounts else ""
    yield text(
        f"Anyone can run the first of these, and whoever has the key{own} the second, KEYFILE being its file, where "
        "<code>report.json</code> and <code>evidence.npz</code> lie in one folder:"
    )
    yield Code(_COMMANDS)
    yield heading("Models", "models")
    yield _models(record)
    yield heading("Prompts" if record.mode == "api" else "Texts read", "readings")
    yield _readings(record)
    yield heading("Files of this report", "files")
    yield closing.files_table("Files that belong to this report", record.files)
    yield from closing.watermark(record)
    asked = list(_asked(record))
    if asked:
        yield heading("Plan and queries")
        yield Pairs("Plan and queries", asked)
    yield heading("This trace")
    yield Pairs("This trace", list(_facts(record)))


def _models(record: TraceRecord) -> Table:
    """Every model that was read, with its role."""
    models = [
        ("suspect", record.student),
        *(("reference", reference.model) for reference in record.references),
        *((f"control: {control.what}", control.model) for control in record.controls.models),
    ]
    columns = [column("Role", width=2), column("Name", width=3), column("Tokenizer"), column("SHA-256", width=3)]
    return Table("Models that were read", columns, list(model_rows(models[:ROWS])))


def _readings(record: TraceRecord) -> Table:
    counted = ("Answers" if record.mode == "api" else "Documents", "Tokens", "Contexts")
    counts = [column(name, "r") for name in counted]
    columns = [column("Name", width=2), column("Kind"), *counts, column("SHA-256", width=3)]
    rows = [
        [
            name_cell(r.name),
            cell("marked" if r.marked else "unmarked"),
            *map(cell, (r.documents, r.tokens, r.contexts)),
            digest_cell(r.sha256),
        ]
        for r in record.readings[:ROWS]
    ]
    return Table("What was read or asked", columns, rows)


def _asked(record: TraceRecord) -> Iterator[tuple[str, Runs]]:
    """The plan of the queries, and what was sent; nothing for open weights."""
    if (plan := record.plan) is not None:
        yield closing.planned(plan)
    if (sent := record.queries) is not None:
        yield (
            "Queries",
            runs(
                f"$requests requests, retries excluded; $answers answers used ({sent.evidence}); $asked tokens of "
                "prompts, $answered of answers; stopped: $why",
                requests=sent.requests,
                answers=sent.answers,
                asked=sent.prompt_tokens,
                answered=sent.completion_tokens,
                why=sent.stopped,
            ),
        )
        yield from closing.sampling(sent)
        yield from _read_and_not(sent)
        yield "Ledger, SHA-256", code(sent.ledger_sha256)
        yield "Last hash of its chain", code(sent.ledger_head)


def _read_and_not(sent: Queries) -> Iterator[tuple[str, Runs]]:
    """Which texts of the answers were read, and what could not be used."""
    if set(sent.texts) - {"answer"}:
        names = {"answer": "answer proper", "reasoning": "reasoning", "tool call": "calls of tools"}
        each = [
            runs("$kind ($n answers, $tokens tokens)", kind=names.get(kind, kind), tokens=one.tokens, n=one.answers)
            for kind, one in sent.texts.items()
        ]
        yield "Texts read", runs("each for itself: $each", each=listed(each))
    if sent.without_logprobs:
        says = "answers read by what they say alone: $n; none came with them, or those that came don’t fit the answer"
        yield "Without log-probabilities", runs(says, n=sent.without_logprobs)
    for name, counts, more in (
        ("Answers of no use", sent.unusable, ""),
        ("Prompts refused", sent.refused, "; these prompts are left out"),
    ):
        if counts:
            each = [runs("$n: $why", n=count, why=reason) for reason, count in counts.items()]
            yield name, runs(f"$each{more}", each=listed(each))


def _facts(record: TraceRecord) -> Iterator[tuple[str, Runs]]:
    """Options, packages and times of the trace."""
    controls = record.controls
    yield from made_facts(record)
    yield "Level of the report", level(record.alpha)
    yield "Readout", code(record.readout)
    yield "Sides", runs("upper: a lean to the key’s words" if record.sided == "upper" else record.sided)
    yield "Verdict rests on", runs(f"the {record.basis}")
    decoys = len(controls.decoy_log10_pvalues)
    yield "Decoy keys", runs("$n, seed <code>$seed</code>", n=decoys, seed=controls.decoy_seed)
    if record.served is not None:
        yield "Served contexts, SHA-256", code(record.served.sha256)
    for number_, reference in enumerate(record.references, 1):
        yield f"Share of reference {number_}", runs(f"{reference.share:.4f}")
    yield from closing.environment(record)
