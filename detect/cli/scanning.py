"""The command that scans whole corpora."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detect.cli.common import (
    absolute_source,
    case_text,
    commitment_on_record,
    decoy_count,
    decoy_public_seed,
    examiner_name,
    fail_when_found,
    model_folder,
    note,
    option,
    read_names,
    tenant_names,
    tenants_in_file,
    tested_key,
    without_quotes,
)
from detect.cli.publishing import check_pdf, end_by_verdict, goes_on, publish, replace_report_option
from detect.cli.results import json_option, print_result
from detect.cli.unused import given, refuse_seed_of_no_decoys, refuse_unused
from detect.cli.working import doing, is_watched, rest, working
from detect.laws.level import DEFAULT_ALPHA
from watermark.errors import DyetraceError

if TYPE_CHECKING:
    from detect.corpus.readers import ReadOptions
    from detect.corpus.run_times import RunTimes
    from detect.corpus.scan import ScanJob
    from detect.records.scan import ScanRecord

_STAGES = {
    "find": "looking for files",
    "hash": "hashing files",
    "gather": "reading and encoding",
    "settle": "finding repeats",
    "score": "scoring",
    "locate": "locating the mark",
    "conclude": "computing p-values, decoys and shares",
}
_BESIDE = {"control": " of the control corpus", "reference": " of the reference"}
_UNITS = {"hash": "bytes", "gather": "bytes", "settle": "tuples", "locate": "files"}


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
@option(
    "--spec",
    "spec_paths",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="The watermark to look for; repeat it for several epochs.  [e.g. --spec epoch1.json --spec epoch2.json]",
)
@tested_key
@option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the report.  [e.g. -o evidence/]",
)
@tenant_names
@tenants_in_file
@option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec, for text; by default the demo model's.  "
    "[e.g. --tokenizer ./my-model]",
)
@option(
    "--format",
    "form",
    default="auto",
    type=click.Choice(["auto", "jsonl", "parquet", "arrow", "text"]),
    help="What the files hold; auto goes by their names.  [e.g. --format jsonl]",
)
@option(
    "--field",
    help="Field or column to read: text, chat messages or token ids; by default the usual names are tried.  "
    "[e.g. --field response]",
)
@option("--id-field", help="Field with the record's own id.  [e.g. --id-field uuid]")
@option(
    "--role",
    "roles",
    multiple=True,
    default=("assistant",),
    help="Whose turns of chats are read; may be repeated.  [e.g. --role assistant --role user]",
)
@option(
    "--on-error",
    default="stop",
    type=click.Choice(["stop", "skip"]),
    help="What to do at a broken line or file; skipped ones are counted and listed.  [e.g. --on-error skip]",
)
@option("--limit", type=click.IntRange(1), help="Only the first N documents of each file.  [e.g. --limit 1000]")
@option("--sample", type=float, default=1.0, help="Share of the documents to scan.  [e.g. --sample 0.1]")
@option(
    "--alpha",
    type=float,
    default=DEFAULT_ALPHA,
    help="Family-wise false-positive rate of 'found' over all keys, and of documents that point to a key over all "
    "documents and keys.  [e.g. --alpha 1e-3]",
)
@option(
    "--fdr", "rate", type=float, default=0.05, help="False-discovery rate of the list of documents.  [e.g. --fdr 0.01]"
)
@decoy_count
@decoy_public_seed
@option(
    "--reference",
    "references",
    multiple=True,
    help="Text that is known to be marked, such as your own answers: with it the marked share of tokens has an "
    "upper limit.  [e.g. --reference answers.jsonl]",
)
@option(
    "--null-corpus",
    "nulls",
    multiple=True,
    default=("natural",),
    help="Text that is known not to be marked, tested as a control: if it is marked, no answer is given. 'natural' is "
    "the prose that comes with dyetrace (for text alone), 'none' leaves it out.  [e.g. --null-corpus wiki.jsonl]",
)
@commitment_on_record
@option(
    "--engine",
    default="local",
    type=click.Choice(["local", "ray", "datatrove"]),
    help="What runs the work: processes here, or a cluster.  [e.g. --engine ray]",
)
@option("--address", help="With --engine ray: the cluster; by default one on this machine.  [e.g. --address auto]")
@option("--workers", type=click.IntRange(1), help="Parallel workers; by default one a core.  [e.g. --workers 8]")
@option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder in which dyetrace makes one for intermediate results (.dyetrace-scan, about 10 bytes a token), which "
    "all workers must share; by default OUTPUT. Only what dyetrace has made there is ever removed.  "
    "[e.g. --work /scratch]",
)
@option("--keep-work", is_flag=True, help="Leave it there, for a quick scan with other keys.  [e.g. --keep-work]")
@option("--dry-run", is_flag=True, help="Say what the scan would cost and could find, and stop.  [e.g. --dry-run]")
@option("--pdf/--no-pdf", default=True, help="Write report.pdf as well.  [e.g. --no-pdf]")
@json_option
@examiner_name
@case_text
@without_quotes
@replace_report_option
@fail_when_found
@working
def scan(
    paths: tuple[str, ...],
    spec_paths: tuple[Path, ...],
    key: str,
    output: Path,
    tenants: tuple[str, ...],
    tenants_file: Path | None,
    tokenizer: str | None,
    form: Any,
    field: str | None,
    id_field: str | None,
    roles: tuple[str, ...],
    on_error: str,
    limit: int | None,
    sample: float,
    alpha: float,
    rate: float,
    decoys: int,
    decoy_seed: str,
    references: tuple[str, ...],
    nulls: tuple[str, ...],
    commitment_path: Path | None,
    engine: str,
    address: str | None,
    workers: int | None,
    work: Path | None,
    keep_work: bool,
    dry_run: bool,
    pdf: bool,
    as_json: bool,
    examiner: str | None,
    case: str | None,
    no_quotes: bool,
    force: bool,
    fail: bool,
) -> None:
    """Scan a corpus for the mark: PATHS are files, folders or globs of JSONL (.gz, .zst), Parquet, text, or Hugging
    Face data sets. A scan that was stopped goes on when the same command is given again.

    Give all the text that there is: documents that were picked with the key look marked without being so. What else the
    answer assumes stands at the end of the report.

    \b
    Example: dyetrace scan data/ --spec spec.json --key file:owner.key -o evidence/
             dyetrace scan 'crawl/*.jsonl.zst' --spec spec.json --key file:owner.key --on-error skip -o evidence/
    """
    if engine == "local" and not dry_run:
        from detect.corpus.engines.forkserver import start_early

        start_early()  # it gets ready while this process loads its own packages
    from detect.corpus.engines import make_engine
    from detect.corpus.readers import ReadOptions
    from detect.corpus.scan import ScanJob
    from detect.corpus.scan import scan as run
    from detect.corpus.settings import ScanSettings
    from detect.folders.published import Unwritten
    from detect.keyed.opening import is_opened
    from detect.records.made import made_by
    from watermark.commitment import load_commitment
    from watermark.spec import load_spec

    refuse_seed_of_no_decoys(decoys)
    refuse_unused("address", engine != "ray", "it is the address of Ray's cluster, and goes with --engine ray")
    refuse_unused("nulls", "none" in nulls and len(nulls) > 1, "'none' beside other texts leaves none of them")
    doing("looking for files")
    accounts = tuple(dict.fromkeys([*tenants, *read_names(tenants_file)]))
    settings = ScanSettings(
        read=ReadOptions(form=form, field=field, id_field=id_field, roles=tuple(roles), skip_errors=on_error == "skip"),
        alpha=alpha,
        rate=rate,
        sample=sample,
        limit=limit,
        decoys=decoys,
        decoy_seed=decoy_seed,
        tenants=accounts,
    )
    _refuse_unread(paths, settings.read)
    specs = [load_spec(path) for path in spec_paths]
    commitment = None if commitment_path is None else load_commitment(commitment_path)
    job = ScanJob(
        paths=paths,
        specs=specs,
        key=absolute_source(key),
        settings=settings,
        tokenizer=_tokenizer(tokenizer, paths, settings.read),
        commitment=commitment,
        opened=is_opened(commitment_path, commitment, specs, key),
        reference=references,
        null_corpus=() if "none" in nulls else nulls,
        made=made_by(examiner, case),
        quotes=not no_quotes,
    )
    alone = nulls == ("natural",) and job.tokenizer is None
    refuse_unused("nulls", alone, "'natural' is text, and all files hold token ids of their own")
    refuse_unused("fail", dry_run, "--dry-run looks for no mark")
    if dry_run:
        doing("reading a part of the files")
        from detect.corpus.forecast import forecast, forecast_lines

        expected = forecast(job, workers)
        rest()
        if as_json:
            print_result(expected)
        else:
            click.echo("\n".join(forecast_lines(expected)))
        return
    _check_output(job, output, pdf, force)
    if job.quotes and job.tokenizer is not None:
        _tell_of_quotes()
    failed = None
    goes_on(f"what is finished is kept in {work or output}")
    progress = StageProgress()
    try:
        record = run(
            job, output, make_engine(engine, workers, address), work=work, keep_work=keep_work, progress=progress
        )
    except Unwritten as error:
        record, failed = error.record, error
    _publish(record, output, pdf, as_json, progress.summary(engine), failed)
    if fail:
        end_by_verdict(record.found, record.refused)


def _tell_of_quotes() -> None:
    """Say before any work which files will hold texts of the suspect's."""
    from detect.corpus.scan import HITS

    note(
        f"report.json and report.html will quote up to {HITS} passages of the suspect's texts, and hits.jsonl one of "
        "each document that is listed; add --no-quotes to leave them out"
    )


