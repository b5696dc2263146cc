"""The ledger never counts too little, forgets nothing that was added when its process dies, and tells no text."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.models.reading import ReadingDocument, context_fingerprints, served_subkeys
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, TenantKey
from watermark.ledger import MOST_WAITING, Ledger, answer_contexts
from watermark.ledger_file import LARGEST_COUNT, describe, merge_files, new_file, new_header
from watermark.prf import MISSING, U32
from watermark.spec import WatermarkSpec

MASTER = SecretKey(bytes(range(32)))
RING = KeyRing.from_master(MASTER, tenants=("acme", "zenith"))
SPEC = WatermarkSpec(vocabulary_size=50_000, tokenizer="t", key_fingerprint=MASTER.fingerprint, global_share=0.5)
ROOT = Path(__file__).parents[2]
CROWDED = 8  # counters a row: every context shares its counters with others

Added = list[tuple[str | None, int, list[tuple[int, int]]]]
numbers = itertools.count()
pairs = st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2, MISSING]))
answers = st.tuples(
    st.sampled_from([None, "acme", "zenith"]), st.integers(0, 3), st.lists(pairs, min_size=1, max_size=9)
)
streams = st.lists(answers, max_size=12)
GRID = np.array([(a, b) for a in range(10) for b in (0, 1, 2, MISSING)], dtype=np.uint32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledgers")


def fresh(folder: Path) -> Path:
    return folder / f"{next(numbers)}.ledger"


def crowded(path: Path, spec: WatermarkSpec = SPEC) -> Ledger:
    """An empty ledger with far fewer counters than one would ever make."""
    import msgspec

    header = msgspec.structs.replace(new_header(spec.spec_id, spec.key_fingerprint, 1), width=CROWDED)
    with new_file(path, header):
        pass
    return Ledger.open(path, spec, RING, write=True)


def exact(added: Added, tenant: str | None) -> U32:
    """True counts of the grid's contexts under each sub-key, (40, 4)."""
    counts = np.zeros((len(GRID), 4), dtype=np.uint32)
    for name, subkey, contexts in added:
        if tenant in (None, name):
            counts[:, subkey] += [tuple(row) in set(contexts) for row in GRID.tolist()]
    return counts


def fill(ledger: Ledger, added: Added) -> Ledger:
    for tenant, subkey, contexts in added:
        ledger.add(tenant, subkey, np.array(contexts))
    return ledger


# ------------------------------------------------------------------------------------------------- counting


@settings(max_examples=40)
@given(streams)
def test_counts_are_those_of_answers_by_account_and_subkey(folder: Path, added: Added) -> None:
    with fill(Ledger.create(fresh(folder), SPEC, RING, megabytes=1), added) as ledger:
        for tenant in (None, "acme", "zenith"):
            assert (ledger.counts_by_subkey(GRID, tenant) == exact(added, tenant)).all()
        assert ledger.answers == len(added)
        assert ledger.contexts == sum(len(set(contexts)) for _, _, contexts in added)


@given(streams)
def test_no_count_is_too_low_however_crowded_the_table(folder: Path, added: Added) -> None:
    with fill(crowded(fresh(folder)), added) as ledger:
        for tenant in (None, "acme", "zenith"):
            assert (ledger.counts_by_subkey(GRID, tenant) >= exact(added, tenant)).all()


@given(streams, streams)
def test_merged_counts_are_never_too_low_nor_above_the_sum_of_largest_counters(
    folder: Path, one: Added, other: Added
) -> None:
    paths = [fresh(folder), fresh(folder)]
    for path, added in zip(paths, (one, other), strict=True):
        fill(crowded(path), added).close()
    merge_files(paths, out := fresh(folder))
    with Ledger.open(out, SPEC, RING) as merged, Ledger.open(paths[0], SPEC, RING) as first:
        counts = merged.counts_by_subkey(GRID)
        assert (counts >= exact(one + other, None)).all()
        assert (counts >= first.counts_by_subkey(GRID)).all()
        assert merged.answers == len(one) + len(other)


