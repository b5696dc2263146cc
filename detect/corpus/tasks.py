"""The tasks that a scan consists of, each a pure function of files in the work folder: what every engine runs.

A task says where the work folder is and which part of it to do. It finds its result there or makes it; the value that
it returns is for progress alone. Keys travel as sources (file:, env:, cmd:), never as keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from detect.corpus.gather import Gathered, gather_shard, in_reading_order, read_block, read_gathered
from detect.corpus.locate import Discovery, locate_documents
from detect.corpus.score import score_block, unscored
from detect.corpus.settle import read_count, read_kept, settle_bucket
from detect.corpus.tally import joined, merge, write_scores
from detect.corpus.work import Plan, WorkFolder, new_file, read_plan
from detect.keyed.rings import KeySet, load_key_set
from detect.readers import sha256_of
from detect.text.encode import Encoder
from watermark.errors import MachineError

_WORTH_FAST = 1 << 20  # bytes of text

Stage = Literal["hash", "gather", "settle", "score", "locate"]


class Task(NamedTuple):
    """One unit of work.

    Attributes
    ----------
    stage
        "hash" (an input), "gather" (a shard), "settle" (a bucket), "score" or "locate" (a shard).
    work
        The work folder.
    number
        Number of the input, shard or bucket.
    key
        Where the key is, for the stages that need it.
    """

    stage: Stage
    work: str
    number: int
    key: str | None = None


class Outcome(NamedTuple):
    """What a task did: its task, tokens (or bytes, tuples) that it took care of, and a result for the stage "hash"."""

    task: Task
    amount: int
    value: str = ""


def run(task: Task) -> Outcome:
    """Do a task, or find it done.

    Raises
    ------
    DyetraceError
        The task's input is bad, or the disk of the work folder gives out.
    """
    try:
        return _run(task)
    except OSError as error:
        raise MachineError(unwritten(Path(task.work), error)) from None


def unwritten(work: Path, error: OSError) -> str:
    """What to say where the machine refused to write or read intermediate results."""
    what = "" if error.filename is None or str(error.filename).startswith(str(work)) else f" ({error.filename})"
    reason = error.strerror or f"a file there was not written whole ({error}), as where the disk is full"
    return (
        f"cannot use work folder {work}: {reason}{what}; what is finished is kept: the same command "
        "goes on from there, or begins anew with --work on another disk"
    )


def _run(task: Task) -> Outcome:
    work = WorkFolder(Path(task.work))
    plan = read_plan(work)
    if task.stage == "hash":
        source = plan.sources[task.number]
        return Outcome(task, source.bytes, sha256_of(source))
    if task.stage == "gather":
        return Outcome(task, _gather(work, plan, task.number))
    if task.stage == "settle":
        return Outcome(task, _settle(work, plan, task.number))
    assert task.key is not None
    specs = tuple(spec.canonical_json for spec in plan.specs)
    keys = load_key_set(task.key, specs, plan.settings.tenants, plan.settings.global_key)
    step = _score if task.stage == "score" else _locate
    return Outcome(task, step(work, plan, task.number, keys))


def _gather(work: WorkFolder, plan: Plan, index: int) -> int:
    shard = plan.shards[index]
    folder = work.gathered(shard)
    if folder.exists():
        done = read_gathered(folder)
    else:
        spec, source = plan.specs[0], plan.sources[shard.source]
        needed = plan.tokenizer is not None and source.kind != "tokens"
        # Loading the fast encoder takes half a second, and then once for all shards of a worker.
        encoder = _encoder(str(plan.tokenizer), source.bytes > _WORTH_FAST).renewed() if needed else None
        done = gather_shard(source, shard, plan.settings, spec, plan.buckets, encoder, folder)
    return sum(block.tokens for block in done.blocks)


@lru_cache(maxsize=2)
def _encoder(tokenizer: str, fast: bool) -> Encoder:
    return Encoder.load(tokenizer, fast=fast or None)


def _settle(work: WorkFolder, plan: Plan, bucket: int) -> int:
    result = work.settled(plan, bucket)
    if result.exists():
        return read_count(result)
    blocks = [(work.gathered(plan.shards[shard]), number) for shard, number, _ in numbered_blocks(work, plan)]
    return settle_bucket(blocks, bucket, plan.buckets, result)


def _score(work: WorkFolder, plan: Plan, index: int, keys: KeySet) -> int:
    shard = plan.shards[index]
    result = work.scored(plan, index)
    gathered = read_gathered(work.gathered(shard))
    if not result.exists():
        distinct = int(msgspec.json.decode(work.distinct(plan).read_bytes()))
        buckets = [work.settled(plan, bucket) for bucket in range(plan.buckets)]
        every = numbered_blocks(work, plan)
        scores = []
        for corpus_number, (owner, number, _) in enumerate(every):
            if owner != index:
                continue
            block = read_block(work.gathered(shard), number)
            kept = read_kept(buckets, corpus_number, len(every), block.starts)
            first, prints = in_reading_order(block, plan.specs[0].context_width, kept)
            scores.append(score_block(block, first, prints, distinct, keys, plan.settings))
        tally = merge((tally for tally, _ in scores), unscored(keys, plan.settings))
        write_scores(result, tally, joined([documents for _, documents in scores], keys.subkeys))
    return sum(block.tokens for block in gathered.blocks)


def _locate(work: WorkFolder, plan: Plan, index: int, keys: KeySet) -> int:
    result = work.located(plan, index)
    found = read_discoveries(work, plan, index)
    if not result.exists():
        blocks = [(owner, number) for owner, number, _ in numbered_blocks(work, plan)]
        before = first_records(plan, gathered_shards(work, plan))[index]
        pairs = read_pairs(work, plan)
        hits = locate_documents(work, plan, index, blocks, before, keys, found, _tokenizer(plan), pairs)
        with new_file(result) as path:
            path.write_bytes(msgspec.json.encode(hits))
    return len(found)


def read_discoveries(work: WorkFolder, plan: Plan, shard: int) -> list[Discovery]:
    """The discovered documents of one shard."""
    with np.load(work.adjusted(plan)) as arrays:
        mine = arrays["shard"] == shard
        columns = [arrays[f.name][mine].tolist() for f in fields(Discovery)]
    return [Discovery(*row) for row in zip(*columns, strict=True)]


def read_pairs(work: WorkFolder, plan: Plan) -> int:
    """Pairs of a tested document and a key in the whole corpus."""
    with np.load(work.adjusted(plan)) as arrays:
        return int(arrays["pairs"])


def first_records(plan: Plan, gathered: Sequence[Gathered]) -> list[int]:
    """How many records of its input stand before each shard."""
    before: dict[int, int] = {}
    found = []
    for shard, done in zip(plan.shards, gathered, strict=True):
        found.append(before.get(shard.source, 0))
        before[shard.source] = found[-1] + done.seen
    return found


def _tokenizer(plan: Plan) -> Encoder | None:
    return None if plan.tokenizer is None else _encoder(plan.tokenizer, False)


def numbered_blocks(work: WorkFolder, plan: Plan) -> list[tuple[int, int, int]]:
    """All blocks in the corpus's order: shard, number in the shard, documents. Only once everything is gathered."""
    return [
        (index, number, block.documents)
        for index, done in enumerate(gathered_shards(work, plan))
        for number, block in enumerate(done.blocks)
    ]


def gathered_shards(work: WorkFolder, plan: Plan) -> tuple[Gathered, ...]:
    """What each shard gave; read once per process. Only once everything is gathered."""
    return _gathered_shards(work.path, plan)


@lru_cache(maxsize=1)
def _gathered_shards(path: Path, plan: Plan) -> tuple[Gathered, ...]:
    return tuple(read_gathered(WorkFolder(path).gathered(shard)) for shard in plan.shards)
