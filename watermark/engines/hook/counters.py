"""Counters of a server in Prometheus' terms: for a registry in this process, and for a file that a collector reads.

The engine's own process often is not the one whose ``/metrics`` the world sees, hence the file (node_exporter's
textfile collector takes it as it is).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from watermark.errors import DyetraceError
from watermark.files.writing import write_atomically

_HELP = {
    "dyetrace_requests_total": "Requests by what became of them.",
    "dyetrace_tokens_total": "Generated tokens: marked, or unmarked by reason.",
    "dyetrace_alarms_total": "Times that the mark had vanished from an account's recent tokens.",
    "dyetrace_accounts": "Accounts seen lately.",
    "dyetrace_epoch": "Epoch of the keys in force.",
}
_SECONDS_BETWEEN_WRITES = 5.0

Labels = tuple[tuple[str, str], ...]


class Counters:
    """Named numbers with labels; safe to use from several threads.

    Attributes
    ----------
    path
        Where to write them in Prometheus' text format; None for nowhere.
    trouble
        Why the file could not be written the last time.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._values: dict[tuple[str, Labels], float] = {}
        self._lock = threading.Lock()
        self._written = 0.0
        self.trouble: str | None = None

    def add(self, name: str, count: int = 1, **labels: str) -> None:
        """Add to a counter."""
        key = name, tuple(sorted(labels.items()))
        with self._lock:
            self._values[key] = self._values.get(key, 0) + count

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[name, ()] = value

    def get(self, name: str, **labels: str) -> float:
        """What a counter holds."""
        return self._values.get((name, tuple(sorted(labels.items()))), 0)

    def families(self) -> Iterator[tuple[str, str, str, list[tuple[Labels, float]]]]:
        """Name, type ("counter" or "gauge"), help, and samples of each metric."""
        with self._lock:
            values = dict(self._values)
        for name, what in _HELP.items():
            samples = [(labels, value) for (of, labels), value in values.items() if of == name]
            if samples:
                yield name, "counter" if name.endswith("_total") else "gauge", what, samples

    def text(self) -> str:
        """All of them in Prometheus' text exposition format, version 0.0.4."""
        lines = []
        for name, kind, what, samples in self.families():
            lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
            for labels, value in samples:
                inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
                lines.append(f"{name}{{{inside}}} {value:.17g}" if inside else f"{name} {value:.17g}")
        return "\n".join(lines) + "\n"

    def write(self, *, now: bool = False) -> None:
        """Write the file if it is due; trouble with it never stops a server and is kept in ``trouble``."""
        if self.path is None or (not now and time.monotonic() - self._written < _SECONDS_BETWEEN_WRITES):
            return
        self._written = time.monotonic()
        try:
            write_atomically(self.path, self.text().encode())
            self.trouble = None
        except DyetraceError as error:
            self.trouble = str(error)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class _Collector:
    """What prometheus_client asks for metrics."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, kind, what, samples in self._counters.families():
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            metric = family(name, what, labels=[key for key, _ in samples[0][0]])
            for labels, value in samples:
                metric.add_metric([text for _, text in labels], value)
            yield metric


def register(counters: Counters) -> bool:
    """Offer the counters to prometheus_client's registry of this process; whether there is one."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return False
    REGISTRY.register(_Collector(counters))
    return True
