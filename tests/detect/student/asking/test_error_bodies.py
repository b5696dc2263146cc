"""What is wrong, out of the bodies that servers and proxies put it into."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.error_bodies import error_message

NESTED = {"error": {"message": {"error": "bad thing"}}}
FILTER = {"message": "It was filtered", "type": None, "code": "content_filter", "innererror": {"code": "X"}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}]},
         "body.messages.0: field required"),
        ({"detail": NESTED}, "bad thing"),
        ({"error": {"message": {"temperature": ["is not supported"]}, "type": "bad"}}, "is not supported (bad)"),
        ({"error": {"message": json.dumps(NESTED)}}, "bad thing"),
        ({"message": "no"}, "no"),
        ({"errors": [{"message": "one", "code": 7}, "two"]}, "one; two"),
        ({"statusCode": 404, "message": "Resource not found"}, "Resource not found"),
        ({"error": "Bad Request", "message": "no such model"}, "Bad Request: no such model"),
        ({"error": True, "message": "no such model"}, "no such model"),
        ([{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}], "no"),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, "no (invalid_request_error)"),
        ({"error": FILTER}, "It was filtered (content_filter)"),
        ({"title": "Bad", "detail": "why", "status": 400}, "why"),
        ({"fault": {"faultstring": "no key"}}, "no key"),
        ({"object": "error", "message": "gone", "code": 404}, "gone"),
        (7, "7"),
    ],
)  # fmt: skip
def test_the_reason_is_found_in_any_form(body: Any, says: str) -> None:
    assert error_message(json.dumps(body).encode()) == says


def test_pages_streams_and_plain_words_are_read() -> None:
    page = b"<html><head><title>502 Bad Gateway</title><style>a{}</style></head><body><h1>502 Bad Gateway</h1></html>"
    assert error_message(page) == "502 Bad Gateway"
    assert error_message(b"<!DOCTYPE html><title>Just a moment</title><p>Are you &lt;human&gt;?") == (
        "Just a moment Are you <human>?"
    )
    assert error_message(b'data: {"error": {"message": "no"}}\n\ndata: [DONE]') == "no"
    assert error_message(b"plain words") == "plain words"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "detail", "message", "loc", "msg", "type", "code"]), inner, max_size=3
        )
    ),
    max_leaves=20,
)


@given(values)
def test_no_body_is_too_odd(body: Any) -> None:
    said = error_message(json.dumps(body).encode())
    assert said.isprintable() and len(said) <= 200
