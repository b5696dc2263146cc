"""Keys: derived as RFC 7693 has it, all different, and never shown."""

import copy
import dataclasses
import hashlib
import itertools
import json
import os
import pickle
import shlex
import stat
import traceback
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.errors import DyetraceError
from watermark.keys import (
    KeyRing,
    SecretKey,
    TenantKey,
    check_tenant_name,
    format_key,
    load_key,
    load_master,
    parse_key,
    write_key_file,
)
from watermark.rowkeys import subkey

SECRET = bytes(range(32))
KEY = SecretKey(SECRET)
PURPOSES = ["epoch", "global", "tenant", "selector", "subkey", "context", "decoy"]

secrets = st.binary(min_size=32, max_size=32)
keys = st.builds(SecretKey, secrets)
tenant_names = st.text(min_size=1, max_size=128).filter(
    lambda name: name.isprintable() and not any(c.isspace() or c == ":" for c in name)
)
tenant_keys = st.builds(TenantKey.from_master, keys, tenant_names, st.integers(min_value=0, max_value=2**31))


def hex_of(key: SecretKey | TenantKey) -> str:
    return key.reveal_hex() if isinstance(key, SecretKey) else key.key.reveal_hex() + key.selector.reveal_hex()


def shows(text: str, secret_hex: str) -> bool:
    """Whether a run of 8 hex digits of the secret, in either case, stands in the text."""
    return any(secret_hex[i : i + 8] in text.lower() for i in range(len(secret_hex) - 7))


def test_shows_sees_a_secret():
    line = format_key(KEY)
    assert shows(line, SECRET.hex()) and shows(line.upper(), SECRET.hex()) and shows(line[40:48], SECRET.hex())
    assert not shows(line[:20] + line[25:32], SECRET.hex())


def everything_said(error: BaseException) -> str:
    """Message, chained exceptions and traceback."""
    return "".join(traceback.format_exception(error)) + repr(error)


# ---------------------------------------------------------------------------------------------- derivation


def plain_derivation(secret: bytes, purpose: str, message: str = "") -> bytes:
    return hashlib.blake2b(
        message.encode(), key=secret, digest_size=32, person=f"dyt:{purpose}".encode().ljust(16, b"\0")
    ).digest()


def test_derivation_is_keyed_blake2b_with_one_personalisation_for_each_purpose():
    purpose: Any
    for purpose, message in itertools.product(PURPOSES, ["", "0", "acme", "Zoë"]):
        assert KEY.derive(purpose, message).reveal_hex() == plain_derivation(SECRET, purpose, message).hex()
    assert KEY.derive("epoch", 7) == KEY.derive("epoch", "7") == KEY.derive("epoch", b"7")


def test_golden_keys_never_change():
    """Computed by hashlib alone from the master key 00 01 .. 1f: marked text outlives releases."""
    fingerprint = hashlib.blake2b(key=SECRET, digest_size=16, person=b"dyt:fingerprint").hexdigest()
    assert KEY.fingerprint == fingerprint == "49e5696b1eae920a1faa49cb02dccfe7"
    epoch = plain_derivation(SECRET, "epoch", "0")
    ring = KeyRing.from_master(KEY, tenants=("acme",))
    assert ring.global_key is not None
    assert (
        ring.global_key.reveal_hex()
        == plain_derivation(epoch, "global").hex()
        == "0e88d1bd506b5e306388361e79685e47c784d169a18eee55f356de14e0a8cf6b"
    )
    assert (
        ring.selector.reveal_hex()
        == plain_derivation(epoch, "selector").hex()
        == "3f8f0e09b881e9e15196918252f281b937bb0fdc8f85bede56c61d9c1c2077af"
    )
    tenant = plain_derivation(epoch, "tenant", "acme")
    assert (
        ring.tenants["acme"].reveal_hex()
        == tenant.hex()
        == "e0b689e4a57f285fa887edb874937fce773c7e141d378ff44558c0b08b4461fc"
    )
    third = subkey(ring.tenants["acme"], 3)
    assert (
        third.reveal_hex()
        == plain_derivation(tenant, "subkey", "3").hex()
        == "50518cb930b6825bac4c84c45c1edf044b5303dd221c68ed6cb8267ff77e4e99"
    )


def test_words_are_little_endian():
    assert KEY.words.dtype == np.uint32
    assert [hex(word) for word in KEY.words[:2]] == ["0x3020100", "0x7060504"]


@given(secrets, st.sets(st.tuples(st.sampled_from(PURPOSES), st.text(max_size=20)), min_size=2, max_size=30))
def test_each_purpose_and_message_gives_another_key(secret, labels):
    derived = {SecretKey(secret).derive(*label).reveal_hex() for label in labels}
    assert len(derived) == len(labels)
    assert secret.hex() not in derived


