"""The main job: suspect documents, a spec and keys in; the record of the detection out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detect.document.blind import NOTHING, WHOLE_FAMILY, BlindTest, Family
from detect.document.likelihood import likelihood
from detect.document.pointing import blind_and_aware, level_per_test
from detect.keyed.batch import CHUNK
from detect.keyed.calibration import explanation
from detect.keyed.decoys import accounts_of_decoys
from detect.keyed.owners import candidates
from detect.keyed.scoring import counting, statistics_of
from detect.laws import tails
from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.laws.multiplicity import holm_log10
from detect.readers.suspects import Suspect, from_text_alone
from detect.records.detection import AwareResult, Document, Input, KeySums, Record, TokenView
from detect.records.how_to_check import in_words
from detect.records.made import Made, made_by, now
from detect.records.report import versions
from detect.records.text_assumptions import of_detection
from detect.text.distinct import Tuples, distinct_tuples
from detect.text.encode import Encoder
from detect.text.spelling import Speller
from watermark.commitment import Commitment
from watermark.errors import DyetraceError
from watermark.formats.protocol import reads_prompt
from watermark.keys import KeyRing
from watermark.laws import in_nats
from watermark.models.prompts import leading_tokens
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.prf import U32
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec, check_key, check_tokenizer

Progress = Callable[[int, int], None]

VIEWED_DOCUMENTS = 20
VIEWED_TOKENS = 1500
KEPT = 12
"""Keys of a large family whose numbers each document keeps, the strongest; and all that could be named."""
_SUMS = 1 << 22  # sums of documents under keys that are held at a time


@dataclass(frozen=True, slots=True)
class Settings:
    """What a detection may be asked for.

    Attributes
    ----------
    alpha
        A document is "found" when its p-value, adjusted over all documents, is at or below this; it points to a key
        when that key's is, adjusted over all pairs of a document and a key.
    decoy_count, decoy_seed
        Decoy keys per document.
    decoy_accounts
        How many accounts' keys each decoy has; None: as `detect.keyed.decoys.accounts_of_decoys` says.
    key_sums
        Put the hash of each key's sums on record, however few keys there are.
    view
        Keep token texts and per-token p-values of the strongest documents for the HTML page.
    viewed
        Of which documents to keep them, by their numbers; None: of the strongest.
    quotes
        Whether any text of the documents, or the ids that their records bear, may stand in the report.
    """

    alpha: float = DEFAULT_ALPHA
    decoy_count: int = 100
    decoy_seed: str = "dyetrace"
    decoy_accounts: int | None = None
    key_sums: bool = False
    view: bool = True
    viewed: frozenset[int] | None = None
    quotes: bool = True

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.decoy_count < 0:
            raise DyetraceError(f"the number of decoys must be 0 or more (got {self.decoy_count})")


@dataclass(frozen=True, slots=True)
class Model:
    """The owner's model for the model-aware test, and what the record calls it.

    Attributes
    ----------
    name, network
        What to call it, and the model.
    first
        Ids that its tokenizer puts in front of any text; None is found by `prepare`, from the spec's tokenizer.
    """

    name: str
    network: Any = field(repr=False)
    first: tuple[int, ...] | None = None


def detect(
    suspects: Sequence[Suspect],
    inputs: Sequence[Input],
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    settings: Settings,
    *,
    model: Model | None = None,
    commitment: Commitment | None = None,
    opened: bool = False,
    arguments: dict[str, Any] | None = None,
    made: Made | None = None,
    progress: Progress | None = None,
    held: bool = True,
) -> Record:
    """Test every suspect document.

    Parameters
    ----------
    commitment, opened
        To put on record; whether it was opened with this key (`detect.keyed.opening`).
    made
        Who makes the report, which nothing but the record's own line depends on.
    held
        Hold token ids against the text of their document, and read the text where they spell another one. Earlier
        releases took ids as they stand.

    Raises
    ------
    DyetraceError
        Key, tokenizer or commitment are not the spec's, or a token id lies outside the vocabulary.
    """
    bench = prepare(spec, ring, tokenizer, settings, model=model)
    if commitment is not None and commitment.spec_id != spec.spec_id:
        raise DyetraceError(f"the commitment is of spec {commitment.spec_id}, but this spec is {spec.spec_id}")
    if commitment is not None and commitment.key_fingerprint != ring.master_fingerprint:
        raise DyetraceError(
            f"the commitment is of key {commitment.key_fingerprint}, but this key is {ring.master_fingerprint}; "
            "give the commitment of this key"
        )
    unlike = None
    if held:
        suspects, unlike = bench.held(suspects)
    tested = bench.test(suspects, progress)
    return recorded(
        bench,
        suspects,
        inputs,
        tested,
        commitment=commitment,
        opened=opened,
        arguments=arguments,
        made=made,
        unlike_text=unlike,
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """What the test of a document needs besides the document, checked and made ready (`prepare`)."""

    spec: WatermarkSpec
    ring: KeyRing = field(repr=False)
    settings: Settings
    encoder: Encoder = field(repr=False)
    family: Family = field(repr=False)
    decoy_accounts: int
    model: Model | None = None

    def held(self, suspects: Sequence[Suspect]) -> tuple[list[Suspect], int | None]:
        """Hold token ids against the texts beside them: documents whose ids spell other text are their text alone.

        Returns
        -------
        tuple
            The documents, and how many these are; None where no document has both ids and a text.
        """
        speller = Speller(self.encoder.tokenizer, self.spec.vocabulary_size)
        found: list[Suspect] = []
        both = unlike = 0
        for suspect in suspects:
            if suspect.text is not None and suspect.token_ids is not None:
                both += 1
                if not speller.spells(suspect.token_ids, suspect.text):
                    unlike += 1
                    suspect = from_text_alone(suspect)
            found.append(suspect)
        return found, unlike if both else None

    def test(self, suspects: Sequence[Suspect], progress: Progress | None = None) -> Tested:
        """Test documents together: their number is paid for."""
        settings, documents = self.settings, list[Document]()
        hashed = settings.key_sums or not self.family.keeps_all
        sums = [hashlib.sha256() for _ in self.family.names] if hashed else None
        for read in _batches(suspects, self.encoder, self.spec, self.family.sums):
            tests = self.family.test([one.tuples for one in read])
            if sums is not None:
                by_key = np.stack([blind.sums for blind in tests if blind.sums is not None], axis=1).astype("<i8")
                for digest, rows in zip(sums, by_key, strict=True):
                    digest.update(rows.tobytes())
            for one, blind in zip(read, tests, strict=True):
                documents.append(_document(one, blind, self._aware(one, blind)))
                if progress is not None:
                    progress(len(documents), len(suspects))
        documents = adjust(documents, settings.alpha)
        if settings.view:
            documents = self._with_views(documents, suspects)
        if not settings.quotes:
            documents = _unquoted(documents, suspects)
        return Tested(documents, None if sums is None else [one.hexdigest() for one in sums])

    def _aware(self, read: _Read, blind: BlindTest) -> AwareResult | None:
        if self.model is None or blind.refused:
            return None
        from detect.document.aware import aware_test  # with torch, which takes seconds

        found = aware_test(
            self.spec,
            self.ring,
            likelihood(self.model.network, read.ids, self.spec.context_width, read.prompt, self.model.first or ()),
            model=self.model.name,
            decoy_seed=self.settings.decoy_seed,
            decoy_count=self.settings.decoy_count,
            decoy_accounts=self.decoy_accounts,
        )
        if blind.keys <= WHOLE_FAMILY:
            return found
        ranked = sorted(found.hypotheses, key=lambda h: h.log10_pvalue)
        limit = math.log10(self.settings.alpha)
        kept = {h.key for rank, h in enumerate(ranked) if rank < KEPT or h.log10_pvalue_adjusted <= limit}
        return msgspec.structs.replace(found, hypotheses=[h for h in found.hypotheses if h.key in kept])

    def _with_views(self, documents: list[Document], suspects: Sequence[Suspect]) -> list[Document]:
        """Add token views to the strongest documents, or to those named."""
        tested = [i for i, d in enumerate(documents) if d.log10_pvalue is not None]
        strongest = sorted(tested, key=lambda i: documents[i].log10_pvalue or 0.0)[:VIEWED_DOCUMENTS]
        shown = set(strongest if self.settings.viewed is None else self.settings.viewed.intersection(tested))
        return [
            msgspec.structs.replace(document, view=self._view(document, suspects[i])) if i in shown else document
            for i, document in enumerate(documents)
        ]

    def _view(self, document: Document, suspect: Suspect) -> TokenView:
        best = min(document.hypotheses, key=lambda h: h.log10_pvalue)
        part = min(best.subkeys, key=lambda s: s.log10_pvalue)
        ids = _ids(suspect, self.encoder, self.spec)
        tuples = _tuples(ids, _prompt(suspect), self.spec)
        candidate = next(c for c in candidates(self.spec, self.ring, tuples) if str(c.name) == best.key)
        scheme = self.spec.build_scheme()
        counted = counting(scheme, candidate.key, candidate.tuples)
        shown = counted.take(counted.positions < VIEWED_TOKENS)
        pvalues: list[float | None] = [None] * min(len(ids), VIEWED_TOKENS)
        statistics = statistics_of(scheme, subkey(candidate.key, part.subkey), shown)
        unit = scheme.unit if in_nats(scheme.law) else 1
        log10_ps = tails.log10_sf_many(scheme.law, 1, statistics * unit)
        for position, log10_p in zip(shown.positions.tolist(), log10_ps.tolist(), strict=True):
            pvalues[position] = float(f"{10**log10_p:.4g}")
        decode = self.encoder.tokenizer.decode
        texts = [decode([token], skip_special_tokens=False) for token in ids[:VIEWED_TOKENS].tolist()]
        return TokenView(hypothesis=best.key, subkey=part.subkey, texts=texts, pvalues=pvalues)


class Tested(NamedTuple):
    """Documents in the order in which they were given, and where there are many keys the hash of each key's sums."""

    documents: list[Document]
    key_sums: list[str] | None


