"""Toy teachers and suspects that look guilty to a careless test, though none of them ever saw the key.

A language is a table: for each pair of preceding tokens a few candidates with their probabilities, the end among them.
Tokens are single characters, so that text and tokens are the same thing and nothing depends on a model; marked answers
are made by the real key ring, cipher and choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models

from detect.student.asking.answers import Position, SuspectAnswer, TokenLogprob
from watermark import prf
from watermark.generate import Answer
from watermark.keys import KeyRing, SecretKey
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.rowkeys import selector_threshold, subkey
from watermark.spec import WatermarkSpec

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

DIGITS = 10  # ids 0 .. 9: prompts are made of them, answers never
LETTERS = 300
END = DIGITS + LETTERS
VOCABULARY = END + 1
WIDTH = 2


def toy_tokenizer() -> Tokenizer:
    """One token a character: digits, letters from one block of Unicode, and a character for the end."""
    characters = [*"0123456789", *(chr(0x4E00 + letter) for letter in range(LETTERS)), "\x03"]
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


TOKENIZER = toy_tokenizer()
_CHARACTERS = [str(TOKENIZER.id_to_token(i)) for i in range(VOCABULARY)]


def spelled(ids: Sequence[int]) -> str:
    """The text of some tokens."""
    return "".join(_CHARACTERS[i] for i in ids)


def spec_of(key: SecretKey, **fields: Any) -> WatermarkSpec:
    """A spec of the toy tokenizer with two sub-keys."""
    defaults: dict[str, Any] = {
        "vocabulary_size": vocabulary_size(TOKENIZER),
        "tokenizer": tokenizer_fingerprint(TOKENIZER),
        "key_fingerprint": key.fingerprint,
        "context_width": WIDTH,
        "subkeys": 2,
    }
    return WatermarkSpec(**{**defaults, **fields})


@dataclass(frozen=True, eq=False)
class Table:
    """A language: candidates and probabilities after each pair of tokens, row ``a * VOCABULARY + b``.

    Attributes
    ----------
    tokens
        Shape (pairs, k).
    probabilities
        Shape (pairs, k); rows sum to 1.
    """

    tokens: I64
    probabilities: F64

    def rows(self, before: I64, last: I64) -> tuple[I64, F64]:
        """Candidates and probabilities after pairs of tokens, each (b, k)."""
        row = before * VOCABULARY + last
        return self.tokens[row], self.probabilities[row]

    @cached_property
    def greedy(self) -> Table:
        """The deterministic twin: always the likeliest token."""
        best = self.probabilities.argmax(axis=1)
        hard = np.zeros_like(self.probabilities)
        hard[np.arange(len(best)), best] = 1.0
        return Table(self.tokens, hard)

    @cached_property
    def endless(self) -> Table:
        """The same without the end: a model of texts from which the end was cut, as most are."""
        going = self.probabilities[:, :-1]
        return Table(self.tokens[:, :-1], going / going.sum(axis=1, keepdims=True))

    def taught(self, answers: Sequence[Answer], memory: float = 2.0) -> Table:
        """A student of some answers: after pairs that it saw n times, n / (n + memory) of its mass is what it saw."""
        counts = np.zeros_like(self.probabilities)
        for answer in answers:
            ids = np.array([*answer.prompt_token_ids[-WIDTH:], *answer.token_ids, END], dtype=np.int64)
            row = ids[:-2] * VOCABULARY + ids[1:-1]
            hit = self.tokens[row] == ids[2:, None]
            np.add.at(counts, row, hit.astype(np.float64))
        seen = counts.sum(axis=1, keepdims=True)
        return Table(self.tokens, (counts + memory * self.probabilities) / (seen + memory))


def prose(seed: int, candidates: int = 6, end: float = 0.04) -> Table:
    """Random text: some candidates after each pair, and a small chance to end."""
    rng = np.random.default_rng(seed)
    pairs = VOCABULARY**2
    tokens = DIGITS + rng.integers(LETTERS - candidates, size=(pairs, 1)) + np.arange(candidates)[None, :]
    mass = rng.dirichlet(np.full(candidates, 0.7), pairs) * (1 - end)
    return Table(_with_end(tokens), np.concatenate([mass, np.full((pairs, 1), end)], axis=1))


def stop_or_go(seed: int, go: float = 0.5, words: int = 1) -> Table:
    """Lists, tags, very short answers: after each pair one of few next words, or the end."""
    rng = np.random.default_rng(seed)
    pairs = VOCABULARY**2
    tokens = DIGITS + rng.integers(LETTERS - words, size=(pairs, 1)) + np.arange(words)[None, :]
    mass = go * rng.dirichlet(np.full(words, 2.0), pairs)
    return Table(_with_end(tokens), np.concatenate([mass, np.full((pairs, 1), 1 - go)], axis=1))


def cycles(length: int, going: float = 0.5) -> Table:
    """Short circles of words (a b y a b y ...): the next of its circle, some word beside it, or the end."""
    pairs = np.arange(VOCABULARY**2)
    letter = pairs % VOCABULARY - DIGITS
    circle, place = letter // length, letter % length
    following = np.clip(circle * length + (place + 1) % length, 0, LETTERS - 2)
    aside = (following + LETTERS // 2) % LETTERS
    tokens = DIGITS + np.stack([following, aside], axis=1)
    return Table(_with_end(tokens), np.tile([going, 0.4 * going, 1 - 1.4 * going], (len(pairs), 1)))


def _with_end(tokens: I64) -> I64:
    return np.concatenate([tokens, np.full((len(tokens), 1), END)], axis=1)


@dataclass(frozen=True, eq=False)
class Prompts:
    """What is asked, and with which two tokens each answer begins (its subject, whoever answers).

    Attributes
    ----------
    ids
        Token ids of each prompt.
    opening
        Shape (n, 2).
    """

    ids: list[list[int]]
    opening: I64

    @classmethod
    def of(cls, count: int, seed: int, openings: I64 | None = None) -> Prompts:
        """Numbers as prompts, each with a subject of its own."""
        rng = np.random.default_rng(seed)
        own = DIGITS + rng.integers(LETTERS, size=(count, 2)) if openings is None else openings
        return cls([[int(digit) for digit in f"{number:05d}"] for number in range(count)], own)

    def texts(self) -> list[str]:
        return [spelled(ids) for ids in self.ids]


def written(
    table: Table,
    prompts: Prompts,
    rng: np.random.Generator,
    *,
    mark: tuple[WatermarkSpec, KeyRing] | None = None,
    tenant: str | None = None,
    samples: int = 1,
    most: int = 40,
) -> list[Answer]:
    """Answers to all prompts, ``samples`` of each in turn; with the end token where they ended by themselves.

    As the product marks: under a sub-key that is drawn for each answer, by the context of all tokens before, and not
    where the context chose a token of the same answer before. A twin without a mark draws with its own dice.
    """
    count = len(prompts.ids)
    row_of = np.repeat(np.arange(count), samples)
    b = len(row_of)
    subkeys = np.zeros(b, dtype=np.int64) if mark is None else rng.integers(mark[0].subkeys, size=b)
    sequences = [[*prompts.ids[p], *prompts.opening[p].tolist()] for p in row_of.tolist()]
    seen: list[set[tuple[int, ...]]] = [
        set() if mark is None else _answered(s, len(prompts.ids[p]), mark[0].context_width)
        for s, p in zip(sequences, row_of.tolist(), strict=True)
    ]
    before, last = prompts.opening[row_of].T.copy()
    alive = np.arange(b)
    for _ in range(most - 2):
        if not len(alive):
            break
        tokens, mass = table.rows(before[alive], last[alive])
        with np.errstate(divide="ignore"):
            own = (np.log(mass) + rng.gumbel(size=mass.shape)).argmax(axis=1)
        chosen = tokens[np.arange(len(alive)), own]
        if mark is not None:
            spec = mark[0]
            contexts = [tuple(sequences[i][-spec.context_width :]) for i in alive.tolist()]
            fresh = np.array([c not in seen[i] for c, i in zip(contexts, alive.tolist(), strict=True)])
            for c, i in zip(contexts, alive.tolist(), strict=True):
                seen[i].add(c)
            array = np.array(contexts, dtype=np.uint32)
            raced = _raced(spec, mark[1], tenant, array, subkeys[alive], tokens, mass)
            chosen = np.where(fresh, raced, chosen)
        for i, token in zip(alive.tolist(), chosen.tolist(), strict=True):
            sequences[i].append(token)
        before[alive], last[alive] = last[alive], chosen
        alive = alive[chosen != END]
    return [
        _answer(f"{p}.{i}", prompts.ids[p], s[len(prompts.ids[p]) :], mark, tenant, int(k))
        for i, (p, s, k) in enumerate(zip(row_of.tolist(), sequences, subkeys.tolist(), strict=True))
    ]


def _answered(sequence: list[int], lead: int, width: int) -> set[tuple[int, ...]]:
    """Contexts that chose the tokens so far of an answer."""
    return {tuple(sequence[place - width : place]) for place in range(lead, len(sequence))}


def _raced(
    spec: WatermarkSpec,
    ring: KeyRing,
    tenant: str | None,
    contexts: prf.U32,
    subkeys: I64,
    tokens: I64,
    mass: F64,
) -> I64:
    """What the key chooses at each context."""
    import torch

    nonces = prf.nonces(contexts, None)
    zero = np.zeros((len(contexts), 1), dtype=np.uint32)
    selector = prf.words_among(np.tile(ring.selector.words, (len(contexts), 1)), nonces, zero)[:, 0]
    common = selector.astype(np.int64) < selector_threshold(spec)
    parts = {}
    for index in range(spec.subkeys):
        shared = subkey(ring.global_key, index).words if isinstance(ring.global_key, SecretKey) else None
        mine = shared if tenant is None else subkey(ring.tenants[tenant], index).words
        parts[index] = (mine, shared)
    keys = np.array([parts[k][int(c)] for k, c in zip(subkeys.tolist(), common.tolist(), strict=True)])
    words = prf.words_among(keys, nonces, tokens.astype(np.uint32))
    with np.errstate(divide="ignore"):
        logits = torch.from_numpy(np.log(mass).astype(np.float32))
    marked = spec.build_scheme().transform(logits, torch.from_numpy(words.astype(np.int64)))
    return np.asarray(tokens[np.arange(len(tokens)), marked.argmax(-1).numpy()])


def _answer(
    name: str, prompt: list[int], ids: list[int], mark: tuple[WatermarkSpec, KeyRing] | None, tenant: str | None, k: int
) -> Answer:
    return Answer(
        id=name,
        prompt=spelled(prompt),
        text=spelled([i for i in ids if i != END]),
        prompt_token_ids=prompt,
        token_ids=ids,
        spec_id=None if mark is None else mark[0].spec_id,
        tenant=tenant,
        subkey=None if mark is None else k,
    )


def as_said(answers: Sequence[Answer], prompts: int, table: Table | None = None) -> list[list[SuspectAnswer]]:
    """Answers as an endpoint gives them, by prompt: texts, with the alternatives of a table at each position."""
    each = len(answers) // prompts
    said = []
    for number in range(prompts):
        own = answers[number * each : (number + 1) * each]
        said.append([_said(number, sample, answer, table) for sample, answer in enumerate(own)])
    return said


def _said(number: int, sample: int, answer: Answer, table: Table | None) -> SuspectAnswer:
    tokens = None if table is None else tuple(_positions(answer, table))
    return SuspectAnswer(number, sample, answer.text, tokens, "stop", None, None, 0)


def _positions(answer: Answer, table: Table) -> Any:
    ids = [i for i in answer.token_ids if i != END]
    for place, token in enumerate(ids):
        if place < WIDTH:
            yield Position(_logprob(token, 1.0), (_logprob(token, 1.0),))
            continue
        candidates, mass = table.rows(np.array([ids[place - 2]]), np.array([ids[place - 1]]))
        pairs = sorted(zip(mass[0].tolist(), candidates[0].tolist(), strict=True), reverse=True)
        top = tuple(_logprob(candidate, p) for p, candidate in pairs if p > 0)
        yield Position(_logprob(token, dict((c, p) for p, c in pairs).get(token, 1e-9)), top)


def _logprob(token: int, p: float) -> TokenLogprob:
    text = _CHARACTERS[token]
    return TokenLogprob(text, text.encode(), token, float(np.log(p)))


def with_text(prompts: Prompts, texts: Sequence[Sequence[int]]) -> Prompts:
    """The same prompts with some text in each: "correct this"."""
    return replace(prompts, ids=[[*ids, *text] for ids, text in zip(prompts.ids, texts, strict=True)])
