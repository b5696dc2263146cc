"""The endpoint's API key: where it is read from, and that it shows nowhere."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn
from urllib.parse import quote

from watermark.errors import DyetraceError
from watermark.keys import read_source

_PASTED = re.compile(r"((sk|pk|hf|gsk|xai|nvapi)[-_]|AIza|eyJ|Bearer )[-_A-Za-z0-9]{16,}")
_SHORTEST_SECRET = 12
_REDACTED = b"[redacted]"


class ApiKey:
    """A bearer token that never shows in ``repr`` and never pickles."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        if not secret or not all("!" <= c <= "~" for c in secret):
            raise DyetraceError("the API key is empty or holds characters that no HTTP header may; check its source")
        self._secret = secret

    def authorization(self) -> str:
        """The header's value; only for sending."""
        return f"Bearer {self._secret}"

    def redact(self, data: bytes) -> bytes:
        """``data`` without the key: a server may quote it in an error, and nothing of it belongs into a ledger.

        Placeholders of fewer than 12 characters ("EMPTY", "ollama"), which local servers are content with, are left.
        """
        if len(self._secret) < _SHORTEST_SECRET:
            return data
        quoted = json.dumps(self._secret)[1:-1]
        for form in {self._secret, quoted, quoted.replace("/", "\\/"), quote(self._secret, safe="")}:
            data = data.replace(form.encode(), _REDACTED)
        return data

    def __repr__(self) -> str:
        return "ApiKey(<redacted>)"

    def __copy__(self) -> ApiKey:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ApiKey:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("an ApiKey cannot be pickled: pass its source (file:, env:, cmd:) instead")


def load_api_key(source: str) -> ApiKey:
    """Load an API key from ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``, as `watermark.keys.load_key` does.

    Raises
    ------
    DyetraceError
        The source cannot be read, is open to others, or holds no token; the message shows nothing of it.
    """
    text, where = read_source(source, "API key", lambda rest: _looks_like_key(source.partition(":")[0], rest))
    try:
        return ApiKey(text.strip())
    except DyetraceError:
        raise DyetraceError(f"{where} holds no API key (a single word of printable ASCII); check it") from None


def _looks_like_key(kind: str, rest: str) -> bool:
    """Whether a key was pasted where the name of a variable or a file belongs: messages then say nothing of it."""
    return bool(_PASTED.match(rest)) or (kind == "env" and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", rest))
