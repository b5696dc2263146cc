"""What is asked rests on what stands before each cut, and what is heard stands in the row of that cut."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from detect.models.reading import Positions, ReadingDocument, ReadingText
from detect.race.asking import RaceQuestions, Show, biases, passed_over
from detect.race.chances import Chances
from detect.race.plan import RaceAsking, RacePlan
from detect.student.asking.answers import read_response
from detect.student.asking.budget import Budgets
from detect.student.asking.ledger import Draft, Ledger
from tests.detect.race.test_plan import plan as plan_of
from watermark.prf import U32

PROMPT = "Tell me of owls."
ANSWER = "Owls hunt at night, and they see very well in the dark."
WAYS = ("ids", "rendered", "plain", "messages")
CANDIDATES = (" and", " but", " the")


@pytest.fixture(scope="module")
def tokenizer(smollm2_tokenizer: Tokenizer) -> Tokenizer:
    return smollm2_tokenizer


def ids_of(tokenizer: Tokenizer, text: str) -> U32:
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.uint32)


def document(tokenizer: Tokenizer, answer: str = ANSWER) -> ReadingDocument:
    told = ids_of(tokenizer, f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n")
    ids = ids_of(tokenizer, answer)
    return ReadingDocument("f, line 1", np.concatenate([told, ids]), len(told), text=answer, prompt=PROMPT, told=told)


def asking(ask: Any = "greedy", shown: Any = "ids", **more: Any) -> RaceAsking:
    form = more.pop("form", "continue" if shown == "messages" else "completions")
    return RaceAsking(ask=ask, form=form, shown=shown, ids=more.pop("ids", shown == "ids"), **more)


def questions(tokenizer: Tokenizer, how: RaceAsking, documents: list[ReadingDocument], offsets: list[int]) -> Any:
    """About the same places, counted from each answer's beginning."""
    cuts = [(number, one.lead + offset) for number, one in enumerate(documents) for offset in offsets]
    plan: RacePlan = plan_of(asking=how, cuts=cuts)
    where = Positions(
        np.array([number for number, _ in cuts]),
        np.array([place for _, place in cuts]),
        np.arange(len(cuts)).astype("u8"),
    )
    tokens = np.array([[int(ids_of(tokenizer, text)[0]) for text in CANDIDATES]] * len(cuts), dtype=np.int32)
    chances = Chances(tokens, np.array([[0.7, 0.297, 0.003]] * len(cuts)))
    text = ReadingText("f", "0" * 64, documents, marked=True)
    return RaceQuestions(plan, text, where, chances, tokenizer, tokenizer.get_vocab_size(), Budgets())


def body(made: Any, step: int) -> dict[str, Any]:
    return dict(json.loads(made.request(step, 0, 1).body))


def test_each_way_shows_the_prompt_and_the_beginning_and_nothing_else(tokenizer: Tokenizer) -> None:
    one = document(tokenizer)
    begun = tokenizer.decode(one.sequence[one.lead : one.lead + 5].tolist())
    asked = {shown: body(questions(tokenizer, asking(shown=shown), [one], [5]), 0) for shown in WAYS}
    assert asked["ids"]["prompt"] == one.sequence[: one.lead + 5].tolist()
    assert asked["rendered"]["prompt"] == tokenizer.decode(
        one.sequence[: one.lead + 5].tolist(), skip_special_tokens=False
    )
    assert asked["plain"]["prompt"] == f"{PROMPT}\n{begun}"
    assert asked["messages"]["messages"] == [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": begun},
    ]
    assert asked["messages"]["continue_final_message"] is True
    assert all(one["temperature"] == 0 and one["max_tokens"] == 1 for one in asked.values())


