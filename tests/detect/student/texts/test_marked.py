"""Text that is taken for unmarked is asked whether it carries the mark, and says so truly."""

from __future__ import annotations

import numpy as np
import pytest

from detect.models.reading import ReadingDocument, ReadingText
from detect.student.texts.marked import LOG10_MARKED, check_unmarked, marked_log10, not_carried
from tests.detect.calibration import assert_calibrated, fresh_keys
from watermark import prf
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
RING = KeyRing.from_master(KEY)
SPEC = WatermarkSpec(vocabulary_size=1000, tokenizer="t", key_fingerprint=KEY.fingerprint, subkeys=2)


def written(rng: np.random.Generator, length: int, share: float) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """A text in which a share of the tokens won a race among ten under sub-key 0."""
    assert isinstance(RING.global_key, SecretKey)
    key = subkey(RING.global_key, 0)
    ids = list(rng.integers(0, 1000, 2))
    for _ in range(length):
        few = rng.choice(1000, 10, replace=False).astype(np.uint32)
        nonces = np.repeat(prf.nonces(np.array([ids[-2:]], dtype=np.uint32), None), 10, axis=1)
        words = prf.words_at(key.words, np.ascontiguousarray(nonces), few)
        ids.append(int(few[words.argmax()] if rng.random() < share else few[0]))
    return np.array(ids, dtype=np.uint32)


@pytest.mark.parametrize("shares", [[0.9] + [0.0] * 20, [0.25] * 20], ids=["much in one", "a little in all"])
def test_marked_text_is_noticed_in_one_document_and_spread_over_all(shares: list[float]) -> None:
    rng = np.random.default_rng(0)
    assert marked_log10(SPEC, RING, [written(rng, 120, share) for share in shares]) <= LOG10_MARKED


def test_unmarked_text_is_called_marked_at_its_level_alone() -> None:
    rng = np.random.default_rng(1)
    texts = [written(rng, 60, 0.0) for _ in range(5)]
    keys = fresh_keys("marked", 1500)
    log10_ps = [marked_log10(SPEC, KeyRing.from_master(key), texts) for key in keys]
    assert_calibrated(10.0 ** np.array(log10_ps))


def test_nothing_to_test_is_no_mark() -> None:
    assert marked_log10(SPEC, RING, []) == 0.0
    assert marked_log10(SPEC, RING, [np.array([1, 2], dtype=np.uint32)]) == 0.0


def read(texts: list[np.ndarray[tuple[int], np.dtype[np.uint32]]], subkey: int, *, marked: bool) -> ReadingText:
    documents = [ReadingDocument(f"d{i}", ids, 2, subkey) for i, ids in enumerate(texts)]
    return ReadingText("served.jsonl", "", documents, marked)


def test_answers_that_do_not_show_their_mark_allow_no_acquittal() -> None:
    """Else a guilty student would go free without a word."""
    rng = np.random.default_rng(2)
    texts = [written(rng, 150, 0.9) for _ in range(8)]
    assert not_carried(read(texts, 0, marked=True), SPEC, RING) is None
    assert not_carried(read(texts, -1, marked=True), SPEC, RING) is None
    why = not_carried(read(texts, 1, marked=True), SPEC, RING)
    assert why is not None and "do not carry the mark themselves under the sub-keys that they name" in why
    assert not_carried(read(texts[:1], 1, marked=True), SPEC, RING) is None  # too few to tell


def test_a_text_that_is_taken_for_unmarked_must_be_so() -> None:
    rng = np.random.default_rng(3)
    assert check_unmarked(read([written(rng, 200, 0.0)], -1, marked=False), SPEC, RING) > LOG10_MARKED
    with pytest.raises(DyetraceError, match="yet it carries the mark"):
        check_unmarked(read([written(rng, 200, 0.9)], -1, marked=False), SPEC, RING)
