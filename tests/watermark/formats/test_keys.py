"""A foreign key is guarded like our own: it never shows, its file is private, and its fingerprint says nothing."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.keyed.decoys import decoy_rings
from detect.keyed.rings import rings_of
from tests.watermark.formats.test_registry import spec
from watermark.commitment import commit, verify
from watermark.errors import DyetraceError
from watermark.keys import (
    KeyRing,
    SecretKey,
    format_key,
    load_key,
    load_master,
    load_owner_key,
    parse_key,
    write_key_file,
)
from watermark.keys.foreign import ForeignKey
from watermark.rowkeys import key_words, subkey

NUMBER = 15485863
KEY = ForeignKey("vllm-gumbel", (NUMBER,), bytes(range(16)))


@given(st.lists(st.integers(-(2**70), 2**70), max_size=40), st.binary(min_size=16, max_size=16))
def test_a_key_file_reads_back(numbers: list[int], salt: bytes) -> None:
    key = ForeignKey("transformers-synthid", tuple(numbers), salt)
    again = parse_key(format_key(key), "x")
    assert again == key
    assert isinstance(again, ForeignKey) and again.native == tuple(numbers)
    assert again.fingerprint == key.fingerprint


def test_nothing_shows_the_key() -> None:
    for text in (repr(KEY), str(KEY), f"{KEY}", repr(KeyRing.from_foreign(KEY)), KEY.fingerprint):
        assert str(NUMBER) not in text and f"{NUMBER:x}" not in text
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(KEY)
    assert copy.deepcopy(KEY) is KEY and copy.copy(KEY) is KEY
    assert not hasattr(KEY, "__dict__")


def test_the_same_weak_key_has_another_fingerprint_in_each_file() -> None:
    """A bare hash of a key of few bits could be found by trying them all."""
    prints = {ForeignKey("vllm-gumbel", (NUMBER,)).fingerprint for _ in range(3)}
    assert len(prints) == 3
    assert ForeignKey("sglang", (NUMBER,), bytes(range(16))).fingerprint != KEY.fingerprint
    assert ForeignKey("vllm-gumbel", (NUMBER + 1,), bytes(range(16))).fingerprint != KEY.fingerprint


def test_keys_are_equal_when_all_of_them_is() -> None:
    assert ForeignKey("vllm-gumbel", (NUMBER,), bytes(range(16))) == KEY
    for other in (ForeignKey("sglang", (NUMBER,), bytes(range(16))), ForeignKey("vllm-gumbel", (NUMBER,)), NUMBER):
        assert other != KEY
    assert len({KEY, ForeignKey("vllm-gumbel", (NUMBER,), bytes(range(16)))}) == 1


@pytest.mark.parametrize("cut", [1, 9, 30])
def test_a_damaged_file_is_one_line_without_the_key(cut: int) -> None:
    with pytest.raises(DyetraceError, match=r"damaged|no dyetrace key") as error:
        parse_key(format_key(KEY)[:-cut], "file x")
    assert f"{NUMBER:x}" not in str(error.value)


def test_a_file_is_private_and_serves_what_an_owners_key_serves(tmp_path: Path) -> None:
    path = tmp_path / "foreign.key"
    write_key_file(path, KEY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(f"file:{path}") == load_owner_key(f"file:{path}") == KEY
    with pytest.raises(DyetraceError, match="needs a master key of dyetrace, but the source holds a vllm-gumbel key"):
        load_master(f"file:{path}")


def test_a_commitment_binds_the_key() -> None:
    made = spec("vllm-gumbel", key_fingerprint=KEY.fingerprint)
    public, opening = commit(made, KEY)
    verify(public, opening, made, KEY)
    other = ForeignKey("vllm-gumbel", (NUMBER + 1,), bytes(range(16)))
    with pytest.raises(DyetraceError, match="is of key"):
        verify(public, opening, made, other)


def test_the_ring_of_a_spec_takes_its_own_key_alone(tmp_path: Path) -> None:
    made = spec("vllm-gumbel", key_fingerprint=KEY.fingerprint)
    write_key_file(tmp_path / "foreign.key", KEY)
    write_key_file(tmp_path / "other.key", ForeignKey("vllm-gumbel", (NUMBER,)))
    write_key_file(tmp_path / "sglang.key", ForeignKey("sglang", (NUMBER,)))
    write_key_file(tmp_path / "owner.key", SecretKey(bytes(32)))
    [ring] = rings_of(f"file:{tmp_path / 'foreign.key'}", [made], ())
    assert ring.global_key == KEY and ring.master_fingerprint == KEY.fingerprint
    assert subkey(KEY, 0) is KEY
    refused = {
        "other": "wrong key: its fingerprint",
        "sglang": "is of format 'sglang', but the spec names 'vllm-gumbel'",
        "owner": "give the key file that `dyetrace spec import` wrote",
    }
    for name, message in refused.items():
        with pytest.raises(DyetraceError, match=message):
            rings_of(f"file:{tmp_path / name}.key", [made], ())
    with pytest.raises(DyetraceError, match="no tenants: leave --tenant out"):
        rings_of(f"file:{tmp_path / 'foreign.key'}", [made], ("acme",))
    with pytest.raises(DyetraceError, match="is of format 'vllm-gumbel', but the spec names 'gumbel'"):
        ours = spec("vllm-gumbel", scheme="gumbel", parameters={}, context_width=2)
        rings_of(f"file:{tmp_path / 'foreign.key'}", [ours], ())


def test_no_text_is_marked_with_it() -> None:
    made = spec("vllm-gumbel", key_fingerprint=KEY.fingerprint)
    with pytest.raises(DyetraceError, match="vllm-gumbel is read, not written"):
        key_words(made, KeyRing.from_foreign(KEY), None, 0)


def test_decoys_are_keys_of_the_format_all_different_and_the_same_in_every_run() -> None:
    made, ring = spec("vllm-gumbel"), KeyRing.from_foreign(KEY)
    decoys = [other.global_key for other in decoy_rings("seed", 20, made, ring)]
    assert all(isinstance(key, ForeignKey) and key.format == "vllm-gumbel" for key in decoys)
    assert len({key.native for key in decoys if isinstance(key, ForeignKey)}) == 20
    assert [other.global_key for other in decoy_rings("seed", 20, made, ring, first=15)] == decoys[15:]
    assert [other.global_key for other in decoy_rings("other", 20, made, ring)] != decoys
