"""`dyetrace ledger`: what it says of ledgers and how it adds them up, without a key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from watermark.keys import KeyRing, SecretKey
from watermark.ledger import Ledger
from watermark.spec import WatermarkSpec

MASTER = SecretKey(bytes(range(32)))
RING = KeyRing.from_master(MASTER)
SPEC = WatermarkSpec(vocabulary_size=50_000, tokenizer="t", key_fingerprint=MASTER.fingerprint)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ledger", *map(str, arguments)])


@pytest.fixture
def servers(tmp_path: Path) -> list[Path]:
    """The ledgers of two servers, 3 and 5 answers of 100 contexts, the first 50 of which are the same everywhere."""
    paths = [tmp_path / "one.ledger", tmp_path / "two.ledger"]
    for path, answers in zip(paths, (3, 5), strict=True):
        with Ledger.create(path, SPEC, RING, megabytes=1) as ledger:
            for number in range(answers):
                own = 10_000 * (answers + number) + np.arange(50)
                ledger.add(None, 2, np.stack([np.concatenate([np.arange(50), own])] * 2, axis=1))
    return paths


def test_servers_ledgers_are_added_up(servers: list[Path], tmp_path: Path) -> None:
    done = run("merge", *servers, "-o", tmp_path / "all.ledger")
    assert done.exit_code == 0, done.output
    assert "8 answers of 2 ledgers" in done.stderr
    assert done.stdout.split() == [hashlib.sha256((tmp_path / "all.ledger").read_bytes()).hexdigest()]
    with Ledger.open(tmp_path / "all.ledger", SPEC, RING) as ledger:
        assert (ledger.counts(np.stack([np.arange(50)] * 2, axis=1), 2) == 8).all()
    told = json.loads(run("info", tmp_path / "all.ledger", "--json").stdout)
    parts = [json.loads(run("info", path, "--json").stdout)["header"]["identity"] for path in servers]
    assert told["header"]["parts"] == parts
    assert told["contexts"] == 800 and told["header"]["spec_id"] == SPEC.spec_id


def test_a_ledger_is_described_without_a_key(servers: list[Path]) -> None:
    said = run("info", servers[0]).stdout
    assert "3 answers with 300 contexts" in said
    assert SPEC.spec_id in said and MASTER.fingerprint in said
    assert "median 0" in said and "make the next ledger larger" not in said


def test_a_crowded_ledger_is_called_crowded(servers: list[Path]) -> None:
    with Ledger.open(servers[0], SPEC, RING, write=True) as ledger:
        for number in range(400):
            ledger.add(None, 0, np.stack([np.arange(1000), np.full(1000, number)], axis=1))
    assert "make the next ledger larger" in run("info", servers[0]).stdout


def test_a_ledger_can_be_looked_into_while_a_server_writes(servers: list[Path], tmp_path: Path) -> None:
    with Ledger.open(servers[0], SPEC, RING, write=True) as ledger:
        ledger.add(None, 0, [[1, 2]])
        ledger.flush()
        assert "4 answers" in run("info", servers[0]).stdout
        assert run("merge", *servers, "-o", tmp_path / "all").exit_code == 0


def test_what_cannot_be_merged_is_one_line_and_status_2(servers: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no ledger at all, but rather long\n" * 9)
    for arguments, message in (
        ((servers[0], servers[0], "-o", tmp_path / "all"), "would count twice"),
        ((servers[0], tmp_path / "text", "-o", tmp_path / "all"), "is not a ledger"),
        ((*servers, "-o", servers[1]), "never overwritten"),
    ):
        refused = run("merge", *arguments)
        assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
        assert message in refused.stderr
    assert not (tmp_path / "all").exists()
    assert run("info", tmp_path / "none").exit_code == 2
