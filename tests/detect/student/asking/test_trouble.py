"""What people are told while an endpoint gives no answers: which lines, by a clock of the test's own and for real."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Fault, Server
from detect.student.asking import trouble as told
from detect.student.asking.account import ClientSettings
from detect.student.asking.asking import ask_all
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import Ledger, verify_chain
from detect.student.asking.plan import TracePlan
from detect.student.asking.reach import proxy_between
from detect.student.asking.trouble import Tell, Trouble
from tests.detect.student.asking.conftest import TimeOuts
from tests.detect.student.asking.planned import plan
from watermark.errors import MachineError

Serve = Callable[..., Server]
SECRET = "sk-test-0123456789abcdef"
ONE_BY_ONE = ClientSettings(timeout=20.0, first_backoff=0.01, attempts=4, grace=2.0, most=1)


class Watched:
    """A `Trouble` under a clock that the test sets, and what it said."""

    def __init__(self) -> None:
        self.now, self.lines = 0.0, list[str]()
        self.of = Trouble("host", 120.0, "Ctrl-C keeps all", self.lines.append, lambda: self.now)

    def looked_at(self, seconds: float, every: float = 0.25) -> list[str]:
        """New lines of so many seconds in which nothing happens."""
        before = len(self.lines)
        for _ in range(round(seconds / every)):
            self.now += every
            self.of.look()
        return self.lines[before:]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_the_first_failure_is_said_at_once_and_then_a_line_each_ten_seconds(watched: Watched) -> None:
    watched.of.sent()
    watched.of.failed("status 429: slow down", 8.0)
    assert watched.lines == ["host: status 429: slow down; next try in 8 s; Ctrl-C keeps all"]
    assert watched.looked_at(9.5) == []
    watched.of.sent()
    watched.of.failed("status 429: slow down", 30.0)
    assert watched.looked_at(10.0) == [
        "host: still no answer: 2 failures in 10 s (status 429: slow down); next try in 30 s; Ctrl-C keeps all"
    ]
    assert len(watched.looked_at(60.0)) == 6


def test_recovery_is_said_and_the_next_outage_is_a_new_one(watched: Watched) -> None:
    watched.of.sent()
    watched.of.failed("connection refused", 1.0)
    watched.now = 25.0
    watched.of.sent()
    watched.of.answered()
    assert watched.lines[-1] == "host: answers again after 1 failure in 25 s"
    watched.now = 100.0
    watched.of.sent()
    watched.of.failed("status 500", 1.0)
    assert watched.lines[-1].startswith("host: status 500; next try in 1 s")
    assert len(watched.lines) == 3


def test_a_busy_endpoint_that_refuses_now_and_then_does_not_fill_the_screen(watched: Watched) -> None:
    for _ in range(1000):
        watched.now += 0.01
        watched.of.sent()
        watched.of.failed("status 429", 0.01)
        watched.of.sent()
        watched.of.answered()
        watched.of.look()
    assert len(watched.lines) == 2  # the first failure, and that it was over


def test_one_that_takes_requests_and_never_answers_is_said_to(watched: Watched) -> None:
    watched.of.sent()
    assert watched.looked_at(10.0) == ["host: no answer for 10 s: 1 asked for, each may take 120 s; Ctrl-C keeps all"]
    watched.of.failed("no answer within 120 s", None)
    assert watched.looked_at(10.0) == [
        "host: still no answer: 1 failure in 20 s (no answer within 120 s); Ctrl-C keeps all"
    ]


def test_one_that_answers_is_left_alone_and_spoken_of_only_after_long(watched: Watched) -> None:
    for _ in range(20):
        watched.of.sent()
        watched.looked_at(9.0)
        watched.of.answered()
    assert watched.lines == []
    assert watched.looked_at(500.0) == []  # nothing was asked
    watched.of.sent()
    assert watched.looked_at(29.0) == [] and len(watched.looked_at(1.5)) == 1


def test_a_proxy_is_named_by_host_and_port_alone() -> None:
    assert proxy_between("https://host/v1", "host", 443) is None
    assert proxy_between("http://HOST:8000/v1", "host", 8000) is None
    assert proxy_between("http://[::1]:8000/v1", "::1", 8000) is None
    assert proxy_between("https://host/v1", "proxy.example", 3128) == "proxy.example:3128"
    assert proxy_between("https://host/v1", "::1", 3128) == "[::1]:3128"


# ---------------------------------------------------------------------------------------------- real endpoints


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line because a busy machine takes long to answer."""
    monkeypatch.setattr(told, "SECONDS_BETWEEN_LINES", 1e9)
    monkeypatch.setattr(told, "SECONDS_BETWEEN_OUTAGES", 1e9)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    """A line as soon as anything can be said."""
    monkeypatch.setattr(told, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(told, "_LOOK", 0.01)


@pytest.fixture
def path(tmp_path: Path, patient: None) -> Path:
    return tmp_path / "ledger.sqlite"


def run(
    made: TracePlan,
    path: Path,
    settings: ClientSettings = ONE_BY_ONE,
    key: str | None = None,
    tell: Tell = lambda line: None,
) -> list[str]:
    """Lines of asking everything, with the error that ended it as the last."""
    lines: list[str] = []

    def said(line: str) -> None:
        lines.append(line)
        tell(line)

    loaded = None if key is None else ApiKey(key)
    try:
        with Ledger(path) as ledger, ask_all(made, ledger, settings=settings, key=loaded, tell=said) as asking:
            list(asking)
    except MachineError as error:
        lines.append(str(error))
    assert all(line.isprintable() for line in lines)
    return lines


BUSY = b'{"error": {"message": "slow down, sk-test-0123456789abcdef"}}'


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("status", 429, {"Retry-After": "0"}, BUSY), "status 429: slow down, [redacted]; next try in 0 s"),
        (Fault("status", 429, body=BUSY), "status 429: slow down, [redacted]; next try in 0 s"),
        (Fault("status", 500, body=BUSY), "status 500: slow down, [redacted]; next try in 0 s"),
        (Fault("drop"), "the connection was closed before the answer was whole; next try in 0 s"),
        (Fault("late drop"), "the connection was closed before the answer was whole; next try in 0 s"),
    ],
    ids=["429 with Retry-After", "429", "500", "drop", "late drop"],
)
def test_trouble_that_passes_is_said_once_and_that_it_is_over(
    serve: Serve, path: Path, fault: Fault, says: str
) -> None:
    server = serve(faults=[None, fault, fault], api_key=SECRET)
    first, *between, last = run(plan(server.url, prompts=3), path, key=SECRET)
    assert between == [] and says in first and first.endswith("; Ctrl-C keeps what is answered")
    assert "answers again after 2 failures" in last
    assert SECRET[8:] not in first + last
    assert run(plan(server.url, prompts=3), path, key=SECRET) == []  # all of it is on record


