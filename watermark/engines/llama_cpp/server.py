"""llama-cpp-python's own HTTP server with the hook in it: ``python -m watermark.engines.llama_cpp.server --model ...``.

All options are those of ``python -m llama_cpp.server``; dyetrace is configured by file or environment (`settings`). A
request names its account in the field ``dyetrace_tenant`` of its body. ``GET /metrics`` shows the counters.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import llama_cpp
from llama_cpp.server import __main__ as bundled
from llama_cpp.server import app as bundled_app

from watermark.engines.hook.admission import PREFIX
from watermark.engines.hook.hook import Hook
from watermark.engines.llama_cpp.llama import MarkedLlama, asked, decoding_of, process_hook
from watermark.errors import DyetraceError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
_USUAL_TEMPERATURE = 0.8  # of llama-cpp-python's requests that give none


class Admission:
    """Reads the account from a request's body, and answers those that can't be admitted with HTTP 400.

    Parameters
    ----------
    app
        llama-cpp-python's ASGI application.
    hook
        Of this process.
    """

    def __init__(self, app: App, hook: Hook) -> None:
        self._app = app
        self._hook = hook

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        path, method = scope.get("path", ""), scope.get("method")
        if method == "GET" and path == "/metrics":
            return await _answer(send, 200, b"text/plain; version=0.0.4", self._hook.counters.text().encode())
        if method != "POST" or not path.endswith("/completions"):
            return await self._app(scope, receive, send)
        body = await _body(receive)
        try:
            fields = json.loads(body)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):  # the application says what is wrong with it
            return await self._app(scope, _again(body, receive), send)
        arguments = {name: value for name, value in fields.items() if name.startswith(PREFIX)}
        seed = fields.get("seed")
        try:
            heat, mirostat = fields.get("temperature", _USUAL_TEMPERATURE), fields.get("mirostat_mode", 0)
            self._hook.admit(arguments, decoding_of(heat, mirostat, self._hook))
        except DyetraceError as error:
            problem = {"error": {"message": str(error), "type": "invalid_request_error", "param": None, "code": None}}
            return await _answer(send, 400, b"application/json", json.dumps(problem).encode())
        with asked(arguments, seed if isinstance(seed, int) else None):
            await self._app(scope, _again(body, receive), send)


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The same body for the application, and then what the connection says."""
    first = [True]

    async def once_more() -> Message:
        if first.pop() if first else False:
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return once_more


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


def create_app(**settings: Any) -> Admission:
    """llama-cpp-python's application around a `MarkedLlama`. Raises DyetraceError where it made another one."""
    llama_cpp.Llama = MarkedLlama
    app = bundled_app.create_app(**settings)
    models = getattr(bundled_app, "_llama_proxy", None)
    if models is None or not isinstance(models(None), MarkedLlama):
        raise DyetraceError("this version of llama-cpp-python's server is not known to dyetrace; use 0.3.36")
    return Admission(app, process_hook())


def main() -> None:
    """Run the server."""
    process_hook()  # settings that can't be used are said before the model is loaded
    bundled.create_app = create_app
    bundled.main()


if __name__ == "__main__":
    main()
