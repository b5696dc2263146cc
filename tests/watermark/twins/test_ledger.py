from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import stat
from datetime import date, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.watermark.twins.pairs import KEY, pair
from watermark.errors import DyetraceError, EvidenceError, MachineError
from watermark.keys.secret import SecretKey
from watermark.twins.data_keys import keys_path
from watermark.twins.ledger import TwinLedger, canonical, is_twin_ledger, parse_pair
from watermark.twins.merkle import merkle_root
from watermark.twins.pair import Pair, TwinAnswer

_TEXT = st.text(st.characters(codec=None, exclude_categories=[]), max_size=40)
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_ANSWERS = st.builds(
    TwinAnswer,
    text=_TEXT,
    token_ids=st.none() | st.lists(st.integers(0, 2**31 - 1), max_size=5),
    finish_reason=st.none() | st.just("stop"),
)
_PAIRS = st.builds(
    Pair,
    id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    made=st.datetimes(min_value=datetime(2020, 1, 1)).filter(lambda t: t.year < 9000).map(str),
    account=st.none() | _TEXT,
    request=st.dictionaries(_TEXT, _VALUE, max_size=4),
    answers=st.tuples(_ANSWERS, _ANSWERS),
    served=st.sampled_from([0, 1]),
    level=st.sampled_from(["withheld", "regenerated"]),
    proof=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
)


def made(path: Path, *pairs: Pair) -> list[str]:
    """A ledger of these pairs; their leaf hashes."""
    with TwinLedger.open(path, KEY, write=True) as ledger:
        return [ledger.append(one) for one in pairs]


def read(path: Path) -> list[Pair]:
    with TwinLedger.open(path, KEY) as ledger:
        return list(ledger.pairs())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "twins.ledger"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(_PAIRS, max_size=6, unique_by=lambda one: one.id), grouped=st.booleans())
def test_what_was_appended_is_read_in_order(tmp_path_factory: pytest.TempPathFactory, pairs, grouped) -> None:
    path = tmp_path_factory.mktemp("ledger") / "l"
    with TwinLedger.open(path, KEY, write=True) as ledger:
        leaves = ledger.append_many(pairs) if grouped else [ledger.append(one, sync=False) for one in pairs]
        ledger.sync()
        written = ledger.head, ledger.count, ledger.root()
        assert list(ledger.pairs()) == pairs
    with TwinLedger.open(path, KEY) as ledger:
        assert list(ledger.pairs()) == pairs
        assert (ledger.head, ledger.count, ledger.root()) == written
        assert ledger.root() == merkle_root([bytes.fromhex(leaf) for leaf in leaves]).hex()
        assert all(one.id in ledger for one in pairs)
        assert ledger.erased == ledger.unfinished == 0


@given(_PAIRS)
def test_the_hashed_form_is_read_back_as_the_same_pair(one: Pair) -> None:
    assert parse_pair(canonical(one)) == one
    assert canonical(parse_pair(canonical(one))) == canonical(one)
    assert canonical(one).isascii()


def test_nothing_of_a_pair_stands_in_the_clear_and_only_the_owner_can_read_the_files(path: Path) -> None:
    one = pair(7, account="Zebra & Sons")
    made(path, one)
    for file in (path, keys_path(path)):
        data = file.read_bytes()
        for secret in ("Zebra", "one 7", "other 7", "ask 7", one.id, one.proof or "", KEY.reveal_hex()):
            assert secret.encode() not in data
        assert bytes.fromhex(one.id) not in data
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert is_twin_ledger(path) and not is_twin_ledger(keys_path(path))


def test_the_same_pairs_make_other_leaf_hashes_in_another_ledger(tmp_path: Path) -> None:
    # Without the salt a hash could be looked up by whoever guesses the pair.
    assert made(tmp_path / "a", pair(1)) != made(tmp_path / "b", pair(1))


