"""Tracing a suspect whose weights are at hand: texts in, evidence and record out.

The way of the data: texts -> positions that count (`reading`) -> predictions of suspect and references, kept on disk
(`forward`) -> weights (`weights`) -> evidence -> conclusions (`conclude`) -> record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detect.folders.own import claim
from detect.keyed.owners import tested_keys
from detect.models.bench import Bench, Progress, check_beside
from detect.models.forward import F64, I64, Predictions, candidates
from detect.models.reading import (
    Positions,
    ReadingText,
    context_at,
    contexts_of,
    positions,
    read_text,
)
from detect.records.made import Made
from detect.records.trace import (
    Control,
    DosePoint,
    ModelSeen,
    Reading,
    ReadoutResult,
    Reference,
    TraceRecord,
    TrainingShare,
)
from detect.student.texts.complete import check_complete, serving_order
from detect.student.texts.marked import check_unmarked, marked_log10, not_carried
from detect.student.texts.served import ServedContexts, open_served
from detect.student.verdict.conclude import check_basis, compared, first_test, tails
from detect.student.verdict.evidence import Basis, Evidence, TraceSettings
from detect.student.verdict.hypothesis import Sided, key_test
from detect.student.verdict.recording import check_traceable, write_report
from detect.student.verdict.share import effect_of, estimated, not_identified
from detect.student.verdict.weights import (
    READOUTS,
    Readout,
    Served,
    WeightedTuples,
    gathered,
    gathered_served,
    growing_shares,
    joined,
    mixture_shares,
    readout,
)
from detect.text.encode import Encoder
from watermark.commitment import Commitment
from watermark.errors import DyetraceError
from watermark.files.writing import make_folder
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec

WORK = ".dyetrace-trace"
"""Name of the folder, in that of the report, with what the models have read; the same trace goes on from there."""

_MARKED = b"What models have read for `dyetrace trace weights`, which goes on from here; it may be removed.\n"


@dataclass(frozen=True)
class Placebo:
    """Answers that were never served to anybody, and the watermark that they carry (`watermark.placebo`)."""

    source: str
    spec: WatermarkSpec
    ring: KeyRing


@dataclass(frozen=True)
class WeightsJob:
    """What to trace.

    Attributes
    ----------
    student
        The suspect's folder.
    texts
        Files to read.
    references, controls
        Folders of reference models, and of models that are known not to have seen the mark.
    calibration
        Folders of calibration students with their marked shares.
    base
        The base model of adapters among all of these; None takes the folders that they name themselves.
    served
        File of served answers, or a ledger of their contexts: of unmarked texts only contexts that stand there are
        read, under the sub-keys that they were served with, weighed by count; None weighs all contexts alike.
    served_tenant
        Count only the answers served to this account.
    tenant
        Read only this account's records.
    taken
        How the marked answers were taken from all that were served, as the analyst says: "all" or "random".
    complete
        A server's ledger or list of hashes that they must be all of.
    placebo
        Answers under the placebo key, with its spec and ring: the same trace must find nothing in them.
    contexts
        Most contexts to read in each text.
    readout
        None chooses ``reference`` where there is one, else ``entropy``.
    dtype, device
        Number format of the models, and where they run (`watermark.models.folder`).
    settings
        Level and controls.
    """

    student: Path
    texts: Sequence[str]
    references: Sequence[Path] = ()
    controls: Sequence[Path] = ()
    calibration: Sequence[tuple[Path, float]] = ()
    base: Path | None = None
    served: str | None = None
    served_tenant: str | None = None
    tenant: str | None = None
    taken: Literal["all", "random"] | None = None
    complete: Path | None = None
    placebo: Placebo | None = None
    contexts: int = 50_000
    readout: Readout | None = None
    dtype: str = "bfloat16"
    device: str = "auto"
    settings: TraceSettings = field(default_factory=TraceSettings)

    @property
    def arguments(self) -> dict[str, Any]:
        """What was asked for, as the record holds it: enough to do the same again."""
        return {
            "student": str(self.student),
            "texts": [str(text) for text in self.texts],
            "references": [str(folder) for folder in self.references],
            "controls": [str(folder) for folder in self.controls],
            **({} if self.base is None else {"base": str(self.base)}),
            "served": None if self.served is None else str(self.served),
            "served_tenant": self.served_tenant,
            "calibration": [f"{folder}={share}" for folder, share in self.calibration],
            "tenant": self.tenant,
            "taken": self.taken,
            "complete": None if self.complete is None else str(self.complete),
            "placebo_answers": None if self.placebo is None else str(self.placebo.source),
            "readout": self.readout,
            "contexts": self.contexts,
            "decoys": self.settings.decoy_count,
            "dtype": self.dtype,
        }


@dataclass(frozen=True, eq=False)
class _Text:
    """A text, the positions that count in it, their contexts, and, for unmarked text, what was served of contexts.

    ``served_marked`` says whether what was served was marked; ``complete`` and the two p-values are for the record.
    """

    text: ReadingText
    where: Positions
    contexts: np.ndarray[Any, np.dtype[np.uint32]]
    subkeys: I64
    served: Served | None
    served_marked: bool
    complete: str | None
    texts_log10_pvalue: float | None
    prompts_log10_pvalue: float | None


class _Bench(Bench):
    """What is traced under which keys, and the models that read."""

    def __init__(
        self, job: WeightsJob, spec: WatermarkSpec, ring: KeyRing, tokenizer: Any, keep: Path, progress: Progress | None
    ) -> None:
        super().__init__(spec, tokenizer, keep, dtype=job.dtype, device=job.device, base=job.base, progress=progress)
        self.job, self.ring = job, ring

    def seen(self, folder: Path) -> ModelSeen:
        """What the record says of a model; DyetraceError where it is the suspect in a reference's place."""
        found = super().seen(folder)
        if folder in self.job.references:
            check_beside(super().seen(self.job.student), found)
        return found

    def reads(self, folder: Path, of: _Text) -> Predictions:
        """What the model predicts at the positions of a text."""
        return self.predictions(folder, of.text, of.where)


