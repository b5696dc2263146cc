"""`dyetrace trace weights`: a suspect whose weights are at hand."""

from __future__ import annotations

from detect.cli.models import model_folder
from detect.cli.options.trace import TraceWeights
from detect.cli.publishing import check_place, goes_on, made_and_published
from detect.cli.reading import accounts_of, read_commitment, tested_ring
from detect.cli.trace.belonging import refuse_of_races
from detect.cli.trace.race import race_weights
from detect.cli.trace.shared import check_models, check_served
from detect.cli.unused import refuse_seed_of_no_decoys
from detect.cli.working import doing, is_watched, note
from detect.folders.published import TRACE_FORMAT
from detect.records.made import made_by
from detect.student.open_weights import Placebo, WeightsJob, trace_weights
from detect.student.verdict.evidence import TraceSettings
from detect.text.artefacts import check_text
from watermark.errors import DyetraceError
from watermark.keys import load_master
from watermark.placebo import placebo as placebo_of
from watermark.spec import load_spec


def weights(asked: TraceWeights) -> None:
    """Trace it and write the report."""
    if asked.owner_model is not None:
        race_weights(asked, asked.owner_model)
        return
    refuse_of_races(asked, "and no --owner-model is given", "texts", "dtype", "tenant", "taken", "complete")
    maker = made_by(asked.examiner, asked.case)
    refuse_seed_of_no_decoys(asked.decoys)
    made = load_spec(asked.spec_path)
    commitment = read_commitment(asked.commitment_path)
    if asked.taken == "filtered":
        raise DyetraceError(
            "answers that were chosen by what they say, their length or whether they ended can't be read: the key "
            "decided all of that, and an innocent model would look guilty; read all that were served, or a random part "
            "of them"
        )
    accounts = accounts_of(asked)
    ring = tested_ring(asked, made, counted=asked.served is not None)
    check_served(asked.served, asked.served_tenant)
    for text in asked.texts:
        check_text(text, "--read")
    if asked.placebo_answers is not None:
        check_text(asked.placebo_answers, "--placebo")
    models = [asked.student, *asked.references, *asked.controls]
    check_models((*models, *(student for student, _ in asked.calibration)), asked.base)
    placebo = None
    if asked.placebo_answers is not None:
        placebo = Placebo(asked.placebo_answers, *placebo_of(made, load_master(asked.key), accounts))
    job = WeightsJob(
        **asked.of(WeightsJob),
        placebo=placebo,
        settings=TraceSettings(
            asked.alpha, "two-sided" if asked.two_sided else "upper", asked.decoys, asked.decoy_seed
        ),
    )
    inputs = [*asked.texts, asked.served, asked.complete, asked.placebo_answers, *models, asked.base]
    check_place(asked, TRACE_FORMAT, inputs)
    note("the report will quote no text; evidence.npz will hold, as token ids, the contexts of the texts that are read")
    goes_on(f"what the models have read is kept in {asked.output}")
    made_and_published(
        asked,
        lambda: trace_weights(
            job,
            made,
            ring,
            asked.tokenizer or model_folder(None),
            asked.output,
            commitment=commitment,
            made=maker,
            progress=_show_reading,
        ),
    )


def _show_reading(what: str, done: int, total: int) -> None:
    """How far a model is with a text; a line when it is done, for logs."""
    doing(what, done, total, "positions" if total else "")
    if done == total and total and not is_watched():
        note(f"{what}: {total:,} positions")
