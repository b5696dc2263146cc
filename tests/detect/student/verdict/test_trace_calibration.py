"""What was never marked is not found: real networks under fresh keys, and a student that copies from its window."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from detect.models.forward import Model, Predictions, candidates
from detect.models.reading import NO_SUBKEY, Positions, ReadingDocument, ReadingText, context_at, positions
from detect.student.verdict.hypothesis import WeightedTest
from detect.student.verdict.score import TraceScore
from detect.student.verdict.weights import Readout, WeightedTuples, gathered, readout
from tests.detect.calibration import assert_calibrated, fresh_keys, log10_excess
from watermark import prf
from watermark.keys import SecretKey
from watermark.registry import make_scheme
from watermark.rowkeys import subkey

KEYS = 1_000
CONTEXTS = 150


# --- real networks ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text(smollm2_tokenizer: Any, prose: list[str]) -> ReadingText:
    encoded = [np.array(smollm2_tokenizer.encode(t).ids[:130], dtype=np.uint32) for t in prose[:8]]
    documents = [ReadingDocument(f"d{i}", ids, 0) for i, ids in enumerate(encoded)]
    return ReadingText("prose", "", documents, marked=False)


@pytest.fixture(scope="module")
def read(text: ReadingText, smollm2: Any) -> tuple[Predictions, Predictions]:
    """What the demo model predicts, and a copy of it that learned something else (all its weights moved a little)."""
    import torch

    everywhere = positions(text, 1, 10**6, prefixes=10**6)
    where = Positions(*(np.concatenate(parts) for parts in zip(*_every(text, everywhere), strict=True)))
    base = Model(smollm2, 49_152).predict(text, where)
    student = copy.deepcopy(smollm2)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in student.parameters():
            weight += 0.05 * weight.float().std().nan_to_num(0).to(weight.dtype) * torch.randn_like(weight)
    return Model(student, 49_152).predict(text, where), base


def _every(text: ReadingText, like: Positions) -> Any:
    """All positions from the second token on, those whose context of one token came before included."""
    for number, document in enumerate(text.documents):
        places = np.arange(1, len(document.sequence) + 1)
        yield np.full(len(places), number), places, np.zeros(len(places), dtype=like.fingerprint.dtype)


def weighted(
    text: ReadingText, read: tuple[Predictions, Predictions], width: int, name: Readout, most: int = CONTEXTS
) -> WeightedTuples:
    where = positions(text, width, most)
    starts = np.cumsum([0, *(len(d.sequence) for d in text.documents)])
    rows = starts[where.document] + where.position - 1
    suspect, base = (Predictions(p.ids[rows, :16], p.probabilities[rows, :16]) for p in read)
    ids = candidates(suspect, [base])
    weights = readout(name, suspect.at(ids, 49_152), base.at(ids, 49_152))
    return gathered(
        context_at(text.documents, where, width),
        where.fingerprint.astype(np.int64),
        np.full(len(where), NO_SUBKEY),
        ids,
        weights,
    )


@pytest.mark.parametrize("name", ["argmax", "entropy", "reference"])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("scheme", ["gumbel", "green_list", "tournament"])
def test_a_student_that_never_saw_the_mark_has_uniform_pvalues(
    scheme: str, width: int, name: Readout, text: ReadingText, read: tuple[Predictions, Predictions]
) -> None:
    tuples = weighted(text, read, width, name)
    assert len(tuples.contexts) == CONTEXTS and len(tuples) >= CONTEXTS / 2
    test = WeightedTest(TraceScore.of(make_scheme(scheme, {})), tuples, 1)
    totals = test.totals(list(fresh_keys(f"{scheme}{width}{name}", KEYS)))
    assert_calibrated(10 ** test.log10_pvalues(totals))
    assert_calibrated(10 ** test.log10_pvalues_lower(totals))


def test_the_student_differs_from_its_reference_and_its_weights_have_both_signs(
    text: ReadingText, read: tuple[Predictions, Predictions]
) -> None:
    tuples = weighted(text, read, 2, "reference")
    assert (tuples.weights > 4).sum() > 50 and (tuples.weights < -4).sum() > 50


def test_the_check_fails_when_a_word_counts_twice(text: ReadingText, read: tuple[Predictions, Predictions]) -> None:
    """The same evidence, its contexts doubled and taken for different ones."""
    once = weighted(text, read, 2, "entropy")
    twice = WeightedTuples(
        np.concatenate([once.contexts, once.contexts]),
        np.concatenate([once.context, once.context + len(once.contexts)]),
        np.concatenate([once.tokens, once.tokens]),
        np.concatenate([once.weights, once.weights]),
        np.concatenate([once.subkeys, once.subkeys]),
    )
    test = WeightedTest(TraceScore.of(make_scheme("gumbel", {})), twice, 1)
    p = 10 ** test.log10_pvalues(test.totals(list(fresh_keys("twice", KEYS))))
    assert log10_excess(p, 1e-2) < -5


# --- a student that copies from its window, reading text that the key marked -----------------------------

VOCABULARY = 64
WIDTH = 1
_RNG = np.random.default_rng(0)
LANGUAGE = _RNG.dirichlet(np.full(VOCABULARY, 0.3), VOCABULARY)


def marked_text(key: SecretKey, documents: int = 4, length: int = 60) -> ReadingText:
    """Bigram language, marked by gumbel under sub-keys of ``key``; every fifth token is drawn without it."""
    contexts = np.arange(VOCABULARY, dtype=np.uint32)[:, None]
    rng = np.random.default_rng(int(key.words[0]))
    made = []
    for number in range(documents):
        part = subkey(key, number % 2)
        words = prf.words_rows(np.tile(part.words, (VOCABULARY, 1)), prf.nonces(contexts, None), VOCABULARY)
        race = np.log((words + 0.5) / 2**32) / LANGUAGE
        chosen = race.argmax(axis=1)
        ids = [int(rng.integers(VOCABULARY))]
        for place in range(length):
            ids.append(int(rng.integers(VOCABULARY)) if place % 5 == 4 else int(chosen[ids[-1]]))
        made.append(ReadingDocument(f"d{number}", np.array(ids, dtype=np.uint32), 0, number % 2))
    return ReadingText("marked", "", made, marked=True)


def copied(text: ReadingText, where: Positions) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What followed the context in the window before gets most of the mass; else the language decides."""
    q = np.empty((len(where), VOCABULARY))
    for row, (number, place) in enumerate(zip(where.document.tolist(), where.position.tolist(), strict=True)):
        ids = text.documents[number].sequence[:place]
        q[row] = LANGUAGE[ids[-1]]
        followed = [int(ids[i + 1]) for i in range(len(ids) - 1) if ids[i] == ids[-1]]
        for token in followed:
            q[row] *= 0.1 ** (1 / len(followed))
            q[row, token] += 0.9 / len(followed)
        q[row] /= q[row].sum()
    return q