@pytest.mark.usefixtures("quick")
def test_one_that_hangs_is_spoken_of_until_it_is_given_up(serve: Serve, path: Path, time_outs: TimeOuts) -> None:
    server = serve(faults=[Fault("held")] * 2)
    awaited = [
        re.compile(r"no answer for \d+ s: 1 asked for, each may take 20 s"),
        re.compile(r"still no answer: 1 failure in \d+ s \(no answer within 20 s\)"),
    ]

    def heard(line: str) -> None:
        """Each request takes too long as soon as the line came that is due while it is under way."""
        if awaited and awaited[0].search(line) and len(server.received) == 3 - len(awaited):
            del awaited[0]
            time_outs.end()

    settings = replace(ONE_BY_ONE, attempts=2, grace=0.0)
    *_, last = run(plan(server.url, prompts=1), path, settings, tell=heard)
    assert awaited == []
    assert "does not answer (no answer within 20 s)" in last and "the same command goes on from there" in last
    verify_chain(path)
    server.release()
    assert not any("failure" in line or "does not answer" in line for line in run(plan(server.url, prompts=1), path))


@pytest.mark.parametrize(
    "fault", [Fault("status", 500), Fault("status", 429), Fault("drop")], ids=["500", "429", "drop"]
)
def test_one_that_never_answered_is_given_up_after_the_attempts_of_one_request(
    serve: Serve, path: Path, fault: Fault
) -> None:
    """However many requests there are: else a hanging endpoint would take the time-out so many times as often."""
    server = serve(faults=lambda _: fault)
    settings = ClientSettings(first_backoff=0.01, attempts=3, start=8, most=8)
    *_, last = run(plan(server.url, prompts=9, samples=4), path, settings)
    assert "does not answer" in last and len(server.received) == 3


def test_what_was_answered_before_an_outage_is_kept_and_the_same_goes_on(serve: Serve, path: Path) -> None:
    server = serve(faults=[None] * 4 + [Fault("status", 503)] * 200)
    lines = run(plan(server.url, prompts=20), path)
    assert "status 503" in lines[0] and "does not answer (status 503" in lines[-1]
    with Ledger(path, write=False) as ledger:
        assert sum(entry.kind == "answered" for entry in ledger.entries()) == 4
    server.faults.clear()
    asked = len(server.received)
    assert run(plan(server.url, prompts=20), path) == [] and len(server.received) == asked + 16


