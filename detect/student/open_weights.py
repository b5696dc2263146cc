"""Tracing a suspect whose weights are at hand: texts in, evidence and record out.

The way of the data: texts -> positions that count (`reading`) -> predictions of suspect and references, kept on disk
(`forward`) -> weights (`weights`) -> evidence -> conclusions (`conclude`) -> record.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.corpus.record import FileHash
from detect.document import GLOBAL, tested_keys
from detect.encode import Encoder
from detect.evidence import versions
from detect.student.conclude import Conclusion, conclude
from detect.student.evidence import EVIDENCE_FILE, Basis, Evidence, TraceSettings, encode_evidence
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
from detect.student.hypothesis import WeightedTest, of_global_key
from detect.student.reading import (
    Positions,
    ReadingText,
    context_at,
    contexts_of,
    positions,
    read_text,
    served_counts,
)
from detect.student.record import (
    Control,
    DosePoint,
    ModelSeen,
    Reading,
    ReadoutResult,
    Reference,
    TraceControls,
    TraceRecord,
    TrainingShare,
)
from detect.student.score import TraceScore
from detect.student.share import effect_of, estimated, not_identified
from detect.student.weights import (
    READOUTS,
    Readout,
    WeightedTuples,
    context_weight,
    gathered,
    joined,
    mixture_shares,
    readout,
)
from watermark.commitment import Commitment
from watermark.errors import DyetraceError
from watermark.files import make_folder, write_atomically
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec, check_key, check_tokenizer
from watermark.tokenizer import tokenizer_fingerprint, vocabulary_size

Progress = Callable[[str, int, int], None]
HALF = 3.0
"""Served counts at which a context weighs half: what a student remembers of it saturates."""
NEEDED_LOG10_P = -10.0


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
        File of served answers whose contexts weigh unmarked readings; None weighs all alike.
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
    tenant: str | None = None
    contexts: int = 50_000
    readout: Readout | None = None
    dtype: str = "bfloat16"
    settings: TraceSettings = field(default_factory=TraceSettings)


@dataclass(frozen=True, eq=False)
class _Text:
    """A text, the positions that count in it, and its contexts."""

    text: ReadingText
    where: Positions
    contexts: np.ndarray[Any, np.dtype[np.uint32]]
    subkeys: I64
    context_weights: F64 | None


class _Bench:
    """Models by folder, their hashes, and their predictions of each text."""

    def __init__(self, job: WeightsJob, spec: WatermarkSpec, tokenizer: Any, keep: Path, progress: Progress) -> None:
        self.spec = spec
        self._job, self._tokenizer, self._keep, self._progress = job, tokenizer, keep, progress
        self._seen: dict[Path, ModelSeen] = {}

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
            lambda: self._load(folder, seen),
            name,
            of.text,
            of.where,
            self._keep,
            lambda done, total: self._progress(label, done, total),
        )

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
    check_key(spec, ring.master_fingerprint)
    check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    if commitment is not None and commitment.spec_id != spec.spec_id:
        raise DyetraceError(f"the commitment is of spec {commitment.spec_id}, but this spec is {spec.spec_id}")
    if spec.context_width < 1:
        raise DyetraceError("a spec without a context (context_width 0) marks token types, which no student reveals")
    chosen: Readout = job.readout or ("reference" if job.references else "entropy")
    if chosen == "reference" and not job.references:
        raise DyetraceError("the readout 'reference' needs --reference: the suspect's base model, or any other one")
    make_folder(output)
    bench = _Bench(job, spec, tokenizer, output / ".work", progress or (lambda what, done, total: None))
    models = [bench.seen(folder) for folder in (job.student, *job.references, *job.controls)]
    texts = _texts(job, spec, Encoder.load(tokenizer))
    basis: Basis = "e-value" if any(t.text.marked for t in texts) else "p-value"
    readings = [_Readings.made(bench, job.student, job.references, t) for t in texts]
    shares = _shares(readings)
    evidence = _evidence([r.weights(chosen, shares) for r in readings])
    conclusion = conclude(evidence, spec, ring, basis, job.settings)
    data = encode_evidence(evidence)
    record = TraceRecord(
        mode="weights",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        arguments=arguments or {},
        versions=versions(),
        spec=msgspec.json.decode(spec.canonical_json, type=WatermarkSpec),
        spec_id=spec.spec_id,
        key_fingerprint=ring.master_fingerprint,
        commitment=commitment,
        alpha=job.settings.alpha,
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
        served=_served_file(job.served),
        readout=chosen,
        sided=job.settings.sided,
        basis=basis,
        contexts=evidence.contexts,
        hypotheses=conclusion.hypotheses,
        coalitions=conclusion.coalitions,
        identified=conclusion.identified,
        identification=conclusion.identification,
        log10_pvalue=conclusion.log10_pvalue,
        log10_evalue=conclusion.log10_evalue,
        refused=conclusion.refused,
        found=conclusion.found,
        comparisons=_comparisons(spec, ring, readings, chosen, shares),
        curve=conclusion.curve,
        power=conclusion.power,
        share=_share(job, spec, ring, bench, texts, readings, shares),
        controls=_controls(job, spec, ring, bench, texts, chosen, conclusion),
        plan=None,
        queries=None,
        files=[FileHash(name=EVIDENCE_FILE, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))],
    )
    from detect.report.trace_schema import encode_trace

    write_atomically(output / EVIDENCE_FILE, data)
    write_atomically(output / "report.json", encode_trace(record))
    return record


def _texts(job: WeightsJob, spec: WatermarkSpec, encoder: Encoder) -> list[_Text]:
    """Read the texts; a context that an earlier text gave counts there alone."""
    width = spec.context_width
    counts = None if job.served is None else served_counts(read_text(job.served, spec, encoder).documents, width)
    taken: set[int] = set()
    texts = []
    for name in job.texts:
        text = read_text(name, spec, encoder, tenant=job.tenant)
        where = positions(text, width, job.contexts, taken=taken)
        if not len(where):
            raise DyetraceError(f"{name} gives no context that was not read before; leave it out")
        contexts = context_at(text.documents, where, width)
        subkeys = np.array([text.documents[i].subkey for i in where.document.tolist()], dtype=np.int64)
        weighed = None
        if counts is not None and not text.marked:
            served = [counts.get(int(value), 0) for value in where.fingerprint.tolist()]
            weighed = context_weight(served, HALF)
        texts.append(_Text(text, where, contexts, subkeys, weighed))
        if len(job.texts) > 1:
            taken |= contexts_of(text, width)
    return texts


def _served_file(served: str | None) -> FileHash | None:
    if served is None:
        return None
    data = Path(served).read_bytes()
    return FileHash(name=served, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


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
    def made(cls, bench: _Bench, student: Path, references: Sequence[Path], text: _Text) -> _Readings:
        """Let suspect and references read."""
        mine = bench.predictions(student, text)
        others = [bench.predictions(folder, text) for folder in references]
        ids = candidates(mine, others)
        vocabulary = bench.spec.vocabulary_size
        known = mine.known & np.all([other.known for other in others] or [mine.known], axis=0)
        beside = np.array([other.at(ids, vocabulary) for other in others]).reshape(len(others), *ids.shape)
        return cls(text, ids, mine.at(ids, vocabulary), beside, known)

    def weights(self, name: Readout, shares: F64, of_contexts: bool = True) -> WeightedTuples:
        """The weighted tuples of a readout."""
        reference = np.tensordot(shares, self.references, 1) if len(shares) else None
        return self.gathered(readout(name, self.suspect, reference), of_contexts)

    def differences(self, shares: F64) -> WeightedTuples:
        """Weights q - r (or q without a reference), in which the effect is linear in what was remembered."""
        reference = np.tensordot(shares, self.references, 1) if len(shares) else 0.0
        return self.gathered(2 * (self.suspect - reference), of_contexts=False)

    def gathered(self, weights: F64, of_contexts: bool) -> WeightedTuples:
        """Put the weights of candidates together by context."""
        of, known = self.text, self.known
        served = of.context_weights if of_contexts else None
        return gathered(
            of.contexts[known],
            of.where.fingerprint[known].astype(np.int64),
            of.subkeys[known],
            self.ids[known],
            weights[known],
            None if served is None else served[known],
        )


def _shares(readings: Sequence[_Readings]) -> F64:
    """Each reference's share in the mixture, from the first text."""
    return mixture_shares(readings[0].suspect, readings[0].references)