def test_a_ledger_cut_at_any_byte_loses_the_unfinished_pair_alone(path: Path, tmp_path: Path) -> None:
    made(path)
    empty = path.stat().st_size
    ends = [empty]
    for number in range(3):
        made(path, pair(number))
        ends.append(path.stat().st_size)
    data, cut = path.read_bytes(), tmp_path / "cut.ledger"
    shutil.copy(keys_path(path), keys_path(cut))
    for size in [*range(empty, ends[1] + 8), *range(ends[2] - 4, ends[3] + 1)]:
        cut.write_bytes(data[:size])
        whole = sum(size >= end for end in ends[1:])
        with TwinLedger.open(cut, KEY) as ledger:
            assert list(ledger.pairs()) == [pair(number) for number in range(whole)]
            assert ledger.unfinished == size - ends[whole]
        assert cut.stat().st_size == size  # who reads doesn't change it
        if size % 4 and size not in ends:
            continue  # waiting for the disk takes most of the time
        with TwinLedger.open(cut, KEY, write=True) as ledger:
            assert ledger.unfinished == size - ends[whole]
            ledger.append(pair(9))
        assert read(cut) == [*(pair(number) for number in range(whole)), pair(9)]


def test_a_key_file_cut_at_any_byte_of_a_new_key_loses_no_pair(path: Path) -> None:
    made(path, pair(0))
    before, keys = path.read_bytes(), keys_path(path)
    short = keys.stat().st_size
    made(path, pair(1, account="zenith"))
    whole = keys.read_bytes()
    for size in range(short, len(whole)):
        path.write_bytes(before)  # a key is on the disk before the first pair that is sealed under it
        keys.write_bytes(whole[:size])
        assert read(path) == [pair(0)]
        made(path, pair(2, account="zenith"), pair(3))
        assert read(path) == [pair(0), pair(2, account="zenith"), pair(3)]


@pytest.mark.parametrize("zeros", [1, 20, 100, 5000])
def test_zero_bytes_at_the_end_are_what_a_power_cut_left(path: Path, zeros: int) -> None:
    made(path, pair(0))
    with path.open("ab") as file:
        file.write(bytes(zeros))
    with TwinLedger.open(path, KEY) as ledger:
        assert (ledger.count, ledger.unfinished) == (1, zeros)
    made(path, pair(1))
    assert read(path) == [pair(0), pair(1)]


def test_a_writer_that_is_killed_leaves_all_that_it_said_was_appended(path: Path) -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        with TwinLedger.open(path, KEY, write=True) as ledger:
            for number in range(10**6):
                ledger.append(pair(number))
                writer.send(number)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    for _ in range(20):
        last = reader.recv()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while reader.poll():
        last = reader.recv()
    found = read(path)
    assert len(found) >= last + 1
    assert found == [pair(number) for number in range(len(found))]
    made(path, pair(10**7))


def test_a_changed_byte_anywhere_is_found_and_its_place_is_named(path: Path) -> None:
    made(path)
    start = path.stat().st_size
    made(path, pair(0), pair(1), pair(2))
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DyetraceError) as caught:
            read(path)
        number = 1 + (place - start) * 3 // (len(data) - start)
        assert place < start or f"pair {number} " in str(caught.value) or f"pair {number + 1} " in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(DyetraceError):
            TwinLedger.open(path, KEY, write=True)
        assert len(path.read_bytes()) == len(data)  # nothing is cut off a damaged ledger


def test_frames_that_are_dropped_moved_or_repeated_break_the_chain(path: Path) -> None:
    ends = []
    for number in range(4):
        made(path, pair(number))
        ends.append(path.stat().st_size)
    data = path.read_bytes()
    first, second, third = (data[ends[i] : ends[i + 1]] for i in range(3))
    for body in (second + third, first + third, second + first + third, first + first + second + third):
        path.write_bytes(data[: ends[0]] + body)
        with pytest.raises(EvidenceError, match="does not fit its hash"):
            read(path)


def test_a_wrong_key_is_one_line_and_changes_nothing(path: Path) -> None:
    made(path, pair(0))
    with path.open("ab") as file:
        file.write(b"torn")
    before = path.read_bytes()
    other = SecretKey(bytes(32))
    for write in (False, True):
        with pytest.raises(DyetraceError, match=r"^wrong key: [^\n]*$") as caught:
            TwinLedger.open(path, other, write=write)
        assert other.reveal_hex() not in str(caught.value)
    assert path.read_bytes() == before


