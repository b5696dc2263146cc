"""The ledger only grows, shows every change, and says what is wrong with a file in one line."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detect.student.asking.ledger import Chain, Draft, Ledger, Spent, verify_chain
from watermark.errors import DyetraceError

COLUMNS = "kind, key, plan, asked, tokens, time, meta, payload, packed, hash"
PLAN = hashlib.sha256(b"{}").hexdigest()


def asked(key: str = "a" * 64, tokens: int = 50) -> Draft:
    return Draft("asked", key, PLAN, tokens, {"prompt": 0, "sample": 0}, b'{"model": "m"}')


def answered(to: int, key: str = "a" * 64, payload: bytes = b'{"choices": []}', tokens: int = 20) -> Draft:
    return Draft("answered", key, PLAN, tokens, {"status": 200}, payload, to)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed ledger: a plan, two requests, an answer of many bytes and a failure."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.enter_plan(PLAN, b"{}")
        ledger.append([asked(), asked("b" * 64)])
        ledger.append([answered(2, payload=b"long " * 10_000)])
        ledger.append([Draft("failed", "b" * 64, PLAN, 0, {"status": 429}, b"", 3)])
    return path


def refusal(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(DyetraceError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_again(path: Path) -> None:
    with Ledger(path) as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
        found = ledger.answer("a" * 64)
        assert found is not None and found.payload == b"long " * 10_000
        assert (found.number, found.asked, found.tokens, found.meta) == (4, 2, 20, {"status": 200})
        assert ledger.answer("b" * 64) is None
    assert kinds == ["plan", "asked", "asked", "answered", "failed"]
    assert path.stat().st_size < 40_000  # long answers are kept compressed


def test_one_file_is_left_and_only_its_owner_reads_it(path: Path) -> None:
    assert [p.name for p in path.parent.iterdir() if not p.name.startswith(".")] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_chain_can_be_recomputed_with_the_standard_library_alone(path: Path) -> None:
    """What the documentation promises to the other side's expert."""
    import zlib

    head = "0" * 64
    database = sqlite3.connect(path)
    rows = database.execute("SELECT * FROM entries ORDER BY number").fetchall()
    database.close()
    for row in rows:
        *fields, payload, packed, own = row
        payload = zlib.decompress(payload) if packed else payload
        array = json.dumps([*fields, hashlib.sha256(payload).hexdigest()], separators=(",", ":"), ensure_ascii=False)
        head = hashlib.sha256(f"{head}\n{array}".encode()).hexdigest()
        assert head == own
    chain = verify_chain(path)
    assert (chain.entries, chain.head) == (5, head)
    with Ledger(path) as ledger:
        assert ledger.head == head


def test_the_plan_stands_before_the_first_query(path: Path) -> None:
    with Ledger(path) as ledger:
        standing = ledger.enter_plan(PLAN, b"{}")
        assert standing.number == 1 and standing.first_query is not None
        assert standing.entered <= standing.first_query
        assert len(list(ledger.entries())) == 5  # entered once
        assert "holds no plan" in refusal(ledger.standing, "c" * 64)
    assert verify_chain(path) == Chain(5, verify_chain(path).head, {PLAN: standing})


def test_unknown_outcomes_count_at_their_most(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.spent(PLAN) == Spent(2, 20)
        ledger.append([asked("c" * 64, tokens=70)])
        assert ledger.spent(PLAN) == Spent(3, 90)
        assert ledger.spent("d" * 64) == Spent(0, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET tokens = 0",
        "DELETE FROM entries WHERE number = 5",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE number = 4",
        f"INSERT INTO entries SELECT 9, {COLUMNS} FROM entries",
        f"INSERT INTO entries SELECT NULL, {COLUMNS} FROM entries",
    ],
)
def test_sqlite_itself_refuses_changes(path: Path, statement: str) -> None:
    before = verify_chain(path)
    database = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="entries are"):
        database.execute(statement)
    database.close()
    assert verify_chain(path) == before