def read_request(connection: socket.socket) -> None:
    """Read all of it: whoever hangs up on bytes that were not read resets the connection, and the answer is lost."""
    head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while length is not None and len(body) < int(length[1]):
        body += connection.recv(65536)


@pytest.fixture
def listener() -> Iterator[Callable[[bytes], int]]:
    """Start servers that read a request, send some bytes and hang up; their port."""
    sockets: list[socket.socket] = []

    def start(sends: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    read_request(connection)
                    connection.sendall(sends)

        threading.Thread(target=serve, daemon=True).start()
        return int(listening.getsockname()[1])

    yield start
    for listening in sockets:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_nobody_there_ends_it_after_one_try(path: Path, free_port: int) -> None:
    (line,) = run(plan(f"http://127.0.0.1:{free_port}/v1"), path)
    assert line == (
        f"cannot reach 127.0.0.1:{free_port} (connection refused); check the address and that the server is up"
    )
    with Ledger(path, write=False) as ledger:
        assert [entry.kind for entry in ledger.entries()] == ["plan", "asked", "failed"]


def test_an_unknown_name_ends_it_after_one_try(path: Path) -> None:
    (line,) = run(plan("http://no-such-host.invalid/v1"), path)
    assert line.startswith("cannot reach no-such-host.invalid (the host's name ")
    assert line.endswith("; check the address, and this machine's network")


@pytest.mark.parametrize(
    ("sends", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "the connection was closed before the answer was whole"),
        (b"220 mail ready\r\n\r\n", "no HTTP: illegal status line"),
    ],
    ids=["half an answer", "mail"],
)
def test_what_speaks_no_http_is_said_to(path: Path, listener: Callable[[bytes], int], sends: bytes, says: str) -> None:
    first, last = run(plan(f"http://127.0.0.1:{listener(sends)}/v1", prompts=1), path)
    assert says in first and says in last and "does not answer" in last


def test_plain_http_behind_an_https_address_ends_it_with_advice(path: Path, listener: Callable[[bytes], int]) -> None:
    port = listener(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    (line,) = run(plan(f"https://127.0.0.1:{port}/v1"), path)
    assert "(no secure connection: " in line and line.endswith("check whether its address begins with http://")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxy_that_failed_is_named_without_its_password(
    path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://user:pass-word-0123456789@127.0.0.1:{free_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    (line,) = run(plan(f"{scheme}://host.invalid/v1"), path)
    assert f"(connection refused; through the proxy 127.0.0.1:{free_port}); check the proxy, which HTTPS_PROXY" in line
    assert "pass-word" not in line


def test_a_proxy_that_refuses_is_named(
    path: Path, listener: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listener(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    monkeypatch.setenv("https_proxy", f"http://user:pass-word-0123456789@127.0.0.1:{port}")
    (line,) = run(plan("https://host.invalid/v1"), path)
    assert f"refused: 407 Proxy Authentication Required; through the proxy 127.0.0.1:{port}" in line
    assert "pass-word" not in line


@pytest.mark.parametrize(
    ("value", "says"),
    [("ftp://user:pass-word@host:1", "no proxy's address"), ("socks5://user:pass-word@host:1", "pip install socksio")],
)
def test_a_proxy_that_cannot_be_used_is_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, value: str, says: str
) -> None:
    monkeypatch.setenv("https_proxy", value)
    with pytest.raises(MachineError, match=says) as caught:
        with Ledger(path) as ledger:
            ask_all(plan("https://host.invalid/v1"), ledger)
    assert "pass-word" not in str(caught.value)


def test_the_commands_defaults_are_the_clients() -> None:
    """Each names them once: the options, for the help, and the client, for programs."""
    import click

    from detect.cli.main import main
    from detect.server.ask import Manner

    context = click.Context(main)
    trace = main.get_command(context, "trace")
    assert isinstance(trace, click.Group)
    manner: Any = Manner("u", "m")
    client: Any = ClientSettings()
    for command, made, most in (
        (trace.get_command(context, "api"), client, client.most),
        (main.get_command(context, "serve-check"), manner, manner.concurrency),
    ):
        assert command is not None
        defaults = {parameter.name: parameter.default for parameter in command.params}
        assert (defaults["timeout"], defaults["attempts"]) == (made.timeout, made.attempts)
        assert defaults["concurrency"] == most
