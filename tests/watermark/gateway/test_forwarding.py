"""What the gateway doesn't know goes through as it came, and nothing else does."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Fault, Server
from tests.watermark.gateway.conftest import CHAT, Echo, Gate
from watermark.gateway.accounts import NamedByKey, NamedByProxy

Serve = Callable[..., Server]
Gates = Callable[..., Gate]


def got(response: Any) -> tuple[dict[str, Any], dict[str, str]]:
    found = response.json()
    return found, {name: value for name, value in found["headers"]}


def test_any_request_below_v1_goes_on_with_its_method_query_and_bytes(gate: Gates, echo: Echo) -> None:
    own = gate(echo.url)
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/embeddings?a=1&b=%2f"), ("DELETE", "/v1/files/x%20y")):
        body = b"\x00\xff bytes" if method == "POST" else None
        found, _ = got(own.client.request(method, path, content=body))
        assert found["method"] == method and found["path"] == "/base" + path
        assert found["body"].encode("latin-1") == (body or b"")


def test_a_body_that_is_sent_in_pieces_goes_on_in_pieces(gate: Gates, echo: Echo) -> None:
    found, headers = got(gate(echo.url).client.post("/v1/audio", content=iter([b"abc", b"def"])))
    assert found["body"] == "abcdef" and headers["transfer-encoding"] == "chunked"


def test_headers_of_the_request_go_on_but_those_of_its_connection(gate: Gates, echo: Echo) -> None:
    own = gate(echo.url)
    sent = {"authorization": "Bearer theirs", "x-custom": "1", "connection": "x-gone, keep-alive", "x-gone": "1"}
    _, headers = got(own.client.get("/v1/models", headers=sent | {"user-agent": "me", "accept-encoding": "gzip"}))
    assert headers["authorization"] == "Bearer theirs" and headers["x-custom"] == "1" and headers["user-agent"] == "me"
    assert headers["accept-encoding"] == "gzip" and headers["host"] == echo.url.split("/")[2]
    assert "x-gone" not in headers and "x-gone" not in headers.get("connection", "")


def test_the_operators_key_takes_the_place_of_the_clients(gate: Gates, echo: Echo) -> None:
    own = gate(echo.url, credential=lambda: ("authorization", "Bearer ours"))
    for path in ("/v1/models", "/v1/chat/completions"):
        _, headers = got(own.client.request("POST", path, json=CHAT, headers={"authorization": "Bearer theirs"}))
        assert headers["authorization"] == "Bearer ours"


def test_a_key_in_a_header_of_its_own_and_the_servers_query_go_to_every_path(gate: Gates, echo: Echo) -> None:
    """As Azure wants them."""
    own = gate(f"{echo.url}?api-version=2024-10-21", credential=lambda: ("api-key", "ours"))
    sent = {"authorization": "Bearer theirs", "api-key": "theirs"}
    for path in ("/v1/models", "/v1/chat/completions", "/v1/models?after=3"):
        found, headers = got(own.client.request("POST", path, json=CHAT, headers=sent))
        assert headers["api-key"] == "ours" and "authorization" not in headers
        assert found["path"].endswith("&api-version=2024-10-21" if "after" in path else "?api-version=2024-10-21")
        assert found["path"].count("?") == 1


def test_responses_come_back_with_status_headers_and_bytes(gate: Gates, echo: Echo) -> None:
    own = gate(echo.url)
    echo.status, echo.body = 418, gzip.compress(b"packed")
    echo.headers = {"content-encoding": "gzip", "x-request-id": "7", "retry-after": "3", "keep-alive": "timeout=5"}
    response = own.client.get("/v1/models", headers={"accept-encoding": "gzip"})
    assert response.status_code == 418 and response.content == b"packed"
    assert response.headers["x-request-id"] == "7" and response.headers["retry-after"] == "3"
    assert "keep-alive" not in response.headers and len(response.headers.get_list("date")) == 1


@pytest.mark.parametrize("path", ["/metrics", "/", "/v1/../metrics", "/v1/%2e%2E/metrics", "/v1/a%2f..%2Fb", "/v12/x"])
def test_nothing_outside_the_api_is_reached(gate: Gates, echo: Echo, path: str) -> None:
    """A server's own metrics would tell clients of twins."""
    import http.client

    own = gate(echo.url)
    connection = http.client.HTTPConnection(own.url.removeprefix("http://"))
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 404 and b"below /v1" in response.read()
    connection.close()


