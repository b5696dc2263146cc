"""A commitment opens with the key, the spec and the salt that it was made of, and with nothing else."""

import hashlib
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.commitment import (
    Commitment,
    Opening,
    commit,
    load_commitment,
    load_opening,
    opening_path,
    stated_date,
    verify,
    write_commitment,
)
from watermark.errors import DyetraceError
from watermark.keys import SecretKey
from watermark.spec import WatermarkSpec

SECRET = bytes(range(32))
KEY = SecretKey(SECRET)
FIELDS: dict[str, Any] = {"vocabulary_size": 100, "tokenizer": "t", "key_fingerprint": KEY.fingerprint}
SPEC = WatermarkSpec(**FIELDS)


@pytest.fixture(scope="module")
def made() -> tuple[Commitment, Opening]:
    return commit(SPEC, KEY)


def replaced(value, **changes):
    return msgspec.structs.replace(value, **changes)


def flipped(text: str, at: int) -> str:
    """The hex string with one bit of one digit flipped."""
    return text[:at] + f"{int(text[at], 16) ^ 1:x}" + text[at + 1 :]


def test_the_digest_is_sha256_over_label_salt_spec_and_key(made):
    commitment, opening = made
    message = b"dyetrace-commitment-v1\0" + bytes.fromhex(opening.salt) + SPEC.canonical_json + SECRET
    assert commitment.sha256 == opening.sha256 == hashlib.sha256(message).hexdigest()
    assert (commitment.spec_id, commitment.key_fingerprint) == (SPEC.spec_id, KEY.fingerprint)
    assert len(opening.salt) == 64
    age = datetime.now(UTC) - datetime.fromisoformat(commitment.created)
    assert timedelta() <= age < timedelta(hours=1)


def test_it_opens_with_what_it_was_made_of_and_salts_differ(made):
    verify(made[0], made[1], SPEC, KEY)
    again = commit(SPEC, KEY)
    verify(*again, SPEC, KEY)
    assert again[0].sha256 != made[0].sha256


@pytest.mark.parametrize(
    "change",
    [
        {"scheme": "tournament"},
        {"scheme": "green_list", "parameters": {"gamma": 0.5}},
        {"context_width": 1},
        {"subkeys": 3},
        {"global_share": 0.5},
        {"vocabulary_size": 101},
        {"tokenizer": "u"},
        {"key_fingerprint": "0"},
        {"epoch": 1},
    ],
)
def test_another_spec_does_not_open_it_even_under_a_forged_id(made, change):
    commitment, opening = made
    other = WatermarkSpec(**{**FIELDS, **change})
    with pytest.raises(DyetraceError, match=f"is of spec {SPEC.spec_id}, but this spec is {other.spec_id}"):
        verify(commitment, opening, other, KEY)
    with pytest.raises(DyetraceError, match="does not fit the commitment"):
        verify(replaced(commitment, spec_id=other.spec_id), opening, other, KEY)


@given(st.integers(0, 255))
def test_another_key_does_not_open_it_even_under_a_forged_fingerprint(made, bit):
    commitment, opening = made
    other = SecretKey((int.from_bytes(SECRET) ^ 1 << bit).to_bytes(32))
    with pytest.raises(DyetraceError, match=f"is of key {KEY.fingerprint}, but this key is {other.fingerprint}"):
        verify(commitment, opening, SPEC, other)
    with pytest.raises(DyetraceError, match="does not fit the commitment"):
        verify(replaced(commitment, key_fingerprint=other.fingerprint), opening, SPEC, other)


@given(st.integers(0, 63))
def test_another_salt_or_digest_does_not_open_it(made, at):
    commitment, opening = made
    with pytest.raises(DyetraceError, match="does not fit the commitment"):
        verify(commitment, replaced(opening, salt=flipped(opening.salt, at)), SPEC, KEY)
    with pytest.raises(DyetraceError, match="the opening is of another commitment"):
        verify(commitment, replaced(opening, sha256=flipped(opening.sha256, at)), SPEC, KEY)
    digest = flipped(commitment.sha256, at)
    with pytest.raises(DyetraceError, match="does not fit the commitment"):
        verify(replaced(commitment, sha256=digest), replaced(opening, sha256=digest), SPEC, KEY)


