"""Testing a suspect by twins where its weights are at hand: it reads both answers of every pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detect.records.made import Made
from detect.records.twins import TwinRecord
from detect.twins.lawful import law_of_job
from detect.twins.measures.logprobs import numbers
from detect.twins.measuring import covariates_of
from detect.twins.preparing import TwinsJob, prepare
from detect.twins.readings import Progress, Readings
from detect.twins.recording import evidence_of, write_report
from detect.twins.together import read_line


def trace_twins_weights(
    job: TwinsJob, output: Path, *, made: Made | None = None, progress: Progress | None = None
) -> TwinRecord:
    """Let a suspect read all pairs that are planned; write plan.json, twins.npz and report.json to ``output``.

    What models have read is kept there, and the same call goes on from it.

    Parameters
    ----------
    job
        What to do; its suspect is a folder.
    output
        Folder of the report.
    made
        Who makes it.
    progress
        Told how far models are.

    Raises
    ------
    DyetraceError
        What is asked for doesn't go together, a model can't be read, or the folder holds another test.
    """
    import torch  # noqa: F401  (first, as in `open_weights.trace_weights`)

    readings = Readings(output, job.dtype, progress, job.base)
    prepared = prepare(job, output, readings)
    plan, pairs = prepared.plan, prepared.pairs
    other = None if job.beside is None else read_line(job.beside, plan.suspect)
    covariates = covariates_of(pairs, job.owner, job.controls, readings)
    law = law_of_job(job, plan.choice.level, pairs, readings, suspect=Path(job.suspect))
    beside = None if job.reference is None else readings.read(job.reference, pairs)
    if law is not None and law.veto is not None:
        differences = np.zeros((0, len(plan.columns)))  # nobody is asked where no verdict can be given
    else:
        own = readings.read(Path(job.suspect), pairs)
        rows = [
            numbers(own.get(pair.id), None if beside is None else beside.get(pair.id), beside is not None)
            for pair in pairs
        ]
        differences = np.array(rows)
    evidence = evidence_of(plan, pairs, differences, covariates)
    return write_report(
        output,
        plan,
        pairs,
        evidence,
        [None] * len(evidence),
        law=law,
        first_query=None,
        queries=None,
        quotes=job.quotes,
        beside=other,
        made=made,
    )