@given(
    st.sets(secrets, min_size=1, max_size=2),
    st.sets(st.integers(0, 2**31), min_size=1, max_size=3),
    st.sets(tenant_names, min_size=1, max_size=3),
)
@settings(max_examples=30)
def test_all_keys_of_all_masters_epochs_tenants_and_subkeys_differ(masters, epochs, tenants):
    marking, count = set(), 0
    for secret, epoch in itertools.product(masters, epochs):
        ring = KeyRing.from_master(SecretKey(secret), epoch, tuple(tenants))
        parents: list[Any] = [ring.selector, ring.global_key, *ring.tenants.values()]
        subkeys = [subkey(parent, index) for parent in parents for index in range(4)]
        contexts = [key.derive("context") for key in [*parents, *subkeys]]
        family = [*parents, *subkeys, *contexts]
        marking |= {key.reveal_hex() for key in family}
        count += len(family)
    assert len(marking) == count
    assert not marking & {secret.hex() for secret in masters}


def test_fingerprints_name_keys():
    assert SecretKey(SECRET).fingerprint == KEY.fingerprint
    flipped = {
        SecretKey(bytes([*SECRET[:i], SECRET[i] ^ 1 << bit, *SECRET[i + 1 :]])).fingerprint
        for i in range(32)
        for bit in range(8)
    }
    assert len(flipped) == 256
    assert KEY.fingerprint not in flipped


@given(keys, tenant_names, st.integers(0, 2**31))
def test_a_tenant_key_holds_what_the_masters_ring_has_for_that_tenant_and_no_more(master, tenant, epoch):
    whole = KeyRing.from_master(master, epoch, (tenant, "another"))
    alone = TenantKey.from_master(master, tenant, epoch)
    ring = alone.ring()
    assert alone.key == whole.tenants[tenant]
    assert ring == dataclasses.replace(whole, global_key=None, tenants={tenant: whole.tenants[tenant]})
    assert ring.master_fingerprint == master.fingerprint


# -------------------------------------------------------------------------------------------- never shown


@pytest.mark.parametrize(
    "holder",
    [
        KEY,
        KeyRing.from_master(KEY, tenants=("acme",)),
        TenantKey.from_master(KEY, "acme"),
        [KEY],
        {"key": KEY},
    ],
    ids=["key", "ring", "tenant key", "list", "dict"],
)
def test_nothing_that_holds_a_key_shows_or_pickles_it(holder):
    ring = KeyRing.from_master(KEY, tenants=("acme",))
    assert ring.global_key is not None
    every = SECRET.hex() + ring.selector.reveal_hex() + ring.global_key.reveal_hex() + ring.tenants["acme"].reveal_hex()
    for text in (repr(holder), str(holder), f"{holder}", f"{holder!r}", "%s" % (holder,), ascii(holder)):  # noqa: UP031
        assert not shows(text, every)
        assert str(SECRET) not in text
    assert "redacted" in repr(holder)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled: pass a key source") as error:
            pickle.dumps(holder, protocol)
        assert not shows(everything_said(error.value), every)
    with pytest.raises(TypeError) as error:
        json.dumps(holder)
    assert not shows(everything_said(error.value), every)


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins])
def test_no_encoder_takes_a_key(encode):
    with pytest.raises(TypeError):
        encode({"key": KEY})


def test_copies_are_the_key_itself():
    ring = KeyRing.from_master(KEY, tenants=("acme",))
    assert copy.copy(KEY) is copy.deepcopy(KEY) is KEY
    assert copy.deepcopy(ring) == copy.copy(ring) == ring
    assert copy.deepcopy({"a": [KEY]}) == {"a": [KEY]}


def test_keys_compare_by_value_and_only_with_keys():
    assert SecretKey(SECRET) == KEY
    assert hash(SecretKey(SECRET)) == hash(KEY)
    assert KEY != SecretKey(bytes(32))
    assert KEY != SECRET