@pytest.mark.parametrize("salt", ["", "00", "0" * 62, "0" * 66, "g" * 64, "0" * 63, "é" * 64])
def test_a_damaged_salt_is_one_line(made, salt):
    with pytest.raises(DyetraceError, match=r"the opening's salt is damaged .*restore the opening file$"):
        verify(made[0], replaced(made[1], salt=salt), SPEC, KEY)


def test_two_commitments_openings_do_not_mix(made):
    with pytest.raises(DyetraceError, match="the opening is of another commitment"):
        verify(made[0], commit(SPEC, KEY)[1], SPEC, KEY)


def test_only_the_specs_own_key_is_committed_to():
    with pytest.raises(DyetraceError, match="wrong key"):
        commit(SPEC, SecretKey(bytes(32)))


# -------------------------------------------------------------------------------------------------- files


def test_files_read_back_and_the_opening_is_its_owners_alone(tmp_path, made):
    path = tmp_path / "commitment.json"
    beside = write_commitment(path, *made)
    assert beside == opening_path(path) == tmp_path / "commitment.json.opening"
    assert (load_commitment(path), load_opening(beside)) == made
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["commitment.json", "commitment.json.opening"]


def test_neither_file_holds_the_key_and_the_public_one_no_salt(tmp_path, made):
    path = tmp_path / "commitment.json"
    beside = write_commitment(path, *made)
    secret = SECRET.hex()
    for text in (path.read_text(), beside.read_text()):
        assert not any(secret[i : i + 8] in text for i in range(57))
    assert made[1].salt not in path.read_text()


@pytest.mark.parametrize("existing", ["commitment.json", "commitment.json.opening"])
def test_neither_file_is_ever_overwritten(tmp_path, made, existing):
    (tmp_path / existing).write_text("precious")
    with pytest.raises(DyetraceError, match=f"{existing} exists already and is never overwritten"):
        write_commitment(tmp_path / "commitment.json", *made)
    assert os.listdir(tmp_path) == [existing]
    assert (tmp_path / existing).read_text() == "precious"


@pytest.mark.parametrize("load, index", [(load_commitment, 0), (load_opening, 1)], ids=["public", "opening"])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, made, load, index):
    path = tmp_path / "a.json"
    with pytest.raises(DyetraceError, match=r"cannot read .*commitment.* .*/a.json: No such file"):
        load(path)
    fields = json.loads(msgspec.json.encode(made[index]))
    whole = json.dumps(fields).encode()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole + b"x", whole.replace(b'"sha256": "', b'"sha256": "\xff'), b"[" * 100_000]
    damaged += [whole[:-1] + b', "other": ' + b"[" * 100_000]
    damaged += [json.dumps({k: v for k, v in fields.items() if k != "sha256"}).encode()]
    damaged += [json.dumps({**fields, "other": 1}).encode(), json.dumps({**fields, "sha256": 5}).encode()]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DyetraceError, match=r"^.*/a.json is not a whole .*restore the file$"):
            load(path)
    path.write_text(json.dumps({**fields, "version": 2}))
    with pytest.raises(DyetraceError, match=r"a.json has version 2, but this dyetrace reads version 1"):
        load(path)


@pytest.mark.parametrize(
    ("created", "stated"),
    [
        ("2019-01-01T00:00:00+00:00", "is dated 2019-01-01 00:00:00 UTC"),
        ("2019-01-01T00:00:00+02:00", "is dated 2018-12-31 22:00:00 UTC"),
        ("9999-01-01", "is dated 9999-01-01 00:00:00 UTC (in the future)"),
        ("9999-12-31T23:59:59-12:00", "has no date that can be read"),
        ("\x1b[2Jlong ago", "has no date that can be read"),
        ("", "has no date that can be read"),
    ],
)
def test_the_date_is_told_as_what_the_file_states(made, created, stated):
    assert stated_date(replaced(made[0], created=created)) == stated
