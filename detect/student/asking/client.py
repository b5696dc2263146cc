"""One request to an endpoint: sent with the key, read up to a limit, and judged by its status alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from detect.student.asking.answers import error_message, one_line
from detect.student.asking.credentials import ApiKey
from detect.student.asking.reach import Unreachable, explained, proxy_between
from watermark.errors import MachineError

if TYPE_CHECKING:
    import httpx2

Verdict = Literal["answer", "again", "refused", "stop"]

_KEPT_HEADERS = ("date", "content-type", "retry-after", "retry-after-ms", "x-request-id", "request-id", "server")
_AGAIN = {408, 409, 425, 429}
_HOPELESS = {401, 403, 404, 405, 407}
_LONGEST_CONNECT = 15.0  # seconds
_BYTES_PER_TOKEN, _BYTES_PER_ALTERNATIVE, _BYTES_BESIDES = 256, 512, 1 << 18


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
    proxy
        Host and port of the proxy that it came through; None for none.
    """

    status: int
    headers: dict[str, str]
    payload: bytes
    seconds: float
    problem: str | None = None
    proxy: str | None = None

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
        said = f"status {self.status}" + (f": {message}" if message else "")
        return said if self.proxy is None else f"{said} (through the proxy {self.proxy})"


class Endpoint:
    """Connections to one endpoint.

    Parameters
    ----------
    url
        Where requests go.
    key
        Sent in its header; None for servers that want none.
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
            raise MachineError("asking an endpoint needs httpx2: pip install 'dyetrace[api]'") from None
        # At DEBUG it logs headers as they come, and an endpoint may quote the key in one.
        log = logging.getLogger("httpcore2")
        log.setLevel(max(log.level, logging.INFO))
        # A compressed body could unfold to any size.
        headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "dyetrace"}
        if key is not None:
            name, value = key.header()
            headers[name] = value
        self._url, self._key, self._timeout, self._largest = url, key, timeout, largest
        self._connect = min(0.9 * timeout, _LONGEST_CONNECT)
        self._proxy: str | None = None
        try:
            self._client = httpx2.AsyncClient(
                headers=headers,
                timeout=httpx2.Timeout(timeout, connect=self._connect),
                limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            )
        except ImportError:
            raise MachineError("the proxy speaks SOCKS, which needs socksio: run `pip install socksio`") from None
        except OSError as error:
            raise MachineError(f"SSL_CERT_FILE or SSL_CERT_DIR can't be used: {error.strerror or error}") from None
        except ValueError:  # its message may quote the proxy's password
            raise MachineError("HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is no proxy's address: mend or unset it") from None

    async def post(self, body: bytes, url: str | None = None) -> Reply:
        """Send a request, to another address of the same host where one is given.

        Raises
        ------
        Unreachable
            No whole response came.
        """
        return await self._exchange("POST", body, url)

    async def get(self) -> Reply:
        """Fetch what is there, as `post` does."""
        return await self._exchange("GET", None, None)

    async def _exchange(self, method: str, body: bytes | None, url: str | None) -> Reply:
        import httpx2

        started = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(
                    method, url or self._url, content=body, extensions={"trace": self._look_where}
                ) as response,
            ):
                payload, problem = await self._read(response)
                status, headers = response.status_code, self._kept(response)
        except TimeoutError:
            raise self._late() from None
        except httpx2.ConnectTimeout as error:
            raise self._failed(error, connected=False) from None
        except httpx2.TimeoutException:
            raise self._late() from None
        except httpx2.TransportError as error:
            before = isinstance(error, httpx2.ConnectError | httpx2.ProxyError)
            raise self._failed(error, connected=not before) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise self._failed(error, connected=True) from None
        return Reply(status, headers, payload, time.monotonic() - started, problem, self._proxy)

    async def _look_where(self, event: str, info: Mapping[str, Any]) -> None:
        """Take down where a connection goes: the environment may name a proxy, and rules which it is for."""
        if event == "connection.connect_tcp.started":
            self._proxy = proxy_between(self._url, str(info["host"]), int(info["port"]))

    def _late(self) -> Unreachable:
        through = "" if self._proxy is None else f"; through the proxy {self._proxy}"
        longer = "give it longer by --timeout, or try when it is less busy"
        return Unreachable(f"no answer within {self._timeout:g} s{through}", connected=True, advice=longer)

    def _failed(self, error: Exception, connected: bool) -> Unreachable:
        reason, advice = explained(error, self._proxy, self._connect)
        return Unreachable(self._shown(reason), connected, advice)

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

    def _shown(self, text: str) -> str:
        data = text.encode("utf-8", "replace")
        return one_line((data if self._key is None else self._key.redact(data)).decode("utf-8", "replace"))


def largest_body(tokens: int, alternatives: int) -> int:
    """Bytes that the JSON of so many tokens, with so many alternatives at each, can take; generously."""
    return _BYTES_BESIDES + tokens * (_BYTES_PER_TOKEN + _BYTES_PER_ALTERNATIVE * alternatives)
