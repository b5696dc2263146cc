"""Scans and traces from a program: the same work, files and reports as the command line's.

Each function writes its report to a folder as it goes, so that a run that was cut off goes on from there, and returns
the result. What must be fixed before the key matters is said in `docs/validity.md`, test by test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from detect.corpus.engines import make_engine
from detect.corpus.scan import NATURAL, ScanJob
from detect.corpus.scan import scan as run_scan
from detect.corpus.settings import ScanSettings
from detect.folders.published import add_drawings
from detect.keyed.rings import rings_of
from detect.laws.level import DEFAULT_ALPHA
from detect.race import endpoint as race_endpoint
from detect.race.job import RaceJob
from detect.race.plan import PLAN_FILE
from detect.race.plan import load_plan as load_race_plan
from detect.race.planning import make_race_plan
from detect.race.weights import trace_race_weights
from detect.records.reading import encode_record
from detect.report.kinds import story_of
from detect.report.paper.page import page
from detect.result import RaceResult, ScanResult, TraceResult, TwinResult
from detect.student.asking.account import ClientSettings
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import given_api_key
from detect.student.asking.plan import TracePlan, load_plan
from detect.student.endpoint import Standing
from detect.student.endpoint import trace_endpoint as run_trace_endpoint
from detect.student.open_weights import WeightsJob
from detect.student.open_weights import trace_weights as run_trace_weights
from detect.twins import endpoint as twins_endpoint
from detect.twins.plan import Ask
from detect.twins.preparing import TwinsJob
from detect.twins.selection import SEED, Level
from detect.twins.weights import trace_twins_weights
from watermark.errors import DyetraceError
from watermark.files.writing import make_folder
from watermark.keys import load_master
from watermark.models.tokenizer import load_tokenizer
from watermark.spec import WatermarkSpec, load_spec

_R = TypeVar("_R", ScanResult, TraceResult, TwinResult, RaceResult)
Spec = WatermarkSpec | str | Path


def scan(
    paths: str | Path | Sequence[str | Path],
    spec: Spec | Sequence[Spec],
    key: str,
    output: str | Path,
    *,
    tokenizer: str | Path | None = None,
    settings: ScanSettings | None = None,
    reference: Sequence[str | Path] = (),
    null_corpus: Sequence[str | Path] = (NATURAL,),
    quotes: bool = True,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> ScanResult:
    """Scan a corpus; the same call goes on where an earlier one was cut off.

    A program that calls this must be importable (``if __name__ == "__main__":``), since workers are processes.

    Parameters
    ----------
    paths
        Files, folders and globs.
    spec
        The watermark, or one for each epoch; specs or their paths.
    key
        Where the key is: ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``; each worker reads it there.
    output
        Folder of the report.
    tokenizer
        The spec's: a model's folder or its tokenizer.json; needed for text.
    settings
        Level, false-discovery rate, accounts, decoys, and how documents are found in files.
    reference, null_corpus
        Files of text that is known to be marked, from which the strength of the mark is learnt, and of text that is
        known not to be.
    quotes
        Whether texts of the corpus may stand in the report.
    engine, workers, address
        "local", "ray" or "datatrove"; how many processes; where the cluster is.
    progress
        Called with a stage, what is done of it and all there is.

    Raises
    ------
    DyetraceError
        Bad input, or a report that can't be written; finished work stays.

    Examples
    --------
    >>> import os, detect
    >>> os.environ["OWNER_KEY"] = b"a key that everybody knows......".hex()
    >>> result = detect.scan(
    ...     "tests/golden/documents.jsonl", "tests/golden/spec.json", "env:OWNER_KEY", "scanned",
    ...     tokenizer="tests/golden/tokenizer.json",
    ... )  # doctest: +SKIP
    >>> result.found  # doctest: +SKIP
    True
    """
    given = [spec] if isinstance(spec, WatermarkSpec | str | Path) else list(spec)
    job = ScanJob(
        paths=[str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)],
        specs=[_spec(one) for one in given],
        key=key,
        settings=settings or ScanSettings(),
        tokenizer=None if tokenizer is None else str(tokenizer),
        reference=[str(path) for path in reference],
        null_corpus=[str(path) for path in null_corpus],
        quotes=quotes,
    )
    record = run_scan(job, Path(output), make_engine(engine, workers, address), progress=progress)
    return _drawn(ScanResult(record, Path(output)))


def trace_weights(
    job: WeightsJob,
    spec: Spec,
    key: str,
    tokenizer: Any,
    output: str | Path,
    *,
    tenants: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> TraceResult:
    """Trace a student whose weights are at hand; what models have read is kept in the folder.

    Parameters
    ----------
    job
        The suspect, what it reads, and what it is compared with.
    spec, key, tokenizer
        As for `detect.Detector`.
    output
        Folder of the report.
    tenants
        Accounts to test beside the global key.
    progress
        Called with what is being done, positions done and in all.

    Raises
    ------
    DyetraceError
        Spec, key and tokenizer don't belong together; a text or model can't be read, or isn't sound.

    Examples
    --------
    >>> import detect
    >>> job = detect.WeightsJob(student="suspect", texts=["answers.jsonl"], taken="all", references=["base"])
    >>> detect.trace_weights(job, "spec.json", "file:owner.key", "base", "traced")  # doctest: +SKIP
    <TraceResult found=True log10_pvalue=-90.52 keys=1>
    """
    made = _spec(spec)
    ring = rings_of(key, [made], tenants, counted=job.served is not None)[0]
    record = run_trace_weights(job, made, ring, tokenizer, Path(output), progress=progress)
    return _drawn(TraceResult(record, Path(output)))


def trace_endpoint(
    plan: TracePlan | str | Path,
    spec: Spec,
    key: str,
    tokenizer: Any,
    output: str | Path,
    *,
    tenants: Sequence[str] = (),
    served: str | Path | None = None,
    reference: str | Path | None = None,
    api_key: str | None = None,
    api_key_header: str | None = None,
    budgets: Budgets | None = None,
    client: ClientSettings | None = None,
    progress: Callable[[Standing], None] | None = None,
) -> TraceResult:
    """Trace a student through its endpoint: ask what a plan fixed beforehand, until its target is reached.

    Every answer is kept in the folder before it is used: the same call goes on from there and asks nothing twice.

    Parameters
    ----------
    plan
        Made by ``dyetrace trace plan`` before the first query; a plan or its path.
    spec, key, tokenizer
        As for `detect.Detector`.
    output
        Folder of the report and of the answers.
    tenants
        Accounts to test beside the global key.
    served, reference
        The served answers, or the ledger of them, and the reference model, which the plan names by their hashes.
    api_key, api_key_header
        Where the endpoint's key is: ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``; None for servers that want none.
        The name of the header that it goes into as it is; None for a bearer token.
    budgets, client
        Tighter budgets than the plan's; timeouts, attempts and requests at a time.
    progress
        Called before the first prompt and after each.

    Raises
    ------
    DyetraceError
        Plan, spec, key and files don't belong together, or the endpoint can't be asked.

    Examples
    --------
    >>> import detect
    >>> detect.trace_endpoint(
    ...     "plan.json", "spec.json", "file:owner.key", "my-model", "asked", api_key="env:THEIR_KEY"
    ... )  # doctest: +SKIP
    <TraceResult found=False log10_pvalue=0.00 keys=1>
    """
    made = _spec(spec)
    ring = rings_of(key, [made], tenants, counted=served is not None)[0]
    record = run_trace_endpoint(
        plan if isinstance(plan, TracePlan) else load_plan(Path(plan)),
        made,
        ring,
        tokenizer,
        Path(output),
        served=None if served is None else str(served),
        reference=None if reference is None else Path(reference),
        api_key=given_api_key(api_key, api_key_header),
        budgets=budgets,
        client=client,
        progress=progress,
    )
    return _drawn(TraceResult(record, Path(output)))


def trace_race(
    job: RaceJob,
    spec: Spec,
    key: str,
    tokenizer: Any,
    output: str | Path,
    *,
    tenants: Sequence[str] = (),
    api_key: str | None = None,
    api_key_header: str | None = None,
    client: ClientSettings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    asked: Callable[[race_endpoint.Standing], None] | None = None,
) -> RaceResult:
    """Read out whether a suspect says, where served answers chose between words, what the key chose.

    Of an endpoint a plan is made in the folder before it is asked anything of the answers (``plan.json``, which can be
    published), and every reply is kept there before it is used: the same call goes on from there and asks nothing
    twice. What local models have read is kept in the user's cache.

    Parameters
    ----------
    job
        The suspect, the served answers in the order of serving, and the owner's model.
    spec, key, tokenizer
        As for `detect.Detector`.
    output
        Folder of the report.
    tenants
        Accounts to test beside the global key.
    api_key, api_key_header, client
        As for `trace_endpoint`.
    progress
        Of local models: called with what is being done, places done and in all.
    asked
        Of an endpoint: called before the first request and after each.

    Raises
    ------
    DyetraceError
        What is asked for doesn't go together; spec, key, tokenizer and the owner's model don't belong together; the
        answers can't be read, or the suspect can't be read or asked; the folder holds the plan of another job.

    Examples
    --------
    >>> import detect
    >>> job = detect.RaceJob(suspect="suspect", read="served.jsonl", owner_model="my-model", taken="all")
    >>> detect.trace_race(job, "spec.json", "file:owner.key", "my-model", "read/")  # doctest: +SKIP
    <RaceResult found=True log10_pvalue=-14.20 places=4210>
    """
    made, folder = _spec(spec), Path(output)
    ring = rings_of(key, [made], tenants)[0]
    job = replace(job, owner_model=Path(job.owner_model), complete=None if job.complete is None else Path(job.complete))
    job.check()
    loaded = load_tokenizer(tokenizer)
    if not job.through_endpoint:
        return _drawn(RaceResult(trace_race_weights(job, made, ring, loaded, folder, progress=progress), folder))
    secret = given_api_key(api_key, api_key_header)
    path = folder / PLAN_FILE
    if path.exists():
        if load_race_plan(path).arguments != job.arguments:
            raise DyetraceError(f"{path} is the plan of another job; give another folder, or the job that it was of")
    else:
        make_folder(folder)
        make_race_plan(
            job,
            made,
            ring,
            loaded,
            path,
            key=secret,
            client=client,
            progress=progress,
        )
    record = race_endpoint.trace_race_endpoint(
        path,
        job.read,
        made,
        ring,
        loaded,
        folder,
        quotes=job.quotes,
        api_key=secret,
        client=client,
        progress=asked,
    )
    return _drawn(RaceResult(record, folder))


def trace_twins(
    suspect: str | Path,
    ledger: str | Path,
    key: str,
    output: str | Path,
    *,
    model: str | None = None,
    reference: str | Path | None = None,
    owner: str | Path | None = None,
    controls: Sequence[str | Path] = (),
    unserved: str | Path | None = None,
    ask: Ask | Literal["auto"] = "auto",
    samples: int = 0,
    level: Level | None = None,
    tenants: Sequence[str] = (),
    since: str | None = None,
    until: str | None = None,
    sample: float = 1.0,
    seed: str = SEED,
    most: int | None = None,
    target_log10: float = 10.0,
    alpha: float = DEFAULT_ALPHA,
    dtype: str = "bfloat16",
    quotes: bool = True,
    watermark_trace: str | Path | None = None,
    api_key: str | None = None,
    api_key_header: str | None = None,
    budgets: Budgets | None = None,
    client: ClientSettings | None = None,
    progress: Callable[[twins_endpoint.Standing], None] | None = None,
) -> TwinResult:
    """Test whether a suspect prefers the answers that were served to their withheld twins.

    Pairs, measure and target are fixed in a plan before the suspect is asked anything. Every reply is kept in the
    folder before it is used: the same call goes on from there and asks nothing twice.

    Parameters
    ----------
    suspect
        A model's folder, or the base address of an endpoint.
    ledger, key
        The private ledger of pairs, and where the twin key is: ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``.
    output
        Folder of the report, the plan and the replies.
    model
        The suspect's name at its endpoint.
    reference, owner, controls
        Folders of a model to compare with, of the model that made the answers, and of unrelated models for the law test
        of twins that were drawn later.
    unserved
        For the same law test: the ledger of twins of answers that nobody can have learnt from.
    ask, samples
        What is read of the suspect ("auto" takes the strongest that there is), and free answers beside the greedy one.
    level
        Of the pairs; None takes withheld ones where there are any.
    tenants, since, until, sample, seed, most
        Which pairs may enter: of these accounts and times, a share of them that a public seed picks, so many at most.
    target_log10, alpha
        Log10 of the e-value at which asking ends, and the level of the verdict.
    dtype
        Number format of local models.
    quotes
        Whether pairs may be shown in the report.
    watermark_trace
        The report.json of a trace of the watermark in the same suspect, a second line of evidence.
    api_key, api_key_header, budgets, client
        As for `trace_endpoint`.
    progress
        Of an endpoint: called before the first pair and after each.

    Raises
    ------
    DyetraceError
        What is asked for doesn't go together, the ledger can't be opened, or the suspect can't be asked or read.

    Examples
    --------
    >>> import detect
    >>> detect.trace_twins(
    ...     "https://models.example/v1", "twins.ledger", "file:twin.key", "asked", model="suspect-mini"
    ... )  # doctest: +SKIP
    <TwinResult found=True log10_pvalue=-10.21 pairs=212>
    """
    job = TwinsJob(
        suspect=str(suspect),
        ledger=Path(ledger),
        secret=load_master(key),
        model=model,
        reference=None if reference is None else Path(reference),
        owner=None if owner is None else Path(owner),
        controls=tuple(map(Path, controls)),
        unserved=None if unserved is None else Path(unserved),
        ask=ask,
        samples=samples,
        level=level,
        accounts=tuple(tenants),
        since=since,
        until=until,
        sample=sample,
        seed=seed,
        most=most,
        target_log10=target_log10,
        alpha=alpha,
        budgets=budgets or Budgets(),
        dtype=dtype,
        quotes=quotes,
        beside=None if watermark_trace is None else Path(watermark_trace),
    )
    job.check()
    if job.through_endpoint:
        record = twins_endpoint.trace_twins_endpoint(
            job,
            Path(output),
            api_key=given_api_key(api_key, api_key_header),
            client=client,
            progress=progress,
        )
    else:
        record = trace_twins_weights(job, Path(output))
    return _drawn(TwinResult(record, Path(output)))


def _spec(given: Spec) -> WatermarkSpec:
    return given if isinstance(given, WatermarkSpec) else load_spec(Path(given))


def _drawn(result: _R) -> _R:
    """Add the page to the folder of a report."""
    assert result.folder is not None
    drawn = page(story_of(result.record)).encode()
    add_drawings(result.folder, encode_record(result.record), {"report.html": drawn})
    return result
