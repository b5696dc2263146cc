"""Signatures of reports: they hold for the signed bytes alone, and no message shows a key."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from detect.report.signature import (
    check_signature,
    load_public_key,
    public_key_path,
    read_signature,
    sign,
    signature_path,
    write_signing_key,
)
from watermark.errors import DyetraceError


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_signing_key(tmp_path / "owner.pem")
    return tmp_path / "owner.pem"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_bytes(b'{"a": 1}\n')
    return path


def test_key_files_are_private_and_never_overwritten(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    beside = public_key_path(key)
    assert b"PRIVATE" not in beside.read_bytes()
    with pytest.raises(DyetraceError, match="exists already and is never overwritten"):
        write_signing_key(key)
    key.unlink()
    with pytest.raises(DyetraceError, match=r"owner\.pem\.pub exists already"):
        write_signing_key(key)
    assert not key.exists()


def test_signature_holds_for_the_signed_bytes_alone(key: Path, report: Path) -> None:
    beside = sign(report, f"file:{key}")
    assert beside == signature_path(report) == report.with_name("report.json.sig")
    public = load_public_key(public_key_path(key))
    signature = read_signature(beside)
    check_signature(signature, report.read_bytes(), public)
    with pytest.raises(DyetraceError, match="SHA-256 differs"):
        check_signature(signature, b'{"a": 2}\n', public)
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(DyetraceError, match="signed by another key"):
        check_signature(signature, report.read_bytes(), other)


def test_signature_is_of_a_report_and_nothing_else(key: Path, report: Path) -> None:
    # The bytes that are signed begin with the label: a signature of the bare file is none of the report.
    signature = read_signature(sign(report, f"file:{key}"))
    public = Ed25519PublicKey.from_public_bytes(load_public_key(public_key_path(key)))
    public.verify(bytes.fromhex(signature.signature), b"dyetrace-report-signature-v1\0" + report.read_bytes())
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    fields = json.loads(signature_path(report).read_text())
    fields["signature"] = private.sign(report.read_bytes()).hex()
    signature_path(report).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    with pytest.raises(DyetraceError, match="does not fit"):
        check_signature(read_signature(signature_path(report)), report.read_bytes(), public.public_bytes_raw())


def test_same_key_and_report_give_the_same_signature(key: Path, report: Path) -> None:
    first = sign(report, f"file:{key}").read_bytes()
    assert sign(report, f"file:{key}").read_bytes() == first


def test_every_source_gives_the_same_key(key: Path, report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sign(report, f"file:{key}").read_bytes()
    monkeypatch.setenv("SIGNING", key.read_text())
    assert sign(report, "env:SIGNING").read_bytes() == first
    monkeypatch.setenv("SIGNING", key.read_text().replace("\n", "\\n"))
    assert sign(report, "env:SIGNING").read_bytes() == first
    assert sign(report, f"cmd:cat {key}").read_bytes() == first


def test_openssl_reads_the_keys(key: Path) -> None:
    try:
        done = subprocess.run(["openssl", "pkey", "-in", str(key), "-pubout"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert done.stdout == public_key_path(key).read_bytes()


def test_every_changed_byte_of_a_signature_is_noticed(key: Path, report: Path) -> None:
    beside = sign(report, f"file:{key}")
    public, data, whole = load_public_key(public_key_path(key)), report.read_bytes(), beside.read_bytes()
    for i in range(len(whole)):
        for changed in (whole[i] ^ 1, whole[i] ^ 0x20, ord(" ")):
            if changed != whole[i]:
                beside.write_bytes(whole[:i] + bytes([changed]) + whole[i + 1 :])
                with pytest.raises(DyetraceError):
                    check_signature(read_signature(beside), data, public)
    for cut in (whole[:-1], whole + b"\n", whole[: len(whole) // 2], b""):
        beside.write_bytes(cut)
        with pytest.raises(DyetraceError):
            read_signature(beside)


def test_a_key_open_to_others_is_refused(key: Path, report: Path) -> None:
    os.chmod(key, 0o644)
    with pytest.raises(DyetraceError, match="chmod 600"):
        sign(report, f"file:{key}")


@pytest.mark.parametrize(
    "form", ["{pem}", "file:{pem}", "env:{pem}", "file:{line}", "env:{line}", "{line}", "env:{hex}"]
)
def test_a_key_given_by_mistake_is_never_shown(form: str, key: Path, report: Path) -> None:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    pem, secret = key.read_text(), private.private_bytes_raw().hex()
    line = pem.splitlines()[1]
    with pytest.raises(DyetraceError, match="not understood; allowed are file:PATH") as caught:
        sign(report, form.format(pem=pem, line=line, hex=secret))
    assert line[16:] not in str(caught.value) and secret not in str(caught.value)


def test_what_is_no_signing_key_is_one_clear_line(key: Path, report: Path, tmp_path: Path) -> None:
    def refused(data: bytes) -> str:
        path = tmp_path / "given.pem"
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_bytes(data)
        with pytest.raises(DyetraceError) as caught:
            sign(report, f"file:{path}")
        text = str(caught.value)
        assert "\n" not in text and not any(
            part in text for part in data.decode("latin-1").split("\n") if len(part) > 20
        )
        return text

    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    curve = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert "is encrypted" in refused(encrypted)
    assert "Ed25519 key is needed" in refused(curve)
    assert "holds no signing key" in refused(b"nothing of the kind, only words")
    assert "holds no signing key" in refused(key.read_bytes()[:60])
    assert "holds no signing key" in refused(public_key_path(key).read_bytes())


def test_public_keys_are_read_from_pem_and_hex(key: Path, tmp_path: Path) -> None:
    public = load_public_key(public_key_path(key))
    (tmp_path / "hex").write_text(public.hex().upper() + "\n")
    assert load_public_key(tmp_path / "hex") == public
    with pytest.raises(DyetraceError, match="holds a private key; give the public one"):
        load_public_key(key)
    (tmp_path / "junk").write_bytes(b"\xff\x00junk")
    with pytest.raises(DyetraceError, match="holds no public key"):
        load_public_key(tmp_path / "junk")
    with pytest.raises(DyetraceError, match="cannot read public key"):
        load_public_key(tmp_path / "absent")