@pytest.mark.parametrize("shown", WAYS)
@given(tail=st.text(alphabet="abc ,.", max_size=30))
def test_what_comes_after_a_cut_has_no_say_in_what_is_asked(tokenizer: Tokenizer, shown: str, tail: str) -> None:
    one = document(tokenizer)
    begun = one.sequence[: one.lead + 5]
    rest = ids_of(tokenizer, tail)
    other = ReadingDocument(
        one.name, np.concatenate([begun, rest]), one.lead, text="?" + tail, prompt=one.prompt, told=one.told
    )
    made = [questions(tokenizer, asking("bias", shown, power=0.75, least=0.005), [each], [5]) for each in (one, other)]
    assert made[0].request(0, 0, 1) == made[1].request(0, 0, 1)


def test_a_bias_is_against_what_is_likely_anyway_and_leaves_the_unlikely_out(tokenizer: Tokenizer) -> None:
    made = body(questions(tokenizer, asking("bias", power=0.75, least=0.005), [document(tokenizer)], [5]), 0)
    values = list(made["logit_bias"].values())
    assert len(values) == 2 and 0 < values[0] < values[1] <= 100
    how = asking("bias", power=0.5, least=0.1)
    assert biases([3, 4], np.array([0.75, 0.25]), how) == {"3": round(-0.5 * math.log(0.75), 3), "4": 0.693}


def test_requests_are_in_the_order_of_serving_and_of_one_answer_where_it_is_read_whole(tokenizer: Tokenizer) -> None:
    documents = [document(tokenizer), document(tokenizer, "Owls sleep by day, as bats do, and so do many others.")]
    single = questions(tokenizer, asking(), documents, [3, 5])
    assert single.steps == 4 and [single.rows(step) for step in range(4)] == [slice(n, n + 1) for n in range(4)]
    lengths = [len(body(single, step)["prompt"]) for step in range(4)]
    assert lengths[1] == lengths[0] + 2 and lengths[3] == lengths[2] + 2
    whole = questions(tokenizer, asking("echo", extra={"echo": True, "logprobs": 1}), documents, [3, 5])
    assert whole.steps == 2 and [whole.rows(step) for step in range(2)] == [slice(0, 2), slice(2, 4)]
    assert body(whole, 1)["prompt"] == documents[1].sequence.tolist() and body(whole, 1)["echo"] is True


def test_two_cuts_that_are_shown_alike_are_asked_each_for_itself(tokenizer: Tokenizer) -> None:
    made = questions(tokenizer, asking(), [document(tokenizer), document(tokenizer)], [5])
    assert made.request(0, 0, 1).body == made.request(1, 0, 1).body
    assert made.request(0, 0, 1).key != made.request(1, 0, 1).key


def heard(made: Any, step: int, reply: dict[str, Any]) -> tuple[list[int], np.ndarray]:
    payload = json.dumps(reply).encode()
    taken = made.take(made.request(step, 0, 1), 1, payload, read_response(payload, 1))
    found = made.heard(step, taken.answers)
    return found.said.tolist(), found.shares


def test_a_word_is_heard_and_an_end_too(tokenizer: Tokenizer) -> None:
    made = questions(tokenizer, asking(shown="plain"), [document(tokenizer)], [5])
    assert heard(made, 0, {"choices": [{"text": " but then", "finish_reason": "length"}]})[0] == [1]
    assert heard(made, 0, {"choices": [{"text": "", "finish_reason": "stop"}]})[0] == [-1]  # no end among candidates
    said, shares = heard(made, 0, {"choices": []})
    assert said == [-1] and shares.shape == (1, 0)


@pytest.mark.parametrize("shown", ["ids", "plain"])
def test_while_a_reply_says_what_was_served_its_next_words_are_heard(tokenizer: Tokenizer, shown: str) -> None:
    one = document(tokenizer)
    made = questions(tokenizer, asking(shown=shown, max_tokens=4, run=4), [one], [3, 5, 9])
    assert [made.rows(step) for step in range(made.steps)] == [slice(0, 2), slice(2, 3)]

    def said(ids: list[int]) -> list[int]:
        choice: dict[str, Any] = {"text": tokenizer.decode(ids), "finish_reason": "length"}
        return heard(made, 0, {"choices": [choice | ({"token_ids": ids} if shown == "ids" else {})]})[0]

    served = one.sequence[one.lead + 3 : one.lead + 5].tolist()
    but, the = (int(ids_of(tokenizer, text)[0]) for text in (" but", " the"))
    assert said([*served, but]) == [-1, 1]
    assert said([but, but, the]) == [1, -1]  # it said something else: what follows is about another text
    assert said([served[0], but, the]) == [-1, -1]
    assert said(served) == [-1, -1]


