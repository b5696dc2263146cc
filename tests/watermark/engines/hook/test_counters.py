"""Counters in Prometheus' text format."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.engines.hook.counters import Counters, register

REQUESTS, TOKENS = "dyetrace_requests_total", "dyetrace_tokens_total"


def _parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples by name and labels, read as Prometheus' text format 0.0.4 says."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            rest, value = line.rsplit(" ", 1)
            name, _, inside = rest.partition("{")
            labels = []
            inside = inside.removesuffix("}")
            while inside:
                key, _, inside = inside.partition('="')
                text_of = ""
                while inside[0] != '"':
                    if inside[0] == "\\":
                        text_of += {"n": "\n", '"': '"', "\\": "\\"}[inside[1]]
                        inside = inside[2:]
                    else:
                        text_of += inside[0]
                        inside = inside[1:]
                labels.append((key, text_of))
                inside = inside[1:].removeprefix(",")
            found[name, tuple(labels)] = float(value)
    return found


def test_what_was_counted_is_what_is_written() -> None:
    counters = Counters()
    counters.add(REQUESTS, result="marked")
    counters.add(REQUESTS, 2, result="marked")
    counters.add(TOKENS, 5, marked="no", why="repeated context")
    counters.set("dyetrace_epoch", 3)
    assert _parsed(counters.text()) == {
        (REQUESTS, (("result", "marked"),)): 3,
        (TOKENS, (("marked", "no"), ("why", "repeated context"))): 5,
        ("dyetrace_epoch", ()): 3,
    }
    assert counters.get(REQUESTS, result="marked") == 3
    assert counters.get(REQUESTS, result="refused") == 0


def test_each_family_has_its_help_and_type_once() -> None:
    counters = Counters()
    counters.add(REQUESTS, result="marked")
    counters.add(REQUESTS, result="refused")
    lines = counters.text().splitlines()
    assert lines.count(f"# TYPE {REQUESTS} counter") == 1
    assert sum(line.startswith(f"# HELP {REQUESTS} ") for line in lines) == 1


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.just("\n"), max_size=12))
def test_any_label_comes_back_as_it_was(label: str) -> None:
    counters = Counters()
    counters.add(REQUESTS, result=label)
    assert _parsed(counters.text()) == {(REQUESTS, (("result", label),)): 1}


@given(st.integers(1, 10**12))
def test_large_counts_stay_exact(count: int) -> None:
    counters = Counters()
    counters.add(REQUESTS, count, result="marked")
    assert _parsed(counters.text()) == {(REQUESTS, (("result", "marked"),)): count}


def test_threads_lose_nothing() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(2000):
            counters.add(REQUESTS, result="marked")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.get(REQUESTS, result="marked") == 8000


def test_the_file_is_written_when_due_and_trouble_is_kept(tmp_path: Path) -> None:
    counters = Counters()
    counters.add(REQUESTS, result="marked")
    counters.write(now=True)  # no path: nothing happens
    counters.path = tmp_path / "dyetrace.prom"
    counters.write(now=True)
    before = counters.path.read_text()
    counters.add(REQUESTS, result="marked")
    counters.write()  # not due yet
    assert counters.path.read_text() == before == counters.text().replace(" 2", " 1")
    counters.path = tmp_path / "missing" / "dyetrace.prom"
    counters.write(now=True)
    assert counters.trouble is not None
    counters.path = tmp_path / "dyetrace.prom"
    counters.write(now=True)
    assert counters.trouble is None


def test_a_registry_of_prometheus_shows_them() -> None:
    prometheus = pytest.importorskip("prometheus_client")
    counters = Counters()
    counters.add(REQUESTS, result="marked")
    assert register(counters)
    shown = prometheus.generate_latest().decode()
    assert f'{REQUESTS}{{result="marked"}} 1.0' in shown
