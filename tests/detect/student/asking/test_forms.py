"""A begun answer is put to an endpoint in the form that its kind of server knows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.forms import FORMS, Form, clean, question_of, request_of

CHAT = [{"role": "user", "content": "Tell me of owls."}]


def test_each_form_ends_the_messages_with_the_begun_answer_in_its_own_way() -> None:
    bodies = {form: question_of(CHAT, form, "Owls", 1).body for form in FORMS if form != "completions"}
    assert {form: body["messages"][-1].get("prefix") for form, body in bodies.items()} == {
        "continue": None,
        "prefix": True,
        "last": None,
    }
    assert bodies["continue"]["continue_final_message"] is True
    assert bodies["continue"]["add_generation_prompt"] is False
    assert "continue_final_message" not in bodies["last"] and "continue_final_message" not in bodies["prefix"]
    assert all(body["messages"][-1]["content"] == "Owls" for body in bodies.values())
    assert CHAT == [{"role": "user", "content": "Tell me of owls."}]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "completions"])
def test_an_answer_that_is_not_begun_is_asked_for_as_any_other(form: Form) -> None:
    body = question_of(CHAT, form, "", 1).body
    assert body == {"messages": CHAT, "max_tokens": 1, "temperature": 0}


def test_completions_take_text_or_ids() -> None:
    assert question_of("Tell me.\n", "completions", "Owls", 2).body["prompt"] == "Tell me.\nOwls"
    ids = question_of([5, 6, 7], "completions", "", 2)
    assert ids.body["prompt"] == [5, 6, 7] and 5 <= ids.most_tokens <= 40


def test_settings_stand_in_the_body_and_may_set_the_temperature() -> None:
    body = question_of(CHAT, "last", "Owls", 1, logprobs=True, temperature=0.5).body
    assert body["logprobs"] is True and body["temperature"] == 0.5


@given(st.text(), st.sampled_from(FORMS))
def test_no_tokenizer_makes_more_tokens_than_are_counted_and_any_text_can_be_sent(text: str, form: Form) -> None:
    question = question_of(clean(text) if form == "completions" else [{"role": "user", "content": text}], form, text, 3)
    url, body, most = request_of("http://host", "m", question)
    assert most == 3 and question.most_tokens >= 3 + len(clean(text).encode())
    assert url == "http://host/v1" + ("/completions" if form == "completions" else "/chat/completions")
    assert json.loads(body)["model"] == "m"