@pytest.mark.parametrize("shown", ["ids", "plain"])
def test_log_probabilities_of_the_next_words_are_heard_as_well(tokenizer: Tokenizer, shown: str) -> None:
    one = document(tokenizer)
    how = asking("logprobs", shown=shown, max_tokens=4, run=4, alternatives=20)
    made = questions(tokenizer, how, [one], [3, 5])
    served = [tokenizer.decode([token]) for token in one.sequence[one.lead + 3 : one.lead + 5].tolist()]

    def shares(words: list[str]) -> np.ndarray:
        top = [{word: math.log(0.5), " but": math.log(0.4)} for word in words]
        logprobs = {"tokens": words, "token_logprobs": [math.log(0.5)] * len(words), "top_logprobs": top}
        choice: dict[str, Any] = {"text": "".join(words), "logprobs": logprobs, "finish_reason": "length"}
        if shown == "ids":
            choice["token_ids"] = [int(ids_of(tokenizer, word)[0]) for word in words]
        return heard(made, 0, {"choices": [choice]})[1]

    assert shares([*served, " the"])[:, 1] == pytest.approx([0.4, 0.4])
    assert shares([*served, " the"])[1, 2] == pytest.approx(0.5)
    other = shares([" dark", *served])
    assert other[0, 1] == pytest.approx(0.4) and np.isnan(other[1]).all()


def test_special_tokens_end_an_answer_and_parts_of_characters_are_never_said(tokenizer: Tokenizer) -> None:
    end = int(ids_of(tokenizer, "<|im_end|>")[0])
    part = int(ids_of(tokenizer, "\U0001f9a4")[0])
    texts = Show(asking(), tokenizer).candidates([end, part, -1, *ids_of(tokenizer, " and").tolist()])
    assert texts == [None, "", "", " and"]


def test_what_a_server_repeats_is_taken_off(tokenizer: Tokenizer) -> None:
    made = questions(tokenizer, asking(shown="messages", repeats=True), [document(tokenizer)], [5])
    begun = body(made, 0)["messages"][-1]["content"]
    reply = {"choices": [{"message": {"content": f"{begun} the dark"}, "finish_reason": "length"}]}
    assert heard(made, 0, reply)[0] == [2]


def test_log_probabilities_of_the_next_token_are_heard(tokenizer: Tokenizer) -> None:
    made = questions(tokenizer, asking("logprobs", shown="plain", alternatives=20), [document(tokenizer)], [5])
    top = [{" but": math.log(0.6), " and": math.log(0.3)}]
    logprobs = {"tokens": [" but"], "token_logprobs": [math.log(0.6)], "top_logprobs": top}
    said, shares = heard(made, 0, {"choices": [{"text": " but", "logprobs": logprobs, "finish_reason": "length"}]})
    assert said == [1]
    assert shares[0, :2] == pytest.approx([0.3, 0.6]) and 0 < shares[0, 2] < 1e-4


def entry(tokenizer: Tokenizer, *listed: tuple[str, float]) -> dict[str, Any]:
    return {str(int(ids_of(tokenizer, text)[0])): {"logprob": math.log(q), "decoded_token": text} for text, q in listed}