def test_errors_of_the_server_come_back_as_they_are(gate: Gates, serve: Serve) -> None:
    server = serve(api_key="secret-key")
    own = gate(server)
    assert own.post().status_code == 401
    response = own.client.post("/v1/chat/completions", content=b"{", headers={"authorization": "Bearer secret-key"})
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"
    assert own.wait(1) == ["engine refused"] and own.counted()["requests"] == {"twinned": 1, "not understood": 1}


def test_a_server_that_is_down_is_an_error_that_clients_understand(gate: Gates) -> None:
    own = gate("http://127.0.0.1:9/v1")
    for response in (own.client.get("/v1/models"), own.post(), own.post(stream=True)):
        assert response.status_code == 502 and response.json()["error"]["type"] == "upstream_error"
    assert own.wait(2) == ["engine failed"] * 2


def test_a_large_request_goes_on_untwinned(gate: Gates, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watermark.gateway.app._LARGEST_REQUEST", 1000)
    own = gate(echo.url)
    found, _ = got(own.post(user="x" * 5000))
    assert len(found["body"]) > 5000 and own.counted()["requests"] == {"too large": 1}


def test_an_account_is_what_the_operators_proxy_says_and_nobody_else(gate: Gates, echo: Echo) -> None:
    own = gate(echo.url, accounts=NamedByProxy("x-account", hashlib.sha256(b"between us two").digest()), share=0.0)
    for sent in (
        {"x-account": "acme", "x-dyetrace-secret": "between us two"},
        {"x-account": "acme", "x-dyetrace-secret": "guessed"},
        {"x-account": "acme"},
        {"x-account": "no such: name", "x-dyetrace-secret": "between us two"},
    ):
        _, headers = got(own.client.post("/v1/chat/completions", json=CHAT, headers=sent))
        assert not {"x-account", "x-dyetrace-secret"} & headers.keys()
    assert own.counted()["accounts"] == {"acme": {"not drawn": 1}}


def test_an_account_is_the_one_that_the_clients_key_belongs_to(gate: Gates, echo: Echo, tmp_path: Path) -> None:
    path = tmp_path / "accounts.txt"
    path.write_text(f"# ours\n{hashlib.sha256(b'sk-acme').hexdigest()} acme\n")
    own = gate(echo.url, accounts=NamedByKey(path), share=0.0)

    def ask(key: str) -> None:
        own.client.post("/v1/chat/completions", json=CHAT, headers={"authorization": f"Bearer {key}"})

    ask("sk-acme")
    ask("sk-other")
    path.write_text(path.read_text() + f"{hashlib.sha256(b'sk-other').hexdigest().upper()}  zenith\n")
    ask("sk-other")
    path.write_text("sk-pasted zenith\n")
    ask("sk-other")
    assert own.counted()["accounts"] == {"acme": {"not drawn": 1}, "zenith": {"not drawn": 2}}
    trouble = own.counted()["trouble"]
    assert "line 1 of accounts" in trouble and "sk-pasted" not in trouble


def test_the_operator_sees_whether_all_is_well_and_clients_do_not(gate: Gates, serve: Serve) -> None:
    own = gate(serve(faults=[Fault("status", 503)]))
    own.post()
    own.post(max_tokens=3)
    assert own.wait(2) == ["engine refused", "recorded"]
    import httpx2

    assert httpx2.get(f"{own.operator}/health").json() == {"well": True, "trouble": None}
    page = httpx2.get(f"{own.operator}/metrics").text
    assert 'dyetrace_gateway_pairs_total{outcome="recorded"} 1.0' in page
    assert "dyetrace_gateway_twins_under_way 0.0" in page
    for path in ("/health", "/counters", "/v1/counters"):
        assert own.client.get(path).status_code == 404
