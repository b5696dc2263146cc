"""Ed25519 signatures of reports: who stands for report.json, in a small file beside it that anyone can check.

The message that is signed is a label and the report's bytes, so that no other file that is signed with the same key can
be passed off as a report. Keys are ordinary PEM files, which `openssl` reads and writes as well.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from detect.records.reading import read_bytes, written
from watermark.errors import DyetraceError, EvidenceError, MachineError
from watermark.files.writing import check_output, write_atomically, write_private
from watermark.interruption import held
from watermark.keys import read_source

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_VERSION = 1
_LABEL = b"dyetrace-report-signature-v1\0"
_PUBLIC_BYTES = 32


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What report.json.sig holds: the signer's public key, the report's SHA-256, and the signature, all in hex."""

    format: Literal["dyetrace-report-signature"] = "dyetrace-report-signature"
    version: int = SIGNATURE_VERSION
    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str
    sha256: str
    signature: str


def signature_path(report: Path) -> Path:
    """Where the signature of a report is: beside it, with ".sig" added."""
    return report.with_name(report.name + ".sig")


def public_key_path(path: Path) -> Path:
    """Where the public half of a signing key is written: beside it, with ".pub" added."""
    return path.with_name(path.name + ".pub")


def write_signing_key(path: Path) -> Path:
    """Make a signing key that only its owner can read (0600), and its public key beside it; return where that is.

    Raises
    ------
    DyetraceError
        A file of either name exists already, or can't be written.
    """
    _needs_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    check_output(path)
    beside = public_key_path(path)
    check_output(beside)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with held():
        write_private(path, private)
        try:
            write_private(beside, public, 0o644)
        except BaseException:
            path.unlink()  # a key whose public half nobody has is of no use
            raise
    return beside


def sign(report: Path, key_source: str) -> Path:
    """Sign the bytes of a report; return where the signature is.

    Parameters
    ----------
    report
        Any file; an older signature of it is replaced, and any other file in its place is not.
    key_source
        ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``, which give the private key as PEM (PKCS #8).

    Raises
    ------
    DyetraceError
        The report or the key can't be read, or the source holds no Ed25519 key. No message shows any of the key.
    """
    data = read_bytes(report)
    key = _load_signing_key(key_source)
    made = Signature(
        public_key=key.public_key().public_bytes_raw().hex(),
        sha256=hashlib.sha256(data).hexdigest(),
        signature=key.sign(_LABEL + data).hex(),
    )
    target = signature_path(report)
    check_output(target, kind="a signature", is_kind=_is_signature, force=True)
    write_atomically(target, written(made))
    return target


def read_signature(path: Path) -> Signature:
    """Read a signature's file, which must be byte for byte as `sign` writes it.

    Raises
    ------
    DyetraceError
        It can't be read, is of another version, or was changed.
    """
    try:
        data = path.read_bytes()
        signature = msgspec.json.decode(data, type=Signature)
    except OSError as error:
        raise DyetraceError(f"cannot read signature {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DyetraceError(f"{path} is not a whole signature: {error}; sign the report anew") from None
    if signature.version != SIGNATURE_VERSION:
        raise DyetraceError(
            f"signature {path} has version {signature.version}, but this dyetrace reads version {SIGNATURE_VERSION}; "
            "use the release that wrote it"
        )
    fields = ((signature.public_key, _PUBLIC_BYTES), (signature.sha256, 32), (signature.signature, 64))
    if data != written(signature) or not all(_is_hex(text, size) for text, size in fields):
        raise EvidenceError(f"signature {path} was damaged or altered; sign the report anew")
    return signature


def check_signature(signature: Signature, data: bytes, public_key: bytes) -> None:
    """Raise DyetraceError unless ``public_key`` (32 bytes) signed the report ``data``."""
    _needs_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if hashlib.sha256(data).hexdigest() != signature.sha256:
        raise EvidenceError("the report is not the one that was signed: its SHA-256 differs")
    if bytes.fromhex(signature.public_key) != public_key:
        raise EvidenceError(f"it was signed by another key ({signature.public_key}, not {public_key.hex()})")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(bytes.fromhex(signature.signature), _LABEL + data)
    except (InvalidSignature, ValueError):
        raise EvidenceError("the signature does not fit the report and the public key") from None


def load_public_key(path: Path) -> bytes:
    """Read a public key, PEM or 64 hex digits: 32 bytes.

    Raises
    ------
    DyetraceError
        It can't be read or is no Ed25519 public key.
    """
    try:
        data = path.read_bytes()[:4096]
    except OSError as error:
        raise DyetraceError(f"cannot read public key {path}: {error.strerror}") from None
    text = data.decode("ascii", "replace").strip()
    if _is_hex(text.lower(), _PUBLIC_BYTES):
        return bytes.fromhex(text)
    _needs_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in text:
        raise DyetraceError(f"{path} holds a private key; give the public one, in {public_key_path(path)}")
    try:
        key = load_pem_public_key(data)
    except Exception:  # the library has many, and none of them says more than this
        raise DyetraceError(f"{path} holds no public key (PEM, or 64 hex digits)") from None
    if not isinstance(key, Ed25519PublicKey):
        raise DyetraceError(f"{path} holds a public key of another kind; an Ed25519 key is needed")
    return key.public_bytes_raw()


def _load_signing_key(source: str) -> Ed25519PrivateKey:
    _needs_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text, where = read_source(source, "signing key", _looks_like_key)
    advice = "make one with `dyetrace report keygen`"
    try:
        # Variables of continuous integration often hold line breaks as "\n".
        key = load_pem_private_key(text.replace("\\n", "\n").strip().encode() + b"\n", None)
    except TypeError:
        raise DyetraceError(f"the signing key in {where} is encrypted; decrypt it with a command (cmd:...)") from None
    except Exception:  # its messages may quote the key
        raise DyetraceError(f"{where} holds no signing key (a PEM private key was expected); {advice}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise DyetraceError(f"{where} holds a key of another kind; an Ed25519 key is needed; {advice}")
    return key


def _looks_like_key(text: str) -> bool:
    """Whether this is a key and not the name of a place: PEM, its inner line, or bare hex digits."""
    return "-----" in text or "\n" in text or text.startswith("MC4CAQ") or _is_hex(text.lower(), 32)


def _is_signature(path: Path) -> bool:
    """Whether a file is a signature, be it damaged or another release's: signing anew is what mends it."""
    try:
        with path.open("rb") as file:
            return b'"dyetrace-report-signature"' in file.read(4096)
    except OSError:
        return False


def _is_hex(text: str, size: int) -> bool:
    return len(text) == 2 * size and all(c in "0123456789abcdef" for c in text)


def _needs_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise MachineError("signatures need cryptography: pip install 'dyetrace[scan]'") from None