def trace_weights(
    job: WeightsJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    output: Path,
    *,
    commitment: Commitment | None = None,
    made: Made | None = None,
    progress: Progress | None = None,
) -> TraceRecord:
    """Trace a suspect and write report.json and evidence.npz to ``output``; what was read is kept in a folder there.

    Parameters
    ----------
    job
        Suspect, texts, references and settings.
    spec, ring
        The watermark and the keys to test.
    tokenizer
        The spec's tokenizer.
    output
        Folder of the report.
    commitment, made
        To put on record.
    progress
        Called with what is being done, positions done and in all; 0 of 0 where it can't be counted.

    Raises
    ------
    DyetraceError
        Key, tokenizer or commitment are not the spec's; a text or model cannot be read; the readout needs a reference.
    """
    # Before any compiled loop starts threads: a torch that is loaded after them attends ten times as slowly.
    import torch  # noqa: F401

    check_traceable(spec, ring, tokenizer)
    if commitment is not None and commitment.spec_id != spec.spec_id:
        raise DyetraceError(f"the commitment is of spec {commitment.spec_id}, but this spec is {spec.spec_id}")
    chosen: Readout = job.readout or ("reference" if job.references else "entropy")
    if chosen == "reference" and not job.references:
        raise DyetraceError("the readout 'reference' needs --reference: the suspect's base model, or any other one")
    make_folder(output)
    claim(output / WORK, _MARKED, "give another folder with -o, or move it away")
    bench = _Bench(job, spec, ring, tokenizer, output / WORK, progress)
    models = [bench.seen(folder) for folder in (job.student, *job.references, *job.controls)]
    _controls_of(bench)  # before anything is read
    encoder = Encoder.load(tokenizer)
    bench.begin("reading the texts")
    with open_served(job.served, spec, ring, encoder, job.served_tenant) as served:
        texts = _texts(job, spec, ring, encoder, served)
        unserved = None if served is None else served.not_carried
    basis: Basis = "e-value" if any(t.text.marked or t.served_marked for t in texts) else "p-value"
    check_basis(spec, basis)
    readings = _read(bench, job.student, job.references, texts)
    shares = _shares(readings)
    bench.begin("weighing what was read")
    evidence = _evidence([r.weights(chosen, shares) for r in readings])
    comparisons = _comparisons(spec, ring, readings, chosen, shares, basis)
    share = _share(bench, texts, readings, shares)
    controls = _controls(bench, texts, chosen, basis)
    bench.begin("computing p-values under all keys and decoys")
    return write_report(
        output,
        evidence,
        spec,
        ring,
        basis,
        job.settings,
        mode="weights",
        arguments={**job.arguments, "tenants": list(ring.tenants)},
        made=made,
        commitment=commitment,
        student=models[0],
        references=[
            Reference(model=bench.seen(folder), share=share)
            for folder, share in zip(job.references, shares[-1].tolist(), strict=True)
        ],
        readings=[
            Reading(
                name=t.text.name,
                sha256=t.text.sha256,
                marked=t.text.marked,
                documents=len(t.text.documents),
                tokens=sum(len(d.sequence) - d.lead for d in t.text.documents),
                contexts=len(np.unique(t.where.fingerprint[r.known])),
                barred=sum(len(d.barred) for d in t.text.documents),
                taken=job.taken if t.text.marked else None,
                complete=t.complete,
                texts_log10_pvalue=t.texts_log10_pvalue,
                prompts_log10_pvalue=t.prompts_log10_pvalue,
                unlike_text=t.text.unlike,
            )
            for t, r in zip(texts, readings, strict=True)
        ],
        served=None if served is None else served.file,
        served_marked=served is not None and served.marked,
        readout=chosen,
        comparisons=comparisons,
        share=share,
        models=controls,
        acquittal=next(filter(None, (not_carried(t.text, spec, ring) for t in texts if t.text.marked)), unserved),
        plan=None,
        queries=None,
    )


