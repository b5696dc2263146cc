"""What the operator sees of a gateway, on a port of its own: whether it is well, and what it has counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from watermark.gateway.accounts import Accounts, NamedByKey
from watermark.gateway.app import Gateway
from watermark.gateway.budget import Budget

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


def operator_app(gateway: Gateway, accounts: Accounts, budget: Budget) -> App:
    """An ASGI application with three pages.

    /health
        Status 200, or 503 with what is wrong: the ledger or the list of accounts can't be read or written.
    /counters
        JSON: requests by what became of them, in all and by account; pairs; twins under way; tokens of today's twins.
    /metrics
        The same for Prometheus.
    """

    def trouble() -> str | None:
        return gateway.trouble or (accounts.trouble if isinstance(accounts, NamedByKey) else None)

    async def health(_: Request) -> Response:
        found = trouble()
        return JSONResponse({"well": found is None, "trouble": found}, 200 if found is None else 503)

    async def counters(_: Request) -> Response:
        more = {"under_way": budget.under_way, "tokens_today": budget.spent, "trouble": trouble()}
        return JSONResponse(gateway.counters.plain() | more)

    async def metrics(_: Request) -> Response:
        return Response(gateway.counters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    pages = {"/health": health, "/counters": counters, "/metrics": metrics}
    return Starlette(routes=[Route(path, page) for path, page in pages.items()])


def by_port(gateway: Gateway, operator: App, operator_port: int) -> App:
    """One application for two ports, so that one server and one event loop have both."""

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        is_operator = scope["type"] != "lifespan" and scope["server"][1] == operator_port
        await (operator if is_operator else gateway)(scope, receive, send)

    return app
