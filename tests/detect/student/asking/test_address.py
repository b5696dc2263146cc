"""Addresses: their query goes along, and what may be a secret is refused and never shown."""

from __future__ import annotations

import pytest

from detect.student.asking.address import address_below, check_url
from watermark.errors import DyetraceError

AZURE = "https://x.openai.azure.com/openai/deployments/gpt-4o"


@pytest.mark.parametrize(
    ("url", "below"),
    [
        (f"{AZURE}?api-version=2024-10-21", f"{AZURE}/chat/completions?api-version=2024-10-21"),
        (f"{AZURE}/?api-version=2024-10-21", f"{AZURE}/chat/completions?api-version=2024-10-21"),
        (f"{AZURE}/chat/completions?api-version=1", f"{AZURE}/chat/completions?api-version=1"),
        ("https://host?a=1&b=2", "https://host/v1/chat/completions?a=1&b=2"),
        ("https://host/v1", "https://host/v1/chat/completions"),
    ],
)
def test_requests_go_below_the_base_with_its_query(url: str, below: str) -> None:
    check_url(url)
    assert address_below(url, "/chat/completions") == below


@pytest.mark.parametrize(
    "query",
    [
        "api-version=2025-04-01-preview",
        "api-version=preview&deployment=gpt-4o-mini-2024-07-18",
        "alt=json",
        "region=northcentralus-2",
    ],
)
def test_versions_and_names_are_no_secrets(query: str) -> None:
    check_url(f"https://host/v1?{query}")


@pytest.mark.parametrize(
    "rest",
    [
        "?key=w0rd", "?api_key=w0rd", "?subscription-key=w0rd", "?x-api-key=w0rd", "?access_token=w0rd", "?code=w0rd",
        "?sv=2024&sig=w0rd", "?v=sk-w0rd-abcdefghijklmnop", "?v=Bearer%20w0rdabcdefghijklmnop",
        "?sk-w0rdabcdefghijklmnop",
        "?v=0123456789abcdefw0rd", "?v=123e4567-e89b-12d3-a456-426614174000", "/sk-w0rdabcdefghijklmnopqrst/v1",
        "#w0rd",
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_refused_and_not_shown(rest: str) -> None:
    with pytest.raises(DyetraceError) as caught:
        check_url(f"https://host/v1{rest}")
    assert "w0rd" not in str(caught.value) and "\n" not in str(caught.value)
    assert rest == "#w0rd" or "--api-key-header" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://user:w0rd@host/v1", "https://w0rd@host/v1", "ftp://host", "host", "https://", ""]
)
def test_other_addresses_are_none(url: str) -> None:
    with pytest.raises(DyetraceError) as caught:
        check_url(url)
    assert "w0rd" not in str(caught.value)
