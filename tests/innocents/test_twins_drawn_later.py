"""Twins drawn later, through the command: by the same law no innocent is found, by another one nobody at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Server
from detect.records.reading import read_record
from detect.records.twins import TwinRecord
from tests.detect.twins.made import ledger_of, twins
from tests.innocents.world import PROMPTS, World, network_of, run, taught
from watermark.generate import Answer, Sampling, generate_answers
from watermark.regenerate import MODEL

ROUNDS = 4
"""Answers to each prompt: a law test needs pairs."""


class Logs:
    """What a teacher once served, and its twins drawn later at some temperature."""

    def __init__(self, world: World, folder: Path) -> None:
        self.folder = folder
        self.network, self.tokenizer = world.model("teacher")
        self.served = self._said(1, 1.0)
        for name, network in {"teacher": self.network, "unrelated": network_of(self.tokenizer, 5)}.items():
            network.save_pretrained(folder / name)
            self.tokenizer.save_pretrained(folder / name)

    def _said(self, seed: int, temperature: float) -> list[Answer]:
        sampling = Sampling(max_new_tokens=24, batch=60, seed=seed, temperature=temperature)
        rounds = [replace(sampling, seed=seed * 100 + number) for number in range(ROUNDS)]
        return [a for one in rounds for a in generate_answers(self.network, self.tokenizer, PROMPTS, one)]

    @cached_property
    def guilty(self) -> Any:
        """A student of what was served."""
        return taught(self.network, self.served, steps=200)

    def ledger(self, temperature: float) -> Path:
        folder = self.folder / f"at-{temperature}"
        if not folder.exists():
            folder.mkdir()
            both = zip(self.served, self._said(2, temperature), strict=True)
            later: dict[str, Any] = {"level": "regenerated", "proof": None, "engine": {MODEL: "a" * 64}}
            pairs = [
                twins(n, old.text, new.text, str(old.prompt), served=0, **later) for n, (old, new) in enumerate(both)
            ]
            ledger_of(folder, pairs)
        return folder / "twins.ledger"


@pytest.fixture(scope="module")
def logs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Logs:
    return Logs(world, tmp_path_factory.mktemp("logs"))


def command(logs: Logs, suspect: object, ledger: Path, output: Path, *more: object) -> TwinRecord:
    key = f"file:{ledger.parent / 'twins.key'}"
    words = ["--ledger", ledger, "--twin-key", key, "-o", output, "--alpha", "1e-3", "--no-pdf", "--quiet"]
    models = ["--owner", logs.folder / "teacher", "--control", logs.folder / "unrelated", "--dtype", "float32"]
    result = run("trace", "twins", suspect, *words, *models, *more)
    assert result.exit_code == 0, result.output
    checked = run("report", "verify", output / "report.json")
    assert checked.exit_code == 0, checked.output
    return read_record(TwinRecord, output / "report.json")


def saved(logs: Logs, network: Any, folder: Path) -> Path:
    network.save_pretrained(folder)
    logs.tokenizer.save_pretrained(folder)
    return folder


SUSPECTS: dict[str, Callable[[Logs], Any]] = {
    "the teacher": lambda logs: logs.network,
    "another model": lambda logs: network_of(logs.tokenizer, 9),
}


@pytest.mark.parametrize("who", SUSPECTS)
def test_by_the_same_law_no_innocent_is_found(who: str, logs: Logs, tmp_path: Path) -> None:
    found = command(logs, saved(logs, SUSPECTS[who](logs), tmp_path / "suspect"), logs.ledger(1.0), tmp_path / "out")
    assert found.level == "regenerated" and found.law is not None
    assert found.law.veto is None and 0 < found.law.bias < 0.2
    assert not found.found and found.refused is None


def test_who_learnt_what_was_served_is_found(logs: Logs, tmp_path: Path) -> None:
    guilty = saved(logs, logs.guilty, tmp_path / "suspect")
    found = command(logs, guilty, logs.ledger(1.0), tmp_path / "out")
    assert found.found and found.measures[0].wins > 0.8 * found.pairs.asked


def test_and_behind_an_endpoint_too(logs: Logs, tmp_path: Path) -> None:
    with Server(logs.guilty, logs.tokenizer) as server:
        more: list[object] = ["--model", "student", "--target", "3"]
        found = command(logs, server.url, logs.ledger(1.0), tmp_path / "out", *more)
    assert found.found and found.ask == "logprobs"
    assert found.queries is not None and found.queries.stopped == "plan finished"


def test_twins_of_another_temperature_are_refused_and_nobody_is_asked(logs: Logs, tmp_path: Path) -> None:
    with Server(network_of(logs.tokenizer, 9), logs.tokenizer) as server:
        more: list[object] = ["--model", "student"]
        found = command(logs, server.url, logs.ledger(0.5), tmp_path / "out", *more)
        asked = [received.body for received in server.received if "Count from one" not in str(received.body)]
    assert found.law is not None and found.law.veto is not None and found.refused == found.law.veto
    assert not found.found and found.pairs.asked == 0 and not asked
