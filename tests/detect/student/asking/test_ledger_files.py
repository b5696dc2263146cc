"""A ledger as a file that others get: damaged on the way, or in a place where nothing can be written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from detect.student.asking.ledger import Draft, Ledger, verify_chain
from watermark.errors import DyetraceError

PLAN = "c" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed ledger of ten requests and their answers."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        for number in range(10):
            key = f"{number:064x}"
            (asked,) = ledger.append([Draft("asked", key, PLAN, 9, {"sample": number}, b'{"model": "m"}')])
            ledger.append([Draft("answered", key, PLAN, 5, {"status": 200}, b'{"choices": []}', asked)])
    return path


def _damaged(data: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.3:
        return data[: dice.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(dice.choice([1, 8, 200])):
        changed[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(changed)


def test_whatever_is_damaged_is_told_in_one_line(path: Path) -> None:
    """SQLite quotes damaged text in some messages, which are then no UTF-8."""
    data, dice = path.read_bytes(), random.Random(0)
    copy = path.with_name("copy.sqlite")
    refused = 0
    for _ in range(300):
        copy.write_bytes(_damaged(data, dice))
        for write in (False, True):
            try:
                with Ledger(copy, write=write) as ledger:
                    ledger.answer("0" * 64)
                verify_chain(copy)
            except DyetraceError as error:
                assert str(copy) in str(error) and "\n" not in str(error)
                refused += 1
    assert refused > 150


def test_reading_leaves_nothing_beside_the_evidence(path: Path) -> None:
    """It needs no write access either: SQLite would make a log and its index to read a file that had one."""
    before = {beside.name: beside.stat().st_mtime_ns for beside in path.parent.iterdir()}
    assert verify_chain(path).entries == 20
    with Ledger(path, write=False) as ledger:
        assert len(list(ledger.entries())) == 20
        assert {beside.name: beside.stat().st_mtime_ns for beside in path.parent.iterdir()} == before


def test_a_ledger_in_use_can_be_read_too(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append([Draft("asked", "f" * 64, PLAN, 9, {}, b"{}")])
        assert verify_chain(path).entries == 21
        assert verify_chain(path).head == ledger.head