def _evidence(tuples: Sequence[WeightedTuples]) -> Evidence:
    whole = joined(tuples)
    return Evidence(whole, np.arange(1, len(whole.contexts) + 1, dtype=np.int64))


def _first_test(spec: WatermarkSpec, ring: KeyRing, tuples: WeightedTuples) -> tuple[WeightedTest, int]:
    """The test of the first key on its contexts, and its total."""
    name, key = next(iter(tested_keys(spec, ring).items()))
    mine = of_global_key(spec, ring.selector, tuples)
    test = WeightedTest(
        TraceScore.of(spec.build_scheme()), tuples.of_contexts(mine if name == GLOBAL else ~mine), spec.subkeys
    )
    return test, int(test.totals([key])[0])


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


def compared(label: str, spec: WatermarkSpec, ring: KeyRing, tuples: WeightedTuples) -> ReadoutResult:
    """The first key's test of some weighted tuples, as a row of the record."""
    test, total = _first_test(spec, ring, tuples)
    z, contexts = test.z(total), len(test.tuples.contexts)
    return ReadoutResult(
        readout=label,
        contexts=contexts,
        z=z,
        log10_pvalue=float(test.log10_pvalues([total])[0]),
        contexts_needed=None if z <= 0 else math.ceil(contexts * (_z_of(NEEDED_LOG10_P) / z) ** 2),
    )