def _texts(
    job: WeightsJob, spec: WatermarkSpec, ring: KeyRing, encoder: Encoder, counted: ServedContexts | None
) -> list[_Text]:
    """Read the texts; a context that an earlier text gave counts there alone."""
    width = spec.context_width
    order = None if job.complete is None else serving_order(job.complete)
    taken: set[int] = set()
    texts = []
    read = [read_text(name, spec, encoder, tenant=job.tenant, order=order) for name in job.texts]
    # What stands in marked answers is the key's work, and must not decide which contexts of other text count.
    for text in sorted(read, key=lambda one: one.marked):
        name = text.name
        complete = _complete(job, text, spec, ring)
        texts_log10 = None
        if not text.marked:
            texts_log10 = check_unmarked(text, spec, ring)
        told = [document.told for document in text.documents if len(document.told)]
        served = None if text.marked or counted is None else counted.in_documents(text.documents, width)
        where = positions(text, width, job.contexts, taken=taken, among=served)
        if not len(where):
            of_use = "" if served is None else " and was served"
            raise DyetraceError(f"{name} gives no context that was not read before{of_use}; leave it out")
        contexts = context_at(text.documents, where, width)
        subkeys = np.array([text.documents[i].subkey for i in where.document.tolist()], dtype=np.int64)
        texts.append(
            _Text(
                text,
                where,
                contexts,
                subkeys,
                served,
                served is not None and counted is not None and counted.marked,
                complete,
                texts_log10,
                marked_log10(spec, ring, told) if told else None,
            )
        )
        if len(job.texts) > 1:
            taken |= contexts_of(text, width)
    if job.taken is not None and not any(text.marked for text in read):
        raise DyetraceError("--taken says how marked answers were taken, and no marked answers are read: leave it out")
    if job.complete is not None and not any(t.complete for t in texts):
        raise DyetraceError("--complete is a record of served answers, and no marked answers are read: leave it out")
    return texts


def _complete(job: WeightsJob, text: ReadingText, spec: WatermarkSpec, ring: KeyRing) -> str | None:
    if job.complete is None or not text.marked:
        return None
    return check_complete(text.name, job.complete, spec, ring, job.tenant)


