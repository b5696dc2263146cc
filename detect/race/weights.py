"""A race readout of a suspect whose weights are at hand: it reads every served answer as the owner's model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detect.models.bench import Bench, Progress, check_beside
from detect.models.forward import Predictions
from detect.race.chances import Chances
from detect.race.evidence import I32, NOT_SAID, RaceEvidence
from detect.race.job import RaceJob
from detect.race.recording import write_report
from detect.race.served import ServedReading, bench_of, check_readable, owner_seen, served_reading
from detect.records.made import Made
from detect.records.race import RaceRecord
from detect.records.trace import ModelSeen
from watermark.errors import DyetraceError
from watermark.files.writing import make_folder
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec

F64 = npt.NDArray[np.float64]


def trace_race_weights(
    job: RaceJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    output: Path,
    *,
    made: Made | None = None,
    progress: Progress | None = None,
) -> RaceRecord:
    """Let a suspect read served answers; write race.npz and report.json to ``output``.

    What the owner's model and the suspect make of the answers is kept in the user's cache, for any later command.

    Parameters
    ----------
    job
        What to do; its suspect is a folder.
    spec, ring
        The watermark and the keys to test.
    tokenizer
        The spec's.
    output
        Folder of the report.
    made
        Who makes it.
    progress
        Told what is being done, places done and in all; 0 of 0 where it can't be counted.

    Raises
    ------
    DyetraceError
        What is asked for doesn't go together; key, tokenizer or owner's model are not the spec's; the suspect is the
        owner's model; answers or a model can't be read.
    """
    # Before any compiled loop starts threads: a torch that is loaded after them attends ten times as slowly.
    import torch  # noqa: F401

    job.check()
    check_readable(spec, ring, tokenizer, job)
    if job.through_endpoint:
        raise DyetraceError(f"{job.suspect} is an endpoint, which is asked by a plan: `dyetrace trace plan`")
    bench = bench_of(job, spec, tokenizer, progress)
    folder = Path(job.suspect)
    owner, suspect = owner_seen(job, bench), bench.seen(folder)
    check_other(suspect, owner)
    reference = reference_seen(job, bench, suspect)
    make_folder(output)
    served = served_reading(job, spec, ring, bench)
    heard = bench.predictions(folder, served.text, served.where)
    base = None if job.reference is None else bench.predictions(job.reference, served.text, served.where)
    bench.begin("computing evidence under all keys and decoys")
    evidence = evidence_of(served, heard, spec.vocabulary_size, base)
    return write_report(
        output,
        evidence,
        spec,
        ring,
        tokenizer,
        job=job,
        mode="weights",
        served=served,
        cuts=len(evidence),
        suspect=suspect,
        owner=owner,
        reference=reference,
        sampling=served.sampling,
        made=made,
    )


def check_other(suspect: ModelSeen, owner: ModelSeen) -> None:
    """Raise DyetraceError where the suspect is the owner's model, by its hash."""
    if suspect.sha256 == owner.sha256:
        raise DyetraceError(
            f"the suspect {suspect.name} and the owner's model {owner.name} are the same model: it never learnt from "
            "its own answers, and there is nothing to find; give the folder of the model under suspicion"
        )


def reference_seen(job: RaceJob, bench: Bench, suspect: ModelSeen | None) -> ModelSeen | None:
    """What the record says of the reference; None where there is none.

    Raises
    ------
    DyetraceError
        It can't be read, or is the suspect (None: an endpoint, of which nobody knows).
    """
    if job.reference is None:
        return None
    found = bench.seen(job.reference)
    if suspect is not None:
        check_beside(suspect, found)
    return found


def evidence_of(
    served: ServedReading, heard: Predictions, vocabulary: int, base: Predictions | None = None
) -> RaceEvidence:
    """What a suspect predicts at each place that a key at hand marks.

    A place where it couldn't be asked is kept and is silent: whether it can be is decided by the text before it.

    Parameters
    ----------
    served
        The answers, with the owner's chances.
    heard
        The suspect's predictions at all fresh places.
    vocabulary
        The spec's vocabulary size.
    base
        The reference's predictions there; None where there is no reference.
    """
    rows = np.flatnonzero(served.held)
    mine = Predictions(heard.ids[rows], heard.probabilities[rows])
    chances = served.chances.take(rows)
    return served.evidence(
        "weights",
        rows,
        chances,
        _said(mine, chances),
        shares_at(mine, chances, vocabulary),
        served.where.document[rows] + 1,
        None if base is None else base_at(base, rows, chances, vocabulary),
    )


def base_at(base: Predictions, rows: npt.NDArray[np.int64], chances: Chances, vocabulary: int) -> F64:
    """A reference's probabilities of the candidates at some of its places, as `RaceEvidence.base` has them, (n, k)."""
    return shares_at(Predictions(base.ids[rows], base.probabilities[rows]), chances, vocabulary)


def _said(heard: Predictions, chances: Chances) -> I32:
    """The column of the suspect's likeliest token, (n,)."""
    there = (chances.tokens == heard.ids[:, :1]) & (chances.tokens >= 0)
    return np.where(heard.known & there.any(axis=1), there.argmax(axis=1), NOT_SAID).astype(np.int32)


def shares_at(heard: Predictions, chances: Chances, vocabulary: int) -> F64:
    """A model's probabilities of the candidates, (n, k); NaN in rows where it couldn't be asked."""
    found = heard.at(chances.tokens.astype(np.int64), vocabulary)
    found /= np.maximum(1.0, found.sum(axis=1, keepdims=True))  # sums of float32 may come out a little above 1
    found[~heard.known] = np.nan
    return found