def prepare(
    spec: WatermarkSpec, ring: KeyRing, tokenizer: Any, settings: Settings, *, model: Model | None = None
) -> Bench:
    """Make ready what the tests of any number of documents share.

    Raises
    ------
    DyetraceError
        Key or tokenizer are not the spec's, or there is no key to test.
    """
    check_key(spec, ring.master_fingerprint)
    check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    accounts = settings.decoy_accounts
    if accounts is None:
        accounts = accounts_of_decoys(len(ring.tenants), settings.decoy_count)
    if model is not None and model.first is None:
        model = replace(model, first=leading_tokens(load_tokenizer(tokenizer)))
    family = Family(
        spec,
        ring,
        decoy_seed=settings.decoy_seed,
        decoy_count=settings.decoy_count,
        decoy_accounts=accounts,
        keep=KEPT,
        log10_alpha=math.log10(settings.alpha),
    )
    return Bench(spec, ring, settings, Encoder.load(tokenizer), family, accounts, model)


def recorded(
    bench: Bench,
    suspects: Sequence[Suspect],
    inputs: Sequence[Input],
    tested: Tested,
    *,
    commitment: Commitment | None = None,
    opened: bool = False,
    arguments: dict[str, Any] | None = None,
    made: Made | None = None,
    unlike_text: int | None = None,
) -> Record:
    """Make the record of tested documents; the parameters are those of `detect` and what `Bench.held` counted."""
    spec, settings = bench.spec, bench.settings
    record = Record(
        created=now(),
        arguments=arguments or {},
        versions=versions(),
        spec=msgspec.json.decode(spec.canonical_json, type=WatermarkSpec),
        spec_id=spec.spec_id,
        key_fingerprint=bench.ring.master_fingerprint,
        commitment=commitment,
        tests=["blind"] if bench.model is None else ["blind", "model-aware"],
        alpha=settings.alpha,
        decoy_seed=settings.decoy_seed,
        decoy_count=settings.decoy_count,
        encoder=bench.encoder.note,
        inputs=list(inputs),
        documents=tested.documents,
        calibration=explanation(spec.build_scheme()),
        made=made or made_by(),
        quotes=settings.quotes,
        keys=None
        if tested.key_sums is None
        else [
            KeySums(key=str(name), sha256=one) for name, one in zip(bench.family.names, tested.key_sums, strict=True)
        ],
        decoy_accounts=bench.decoy_accounts,
        unlike_text=unlike_text,
    )
    with_ids = sum(suspect.token_ids is not None for suspect in suspects)
    return msgspec.structs.replace(
        record, assumptions=of_detection(record, opened, with_ids), how_to_check=in_words(record)
    )


