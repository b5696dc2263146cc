"""The address of an API: its base, where requests go below it with the base's own query, and what it must not hold."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from detect.student.asking.credentials import looks_pasted
from watermark.errors import DyetraceError

_HOW = "give the API's base address, such as https://host/v1"
_BY_HEADER = "give it by --api-key, and by --api-key-header where it goes into a header of its own name"
_SECRET_NAME = re.compile(
    r"key|token|secret|passw|pwd|auth|cred|signature|session|jwt|bearer|^(sig|sas|code|pass|pin)$",
    re.IGNORECASE,
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_LONGEST_WORD = 16  # letters and digits mixed, without anything between: no version or name is that long


def check_url(url: str) -> None:
    """Raise DyetraceError unless ``url`` is an http(s) address that holds no secret; its query is sent along."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise DyetraceError(f"the endpoint's address is not a URL; {_HOW}") from None
    # What may be a secret is never shown.
    if parts.username is not None or parts.password is not None:
        raise DyetraceError("the endpoint's address holds a user's name; give the API key by --api-key")
    if parts.fragment:
        raise DyetraceError("the endpoint's address holds a fragment (#...), which is never sent; leave it out")
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise DyetraceError(f"the endpoint's address must begin with http:// or https:// and name a host; {_HOW}")
    if not url.isascii():
        raise DyetraceError(f"the endpoint's address holds characters that no URL may; {_HOW}")
    if any(looks_pasted(part) for part in parts.path.split("/")):
        raise DyetraceError(f"the path of the endpoint's address holds what looks like a secret; {_BY_HEADER}")
    if any(_SECRET_NAME.search(name) or _looks_secret(value) for name, value in _query(parts)):
        raise DyetraceError(f"the query of the endpoint's address holds what looks like a secret; {_BY_HEADER}")


def api_root(url: str) -> str:
    """The base address without its query and a final slash; /v1 is added where there is no path.

    An endpoint's own path is removed.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/completions").removesuffix("/chat").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path or "/v1", "", ""))


def address_below(url: str, path: str) -> str:
    """Where requests go, with the query of the base address (Azure's ``?api-version=``) behind the path.

    Examples
    --------
    >>> address_below("https://x.example/openai/deployments/gpt?api-version=2024-10-21", "/chat/completions")
    'https://x.example/openai/deployments/gpt/chat/completions?api-version=2024-10-21'
    """
    query = urlsplit(url).query
    return api_root(url) + path + (f"?{query}" if query else "")


def _query(parts: SplitResult) -> list[tuple[str, str]]:
    """Names and values; a query without "=" is a value."""
    found = parse_qsl(parts.query, keep_blank_values=True)
    return [("", name) if not value else (name, value) for name, value in found]


def _looks_secret(value: str) -> bool:
    if looks_pasted(value) or _UUID.search(value):
        return True
    words = re.findall(r"[A-Za-z0-9]+", value)
    return any(len(word) >= _LONGEST_WORD and not word.isalpha() for word in words)
