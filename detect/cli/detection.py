"""The commands that test documents one by one, the demo, and the check of their reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from detect.cli.common import (
    KEY_HELP,
    absolute_source,
    case_text,
    commitment_on_record,
    decoy_count,
    decoy_public_seed,
    examiner_name,
    fail_when_found,
    load_model,
    load_ring,
    model_folder,
    note,
    option,
    read_names,
    say,
    tenant_names,
    tenants_in_file,
    tested_key,
    without_quotes,
)
from detect.cli.publishing import check_pdf, end_by_verdict, publish, replace_report_option
from detect.cli.results import json_option, print_result
from detect.cli.scanning import StageProgress
from detect.cli.unused import refuse_seed_of_no_decoys, refuse_unused
from detect.cli.working import doing, rest, working
from detect.interruption import leaves
from detect.laws.level import DEFAULT_ALPHA
from watermark.errors import DyetraceError, EvidenceError, MachineError

if TYPE_CHECKING:
    from detect.records.detection import Record
    from detect.records.results import Recomputed
    from detect.records.scan import ScanRecord
    from detect.records.trace import TraceRecord
    from watermark.keys import KeyRing


@click.command()
@click.argument("source", metavar="FILE|-")
@option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The watermark to look for.  [e.g. --spec spec.json]",
)
@tested_key
@tenant_names
@tenants_in_file
@option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec; by default --model's, or the demo model's.  "
    "[e.g. --tokenizer ./my-model]",
)
@option(
    "--format",
    "form",
    default="auto",
    type=click.Choice(["auto", "text", "jsonl"]),
    help="What FILE holds; auto goes by its name.  [e.g. --format jsonl]",
)
@option("--text-field", default="text", help="JSONL field that holds the text.  [e.g. --text-field response]")
@option(
    "--from-text",
    is_flag=True,
    help="Encode the text anew even where a record has token ids, as for a real suspect.  [e.g. --from-text]",
)
@option(
    "--aware",
    is_flag=True,
    help="Test with the owner's model as well (--model; by default the demo model). It must never have learnt from "
    "text that is marked with this key.  [e.g. --aware]",
)
@option("--model", "model_dir", help="The owner's model folder, for --aware.  [e.g. --model ./my-model]")
@option(
    "--alpha",
    type=float,
    default=DEFAULT_ALPHA,
    help="Family-wise false-positive rate of 'found' over all documents, and of naming a key over all documents and "
    "keys.  [e.g. --alpha 1e-3]",
)
@decoy_count
@decoy_public_seed
@option("--limit", type=click.IntRange(1), help="Only the first N documents.  [e.g. --limit 100]")
@commitment_on_record
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for report.json, report.html and report.pdf.  [e.g. -o evidence/]",
)
@json_option
@option(
    "--pdf/--no-pdf",
    default=None,
    help="Write report.pdf as well; by default where typst, which sets it, is installed.  [e.g. --no-pdf]",
)
@examiner_name
@case_text
@without_quotes
@replace_report_option
@fail_when_found
@working
def detect(
    source: str,
    spec_path: Path,
    key: str,
    tenants: tuple[str, ...],
    tenants_file: Path | None,
    tokenizer: str | None,
    form: Any,
    text_field: str,
    from_text: bool,
    aware: bool,
    model_dir: str | None,
    alpha: float,
    decoys: int,
    decoy_seed: str,
    limit: int | None,
    commitment_path: Path | None,
    output: Path | None,
    as_json: bool,
    pdf: bool | None,
    examiner: str | None,
    case: str | None,
    no_quotes: bool,
    force: bool,
    fail: bool,
) -> None:
    """Test the documents of FILE (plain text, or JSONL with one document a line) for the mark.

    Give all the text that there is: documents that were picked with the key look marked without being so. What else the
    answer assumes stands at the end of the report.

    \b
    Example: dyetrace detect suspect.jsonl --spec spec.json --key file:owner.key -o evidence/
             cat essay.txt | dyetrace detect - --spec spec.json --key file:owner.key --json --fail
    """
    from detect.document.detection import Model, Settings
    from detect.document.detection import detect as run
    from detect.folders.published import DETECTION_FORMAT, check_folder
    from detect.keyed.opening import is_opened
    from detect.records.made import made_by
    from detect.text.artefacts import check_text
    from detect.text.inputs import from_text_alone, read_suspects
    from watermark.commitment import load_commitment
    from watermark.spec import load_spec

    refuse_seed_of_no_decoys(decoys)
    refuse_unused("model_dir", not aware, "it is for --aware; a tokenizer is given with --tokenizer")
    refuse_unused("force", output is None, "no report is written without -o")
    refuse_unused("pdf", output is None, "no report is written without -o")
    refuse_unused("no_quotes", output is None and not as_json, "what is printed without -o or --json quotes no text")
    maker = made_by(examiner, case)
    settings = Settings(alpha=alpha, decoy_count=decoys, decoy_seed=decoy_seed, quotes=not no_quotes)
    made = load_spec(spec_path)
    commitment = None if commitment_path is None else load_commitment(commitment_path)
    ring = load_ring(key, made, (*tenants, *read_names(tenants_file)))
    if output is not None:
        check_folder(output, DETECTION_FORMAT, inputs=[] if source == "-" else [source], force=force)
    with_pdf = _makes_pdf(pdf, output)
    check_text(source, "FILE")
    doing("reading the documents")
    suspects, read = read_suspects(source, form, text_field)
    plain = not suspects[0].place  # of JSONL it is a line
    refuse_unused("text_field", plain, "FILE is plain text, which has no fields")
    nowhere = all(suspect.text is None for suspect in suspects)
    refuse_unused("text_field", nowhere, f"no record has a field {text_field!r}")
    refuse_unused("from_text", plain, "FILE is plain text, which holds no token ids")
    refuse_unused("limit", plain, "FILE is plain text, which is one document")
    suspects = suspects[:limit]
    if from_text:
        suspects = [from_text_alone(suspect) for suspect in suspects]
    if not no_quotes:
        _tell_of_quotes(len(suspects), output, as_json)
    model = None
    tokenizer_source: Any = tokenizer or model_folder(model_dir)
    if aware:
        from detect.models.soundness import check_sound

        doing("loading the model")
        network, _ = load_model(model_dir, "bfloat16")
        doing("testing the model itself")
        check_sound(network, model_dir or "the demo model", made.vocabulary_size)
        model = Model(model_dir or "demo model SmolLM2-135M-Instruct", network)
    arguments = {
        "source": source,
        "tenants": list(ring.tenants),
        "format": form,
        "text_field": text_field,
        "from_text": from_text,
        "aware": aware,
        "model": model_dir,
        "tokenizer": tokenizer,
        "limit": limit,
    }
    doing("testing", 0, len(suspects), "documents")
    record = run(
        suspects,
        [read],
        made,
        ring,
        tokenizer_source,
        settings,
        model=model,
        commitment=commitment,
        opened=is_opened(commitment_path, commitment, [made], key),
        arguments=arguments,
        made=maker,
        progress=_show_testing,
    )
    _tell_of_nothing(record)
    _publish(record, output, as_json, with_pdf)
    if fail:
        end_by_verdict(bool(record.found), _withheld(record))


def _show_testing(done: int, of: int) -> None:
    if done < of:
        doing("testing", done, of, "documents")
    else:
        doing("putting the documents' results together")


def _tell_of_quotes(documents: int, output: Path | None, as_json: bool) -> None:
    """Say before any work which files will hold texts of the suspect's."""
    from detect.document.detection import VIEWED_DOCUMENTS

    where = [
        *(["report.json and report.html"] if output is not None else []),
        *(["standard output"] if as_json else []),
    ]
    if where:
        most = min(documents, VIEWED_DOCUMENTS)
        passages = "1 passage" if most == 1 else f"{most:,} passages"
        note(
            f"{' and '.join(where)} will quote up to {passages} of the suspect's texts; add --no-quotes to leave them "
            "out"
        )