@settings(max_examples=20)
@given(streams, streams)
def test_merging_is_counting_in_one_ledger(folder: Path, one: Added, other: Added) -> None:
    paths = [fresh(folder), fresh(folder)]
    for path, added in zip(paths, (one, other), strict=True):
        fill(Ledger.create(path, SPEC, RING, megabytes=1), added).close()
    merge_files(paths, out := fresh(folder))
    with Ledger.open(out, SPEC, RING) as merged:
        for tenant in (None, "acme"):
            assert (merged.counts_by_subkey(GRID, tenant) == exact(one + other, tenant)).all()


def test_full_counters_stay_full_and_so_do_their_sums(tmp_path: Path) -> None:
    context = np.array([[1, 2]], dtype=np.uint32)
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        with Ledger.create(path, SPEC, RING, megabytes=1) as ledger:
            ledger.add(None, 0, context)
        data = np.memmap(path, dtype="<u2", mode="r+")[2048:]  # the table follows a header of one page
        data[data > 0] = LARGEST_COUNT - 1
        del data
    with Ledger.open(paths[0], SPEC, RING, write=True) as ledger:
        for _ in range(3):
            ledger.add(None, 0, context)
            assert ledger.counts(context, 0) == LARGEST_COUNT
    merge_files(paths, tmp_path / "sum")
    with Ledger.open(tmp_path / "sum", SPEC, RING) as ledger:
        assert ledger.counts(context, 0) == LARGEST_COUNT


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7])
def test_contexts_of_any_width_are_told_apart(tmp_path: Path, width: int) -> None:
    spec = WatermarkSpec(vocabulary_size=9, tokenizer="t", key_fingerprint=MASTER.fingerprint, context_width=width)
    once = np.random.default_rng(width).integers(0, 2**31, (500, width))
    with Ledger.create(tmp_path / "l", spec, RING, megabytes=1) as ledger:
        ledger.add("acme", 3, once)
        ledger.add(None, 3, once[:250])
        assert (ledger.counts(once, 3) == np.repeat([2, 1], 250)).all()
        assert (ledger.counts(once, 3, "acme") == 1).all()
        assert ledger.counts(once + 1, 3).sum() == 0


