"""The product's own ways from answers to evidence, with toy suspects in the place of networks and endpoints.

Only what asks a model is replaced, and what decorates a report (curves, comparisons) is left out: choosing, reading,
weighing and testing are the product's.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

import detect.student.endpoint as endpoint
import detect.student.open_weights as open_weights
import detect.student.verdict.conclude as concluding
import detect.student.verdict.recording as recording
from detect.models.forward import KEPT, Predictions
from detect.models.reading import Positions, ReadingText
from detect.records.trace import ModelSeen, TraceRecord
from detect.student.asking.account import Account
from detect.student.asking.answers import SuspectAnswer
from detect.student.asking.ledger import Ledger
from detect.student.asking.plan import PlannedPrompt, SamplingPlan, TracePlan, canonical_plan, plan_sha256, prompt_text
from detect.student.open_weights import WeightsJob, trace_weights
from detect.student.verdict.evidence import TraceSettings
from detect.student.verdict.score import TraceScore
from tests.innocents.suspects import TOKENIZER, WIDTH, Table
from watermark.generate import Answer
from watermark.keys import KeyRing, SecretKey
from watermark.spec import WatermarkSpec

Floats = npt.NDArray[np.float64]
Says = Callable[[Sequence[str]], list[list[SuspectAnswer]]]
"""What a suspect answers to some prompts."""

FALSE_ALARM = 1e-4
"""Chance with which a sound test fails a rate here; the seeds are fixed, so it either does or never will."""


def fresh_keys(seed: str, count: int) -> Iterator[SecretKey]:
    """Keys that no suspect knew, the same in every run."""
    root = SecretKey(seed.encode().ljust(32, b".")[:32])
    return (root.derive("decoy", number) for number in range(count))


def save(path: Path, answers: Sequence[Answer]) -> Path:
    """Answers as `dyetrace generate` writes them."""
    path.write_bytes(b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers))
    return path


@dataclass(frozen=True)
class Reader:
    """A network's stand-in: it reads a document and predicts by a table, or copies what it saw in its window.

    Attributes
    ----------
    table
        Its language.
    copies
        How much of its mass goes to what followed the same two tokens in its window.
    """

    table: Table
    copies: float = 0.0

    def predict(self, text: ReadingText, where: Positions) -> Predictions:
        """As `detect.models.forward.Model` does."""
        pairs = list(zip(where.document.tolist(), where.position.tolist(), strict=True))
        last = np.array([text.documents[d].sequence[p - WIDTH : p] for d, p in pairs], dtype=np.int64).reshape(-1, 2)
        tokens, mass = self.table.rows(last[:, 0], last[:, 1])
        ids = np.full((len(pairs), KEPT), -1, dtype=np.int32)
        probabilities = np.zeros((len(pairs), KEPT), dtype=np.float32)
        if not self.copies:  # the same as below, at once
            order = np.lexsort((-tokens, -mass))
            falling = np.take_along_axis(mass, order, axis=1)
            ids[:, : order.shape[1]] = np.where(falling > 0, np.take_along_axis(tokens, order, axis=1), -1)
            probabilities[:, : order.shape[1]] = falling
            return Predictions(ids, probabilities)
        for row, (document, place) in enumerate(pairs):
            shares = dict(zip(tokens[row].tolist(), mass[row].tolist(), strict=True))
            shares = self._copying(self._window(text, document, place), shares)
            ranked = sorted(((p, t) for t, p in shares.items() if p > 0), reverse=True)
            ids[row, : len(ranked)] = [t for _, t in ranked]
            probabilities[row, : len(ranked)] = [p for p, _ in ranked]
        return Predictions(ids, probabilities)

    def _window(self, text: ReadingText, document: int, place: int) -> list[int]:
        """What it was shown before: a network reads the prompt as text where it has a tokenizer of its own."""
        read = text.documents[document]
        return [int(i) for i in read.sequence[:place]]

    def _copying(self, window: list[int], shares: dict[int, float]) -> dict[int, float]:
        now = window[-WIDTH:]
        followed = [window[i + WIDTH] for i in range(len(window) - WIDTH) if window[i : i + WIDTH] == now]
        if not followed:
            return shares
        kept = {token: p * (1 - self.copies) for token, p in shares.items()}
        for token in followed:
            kept[token] = kept.get(token, 0.0) + self.copies / len(followed)
        return kept


@dataclass
class Toys:
    """The models of a test by the name of their folder."""

    of: dict[str, Reader] = field(default_factory=dict)


@contextlib.contextmanager
def toy_models(readers: dict[str, Reader]) -> Iterator[None]:
    """Let folders stand for toy readers, and reports do without curves and comparisons."""
    with contextlib.ExitStack() as stack:
        put = lambda place, name, value: stack.enter_context(replaced(place, name, value))  # noqa: E731
        put(open_weights._Bench, "seen", lambda _, folder: _seen(folder))
        put(open_weights._Bench, "reads", lambda _, folder, of: readers[folder.name].predict(of.text, of.where))
        put(open_weights, "_comparisons", lambda *_: [])
        put(concluding, "_curve", lambda *_: [])
        put(recording, "versions", dict)
        yield


@contextlib.contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def _seen(folder: Path) -> ModelSeen:
    return ModelSeen(name=str(folder), sha256=hashlib.sha256(folder.name.encode()).hexdigest(), tokenizer="same")


def read_by_weights(folder: Path, spec: WatermarkSpec, ring: KeyRing, texts: Sequence[Path], **job: Any) -> TraceRecord:
    """`dyetrace trace weights` of the reader called "suspect"."""
    asked = WeightsJob(
        student=Path(job.pop("student", "suspect")),
        texts=[str(text) for text in texts],
        settings=TraceSettings(job.pop("alpha", 1e-6), decoy_count=job.pop("decoys", 0)),
        **job,
    )
    return trace_weights(asked, spec, ring, TOKENIZER, folder)


def asked_at_endpoint(
    folder: Path,
    spec: WatermarkSpec,
    ring: KeyRing,
    prompts: Sequence[PlannedPrompt],
    says: Says,
    *,
    served: Path | None = None,
    evidence: str = "samples",
    target: float = -30.0,
    samples: int = 1,
) -> tuple[TraceRecord, list[float]]:
    """`dyetrace trace api` of a suspect; the record, and log10 e as it stood after each prompt."""
    source = None if served is None else str(served)
    plan = TracePlan(
        created="2026-11-24T12:00:00+00:00",
        url="http://127.0.0.1:9/v1",
        model="suspect",
        evidence=evidence,  # type: ignore[arg-type]
        prompts=list(prompts),
        samples=samples,
        sampling=SamplingPlan(max_tokens=40, top_logprobs=8),
        readout="entropy",
        statistic=endpoint.statistic_of(source, None),
        spec_id=spec.spec_id,
        key_fingerprint=ring.master_fingerprint,
        decoys=0,
        target_log10_p=target,
        alpha=0.01,
    )
    answers = says([prompt_text(prompt.prompt) for prompt in prompts])
    path: list[float] = []

    def asking(plan: TracePlan, ledger: Any, **_: Any) -> Any:
        ledger.enter_plan(plan_sha256(plan), canonical_plan(plan))
        return contextlib.nullcontext(_Asking(iter(answers)))

    with (
        replaced(endpoint, "ask_all", asking),
        replaced(Ledger, "asked_at", lambda *_: None),
        replaced(endpoint, "_plain", lambda *_: []),
        replaced(concluding, "_curve", lambda *_: []),
        replaced(recording, "versions", dict),
        replaced(TraceScore, "of", staticmethod(_score_of)),
    ):
        record = endpoint.trace_endpoint(
            plan, spec, ring, TOKENIZER, folder, served=source, progress=lambda s: path.append(s.log10_evalue)
        )
    return record, path


_score_of = lru_cache(TraceScore.of)


class _Asking:
    """Answers that need no asking."""

    def __init__(self, answers: Iterator[list[SuspectAnswer]]) -> None:
        self._answers = answers
        self.account = Account()

    def __iter__(self) -> Iterator[list[SuspectAnswer]]:
        return self._answers

    def close(self) -> None:
        """Nothing was open."""


def assert_no_more_than(happened: npt.ArrayLike, level: float, who: str = "") -> None:
    """Fail when something happened more often than a bound on its chance allows."""
    times = np.asarray(happened, dtype=np.bool_)
    k, n = int(times.sum()), len(times)
    chance = float(binomtest(k, n, level, alternative="greater").pvalue)
    assert chance > FALSE_ALARM, f"{who}: {k} of {n} where {level:g} of them may"


def assert_exact(pvalues: npt.ArrayLike, level: float) -> None:
    """Fail when p-values reach a level more or less often than it says."""
    p = np.asarray(pvalues, dtype=np.float64)
    k = int(np.sum(p <= level))
    interval = binomtest(k, len(p)).proportion_ci(1 - FALSE_ALARM, method="exact")
    assert interval.low <= level <= interval.high, f"{k} of {len(p)} at {level:g}"
