"""Which tokens of a suspect's answers count, and with which weight."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from detect.models.forward import Predictions
from detect.models.reading import Positions, ReadingText, context_fingerprints
from detect.student.asking.answer_reader import AnswerReader
from detect.student.asking.answers import Position, SuspectAnswer, TokenLogprob
from detect.student.asking.message_texts import Said
from detect.student.asking.plan import Message
from detect.student.verdict.weights import STEPS, WeightedTuples
from watermark.spec import WatermarkSpec

SPEC = WatermarkSpec(vocabulary_size=20, tokenizer="t", key_fingerprint="k", context_width=2)
WORDS = {chr(97 + i): i for i in range(20)}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Each letter a .. t is a token."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


def answer(text: str, sample: int = 0, tops: list[dict[str, float]] | None = None) -> SuspectAnswer:
    tokens = None
    if tops is not None:
        tokens = tuple(
            Position(
                TokenLogprob(letter, letter.encode(), None, math.log(top.get(letter, 0.01))),
                tuple(TokenLogprob(t, t.encode(), None, math.log(p)) for t, p in top.items()),
            )
            for letter, top in zip(text, tops, strict=True)
        )
    return SuspectAnswer(0, sample, text, tokens, "stop", None, None, sample)


def weights(tuples: WeightedTuples | None) -> dict[str, int]:
    """ "context:token" -> weight."""
    if tuples is None:
        return {}
    letters = "abcdefghijklmnopqrst"
    return {
        "".join(letters[i] for i in tuples.contexts[c].tolist()) + ":" + letters[int(token)]: int(weight)
        for c, token, weight in zip(tuples.context, tuples.tokens, tuples.weights, strict=True)
    }


def reader(tokenizer: Tokenizer, **more: Any) -> AnswerReader:
    return AnswerReader(SPEC, tokenizer, more.pop("readout", "entropy"), **more)


def test_a_context_counts_where_it_stands_first_in_an_answer(tokenizer: Tokenizer) -> None:
    assert weights(reader(tokenizer).tuples("q", [answer("abcabd")])) == {"ab:c": 32, "bc:a": 32, "ca:b": 32}


def test_a_context_that_stood_in_the_prompt_does_not_count(tokenizer: Tokenizer) -> None:
    assert weights(reader(tokenizer).tuples("ab", [answer("abcd")])) == {"bc:d": 32}


def test_samples_of_one_prompt_add_up_by_the_root_of_their_number(tokenizer: Tokenizer) -> None:
    found = weights(
        reader(tokenizer).tuples("q", [answer("abc"), answer("abc", 1), answer("abd", 2), answer("fgh", 3)])
    )
    assert found == {"ab:c": round(2 / math.sqrt(3) * STEPS), "ab:d": round(STEPS / math.sqrt(3)), "fg:h": 32}


def test_a_context_counts_for_the_first_prompt_alone(tokenizer: Tokenizer) -> None:
    one = reader(tokenizer)
    assert weights(one.tuples("q", [answer("abc")])) == {"ab:c": 32}
    assert weights(one.tuples("r", [answer("abd"), answer("bdf", 1)])) == {"bd:f": 32}
    assert one.tuples("s", [answer("abt")]) is None
    assert one.tuples("s", [answer("a"), answer("", 1)]) is None


_PRINTS = context_fingerprints(np.array([0, 1, 2], dtype=np.uint32), 2).tolist()


def test_a_context_served_under_several_subkeys_counts_under_each(tokenizer: Tokenizer) -> None:
    one = reader(tokenizer, served=lambda _: {_PRINTS[0]: {0: 1, 3: 9}})
    found = one.tuples("q", [answer("abcde"), answer("abd", 1)])
    assert found is not None
    assert sorted(zip(found.subkeys[found.context].tolist(), found.tokens.tolist(), found.weights.tolist())) == [  # noqa: B905
        (0, 2, 23), (0, 3, 23), (3, 2, 41), (3, 3, 41),
    ]  # fmt: skip


def test_contexts_weigh_by_how_often_they_were_served(tokenizer: Tokenizer) -> None:
    prints = _PRINTS
    served = {prints[0]: {2: 1}, prints[1]: {0: 3}}
    found = weights(reader(tokenizer, served=lambda _: served).tuples("q", [answer("abcde")]))
    assert found == {"ab:c": 32, "bc:d": 48}


def predicting(r: float) -> Any:
    def read(text: ReadingText, where: Positions) -> Predictions:
        said = [[text.documents[d].sequence[p]] for d, p in zip(where.document, where.position, strict=True)]
        return Predictions(np.array(said, dtype=np.int32), np.full((len(where), 1), r, dtype=np.float32))

    return read


def test_logprobs_weigh_all_alternatives(tokenizer: Tokenizer) -> None:
    tops = [{"a": 1.0}, {"b": 1.0}, {"c": 0.5, "d": 0.25, "cx": 0.25}]
    found = weights(reader(tokenizer).tuples("q", [answer("abc", tops=tops)]))
    # "cx" begins with the owner's token c, so c has 0.75.
    assert found == {"ab:c": 6, "ab:d": 6}
    mass = weights(reader(tokenizer, readout="mass").tuples("q", [answer("abc", tops=tops)]))
    assert mass == {"ab:c": 24, "ab:d": 8}


def test_logprobs_are_compared_with_the_reference_where_they_are_shown(tokenizer: Tokenizer) -> None:
    tops = [{"a": 1.0}, {"b": 1.0}, {"c": 0.5, "d": 0.25}]
    one = reader(
        tokenizer,
        readout="reference",
        reference=predicting(0.5),
        encode_prompt=lambda _: np.array([7], dtype=np.uint32),
    )
    found = weights(one.tuples("q", [answer("abc", tops=tops)]))
    assert "ab:c" not in found  # as the reference says
    assert found["ab:d"] > 0


def test_tokens_that_do_not_spell_the_text_leave_what_it_says(tokenizer: Tokenizer) -> None:
    tops = [{"a": 1.0}, {"b": 1.0}, {"c": 0.5}]
    spelled = answer("abc", tops=tops)
    other = SuspectAnswer(0, 0, "abd", spelled.tokens, "stop", None, None, 0)
    assert weights(reader(tokenizer).tuples("q", [other])) == {"ab:d": 32}


def test_each_text_of_an_answer_is_read_for_itself(tokenizer: Tokenizer) -> None:
    parts = (Said("reasoning", "abc"), Said("answer", "fgh"), Said("tool call", "klm"))
    one = reader(tokenizer)
    more = SuspectAnswer(0, 1, "fgi", None, "stop", None, None, 1)
    found = one.tuples("q", [SuspectAnswer(0, 0, "fgh", None, "stop", None, None, 0, parts), more])
    assert weights(found) == {"ab:c": 32, "fg:h": 23, "fg:i": 23, "kl:m": 32}
    assert one.read == {"reasoning": (1, 3), "answer": (2, 6), "tool call": (1, 3)}


def test_reasoning_without_logprobs_counts_by_what_it_says_beside_an_answer_that_has_some(tokenizer: Tokenizer) -> None:
    with_tops = answer("abc", tops=[{"a": 1.0}, {"b": 1.0}, {"c": 0.5, "d": 0.25}])
    parts = (Said("reasoning", "fgh"), Said("answer", "abc"))
    both = SuspectAnswer(0, 0, "abc", with_tops.tokens, "stop", None, None, 0, parts)
    assert weights(reader(tokenizer).tuples("q", [both])) == {"ab:c": 8, "ab:d": 6, "fg:h": 8}


def test_what_a_server_repeats_of_the_prompt_is_no_answer(tokenizer: Tokenizer) -> None:
    asked = [Message(role="user", content="q"), Message(role="assistant", content="fgh")]
    assert weights(reader(tokenizer).tuples(asked, [answer("fghabc")])) == {"ab:c": 32}


def test_where_some_answers_lack_logprobs_all_are_read_by_what_they_say(tokenizer: Tokenizer) -> None:
    tops = [{"a": 1.0}, {"b": 1.0}, {"c": 0.5}]
    for answers in ([answer("abc", tops=tops), answer("fgh", 1)], [answer("fgh"), answer("abc", 1, tops)]):
        assert weights(reader(tokenizer).tuples("q", answers)) == {"ab:c": 32, "fg:h": 32}