def test_an_answers_contexts_are_those_that_a_trace_counts_in_served_text(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    documents = []
    with Ledger.create(tmp_path / "l", SPEC, RING, megabytes=1) as ledger:
        for _ in range(30):
            prompt, answer = generator.integers(0, 6, 5), generator.integers(0, 6, 40)
            subkey = int(generator.integers(4))
            # A trace counts the context after the last token as well: the end token was chosen in it.
            ledger.add(None, subkey, answer_contexts(prompt, np.append(answer, 7), 2))
            documents.append(ReadingDocument("", np.concatenate([prompt, answer]).astype(np.uint32), 5, subkey))
        grid = np.array(list(itertools.product(range(6), repeat=2)), dtype=np.uint32)
        counts = ledger.counts_by_subkey(grid)
    prints = [int(context_fingerprints(row, 2)[0]) for row in grid]
    mine = {p: {s: n for s, n in enumerate(row) if n} for p, row in zip(prints, counts.tolist(), strict=True)}
    assert {p: row for p, row in mine.items() if row} == served_subkeys(documents, 2)


def test_before_a_prompt_stands_missing() -> None:
    assert answer_contexts([5], [6, 7], 3).tolist() == [[MISSING, MISSING, 5], [MISSING, 5, 6]]
    assert answer_contexts([], [6], 1).tolist() == [[MISSING]]
    assert answer_contexts([1, 2, 3], [], 2).shape == (0, 2)


def test_what_a_context_never_served_reads_is_what_the_ledger_says_of_its_noise(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with Ledger.create(tmp_path / "l", SPEC, RING, megabytes=1) as ledger:
        for _ in range(800):
            ledger.add(None, 0, generator.integers(0, 2**20, (1000, 2)))
        unserved = ledger.counts(generator.integers(2**20, 2**21, (20_000, 2)), 0)
    info = describe(tmp_path / "l")
    assert info.answers == 800 and info.megabytes == 1
    assert info.noise_mean == pytest.approx(unserved.mean(), rel=0.03) and unserved.mean() > 1
    assert abs(info.noise_95 - np.quantile(unserved, 0.95)) <= 1


# ------------------------------------------------------------------------------------- who may read and write


def test_a_tenants_key_reads_that_tenants_counts_alone(tmp_path: Path) -> None:
    fill(Ledger.create(tmp_path / "l", SPEC, RING, megabytes=1), [("acme", 0, [(1, 2)])]).close()
    expert = TenantKey.from_master(MASTER, "acme").ring()
    with Ledger.open(tmp_path / "l", SPEC, expert) as ledger:
        assert ledger.counts([[1, 2], [2, 1]], 0, "acme").tolist() == [1, 0]
        with pytest.raises(DyetraceError, match="all accounts need the owner's key"):
            ledger.counts([[1, 2]], 0)
        with pytest.raises(DyetraceError, match="'zenith' is not among"):
            ledger.counts([[1, 2]], 0, "zenith")
    with pytest.raises(DyetraceError, match="can only look up"):
        Ledger.open(tmp_path / "l", SPEC, expert, write=True)


def test_the_same_contexts_leave_unrelated_counters_under_another_key_account_or_subkey(tmp_path: Path) -> None:
    other = SecretKey(bytes(32))
    spec = WatermarkSpec(vocabulary_size=50_000, tokenizer="t", key_fingerprint=other.fingerprint)
    contexts = np.arange(2000, dtype=np.uint32).reshape(-1, 2)
    tables = []
    for made, ring, tenant, subkey in (
        (SPEC, RING, None, 0),
        (SPEC, RING, None, 1),
        (SPEC, RING, "acme", 0),
        (spec, KeyRing.from_master(other), None, 0),
    ):
        with Ledger.create(path := fresh(tmp_path), made, ring, megabytes=1) as ledger:
            ledger.add(tenant, subkey, contexts)
        tables.append(np.fromfile(path, dtype="<u2")[2048:] > 0)
    used = tables[0].mean()
    assert used == pytest.approx(4000 / tables[0].size, rel=0.05)
    for table in (tables[1], tables[3]):  # as many common ones as by chance
        assert (tables[0] & table).sum() <= 4000 * used + 5 * np.sqrt(4000 * used)
    # The account's counters and everybody's: 8,000, of which 4,000 as before.
    assert (tables[0] & ~tables[2]).sum() == 0 and tables[2].sum() > 1.9 * tables[0].sum()


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "l", SPEC, RING, megabytes=1).close()
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["l"]


def test_two_writers_are_refused_and_readers_are_not(tmp_path: Path) -> None:
    with fill(Ledger.create(tmp_path / "l", SPEC, RING, megabytes=1), [(None, 0, [(1, 2)])]) as ledger:
        code = "from tests.watermark.test_ledger import *; Ledger.open(Path(sys.argv[1]), SPEC, RING, write=True)"
        command = [sys.executable, "-c", code, str(tmp_path / "l")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 1 and "is being written to by another process" in done.stderr
        with Ledger.open(tmp_path / "l", SPEC, RING) as reader:
            assert reader.counts([[1, 2]], 0) == 1
            ledger.add(None, 0, [[1, 2]])
            assert ledger.answers == 2  # so it stands in the file
            assert reader.counts([[1, 2]], 0) == 2
            with pytest.raises(DyetraceError, match="not opened for writing"):
                reader.add(None, 0, [[1, 2]])
    Ledger.open(tmp_path / "l", SPEC, RING, write=True).close()


FORKING = """
import os

from tests.watermark.test_ledger import *

ledger = Ledger.open(Path(sys.argv[1]), SPEC, RING, write=True)
ledger.add(None, 0, [[1, 2]])
if os.fork() == 0:
    try:
        ledger.add(None, 0, [[1, 2]])
    except DyetraceError as error:
        print(error)
    ledger.close()
else:
    os.wait()
    try:
        Ledger.open(Path(sys.argv[1]), SPEC, RING, write=True)
    except DyetraceError as error:
        print(error)
    ledger.add(None, 0, [[1, 2]])
    ledger.close()
"""


def test_a_forked_child_does_not_write_beside_its_parent_nor_give_up_its_lock(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "l", SPEC, RING, megabytes=1).close()
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path / "l")], capture_output=True, text=True, cwd=ROOT
    )
    said = done.stdout.splitlines()
    assert "not opened for writing in this process" in said[0] and "by another process" in said[1], done.stderr
    with Ledger.open(tmp_path / "l", SPEC, RING) as ledger:
        assert ledger.counts([[1, 2]], 0) == 2 == ledger.answers


