"""`dyetrace scan`: whole corpora."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from detect.cli.models import model_folder
from detect.cli.options.scanning import Scan
from detect.cli.publishing import check_place, goes_on, made_and_published
from detect.cli.reading import absolute_source, accounts_of, read_commitment
from detect.cli.results import print_result
from detect.cli.stages import StageProgress
from detect.cli.unused import refuse_seed_of_no_decoys, refuse_unused
from detect.cli.working import doing, note, rest
from detect.corpus.chosen import check_named, fields_lines, fields_read
from detect.corpus.engines import make_engine
from detect.corpus.forecast import forecast, forecast_lines
from detect.corpus.scan import HITS, NATURAL, ScanJob
from detect.corpus.scan import scan as run
from detect.corpus.settings import ScanSettings
from detect.corpus.unquoted import nameless
from detect.folders.published import SCAN_FORMAT
from detect.keyed.opening import is_opened
from detect.readers import ReadOptions, Source, find_sources
from detect.records.made import made_by
from detect.records.reading import printed
from detect.text.artefacts import check_text
from watermark.spec import load_spec


def scan(asked: Scan) -> None:
    """Scan, write the report and show it; with --dry-run say what it would cost."""
    nulls, maker = asked.null_corpus, made_by(asked.examiner, asked.case)
    refuse_seed_of_no_decoys(asked.decoys)
    refuse_unused("address", asked.engine != "ray", "it is the address of Ray's cluster, and goes with --engine ray")
    refuse_unused("null_corpus", "none" in nulls and len(nulls) > 1, "'none' beside other texts leaves none of them")
    doing("looking for files")
    accounts = accounts_of(asked)
    read = ReadOptions(**asked.of(ReadOptions), skip_errors=asked.on_error == "skip")
    settings = ScanSettings(**asked.of(ScanSettings) | {"read": read, "tenants": accounts})
    specs = [load_spec(path) for path in asked.spec_paths]
    commitment = read_commitment(asked.commitment_path)
    sources = find_sources(asked.paths, read)[0]
    _refuse_unread([source for source in sources if source.bytes])
    check_named(sources, read)
    job = ScanJob(
        paths=asked.paths,
        specs=specs,
        key=absolute_source(asked.key),
        settings=settings,
        tokenizer=_tokenizer(asked.tokenizer, sources),
        commitment=commitment,
        opened=is_opened(asked.commitment_path, commitment, specs, asked.key),
        reference=asked.reference,
        null_corpus=() if "none" in nulls else nulls,
        made=maker,
        quotes=not asked.no_quotes,
    )
    alone = nulls == ("natural",) and job.tokenizer is None
    refuse_unused("null_corpus", alone, "'natural' is text, and all files hold token ids of their own")
    refuse_unused("fail", asked.dry_run, "--dry-run looks for no mark")
    if asked.dry_run:
        _print_forecast(job, asked)
        return
    _check_output(job, sources, asked)
    if job.quotes and job.tokenizer is not None:
        where = "report.json, report.html and report.pdf" if asked.pdf else "report.json and report.html"
        note(
            f"{where} will quote up to {HITS} passages of the suspect's texts, and hits.jsonl one of each document "
            "that is listed; add --no-quotes to leave them out"
        )
    _say_fields(sources, job)
    goes_on(f"what is finished is kept in {asked.work or asked.output}")
    progress = StageProgress()
    engine = make_engine(asked.engine, asked.workers, asked.address)
    made_and_published(
        asked,
        lambda: run(job, asked.output, engine, work=asked.work, keep_work=asked.keep_work, progress=progress),
        lambda: {"run.json": printed(progress.summary(asked.engine))},
    )


def _refuse_unread(sources: Sequence[Source]) -> None:
    """Refuse options about records of which no file has any."""
    plain = all(source.form == "text" for source in sources)
    refuse_unused("fields", plain, "all files are plain text, which has no fields")
    refuse_unused("id_field", plain, "all files are plain text, which has no fields")
    refuse_unused("limit", plain, "each file is plain text, which is one document")
    refuse_unused("roles", not any(source.kind == "messages" for source in sources), "no file holds chats")
    about = not any(source.kind == "messages" or source.columns for source in sources)
    refuse_unused("leave_out", about, "no file holds chats, or fields of reasoning")


def _say_fields(sources: Sequence[Source], job: ScanJob) -> None:
    """Say which fields are read of the files, and of those that are tested beside them."""
    named = sources if job.quotes else nameless(sources, job.settings.read.fields, job.paths)
    for line in fields_lines(fields_read(named)):
        note(line)
    beside = {"reference": job.reference, "control": [path for path in job.null_corpus if path != NATURAL]}
    for what, paths in beside.items():
        for line in fields_lines(fields_read(find_sources(paths, ReadOptions())[0])) if paths else ():
            note(f"{what}: {line}")


def _tokenizer(folder: str | None, sources: Sequence[Source]) -> str | None:
    """The tokenizer's absolute path; without one given the demo model's where there is text to encode."""
    if folder is None and all(source.kind == "tokens" for source in sources if source.bytes):
        return None
    return str(Path(model_folder(folder)).absolute())


def _print_forecast(job: ScanJob, asked: Scan) -> None:
    doing("reading a part of the files")
    expected = forecast(job, asked.workers)
    rest()
    if asked.as_json:
        print_result(expected)
    else:
        click.echo("\n".join(forecast_lines(expected)))


def _check_output(job: ScanJob, sources: Sequence[Source], asked: Scan) -> None:
    """Find before the work what was given in the wrong place, or would come in the way of the report after it."""
    files = [source.path for source in sources]
    for name, paths in (("PATHS", files), ("--reference", job.reference), ("--null-corpus", job.null_corpus)):
        for path in paths:
            check_text(path, name)
    check_place(asked, SCAN_FORMAT, [*job.paths, *files, *job.reference, *job.null_corpus])
