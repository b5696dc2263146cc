"""Gateways in a thread of their own, in front of real servers, over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest

from benchmarks.distillation.server import Server
from tests.detect.student.asking.conftest import tiny_model
from watermark.gateway import app
from watermark.gateway.accounts import Accounts, NoAccounts
from watermark.gateway.app import Gateway, Ledger, Settings
from watermark.gateway.budget import Budget
from watermark.gateway.canary import look
from watermark.gateway.counters import Counters
from watermark.gateway.json_parts import parts_of
from watermark.gateway.operator import by_port, operator_app
from watermark.gateway.serve import Running, listening
from watermark.gateway.upstream import Upstream
from watermark.keys.secret import SecretKey
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair, coin_key, coin_proof, new_nonce, tossed

__all__ = ["tiny_model"]

TWIN_KEY = SecretKey(bytes(range(32)))
CHAT: dict[str, Any] = {"model": "student", "messages": [{"role": "user", "content": "Tell me about owls."}]}
TEXT: dict[str, Any] = {"model": "student", "prompt": "Owls are"}
_USAGE = b'{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}'
USAGE_LAST = parts_of(b'{"id": "", "object": "", "created": 0, "model": "", "choices": [], "usage": ' + _USAGE + b"}")
"""The last piece of a stream of `Server`."""


class Watched(Counters):
    """Counters that a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.settled: list[str] = []
        self.guard = threading.Condition()

    def pair(self, outcome: str, *, tied: bool = False) -> None:
        super().pair(outcome, tied=tied)
        with self.guard:
            self.settled.append(outcome)
            self.guard.notify_all()


class Gate:
    """A gateway; use it in a ``with`` block.

    Attributes
    ----------
    url
        What clients use.
    client
        One of them.
    told
        What the operator was told.
    """

    def __init__(
        self,
        upstream: str,
        path: Path,
        *,
        share: float = 1.0,
        two_requests: bool = False,
        time_limit: float = 600.0,
        accounts: Accounts | None = None,
        tokens_a_day: int | None = None,
        at_once: int = 16,
        credential: Callable[[], tuple[str, str]] | None = None,
        wrapped: Callable[[TwinLedger], Ledger] = lambda ledger: ledger,
        looks: bool = False,
        send_buffer: int | None = None,
    ) -> None:
        self.path, self.told = path, list[str]()
        self.counters = Watched()
        sockets = [listening("127.0.0.1", 0, "test") for _ in range(2)]
        if send_buffer is not None:
            sockets[0].setsockopt(1, 7, send_buffer)  # SO_SNDBUF
        port, operator_port = (one.getsockname()[1] for one in sockets)
        self.url, self.operator = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{operator_port}"
        self._ledger = TwinLedger.open(path, TWIN_KEY, write=True)
        whose = accounts or NoAccounts()
        ready = threading.Event()

        async def run() -> None:
            async with Upstream(upstream, credential, whose.own_headers, time_limit) as up:
                usage_last = (await look(up, None))[0] if looks else {True: USAGE_LAST, False: USAGE_LAST}
                budget, ledger = Budget(tokens_a_day, at_once), wrapped(self._ledger)
                settings = Settings(share, two_requests, time_limit, usage_last)
                coins = coin_key(TWIN_KEY)
                made = Gateway(settings, up, whose, budget, self.counters, ledger, coins, self.told.append)
                self.running = Running(made, by_port(made, operator_app(made, whose, budget), operator_port))
                ready.set()
                await self.running.run_on(sockets)

        self._thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        self._thread.start()
        ready.wait()
        self.client = httpx2.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.running.end()
        self._thread.join()
        self._ledger.close()

    def post(self, path: str = "/v1/chat/completions", **body: Any) -> httpx2.Response:
        """Ask, by default a chat."""
        return self.client.post(path, json=(CHAT if "chat" in path else TEXT) | body)

    def stream(self, path: str = "/v1/chat/completions", **body: Any) -> list[dict[str, Any]]:
        """All pieces of a streamed answer, which must end as it should."""
        response = self.post(path, stream=True, **body)
        assert response.status_code == 200, response.text
        return pieces_of(response.text)

    def wait(self, pairs: int) -> list[str]:
        """What became of pairs, once it is known of so many."""
        with self.counters.guard:
            self.counters.guard.wait_for(lambda: len(self.counters.settled) >= pairs)
            return list(self.counters.settled)

    def pairs(self) -> list[Pair]:
        """What is in the ledger."""
        return list(self._ledger.pairs())

    def counted(self) -> dict[str, Any]:
        """What the operator sees."""
        found: dict[str, Any] = httpx2.get(f"{self.operator}/counters").json()
        return found


def pieces_of(text: str) -> list[dict[str, Any]]:
    """The data of server-sent events that end as those of an OpenAI-compatible server do."""
    *events, last, nothing = text.split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def text_of(pieces: list[dict[str, Any]]) -> str:
    """What a streamed answer says."""
    choices = [piece["choices"][0] for piece in pieces if piece["choices"]]
    assert all(choice["index"] == 0 for choice in choices)
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)


@pytest.fixture
def serve(tiny_model: tuple[Any, Any]) -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test; options as for `Server`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Server(*tiny_model, **options))


@pytest.fixture
def gate(tmp_path: Path, serve: Callable[..., Server]) -> Iterator[Callable[..., Gate]]:
    """Start gateways that end with the test, before their servers do; options as for `Gate`."""
    with ExitStack() as stack:
        yield lambda upstream, **options: stack.enter_context(
            Gate(upstream.url if isinstance(upstream, Server) else upstream, tmp_path / "twins.ledger", **options)
        )


@pytest.fixture(params=[0, 1])
def coin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Both ways in which a coin can fall: nonces are drawn until theirs falls so."""

    def nonce() -> str:
        while tossed(coin_proof(coin_key(TWIN_KEY), found := new_nonce())) != request.param:
            pass
        return found

    monkeypatch.setattr(app, "new_nonce", nonce)
    return int(request.param)


class Echo:
    """A server that answers every request with what it got of it, and with headers of a test's choosing."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.status, self.body = 200, b""
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def handle_one_request(self) -> None:
                self.close_connection = True
                super().handle_one_request()

            def answer(self) -> None:
                body = b""
                if self.headers.get("transfer-encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = [[name.lower(), value] for name, value in self.headers.items()]
                got = {"method": self.command, "path": self.path, "headers": headers, "body": body.decode("latin-1")}
                data = echo.body or json.dumps(got).encode()
                self.send_response(echo.status)
                for name, value in {"content-length": str(len(data)), **echo.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/base/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()
