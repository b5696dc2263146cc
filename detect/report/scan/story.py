"""What a corpus scan's report says: the answer, the documents, keys, shares and controls, and how they came about."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.corpus.chosen import fields_read
from detect.records.scan import Hit, ScanHypothesis, ScanRecord
from detect.records.written import key_label, percent
from detect.report import closing
from detect.report.checking import made_facts
from detect.report.closing import cell, name_cell, p_cell
from detect.report.runs import Runs, e_value, level, p_value, runs
from detect.report.scan import plots
from detect.report.scan.first_page import brief, facts, headline, lead, parts
from detect.report.scan.method import PAPERS, method
from detect.report.scan.wording import (
    control_items,
    named_in,
    place,
    pointing_note,
    recompute_command,
    spec_of,
    strongest_keys,
    turns,
    unit_name,
)
from detect.report.story import (
    Block,
    Cell,
    Code,
    Details,
    Items,
    Leaf,
    Pairs,
    Plot,
    Plots,
    Quote,
    Section,
    Story,
    Table,
    column,
    heading,
    text,
)

PLOTTED, PLOTTED_ON_PAPER = 12, 6  # of the strongest documents, the score by position
SPELT = 3  # of the strongest keys, all sub-keys
SEGMENTS = 4  # of a document, in the table
KEYS, KEYS_ON_PAPER, KEYS_ON_SCREEN = 200, 40, 8
DOCUMENTS_ON_PAPER, DOCUMENTS_ON_SCREEN = 40, 10  # the record lists no more than a page can show
INPUTS, INPUTS_ON_PAPER = 5000, 1000
SKIPPED = 10  # of each file
FIELDS_OF, TURNS = 40, 100  # kinds of files whose fields are listed, kinds of parts of turns


def story(record: ScanRecord) -> Story:
    """Tell what the record of a scan says."""
    return Story(
        kind="corpus scan",
        tone="refused" if record.log10_pvalue is None else "marked" if record.found else "unmarked",
        headline=headline(record),
        lead=list(lead(record)),
        facts=facts(record),
        parts=parts(record),
        sections=[
            _documents(record),
            _keys(record),
            Section("Distribution and shares", "amount", list(_amount(record))),
            _controls(record),
            *closing.closing(record, method(record), PAPERS, list(_manifest(record))),
        ],
        brief=list(brief(record)),
        **closing.written(record, "Corpus scan report"),
    )


def _documents(record: ScanRecord) -> Section:
    title, ident, found = "Documents", "documents", record.discoveries
    if record.refused is not None:
        return Section(title, ident, [text("No document is listed, since no answer is given.")])
    if not record.hits:
        none = text(
            "No document reaches the list at a false-discovery rate of $rate. <code>documents.parquet</code> has the "
            "numbers of all $n.",
            rate=percent(found.rate),
            n=record.documents,
        )
        return Section(title, ident, [none])
    intro = text(
        "$n of $all tested documents are listed at a false-discovery rate of $rate, $e by e-values. “p” pays for all "
        "sub-keys and keys; “p, all” for the choice among all documents as well (Benjamini and Hochberg). Segments: "
        "marked stretches, in tokens.",
        n=found.benjamini_hochberg,
        all=found.tested,
        rate=percent(found.rate),
        e=found.e_benjamini_hochberg,
    )
    columns = [
        column("Place", width=3),
        column("Id", width=2, rank=4),
        column("Tokens", "r", rank=1),
        column("p", "r"),
        column("p, all", "r", rank=3),
        column("e-value", "r", rank=6),
        column("Key", width=2, rank=2),
        column("Segments", width=2, rank=5),
    ]
    rows = [_row(record, hit, number) for number, hit in enumerate(record.hits)]
    table = Table("Listed documents, the strongest first", columns, rows, DOCUMENTS_ON_PAPER, DOCUMENTS_ON_SCREEN)
    more = list(_first("strongest", len(record.hits), found.benjamini_hochberg, "documents", "<code>hits.jsonl</code>"))
    where: list[Block] = [
        heading("Where the mark is in the strongest documents"),
        text(
            "Bars: mean score of the tokens in each stretch, under the document’s strongest key and sub-key. Dashed: "
            "what text written without the key scores on average. Shaded: marked segments, all stretches of their "
            "document paid for. Gaps: no token there counts for this key.",
            soft=True,
        ),
    ]
    strongest = [_strongest(record, hit, number) for number, hit in enumerate(record.hits[:PLOTTED])]
    blocks = [intro, table, *more, *where, *strongest]
    return Section(title, ident, blocks, True, brief=[table, *more], on_paper=PLOTTED_ON_PAPER)


def _row(record: ScanRecord, hit: Hit, number: int) -> list[Cell]:
    segments = ", ".join(f"<n>{s.start:,} to {s.end:,}</n>" for s in hit.segments[:SEGMENTS])
    more = ", …" if len(hit.segments) > SEGMENTS else ""
    return [
        name_cell(place(record, hit), link=_ident(number) if number < PLOTTED else ""),
        cell(None) if hit.id is None else name_cell(hit.id),
        cell(hit.tokens),
        p_cell(hit.log10_pvalue),
        p_cell(hit.log10_pvalue_adjusted),
        cell("0" if hit.log10_evalue is None else e_value(hit.log10_evalue)),
        name_cell(named_in(record, hit)),
        cell(runs(segments + more) if segments else None),
    ]


def _ident(number: int) -> str:
    return f"h{number + 1}"


def _strongest(record: ScanRecord, hit: Hit, number: int) -> Details:
    """Where the mark is in a document."""
    unit = unit_name(spec_of(record, hit.key))
    points = "Points to: $key" if len(record.hypotheses) > 1 else "$key"
    blocks: list[Leaf] = [
        text(
            f"{points}; strongest sub-key $subkey; p = $p; $score $unit ($expected without the key); $n tuples of its "
            "own.",
            key=named_in(record, hit),
            subkey=hit.subkey,
            p=p_value(hit.log10_pvalue),
            score=f"{hit.score:.3g}",
            unit=unit,
            expected=f"{hit.expected:.3g}",
            n=hit.tuples,
        )
    ]
    ident = _ident(number)
    if hit.scores:
        what = f"Mean score ({unit}) by token."
        blocks += closing.plotted([(plots.positions(hit, unit, f"{ident}p"), what)])
    if hit.excerpt:
        blocks.append(Quote(hit.excerpt))
    named = "$place" if hit.id is None else "$place $id"
    return Details(runs(named, place=place(record, hit), id=hit.id or ""), ident, blocks)


def _keys(record: ScanRecord) -> Section:
    title, ident = "Keys", "keys"
    if record.refused is not None:
        return Section(title, ident, [text("No p-value is given. The totals of every key are in the JSON record.")])
    keys = strongest_keys(record)
    if not keys:
        return Section(title, ident, [text("No key was tested.")])
    intro = text(
        "“p” pays for both tests and for all $n keys (Holm). “Pooled” and “rare documents” are the two tests alone. "
        "“Points to it”: listed documents in which this key alone is found ($pointing).",
        soft=True,
        n=len(keys),
        pointing=pointing_note(record),
    )
    ranks = {"p": 0, "p, pooled": 3, "p, rare documents": 4, "Tuples": 1, "Documents": 5, "Points to it": 2}
    columns = [column("Key", width=3), *(column(name, "r", rank=rank) for name, rank in ranks.items())]
    rows = [
        [
            name_cell(key_label(key.key)),
            p_cell(key.log10_pvalue_adjusted),
            p_cell(key.log10_pvalue_pooled),
            p_cell(key.log10_pvalue_rare),
            *map(cell, (key.tuples, key.documents, key.pointed)),
        ]
        for key in keys[:KEYS]
    ]
    caption = "Keys tested against the whole corpus, the strongest first"
    table = Table(caption, columns, rows, KEYS_ON_PAPER, KEYS_ON_SCREEN)
    blocks: list[Block] = [intro, table, *_first("strongest", KEYS, len(keys), "keys")]
    blocks += [heading("Sub-keys of the strongest keys", "subkeys"), _subkeys(keys[:SPELT])]
    return Section(title, ident, blocks, True, brief=[table])


def _subkeys(keys: list[ScanHypothesis]) -> Table:
    columns = [column("Key"), *(column(name, "r") for name in ("Sub-key", "Sum, units", "p, alone"))]
    rows: list[list[Cell]] = []
    for key in keys:
        tallies = sorted(key.subkeys, key=lambda tally: tally.log10_pvalue)
        for number, tally in enumerate(tallies):
            first = [] if number else [name_cell(key_label(key.key), rows=len(tallies))]
            rows.append([*first, cell(tally.subkey), cell(tally.total), p_cell(tally.log10_pvalue)])
    return Table("Totals of the sub-keys", columns, rows)


def _first(which: str, most: int, count: int, what: str, where: str = "the JSON record") -> Iterator[Leaf]:
    """Say that not all are shown."""
    if count > most:
        yield text(f"The {most:,} {which} of $n {what}; {where} has all.", soft=True, n=count)


def _amount(record: ScanRecord) -> Iterator[Block]:
    null = record.controls.null_key_histogram
    given = record.refused is None
    true = given and any(record.histogram)
    yield from closing.plotted(
        [
            (
                plots.histogram(record.histogram, "true", "Documents under the tested keys") if true else None,
                "The tested keys. Dashed: what chance gives. Without any mark the bars lie within the shaded band or "
                "grow to the right, which paying for several keys makes them do. Marked documents add to the bar at "
                "the left.",
            ),
            (
                plots.histogram(null, "null", "Documents under a key nobody used") if any(null) else None,
                "The same documents under a key that nobody used: what no mark looks like.",
            ),
            (
                plots.shares(record.shares, "shares") if true else None,
                f"Marked shares at {percent(record.shares.documents.confidence)} confidence. Dot: estimate. An arrow "
                "means that the data set no upper limit.",
            ),
        ]
    )
    if not given:
        yield text("No shares are given.")
        return
    rows = [
        [
            cell(label),
            cell(percent(share.low)),
            cell(None if share.estimate is None else percent(share.estimate)),
            cell("not limited" if share.high is None else percent(share.high)),
        ]
        for label, share in (("tested documents", record.shares.documents), ("distinct tuples", record.shares.tokens))
    ]
    columns = [column("Share of the"), *(column(name, "r") for name in ("At least", "Estimate", "At most"))]
    yield Table("Marked shares", columns, rows)


def _controls(record: ScanRecord) -> Section:
    controls = Items(control_items(record))
    blocks: list[Block] = [
        text("The same scan where no mark can be, which shows whether its p-values can be believed."),
        controls,
    ]
    drawn = list(_control_plots(record))
    if drawn:
        blocks.append(Plots(drawn))
    return Section("Controls", "controls", blocks, True, brief=[controls])


def _control_plots(record: ScanRecord) -> Iterator[Plot]:
    controls = record.controls
    pooled = min((key.log10_pvalue_pooled for key in record.hypotheses), default=None)
    true = pooled if record.refused is None else None
    what = "Every decoy’s pooled p-value on a logarithmic scale." + (
        "" if true is None else " Diamond: the strongest true key."
    )
    yield from closing.drawn_decoys(controls.decoy_log10_pvalues, true, "decoys", what)
    bins, name = controls.null_corpus_histogram, controls.null_corpus
    if name is not None and any(bins):
        svg = plots.histogram(bins, "corpus", "Documents of the control corpus under the tested keys")
        yield Plot(svg, runs("Documents of the control corpus, $name, under the tested keys.", name=name))


def _manifest(record: ScanRecord) -> Iterator[Block]:
    accounts = " (or of an account’s own)" if record.specs[0].global_share < 1 else ""
    yield text(
        "This makes the same record again, but for when and by whom, where each spec below is saved to its own file "
        f"and KEYFILE is the file of the key{accounts}; where the inputs hold text, add <code>--tokenizer</code>:"
    )
    yield Code(recompute_command(record))
    yield heading("Inputs", "inputs")
    yield _inputs(record)
    yield from _first("first", INPUTS, len(record.inputs), "inputs")
    yield from _fields(record)
    yield from _turns(record)
    yield from _skipped(record)
    yield from _unread(record)
    for title, files in (
        ("Files of the control corpus", record.controls.null_corpus_inputs),
        ("Files of the marked reference", record.reference_inputs),
    ):
        if files:
            yield heading(title)
            yield closing.files_table(title, files[:INPUTS])
    yield heading("Files of this report", "files")
    yield closing.files_table("Files that belong to this report", record.files)
    yield from closing.watermark(record)
    yield heading("This scan")
    controls = record.controls
    decoys = runs(
        "$n, seed <code>$seed</code>, on $tuples tuples",
        n=len(controls.decoy_log10_pvalues),
        seed=controls.decoy_seed,
        tuples=controls.decoy_tuples,
    )
    pairs: list[tuple[str, Runs]] = [
        *made_facts(record),
        ("Level of the report", level(record.alpha)),
        ("False-discovery rate", runs(percent(record.discoveries.rate))),
        ("Decoy keys", decoys),
        ("Text to token ids", runs("$how", how=record.encoder)),
        *closing.environment(record),
    ]
    yield Pairs("This scan", pairs)


def _inputs(record: ScanRecord) -> Table:
    counted = ("Records", "Skipped", "Documents", "Tokens", "Bytes")
    columns = [
        column("Name", width=2),
        column("Read as"),
        *(column(name, "r", rank=1) for name in counted),
        column("SHA-256", width=4),
    ]
    rows = [
        [
            name_cell(source.name),
            cell(
                f"{source.form}, {source.column} ({source.kind})" if source.column else f"{source.form} ({source.kind})"
            ),
            *map(cell, (source.records, source.skipped, source.documents, source.tokens, source.bytes)),
            closing.digest_cell(source.sha256),
        ]
        for source in record.inputs[:INPUTS]
    ]
    return Table("Input files", columns, rows, on_paper=INPUTS_ON_PAPER)


def _fields(record: ScanRecord) -> Iterator[Leaf]:
    """All fields of the inputs, whether or not they were read."""
    found = fields_read(record.files_read)
    if not found:
        return
    rows = [
        [
            name_cell(group.first if group.files == 1 else f"{group.first} and {group.files - 1:,} more"),
            name_cell(seen.name),
            cell(seen.kind or "not there"),
            cell("yes" if seen.read else "no"),
            cell(seen.records),
            cell(seen.characters),
        ]
        for group in found[:FIELDS_OF]
        for seen in group.columns
    ]
    columns = [
        column("Files", width=2),
        column("Field", width=2),
        column("Holds"),
        column("Read"),
        *(column(name, "r") for name in ("Records", "Characters")),
    ]
    yield heading("Fields", "fields")
    yield Table("Fields of the inputs", columns, rows)
    yield text("Sizes are those of each file’s first records; of token ids they count ids.", soft=True)
    yield from _first("first", FIELDS_OF, len(found), "sets of fields")


def _turns(record: ScanRecord) -> Iterator[Leaf]:
    """The turns of all chats, by role and part."""
    counts = turns(record)
    if not counts:
        return
    rows = [
        [
            name_cell(one.role or "none said"),
            name_cell(one.part),
            cell("yes" if one.read else "no"),
            cell(one.count),
            cell(one.characters),
        ]
        for one in sorted(counts, key=lambda one: (not one.read, -one.count, one.role, one.part))[:TURNS]
    ]
    columns = [column("Role"), column("Part"), column("Read"), *(column(name, "r") for name in ("Parts", "Characters"))]
    yield heading("Turns of chats", "turns")
    yield Table("Parts of turns in the records seen", columns, rows)
    yield from _first("first", TURNS, len(counts), "kinds of parts")


def _unread(record: ScanRecord) -> Iterator[Leaf]:
    """Files that were meant and not read."""
    if not record.unread:
        return
    yield heading("Files that were not read", "unread")
    rows = [[name_cell(file.name), cell(file.reason)] for file in record.unread_first]
    yield Table("Files that were meant and not read", [column("File"), column("Reason")], rows)
    yield from _first("first", len(rows), record.unread, "files", "<code>skipped.jsonl</code>")


def _skipped(record: ScanRecord) -> Iterator[Leaf]:
    rows = [
        [name_cell(source.name), cell("all" if one.record is None else one.record), cell(one.reason)]
        for source in record.inputs[:INPUTS]
        for one in source.skipped_first[:SKIPPED]
    ]
    if not any(source.skipped for source in record.inputs):
        return
    yield heading("Skipped records", "skipped")
    columns = [column("File"), column("Record", "r"), column("Reason")]
    yield Table("Broken records that were left out", columns, rows)
    yield text("The first of each file; <code>skipped.jsonl</code> has all.", soft=True)