def _z_of(log10_p: float) -> float:
    from scipy.special import ndtri_exp

    return -float(ndtri_exp(log10_p * math.log(10)))


def _controls(
    job: WeightsJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    bench: _Bench,
    texts: Sequence[_Text],
    chosen: Readout,
    conclusion: Conclusion,
) -> TraceControls:
    """Decoys, and the same test of models that can't know the mark: the references and what the analyst names."""
    models = []
    for folder in (*job.references, *job.controls):
        others = [other for other in job.references if other != folder]
        name: Readout = "entropy" if chosen == "reference" and not others else chosen
        readings = [_Readings.made(bench, folder, others, text) for text in texts]
        test, total = _first_test(spec, ring, joined([r.weights(name, _shares(readings)) for r in readings]))
        models.append(
            Control(
                what="reference in the suspect's place" if folder in job.references else "control model",
                model=bench.seen(folder),
                log10_pvalue=float(test.log10_pvalues([total])[0]),
                log10_evalue=test.log10_evalue(total, job.settings.sided),
            )
        )
    return msgspec.structs.replace(conclusion.controls, models=models)


def _share(
    job: WeightsJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    bench: _Bench,
    texts: Sequence[_Text],
    readings: Sequence[_Readings],
    shares: F64,
) -> TrainingShare:
    if len(job.calibration) < 2:
        return not_identified("it takes at least two students that were trained on known shares (--calibrate)")
    doses = []
    for folder, share in job.calibration:
        read = [_Readings.made(bench, folder, job.references, text) for text in texts]
        effect, error = _effect(spec, ring, read, shares)
        doses.append(DosePoint(name=str(folder), share=share, effect=effect, standard_error=error))
    return estimated(*_effect(spec, ring, readings, shares), doses)


def _effect(spec: WatermarkSpec, ring: KeyRing, readings: Sequence[_Readings], shares: F64) -> tuple[float, float]:
    """Mean excess per context of the linear readout, and its standard error."""
    test, _ = _first_test(spec, ring, joined([r.differences(shares) for r in readings]))
    key = next(iter(tested_keys(spec, ring).values()))
    return effect_of(test.by_context(key), test.moments[0])
