"""Which settings a refusal is about: in the words of real servers, and in none where it is about something else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from detect.student.asking.fields import (
    as_options,
    chosen,
    fitted,
    guesses,
    is_too_short,
    is_used_up,
    named,
    refused_next,
)
from tests.detect.student.asking import strict

SENT = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "seed": 1, "n": 3}


def said(body: Any) -> bytes:
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def error(message: str, **more: Any) -> Any:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


@pytest.mark.parametrize(
    ("refusal", "names"),
    [
        (strict.reasoning_model({"max_tokens": 1}), ["max_tokens"]),
        (strict.reasoning_model({"temperature": 0.7}), ["temperature"]),
        (strict.claude(SENT), ["top_p", "temperature"]),
        (strict.claude_of_late(SENT), ["temperature"]),
        (strict.tgi(SENT), ["top_p"]),
        (strict.knows_only("top_p", "n")(SENT), ["seed", "temperature", "max_tokens"]),
        ((0, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}), ["seed"]),
        ((0, {"message": "Malformed input request: #: extraneous key [top_p] is not permitted"}), ["top_p"]),
        ((0, error('Invalid JSON payload received. Unknown name "seed": Cannot find field.')), ["seed"]),
        ((0, error("Unrecognized request argument supplied: n", param="n")), ["n"]),
        ((0, error("topP and maxOutputTokens are not supported")), ["top_p", "max_tokens"]),
        ((0, "temperature: Input should be less than or equal to 1"), ["temperature"]),
        ((0, error(json.dumps({"error": {"message": "`temperature` is deprecated"}}))), ["temperature"]),
    ],
)
def test_settings_are_named_as_servers_name_them(refusal: tuple[int, Any], names: list[str]) -> None:
    assert named(said(refusal[1]), SENT) == names


@pytest.mark.parametrize(
    "body",
    [
        error("The model `temperature-7b` does not exist", param="model", code="model_not_found"),
        error("'max_tokens' is too large: 4000. This model's maximum context length is 2048 tokens."),
        error("Invalid 'max_tokens': integer below minimum value. Expected a value >= 16.", param="max_tokens"),
        error("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        error("max_tokens of 9000 exceeds what is left; use a smaller value instead"),
        error("Could not finish the message because max_tokens or model output limit was reached."),
        error("Incorrect API key provided"),
        {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "temperature is a word of the prompt"}]},
        {"detail": [{"loc": ["body"], "msg": "bad", "input": {"temperature": 1.0}}]},  # the request, quoted
        "<html>no</html>",
        "",
        "[" * 100_000,
        error("n is a letter, and so is not supported"),
    ],
)
def test_what_is_about_something_else_names_none(body: Any) -> None:
    assert named(said(body), SENT) == [] and refused_next([], SENT, said(body)) is None


def test_a_limit_that_is_too_low_shows_that_the_rest_is_taken() -> None:
    used = said(error("Could not finish the message because max_tokens or model output limit was reached."))
    low = said(error("Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16."))
    unknown = said(error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
    assert (is_used_up(used), is_used_up(low), is_used_up(unknown)) == (True, False, False)
    assert (is_too_short(low), is_too_short(unknown)) == (True, False)


def test_one_setting_goes_at_a_time_and_the_limit_gets_its_other_name_first() -> None:
    refusal = said(strict.claude(SENT)[1])  # type: ignore[index]
    assert refused_next([], SENT, refusal) == ["top_p"]
    assert fitted(SENT, ["top_p", "max_tokens"]) == {
        "temperature": 1.0, "max_completion_tokens": 9, "seed": 1, "n": 3
    }  # fmt: skip
    assert "max_completion_tokens" not in fitted(SENT, ["max_tokens", "max_completion_tokens"])
    assert fitted(SENT, []) == SENT


def test_guesses_are_made_where_nothing_is_named_alone() -> None:
    assert guesses({"temperature": 1, "max_tokens": 1}, b"Bad Request")[:2] == [["max_tokens"], ["temperature"]]
    assert guesses(SENT, said(error("logprobs are not supported"))) != []
    assert guesses({**SENT, "logprobs": True}, said(error("logprobs are not supported"))) == []
    assert guesses(SENT, said(error("no such model", param="model"))) == []


@pytest.mark.parametrize(
    ("leave_out", "limit"),
    [((), None), (("temperature",), "max_completion_tokens"), (("max_tokens", "top_p"), None), ((), "max_tokens")],
)
def test_what_was_chosen_can_be_given_again(leave_out: tuple[str, ...], limit: Any) -> None:
    found = as_options(chosen(leave_out, limit))
    assert sorted(found.get("leave_out") or []) == sorted(leave_out)  # type: ignore[arg-type]
    assert found.get("limit_field") == limit