@click.command()
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("dyetrace-demo"),
    help="Folder for the demo's files.  [e.g. -o demo/]",
)
@option(
    "--scheme",
    default="gumbel",
    type=click.Choice(["gumbel", "tournament", "green_list"]),
    help="The scheme to show.  [e.g. --scheme tournament]",
)
@json_option
@working
def demo(output: Path, scheme: str, as_json: bool) -> None:
    """Mark a real model's answers, hide them among natural text, find them again; under 4 minutes on 2 cores.

    \b
    Example: dyetrace demo
    """
    from detect.demo import finish_demo, is_unfinished, run_demo

    leaves(
        lambda: (
            f"{output} holds an unfinished demo, which the same command begins anew"
            if is_unfinished(output)
            else "nothing was written; run the same command again"
        )
    )

    def tell(step: str) -> None:
        doing(step.strip())
        note(step)

    record = run_demo(output, scheme, tell)
    try:
        _publish(record, output, as_json)
    finally:
        finish_demo(output)


@click.command()
@click.argument("report", type=click.Path(path_type=Path))
@option("--key", required=True, help=f"{KEY_HELP}  [e.g. --key file:owner.key]")
@option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec; by default the demo model's.  [e.g. --tokenizer ./my-model]",
)
@option(
    "--inputs",
    type=click.Path(path_type=Path),
    help="Folder with the files that were read; by default relative names are looked for from here, and from the "
    "report's folder and those above it.  [e.g. --inputs data/]",
)
@json_option
@working
def recompute(report: Path, key: str, tokenizer: str | None, inputs: Path | None, as_json: bool) -> None:
    """Compute REPORT (a report.json of a detection, a scan or a trace) anew, and compare all numbers. An account's own
    key gives the part that concerns this account.

    \b
    Example: dyetrace recompute evidence/report.json --key file:owner.key
    """
    doing("reading the report and its inputs")
    found, left = _recomputed(report, key, tokenizer, inputs)
    rest()
    if as_json:
        print_result(found)
    if not found.holds:
        raise EvidenceError(f"the report does not hold: {'; '.join(found.differences[:5])}")
    what = f"{found.count:,} {found.unit if found.count != 1 else found.unit.removesuffix('s')} recomputed"
    if as_json:
        return
    if not found.keys_unchecked:
        click.echo(f"the report holds: {what}, every number the same")
        return
    named = f"{', '.join(left[:_NAMED])}{' and more' if len(left) > _NAMED else ''}"
    click.echo(
        f"the part of account {found.account!r} holds: {what}, every number of its own test the same. Not checked "
        f"with this key: the {found.keys_unchecked:,} other keys ({named}), and what follows from all keys together "
        "(adjusted p-values, the verdict, decoys, lists and shares)"
    )


