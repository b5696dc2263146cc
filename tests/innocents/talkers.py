"""Endpoints that answer by a rule of their own, which may remember all that they were ever asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Says = Callable[[str, list[str]], str]
"""What it says to a prompt, given all prompts that it was shown before, in their order."""


class Talker:
    """A chat endpoint at `url`; use it in a ``with`` block.

    Attributes
    ----------
    shown
        All prompts so far.
    """

    def __init__(self, says: Says) -> None:
        self.shown: list[str] = []
        guard = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def do_POST(handler) -> None:
                body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
                with guard:
                    prompt = "\n".join(message["content"] for message in body.get("messages", []))
                    text = says(prompt, list(self.shown))
                    self.shown.append(prompt)
                choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "index": 0}
                usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
                data = json.dumps({"choices": [choice], "model": "suspect", "usage": usage}).encode()
                handler.send_response(200 if handler.path.endswith("/chat/completions") else 404)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(len(data)))
                handler.end_headers()
                handler.wfile.write(data)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
