"""Whether the mark is there: alarms when an engine overrides the hook's choices, silence when it doesn't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.engines.operator import KEY, VOCABULARY, spec_of
from watermark.engines.hook.answers import Answer, Context, statistics
from watermark.engines.hook.epoch import Epoch
from watermark.engines.hook.watch import Evidence, Watch

EPOCH = Epoch(spec_of(global_share=0.3), KEY)


def _tuples(count: int, seed: int, *, marked: bool, tenant: str = "acme") -> list[tuple[Context, int]]:
    """Contexts with random tokens, or with the best of 8 of them under the account's sub-key 0."""
    generator = np.random.default_rng(seed)
    found: list[tuple[Context, int]] = []
    for a, b, *candidates in generator.integers(VOCABULARY, size=(count, 10)).tolist():
        scores = statistics(EPOCH, tenant, 0, [((a, b), token) for token in candidates]) if marked else [0]
        found.append(((a, b), candidates[int(np.argmax(scores))]))
    return found


def _answer(tenant: str = "acme") -> Answer:
    return Answer(EPOCH, tenant, 0, [], [])


def test_marked_text_raises_no_alarm() -> None:
    watch = Watch(1024)
    watch.note(_answer(), _tuples(600, 1, marked=True))
    assert watch.looked() == []
    assert watch.evidence["acme"].z > 10


@pytest.mark.parametrize("account", ["acme", None])
def test_an_engine_that_overrides_the_choice_raises_one_alarm(account: str | None) -> None:
    epoch = EPOCH if account else Epoch(spec_of(), KEY)
    watch = Watch(1024)
    answer = Answer(epoch, account, 0, [], [])
    watch.note(answer, _tuples(600, 2, marked=False))
    assert watch.looked() == [account]
    watch.note(answer, _tuples(600, 3, marked=False))
    assert watch.looked() == []


def test_a_mark_that_vanishes_later_is_noticed_and_one_that_is_back_ends_the_alarm() -> None:
    watch = Watch(256)
    watch.note(_answer(), _tuples(1000, 4, marked=True))
    assert watch.looked() == []
    watch.note(_answer(), _tuples(3000, 5, marked=False))
    assert watch.looked() == ["acme"]
    watch.note(_answer(), _tuples(1000, 6, marked=True))
    assert watch.looked() == []
    watch.note(_answer(), _tuples(3000, 7, marked=False))
    assert watch.looked() == ["acme"]


def test_text_marked_for_another_account_counts_as_unmarked() -> None:
    epoch = Epoch(spec_of(global_share=0.0), KEY)
    generator = np.random.default_rng(8)
    tuples: list[tuple[Context, int]] = []
    for a, b, *candidates in generator.integers(VOCABULARY, size=(600, 10)).tolist():
        scores = statistics(epoch, "beta", 0, [((a, b), token) for token in candidates])
        tuples.append(((a, b), candidates[int(np.argmax(scores))]))
    watch = Watch(1024)
    watch.note(Answer(epoch, "acme", 0, [], []), tuples)
    assert watch.looked() == ["acme"]


def test_an_account_is_judged_by_its_own_text() -> None:
    watch = Watch(1024)
    watch.note(_answer("acme"), _tuples(600, 9, marked=True))
    watch.note(_answer("beta"), _tuples(600, 10, marked=False))
    assert watch.looked() == ["beta"]


def test_few_tokens_are_no_evidence() -> None:
    watch = Watch(1024)
    watch.note(_answer(), _tuples(200, 11, marked=False))
    assert watch.looked(all_of_them=True) == []


def test_unmarked_text_rarely_looks_marked() -> None:
    zs = []
    for seed in range(60):
        evidence = Evidence()
        scores = statistics(EPOCH, "acme", 0, _tuples(300, 100 + seed, marked=False))
        evidence.add((scores - EPOCH.moments[0]) / EPOCH.moments[1], 0.5 ** (1 / 256))
        zs.append(evidence.z)
    assert abs(float(np.mean(zs))) < 0.6
    assert 0.6 < float(np.std(zs)) < 1.5


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=60), st.integers(1, 59), st.floats(0.9, 1.0))
def test_evidence_does_not_depend_on_how_it_arrives(scores: list[float], cut: int, fading: float) -> None:
    whole, parts = Evidence(), Evidence()
    whole.add(np.array(scores), fading)
    for part in (scores[:cut], scores[cut:]):
        parts.add(np.array(part, dtype=float), fading)
    assert np.isclose(whole.tokens, parts.tokens)
    assert np.isclose(whole.z, parts.z, atol=1e-9)


def test_memory_is_bounded_in_accounts() -> None:
    watch = Watch(256)
    for number in range(5000):
        watch._account(str(number))
    assert len(watch.evidence) == 4096
    assert "4999" in watch.evidence
    assert "0" not in watch.evidence
