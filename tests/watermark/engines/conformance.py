"""What every engine must pass: one suite over served answers, however they were had (in process, or as JSON over HTTP).

Nothing of the hook is used. Contexts are cut here, keys come from `KeyRing`, words from the numpy reference of
`watermark.prf`, tails from `detect.laws.tails`. Two strengths: `conform` needs token ids alone and judges by exact
p-values; where answers bring their candidates' log-probabilities, it checks each choice too (`gumbel` alone).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kstest

from detect.laws.tails import log10_sf
from watermark import prf
from watermark.keys import KeyRing, SecretKey
from watermark.laws import Exponential
from watermark.rowkeys import selector_threshold, subkey
from watermark.spec import WatermarkSpec

Tuple = tuple[tuple[int, ...], int]
STRANGERS = 200
CLOSE = 1e-3
"""Nats: two candidates whose races are as close as this may change places by rounding of an engine's logits."""
UNLIKELY = -6.0
"""Log10 p that no unmarked text and no wrong account may fall below (one run in a million would)."""


@dataclass(frozen=True)
class Answered:
    """One answer as a client has it.

    Attributes
    ----------
    tenant
        The account that the request named; None where it named none.
    prompt, tokens
        Token ids; fewer of them where the request was cancelled.
    marked
        Whether it should be: False for a request that opted out.
    candidates
        At each position the final distribution: token to log-probability up to a constant. None where not known.
    """

    tenant: str | None
    prompt: Sequence[int]
    tokens: Sequence[int]
    marked: bool = True
    candidates: Sequence[Mapping[int, float]] | None = None


@dataclass(frozen=True)
class Conformance:
    """What `conform` found.

    Attributes
    ----------
    tuples, mismatches, close
        Choices checked one by one, those that the reference would not make, and those that rounding decides.
    log10_pvalues
        Of each account over its own answers; of None, the key that all share, over all answers.
    strangers
        P-values of made-up accounts over all answers; uniform.
    log10_unmarked
        The smallest of any account over the answers that should not be marked; 0 without such answers.
    """

    tuples: int
    mismatches: int
    close: int
    log10_pvalues: dict[str | None, float]
    strangers: np.ndarray[Any, np.dtype[np.float64]]
    log10_unmarked: float


def read(answers: Iterable[Mapping[str, Any]]) -> list[Answered]:
    """Answers as JSON: ``prompt_token_ids``, ``token_ids``, ``tenant``, ``marked`` and perhaps ``candidates``."""
    return [
        Answered(
            found.get("tenant"),
            found["prompt_token_ids"],
            found["token_ids"],
            found.get("marked", True),
            None
            if found.get("candidates") is None
            else [{int(token): float(value) for token, value in row.items()} for row in found["candidates"]],
        )
        for found in answers
    ]


def conform(spec: WatermarkSpec, master: SecretKey, answers: Sequence[Answered], *, log10_p: float) -> Conformance:
    """Check all answers of one run; AssertionError says which check failed.

    Parameters
    ----------
    spec, master
        The watermark and the owner's key.
    answers
        Of several accounts, and some that opted out.
    log10_p
        What each account's own evidence must reach.
    """
    marked = [answer for answer in answers if answer.marked]
    accounts = sorted({answer.tenant for answer in marked}, key=str)
    ring = KeyRing.from_master(master, spec.epoch, tuple(name for name in accounts if name is not None))
    found = {name: evidence(spec, ring, name, [a for a in marked if a.tenant == name]) for name in accounts}
    if 0 < spec.global_share < 1:  # the mark that all accounts share
        accounts.append(None)
        found[None] = evidence(spec, ring, None, marked)
    for name, value in found.items():
        assert value <= log10_p, f"account {name!r}: log10 p = {value:.1f}, expected {log10_p} or less"
        others = [answer for answer in marked if answer.tenant != name]
        if name is not None and others:
            wrong = evidence(spec, ring, name, others)
            assert wrong > UNLIKELY, f"account {name!r} is found in others' answers: log10 p = {wrong:.1f}"
    strangers = made_up_accounts(spec, master, answers)
    assert kstest(strangers, "uniform").pvalue > 1e-6, f"made-up accounts' p-values are not uniform: {strangers}"
    plain = [answer for answer in answers if not answer.marked]
    unmarked = min((evidence(spec, ring, name, plain) for name in accounts), default=0.0) if plain else 0.0
    assert unmarked > UNLIKELY, f"answers that opted out carry a mark: log10 p = {unmarked:.1f}"
    checks = [choices(spec, ring, answer) for answer in marked if answer.candidates is not None]
    looked, wrong_ones, close = (sum(each) for each in zip(*checks, strict=True)) if checks else (0, 0, 0)
    report = Conformance(looked, wrong_ones, close, found, strangers, unmarked)
    assert report.mismatches == 0, f"{report.mismatches} of {report.tuples} choices are not the reference's"
    assert report.close <= 0.01 * report.tuples, f"rounding decides {report.close} of {report.tuples} choices"
    return report


