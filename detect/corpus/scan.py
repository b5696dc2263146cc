"""The scan from paths to report: plan, gather, settle, score, conclude, locate, write.

    paths -> sources -> shards -> blocks of fingerprints -> first places -> tallies, documents -> discoveries -> record

Every arrow but the last two is a stage of tasks that an engine runs and whose results stay in the work folder.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.corpus import conclude
from detect.corpus.chosen import check_named
from detect.corpus.engines import Engine
from detect.corpus.gather import Gathered, added
from detect.corpus.output import check_parquet, documents_table, hits_lines, skipped_lines
from detect.corpus.score import unscored
from detect.corpus.settings import ScanSettings, check_specs
from detect.corpus.settle import read_count
from detect.corpus.tally import Documents, Tally, joined, merge, read_documents, read_tally
from detect.corpus.tasks import Outcome, Stage, Task, first_records, gathered_shards, unwritten
from detect.corpus.unquoted import unread, without_fields, without_names, without_text
from detect.corpus.work import Plan, Shard, WorkFolder, discard, locked, new_file, shard_id, write_plan
from detect.folders.published import Unwritten, replace_report
from detect.keyed.calibration import explanation
from detect.keyed.rings import KeySet, key_set, rings_of
from detect.readers import ReadOptions, Source, find_sources, sha256_of, split
from detect.readers.batch import one_line
from detect.readers.fields import others_read
from detect.readers.turns import is_asked
from detect.records.detection import Input
from detect.records.how_to_check import in_words
from detect.records.made import Made, made_by, now
from detect.records.reading import encode_record
from detect.records.report import versions
from detect.records.scan import FileHash, Hit, ScannedInput, ScanRecord, Skipped, UnreadFile
from detect.records.seen import TurnCount
from detect.records.text_assumptions import of_scan
from detect.text.encode import EncoderUse
from detect.text.natural_text import PROSE_BYTES, PROSE_SHA256, natural_documents
from watermark.commitment import Commitment
from watermark.errors import DyetraceError, MachineError
from watermark.files.writing import make_folder, write_atomically
from watermark.formats.protocol import is_exact
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, check_tokenizer

Progress = Callable[[str, int, int], None]
"""Told the stage, what is done of it and what there is: bytes while hashing and gathering, tokens afterwards.

