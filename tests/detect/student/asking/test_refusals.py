"""Refusals of single prompts are counted; an endpoint that takes none ends it."""

from __future__ import annotations

import json

import pytest

from detect.student.asking.refusals import Refusals, is_of_prompt
from watermark.errors import DyetraceError


@pytest.mark.parametrize(
    ("status", "message", "of_prompt"),
    [
        (400, "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", True),
        (403, "Your chosen model requires moderation and your input was flagged for violence", True),
        (400, "Output data may contain inappropriate content.", True),
        (400, "This model's maximum context length is 4096 tokens", True),
        (400, "request (3014 tokens) exceeds the available context size (2816 tokens), try increasing it", True),
        (400, "The input token count (9) exceeds the maximum number of tokens allowed (8).", True),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens", True),
        (200, "Your input was flagged", True),  # proxies send errors with status 200
        (422, "temperature: not supported", False),
        (403, "Your key may not use this model", False),
        (401, "content_filter", False),
        (500, "content_filter", False),
        (429, "flagged: too many requests", False),
    ],
)
def test_refusals_for_words_of_the_prompt_are_known(status: int, message: str, of_prompt: bool) -> None:
    assert is_of_prompt(status, json.dumps({"error": {"message": message}}).encode()) == of_prompt


def test_the_first_ones_alike_end_it_and_answers_make_it_patient() -> None:
    one = Refusals("host")
    for step in range(4):
        counted = one.refused(step, f"status 400: no (request {step}a7)", "mend it", False, False)
    assert counted == {"status 400: no (request 0a7)": 4} and one.count == 4
    with pytest.raises(DyetraceError, match=r"^host refuses the first 5 prompts: status 400: no .*; mend it$"):
        one.refused(4, "status 400: no (request 4a7)", "mend it", False, False)
    other = Refusals("host")
    for step in range(100):
        other.refused(step, "status 400: no", "mend it", True, False)
        other.answered() if step % 4 == 3 else None
    assert other.count == 100


def test_content_filters_may_refuse_more_in_a_row_than_anything_else() -> None:
    one = Refusals("host")
    for step in range(19):
        one.refused(step, "status 400: filtered", "", True, True)
    with pytest.raises(DyetraceError, match=r"20 in a row.*the same command goes on"):
        one.refused(19, "status 400: filtered", "", True, True)
    other = Refusals("host")
    with pytest.raises(DyetraceError, match="5 in a row"):
        for step in range(9):
            other.refused(step, "status 402: no money", "", True, False)


def test_all_that_was_asked_may_be_refused() -> None:
    one = Refusals("host")
    one.check_end(False)
    one.on_record(0, "status 400: filtered")
    one.check_end(True)
    with pytest.raises(DyetraceError, match="refuses the one prompt: status 400: filtered"):
        one.check_end(False)


def test_reasons_are_few_on_record_however_many_there_are() -> None:
    one = Refusals("host")
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split()
    for step, word in enumerate(words):
        counted = one.on_record(step, word)
    assert len(counted) == 11 and counted["other reasons"] == 2