def tuples(spec: WatermarkSpec, answer: Answered) -> list[Tuple]:
    """Context and token of each position whose context stands there first in the answer."""
    found: dict[tuple[int, ...], int] = {}
    for context, token in zip(_contexts(spec, answer), answer.tokens, strict=True):
        found.setdefault(context, token)
    return list(found.items())


def _contexts(spec: WatermarkSpec, answer: Answered) -> list[tuple[int, ...]]:
    """The context of each of the answer's tokens."""
    h = spec.context_width
    sequence = [prf.MISSING] * h + list(answer.prompt) + list(answer.tokens)
    start = len(answer.prompt)
    return [tuple(sequence[start + position : start + position + h]) for position in range(len(answer.tokens))]


def choices(spec: WatermarkSpec, ring: KeyRing, answer: Answered) -> tuple[int, int, int]:
    """Tuples looked at, those where the reference chooses another token, and those that rounding decides (`CLOSE`).

    The choice is the largest log p - log(-log u) among the candidates, u = (word + 1/2) / 2^32, under the sub-key that
    fits the answer best.
    """
    assert spec.scheme == "gumbel"
    assert answer.candidates is not None
    places = {context: position for position, context in reversed(list(enumerate(_contexts(spec, answer))))}
    found = [(context, answer.tokens[position]) for context, position in places.items()]
    owners = _of_global(spec, ring, found)
    keys = [ring.global_key if common or answer.tenant is None else ring.tenants[answer.tenant] for common in owners]

    def under(index: int) -> list[float]:
        """By how much each token loses its race; 0 where it wins, infinite where it does not run."""
        lost = []
        for (context, token), position, key in zip(found, places.values(), keys, strict=True):
            assert isinstance(key, SecretKey)
            mine = subkey(key, index)
            candidates = answer.candidates[position]  # type: ignore[index]
            ids = np.array(list(candidates), dtype=np.uint32)
            nonce = prf.nonces(np.array([context], dtype=np.uint32), prf.context_key_words(mine, spec.context_width))
            words = prf.words_at_reference(mine.words, np.tile(nonce, len(ids)), ids)
            races = np.array(list(candidates.values())) - np.log(-np.log((words + 0.5) / 2**32))
            lost.append(float(races.max() - races[ids == token].max(initial=-np.inf)))
        return lost

    lost = np.array(min((under(index) for index in range(spec.subkeys)), key=lambda each: sum(x > CLOSE for x in each)))
    return len(lost), int((lost > CLOSE).sum()), int(((lost > 0) & (lost <= CLOSE)).sum())


def evidence(spec: WatermarkSpec, ring: KeyRing, account: str | None, answers: Sequence[Answered]) -> float:
    """Log10 p of an account over answers, each under its likeliest sub-key: paid for, then Fisher's combination."""
    key = ring.global_key if account is None else ring.tenants[account]
    assert isinstance(key, SecretKey)
    nats = count = 0.0
    for answer in answers:
        mine = _owned(spec, ring, account, tuples(spec, answer))
        if not mine:
            continue
        under = [log10_pvalue(spec, subkey(key, index), mine) for index in range(spec.subkeys)]
        nats -= min(0.0, min(under) + math.log10(spec.subkeys)) * math.log(10)
        count += 1
    return log10_sf(Exponential(), int(count), nats) if count else 0.0


def log10_pvalue(spec: WatermarkSpec, key: SecretKey, found: Sequence[Tuple]) -> float:
    """Log10 p of tuples under one key, exact."""
    scheme = spec.build_scheme()
    contexts = np.array([context for context, _ in found], dtype=np.uint32).reshape(len(found), spec.context_width)
    tokens = np.array([token for _, token in found], dtype=np.uint32)
    nonces = prf.nonces(contexts, prf.context_key_words(key, spec.context_width))
    total = int(scheme.statistic(prf.words_at_reference(key.words, nonces, tokens)).sum())
    return log10_sf(scheme.law, len(found), total * scheme.unit if scheme.name == "gumbel" else total)


def made_up_accounts(
    spec: WatermarkSpec, master: SecretKey, answers: Sequence[Answered], count: int = STRANGERS
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """P-values of keys that marked nothing, each over all distinct tuples: independent and uniform, (count,)."""
    distinct = list({found: None for answer in answers for found in tuples(spec, answer)})
    other = KeyRing.from_master(master.derive("tenant", "strangers"))
    assert isinstance(other.global_key, SecretKey)
    keys = [other.global_key.derive("subkey", index) for index in range(count)]
    return np.array([10.0 ** log10_pvalue(spec, key, distinct) for key in keys])


def _owned(spec: WatermarkSpec, ring: KeyRing, account: str | None, found: Sequence[Tuple]) -> list[Tuple]:
    """Those whose context the account's key marks (None: the global key)."""
    owners = _of_global(spec, ring, found)
    return [one for one, common in zip(found, owners, strict=True) if common == (account is None)]


def _of_global(spec: WatermarkSpec, ring: KeyRing, found: Sequence[Tuple]) -> list[bool]:
    """Whether the global key marks each tuple's context."""
    threshold = selector_threshold(spec)
    return [prf.prf_u32(ring.selector, list(context), 0) < threshold for context, _ in found]
