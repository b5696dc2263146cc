"""A small world in which a key may be drawn anew thousands of times: an owner that serves answers, and suspects.

The owner and the suspect see the last three tokens; what is served is chosen by the real schemes under the real keys,
and which places count is decided by the real rule (`detect.models.reading.positions`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detect.keyed.choices import choices, keyed_scheme
from detect.models.reading import NO_SUBKEY, ReadingDocument, ReadingText, positions
from detect.race.bets import log10_evalues, stakes
from detect.race.evidence import NOT_SAID, RaceEvidence
from detect.race.tilts import tilts
from detect.records.race import RaceAsk
from watermark import prf
from watermark.keys import KeyRing, SecretKey
from watermark.rowkeys import key_words, selector_threshold
from watermark.schemes.green_list import GreenList
from watermark.spec import WatermarkSpec

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

VOCABULARY = 16
LEAD = 3
LENGTH = 14
MASTER = SecretKey(b"a master key for the race tests.")

Reply = Callable[[U32, U32], F64]
"""From prefixes (n, 3) and what was served next (n,) to probabilities (n, vocabulary); an honest one forgets the
second."""


def spec_of(scheme: str = "gumbel", **fields: Any) -> WatermarkSpec:
    given = {"subkeys": 1, **fields}
    return WatermarkSpec(
        scheme=scheme,
        vocabulary_size=VOCABULARY,
        tokenizer="0" * 64,
        key_fingerprint=MASTER.fingerprint,
        **given,
    )


def fresh_ring(rng: np.random.Generator, accounts: tuple[str, ...] = ()) -> KeyRing:
    return KeyRing.from_master(SecretKey(rng.bytes(32)), 0, accounts)


@dataclass(frozen=True, eq=False)
class Model:
    """Logits by the last three tokens."""

    pairs: F64
    third: F64

    @classmethod
    def drawn(cls, seed: int, sharpness: float = 1.6) -> Model:
        rng = np.random.default_rng(seed)
        return cls(sharpness * rng.normal(size=(VOCABULARY,) * 3), 0.7 * sharpness * rng.normal(size=(VOCABULARY,) * 2))

    def near(self, seed: int, noise: float = 0.8) -> Model:
        """Another model of the same language."""
        other = Model.drawn(seed, noise)
        return Model(0.9 * self.pairs + other.pairs, 0.9 * self.third + other.third)

    def chances(self, prefixes: U32) -> F64:
        logits = self.pairs[prefixes[:, -2], prefixes[:, -1]] + self.third[prefixes[:, -3]]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = np.maximum(p / p.sum(axis=1, keepdims=True), 1e-4)
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def reply(self, prefixes: U32, served: U32) -> F64:
        return self.chances(prefixes)


OWNER = Model.drawn(1)
SIBLING = OWNER.near(2)


def memory(served: npt.NDArray[np.bool_] | float, model: Model = SIBLING) -> Reply:
    """A suspect that remembers what was served after a prefix: in the measure given, of each row or of all."""

    def reply(prefixes: U32, following: U32) -> F64:
        q = model.chances(prefixes)
        share = np.broadcast_to(served, len(q)).astype(np.float64)
        mixed = q * (1 - share)[:, None]
        mixed[np.arange(len(q)), following] += share
        return np.asarray(mixed)

    return reply


@dataclass(frozen=True, eq=False)
class Served:
    """Answers as the owner served them: tokens (n, LEAD + LENGTH), their sub-keys and accounts."""

    tokens: U32
    subkeys: I64
    accounts: tuple[str, ...]
    account: I64


def serve(spec: WatermarkSpec, ring: KeyRing, count: int = 24, *, seed: int = 3, length: int = LENGTH) -> Served:
    """Serve answers to prompts that are the same whatever the key is."""
    rng = np.random.default_rng(seed)
    accounts = tuple(sorted(ring.tenants))
    account = rng.integers(len(accounts), size=count) if accounts else np.full(count, -1)
    subkeys = rng.integers(spec.subkeys, size=count)
    words = [
        key_words(spec, ring, accounts[whose] if whose >= 0 and spec.global_share < 1 else None, int(index))
        for whose, index in zip(account.tolist(), subkeys.tolist(), strict=True)
    ]
    keys = np.array([one.keys for one in words], dtype=np.uint32)
    scheme = keyed_scheme(spec.build_scheme())
    tokens = np.empty((count, LEAD + length), dtype=np.uint32)
    tokens[:, :LEAD] = rng.integers(VOCABULARY, size=(count, LEAD))
    candidates = np.tile(np.arange(VOCABULARY, dtype=np.uint32), (count, 1))
    rows = np.arange(count)
    for at in range(LEAD, LEAD + length):
        chances = OWNER.chances(tokens[:, at - 3 : at])
        nonces = prf.nonces(tokens[:, at - spec.context_width : at], None)
        of_selector = prf.words_at(ring.selector.words, nonces, np.zeros(count, dtype=np.uint32))
        own = keys[rows, (of_selector < selector_threshold(spec)).astype(int)]
        drawn = prf.words_among(np.ascontiguousarray(own), nonces, candidates)
        if isinstance(scheme, GreenList):
            marked = chances * np.exp(scheme.delta * scheme.statistic(drawn))
        else:
            marked = choices(scheme, drawn, chances)
        cumulative = np.cumsum(marked, axis=1)
        tokens[:, at] = (cumulative < (rng.random(count) * cumulative[:, -1])[:, None]).sum(axis=1)
    return Served(tokens, subkeys, accounts, account)


def readout(
    served: Served,
    spec: WatermarkSpec,
    ask: RaceAsk = "greedy",
    reply: Reply = SIBLING.reply,
    *,
    known: bool = True,
    owner: Model = OWNER,
    per_answer: int | None = None,
    every_use: bool = False,
    reference: Model | None = None,
) -> RaceEvidence:
    """Read what was served with a suspect.

    known
        Whether the sub-keys are on record.
    owner
        The model that the chances are computed with.
    per_answer
        Cut only at the first places of each answer whose chances are spread.
    every_use
        Wrongly: take every place at which a context is used for the first time in its own answer.
    reference
        A model that the suspect is compared with.
    """
    count, width = len(served.tokens), spec.context_width
    documents = [
        ReadingDocument(f"served.jsonl, line {number + 1}", row, LEAD, int(index) if known else NO_SUBKEY)
        for number, (row, index) in enumerate(zip(served.tokens, served.subkeys, strict=True))
    ]
    if every_use:
        wheres = [positions(ReadingText("", "", [one], True), width, 10**9) for one in documents]
        document = np.concatenate([np.full(len(where), number) for number, where in enumerate(wheres)])
        place = np.concatenate([where.position for where in wheres])
    else:
        where = positions(ReadingText("served.jsonl", "", documents, True), width, 10**9)
        document, place = where.document, where.position
    inside = place < served.tokens.shape[1]  # the last context of an answer has nothing behind it
    document, place = document[inside], place[inside]
    chances = owner.chances(np.stack([served.tokens[document, place - back] for back in (3, 2, 1)], axis=1))
    if per_answer is not None:
        kept, taken = [], dict.fromkeys(range(count), 0)
        for row, number in enumerate(document.tolist()):
            if 1 - (chances[row] ** 2).sum() > 0.5 and taken[number] < per_answer:
                taken[number] += 1
                kept.append(row)
        document, place, chances = document[kept], place[kept], chances[kept]
    prefixes = np.stack([served.tokens[document, place - back] for back in (3, 2, 1)], axis=1)
    following = served.tokens[document, place]
    q = reply(prefixes, following)
    rows = np.arange(len(document))
    leaning = np.log(q) - (0.75 * np.log(np.maximum(chances, 0.005)) if ask == "bias" else 0.0)
    shares = np.zeros((len(q), 0)) if ask in ("greedy", "bias") else q
    said = np.full(len(q), NOT_SAID)
    if ask == "echo":
        shares = np.full(q.shape, np.nan)
        shares[rows, following] = q[rows, following]
    else:
        said = leaning.argmax(axis=1)
    contexts = np.stack([served.tokens[document, place - back] for back in range(width, 0, -1)], axis=1)
    return RaceEvidence(
        ask=ask,
        contexts=contexts,
        subkeys=(served.subkeys[document] if known else np.full(len(document), -1)).astype(np.int32),
        documents=document.astype(np.int32),
        positions=place.astype(np.int32),
        tokens=np.tile(np.arange(VOCABULARY, dtype=np.int32), (len(document), 1)),
        chances=chances,
        said=said.astype(np.int32),
        shares=shares,
        steps=np.arange(1, len(document) + 1, dtype=np.int32),
        names=tuple(one.name for one in documents),
        accounts=served.accounts,
        account=served.account.astype(np.int32),
        base=None if reference is None else reference.chances(prefixes),
    )


def path(evidence: RaceEvidence, spec: WatermarkSpec, ring: KeyRing) -> F64:
    """Log10 of the e-value after each cut, all of them under the global key."""
    assert isinstance(ring.global_key, SecretKey)
    tilt = tilts(spec, ring.global_key, evidence.contexts, evidence.subkeys, evidence.tokens, evidence.chances)
    laid = stakes(evidence.ask, evidence.chances, evidence.said, evidence.shares, evidence.base)
    return log10_evalues(evidence.documents, laid.log_growths(tilt))


def without_replies(evidence: RaceEvidence, rows: npt.NDArray[np.bool_]) -> RaceEvidence:
    """The same with no reply at some of the cuts."""
    shares = evidence.shares.copy()
    shares[rows] = np.nan
    return replace(evidence, said=np.where(rows, NOT_SAID, evidence.said).astype(np.int32), shares=shares)