Stages are those of `detect.corpus.tasks`, for the control corpus and the reference "control: gather" and so on; "find",
which comes first, and "conclude", which comes last, can't be counted.
"""

SHARD_BYTES = 16 << 20
_BUCKET_TOKENS = 1 << 23
_FEWEST_BUCKETS, _MOST_BUCKETS = 32, 1 << 12
_LISTED = 20  # broken records of each input, and files that aren't read, that the record lists
_ROLES = 8  # named in a refusal
HITS = 100
"""Hits that the record holds; hits.jsonl has all."""

NATURAL = "natural"
"""The null corpus that comes with dyetrace."""
_NATURAL_NAME = "prose that comes with dyetrace: the documentation of Python 3.11.7"
_NATURAL_DOCUMENTS = 150
_NATURAL_FILE = "natural.jsonl"


@dataclass(frozen=True)
class ScanJob:
    """What is to be scanned, for what, and with whose help.

    Attributes
    ----------
    paths
        Files, folders and globs.
    specs
        One, or one for each epoch.
    key
        Where the key is (file:, env:, cmd:); a tenant's own key serves as well.
    settings
        What else changes the result.
    tokenizer
        Path of the spec's tokenizer; needed for text.
    commitment, opened
        To put on record; whether it was opened with this key (`watermark.commitment.verify`).
    reference
        Paths of text that is known to be marked, from which the strength of the mark is learnt.
    null_corpus
        Paths of text that is known not to be marked; `NATURAL`, or none.
    made
        Who makes the report; nothing but the record's own line depends on it.
    quotes
        Whether texts of the corpus, and what tells of them, may stand in the report (`detect.corpus.unquoted`).
    """

    paths: Sequence[str]
    specs: Sequence[WatermarkSpec]
    key: str = field(repr=False)
    settings: ScanSettings = field(default_factory=ScanSettings)
    tokenizer: str | None = None
    commitment: Commitment | None = None
    opened: bool = False
    reference: Sequence[str] = ()
    null_corpus: Sequence[str] = (NATURAL,)
    made: Made = field(default_factory=made_by)
    quotes: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """What was asked for, as the record holds it: enough to do the same again."""
        read, settings = self.settings.read, self.settings
        return {
            "paths": list(self.paths),
            "format": read.form,
            "field": list(read.fields),
            "id_field": read.id_field,
            "roles": list(read.roles),
            "leave_out": list(read.leave_out),
            "on_error": "skip" if read.skip_errors else "stop",
            "limit": settings.limit,
            "sample": settings.sample,
            "alpha": settings.alpha,
            "fdr": settings.rate,
            "decoys": settings.decoys,
            "decoy_seed": settings.decoy_seed,
            "tenants": list(settings.tenants),
            "reference": list(self.reference),
            "null_corpus": list(self.null_corpus) or ["none"],
        }


@dataclass(frozen=True, eq=False)
class _Corpus:
    """A corpus that was scored."""

    work: WorkFolder
    plan: Plan
    gathered: Sequence[Gathered]
    unreadable: list[tuple[str, str]]
    distinct: int
    tally: Tally
    parts: list[Documents]

    @property
    def documents(self) -> Documents:
        return joined(self.parts, self.tally.totals.shape[1])

    @property
    def inputs(self) -> list[Input]:
        """Its files."""
        return [
            Input(name=source.name, sha256=sha256, bytes=source.bytes)
            for source, sha256 in zip(self.plan.sources, self.plan.hashes, strict=True)
        ]

    def unquoted(self, given: Sequence[str]) -> _Corpus:
        """The same for a report that quotes nothing."""
        return replace(
            self,
            plan=without_names(self.plan, given),
            gathered=without_fields(self.gathered),
            unreadable=unread(self.unreadable, given),
        )


def scan(
    job: ScanJob,
    output: Path,
    engine: Engine,
    *,
    work: Path | None = None,
    keep_work: bool = False,
    progress: Progress | None = None,
) -> ScanRecord:
    """Scan a corpus and write report.json with the files that belong to it; resume where an earlier run ended.

    Parameters
    ----------
    job
        What to scan.
    output
        Folder of the report.
    engine
        Runs the tasks.
    work
        Folder in which that of intermediate results lies, on a disk that all workers share; ``output`` by default.
    keep_work
        Leave it there: another scan with other keys is then quick.
    progress
        Called now and then.

    Raises
    ------
    DyetraceError
        Bad input, or a report that can't be written (`folders.published.Unwritten` holds it). Finished work
        stays, and the same command goes on from there.
    """
    check_parquet()
    check_specs(list(job.specs))
    rings = rings_of(job.key, job.specs, job.settings.tenants, global_key=job.settings.global_key)
    keys = key_set(job.specs, rings)
    if job.tokenizer is not None:
        tokenizer = load_tokenizer(job.tokenizer)
        check_tokenizer(job.specs[0], tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    if job.commitment is not None and job.commitment.spec_id not in {spec.spec_id for spec in job.specs}:
        raise DyetraceError(f"the commitment is of spec {job.commitment.spec_id}, which is not among the specs given")
    if job.commitment is not None and job.commitment.key_fingerprint != keys.fingerprint:
        raise DyetraceError(
            f"the commitment is of key {job.commitment.key_fingerprint}, but this key is {keys.fingerprint}; "
            "give the commitment of this key"
        )
    make_folder(output)
    try:
        with locked(work or output) as folder:
            try:
                record = _scan(job, keys, output, folder, engine, progress or _silent)
            except OSError as error:
                raise MachineError(unwritten(folder.path, error)) from None
            if not keep_work:
                discard(folder)
    finally:
        engine.close()
    return record


def _silent(_stage: str, _done: int, _all: int) -> None:
    pass


def _of(corpus: str, progress: Progress) -> Progress:
    """The stages of a corpus that is scored beside."""
    return lambda stage, done, total: progress(f"{corpus}: {stage}", done, total)


def _scan(
    job: ScanJob, keys: KeySet, output: Path, folder: WorkFolder, engine: Engine, progress: Progress
) -> ScanRecord:
    null = _null_corpus(job, keys, folder, engine, _of("control", progress))
    reference = None
    if job.reference:
        beside = WorkFolder(folder.path / "reference")
        reference = _score(_beside(job), keys, job.reference, beside, engine, _of("reference", progress))
    corpus = _score(job, keys, job.paths, folder, engine, progress)
    progress("conclude", 0, 0)
    documents = corpus.documents
    found = conclude.discover(documents, job.settings.rate)
    tested = documents.tuples > 0
    pairs = max(1, int(tested.sum())) * len(keys.keys)
    hits = _locate(job, corpus, documents, found, pairs, engine, progress)
    progress("conclude", 0, 0)
    pointed: dict[str, int] = {}
    for hit in hits:
        for name in hit.points_to:
            pointed[name] = pointed.get(name, 0) + 1
    if not job.quotes:
        corpus, hits = corpus.unquoted(job.paths), without_text(hits)
    files = {
        "documents.parquet": documents_table(corpus.work, corpus.plan, keys, documents, found, ids=job.quotes),
        "hits.jsonl": hits_lines(hits),
        "skipped.jsonl": skipped_lines(corpus.plan, corpus.gathered, corpus.unreadable),
    }
    hypotheses = conclude.hypotheses(keys, corpus.tally, pointed)
    controls = conclude.controls(keys, corpus.tally, documents, null, job.settings)
    refused = conclude.refusal(keys, int(tested.sum()), controls)
    log10_p = None if refused else min(h.log10_pvalue_adjusted for h in hypotheses)
    record = ScanRecord(
        arguments=job.arguments,
        versions=versions(),
        specs=[msgspec.json.decode(spec.canonical_json, type=WatermarkSpec) for spec in job.specs],
        spec_ids=[spec.spec_id for spec in job.specs],
        key_fingerprint=keys.fingerprint,
        commitment=job.commitment,
        alpha=job.settings.alpha,
        encoder=_encoder_note(corpus.gathered),
        inputs=_inputs(corpus),
        files=[FileHash.of(name, data) for name, data in files.items()],
        documents=len(documents),
        tokens=int(documents.tokens.sum()),
        tuples=sum(block.tuples for shard in corpus.gathered for block in shard.blocks),
        distinct_tuples=corpus.distinct,
        hypotheses=hypotheses,
        log10_pvalue=log10_p,
        refused=refused,
        found=log10_p is not None and log10_p <= math.log10(job.settings.alpha),
        discoveries=conclude.discoveries(documents, found, job.settings.rate),
        shares=conclude.shares(keys, corpus.tally, documents, None if reference is None else reference.documents),
        histogram=conclude.histogram(documents.log10_pvalue[tested]),
        controls=controls,
        calibration=explanation(job.specs[0].build_scheme(), by_rank=True),
        hits=sorted(hits, key=lambda hit: (hit.log10_pvalue, hit.ordinal))[:HITS],
        pairs_paid=pairs,
        created=now(),
        made=job.made,
        quotes=job.quotes,
        reference_inputs=[] if reference is None else reference.inputs,
        unread=len(corpus.unreadable),
        unread_first=[UnreadFile(name=name, reason=reason) for name, reason in corpus.unreadable[:_LISTED]],
    )
    record = msgspec.structs.replace(
        record,
        assumptions=of_scan(record, len(corpus.unreadable), job.opened),
        how_to_check=in_words(record),
    )
    try:
        replace_report(output, {**files, "report.json": encode_record(record)})
    except DyetraceError as error:
        raise Unwritten(record, str(error)) from None
    return record


def _score(
    job: ScanJob, keys: KeySet, paths: Sequence[str], work: WorkFolder, engine: Engine, progress: Progress
) -> _Corpus:
    """Hash, gather, settle and score a corpus."""
    work.path.mkdir(mode=0o700, exist_ok=True)
    plan, unreadable = _plan(job, keys, paths, work, engine, progress)
    tasks = [Task("gather", str(work.path), index) for index in range(len(plan.shards))]
    parts = Counter(shard.source for shard in plan.shards)
    sizes = [max(1, plan.sources[shard.source].bytes // parts[shard.source]) for shard in plan.shards]
    _run(engine, tasks, "gather", sizes, progress)
    gathered = gathered_shards(work, plan)
    _refuse_silent_chats(plan, gathered)
    if not any(block.tokens for shard in gathered for block in shard.blocks):
        raise DyetraceError(f"nothing to scan: {', '.join(paths)} hold no text (see what was skipped, and --field)")
    tuples = sum(block.candidates for shard in gathered for block in shard.blocks)
    tasks = [Task("settle", str(work.path), bucket) for bucket in range(plan.buckets)]
    _run(engine, tasks, "settle", [-(-tuples // plan.buckets)] * plan.buckets, progress)
    distinct = sum(read_count(work.settled(plan, bucket)) for bucket in range(plan.buckets))
    with new_file(work.distinct(plan)) as path:
        path.write_bytes(msgspec.json.encode(distinct))
    tasks = [Task("score", str(work.path), index, job.key) for index in range(len(plan.shards))]
    sizes = [max(1, sum(block.tokens for block in shard.blocks)) for shard in gathered]
    _run(engine, tasks, "score", sizes, progress)
    results = [work.scored(plan, index) for index in range(len(plan.shards))]
    tally = merge(map(read_tally, results), unscored(keys, plan.settings))
    return _Corpus(work, plan, gathered, unreadable, distinct, tally, [read_documents(path) for path in results])


def _refuse_silent_chats(plan: Plan, gathered: Sequence[Gathered]) -> None:
    """Refuse a file of chats of which no turn is read: the names of its roles are others than was thought.

    With ``skip_errors`` such a file is left as it is, and the report says whose turns were not read. Chats of none
    but those who ask are what was asked, where other fields of the same file are read as well.
    """
    parts: list[list[TurnCount]] = [[] for _ in plan.sources]
    for shard, done in zip(plan.shards, gathered, strict=True):
        parts[shard.source] += done.turns
    for source, counts in zip(plan.sources, parts, strict=True):
        if (
            source.kind == "messages"
            and counts
            and not any(one.read for one in counts)
            and not plan.settings.read.skip_errors
            and not (others_read(source) and all(is_asked(one.role) for one in counts))
        ):
            parts_there = sorted(added(counts), key=lambda one: (-one.count, one.role, one.part))
            there = ", ".join(f"{one.role!r} ({one.part}: {one.count:,})" for one in parts_there[:_ROLES])
            more = f" and {len(parts_there) - _ROLES} more" if len(parts_there) > _ROLES else ""
            raise DyetraceError(
                f"{one_line(source.name)}: no turn of its chats ({one_line(source.column)!r}) is read; its roles are "
                f"{one_line(there)}{more}: name whose are to be read with --role, or another field with --field"
            )


def _run(engine: Engine, tasks: Sequence[Task], stage: Stage, sizes: Sequence[int], progress: Progress) -> list[str]:
    """Run a stage; the values of its outcomes, by task."""
    total, done = sum(sizes), 0
    values = [""] * len(tasks)
    place = {task: number for number, task in enumerate(tasks)}
    progress(stage, 0, total)
    outcomes: Iterable[Outcome] = engine.run(tasks)
    for outcome in outcomes:
        number = place[outcome.task]
        values[number] = outcome.value
        done += sizes[number]
        progress(stage, done, total)
    return values


def _plan(
    job: ScanJob, keys: KeySet, paths: Sequence[str], work: WorkFolder, engine: Engine, progress: Progress
) -> tuple[Plan, list[tuple[str, str]]]:
    progress("find", 0, 0)
    sources, unreadable = find_sources(paths, job.settings.read)
    check_named(sources, job.settings.read)
    if not any(source.bytes for source in sources):
        raise DyetraceError(f"nothing to scan: {', '.join(paths)}: every file is empty or can't be read")
    if job.tokenizer is None and (text := next((s for s in sources if s.bytes and s.kind != "tokens"), None)):
        raise DyetraceError(f"{text.name} holds text, which needs the spec's tokenizer: add --tokenizer")
    plan = Plan(
        settings=job.settings,
        specs=list(job.specs),
        sources=sources,
        hashes=[],
        shards=[],
        buckets=_buckets(sources),
        tokenizer=job.tokenizer,
        key_names=[str(key.name) for key in keys.keys],
    )
    write_plan(work, plan)
    hashes = _hashes(work, plan, engine, progress)
    shards = [
        Shard(shard_id(sha256, piece, source, job.settings, job.specs[0], plan.buckets), number, piece)
        for number, (source, sha256) in enumerate(zip(sources, hashes, strict=True))
        for piece in split(source, source.bytes + 1 if job.settings.limit else SHARD_BYTES)
    ]
    plan = msgspec.structs.replace(plan, hashes=hashes, shards=shards)
    write_plan(work, plan)
    return plan, unreadable


def _buckets(sources: Sequence[Source]) -> int:
    """Parts to cut the tuples into, from a generous guess at their number: too many cost little, too few memory."""
    tokens = sum(s.bytes // 4 if s.form in ("jsonl", "text") and not s.compression else s.bytes for s in sources)
    wanted = 1 << max(0, (tokens // _BUCKET_TOKENS).bit_length())
    return min(max(wanted, _FEWEST_BUCKETS), _MOST_BUCKETS)


def _hashes(work: WorkFolder, plan: Plan, engine: Engine, progress: Progress) -> list[str]:
    """SHA-256 of every input; those of files that are as they were are remembered."""
    known: dict[str, str] = msgspec.json.decode(work.hashes.read_bytes()) if work.hashes.exists() else {}
    names = [f"{s.bytes}:{s.mtime_ns}:{s.path}" for s in plan.sources]
    tasks = [Task("hash", str(work.path), names.index(name)) for name in dict.fromkeys(names) if name not in known]
    if len(tasks) == 1:  # not worth a worker
        progress("hash", 0, plan.sources[tasks[0].number].bytes)
        values = [sha256_of(plan.sources[tasks[0].number])]
    else:
        values = _run(engine, tasks, "hash", [max(1, plan.sources[t.number].bytes) for t in tasks], progress)
    known |= {names[task.number]: value for task, value in zip(tasks, values, strict=True)}  # of fields of a file once
    write_atomically(work.hashes, msgspec.json.encode(known), 0o600)
    return [known[name] for name in names]


def _beside(job: ScanJob) -> ScanJob:
    """The same keys for another corpus, whose files need not look like the suspect's."""
    # Where p-values are ranks among decoys, there must be some.
    decoys = 0 if is_exact(job.specs[0].build_scheme()) else job.settings.decoys
    settings = msgspec.structs.replace(job.settings, read=ReadOptions(), decoys=decoys, sample=1.0, limit=None)
    return replace(job, settings=settings)


