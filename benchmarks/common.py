"""Shared by the benchmarks: fair timing, a record of the machine, tables and JSON.

Times on a shared machine mean little by themselves. So whatever is compared is measured in one process, in rounds in
which everything runs once in random order, and the figure to read is the ratio to a reference of the same round.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

Floats = npt.NDArray[np.float64]

quick_option = click.option("--quick", is_flag=True, help="Tiny sizes, to see that the script runs.")
json_option = click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there too.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of torch and numba; by default as many as they choose."
)

PACKAGES = ("numpy", "numba", "torch", "transformers", "tokenizers", "gigatoken")


def machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "dyetrace": _version("dyetrace"),
        **{package: _version(package) for package in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def set_threads(threads: int | None) -> dict[str, int]:
    """Set the threads of torch and numba where a number is given; return what they use."""
    import numba
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return {"torch threads": torch.get_num_threads(), "numba threads": numba.get_num_threads()}


@dataclass
class Report:
    """Rows of figures, shown as one table and written as JSON.

    Attributes
    ----------
    title
        Of the table.
    settings
        What the run was asked for; stands below the table and in the JSON.
    """

    title: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    started: dict[str, Any] = field(default_factory=machine)

    def add(self, **row: Any) -> None:
        """Add a row: column name to value; floats are shown with 3 digits."""
        self.rows.append(row)

    def finish(self, json_path: Path | None) -> None:
        """Print the table, and write everything to ``json_path``."""
        console = Console(width=None if Console().is_terminal else 200)
        table = Table(title=self.title, title_justify="left")
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        for name in columns:
            table.add_column(name.replace("_", " "), justify="left" if name == columns[0] else "right")
        for row in self.rows:
            table.add_row(*(_shown(row.get(name)) for name in columns))
        console.print(table)
        load = f"load average {self.started['load_average']} at the start, {os.getloadavg()[0]:.2f} at the end"
        facts = {**self.settings, **{k: v for k, v in self.started.items() if k not in ("load_average", "time")}}
        for line in (*self.notes, ", ".join(f"{name} {value}" for name, value in facts.items()), load):
            console.print(line, style="dim", markup=False, highlight=False)
        self.save(json_path)

    def save(self, json_path: Path | None) -> None:
        """Write what is there so far, where a path is given; long runs do so now and then."""
        if json_path is None:
            return
        record = {
            "title": self.title,
            "settings": self.settings,
            "machine": self.started,
            "load_average_at_end": round(os.getloadavg()[0], 2),
            "notes": self.notes,
            "rows": self.rows,
        }
        json_path.write_text(json.dumps(_finite(record), indent=1) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON has no infinities: null stands for them."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " .. ".join(_shown(part) for part in value)
    return str(value)


@dataclass(frozen=True)
class Timing:
    """Seconds of each call of one function, and their ratios to the reference's call of the same round."""

    seconds: Floats
    ratios: Floats

    @property
    def milliseconds(self) -> float:
        """The median."""
        return float(np.median(self.seconds) * 1e3)

    @property
    def ratio(self) -> float:
        """The median."""
        return float(np.median(self.ratios))

    @property
    def ratio_quartiles(self) -> tuple[float, float]:
        """First and third."""
        low, high = np.quantile(self.ratios, [0.25, 0.75])
        return float(low), float(high)


def timings(
    functions: Mapping[str, Callable[[], object]], reference: str, *, seconds: float, rounds: int = 40
) -> dict[str, Timing]:
    """Time functions in rounds of random order, each after the reference of that round.

    Parameters
    ----------
    functions
        What to time; each is called once before to compile and to warm up.
    reference
        The one that ratios refer to.
    seconds
        Time for each function; a slow one takes part in fewer rounds, but in 3 at least.
    rounds
        Most calls of each function.
    """
    calls = {}
    for name, function in functions.items():
        function()
        calls[name] = int(np.clip(seconds / max(clock(function), 1e-9), min(3, rounds), rounds))
    total = max(calls.values())
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    order = np.random.default_rng(0)
    for turn in range(total):
        due = [name for name in functions if turn * calls[name] // total != (turn + 1) * calls[name] // total]
        base = clock(functions[reference])
        for name in order.permutation(due).tolist():
            own = base if name == reference else clock(functions[name])
            found[name].append((own, own / base))
    return {name: Timing(*np.array(pairs).T) for name, pairs in found.items()}


def clock(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