def test_without_a_key_hashes_can_be_read_and_pairs_cannot(path: Path) -> None:
    leaves = made(path, pair(0), pair(1))
    with TwinLedger.open(path, None) as ledger:
        assert ledger.root() == merkle_root([bytes.fromhex(leaf) for leaf in leaves]).hex()
        assert (ledger.count, ledger.months, ledger.levels) == (2, {"2026-11": 2}, {"withheld": 2})
        with pytest.raises(DyetraceError, match="needs the twin key"):
            next(ledger.pairs())


def test_one_process_writes_at_a_time_and_others_read(path: Path) -> None:
    with TwinLedger.open(path, KEY, write=True) as ledger:
        ledger.append(pair(0))
        with pytest.raises(MachineError, match="another process"):
            TwinLedger.open(path, KEY, write=True)
        assert read(path) == [pair(0)]
        ledger.append(pair(1))
        assert read(path) == [pair(0), pair(1)]
    made(path, pair(2))


def test_a_coin_is_tossed_once(path: Path) -> None:
    made(path, pair(0), pair(1))
    with TwinLedger.open(path, KEY, write=True) as ledger:
        for again in ([pair(1)], [pair(2), pair(2)], [pair(3), pair(0)]):
            with pytest.raises(DyetraceError, match="a coin is tossed once"):
                ledger.append_many(again)
        assert ledger.count == 2
    assert read(path) == [pair(0), pair(1)]


def test_an_erased_account_is_gone_for_good_and_what_was_published_holds(path: Path) -> None:
    kept, gone = [pair(0), pair(2, "zenith"), pair(4, None)], [pair(1), pair(3)]
    made(path, *sorted([*kept[1:], *gone], key=lambda one: one.id))
    made(path, pair(0, "zenith"))
    kept[0] = pair(0, "zenith")
    data, old_keys = path.read_bytes(), keys_path(path).read_bytes()
    with TwinLedger.open(path, KEY) as ledger:
        before = ledger.head, ledger.root(), ledger.count
        assert ledger.accounts() == {"acme": 2, "zenith": 2, None: 1}
        assert ledger.erase(account="acme").parts == {("acme", "2026-11"): 2}
        assert (ledger.head, ledger.root(), ledger.count) == before
    assert path.read_bytes() == data and keys_path(path).read_bytes() != old_keys
    assert stat.S_IMODE(keys_path(path).stat().st_mode) == 0o600
    with TwinLedger.open(path, KEY) as ledger:
        assert sorted(ledger.pairs(), key=lambda one: one.id) == sorted(kept, key=lambda one: one.id)
        assert (ledger.head, ledger.root(), ledger.count, ledger.erased) == (*before, 2)
        assert ledger.accounts() == {"zenith": 2, None: 1}
        assert gone[0].id in ledger  # so that its coin can't be tossed again
    made(path, pair(9))  # the account comes back: under a key of its own
    with TwinLedger.open(path, KEY) as ledger:
        assert ledger.accounts() == {"acme": 1, "zenith": 2, None: 1}


def test_erasing_before_a_date_takes_whole_months_that_are_over(path: Path) -> None:
    times = ["2025-12-31T23:59:59Z", "2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00Z", "2026-02-03T04:05:06Z"]
    pairs = [pair(number, made=time) for number, time in enumerate(times)]
    made(path, *pairs)
    with TwinLedger.open(path, KEY) as ledger:
        assert ledger.erasable(before=date(2025, 12, 31)).pairs == 0
        assert ledger.erase(before=date(2026, 1, 31)).parts == {("acme", "2025-12"): 2}
        assert list(ledger.pairs()) == pairs[2:]
        assert ledger.erase(account="zenith", before=date(2027, 1, 1)).pairs == 0
        assert ledger.erase(account="acme", before=date(2026, 2, 1)).pairs == 1
        with pytest.raises(DyetraceError, match="say what to erase"):
            ledger.erase()
    assert read(path) == pairs[3:]


def test_an_account_can_be_erased_while_a_server_writes(path: Path) -> None:
    with TwinLedger.open(path, KEY, write=True) as server:
        server.append(pair(0))
        server.append(pair(1, "zenith"))
        with TwinLedger.open(path, KEY) as ledger:
            ledger.erase(account="acme")
        server.append(pair(2))
        server.append(pair(3, "zenith"))
    assert read(path) == [pair(1, "zenith"), pair(2), pair(3, "zenith")]