def _null_corpus(
    job: ScanJob, keys: KeySet, folder: WorkFolder, engine: Engine, progress: Progress
) -> conclude.NullCorpus | None:
    """Test a corpus that nobody marked with the true keys."""
    if not job.null_corpus or (job.tokenizer is None and NATURAL in job.null_corpus):
        return None
    work = WorkFolder(folder.path / "null")
    work.path.mkdir(mode=0o700, exist_ok=True)
    paths, name = list(job.null_corpus), ", ".join(job.null_corpus)
    if NATURAL in paths:
        natural = work.path / _NATURAL_FILE
        lines = [msgspec.json.encode({"text": text}) for _, text in natural_documents("prose", _NATURAL_DOCUMENTS)]
        whole = b"\n".join(lines) + b"\n"
        if not natural.exists() or natural.read_bytes() != whole:  # an older release may have left another text
            write_atomically(natural, whole, 0o600)
        paths[paths.index(NATURAL)] = str(natural)
        name = name.replace(NATURAL, _NATURAL_NAME)
    corpus = _score(_beside(job), keys, paths, work, engine, progress)
    log10_p = min(h.log10_pvalue_adjusted for h in conclude.hypotheses(keys, corpus.tally, {}))
    shipped = Input(name="detect/texts/prose.jsonl", sha256=PROSE_SHA256, bytes=PROSE_BYTES)
    inputs = [shipped if source.name == str(work.path / _NATURAL_FILE) else source for source in corpus.inputs]
    return conclude.NullCorpus(name, log10_p, corpus.documents, inputs)


