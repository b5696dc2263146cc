"""`dyetrace gateway` as users start it: what it says, what it refuses, and that no secret shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.distillation.server import Server
from detect.cli.main import main
from tests.detect.student.asking.conftest import tiny_model
from watermark.keys import SecretKey, write_key_file

__all__ = ["tiny_model"]

SECRET = "between-us-two-alone"


@pytest.fixture
def serve(tiny_model: tuple[Any, Any]) -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Server(*tiny_model, **options))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_key_file(Path("twin.key"), SecretKey(bytes(range(32))))
    monkeypatch.setenv("PROXY_SECRET", SECRET)


def run(upstream: str, *more: str) -> Result:
    """Of the checks alone, or the gateway would run on."""
    own = ["--upstream", upstream, "--twin-ledger", "t.ledger", "--twin-key", "file:twin.key", "--check"]
    result = CliRunner().invoke(main, ["gateway", *own, "--port", "0", "--operator-port", "0", *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert sorted(os.listdir()) == ["accounts.txt"] * Path("accounts.txt").exists() + ["twin.key"]
    return result


def test_a_check_says_where_twins_can_be_had_and_leaves_nothing(serve: Callable[..., Server]) -> None:
    server = serve()
    done = run(server.url)
    assert done.exit_code == 0 and "twins at /chat/completions and /completions, by one request" in done.stderr
    assert run(server.url, "--two-requests").stderr.endswith("by two requests; key, ledger and ports can be used\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"knows_n": False}, "it gives one answer where two are asked for (n = 2)"),
        ({"says_usage": False}, "it does not count tokens"),
        ({"api_key": "sk-0123456789abcdef"}, "the server lists no models (status 401 at /models)"),
    ],
)
def test_a_server_that_gives_no_two_answers_is_refused_at_the_start(
    serve: Callable[..., Server], options: dict[str, Any], said: str
) -> None:
    refused = run(serve(**options).url)
    assert refused.exit_code == 2 and said in refused.stderr and refused.stderr.count("\n") == 1
    assert "--two-requests" in refused.stderr or "--api-key" in refused.stderr


def test_a_server_that_always_answers_alike_is_said(serve: Callable[..., Server]) -> None:
    from benchmarks.distillation.server import Fault

    same = b'{"choices": [{"index": 0, "message": {"content": "Red."}, "text": "Red.", "finish_reason": "stop"}]}'
    server = serve(faults=lambda _: Fault("status", 200, body=same))
    assert "equal twins say nothing" in run(server.url, "--two-requests").stderr
    assert "equal" not in run(serve().url, "--two-requests").stderr


def test_an_endpoint_without_two_answers_is_said_and_the_other_one_serves(serve: Callable[..., Server]) -> None:
    from benchmarks.distillation.server import Fault

    done = run(serve(faults=lambda body: Fault("status", 404) if "messages" in body else None).url)
    assert done.exit_code == 0 and "no twins at /chat/completions: it answers with status 404" in done.stderr
    assert "twins at /completions, by" in done.stderr


def test_where_nobody_answers_that_is_the_machines_affair() -> None:
    for more in ((), ("--two-requests",)):
        refused = run("http://127.0.0.1:9/v1", *more)
        assert refused.exit_code == 5 and "cannot reach the server at 127.0.0.1:9" in refused.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--account-header", "x-account"], "--account-header and --proxy-secret go together"),
        (["--proxy-secret", "env:PROXY_SECRET"], "--account-header and --proxy-secret go together"),
        (["--account-header", "authorization", "--proxy-secret", "env:PROXY_SECRET"], "can't be the account's header"),
        (["--account-header", "x a", "--proxy-secret", "env:PROXY_SECRET"], "can't be the account's header"),
        (["--account-header", "x-account", "--proxy-secret", "env:SHORT"], "holds no secret for the proxy"),
        (["--accounts", "accounts.txt", "--account-header", "x-account"], "--accounts goes without"),
        (["--accounts", "accounts.txt"], "line 1 of accounts accounts.txt is not the SHA-256"),
        (["--accounts", "none.txt"], "cannot read accounts none.txt"),
        (["--twin-key", "file:none.key"], "cannot read key file none.key"),
        (["--twins", "1.5"], "1.5 is not in the range"),
        (["--upstream", "http://user:pass@host/v1"], "holds a user"),
        (["--host", "256.1.1.1"], "cannot listen on 256.1.1.1"),
    ],
)
def test_bad_input_is_one_line_without_secrets(more: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT", "hush")
    if "accounts.txt" in more:
        Path("accounts.txt").write_text("sk-pasted-by-mistake acme\n")
    refused = run("http://127.0.0.1:9/v1", *more)
    assert refused.exit_code in (2, 5) and said in refused.stderr
    assert not any(word in refused.stderr for word in (SECRET, "hush", "sk-pasted", "pass@"))


def test_a_port_that_is_taken_is_said(serve: Callable[..., Server]) -> None:
    taken = serve().url.removesuffix("/v1").rpartition(":")[2]
    refused = run("http://127.0.0.1:9/v1", "--port", taken)
    assert refused.exit_code == 5 and f"cannot listen on 127.0.0.1, port {taken} (--port)" in refused.stderr
