"""Served answers as a race readout takes them: checked, in their order, with the owner's chances at each fresh place.

No key has a say in which places there are or what the chances are. It says which places it marks (`ServedText.held`),
a bit that is drawn independently of the words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from detect.keyed.owners import owned_contexts
from detect.models.bench import Bench, Progress
from detect.models.kept import kept_folder
from detect.models.reading import (
    Positions,
    ReadingDocument,
    ReadingText,
    context_at,
    positions,
    read_text,
)
from detect.race.chances import Chances, chances
from detect.race.conclude import rows_of
from detect.race.evidence import RaceEvidence
from detect.race.job import RaceJob
from detect.records.race import RaceAsk, RaceCounts, SamplingSeen
from detect.records.trace import ModelSeen, Reading
from detect.records.written import clean
from detect.student.texts.complete import check_complete, serving_order
from detect.student.texts.marked import marked_log10
from detect.student.verdict.recording import check_traceable
from detect.text.encode import Encoder
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_format
from watermark.generate import SamplingUsed
from watermark.keys import KeyRing
from watermark.ledger_file import is_ledger
from watermark.spec import WatermarkSpec

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

SCHEMES = ("gumbel", "tournament", "green_list")
"""Those of which the weights that a key gives to words are known exactly (`detect.race.tilts`)."""


_ALL = 1 << 62


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedText:
    """Served answers and their n fresh places, in the order of serving.

    Attributes
    ----------
    text, where
        The answers (a long one in pieces), and the places where a context is used for the first time in all of them.
    contexts
        Shape (n, h).
    subkeys
        Which one marked each place; -1 where that is not on record. Shape (n,).
    accounts
        Names of the accounts whose keys are held, ascending.
    account
        Whom each of the documents was served to: a place in ``accounts``, or -1. Shape (documents,).
    held
        Whether a key that is tested marks the place, shape (n,).
    reading
        What the record says of the file.
    """

    text: ReadingText
    where: Positions
    contexts: U32
    subkeys: I32
    accounts: tuple[str, ...]
    account: I32
    held: Mask
    reading: Reading

    def __len__(self) -> int:
        """How many fresh places."""
        return len(self.where)

    @property
    def answers(self) -> int:
        """How many served answers; pieces of one count once."""
        return sum(not len(document.before) for document in self.text.documents)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the documents: "FILE, line N"."""
        return tuple(document.name for document in self.text.documents)

    def document(self, row: int) -> ReadingDocument:
        """The answer, or its piece, that a place is in."""
        return self.text.documents[int(self.where.document[row])]

    def counts(self, *, cuts: int, evidence: RaceEvidence) -> RaceCounts:
        """Which places entered, of so many that were planned."""
        return RaceCounts(
            answers=self.answers,
            fresh=len(self),
            unheld=int(np.sum(~self.held)),
            cuts=cuts,
            asked=len(evidence),
            silent=int(evidence.silent.sum()),
        )

    def evidence(
        self,
        ask: RaceAsk,
        rows: I64,
        chances: Chances,
        said: I32,
        shares: F64,
        steps: npt.NDArray[Any],
        base: F64 | None = None,
    ) -> RaceEvidence:
        """The evidence of what was heard at some places.

        Parameters
        ----------
        ask
            What was read of the suspect.
        rows
            The places, ascending, shape (m,).
        chances
            The owner's chances at these m places.
        said, shares, steps, base
            As `RaceEvidence` has them.
        """
        return RaceEvidence(
            ask=ask,
            contexts=self.contexts[rows],
            subkeys=self.subkeys[rows],
            documents=self.where.document[rows].astype(np.int32),
            positions=self.where.position[rows].astype(np.int32),
            tokens=chances.tokens,
            chances=chances.chances,
            said=np.asarray(said, dtype=np.int32),
            shares=shares,
            steps=np.asarray(steps, dtype=np.int32),
            names=self.names,
            accounts=self.accounts,
            account=self.account,
            base=base,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedReading(ServedText):
    """The same, with what the owner's model made of each place.

    Attributes
    ----------
    owner
        The owner's model.
    chances
        The owner's at the n places.
    sampling
        The settings that they were computed with.
    """

    owner: ModelSeen
    chances: Chances
    sampling: SamplingSeen


def check_readable(spec: WatermarkSpec, ring: KeyRing, tokenizer: Any, job: RaceJob) -> None:
    """Raise DyetraceError unless key, tokenizer and commitment are the spec's, whose marks a readout can bet on."""
    check_traceable(spec, ring, tokenizer)
    if job.commitment is not None and job.commitment.spec_id != spec.spec_id:
        raise DyetraceError(
            f"the commitment is of spec {job.commitment.spec_id}, but this spec is {spec.spec_id}; give the one that "
            "belongs to it"
        )
    if is_format(spec.build_scheme()) or spec.scheme not in SCHEMES:
        raise DyetraceError(
            f"served answers marked by {spec.scheme!r} can't be read beside the owner's model: that is known for the "
            f"schemes {', '.join(SCHEMES)} alone; trace it without the owner's model"
        )


def bench_of(job: RaceJob, spec: WatermarkSpec, tokenizer: Any, progress: Progress | None = None) -> Bench:
    """The local models of a readout; what they read is kept in the user's cache (`detect.models.kept`)."""
    return Bench(spec, tokenizer, kept_folder(), dtype=job.dtype, device=job.device, base=job.base, progress=progress)


def owner_seen(job: RaceJob, bench: Bench) -> ModelSeen:
    """The owner's model; DyetraceError unless its tokenizer is the spec's."""
    owner = bench.seen(job.owner_model)
    if owner.tokenizer != "same":
        raise DyetraceError(
            f"the owner's model {job.owner_model} has another tokenizer than the spec's, so it can't have made these "
            "answers; give the folder of the model that did"
        )
    return owner


def served_text(
    job: RaceJob, spec: WatermarkSpec, ring: KeyRing, tokenizer: Any, begin: Callable[[str], None] = lambda what: None
) -> ServedText:
    """Read the served answers and find their fresh places.

    Parameters
    ----------
    job
        What is asked for; it has been checked.
    spec, ring
        The watermark and the keys that are tested.
    tokenizer
        The spec's.
    begin
        Told what is being done.

    Raises
    ------
    DyetraceError
        The file is a ledger, can't be read, is not marked under the spec, not in the order of serving or incomplete,
        or gives no fresh place that a key at hand marks.
    """
    if is_ledger(Path(job.read)):
        raise DyetraceError(
            f"{job.read} is a ledger, which counts contexts and holds no text: nothing of it can be read; give the "
            "served answers themselves (JSONL of `dyetrace generate`)"
        )
    begin("reading the served answers")
    order = None if job.complete is None else serving_order(job.complete)
    whole = read_text(job.read, spec, Encoder.load(tokenizer), order=order)
    if not whole.marked:
        raise DyetraceError(
            f"{job.read} holds no answers under this spec ('spec_id' {spec.spec_id}): beside the owner's model only "
            "served answers can be read; give those, or trace it without the owner's model"
        )
    complete = None
    if job.complete is not None:
        complete = check_complete(job.read, job.complete, spec, ring, job.read_tenant)
    text, where = _fresh(job, whole, spec, ring)
    contexts = context_at(text.documents, where, spec.context_width)
    accounts = tuple(sorted({d.tenant for d in text.documents if d.tenant is not None and d.tenant in ring.tenants}))
    number = {name: place for place, name in enumerate(accounts)}
    account = np.array([number.get(d.tenant or "", -1) for d in text.documents], dtype=np.int32)
    keys = rows_of(contexts, account[where.document], accounts, spec, ring)
    held = np.array([key is not None for key in keys], dtype=np.bool_)
    if not held.any():
        raise DyetraceError(
            f"{job.read} gives no context that is used for the first time and that a key at hand marks; check the key, "
            "--tenant and --read-tenant"
        )
    told = [document.told for document in text.documents if len(document.told)]
    return ServedText(
        text=text,
        where=where,
        contexts=contexts,
        subkeys=np.array([text.documents[i].subkey for i in where.document.tolist()], dtype=np.int32),
        accounts=accounts,
        account=account,
        held=held,
        reading=Reading(
            name=text.name,
            sha256=text.sha256,
            marked=True,
            documents=len(text.documents),
            tokens=sum(len(d.sequence) - d.lead for d in text.documents),
            contexts=len(where),
            barred=sum(len(d.barred) for d in text.documents),
            taken=job.taken,
            complete=complete,
            texts_log10_pvalue=None,
            prompts_log10_pvalue=marked_log10(spec, ring, told) if told else None,
            unlike_text=text.unlike,
        ),
    )


def _fresh(job: RaceJob, whole: ReadingText, spec: WatermarkSpec, ring: KeyRing) -> tuple[ReadingText, Positions]:
    """The answers that are to be read, and the places where a context is used for the first time in the whole file.

    What the global key chose in another account's answer is known from there. An account's own key chooses for its
    answers alone, so where all accounts are on record, such a context counts for each of them.
    """

    def apart(document: ReadingDocument, sequence: U32) -> npt.NDArray[np.uint64]:
        contexts = np.ascontiguousarray(sliding_window_view(sequence, spec.context_width))
        own = owned_contexts(spec, ring.selector, contexts)[False]
        account = hashlib.sha256((document.tenant or "").encode("utf-8", "surrogatepass")).digest()
        return np.where(own, np.uint64(int.from_bytes(account[:8])), np.uint64(0))

    told = all(document.tenant is not None for document in whole.documents)
    where = positions(whole, spec.context_width, _ALL, apart=apart if told and spec.global_share < 1 else None)
    mine = [
        number
        for number, document in enumerate(whole.documents)
        if job.read_tenant is None or document.tenant == job.read_tenant
    ]
    if not mine:
        raise DyetraceError(f"{job.read} holds no answers that were served to {clean(repr(job.read_tenant))}")
    number = np.full(len(whole.documents), -1, dtype=np.int64)
    number[mine] = np.arange(len(mine))
    kept = np.flatnonzero(number[where.document] >= 0)[: job.contexts]
    text = replace(whole, documents=[whole.documents[one] for one in mine])
    return text, Positions(number[where.document[kept]], where.position[kept], where.fingerprint[kept])


def served_reading(
    job: RaceJob, spec: WatermarkSpec, ring: KeyRing, bench: Bench, text: ServedText | None = None
) -> ServedReading:
    """Read the served answers, and let the owner's model read them.

    Parameters
    ----------
    job
        What is asked for; it has been checked.
    spec, ring
        The watermark and the keys that are tested.
    bench
        Local models (`bench_of`).
    text
        The answers (`served_text`), where they have been read already.

    Raises
    ------
    DyetraceError
        As `served_text`; the owner's model can't be read or has another tokenizer.
    """
    owner = owner_seen(job, bench)
    served = served_text(job, spec, ring, bench.tokenizer, bench.begin) if text is None else text
    settings, which, seen = sampling_of(job, served)
    found = bench.predictions(job.owner_model, served.text, served.where)
    return ServedReading(
        **{name: getattr(served, name) for name in ServedText.__dataclass_fields__},
        owner=owner,
        chances=chances(found, settings, which),
        sampling=seen,
    )


def sampling_of(job: RaceJob, served: ServedText) -> tuple[list[SamplingUsed], I64, SamplingSeen]:
    """The different settings that the answers were drawn with, which each place has, and what the record says.

    What stands with an answer holds for it. For the others what the analyst gives, or else sampling as it is.

    Raises
    ------
    DyetraceError
        The analyst gives settings, and all answers have theirs on record.
    """
    recorded = [document.sampling for document in served.text.documents]
    if None not in recorded and job.sampling is not None:
        raise DyetraceError(
            f"the answers of {job.read} hold the settings that they were sampled with: leave out --owner-temperature, "
            "--owner-top-k, --owner-top-p and --owner-min-p"
        )
    other = job.sampling or SamplingUsed()
    of_documents = [one or other for one in recorded]
    settings = list(dict.fromkeys(of_documents))
    number = {one: place for place, one in enumerate(settings)}
    which = np.array([number[one] for one in of_documents], dtype=np.int64)[served.where.document]
    return (
        settings,
        which,
        SamplingSeen(
            source="recorded" if None not in recorded else "assumed" if job.sampling is None else "given",
            settings=[settings_in_words(one) for one in settings],
        ),
    )


def settings_in_words(settings: SamplingUsed) -> str:
    """For people.

    Examples
    --------
    >>> settings_in_words(SamplingUsed(temperature=0.8, top_p=0.95))
    'temperature 0.8, top-p 0.95'
    """
    parts = [f"temperature {settings.temperature:g}"]
    if settings.top_k:
        parts.append(f"top-k {settings.top_k}")
    if settings.top_p < 1:
        parts.append(f"top-p {settings.top_p:g}")
    if settings.min_p > 0:
        parts.append(f"min-p {settings.min_p:g}")
    return ", ".join(parts)
