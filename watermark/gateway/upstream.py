"""The server behind the gateway: what is sent to it of a client's request, and what goes back of its response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx2

_HOP_BY_HOP = frozenset(
    b"connection expect keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
"""Headers that concern one connection (RFC 9110, section 7.6.1; RFC 2616, section 13.5.1)."""
_CONNECT_SECONDS = 15.0

Headers = list[tuple[bytes, bytes]]


class Upstream:
    """Connections to the server behind, which are closed when its ``async with`` block is left.

    Parameters
    ----------
    url
        Its base address, such as http://127.0.0.1:8000/v1; its query, such as Azure's ``api-version``, is added to
        that of each request.
    credential
        Gives the name, in lower case, and the value of the header with the API key, in place of the client's own; None
        leaves that.
    own_headers
        Headers of requests that are the gateway's alone, in lower case.
    timeout
        Seconds between two parts of a response at most.
    """

    def __init__(
        self,
        url: str,
        credential: Callable[[], tuple[str, str]] | None,
        own_headers: Iterable[str],
        timeout: float,
    ) -> None:
        base, _, self._query = url.partition("?")
        self.url = base.rstrip("/")
        self._credential = credential
        self._own = frozenset(name.encode("latin-1") for name in own_headers)
        self._timeout = httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS), pool=None)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx2.AsyncClient(limits=limits, timeout=self._timeout)

    @asynccontextmanager
    async def asked(
        self, method: str, path: str, headers: Headers, content: bytes | AsyncIterator[bytes] | None
    ) -> AsyncIterator[httpx2.Response]:
        """A response, while its body is still to be read.

        Parameters
        ----------
        method, path
            What below the base address, with its query.
        headers, content
            As `passed_on` or `read_whole` made them, and the body.

        Raises
        ------
        httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError
            No response came.
        """
        # Made by hand: the client would add headers of its own, and cookies that other clients were given.
        request = httpx2.Request(
            method,
            self._address(path),
            headers=headers,
            content=content,
            extensions={"timeout": self._timeout.as_dict()},
        )
        response = await self._client.send(request, stream=True)
        self._client.cookies.clear()
        try:
            yield response
        finally:
            await response.aclose()

    def _address(self, path: str) -> str:
        if not self._query:
            return self.url + path
        return f"{self.url}{path}{'&' if '?' in path else '?'}{self._query}"

    def passed_on(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """A client's headers as they go on: without those of its connection, of the gateway, and of its host."""
        all_of_them = [(name.lower(), value) for name, value in headers]
        left = _HOP_BY_HOP | self._own | {b"host"} | _named(all_of_them)
        kept = [(name, value) for name, value in all_of_them if name not in left]
        if self._credential is not None:
            own, secret = (part.encode("latin-1") for part in self._credential())
            kept = [(name, value) for name, value in kept if name not in (b"authorization", own)]
            kept.append((own, secret))
        return kept

    def read_whole(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """The same, where the gateway has the body and reads the answer: no length, and no compression."""
        left = (b"content-length", b"accept-encoding")
        return [(name, value) for name, value in self.passed_on(headers) if name not in left] + [
            (b"accept-encoding", b"identity")
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


def handed_back(response: httpx2.Response, *, as_it_comes: bool) -> Headers:
    """A response's headers as the client gets them.

    Parameters
    ----------
    response
        The server's.
    as_it_comes
        Whether its bytes are handed back unchanged, and with them their length.
    """
    all_of_them = [(name.lower(), value) for name, value in response.headers.raw]
    left = _HOP_BY_HOP | _named(all_of_them) | (frozenset() if as_it_comes else {b"content-length"})
    return [(name, value) for name, value in all_of_them if name not in left]


def is_stream(response: httpx2.Response) -> bool:
    """Whether its body is server-sent events."""
    kind: Any = response.headers.get("content-type", "")
    return str(kind).partition(";")[0].strip().lower() == "text/event-stream"


def _named(headers: Headers) -> frozenset[bytes]:
    """Headers that ``connection`` names, which concern one connection too."""
    found = [value for name, value in headers if name == b"connection"]
    return frozenset(part.strip().lower() for value in found for part in value.split(b","))
