"""The options of the command that runs a gateway."""

from __future__ import annotations

from pathlib import Path

import click

from detect.cli.declaring import option
from detect.cli.options.shared import Working
from detect.cli.options.twins import TwinKeyed


class Gateway(TwinKeyed, Working, runs="gateway:gateway"):
    """Run a gateway in front of an OpenAI-compatible server: for a share of the requests the server draws two answers,
    a secret coin decides which one the client gets, and both go to a private ledger.

    Clients use the gateway's port in place of the server's, and see no difference. It runs until Ctrl-C or SIGTERM.

    \b
    Example: dyetrace gateway --upstream http://127.0.0.1:8000/v1 --twin-ledger twins.ledger \\
                 --twin-key file:twins.key --twins 0.02 --port 8080
    """

    upstream: str = option(
        "--upstream", metavar="URL", help="The server's base address.  [e.g. --upstream http://127.0.0.1:8000/v1]"
    )
    ledger: Path = option(
        "--twin-ledger",
        help="Where pairs go; it is made where there is none.  [e.g. --twin-ledger twins.ledger]",
    )
    share: float = option(
        "--twins",
        type=click.FloatRange(0.0, 1.0),
        default=0.02,
        help="Share of the requests that two answers are drawn for.  [e.g. --twins 0.05]",
    )
    two_requests: bool = option(
        "--two-requests",
        help="Ask the server twice for one answer each, in place of once for two: for servers that give one answer "
        "however many are asked for, or don't count the tokens of each.  [e.g. --two-requests]",
    )
    budget: int | None = option(
        "--budget",
        type=click.IntRange(0),
        metavar="TOKENS",
        help="Tokens of twins a day (UTC) at most; over it, requests pass untwinned. A gateway that is started anew "
        "begins to count anew.  [e.g. --budget 2000000]",
    )
    at_once: int = option(
        "--at-once",
        type=click.IntRange(1, 10_000),
        default=16,
        help="Twins that are drawn at the same time at most.  [e.g. --at-once 64]",
    )
    time_limit: float = option(
        "--time-limit",
        type=click.FloatRange(0.1, 86_400.0),
        default=600.0,
        metavar="SECONDS",
        help="What two answers may take together; later there is no pair, and the client is served all the same. "
        "Between two parts of any answer no more time may pass.  [e.g. --time-limit 120]",
    )
    account_header: str | None = option(
        "--account-header",
        metavar="NAME",
        help="The header in which your own proxy names the account; needs --proxy-secret.  "
        "[e.g. --account-header x-account]",
    )
    proxy_secret: str | None = option(
        "--proxy-secret",
        metavar="SOURCE",
        help="Where the secret is that your proxy shows in the header x-dyetrace-secret, at least 16 characters: "
        "file:PATH, env:NAME or cmd:COMMAND. Without it the account's header counts for nothing.  "
        "[e.g. --proxy-secret env:PROXY_SECRET]",
    )
    accounts: Path | None = option(
        "--accounts",
        help="A file that says which account each client's API key belongs to, in place of the two above: a line for "
        "each, the key's SHA-256, a space, the account. It is read anew when it changes.  "
        "[e.g. --accounts accounts.txt]",
    )
    api_key_source: str | None = option(
        "--api-key",
        help="Where the server's API key is: file:PATH, env:NAME or cmd:COMMAND. By default clients' own keys are "
        "passed on; with it whoever reaches the gateway uses this one.  [e.g. --api-key env:MY_API_KEY]",
    )
    api_key_header: str | None = option(
        "--api-key-header",
        metavar="NAME",
        help="With --api-key: the header that the key goes into as it is, such as api-key at Azure; by default it is "
        "sent as a bearer token (Authorization).  [e.g. --api-key-header api-key]",
    )
    model: str | None = option(
        "--model",
        help="What the gateway asks for at its start, to see whether the server gives two answers; by default the "
        "first model that it lists.  [e.g. --model my-model]",
    )
    check: bool = option(
        "--check",
        help="See whether the server gives two answers, and whether key, ledger and ports can be used; then end.  "
        "[e.g. --check]",
    )
    host: str = option("--host", default="127.0.0.1", help="Address that clients use.  [e.g. --host 0.0.0.0]")
    port: int = option(
        "--port", type=click.IntRange(0, 65_535), default=8080, help="Its port; 0 takes a free one.  [e.g. --port 80]"
    )
    operator_port: int = option(
        "--operator-port",
        type=click.IntRange(0, 65_535),
        default=8081,
        help="Port for you alone, on 127.0.0.1: /health, /counters (JSON) and /metrics (Prometheus). 0 takes a free "
        "one.  [e.g. --operator-port 9090]",
    )