def test_a_key_that_is_missing_without_an_erasure_is_damage(path: Path) -> None:
    made(path, pair(0), pair(1, "zenith"))
    keys = keys_path(path)
    lines = keys.read_bytes().splitlines(keepends=True)
    keys.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(EvidenceError, match="lacks a key"):
        read(path)
    keys.write_bytes(lines[0] + lines[1] + lines[2].replace(b'"2026-11"', b'"2026-10"'))
    with pytest.raises(EvidenceError, match="can't be opened"):
        read(path)
    keys.unlink()
    with pytest.raises(DyetraceError, match="is missing"):
        read(path)
    with pytest.raises(DyetraceError, match="is missing"):
        made(path, pair(2))


def test_keys_of_another_ledger_are_refused(tmp_path: Path) -> None:
    made(tmp_path / "a", pair(0))
    made(tmp_path / "b", pair(0))
    shutil.copy(keys_path(tmp_path / "a"), keys_path(tmp_path / "b"))
    with pytest.raises(DyetraceError, match="another ledger"):
        read(tmp_path / "b")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "short"},
        {"id": "G" * 32},
        {"made": "yesterday"},
        {"made": "0001-01-01T00:00:00+14:00"},
        {"request": {"a": float("nan")}},
        {"request": {1: 2}},
        {"request": {"a": object()}},
    ],
)
def test_what_is_no_pair_is_refused_before_anything_is_written(path: Path, change: dict) -> None:
    made(path, pair(0))
    with TwinLedger.open(path, KEY, write=True) as ledger:
        with pytest.raises(DyetraceError, match=r"^a pair can't be kept: [^\n]*$"):
            ledger.append_many([pair(1), msgspec.structs.replace(pair(2), **change)])
    assert read(path) == [pair(0)]


def test_other_files_are_refused_in_one_line(path: Path, tmp_path: Path) -> None:
    for data in (b"", b"x", b"dyledger" + bytes(100), b"dytwins\0\2\0\0\0" + bytes(90)):
        path.write_bytes(data)
        for write in (False, True):
            with pytest.raises(DyetraceError, match=r"^[^\n]*$"):
                TwinLedger.open(path, KEY, write=write)
        assert path.read_bytes() == data
    for bad in (tmp_path, tmp_path / "none" / "l"):
        for write in (False, True):
            with pytest.raises(DyetraceError, match=r"^[^\n]*$"):
                TwinLedger.open(bad, KEY, write=write)
    with pytest.raises(DyetraceError):
        TwinLedger.open(tmp_path / "none", KEY)
    assert not (tmp_path / "none").exists()


def test_a_full_disk_leaves_the_pairs_before_and_the_ledger_goes_on(path: Path) -> None:
    import resource

    with TwinLedger.open(path, KEY, write=True) as ledger:
        ledger.append(pair(0))
        size = path.stat().st_size
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        try:
            with pytest.raises(MachineError, match=r"kept$"):
                ledger.append(pair(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert path.stat().st_size == size
        ledger.append(pair(2))
    assert read(path) == [pair(0), pair(2)]


def test_threads_may_append_and_read_at_once(path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with TwinLedger.open(path, KEY, write=True) as ledger:

        def work(thread: int) -> None:
            for number in range(10):
                one = pair(100 * thread + number, account=f"account {thread}")
                ledger.append(one, sync=number % 5 == 0)
                assert one in list(ledger.pairs())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        head = ledger.head
    found = read(path)
    assert len(found) == 40
    for thread in range(4):
        mine = [one for one in found if one.account == f"account {thread}"]
        assert mine == [pair(100 * thread + number, account=f"account {thread}") for number in range(10)]
    with TwinLedger.open(path, KEY) as ledger:
        assert ledger.head == head


def test_of_two_that_make_a_ledger_at_once_one_has_it(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, over, told = context.Event(), context.Event(), context.Queue()

    def work(number: int) -> None:
        start.wait()
        try:
            with TwinLedger.open(path, KEY, write=True) as ledger:
                ledger.append(pair(number))
                told.put("has it")
                over.wait()
        except MachineError:
            told.put("refused")

    both = [context.Process(target=work, args=(number,)) for number in range(2)]
    for process in both:
        process.start()
    start.set()
    assert sorted(told.get() for _ in both) == ["has it", "refused"]
    over.set()
    for process in both:
        process.join()
    assert len(read(path)) == 1