def _refuse_unread(paths: tuple[str, ...], options: ReadOptions) -> None:
    """Refuse options about records of which no file has any."""
    from detect.corpus.readers import find_sources

    if not any(given(name) for name in ("field", "id_field", "roles", "limit")):
        return
    sources = [source for source in find_sources(paths, options)[0] if source.bytes]
    plain = all(source.form == "text" for source in sources)
    refuse_unused("field", plain, "all files are plain text, which has no fields")
    refuse_unused("id_field", plain, "all files are plain text, which has no fields")
    refuse_unused("limit", plain, "each file is plain text, which is one document")
    refuse_unused("roles", not any(source.kind == "messages" for source in sources), "no file holds chats")


def _tokenizer(folder: str | None, paths: tuple[str, ...], options: Any) -> str | None:
    """The tokenizer's absolute path; without one given the demo model's where there is text to encode."""
    from detect.corpus.readers import find_sources

    if folder is None and all(s.kind == "tokens" for s in find_sources(paths, options)[0] if s.bytes):
        return None
    return str(Path(model_folder(folder)).absolute())


def _check_output(job: ScanJob, output: Path, pdf: bool, force: bool) -> None:
    """Find before the work what would come in the way of the report after it."""
    from detect.corpus.readers import find_sources
    from detect.folders.published import SCAN_FORMAT, check_folder
    from detect.text.artefacts import check_text

    if pdf:
        check_pdf()
    files = [source.path for source in find_sources(job.paths, job.settings.read)[0]]
    for file in files:
        check_text(file, "PATHS")
    for option_name, paths in (("--reference", job.reference), ("--null-corpus", job.null_corpus)):
        for path in paths:
            check_text(path, option_name)
    check_folder(output, SCAN_FORMAT, inputs=[*job.paths, *files, *job.reference, *job.null_corpus], force=force)