def _locate(
    job: ScanJob,
    corpus: _Corpus,
    documents: Documents,
    found: conclude.Found,
    pairs: int,
    engine: Engine,
    progress: Progress,
) -> list[Hit]:
    """Describe all discovered documents, in the corpus's order."""
    sizes = [len(part) for part in corpus.parts]
    shard = np.repeat(np.arange(len(sizes)), sizes)
    number = np.arange(len(documents)) - np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    rows = np.flatnonzero(found.discovered)
    with new_file(corpus.work.adjusted(corpus.plan)) as path, path.open("wb") as file:
        np.savez(
            file,
            shard=shard[rows],
            document=number[rows],
            ordinal=rows,
            log10_pvalue=documents.log10_pvalue[rows],
            log10_adjusted=found.log10_adjusted[rows],
            log10_evalue=documents.log10_evalue[rows],
            pairs=np.array(pairs),
        )
    indices = np.unique(shard[rows]).tolist()
    tasks = [Task("locate", str(corpus.work.path), index, job.key) for index in indices]
    _run(engine, tasks, "locate", [1] * len(tasks), progress)
    results = [corpus.work.located(corpus.plan, index) for index in indices]
    return [hit for path in results for hit in msgspec.json.decode(path.read_bytes(), type=list[Hit])]