def _ids(suspect: Suspect, encoder: Encoder, spec: WatermarkSpec) -> U32:
    if suspect.token_ids is None:
        return encoder.encode(suspect.text or "")
    ids = np.array(suspect.token_ids, dtype=np.uint32)
    if len(ids) and ids.max() >= spec.vocabulary_size:
        raise DyetraceError(
            f"{suspect.name} has token id {ids.max()}, but the spec's vocabulary has {spec.vocabulary_size} entries; "
            "its ids come from another tokenizer"
        )
    return ids


def _prompt(suspect: Suspect) -> U32 | None:
    """The prompt, where it is known."""
    return None if suspect.prompt_token_ids is None else np.array(suspect.prompt_token_ids, dtype=np.uint32)


def _tuples(ids: U32, prompt: U32 | None, spec: WatermarkSpec) -> Tuples:
    """A known prompt makes the first h tokens testable; what a format doesn't read of it might as well not be there."""
    read = prompt if prompt is None or reads_prompt(spec.build_scheme()) else prompt[:0]
    return distinct_tuples(ids, spec.context_width, read)


@dataclass(frozen=True, slots=True)
class _Read:
    """A document ready to be tested."""

    suspect: Suspect
    ids: U32
    prompt: U32 | None
    tuples: Tuples


