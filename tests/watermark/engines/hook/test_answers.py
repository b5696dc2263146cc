"""One answer: contexts, repeats, rewinding, and its sub-key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.engines.operator import KEY, VOCABULARY, spec_of
from watermark.engines.hook.answers import Answer, Context, HiddenTokensError, Subkeys, likeliest_subkey, statistics
from watermark.engines.hook.epoch import Epoch
from watermark.prf import MISSING, prf_u32
from watermark.rowkeys import selector_threshold, subkey

EPOCH = Epoch(spec_of(global_share=0.5), KEY)
PLAIN = Epoch(spec_of(), KEY)
few = st.integers(0, 3)


def _answer(prompt: list[int], tokens: list[int], epoch: Epoch = PLAIN) -> Answer:
    return Answer(epoch, None, 0, prompt, tokens)


def test_the_context_is_the_last_tokens_and_missing_ones_before_the_beginning() -> None:
    tokens: list[int] = []
    answer = _answer([5], tokens)
    assert answer.context() == (MISSING, 5)
    tokens.append(7)
    assert answer.context() == (5, 7)
    tokens.append(8)
    assert answer.context() == (7, 8)
    assert answer.context(1) == (5, 7)
    assert _answer([], []).context() == (MISSING, MISSING)


def test_only_the_prompts_end_is_needed() -> None:
    assert _answer([1, 2, 3], [4]).context() == _answer([9, 2, 3], [4]).context()


def test_a_context_repeats_where_it_chose_a_token_of_the_answer_before() -> None:
    tokens: list[int] = []
    answer = _answer([1, 2], tokens)
    seen = []
    for token in [3, 1, 2, 3, 9]:
        seen.append(answer.repeats())
        tokens.append(token)
    assert seen == [False, False, False, True, True]
    assert answer.news() == [((1, 2), 3), ((2, 3), 1), ((3, 1), 2)]


def test_the_prompts_own_contexts_do_not_count() -> None:
    assert not _answer([1, 2, 1, 2], []).repeats()


@given(st.lists(few, max_size=3), st.lists(st.one_of(few, st.just(-1)), max_size=40))
def test_an_answer_that_is_rewound_is_as_if_it_never_went_there(prompt: list[int], moves: list[int]) -> None:
    tokens: list[int] = []
    answer = _answer(prompt, tokens)
    for move in moves:
        if move < 0:
            del tokens[len(tokens) // 2 :]
        else:
            tokens.append(move)
        fresh = _answer(prompt, list(tokens))
        assert answer.repeats() == fresh.repeats()
        assert answer.context() == fresh.context()


@given(st.lists(few, max_size=3), st.lists(few, max_size=40), st.integers(1, 9))
def test_news_come_once_whatever_the_steps(prompt: list[int], whole: list[int], step: int) -> None:
    tokens: list[int] = []
    answer = _answer(prompt, tokens)
    told: list[tuple[Context, int]] = []
    for start in range(0, len(whole), step):
        tokens.extend(whole[start : start + step])
        told += answer.news()
    assert told == _answer(prompt, whole).news()
    assert answer.told == len(whole)
    assert len({context for context, _ in told}) == len(told)


def test_a_token_that_the_engine_hides_is_an_error_and_not_a_context() -> None:
    tokens = [4, 5, -1]
    answer = _answer([1, 2], tokens)
    with pytest.raises(HiddenTokensError):
        answer.context()
    with pytest.raises(HiddenTokensError):
        answer.context(3)
    tokens[2] = 6
    assert answer.context() == (5, 6)


def test_statistics_are_those_of_the_primitive_under_the_key_that_owns_each_context() -> None:
    generator = np.random.default_rng(1)
    tuples = [((int(a), int(b)), int(token)) for a, b, token in generator.integers(VOCABULARY, size=(60, 3)).tolist()]
    ring = EPOCH.ring_of("acme")
    owned = []
    for context, token in tuples:
        common = prf_u32(EPOCH.selector, list(context), 0) < selector_threshold(EPOCH.spec)
        key = subkey(ring.global_key if common else ring.tenants["acme"], 2)  # type: ignore[arg-type]
        owned.append(prf_u32(key, list(context), token))
    expected = EPOCH.scheme.statistic(np.array(owned, dtype=np.uint32))
    assert statistics(EPOCH, "acme", 2, tuples).tolist() == expected.tolist()


def test_samples_of_one_prompt_get_sub_keys_that_differ_until_all_are_used() -> None:
    subkeys = Subkeys()
    drawn = [subkeys.draw(EPOCH, "acme", [1, 2, 3]) for _ in range(12)]
    assert all(sorted(drawn[at : at + 4]) == [0, 1, 2, 3] for at in (0, 4, 8))
    assert len({tuple(Subkeys().draw(EPOCH, "acme", [1]) for _ in range(4)) for _ in range(40)}) > 1


def test_other_prompts_and_accounts_draw_by_themselves() -> None:
    firsts = set()
    for _ in range(60):
        subkeys = Subkeys()
        subkeys.draw(EPOCH, "acme", [1])
        firsts.add((subkeys.draw(EPOCH, "acme", [2]), subkeys.draw(EPOCH, "beta", [1])))
    assert len(firsts) > 4


@pytest.mark.parametrize("index", range(4))
def test_a_resumed_answer_finds_its_sub_key_again(index: int) -> None:
    generator = np.random.default_rng(index)
    prompt, tokens = [1, 2, 3], [7]
    answer = Answer(EPOCH, "acme", index, prompt, tokens)
    for _ in range(24):  # of 30 candidates the token that scores best, as a chooser prefers
        candidates = [int(c) for c in generator.integers(VOCABULARY, size=30)]
        scores = statistics(EPOCH, "acme", index, [(answer.context(), c) for c in candidates])
        tokens.append(candidates[int(np.argmax(scores))])
    assert likeliest_subkey(EPOCH, "acme", prompt, tokens) == index
    assert likeliest_subkey(EPOCH, "acme", prompt, []) == 0
    subkeys = Subkeys()
    short = Answer(EPOCH, "acme", index, prompt, [7])  # too short to tell: remembered
    subkeys.leave(short)
    assert subkeys.resume(EPOCH, "acme", prompt, [7]) == index
    assert subkeys.resume(EPOCH, "acme", prompt, tokens) == index


def test_two_answers_that_say_the_same_so_far_go_on_under_their_two_sub_keys() -> None:
    subkeys = Subkeys()
    for index in (2, 3):
        subkeys.leave(Answer(PLAIN, None, index, [1, 2], [7]))
    assert {subkeys.resume(PLAIN, None, [1, 2], [7]) for _ in range(2)} == {2, 3}
