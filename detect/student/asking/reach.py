"""Why a request got no answer, in words that people know, and what they can do about it."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from detect.student.asking.answers import one_line

_UP = "check the address and that the server is up"


class Unreachable(Exception):
    """A request got no whole response.

    Attributes
    ----------
    reason
        One printable line.
    connected
        Whether the endpoint was reached at all: then it may have answered, and may charge for it.
    advice
        What to do, as a part of a sentence.
    """

    def __init__(self, reason: str, connected: bool, advice: str = _UP) -> None:
        super().__init__(reason)
        self.reason, self.connected, self.advice = reason, connected, advice


def shown_host(url: str) -> str:
    """Host and port, for messages."""
    return one_line(urlsplit(url).netloc, 100)


def cannot_reach(url: str, error: Unreachable) -> str:
    """The whole line of a command that ends because of it."""
    return f"cannot reach {shown_host(url)} ({error.reason}); {error.advice}"


def proxy_between(url: str, host: str, port: int) -> str | None:
    """The proxy's host and port, without its credentials, where connections go there and not to the URL's own."""
    parts = urlsplit(url)
    own = parts.port or (443 if parts.scheme == "https" else 80)
    if (host.strip("[]").lower(), port) == ((parts.hostname or "").lower(), own):
        return None
    return one_line(f"{f'[{host}]' if ':' in host else host}:{port}", 100)


def explained(error: BaseException, proxy: str | None, connect_seconds: float) -> tuple[str, str]:
    """Reason and advice of an error that a connection ended with; both may still hold what the other side said.

    Parameters
    ----------
    error
        As the HTTP client raised it, with its causes.
    proxy
        Host and port of the proxy that was used; None for none.
    connect_seconds
        How long a connection may take to be made.
    """
    reason, advice = _direct(error, connect_seconds)
    if proxy is None:
        return reason, advice
    return f"{reason}; through the proxy {proxy}", (
        "check the proxy, which HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names; NO_PROXY lists hosts to be asked without it"
    )


def _direct(error: BaseException, connect_seconds: float) -> tuple[str, str]:
    for cause in _causes(error):
        name = type(cause).__name__
        match cause:
            case ConnectionRefusedError():
                return "connection refused", _UP
            case socket.gaierror():
                told = "cannot be looked up now" if cause.errno == socket.EAI_AGAIN else "is not known"
                return f"the host's name {told}", "check the address, and this machine's network"
            case ssl.SSLCertVerificationError():
                said = getattr(cause, "verify_message", "") or str(cause)
                return f"its certificate is not accepted: {said}", (
                    "check the address; where the certificate is your own, name its authority's file by SSL_CERT_FILE"
                )
            case ssl.SSLError():
                return f"no secure connection: {cause.reason or cause}", "check whether its address begins with http://"
            case OSError() if cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN):
                return os.strerror(cause.errno).lower(), "check the address, and this machine's network"
        if name == "ConnectTimeout":
            return f"no connection within {connect_seconds:g} s", _UP
        if name == "ProxyError":
            return f"refused: {cause}", _UP
        if name == "RemoteProtocolError":
            text = str(cause)
            closed = "disconnected" in text or "closed" in text
            return ("the connection was closed before the answer was whole" if closed else f"no HTTP: {text}"), _UP
        if isinstance(cause, ConnectionError) or name in ("ReadError", "WriteError", "CloseError"):
            return "the connection broke off", _UP
    return (f"{type(error).__name__}: {error}" if str(error) else type(error).__name__), _UP


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The innermost causes first: they say what happened, and what wraps them in which library."""
    inner = error.__cause__ or error.__context__
    if inner is not None and inner is not error:
        yield from _causes(inner)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _causes(one)
    yield error