# ------------------------------------------------------------------------------------------ sudden ends


SERVER = """
import sys
from tests.watermark.test_ledger import *

ledger = Ledger.open(Path(sys.argv[1]), SPEC, RING, write=True)
while True:
    ledger.add("acme", 1, KILLED)
    if sys.argv[2] == "waits":
        assert ledger.answers
    sys.stdout.write(".")
    sys.stdout.flush()
"""
KILLED = np.arange(600, dtype=np.uint32).reshape(-1, 2)


@pytest.mark.parametrize("how", ["waits", "goes on"])
def test_a_killed_server_loses_at_most_the_answers_that_waited_and_counts_none_twice(tmp_path: Path, how: str) -> None:
    path = tmp_path / "l"
    lost = 0 if how == "waits" else MOST_WAITING
    Ledger.create(path, SPEC, RING, megabytes=64).close()
    least, most = 0, 0
    for least_answers in (1, 40, 300, 777):
        command = [sys.executable, "-c", SERVER, str(path), how]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert server.stdout is not None
        done = len(server.stdout.read(least_answers))
        server.send_signal(signal.SIGKILL)
        done += len(server.stdout.read())
        assert server.wait() == -signal.SIGKILL
        server.stdout.close()
        least, most = least + done - lost, most + done + 1
        with Ledger.open(path, SPEC, RING) as ledger:
            for counts in (ledger.counts(KILLED, 1), ledger.counts(KILLED, 1, "acme")):
                assert (least <= counts).all() and (counts <= most).all()
            assert least <= ledger.answers <= most
            assert ledger.counts(KILLED, 0).sum() == 0


def test_what_a_server_has_added_is_on_disk_after_a_flush(tmp_path: Path) -> None:
    with fill(Ledger.create(tmp_path / "l", SPEC, RING, megabytes=1), [(None, 0, [(1, 2)])]) as ledger:
        ledger.flush()
        copy = tmp_path / "copy"
        copy.write_bytes((tmp_path / "l").read_bytes())
    with Ledger.open(copy, SPEC, RING) as restored:
        assert restored.counts([[1, 2]], 0) == 1 and restored.answers == 1


# ----------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Path]:
    fill(Ledger.create(tmp_path / "l", SPEC, RING, megabytes=1), [(None, 0, [(1, 2)])]).close()
    yield tmp_path / "l"