def copying(key: SecretKey, every_occurrence: bool) -> tuple[float, float]:
    text = marked_text(key)
    if every_occurrence:
        pairs = [(n, p) for n, d in enumerate(text.documents) for p in range(1, len(d.sequence))]
        number, place = (np.array(column) for column in zip(*pairs, strict=True))
        where = Positions(number, place, np.arange(len(pairs), dtype=np.uint64))
    else:
        where = positions(text, WIDTH, 10**6)
    q = copied(text, where)
    tuples = gathered(
        context_at(text.documents, where, WIDTH),
        where.fingerprint.astype(np.int64),
        np.array([text.documents[n].subkey for n in where.document.tolist()]),
        np.tile(np.arange(VOCABULARY), (len(where), 1)),
        readout("entropy", q, None),
    )
    test = WeightedTest(TraceScore.of(make_scheme("gumbel", {})), tuples, 2)
    total = int(test.totals([key])[0])
    return 10 ** float(test.log10_pvalues([total])[0]), 10 ** test.log10_evalue(total)


def test_a_copying_student_that_reads_marked_text_is_not_accused() -> None:
    p, e = np.array([copying(key, every_occurrence=False) for key in fresh_keys("copy", 500)]).T
    assert_calibrated(p)
    assert e.mean() <= 1 + 5 * e.std() / np.sqrt(len(e))
    for alpha in (0.1, 0.01):
        assert np.sum(e >= 1 / alpha) <= len(e) * alpha + 3 * np.sqrt(len(e) * alpha)


def test_the_check_fails_when_every_occurrence_counts() -> None:
    p, e = np.array([copying(key, every_occurrence=True) for key in fresh_keys("copy", 40)]).T
    assert np.median(p) < 1e-6
    assert np.median(e) > 100