_NAMED = 5  # keys that were not checked, by name


def _recomputed(report: Path, key: str, tokenizer: str | None, inputs: Path | None) -> tuple[Recomputed, Sequence[str]]:
    """Compute a report of whatever kind anew, and name the keys on record that this key can't test."""
    from detect.corpus.recompute import held_of_scan
    from detect.corpus.recompute import keys_on_record as keys_of_scan
    from detect.document.blind import tested_keys
    from detect.document.recompute import keys_on_record, ring_on_record
    from detect.records.reading import read_report
    from detect.records.results import Recomputed
    from detect.records.scan import ScanRecord
    from detect.records.trace import TraceRecord
    from watermark.keys import TenantKey, load_key

    _, record = read_report(report)
    beside = "a trace is recomputed from the evidence beside it"
    refuse_unused("inputs", isinstance(record, TraceRecord), beside)
    refuse_unused("tokenizer", isinstance(record, TraceRecord), beside)
    loaded = load_key(key)
    account = loaded.tenant if isinstance(loaded, TenantKey) else None
    kind: Literal["detection", "scan", "trace"]
    unit: Literal["documents", "contexts"] = "documents"
    if isinstance(record, ScanRecord):
        keys, held = keys_of_scan(record), held_of_scan(record, loaded)
        differences = _recompute_scan(record, key, tokenizer, report, inputs)
        kind, count = "scan", record.documents
    elif isinstance(record, TraceRecord):
        keys = [h.key for h in record.hypotheses]
        ring = ring_on_record(key, record.spec, keys)
        held = list(tested_keys(record.spec, ring))
        differences = _recompute_trace(record, ring, report)
        kind, unit, count = "trace", "contexts", record.contexts
    else:
        keys = keys_on_record(record)
        ring = ring_on_record(key, record.spec, keys)
        held = list(tested_keys(record.spec, ring))
        differences = _recompute_detection(record, ring, tokenizer, report, inputs)
        kind, count = "detection", len(record.documents)
    left = [name for name in keys if name not in held]
    found = Recomputed(
        path=str(report),
        report=kind,
        holds=not differences,
        differences=differences,
        unit=unit,
        count=count,
        account=account,
        keys_unchecked=len(left),
    )
    return found, left


