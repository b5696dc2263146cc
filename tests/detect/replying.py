"""A server of a few lines whose replies a test makes up, for what no real model can be made to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Reply = Callable[[dict[str, Any]], tuple[int, Any]]
"""From a request's JSON to a status, and a body: bytes, or what becomes JSON."""


class Replying:
    """A running server; use it in a ``with`` block.

    Attributes
    ----------
    url
        Base address.
    received
        Bodies of all requests so far, in the order in which they came.
    """

    def __init__(self, reply: Reply) -> None:
        self.received: list[dict[str, Any]] = []
        guard = threading.Lock()
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with guard:
                    received.append(body)
                    status, made = reply(body)
                data = made if isinstance(made, bytes) else json.dumps(made).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def answer(message: dict[str, Any], logprobs: Any = None, **choice: Any) -> dict[str, Any]:
    """The body of a chat's answer."""
    first = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": logprobs, "finish_reason": "stop"}
    return {"model": "student", "choices": [first | choice], "usage": {"prompt_tokens": 9, "completion_tokens": 30}}
