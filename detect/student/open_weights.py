"""Tracing a suspect whose weights are at hand: texts in, evidence and record out.

The way of the data: texts -> positions that count (`reading`) -> predictions of suspect and references, kept on disk
(`forward`) -> weights (`weights`) -> evidence -> conclusions (`conclude`) -> record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detect.document import tested_keys
from detect.encode import Encoder
from detect.student.conclude import check_basis, compared, first_test
from detect.student.evidence import Basis, Evidence, TraceSettings
from detect.student.forward import (
    F64,
    I64,
    Model,
    Predictions,
    Predictor,
    candidates,
    model_hash,
    predictions,
)
from detect.student.reading import (
    Positions,
    ReadingText,
    context_at,
    contexts_of,
    positions,
    read_text,
)
from detect.student.record import (
    Control,
    DosePoint,
    ModelSeen,
    Reading,
    ReadoutResult,
    Reference,
    TraceRecord,
    TrainingShare,
)
from detect.student.recording import check_traceable, write_report
from detect.student.served import ServedContexts, open_served
from detect.student.share import effect_of, estimated, not_identified
from detect.student.weights import (
    READOUTS,
    Readout,
    Served,
    WeightedTuples,
    gathered,
    gathered_served,
    joined,
    mixture_shares,
    readout,
)
from watermark.commitment import Commitment
from watermark.errors import DyetraceError
from watermark.files import make_folder
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec
from watermark.tokenizer import tokenizer_fingerprint

Progress = Callable[[str, int, int], None]
HALF = 3.0
"""Served counts at which a context weighs half: what a student remembers of it saturates."""


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
    served
        File of served answers, or a ledger of their contexts: of unmarked texts only contexts that stand there are
        read, under the sub-keys that they were served with, weighed by count; None weighs all contexts alike.
    served_tenant
        Count only the answers served to this account.
    tenant
        Read only this account's records.
    contexts
        Most contexts to read in each text.
    readout
        None chooses ``reference`` where there is one, else ``entropy``.
    settings
        Level and controls.
    """

    student: Path
    texts: Sequence[str]
    references: Sequence[Path] = ()
    controls: Sequence[Path] = ()
    calibration: Sequence[tuple[Path, float]] = ()
    served: str | None = None
    served_tenant: str | None = None
    tenant: str | None = None
    contexts: int = 50_000
    readout: Readout | None = None
    dtype: str = "bfloat16"
    settings: TraceSettings = field(default_factory=TraceSettings)


@dataclass(frozen=True, eq=False)
class _Text:
    """A text, the positions that count in it, their contexts, and, for unmarked text, what was served of contexts."""

    text: ReadingText
    where: Positions
    contexts: np.ndarray[Any, np.dtype[np.uint32]]
    subkeys: I64
    served: Served | None


class _Bench:
    """Models by folder, their hashes, and their predictions of each text."""

    def __init__(self, job: WeightsJob, spec: WatermarkSpec, tokenizer: Any, keep: Path, progress: Progress) -> None:
        self.spec = spec
        self._job, self._tokenizer, self._keep, self._progress = job, tokenizer, keep, progress
        self._seen: dict[Path, ModelSeen] = {}
        self._loaded: tuple[Path, Predictor] | None = None

    def seen(self, folder: Path) -> ModelSeen:
        """What the record says of a model; it is hashed once."""
        if folder not in self._seen:
            same = tokenizer_fingerprint(str(folder)) == self.spec.tokenizer
            digest = model_hash(folder)
            self._seen[folder] = ModelSeen(name=str(folder), sha256=digest, tokenizer="same" if same else "aligned")
        return self._seen[folder]

    def predictions(self, folder: Path, of: _Text) -> Predictions:
        """What the model predicts at the positions of a text."""
        seen = self.seen(folder)
        name = hashlib.sha256(f"{seen.sha256} {self._job.dtype} {self.spec.tokenizer}".encode()).hexdigest()
        label = f"{folder.name} reads {Path(of.text.name).name}"
        return predictions(
            lambda: self._model(folder, seen),
            name,
            of.text,
            of.where,
            self._keep,
            lambda done, total: self._progress(label, done, total),
        )

    def _model(self, folder: Path, seen: ModelSeen) -> Predictor:
        """The model of a folder; the last one stays, as it may have another text to read."""
        if self._loaded is None or self._loaded[0] != folder:
            self._loaded = None  # before the next one needs the room
            self._loaded = folder, self._load(folder, seen)
        return self._loaded[1]

    def _load(self, folder: Path, seen: ModelSeen) -> Predictor:
        from watermark.demo_model import load_model

        network, tokenizer = load_model(folder, self._job.dtype)
        import torch

        if torch.cuda.is_available():
            network = network.to("cuda")
        if seen.tokenizer == "same":
            return Model(network, self.spec.vocabulary_size)
        from detect.student.alignment import AlignedModel

        return AlignedModel(network, tokenizer, self._tokenizer, self.spec.vocabulary_size)