TAMPERING = [
    "UPDATE entries SET number = 9 WHERE number = 5",
    "UPDATE entries SET kind = 'answered' WHERE number = 5",
    f"UPDATE entries SET key = '{'b' * 64}' WHERE number = 4",
    "UPDATE entries SET plan = 'x' WHERE number = 2",
    "UPDATE entries SET asked = 3 WHERE number = 4",
    "UPDATE entries SET tokens = 21 WHERE number = 4",
    "UPDATE entries SET time = '2020-01-01T00:00:00.000+00:00' WHERE number = 1",
    "UPDATE entries SET meta = '{\"status\": 200}' WHERE number = 4",
    "UPDATE entries SET meta = 'broken' WHERE number = 4",
    "UPDATE entries SET payload = CAST('other' AS BLOB), packed = 0 WHERE number = 4",
    "UPDATE entries SET payload = CAST('other' AS BLOB) WHERE number = 4",
    "UPDATE entries SET payload = 'text' WHERE number = 2",
    "UPDATE entries SET payload = 5 WHERE number = 2",
    f"UPDATE entries SET hash = '{'0' * 64}' WHERE number = 5",
    "UPDATE entries SET hash = 7 WHERE number = 3",
    "DELETE FROM entries WHERE number = 1",
    "DELETE FROM entries WHERE number = 3",
]


@pytest.mark.parametrize("statement", TAMPERING)
def test_every_change_breaks_the_chain(path: Path, statement: str) -> None:
    """Even by somebody who takes the triggers away and puts them back."""
    database = sqlite3.connect(path)
    triggers = list(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"))
    for name, _ in triggers:
        database.execute(f"DROP TRIGGER {name}")
    database.execute(statement)
    for _, sql in triggers:
        database.execute(sql)
    database.commit()
    database.close()
    assert str(path) in refusal(verify_chain, path)


def test_missing_triggers_are_noticed_on_opening(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("DROP TRIGGER entries_never_go")
    database.close()
    assert "nothing protects" in refusal(Ledger, path)


def test_an_outcome_belongs_to_one_request(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append([answered(2)])
    assert "outcome of no request" in refusal(verify_chain, path)


def test_damaged_and_foreign_files_are_refused_in_one_line(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    damaged = tmp_path / "damaged.sqlite"
    for data in (
        whole[: len(whole) // 2],
        whole[:100],
        b"not a database at all " * 99,
        whole[:5000] + os.urandom(4000),
    ):
        damaged.write_bytes(data)
        assert str(damaged) in refusal(verify_chain, damaged)
    other = tmp_path / "other.sqlite"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE customers (name TEXT)")
    database.close()
    before = other.read_bytes()
    assert "something else" in refusal(Ledger, other)
    assert other.read_bytes()[100:] == before[100:]
    assert "no ledger" in refusal(verify_chain, tmp_path / "missing.sqlite")
    assert "cannot write ledger" in refusal(Ledger, tmp_path)
    assert "cannot write ledger" in refusal(Ledger, tmp_path / "missing" / "ledger.sqlite")
    assert not (tmp_path / "missing.sqlite").exists()


def test_a_newer_layout_is_told_from_damage(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 2")
    database.close()
    assert "version 2" in refusal(Ledger, path)


def test_two_traces_never_share_a_ledger(path: Path) -> None:
    with Ledger(path):
        assert "another trace is using" in refusal(Ledger, path)
        assert verify_chain(path).entries == 5  # readers may look on
    with Ledger(path):
        pass


def test_the_file_survives_a_kill_in_the_middle_of_writing(path: Path) -> None:
    """kill -9 while entries are appended: what was committed is there, the chain is whole, the lock is free."""
    code = f"""
import sys
from pathlib import Path
from tests.detect.student.asking.test_ledger import Ledger, asked
ledger = Ledger(Path({str(path)!r}))
while True:
    number = ledger.append([asked(tokens=1)])[0]
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 40:
            process.kill()
            break
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    last = int(rest[-1]) if rest else 40
    with Ledger(path) as ledger:
        ledger.append([asked()])
    assert verify_chain(path).entries >= last + 1