def _recompute_scan(
    record: ScanRecord, key: str, tokenizer: str | None, report: Path, inputs: Path | None
) -> list[str]:
    from detect.corpus.engines import make_engine
    from detect.corpus.recompute import recompute_scan

    if tokenizer is None and any(source.kind != "tokens" for source in record.inputs):
        tokenizer = str(model_folder(None))
    engine = make_engine("local", None, None)
    return recompute_scan(
        record, absolute_source(key), tokenizer, report, inputs, engine, note=say, progress=StageProgress()
    )


def _recompute_trace(record: TraceRecord, ring: KeyRing, report: Path) -> list[str]:
    from detect.student.verdict.recompute import recompute_trace

    doing("computing the trace anew")
    return recompute_trace(record, ring, report.parent)


def _recompute_detection(
    record: Record, ring: KeyRing, tokenizer: str | None, report: Path, inputs: Path | None
) -> list[str]:
    from detect.document.recompute import recompute as run

    where = tokenizer or model_folder(None)
    doing("computing the detection anew")
    return run(record, ring, where, report, inputs)


def _tell_of_nothing(record: Record) -> None:
    """Say how many documents hold nothing to test, also where the report is read by no person."""
    from detect.document.blind import NOTHING

    empty = [document for document in record.documents if (document.refused or "").startswith(NOTHING)]
    if empty:
        first = f"{empty[0].name}: {empty[0].refused}"
        of = "1 document holds" if len(record.documents) == 1 else f"{len(record.documents):,} documents hold"
        note(f"{len(empty):,} of {of} nothing to test; {first}")


def _withheld(record: Record) -> str | None:
    """Of which documents nothing could be said that had something to test, or that none had, and why."""
    from detect.document.blind import NOTHING

    refused = [document for document in record.documents if document.refused is not None]
    if len(refused) < len(record.documents):
        refused = [document for document in refused if not (document.refused or "").startswith(NOTHING)]
    if not refused:
        return None
    more = "" if len(refused) == 1 else f" (and {len(refused) - 1:,} documents more)"
    return f"{refused[0].name}: {refused[0].refused}{more}"


def _makes_pdf(wanted: bool | None, output: Path | None) -> bool:
    """Whether there will be a PDF, before any work is done for it; said where it is left out unasked."""
    if output is None:
        if wanted:
            raise DyetraceError("--pdf writes to the report's folder: give one with -o, or leave --pdf out")
        return False
    try:
        if wanted is not False:
            check_pdf()
    except MachineError:
        if wanted:
            raise
        note("no report.pdf will be written: it needs typst (pip install 'dyetrace[scan]')")
        return False
    return wanted is not False


def _publish(record: Record, output: Path | None, as_json: bool, pdf: bool = False) -> None:
    from detect.records.reading import encode_record
    from detect.report.detection.terminal import print_record

    data = encode_record(record)

    def write(folder: Path) -> dict[str, bytes]:
        from detect.folders.published import replace_report
        from detect.report.detection.page import render_html

        replace_report(folder, {"report.json": data, "report.html": render_html(record).encode()})
        if not pdf:
            return {}
        from detect.report.detection.pdf import render_detection_pdf

        return {"report.pdf": render_detection_pdf(record)}

    publish(output, data, write, lambda console: print_record(record, console), as_json)
