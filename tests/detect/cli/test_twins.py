"""`dyetrace twins`: what a private ledger of pairs holds, what is published and shown of it, and its erasure."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from tests.watermark.twins.pairs import KEY, pair
from watermark.keys import SecretKey, write_key_file
from watermark.twins.data_keys import keys_path
from watermark.twins.ledger import TwinLedger, parse_pair

ACCOUNTS = ["acme", "zenith", None]
PAIRS = [pair(i, ACCOUNTS[i % 3], made=f"2026-{9 + i % 2:02}-05T00:00:00Z") for i in range(8)]


def run(*arguments: object, status: int = 0) -> Result:
    done = CliRunner().invoke(main, ["twins", *map(str, arguments)])
    assert done.exit_code == status, done.output
    assert KEY.reveal_hex() not in done.output
    return done


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    write_key_file(tmp_path / "twins.key", KEY)
    path = tmp_path / "twins.ledger"
    with TwinLedger.open(path, KEY, write=True) as opened:
        opened.append_many(PAIRS)
    return path


@pytest.fixture
def key(ledger: Path) -> tuple[str, str]:
    return "--twin-key", f"file:{ledger.with_name('twins.key')}"


def test_a_ledger_is_described_with_and_without_its_key(ledger: Path, key) -> None:
    plain = run("info", ledger).stdout
    assert "8 pairs" in plain and "2026-09 4, 2026-10 4" in plain and "acme" not in plain
    assert "acme 3, zenith 3, of no account 2" in run("info", ledger, *key).stdout
    told = json.loads(run("info", ledger, *key, "--json").stdout)
    with TwinLedger.open(ledger, KEY) as opened:
        assert (told["head"], told["root"], told["pairs"]) == (opened.head, opened.root(), 8)
    assert told["accounts"][2] == {"account": None, "pairs": 2}
    assert json.loads(run("info", ledger, "--json").stdout)["accounts"] is None


def test_names_of_accounts_can_t_steer_a_terminal(tmp_path: Path) -> None:
    write_key_file(tmp_path / "k", KEY)
    with TwinLedger.open(tmp_path / "l", KEY, write=True) as opened:
        opened.append(pair(1, account="\x1b[31mred\n"))
    for words in (("info", tmp_path / "l"), ("erase", tmp_path / "l", "--before", "2030-01-01", "--yes")):
        done = run(*words, "--twin-key", f"file:{tmp_path / 'k'}")
        assert "\x1b" not in done.output and r"\x1b[31mred\n" in done.output


def test_an_unfinished_pair_is_spoken_of(ledger: Path, key) -> None:
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-5])
    done = run("info", ledger, *key)
    assert "7 pairs" in done.stdout and "not written to its end" in done.stderr
    assert ledger.read_bytes() == whole[:-5]


def test_what_was_committed_and_shown_is_checked_without_a_key(ledger: Path, key, tmp_path: Path) -> None:
    committed, shown = tmp_path / "c.json", tmp_path / "r.json"
    done = run("commit", ledger, *key, "-o", committed)
    assert done.stdout.strip() == json.loads(committed.read_bytes())["root"]
    assert stat.S_IMODE((tmp_path / "c.json.opening").stat().st_mode) == 0o600
    with TwinLedger.open(ledger, KEY, write=True) as opened:
        opened.append(pair(50))
    done = run("reveal", ledger, PAIRS[3].id, PAIRS[6].id, *key, "--commitment", committed, "-o", shown)
    assert done.stdout.strip() == hashlib.sha256(shown.read_bytes()).hexdigest()
    assert stat.S_IMODE(shown.stat().st_mode) == 0o600
    done = run("verify", shown, "--commitment", committed)
    assert "it holds: 2 pairs of the 8" in done.stdout and "--opening" in done.stderr
    done = run("verify", shown, "--commitment", committed, "--opening", f"{committed}.opening", "--json")
    assert json.loads(done.stdout)["coins_tossed_anew"] is True
    shown.write_text(shown.read_text().replace("other 3", "other 4"))
    done = run("verify", shown, "--commitment", committed, "--json", status=3)
    told = json.loads(done.stdout)
    assert told["holds"] is False and PAIRS[3].id in told["reason"]


def test_pairs_are_exported_for_an_expert(ledger: Path, key, tmp_path: Path) -> None:
    done = run("export", ledger, *key, "-o", tmp_path / "all.jsonl")
    data = (tmp_path / "all.jsonl").read_bytes()
    assert [parse_pair(line) for line in data.splitlines()] == PAIRS
    assert done.stdout.strip() == hashlib.sha256(data).hexdigest()
    assert stat.S_IMODE((tmp_path / "all.jsonl").stat().st_mode) == 0o600
    run("export", ledger, *key, "--account", "zenith", "-o", tmp_path / "one.jsonl")
    found = [parse_pair(line) for line in (tmp_path / "one.jsonl").read_bytes().splitlines()]
    assert found == [one for one in PAIRS if one.account == "zenith"]


def test_nothing_is_left_of_an_export_that_failed(ledger: Path, key, tmp_path: Path) -> None:
    data = bytearray(ledger.read_bytes())
    lines = keys_path(ledger).read_text().splitlines(keepends=True)
    keys_path(ledger).write_text("".join(lines[:-1]))
    before = set(tmp_path.iterdir())
    assert "lacks a key" in run("export", ledger, *key, "-o", tmp_path / "all.jsonl", status=3).stderr
    assert set(tmp_path.iterdir()) == before
    assert ledger.read_bytes() == data


def test_an_erasure_asks_and_says_what_is_lost(ledger: Path, key) -> None:
    before = keys_path(ledger).read_bytes()
    done = run("erase", ledger, *key, "--account", "acme", status=2)
    assert "2026-09, acme: 2 pairs" in done.stderr and "add --yes" in done.stderr
    assert keys_path(ledger).read_bytes() == before
    done = run("erase", ledger, *key, "--account", "acme", "--before", "2026-10-01", "--yes", "--json")
    assert json.loads(done.stdout)["parts"] == [{"account": "acme", "month": "2026-09", "pairs": 2}]
    assert json.loads(done.stdout)["left"] == 6
    assert run("erase", ledger, *key, "--before", "2026-11-01", "--yes").stdout == "6\n"
    done = run("erase", ledger, *key, "--before", "2026-11-01")
    assert done.stdout == "0\n" and "nothing to erase" in done.stderr
    assert "8 pairs, 8 of them erased" in run("info", ledger).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["erase", "L", "K"], "say what to erase"),
        (["erase", "L", "K", "--before", "yesterday"], "takes a date"),
        (["reveal", "L", "0" * 32 + "x", "K", "-o", "new"], "is not in it"),
        (["export", "L", "K", "-o", "twins.ledger"], "is read by this command"),
        (["export", "L", "K", "-o", "twins.ledger.keys"], "is read by this command"),
        (["commit", "L", "K", "-o", "twins.key"], "is read by this command"),
        (["export", "L", "--twin-key", "file:other.key", "-o", "new"], "wrong key"),
        (["info", "nope"], "cannot open ledger"),
        (["commit", "", "K", "-o", "new"], "cannot open ledger"),
        (["info", "twins.key"], "is not a ledger of twins"),
        (["verify", "twins.key", "--commitment", "twins.key"], "not whole JSON"),
    ],
)
def test_bad_input_is_one_line_and_leaves_everything_as_it_is(ledger: Path, key, monkeypatch, words, said) -> None:
    monkeypatch.chdir(ledger.parent)
    write_key_file(Path("other.key"), SecretKey(bytes(32)))
    before = {path: path.read_bytes() for path in ledger.parent.iterdir()}
    given = [part for word in words for part in ({"L": ["twins.ledger"], "K": list(key)}.get(word, [word]))]
    done = run(*given, status=2)
    assert said in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("dyetrace: ")
    assert {path: path.read_bytes() for path in ledger.parent.iterdir()} == before