def trace_weights(
    job: WeightsJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    output: Path,
    *,
    commitment: Commitment | None = None,
    arguments: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> TraceRecord:
    """Trace a suspect and write report.json and evidence.npz to ``output``; what was read is kept in ``output``/.work.

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
    commitment, arguments
        To put on record.
    progress
        Called with what is being done, positions done and in all.

    Raises
    ------
    DyetraceError
        Key, tokenizer or commitment are not the spec's; a text or model cannot be read; the readout needs a reference.
    """
    check_traceable(spec, ring, tokenizer)
    if commitment is not None and commitment.spec_id != spec.spec_id:
        raise DyetraceError(f"the commitment is of spec {commitment.spec_id}, but this spec is {spec.spec_id}")
    chosen: Readout = job.readout or ("reference" if job.references else "entropy")
    if chosen == "reference" and not job.references:
        raise DyetraceError("the readout 'reference' needs --reference: the suspect's base model, or any other one")
    make_folder(output)
    bench = _Bench(job, spec, tokenizer, output / ".work", progress or (lambda what, done, total: None))
    models = [bench.seen(folder) for folder in (job.student, *job.references, *job.controls)]
    encoder = Encoder.load(tokenizer)
    with open_served(job.served, spec, ring, encoder, job.served_tenant) as served:
        texts = _texts(job, spec, encoder, served)
    basis: Basis = "e-value" if any(t.text.marked for t in texts) else "p-value"
    check_basis(spec, basis)
    readings = _read(bench, job.student, job.references, texts)
    shares = _shares(readings)
    evidence = _evidence([r.weights(chosen, shares) for r in readings])
    return write_report(
        output,
        evidence,
        spec,
        ring,
        basis,
        job.settings,
        mode="weights",
        arguments=arguments or {},
        commitment=commitment,
        student=models[0],
        references=[
            Reference(model=bench.seen(folder), share=share)
            for folder, share in zip(job.references, shares.tolist(), strict=True)
        ],
        readings=[
            Reading(
                name=t.text.name,
                sha256=t.text.sha256,
                marked=t.text.marked,
                documents=len(t.text.documents),
                tokens=sum(len(d.sequence) - d.lead for d in t.text.documents),
                contexts=len(np.unique(t.where.fingerprint[r.known])),
            )
            for t, r in zip(texts, readings, strict=True)
        ],
        served=None if served is None else served.file,
        readout=chosen,
        comparisons=_comparisons(spec, ring, readings, chosen, shares),
        share=_share(job, spec, ring, bench, texts, readings, shares),
        models=_controls(job, spec, ring, bench, texts, chosen),
        plan=None,
        queries=None,
    )


def _texts(job: WeightsJob, spec: WatermarkSpec, encoder: Encoder, counted: ServedContexts | None) -> list[_Text]:
    """Read the texts; a context that an earlier text gave counts there alone."""
    width = spec.context_width
    taken: set[int] = set()
    texts = []
    for name in job.texts:
        text = read_text(name, spec, encoder, tenant=job.tenant)
        served = None if text.marked or counted is None else counted.in_documents(text.documents, width)
        where = positions(text, width, job.contexts, taken=taken, among=served)
        if not len(where):
            of_use = "" if served is None else " and was served"
            raise DyetraceError(f"{name} gives no context that was not read before{of_use}; leave it out")
        contexts = context_at(text.documents, where, width)
        subkeys = np.array([text.documents[i].subkey for i in where.document.tolist()], dtype=np.int64)
        texts.append(_Text(text, where, contexts, subkeys, served))
        if len(job.texts) > 1:
            taken |= contexts_of(text, width)
    return texts


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
        reference = np.tensordot(shares, self.references, 1) if len(shares) else None
        return self.gathered(readout(name, self.suspect, reference))

    def differences(self, shares: F64) -> WeightedTuples:
        """Weights q - r (or q without a reference), in which the effect is linear in what was remembered."""
        reference = np.tensordot(shares, self.references, 1) if len(shares) else 0.0
        return self.gathered(2 * (self.suspect - reference))

    def gathered(self, weights: F64) -> WeightedTuples:
        """Put the weights of candidates together by context."""
        of, known = self.text, self.known
        contexts, prints = of.contexts[known], of.where.fingerprint[known]
        if of.served is not None:
            return gathered_served(contexts, prints, of.served, self.ids[known], weights[known], HALF)
        return gathered(contexts, prints.astype(np.int64), of.subkeys[known], self.ids[known], weights[known])


def _read(bench: _Bench, student: Path, references: Sequence[Path], texts: Sequence[_Text]) -> list[_Readings]:
    """Let suspect and references read all texts, one model after the other."""
    mine, *others = [[bench.predictions(folder, text) for text in texts] for folder in (student, *references)]
    vocabulary = bench.spec.vocabulary_size
    return [_Readings.made(t, mine[i], [other[i] for other in others], vocabulary) for i, t in enumerate(texts)]


def _shares(readings: Sequence[_Readings]) -> F64:
    """Each reference's share in the mixture, from the first text."""
    return mixture_shares(readings[0].suspect, readings[0].references)


def _evidence(tuples: Sequence[WeightedTuples]) -> Evidence:
    whole = joined(tuples)
    return Evidence(whole, np.arange(1, len(whole.contexts) + 1, dtype=np.int64))


def _comparisons(
    spec: WatermarkSpec, ring: KeyRing, readings: Sequence[_Readings], chosen: Readout, shares: F64
) -> list[ReadoutResult]:
    """Every readout on all texts, and the chosen one on each text alone."""
    rows = []
    for name in READOUTS:
        if name != "reference" or len(shares):
            rows.append(compared(name, spec, ring, joined([r.weights(name, shares) for r in readings])))
    if len(readings) > 1:
        for r in readings:
            label = f"{chosen}, {Path(r.text.text.name).name} alone"
            rows.append(compared(label, spec, ring, r.weights(chosen, shares)))
    return rows


def _controls(
    job: WeightsJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    bench: _Bench,
    texts: Sequence[_Text],
    chosen: Readout,
) -> list[Control]:
    """The same test of models that can't know the mark: the references and what the analyst names."""
    models = []
    for folder in (*job.references, *job.controls):
        others = [other for other in job.references if other != folder]
        name: Readout = "entropy" if chosen == "reference" and not others else chosen
        readings = _read(bench, folder, others, texts)
        test, total = first_test(spec, ring, joined([r.weights(name, _shares(readings)) for r in readings]))
        models.append(
            Control(
                what="reference in the suspect's place" if folder in job.references else "control model",
                model=bench.seen(folder),
                log10_pvalue=float(test.log10_pvalues([total])[0]),
                log10_evalue=test.log10_evalue(total, job.settings.sided),
            )
        )
    return models


def _share(
    job: WeightsJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    bench: _Bench,
    texts: Sequence[_Text],
    readings: Sequence[_Readings],
    shares: F64,
) -> TrainingShare:
    """The suspect's marked share by the calibration students, each of whom reads what the suspect read."""
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
        effect, error = _effect(spec, ring, read, shares)
        doses.append(DosePoint(name=str(folder), share=share, effect=effect, standard_error=error))
    return estimated(*_effect(spec, ring, readings, shares), doses)


def _effect(spec: WatermarkSpec, ring: KeyRing, readings: Sequence[_Readings], shares: F64) -> tuple[float, float]:
    """Mean excess per context of the linear readout, and its standard error."""
    test, _ = first_test(spec, ring, joined([r.differences(shares) for r in readings]))
    key = next(iter(tested_keys(spec, ring).values()))
    return effect_of(test.by_context(key), test.moments[0])