def _encoder_note(gathered: Sequence[Gathered]) -> str:
    """What encoded the texts; token ids need no encoder."""
    uses: dict[tuple[str, str], EncoderUse] = {}
    for use in (shard.encoder for shard in gathered if shard.encoder is not None):
        kind = (use.backend, use.reason)
        uses[kind] = uses[kind].plus(use) if kind in uses else use
    return "; ".join(uses[kind].note for kind in sorted(uses)) or "token ids were taken as they stand"


def _inputs(corpus: _Corpus) -> list[ScannedInput]:
    plan = corpus.plan
    rows = []
    parts: list[list[tuple[int, Gathered]]] = [[] for _ in plan.sources]
    for shard, first, done in zip(plan.shards, first_records(plan, corpus.gathered), corpus.gathered, strict=True):
        parts[shard.source].append((first, done))
    for mine, source, sha256 in zip(parts, plan.sources, plan.hashes, strict=True):
        skipped = [
            Skipped(record=first + record + 1, reason=reason) for first, done in mine for record, reason in done.skipped
        ]
        blocks = [block for _, done in mine for block in done.blocks]
        rows.append(
            ScannedInput(
                name=source.name,
                sha256=sha256,
                bytes=source.bytes,
                form=source.form + (f" ({source.compression})" if source.compression else ""),
                column=source.column,
                kind=source.kind,
                records=sum(done.seen for _, done in mine),
                documents=sum(block.documents for block in blocks),
                tokens=sum(block.tokens for block in blocks),
                skipped=len(skipped),
                skipped_first=skipped[:_LISTED],
                columns=list(source.columns),
                turns=added(one for _, done in mine for one in done.turns),
            )
        )
    return rows
