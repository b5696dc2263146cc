"""The endpoint's API key: where it is read from, which header it goes into, and that it shows nowhere."""

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
_BEARER = "authorization"
_HEADER_NAME = re.compile(r"[A-Za-z0-9][-_A-Za-z0-9]{0,63}")
_NOT_FOR_KEYS = {
    *("accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host"),
    *("keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "cookie"),
}
"""Headers that the client sets itself, or that are no place for an API's key."""


class ApiKey:
    """A key that never shows in ``repr`` and never pickles.

    Parameters
    ----------
    secret
        The key itself.
    name
        Of the header that it goes into: as a bearer token into ``authorization``, as it is into any other, such as
        Azure's ``api-key``.
    """

    __slots__ = ("_name", "_secret")

    def __init__(self, secret: str, name: str | None = None) -> None:
        if not secret or not all("!" <= c <= "~" for c in secret):
            raise DyetraceError("the API key is empty or holds characters that no HTTP header may; check its source")
        self._secret, self._name = secret, _BEARER if name is None else header_name(name)

    def header(self) -> tuple[str, str]:
        """The header's name, in lower case, and its value; only for sending."""
        return self._name, f"Bearer {self._secret}" if self._name == _BEARER else self._secret

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


def load_api_key(source: str, header: str | None = None) -> ApiKey:
    """Load an API key from ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``, as `watermark.keys.load_key` does.

    Parameters
    ----------
    source
        Where it is.
    header
        Name of the header that it goes into; None for a bearer token in ``authorization``.

    Raises
    ------
    DyetraceError
        The source cannot be read, is open to others, or holds no token; the message shows nothing of it.
    """
    name = None if header is None else header_name(header)
    text, where = read_source(source, "API key", lambda rest: _looks_like_key(source.partition(":")[0], rest))
    try:
        return ApiKey(text.strip(), name)
    except DyetraceError:
        raise DyetraceError(f"{where} holds no API key (a single word of printable ASCII); check it") from None


def given_api_key(source: str | None, header: str | None) -> ApiKey | None:
    """The key that a command was given, as `load_api_key` has it; None where it was given none.

    Raises
    ------
    DyetraceError
        A header without a key, beside what `load_api_key` refuses.
    """
    if source is None and header is not None:
        raise DyetraceError("--api-key-header says where the API key goes: give --api-key as well, or leave it out")
    return None if source is None else load_api_key(source, header)


def header_name(name: str) -> str:
    """A header's name in lower case.

    Raises
    ------
    DyetraceError
        It is none, or not one for a key. A pasted key or a whole header is not shown.
    """
    if not _HEADER_NAME.fullmatch(name) or looks_pasted(name):
        raise DyetraceError(
            "the API key's header must be the bare name of an HTTP header, such as api-key; the key itself comes from "
            "the source of --api-key"
        )
    if name.lower() in _NOT_FOR_KEYS:
        raise DyetraceError(f"the header {name.lower()} is no place for an API key; give another name, such as api-key")
    return name.lower()


def looks_pasted(text: str) -> bool:
    """Whether a text begins as the API keys of well-known providers do."""
    return bool(_PASTED.match(text))


def _looks_like_key(kind: str, rest: str) -> bool:
    """Whether a key was pasted where the name of a variable or a file belongs: messages then say nothing of it."""
    return bool(_PASTED.match(rest)) or (kind == "env" and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", rest))