def test_files_that_are_no_whole_ledger_are_refused(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    layout = data[:8] + (9).to_bytes(4, "little") + data[12:]
    for broken, message in (
        (b"", "is not a ledger"),
        (b"text" * 5000, "is not a ledger"),
        (layout, "has layout 9, but this dyetrace reads 1"),
        (data[:50] + b"x" + data[51:], "is damaged"),
        (data[:12] + b"\xff\xff\xff\x7f" + data[16:], "is damaged"),
        (data[:-2], "has 1052670 bytes in place of 1052672"),
        (data[:100], "is damaged"),
    ):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(DyetraceError, match=message):
            Ledger.open(tmp_path / "broken", SPEC, RING)
    with pytest.raises(DyetraceError, match="No such file"):
        Ledger.open(tmp_path / "none", SPEC, RING)


def test_a_ledger_of_another_spec_or_key_is_refused(whole: Path) -> None:
    later = WatermarkSpec(vocabulary_size=50_000, tokenizer="t", key_fingerprint=MASTER.fingerprint, epoch=1)
    with pytest.raises(DyetraceError, match="each spec has its own ledger"):
        Ledger.open(whole, later, KeyRing.from_master(MASTER, 1))
    with pytest.raises(DyetraceError, match="wrong key"):
        Ledger.open(whole, SPEC, KeyRing.from_master(SecretKey(bytes(32))))


def test_nothing_is_ever_overwritten(whole: Path, tmp_path: Path) -> None:
    before = whole.read_bytes()
    with pytest.raises(DyetraceError, match="never overwritten"):
        Ledger.create(whole, SPEC, RING)
    Ledger.create(tmp_path / "m", SPEC, RING, megabytes=1).close()
    with pytest.raises(DyetraceError, match="never overwritten"):
        merge_files([whole, tmp_path / "m"], whole)
    assert whole.read_bytes() == before


def test_a_ledger_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="No such file"):
        Ledger.create(tmp_path / "no" / "l", SPEC, RING)
    with pytest.raises(DyetraceError, match="1 to 8192 megabytes"):
        Ledger.create(tmp_path / "l", SPEC, RING, megabytes=0)
    unigram = WatermarkSpec(
        scheme="green_list", context_width=0, vocabulary_size=9, tokenizer="t", key_fingerprint=MASTER.fingerprint
    )
    with pytest.raises(DyetraceError, match="nothing for a ledger to count"):
        Ledger.create(tmp_path / "l", unigram, RING)
    assert list(tmp_path.iterdir()) == []


def test_only_ledgers_that_add_up_are_merged(whole: Path, tmp_path: Path) -> None:
    two, later, sum_ = tmp_path / "two", tmp_path / "later", tmp_path / "sum"
    Ledger.create(two, SPEC, RING, megabytes=2).close()
    epoch = WatermarkSpec(vocabulary_size=50_000, tokenizer="t", key_fingerprint=MASTER.fingerprint, epoch=1)
    Ledger.create(later, epoch, KeyRing.from_master(MASTER, 1), megabytes=1).close()
    for paths, message in (
        ([whole, two], "their size is 4 x 131072 and 4 x 262144"),
        ([whole, later], "their spec is"),
        ([whole, whole], "would count twice"),
        ([whole], "two or more"),
    ):
        with pytest.raises(DyetraceError, match=message):
            merge_files(paths, sum_)
        assert not sum_.exists()


def test_a_merged_ledger_is_not_merged_with_its_own_parts(whole: Path, tmp_path: Path) -> None:
    names = [tmp_path / name for name in "abcdefgh"]
    for path in names[:3]:
        Ledger.create(path, SPEC, RING, megabytes=1).close()
    merge_files([whole, *names[:2]], names[3])
    merge_files([names[3], names[2]], names[4])
    assert len(describe(names[4]).header.parts) == 4
    with pytest.raises(DyetraceError, match="would count twice"):
        merge_files([names[4], names[0]], names[5])


def test_wrong_contexts_and_subkeys_are_named(whole: Path) -> None:
    with Ledger.open(whole, SPEC, RING, write=True) as ledger:
        for contexts, subkey, message in (
            (np.zeros((3, 3)), 0, r"shape \(n, 2\)"),
            (np.zeros((3, 2)), 0, "whole numbers"),
            (np.full((3, 2), -1), 0, "whole numbers"),
            (np.full((3, 2), 2**32), 0, "whole numbers"),
            (np.zeros((3, 2), dtype=int), 4, "0 .. 3"),
        ):
            with pytest.raises(DyetraceError, match=message):
                ledger.add(None, subkey, contexts)
            with pytest.raises(DyetraceError, match=message):
                ledger.counts(contexts, subkey)
        with pytest.raises(DyetraceError, match="'nobody' is not among"):
            ledger.add("nobody", 0, [[1, 2]])
        assert ledger.answers == 1
    for use in (lambda: ledger.counts([[1, 2]], 0), lambda: ledger.add(None, 0, [[1, 2]])):
        with pytest.raises(DyetraceError, match="was closed"):
            use()
