"""Whoever never saw the key is not found by reading: twins, copyists, students of other text, and unlucky corpora."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from detect.student.verdict.evidence import EVIDENCE_FILE, read_evidence
from detect.student.verdict.hypothesis import key_test
from tests.innocents.paths import (
    Reader,
    assert_exact,
    assert_no_more_than,
    fresh_keys,
    read_by_weights,
    save,
    toy_models,
)
from tests.innocents.readings import (
    GO,
    PROMPTS,
    PROSE,
    READ,
    SERVED,
    SUSPECTS,
    World,
    endless_twin,
    log10_es,
    served_es,
    worlds,
)
from tests.innocents.suspects import Prompts, Table, written
from watermark.errors import DyetraceError
from watermark.generate import Answer
from watermark.keys import KeyRing, SecretKey

KEYS = 48


def assert_innocent(log10_e: np.ndarray, names: Sequence[Callable[..., Reader]]) -> None:
    for own, suspect in zip(log10_e, names, strict=True):
        for level in (0.05, 1e-2, 1e-3):
            assert_no_more_than(own >= -np.log10(level), level, suspect.__name__)


@pytest.mark.parametrize("kind", READ)
def test_reading_marked_answers_accuses_nobody_who_never_saw_the_key(kind: str, tmp_path: Path) -> None:
    table, texts = READ[kind]
    count = KEYS // 3 if table is PROSE else KEYS
    assert_innocent(log10_es(texts.__name__, table, SUSPECTS, tmp_path, texts, count), SUSPECTS)


def test_marked_text_that_says_nothing_of_its_mark_is_not_taken_for_unmarked(tmp_path: Path) -> None:
    """A copyist would be held to what it was shown."""
    for spec, ring, rng in worlds("shown", 3):
        answers = written(PROSE, PROMPTS, rng, mark=(spec, ring))
        lost = [msgspec.structs.replace(answer, spec_id=None) for answer in answers]
        text = save(tmp_path / "read.jsonl", lost)
        with toy_models({"suspect": Reader(PROSE)}), pytest.raises(DyetraceError, match="marked"):
            read_by_weights(tmp_path / "found", spec, ring, [text])


# --- which contexts were served ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVED)
def test_weighing_by_what_was_served_does_not_accuse(kind: str, tmp_path: Path) -> None:
    table, prompts = SERVED[kind]
    assert_innocent(served_es("served", tmp_path, table, prompts, KEYS)[None], [endless_twin])


def test_nor_does_a_ledger_of_it(tmp_path: Path) -> None:
    table, prompts = SERVED["lists"]
    assert_innocent(served_es("ledger", tmp_path, table, prompts, KEYS // 4, ledger=True)[None], [endless_twin])


# --- accounts ---------------------------------------------------------------------------------------------

ACCOUNTS = ("acme", "zenith", "nadir", "apogee")


def tenants_of(seed: str) -> dict[str, SecretKey]:
    return dict(zip(ACCOUNTS, fresh_keys(seed[:20], len(ACCOUNTS)), strict=True))


def test_accounts_are_named_only_where_they_are_guilty_whoever_else_is(tmp_path: Path) -> None:
    """The suspect learnt acme's answers, and reads them; the keys of the others had no part in anything."""
    innocents, guilty = [], []
    for spec, ring, rng in worlds("accounts", KEYS // 2, global_share=0.3, subkeys=1):
        every = KeyRing(ring.master_fingerprint, ring.selector, ring.global_key, tenants_of(spec.key_fingerprint))
        answers = written(PROSE, PROMPTS, rng, mark=(spec, every), tenant="acme")
        text = save(tmp_path / "read.jsonl", answers)
        with toy_models({"suspect": Reader(PROSE.taught(answers))}):
            record = read_by_weights(tmp_path / "found", spec, every, [text], alpha=0.02)
        named = set(record.identified)
        innocents.append(bool(named - {"acme"}))
        guilty.append("acme" in named)
    assert_no_more_than(innocents, 0.02)
    assert np.mean(guilty) > 0.5


# --- text that the key had no say in ----------------------------------------------------------------------


def test_of_unmarked_text_the_pvalues_are_exact(tmp_path: Path) -> None:
    spec, ring, rng = next(worlds("exact", 1))
    text = save(tmp_path / "read.jsonl", written(PROSE, PROMPTS, rng))
    with toy_models({"suspect": Reader(PROSE)}):
        record = read_by_weights(tmp_path / "found", spec, ring, [text])
    assert record.basis == "p-value"
    tuples = read_evidence(tmp_path / "found" / EVIDENCE_FILE).tuples
    test = key_test(spec, ring.selector, tuples, of_global=True)
    keys = [KeyRing.from_master(key).global_key for key in fresh_keys("exact", 4000)]
    p = 10 ** test.log10_pvalues(test.totals([key for key in keys if key is not None]))
    for level in (1e-2, 1e-3):
        assert_exact(p, level)


# --- what no test can forgive -----------------------------------------------------------------------------


def test_the_check_fails_where_answers_were_chosen_by_their_length(tmp_path: Path) -> None:
    """The key decided the length, so this is what `--taken filtered` refuses."""

    def long(table: Table, world: World) -> list[Answer]:
        spec, ring, rng = world
        answers = written(table, Prompts.of(600, 4), rng, mark=(spec, ring))
        return [answer for answer in answers if len(answer.token_ids) >= 6]

    (found,) = log10_es("long", GO, [endless_twin], tmp_path, long, 12)
    assert np.median(found) > 1 and np.mean(found >= 2) > 0.2