def _batches(suspects: Sequence[Suspect], encoder: Encoder, spec: WatermarkSpec, sums: int) -> Iterator[list[_Read]]:
    """Documents in order, as many at a time as make calls worth their cost and their sums fit the memory set aside."""
    batch: list[_Read] = []
    tuples = 0
    for suspect in suspects:
        ids, prompt = _ids(suspect, encoder, spec), _prompt(suspect)
        batch.append(_Read(suspect, ids, prompt, _tuples(ids, prompt, spec)))
        tuples += len(batch[-1].tuples)
        if len(batch) * sums >= _SUMS or tuples >= CHUNK:
            yield batch
            batch, tuples = [], 0
    if batch:
        yield batch


def _nothing(read: _Read) -> str:
    """Why a document holds nothing to test."""
    width = read.tuples.width
    if len(read.tuples):
        return f"{NOTHING}: all of its tuples ({len(read.tuples):,}) belong to keys that were not tested"
    if not len(read.ids):
        return f"{NOTHING}: the document is empty"
    return (
        f"{NOTHING}: the document is no longer than the context ({width}; tokens: {len(read.ids):,}), and only what "
        "follows the first context can be tested"
    )


def _document(read: _Read, blind: BlindTest, aware: AwareResult | None) -> Document:
    return Document(
        name=read.suspect.name,
        sha256=hashlib.sha256(read.ids.astype("<u4").tobytes()).hexdigest(),
        tokens=len(read.ids),
        prompt_tokens=None if read.prompt is None else len(read.prompt),
        tuples=len(read.tuples),
        hypotheses=[] if blind.refused else blind.hypotheses,
        log10_pvalue=None if blind.refused else blind.log10_pvalue,
        log10_pvalue_corpus=None,
        decoys=blind.decoys,
        aware=aware,
        refused=blind.refused if blind.tuples else _nothing(read),
        keys_tested=blind.keys,
    )


def adjust(documents: list[Document], alpha: float) -> list[Document]:
    """Pay for the number of documents (Holm), and for asking with and without the model (each at alpha / 2).

    Holm's correction holds however documents depend on each other. Which key is named is paid for by itself, over all
    pairs of a document and a key (`detect.document.pointing`).
    """
    adjusted = holm_log10(np.array([0.0 if d.log10_pvalue is None else d.log10_pvalue for d in documents]))
    aware = holm_log10(np.array([0.0 if d.aware is None else d.aware.log10_pvalue for d in documents]))
    limit = math.log10(level_per_test(documents, alpha))
    names = [list(dict.fromkeys([*one, *other])) for one, other in zip(*blind_and_aware(documents, alpha), strict=True)]
    return [
        msgspec.structs.replace(
            document,
            log10_pvalue_corpus=None if document.refused else float(blind),
            found=document.refused is None and bool(blind <= limit or with_model <= limit),
            points_to=keys,
        )
        for document, blind, with_model, keys in zip(documents, adjusted, aware, names, strict=True)
    ]


def _unquoted(documents: list[Document], suspects: Sequence[Suspect]) -> list[Document]:
    """The documents without their texts, and without ids, which may be titles."""
    return [
        msgspec.structs.replace(
            document,
            name=suspect.unquoted,
            view=None
            if document.view is None
            else msgspec.structs.replace(document.view, texts=[""] * len(document.view.texts)),
        )
        for document, suspect in zip(documents, suspects, strict=True)
    ]
