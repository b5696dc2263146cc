"""An endpoint that answers in the way that its address asks for, also in ways in which no endpoint should."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = "10 20 30 40 50 60 70 80"
_BEGUN, _GOES_ON = "1, 2, 3, 4, 5, 6,", " 7, 8, 9, 10"
_BODIES: dict[str, tuple[int, bytes]] = {
    "bad-json": (200, b'{"choices": [{"message": '),
    "empty": (200, b""),
    "html": (200, b"<html><body>gateway</body></html>"),
    "not-utf8": (200, b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
    "wrong-shape": (200, b'{"choices": {"message": 5}, "data": 7}'),
    "long": (200, b'{"choices": [{"index": 0, "message": {"content": "' + b"5 " * 200_000 + b'"}}]}'),
    "nulls": (200, b'{"choices": [{"index": 0, "message": {"content": null}, "text": null}], "data": null}'),
    "status-401": (401, b'{"error": {"message": "no such key"}}'),
    "status-404": (404, b"nothing here"),
    "status-429": (429, b'{"error": "slow down"}'),
    "status-500": (500, b"\x00\xff"),
}


class Endpoint:
    """A server on this machine; `address` is where it is, without the way in which it should answer."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: those who ask are interrupted and killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "suspect"}, {"id": "other"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        count = min(int(body.get("n") or 1), 8)
        words = WORDS if _BEGUN not in json.dumps(body) else _GOES_ON
        choice: dict[str, Any] = {"finish_reason": "stop", "text": words, "message": {"content": words}}
        self._answer({"model": "suspect", "choices": [{"index": i} | choice for i in range(count)]})

    def _answer(self, good: dict[str, Any]) -> None:
        way = self.path.strip("/").split("/")[0]
        if way == "drop":
            self.close_connection = True
            return
        status, data = _BODIES.get(way, (200, json.dumps(good).encode()))
        if way == "redirect":
            status = 307
        self.send_response(status)
        if way == "redirect":
            self.send_header("Location", self.path)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
