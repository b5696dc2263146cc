"""`dyetrace gateway`: puts a gateway together from what the operator asked for, and runs it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from socket import socket

from detect import interruption
from detect.cli.options.gateway import Gateway as Asked
from detect.cli.working import doing, note, rest, say
from detect.records.written import clean
from detect.student.asking.address import address_below, check_url
from detect.student.asking.credentials import given_api_key
from watermark.errors import DyetraceError, MachineError
from watermark.files.writing import check_output
from watermark.keys import SecretKey, load_master, read_source
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import coin_key

try:
    from watermark.gateway.accounts import Accounts, NamedByKey, NamedByProxy, NoAccounts, header_name
    from watermark.gateway.app import Gateway, Settings
    from watermark.gateway.budget import Budget
    from watermark.gateway.canary import always_equal, look
    from watermark.gateway.counters import Counters
    from watermark.gateway.json_parts import Parts
    from watermark.gateway.operator import by_port, operator_app
    from watermark.gateway.serve import Running, listening
    from watermark.gateway.upstream import Upstream
except ImportError as lacking:
    raise MachineError(f"a gateway needs {lacking.name}: pip install 'dyetrace[gateway]'") from None

_SHORTEST_SECRET = 16


def gateway(asked: Asked) -> None:
    """Run a gateway until it is told to end."""
    check_url(asked.upstream)
    secret = load_master(asked.twin_key)
    accounts = _accounts(asked)
    api_key = given_api_key(asked.api_key_source, asked.api_key_header)
    credential = None if api_key is None else api_key.header
    with (
        listening(asked.host, asked.port, "--port") as clients,
        listening("127.0.0.1", asked.operator_port, "--operator-port") as operator,
    ):
        if asked.check:
            _check(asked, secret, credential, accounts)
        else:
            _serve(asked, secret, credential, accounts, clients, operator)


def _serve(
    asked: Asked,
    secret: SecretKey,
    credential: Callable[[], tuple[str, str]] | None,
    accounts: Accounts,
    clients: socket,
    operator: socket,
) -> None:
    port, operator_port = clients.getsockname()[1], operator.getsockname()[1]
    with TwinLedger.open(asked.ledger, secret, write=True) as ledger:
        before = ledger.count

        async def run() -> None:
            async with Upstream(
                address_below(asked.upstream, ""), credential, accounts.own_headers, asked.time_limit
            ) as up:
                budget, counters = Budget(asked.budget, asked.at_once), Counters()
                settings = Settings(asked.share, asked.two_requests, asked.time_limit, await _ways(asked, up))
                made = Gateway(settings, up, accounts, budget, counters, ledger, coin_key(secret), say)
                app = by_port(made, operator_app(made, accounts, budget), operator_port)
                doing("")
                where = f"[{asked.host}]" if ":" in asked.host else asked.host
                note(
                    f"the gateway listens at http://{where}:{port}/v1, for you at "
                    f"http://127.0.0.1:{operator_port}/health; {asked.ledger} has {before:,} pairs"
                )
                interruption.leaves(lambda: f"{ledger.count - before:,} new pairs are in {asked.ledger}")
                await Running(made, app).run_on([clients, operator])

        asyncio.run(run())
    if interruption.came():  # the server has taken the signal, and ended as it should
        raise KeyboardInterrupt


def _check(
    asked: Asked, secret: SecretKey, credential: Callable[[], tuple[str, str]] | None, accounts: Accounts
) -> None:
    """Try all that a gateway needs, and leave everything as it is."""
    if os.path.lexists(asked.ledger):
        with TwinLedger.open(asked.ledger, secret):
            pass
    else:
        check_output(asked.ledger)

    async def run() -> None:
        async with Upstream(
            address_below(asked.upstream, ""), credential, accounts.own_headers, asked.time_limit
        ) as up:
            found = await _ways(asked, up)
        where = " and ".join("/chat/completions" if chat else "/completions" for chat in found)
        how = "two requests" if asked.two_requests else "one request for two answers"
        note(f"the gateway can begin: twins at {where}, by {how}; key, ledger and ports can be used")

    asyncio.run(run())


async def _ways(asked: Asked, upstream: Upstream) -> dict[bool, Parts]:
    """Which endpoints twins can be had of."""
    doing("asking the server for two answers")
    found: dict[bool, Parts] = {True: {}, False: {}}
    lacking: dict[bool, str] = {}
    if not asked.two_requests:
        found, lacking = await look(upstream, asked.model)
    equal = await always_equal(upstream, asked.model)
    rest()
    if equal:
        say(
            "the server gives the same answer whenever it is asked the same, at temperature 1 as well: equal twins say "
            "nothing; see whether it samples at all, and whether a watermark of its own fixes its answers"
        )
    for why in lacking.values():
        note(f"no twins at {clean(why)}")
    return found


def _accounts(asked: Asked) -> Accounts:
    named = asked.account_header is not None or asked.proxy_secret is not None
    if named and asked.accounts is not None:
        raise DyetraceError("--accounts goes without --account-header and --proxy-secret; give one or the other")
    if asked.accounts is not None:
        return NamedByKey(Path(asked.accounts))
    if not named:
        return NoAccounts()
    if asked.account_header is None or asked.proxy_secret is None:
        raise DyetraceError("--account-header and --proxy-secret go together; a header alone could be any client's")
    text, where = read_source(asked.proxy_secret, "proxy's secret", lambda _: False)
    shown = text.strip()
    if len(shown) < _SHORTEST_SECRET or not shown.isascii() or not shown.isprintable():
        raise DyetraceError(
            f"{where} holds no secret for the proxy: {_SHORTEST_SECRET} printable ASCII characters or more are needed"
        )
    return NamedByProxy(header_name(asked.account_header), hashlib.sha256(shown.encode()).digest())