def test_a_whole_answer_is_heard_place_by_place_and_one_past_its_end(tokenizer: Tokenizer) -> None:
    one = document(tokenizer)
    length = len(one.sequence)
    last = length - one.lead  # the offset one past the end
    how = asking("prompt-logprobs", alternatives=3, extra={"prompt_logprobs": 3, "logprobs": 3})
    made = questions(tokenizer, how, [one], [5, last])
    listed: list[Any] = [None, *[entry(tokenizer, (" of", 0.4), (" in", 0.3), (" on", 0.1))] * (length - 1)]
    listed[one.lead + 5] = entry(tokenizer, (" but", 0.5), (" and", 0.2), (" of", 0.1), (" dark", 1e-9))
    top = [{" the": math.log(0.8), " and": math.log(0.1)}]
    choice = {
        "text": " the",
        "finish_reason": "length",
        "prompt_logprobs": listed,
        "logprobs": {"tokens": [" the"], "token_logprobs": [math.log(0.8)], "top_logprobs": top},
    }
    said, shares = heard(made, 0, {"choices": [choice]})
    assert said == [1, 2]
    assert shares[0, :2] == pytest.approx([0.2, 0.5]) and shares[0, 2] < 1e-3
    assert shares[1, 2] == pytest.approx(0.8) and shares[1, 0] == pytest.approx(0.1)


def test_an_echo_is_heard_of_the_served_token_alone(tokenizer: Tokenizer) -> None:
    one = document(tokenizer, "Owls and bats")
    place = one.sequence.tolist().index(int(ids_of(tokenizer, " and")[0]))
    cuts = [place - one.lead, len(one.sequence) - one.lead]  # the second is one past the end
    made = questions(tokenizer, asking("echo", extra={"echo": True, "logprobs": 1}), [one], cuts)
    names = [tokenizer.decode([int(token)], skip_special_tokens=False) for token in one.sequence]
    values: list[Any] = [None, *[-1.0] * (len(names) - 1)]
    values[place] = math.log(0.25)
    choice = {"text": "x", "finish_reason": "length", "logprobs": {"tokens": names, "token_logprobs": values}}
    _, shares = heard(made, 0, {"choices": [choice]})
    assert shares[0, 0] == pytest.approx(0.25) and np.isnan(shares[0, 1:]).all()
    assert np.isnan(shares[1]).all()


def test_a_reply_about_another_text_says_nothing(tokenizer: Tokenizer) -> None:
    how = asking("prompt-logprobs", alternatives=3, extra={"prompt_logprobs": 3})
    made = questions(tokenizer, how, [document(tokenizer)], [5])
    short = {"choices": [{"text": "x", "prompt_logprobs": [None, entry(tokenizer, (" but", 0.5))]}]}
    said, shares = heard(made, 0, short)
    assert said == [-1] and np.isnan(shares).all()


def test_steps_without_an_answer_before_later_ones_are_passed_over(tmp_path: Path, tokenizer: Tokenizer) -> None:
    made = questions(tokenizer, asking(), [document(tokenizer)], [2, 3, 4, 5, 6])
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.enter_plan(made.sha256, made.canonical)
        assert passed_over(made.sha256, ledger) == frozenset()
        for step, answered in ((0, True), (1, False), (2, True), (3, False)):
            (number,) = ledger.append([Draft("asked", f"{step:064x}", made.sha256, 1, {"prompt": step})])
            kind = "answered" if answered else "failed"
            ledger.append([Draft(kind, f"{step:064x}", made.sha256, 1, {}, b"{}", number)])  # type: ignore[arg-type]
        assert passed_over(made.sha256, ledger) == frozenset({1})
        assert passed_over("0" * 64, ledger) == frozenset()


def test_an_answer_whose_prompt_is_not_on_record_can_not_be_shown_as_a_chat(tokenizer: Tokenizer) -> None:
    bare = ReadingDocument("f, line 1", ids_of(tokenizer, ANSWER), 0, text=ANSWER)
    assert not any(Show(asking(shown=shown), tokenizer).fits(bare) for shown in WAYS)
    assert all(Show(asking(shown=shown), tokenizer).fits(document(tokenizer)) for shown in WAYS)
