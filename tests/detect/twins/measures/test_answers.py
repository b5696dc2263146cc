"""Free answers: numbers that flip with the pair, similarities by their definitions, replies of any kind."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.twins.measures.answers import (
    AnswerMeasure,
    Idf,
    chrf,
    common_prefix,
    differences,
    in_order,
    shingles,
    similarities,
    telling,
    words_of,
)
from tests.detect.twins.measures.twins import HOSTILE, chat_reply, check_flips, pair, texts

SEA = "The sea is deep and cold, and few ships cross it."
SHORE = "Waves come to the shore, where children play."


@given(texts, texts, st.lists(texts, min_size=3, max_size=3))
def test_swapping_the_twins_flips_every_number(one: str, other: str, said: list[str]) -> None:
    def reply(question: Any) -> bytes:
        return chat_reply(said[question.body.get("seed", 2)])

    check_flips(lambda pairs: AnswerMeasure(Idf.of(pairs), samples=2), one, other, reply)


@given(texts, texts)
def test_hostile_replies_say_nothing(one: str, other: str) -> None:
    for payload in (None, *HOSTILE):
        twins = pair(one, other)
        measure = AnswerMeasure(Idf.of([twins]))
        found = measure.difference(twins, [payload] * len(measure.questions(twins)))
        assert np.isfinite(found).all()
        if payload is None or b"~" not in payload:
            assert not found.any()


def test_an_answer_like_one_twin_counts_for_it_in_every_column() -> None:
    twins = pair(SEA, SHORE)
    measure = AnswerMeasure(Idf.of([twins]))
    near = measure.difference(twins, [chat_reply("The sea is deep and cold, they say.")])
    assert (near > 0).all()
    assert (measure.difference(twins, [chat_reply("Waves come to the shore.")]) < 0).all()


def test_missing_replies_leave_the_others() -> None:
    twins = pair(SEA, SHORE)
    measure = AnswerMeasure(Idf.of([twins]), samples=1)
    alone = measure.difference(twins, [chat_reply(SEA)])
    assert np.array_equal(measure.difference(twins, [chat_reply(SEA), None]), alone)
    assert np.array_equal(measure.difference(twins, [HOSTILE[0], chat_reply(SEA)]), alone)


def test_the_prompt_is_asked_as_it_was() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    twins = pair(SEA, SHORE, prompt=None, request={"messages": messages, "max_completion_tokens": 9})
    greedy, sample = AnswerMeasure(Idf(), samples=1, temperature=0.5).questions(twins)
    assert greedy.body == {"messages": messages, "max_tokens": 9, "temperature": 0}
    assert sample.body == {"messages": messages, "max_tokens": 9, "temperature": 0.5, "seed": 0}
    assert greedy.endpoint == "chat" and greedy.most_tokens >= len("Be brief.Why?") + 9
    plain = pair(SEA, SHORE, prompt=None, request={"prompt": "Why?"})
    (asked,) = AnswerMeasure(Idf(), completions=True).questions(plain)
    assert (asked.endpoint, asked.body["prompt"]) == ("completions", "Why?")


def test_a_tied_pair_is_not_asked_about() -> None:
    assert AnswerMeasure(Idf()).questions(pair(SEA, SEA)) == []


def test_no_answer_shows_the_suspect_a_twin() -> None:
    body = json.dumps([q.body for q in AnswerMeasure(Idf(), samples=3).questions(pair(SEA, SHORE))])
    assert "deep" not in body and "Waves" not in body


@pytest.mark.parametrize(
    ("said", "text", "score"),
    [
        ("the cat sat on the mat", "the cat sat on a mat", 72.0848317308462),
        ("the cat", "a dog ran far away", 1.3440860215053763),
        ("\u6d77\u662f\u84dd\u8272\u7684", "\u6d77\u5f88\u84dd", 19.607843137254903),
        ("a", "abcdefgh", 15.151515151515152),
        ("", "abc", 0.0),
        ("abc", "", 0.0),
        ("x  y\nz", "xyz", 100.0),
        (SEA, SHORE, 14.504110542990714),
        (SEA * 4, SEA, 60.922494452864676),
    ],
)
def test_chrf_is_sacrebleus(said: str, text: str, score: float) -> None:
    """What ``sacrebleu.sentence_chrf`` of sacrebleu 2.6.0 gives."""
    assert chrf(said, text) == pytest.approx(score / 100, rel=1e-12)


def test_equal_texts_are_alike_by_1() -> None:
    words = len(words_of(SEA))
    assert similarities(SEA, SEA) == pytest.approx([1, words / (words + 4), 1])
    assert telling(SEA, SEA, "Nothing here", Idf.of([pair(SEA, "Nothing here")])) == pytest.approx(1)


def test_rare_words_tell_more_than_common_ones() -> None:
    pairs = [pair(f"the sea of {name} is blue", f"the sky of {name} is grey") for name in ("one", "two", "three")]
    idf = Idf.of(pairs)
    assert idf.share(("the",), 2) > idf.share(("sea",), 1) > idf.share(("two",), 2) > 0
    assert idf.share(("never", "seen"), 0) == idf.share(("two",), 2) < 1
    one, other = "a pearl in it", "the sea in it"
    assert telling("pearl sea", one, other, Idf.of([*pairs, pair(one, other)])) > 0


def test_a_pairs_own_texts_say_nothing_of_how_rare_its_words_are() -> None:
    """Else the words that only one pair has would look common while few pairs are known."""
    alone = Idf.of([pair(SEA, SHORE)])
    assert alone.share(("sea",), 1) == alone.share(("never",), 0) == 0.5
    assert Idf().share(("sea",), 1) == 0.5


def test_what_the_owners_model_and_the_prompt_say_tells_less() -> None:
    twins = pair("the deep sea", "the calm shore")
    idf = Idf.of([twins, pair("one", "two"), pair("three", "four")])
    one, other = "the deep sea and the harbour", "the calm shore and the harbour"
    said = "the deep sea"
    plain = telling(said, one, other, idf)
    assert telling(said, one, other, idf, [shingles("the deep sea")]) < plain
    both = telling("deep shore", "deep", "shore", idf)
    assert both == 0
    assert telling("deep shore", "deep", "shore", idf, [shingles("deep")]) < 0
    usual = AnswerMeasure(idf, usual={twins.id: ["the deep sea", "a deep sea"]})
    reply = [chat_reply("deep shore, calm sea")]
    assert usual.difference(twins, reply)[0] < AnswerMeasure(idf).difference(twins, reply)[0]


def test_similarities_by_hand() -> None:
    assert common_prefix(["a", "b", "c"], ["a", "b", "d"]) == 2 / 6
    assert common_prefix([], ["a"]) == 0
    assert in_order(["a", "x", "b", "c"], ["a", "b", "y", "c"]) == 2 * 3 / 8
    assert shingles("A b a") == {("a",), ("b",), ("a", "b"), ("b", "a"), ("a", "b", "a")}
    assert words_of("It's D\u00dcRER's, isn\u2019t it?") == ["it's", "d\u00fcrer's", ",", "isn\u2019t", "it", "?"]


def test_no_answers_give_zeros() -> None:
    assert not differences([], SEA, SHORE, Idf()).any()