@dataclass(frozen=True, eq=False)
class _Readings:
    """A suspect's and the references' probabilities of the same candidates at the positions of a text.

    Attributes
    ----------
    text
        What was read.
    ids
        Candidates, (n, m); -1 for none.
    suspect, references
        Their probabilities, (n, m) and (k, n, m).
    known
        Where the suspect could be asked, and every reference, (n,).
    """

    text: _Text
    ids: I64
    suspect: F64
    references: F64
    known: np.ndarray[Any, np.dtype[np.bool_]]

    @classmethod
    def made(cls, text: _Text, mine: Predictions, others: Sequence[Predictions], vocabulary: int) -> _Readings:
        """Put a suspect's predictions beside the references'."""
        ids = candidates(mine, others)
        known = mine.known & np.all([other.known for other in others] or [mine.known], axis=0)
        beside = np.array([other.at(ids, vocabulary) for other in others]).reshape(len(others), *ids.shape)
        return cls(text, ids, mine.at(ids, vocabulary), beside, known)

    def weights(self, name: Readout, shares: F64) -> WeightedTuples:
        """The weighted tuples of a readout."""
        reference = self._mixed(shares) if shares.shape[1] else None
        return self.gathered(readout(name, self.suspect, reference))

    def differences(self, shares: F64) -> WeightedTuples:
        """Weights q - r (or q without a reference), in which the effect is linear in what was remembered."""
        reference = self._mixed(shares) if shares.shape[1] else 0.0
        return self.gathered(2 * (self.suspect - reference))

    def _mixed(self, shares: F64) -> F64:
        """The references' mixture, (n, m), by shares of shape (n, k) or (1, k)."""
        own = shares if len(shares) == len(self.suspect) else shares[-1:]
        rows = np.broadcast_to(own, (len(self.suspect), own.shape[1]))
        return np.asarray(np.einsum("nk,knm->nm", rows, self.references))

    def gathered(self, weights: F64) -> WeightedTuples:
        """Put the weights of candidates together by context."""
        of, known = self.text, self.known
        contexts, prints = of.contexts[known], of.where.fingerprint[known]
        if of.served is not None:
            marked = of.served_marked
            return gathered_served(contexts, prints, of.served, self.ids[known], weights[known], marked=marked)
        return gathered(contexts, prints.astype(np.int64), of.subkeys[known], self.ids[known], weights[known])


def _read(bench: _Bench, student: Path, references: Sequence[Path], texts: Sequence[_Text]) -> list[_Readings]:
    """Let suspect and references read all texts, one model after the other."""
    mine, *others = [[bench.reads(folder, text) for text in texts] for folder in (student, *references)]
    vocabulary = bench.spec.vocabulary_size
    return [_Readings.made(t, mine[i], [other[i] for other in others], vocabulary) for i, t in enumerate(texts)]


def _shares(readings: Sequence[_Readings]) -> F64:
    """Each reference's share in the mixture, from the first text: (1, k), or (n, k) where it is marked."""
    first = readings[0]
    if any(r.text.served_marked for r in readings):  # which contexts there are to fit to is the key's work
        return np.full((1, len(first.references)), 1 / max(1, len(first.references)))
    fit = growing_shares if first.text.text.marked else mixture_shares
    return np.atleast_2d(fit(first.suspect, first.references))


def _evidence(tuples: Sequence[WeightedTuples]) -> Evidence:
    whole = joined(tuples)
    return Evidence(whole, np.arange(1, len(whole.contexts) + 1, dtype=np.int64))


def _comparisons(
    spec: WatermarkSpec, ring: KeyRing, readings: Sequence[_Readings], chosen: Readout, shares: F64, basis: Basis
) -> list[ReadoutResult]:
    """Every readout on all texts, and the chosen one on each text alone."""
    rows = []
    for name in READOUTS:
        if name != "reference" or shares.shape[1]:
            rows.append(compared(name, spec, ring, joined([r.weights(name, shares) for r in readings]), basis))
    if len(readings) > 1:
        for r in readings:
            label = f"{chosen}, {Path(r.text.text.name).name} alone"
            rows.append(compared(label, spec, ring, r.weights(chosen, shares), basis))
    return rows


def _controls(bench: _Bench, texts: Sequence[_Text], chosen: Readout, basis: Basis) -> list[Control]:
    """The same test where no mark can be: of the references, of models that the analyst names, of placebo answers."""
    job = bench.job
    models = [] if job.placebo is None else [_of_placebo(bench, job.placebo, chosen)]
    controls = _controls_of(bench)
    for folder in (*job.references, *controls):
        others = [other for other in job.references if other != folder]
        if not others:  # a reference is compared with a control where there is no second one
            others = [other for other in controls if other != folder]
        name: Readout = "entropy" if chosen == "reference" and not others else chosen
        readings = _read(bench, folder, others, texts)
        what = "reference in the suspect's place" if folder in job.references else "control model"
        tuples = joined([r.weights(name, _shares(readings)) for r in readings])
        models.append(
            _control(what, bench.seen(folder), bench.spec, bench.ring, tuples, basis, job.settings.sided, name)
        )
    return models


