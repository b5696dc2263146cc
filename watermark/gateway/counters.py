"""What became of requests and of pairs, counted for the operator: for Prometheus, and as a small JSON."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

_NOBODY = ""


class Counters:
    """Counters in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "dyetrace_gateway_requests",
            "Requests by whether twins are drawn, else why not, and by account.",
            ["outcome", "account"],
            registry=self._registry,
        )
        self._pairs = Counter(
            "dyetrace_gateway_pairs",
            "Pairs that are in the ledger (recorded), or why there is none.",
            ["outcome"],
            registry=self._registry,
        )
        self._tied = Counter(
            "dyetrace_gateway_tied_pairs", "Recorded pairs of two equal answers.", registry=self._registry
        )
        self._under_way = Gauge("dyetrace_gateway_twins_under_way", "Twins being drawn.", registry=self._registry)

    def request(self, outcome: str, account: str | None) -> None:
        """Count a request: "twinned", or why it is not."""
        self._requests.labels(outcome, account or _NOBODY).inc()

    def pair(self, outcome: str, *, tied: bool = False) -> None:
        """Count a pair that is known to be recorded, or why there is none."""
        self._pairs.labels(outcome).inc()
        if tied:
            self._tied.inc()

    def under_way(self, twins: int) -> None:
        """Say how many twins are being drawn."""
        self._under_way.set(twins)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        text: bytes = generate_latest(self._registry)
        return text

    def plain(self) -> dict[str, Any]:
        """As numbers by name.

        Examples
        --------
        >>> counters = Counters()
        >>> counters.request("twinned", "acme"); counters.request("seed", None); counters.pair("recorded", tied=True)
        >>> counters.plain()["requests"], counters.plain()["pairs"], counters.plain()["tied"]
        ({'twinned': 1, 'seed': 1}, {'recorded': 1}, 1)
        >>> counters.plain()["accounts"]
        {'acme': {'twinned': 1}}
        """
        found: dict[str, Any] = {"requests": {}, "accounts": {}, "pairs": {}, "tied": 0}
        for family in self._registry.collect():
            for sample in family.samples:
                value, outcome = int(sample.value), sample.labels.get("outcome", "")
                if sample.name == "dyetrace_gateway_requests_total":
                    found["requests"][outcome] = found["requests"].get(outcome, 0) + value
                    if account := sample.labels["account"]:
                        found["accounts"].setdefault(account, {})[outcome] = value
                elif sample.name == "dyetrace_gateway_pairs_total":
                    found["pairs"][outcome] = value
                elif sample.name == "dyetrace_gateway_tied_pairs_total":
                    found["tied"] = value
        return found