def _publish(
    record: ScanRecord, output: Path, pdf: bool, as_json: bool, run: RunTimes, failed: DyetraceError | None
) -> None:
    from detect.records.reading import encode_record
    from detect.report.scan.terminal import print_scan

    def drawn(_: Path) -> dict[str, bytes]:
        import msgspec

        from detect.report.scan.page import render_scan_html

        drawings = {"report.html": render_scan_html(record).encode()}
        if pdf:
            from detect.report.scan.pdf import render_pdf

            drawings["report.pdf"] = render_pdf(record)
        return drawings | {"run.json": msgspec.json.format(msgspec.json.encode(run)) + b"\n"}

    publish(output, encode_record(record), drawn, lambda console: print_scan(record, console), as_json, failed)


class StageProgress:
    """How far each stage is, as `detect.cli.working` shows it; a line a stage for logs, and times for run.json."""

    def __init__(self) -> None:
        self._started = self._begun = time.time()
        self._stage: str | None = None
        self._seconds: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take down how far a stage is, as `detect.corpus.scan.Progress` has it."""
        if stage != self._stage:
            self._stage, self._begun = stage, time.time()
        corpus, _, own = stage.rpartition(": ")
        label = _STAGES[own] + _BESIDE.get(corpus, "")
        doing(label, done, total, _UNITS.get(own, "tokens") if total else "")
        if corpus or not total:
            return
        seconds = max(time.time() - self._begun, 1e-3)
        self._seconds[stage] = seconds
        if done == total and not is_watched():
            unit = {"hash": "MB/s", "gather": "MB/s", "locate": "M/s"}.get(stage, "Mtokens/s")
            note(f"{label}: done in {seconds:.1f} s ({done / seconds / 1e6:.1f} {unit})")

    def summary(self, engine: str) -> RunTimes:
        """What run.json says: times and place of this run, which are no part of the evidence."""
        import platform
        from datetime import UTC, datetime

        from detect.corpus.run_times import RunTimes

        return RunTimes(
            started=datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            seconds=round(time.time() - self._started, 3),
            stages={stage: round(seconds, 3) for stage, seconds in self._seconds.items()},
            engine=engine,
            host=platform.node(),
        )
