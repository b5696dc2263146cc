"""What a server says is wrong, out of whatever body it puts that into: every server and proxy has a form of its own."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

_SAYS = (
    *("message", "msg", "error_message", "errorMessage", "error_msg", "detail", "details", "error", "errors"),
    *("description", "error_description", "title", "reason", "faultstring", "fault", "failure", "cause"),
)
_DEEPEST, _MOST = 6, 3
_LONGEST_PAGE = 20_000  # characters
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def one_line(text: str, limit: int = 200) -> str:
    """Untrusted text as one printable line, for messages."""
    flat = " ".join(text[: 8 * limit].split())
    shown = "".join(c if c.isprintable() else "?" for c in flat)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def error_of(body: dict[str, Any]) -> tuple[int | None, str] | None:
    """The status and the message of a body that is an error, whatever status it came with; None where it is none.

    A body that has choices is an answer.
    """
    if body.get("choices"):
        return None
    error = next((found for name in ("error", "detail", "errors") if (found := body.get(name))), None)
    if body.get("object") == "error":
        error = body
    if not error:
        return None
    found = error if isinstance(error, dict) else {}
    code = found.get("code", found.get("status"))
    status = code if isinstance(code, int) and 400 <= code <= 599 else None
    words = _told(error)
    beside = body.get("message")
    if not found and isinstance(beside, str) and beside not in words:  # {"error": "Bad Request", "message": why}
        words = f"{words}: {beside}" if words else beside
    return status, one_line(words or _dumped(error))


def error_message(payload: bytes) -> str:
    """What a server says is wrong, in one printable line of at most 200 characters; "" where it says nothing."""
    text = payload[:100_000].decode("utf-8", "replace").removeprefix("\ufeff").strip()
    body = _parsed(text.removeprefix("data:").partition("\n\n")[0])  # the first event of a stream
    if isinstance(body, dict):
        found = error_of(body)
        if found is not None:
            return found[1]
    if isinstance(body, dict | list) and (told := _told(body)):
        return one_line(told)
    return one_line(_of_page(text) if text.startswith("<") else text)


def _dumped(error: Any) -> str:
    try:
        return json.dumps(error)
    except RecursionError:
        return "an error without words"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _told(value: Any, depth: int = _DEEPEST) -> str:
    """The words of an error, with its code behind them; "" where there are none."""
    if isinstance(value, str):
        inner = _parsed(value) if value.lstrip()[:1] in ("{", "[") and depth else None  # a proxy's quote of another
        return (_told(inner, depth - 1) if isinstance(inner, dict | list) else "") or value.strip()
    if isinstance(value, list) and depth:
        told = [words for item in value[: _MOST + 1] if (words := _told(item, depth - 1))]
        return "; ".join(told[:_MOST]) + ("; ..." if len(told) > _MOST else "")
    if not isinstance(value, dict) or not depth:
        return ""
    words = next(_words(value, depth), "")
    where = value.get("loc")
    if words and isinstance(where, list) and where:
        words = f"{'.'.join(str(part) for part in where)}: {words}"
    code = value.get("code")
    kind = code if isinstance(code, str) and code else value.get("type")
    # In an item that says where it is wrong (FastAPI's), the type repeats the message.
    shown = f"({kind})" if isinstance(kind, str) and kind and where is None and kind not in words else ""
    return " ".join(part for part in (words, shown) if part)


def _words(value: dict[str, Any], depth: int) -> Iterator[str]:
    for name in _SAYS:
        if words := _told(value.get(name), depth - 1):
            yield words
    for item in value.values():  # {"username": ["is taken"]}, {"response": {"error": ...}}
        if isinstance(item, dict | list) and (words := _told(item, depth - 1)):
            yield words


def _of_page(text: str) -> str:
    """The words of an HTML page: its title, and what it shows where that says more."""
    text = text[:_LONGEST_PAGE]
    title = _TITLE.search(text)
    shown = " ".join(html.unescape(_TAG.sub(" ", _UNSEEN.sub(" ", text))).split())
    head = "" if title is None else " ".join(html.unescape(_TAG.sub(" ", title.group(1))).split())
    if not head or shown.startswith(head):
        return shown or head
    return f"{head}: {shown}" if shown else head