@pytest.mark.parametrize("length", [0, 1, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(DyetraceError, match=rf"a key must hold 32 bytes \(got {length}\)"):
        SecretKey(bytes(length))


def test_generated_keys_differ():
    assert SecretKey.generate() != SecretKey.generate()


# ---------------------------------------------------------------------------------------------- key files


@given(keys | tenant_keys)
def test_a_key_line_reads_back(key):
    assert parse_key(format_key(key), "x") == key
    assert parse_key(f"  {format_key(key)}\r\n", "x") == key


def test_the_key_lines_form_never_changes():
    body = f"dyetrace-key-v1:master:{SECRET.hex()}"
    assert format_key(KEY) == body + ":" + hashlib.blake2b(body.encode(), digest_size=4).hexdigest()
    acme = TenantKey.from_master(KEY, "acme", 3)
    body = f"dyetrace-key-v1:tenant:acme:3:{KEY.fingerprint}:{acme.key.reveal_hex()}{acme.selector.reveal_hex()}"
    assert format_key(acme) == body + ":" + hashlib.blake2b(body.encode(), digest_size=4).hexdigest()


@given(keys)
def test_64_bare_hex_digits_are_a_master_key(key):
    assert parse_key(key.reveal_hex(), "x") == parse_key(key.reveal_hex().upper() + "\n", "x") == key


@given(keys | tenant_keys)
@settings(max_examples=10)
def test_key_files_read_back_and_are_their_owners_alone(tmp_path_factory, key):
    path = tmp_path_factory.mktemp("keys") / "a.key"
    mask = os.umask(0)
    try:
        write_key_file(path, key)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(f"file:{path}") == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_key_file_open_to_others_is_refused_with_the_fix(tmp_path, mode):
    path = tmp_path / "a.key"
    write_key_file(path, KEY)
    path.chmod(mode)
    with pytest.raises(DyetraceError, match=rf"can be read by others \(mode {mode:04o}\); run: chmod 600 {path}$"):
        load_key(f"file:{path}")
    path.chmod(0o400)
    assert load_key(f"file:{path}") == KEY


def test_a_key_file_is_never_overwritten(tmp_path):
    path = tmp_path / "a.key"
    write_key_file(path, KEY)
    with pytest.raises(DyetraceError, match="exists already and is never overwritten"):
        write_key_file(path, SecretKey(bytes(32)))
    assert load_key(f"file:{path}") == KEY
    dangling = tmp_path / "link.key"
    dangling.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DyetraceError, match="exists already"):
        write_key_file(dangling, KEY)
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(DyetraceError, match=r"cannot write key file .*: No such file or directory"):
        write_key_file(tmp_path / "missing" / "a.key", KEY)

    def full(descriptor, *args, **kwargs):
        os.close(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(DyetraceError, match=r"cannot write key file .*: No space left on device"):
        write_key_file(tmp_path / "a.key", KEY)
    assert os.listdir(tmp_path) == []


# ----------------------------------------------------------------------------------------------- key sources


def cat(path) -> str:
    return f"cmd:cat {shlex.quote(str(path))}"


def test_keys_come_from_files_the_environment_and_commands(tmp_path, monkeypatch):
    path = tmp_path / "my owner.key"
    write_key_file(path, KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OWNER_KEY", SECRET.hex())
    for source in (f"file:{path}", "file:~/my owner.key", "env:OWNER_KEY", cat(path)):
        assert load_key(source) == load_master(source) == KEY


def test_a_tenants_key_is_no_master_key(monkeypatch):
    monkeypatch.setenv("ACME_KEY", format_key(TenantKey.from_master(KEY, "acme")))
    with pytest.raises(DyetraceError, match="needs the master key, but the source holds the key of tenant 'acme'"):
        load_master("env:ACME_KEY")


@pytest.mark.parametrize(
    "source, message",
    [
        ("file:/no/such.key", "cannot read key file /no/such.key: No such file"),
        ("file:~nobody-of-this-name/a.key", "cannot read key file ~nobody-of-this-name/a.key: No such file"),
        ("file:/", "cannot read key file /: Is a directory"),
        ("env:NOT_SET_ANYWHERE", "environment variable NOT_SET_ANYWHERE is not set"),
        ("cmd:no-such-command-anywhere", r"could not be run \(FileNotFoundError\)"),
        ("cmd:cat 'unbalanced", r"could not be run \(ValueError\)"),
        ("cmd:false", "ended with status 1"),
        ("cmd:true", r"the output of the key command holds no dyetrace key \(0 characters"),
        ("", "allowed are file:PATH, env:NAME and cmd:COMMAND"),
        ("owner.key", "allowed are file:PATH, env:NAME and cmd:COMMAND"),
        ("file:", "allowed are file:PATH, env:NAME and cmd:COMMAND"),
        ("vault:secret", "allowed are file:PATH, env:NAME and cmd:COMMAND"),
    ],
)
def test_a_source_that_gives_no_key_is_one_line_that_names_it(source, message):
    with pytest.raises(DyetraceError, match=message) as error:
        load_key(source)
    assert "\n" not in str(error.value)


DAMAGES = {
    "cut short": lambda line: line[: len(line) * 2 // 3],
    "a digit less": lambda line: line[:-20] + line[-19:],
    "a digit more": lambda line: line[:-20] + "0" + line[-20:],
    "another digit": lambda line: line[:-20] + "0123456789abcdef"["123456789abcdef0".index(line[-20])] + line[-19:],
    "no hex": lambda line: line[:-20] + "xyz" + line[-17:],
    "no prefix": lambda line: line.partition(":")[2],
    "another prefix": lambda line: "dyetrace-key-v2" + line[15:],
    "another kind": lambda line: with_checksum(line.replace("master", "mistress").replace("tenant", "lodger")),
    "fields that hold no key": lambda line: with_checksum(line[:-30] + "zz" + line[-28:]),
    "too short a key": lambda line: with_checksum(line[:-20] + line[-18:]),
    "an epoch that is no number": lambda line: with_checksum(line.replace(":3:", ":three:")),
    "quoted": lambda line: f'"{line}"',
    "twice": lambda line: f"{line}\n{line}",
    "upper case": lambda line: line.upper(),
}
NO_DAMAGE = ("master", "an epoch that is no number")


def with_checksum(line: str) -> str:
    body = line.rpartition(":")[0]
    return f"{body}:{hashlib.blake2b(body.encode(), digest_size=4).hexdigest()}"


@pytest.mark.parametrize(
    "kind, damage", [pair for pair in itertools.product(["master", "tenant"], DAMAGES) if pair != NO_DAMAGE]
)
def test_a_damaged_key_is_an_error_that_names_the_source_and_shows_nothing(tmp_path, monkeypatch, kind, damage):
    key = KEY if kind == "master" else TenantKey.from_master(KEY, "acme", 3)
    line = DAMAGES[damage](format_key(key))
    path = tmp_path / "a.key"
    path.touch(mode=0o600)
    path.write_text(line)
    monkeypatch.setenv("OWNER_KEY", line)
    sources = {f"file:{path}": str(path), "env:OWNER_KEY": "OWNER_KEY", cat(path): "the key command"}
    for source, named in sources.items():
        with pytest.raises(DyetraceError) as error:
            load_key(source)
        assert named in str(error.value)
        assert "\n" not in str(error.value)
        assert not shows(everything_said(error.value), hex_of(key))


@given(keys | tenant_keys, st.data())
def test_any_cut_or_change_of_a_key_line_is_an_error_that_shows_nothing(key, data):
    line = format_key(key)
    at = data.draw(st.integers(0, len(line) - 1))
    put = data.draw(st.sampled_from(["", "0", "f", ":", "\0", "é", "\n"]))
    stop = data.draw(st.sampled_from([at, at + 1, len(line)]))
    damaged = line[:at] + put + line[stop:]
    if damaged.strip() == line:
        return
    with pytest.raises(DyetraceError) as error:
        parse_key(damaged, "file x")
    assert "file x" in str(error.value)
    assert not shows(everything_said(error.value), hex_of(key))


@pytest.mark.parametrize("cut", [0, 1, 20, 32])
def test_a_bare_key_that_was_cut_short_is_not_shown(cut):
    with pytest.raises(DyetraceError, match=rf"x holds no dyetrace key \({63 - cut} characters") as error:
        parse_key(SECRET.hex()[cut + 1 :], "x")
    assert not shows(everything_said(error.value), SECRET.hex())


@pytest.mark.parametrize("source", ["{}", "file:{}", "env:{}", "{}:x", "vault:{}"])
@pytest.mark.parametrize("text", [SECRET.hex(), format_key(KEY)], ids=["bare", "line"])
def test_a_key_pasted_in_place_of_its_source_is_not_shown(source, text):
    with pytest.raises(DyetraceError, match="key source not understood") as error:
        load_key(source.format(text))
    assert not shows(everything_said(error.value), SECRET.hex())


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'echo {key}; exit 3'",
        "sh -c 'echo {key} >&2; exit 3'",
        "sh -c 'echo could not use {key}'",
        "sh -c 'printf \"{key}\\377\"'",
        "{key}",
        "sh -c 'kill -9 $$' {key}",
    ],
)
def test_a_failing_command_shows_neither_its_output_nor_itself(command):
    with pytest.raises(DyetraceError, match="the key command") as error:
        load_key("cmd:" + command.format(key=SECRET.hex()))
    assert "\n" not in str(error.value)
    assert not shows(everything_said(error.value), SECRET.hex())


# --------------------------------------------------------------------------------------------- tenant names


@pytest.mark.parametrize("name", ["acme", "a", "x" * 128, "Zoë", "株式会社", "a/b", "a@b.example"])
def test_tenant_names_may_be_any_printable_word(name):
    check_tenant_name(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a:b", "a\n", "a\tb", "\x1b[31m", "a\u2028b", "\u00a0"])
def test_other_tenant_names_are_refused_on_one_line(name):
    with pytest.raises(DyetraceError, match="is not allowed: use 1 to 128 printable characters") as error:
        KeyRing.from_master(KEY, tenants=(name,))
    assert str(error.value).isprintable()