def _controls_of(bench: _Bench) -> list[Path]:
    """The control models, each once; refused where one is the suspect or a reference, or two references are one."""
    job = bench.job
    controls = list({bench.seen(folder).sha256: folder for folder in job.controls}.values())  # each model once
    named: dict[str, Path] = {}
    for folder in (*job.references, *controls):
        first = named.setdefault(bench.seen(folder).sha256, folder)
        if first is not folder:
            raise DyetraceError(
                f"{first} and {folder} are the same model, which can be no control of itself; leave one of them out"
            )
    for folder in controls:
        if bench.seen(folder).sha256 == bench.seen(job.student).sha256:
            raise DyetraceError(f"the control {folder} is the suspect itself; give a model that never saw the mark")
    return controls


def _of_placebo(bench: _Bench, given: Placebo, chosen: Readout) -> Control:
    """The suspect's own trace under the placebo key, on answers that were never served to anybody."""
    job, encoder = bench.job, Encoder.load(bench.tokenizer)
    alone = replace(job, texts=(given.source,), served=None, complete=None, placebo=None)
    texts = _texts(alone, given.spec, given.ring, encoder, None)
    if not all(t.text.marked for t in texts):
        raise DyetraceError(
            f"{given.source} does not hold answers under the placebo key; make them with `dyetrace generate --placebo`"
        )
    readings = _read(bench, job.student, job.references, texts)
    tuples = joined([r.weights(chosen, _shares(readings)) for r in readings])
    seen = bench.seen(job.student)
    return _control("placebo key", seen, given.spec, given.ring, tuples, "e-value", job.settings.sided, chosen)


def _control(
    what: str,
    model: ModelSeen,
    spec: WatermarkSpec,
    ring: KeyRing,
    tuples: WeightedTuples,
    basis: Basis,
    sided: Sided,
    name: Readout,
) -> Control:
    keys = tested_keys(spec, ring)
    found: list[tuple[float, float, int]] = []
    for key_name, key in keys.items():
        test = key_test(spec, ring.selector, tuples, of_global=key_name.is_global)
        total = int(test.totals([key])[0])
        upper, lower = tails(test, total, basis)
        p = upper if sided == "upper" else min(0.0, math.log10(2) + min(upper, lower))
        found.append((min(0.0, p + math.log10(len(keys))), test.log10_evalue(total, sided), len(test.tuples.contexts)))
    log10_p, log10_e, contexts = min(found)
    return Control(what=what, model=model, log10_pvalue=log10_p, log10_evalue=log10_e, readout=name, contexts=contexts)


def _share(bench: _Bench, texts: Sequence[_Text], readings: Sequence[_Readings], shares: F64) -> TrainingShare:
    """The suspect's marked share by the calibration students, each of whom reads what the suspect read."""
    job = bench.job
    if not job.calibration:
        return not_identified("it takes several students of each of two known marked shares or more (--calibrate)")
    first: dict[str, Path] = {}
    doses = []
    for folder, share in job.calibration:
        twin = first.setdefault(bench.seen(folder).sha256, folder)
        if twin is not folder:
            raise DyetraceError(
                f"--calibrate {folder} and {twin} are the same model: a copy does not show how far training by itself "
                "moves the effect; train another student with another seed, or leave one out"
            )
        read = _read(bench, folder, job.references, texts)
        effect, error = _effect(bench, read, shares)
        doses.append(DosePoint(name=str(folder), share=share, effect=effect, standard_error=error))
    return estimated(*_effect(bench, readings, shares), doses)


def _effect(bench: _Bench, readings: Sequence[_Readings], shares: F64) -> tuple[float, float]:
    """Mean excess per context of the linear readout, and its standard error."""
    test, _ = first_test(bench.spec, bench.ring, joined([r.differences(shares) for r in readings]))
    key = next(iter(tested_keys(bench.spec, bench.ring).values()))
    return effect_of(test.by_context(key), test.moments[0])
