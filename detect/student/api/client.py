"""One request to an endpoint: sent with the key, read up to a limit, and judged by its status alone."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from detect.student.api.answers import error_message, one_line
from detect.student.api.credentials import ApiKey
from watermark.errors import MachineError

if TYPE_CHECKING:
    import httpx2

Verdict = Literal["answer", "again", "refused", "stop"]

_KEPT_HEADERS = ("date", "content-type", "retry-after", "retry-after-ms", "x-request-id", "request-id", "server")
_AGAIN = {408, 409, 425, 429}
_HOPELESS = {401, 403, 404, 405}
_BYTES_PER_TOKEN, _BYTES_PER_ALTERNATIVE, _BYTES_BESIDES = 256, 512, 1 << 18


class Unreachable(Exception):
    """A request got no whole response.

    Attributes
    ----------
    reason
        One printable line.
    connected
        Whether the endpoint was reached at all: then it may have answered, and may charge for it.
    """

    def __init__(self, reason: str, connected: bool) -> None:
        super().__init__(reason)
        self.reason, self.connected = reason, connected


@dataclass(frozen=True, slots=True)
class Reply:
    """A response.

    Attributes
    ----------
    headers
        Those that matter later, by lower-case name, each one printable line.
    payload
        The body, without the API key should the endpoint quote it; empty where it was refused.
    seconds
        From sending to the last byte.
    problem
        Why the body was not read: it is larger than any answer, or compressed though that was not asked for.
    """

    status: int
    headers: dict[str, str]
    payload: bytes
    seconds: float
    problem: str | None = None

    def verdict(self, error: tuple[int | None, str] | None) -> Verdict:
        """What to do, given the error that the body of a 2xx response holds, if any.

        "answer" is paid for and final, "again" may go well later, "refused" concerns this request, "stop" all.
        """
        status = self.status
        if error is not None and 200 <= status < 300:
            status = error[0] or 502
        if 200 <= status < 300:
            return "answer"
        if status == 429 and b"insufficient_quota" in self.payload:
            return "stop"
        if status in _AGAIN or status >= 500:
            return "again"
        return "stop" if status in _HOPELESS or status < 400 else "refused"

    def says(self) -> str:
        """Status and message in one line, for an error."""
        message = error_message(self.payload)
        if 300 <= self.status < 400:
            message = "a redirect, which is not followed; give the address that it leads to"
        return f"status {self.status}" + (f": {message}" if message else "")


class Endpoint:
    """Connections to one endpoint.

    Parameters
    ----------
    url
        Where requests go.
    key
        Sent as a bearer token; None for servers that want none.
    connections
        Kept open at most.
    timeout
        Seconds for one request as a whole.
    largest
        Bytes of a body that are read at most (`largest_body`).
    """

    def __init__(self, url: str, key: ApiKey | None, *, connections: int, timeout: float, largest: int) -> None:
        try:
            import httpx2
        except ImportError:
            raise MachineError("asking an endpoint needs httpx2: run `pip install httpx2`") from None
        # At DEBUG it logs headers as they come, and an endpoint may quote the key in one.
        log = logging.getLogger("httpcore2")
        log.setLevel(max(log.level, logging.INFO))
        # A compressed body could unfold to any size.
        headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "dyetrace"}
        if key is not None:
            headers["authorization"] = key.authorization()
        self._url, self._key, self._timeout, self._largest = url, key, timeout, largest
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 15.0)),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    async def post(self, body: bytes) -> Reply:
        """Send a request.

        Raises
        ------
        Unreachable
            No whole response came.
        """
        return await self._exchange("POST", body)

    async def get(self) -> Reply:
        """Fetch what is there, as `post` does."""
        return await self._exchange("GET", None)

    async def _exchange(self, method: str, body: bytes | None) -> Reply:
        import httpx2

        started = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(method, self._url, content=body) as response,
            ):
                payload, problem = await self._read(response)
                status, headers = response.status_code, self._kept(response)
        except TimeoutError:
            raise Unreachable(f"no answer within {self._timeout:g} s", connected=True) from None
        except httpx2.TransportError as error:
            before = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
            raise Unreachable(self._reason(error), connected=not before) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise Unreachable(self._reason(error), connected=True) from None
        return Reply(status, headers, payload, time.monotonic() - started, problem)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read(self, response: httpx2.Response) -> tuple[bytes, str | None]:
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            return b"", "a compressed body, which was not asked for"
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > self._largest:
                return b"", f"a body of more than {self._largest:,} bytes"
        return (bytes(body) if self._key is None else self._key.redact(bytes(body))), None

    def _kept(self, response: httpx2.Response) -> dict[str, str]:
        found = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        return {name: self._shown(value) for name, value in found.items()}

    def _reason(self, error: Exception) -> str:
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return self._shown(words)

    def _shown(self, text: str) -> str:
        data = text.encode("utf-8", "replace")
        return one_line((data if self._key is None else self._key.redact(data)).decode("utf-8", "replace"))


def largest_body(tokens: int, alternatives: int) -> int:
    """Bytes that the JSON of so many tokens, with so many alternatives at each, can take; generously."""
    return _BYTES_BESIDES + tokens * (_BYTES_PER_TOKEN + _BYTES_PER_ALTERNATIVE * alternatives)


def shown_host(url: str) -> str:
    """Host and port, for messages."""
    return one_line(urlsplit(url).netloc, 100)
