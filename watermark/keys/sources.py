"""Where keys are kept: key files, environment variables, and commands that print a key."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from watermark.errors import DyetraceError
from watermark.files.writing import write_private
from watermark.keys.foreign import ForeignKey
from watermark.keys.secret import KEY_BYTES, AnyKey, MarkingKey, SecretKey, TenantKey

_PREFIX = "dyetrace-key-v1"


def _checksum(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=4).hexdigest()


def format_key(key: AnyKey) -> str:
    """Return the one line of a key file: prefix, kind, fields, and a checksum that catches truncation."""
    if isinstance(key, SecretKey):
        body = f"{_PREFIX}:master:{key.reveal_hex()}"
    elif isinstance(key, ForeignKey):
        body = f"{_PREFIX}:foreign:{key.fields()}"
    else:
        secret = key.key.reveal_hex() + key.selector.reveal_hex()
        body = f"{_PREFIX}:tenant:{key.tenant}:{key.epoch}:{key.master_fingerprint}:{secret}"
    return f"{body}:{_checksum(body)}"


def parse_key(line: str, where: str) -> AnyKey:
    """Read `format_key`'s line, or 64 bare hex digits (a master key as a KMS prints it).

    Raises
    ------
    DyetraceError
        The text is not a key or is damaged; the message names ``where`` and shows nothing of the text.
    """
    text = line.strip()
    if len(text) == 2 * KEY_BYTES and _is_hex(text):
        return SecretKey(bytes.fromhex(text))
    if not text.startswith(_PREFIX + ":"):
        raise DyetraceError(
            f"{where} holds no dyetrace key ({len(text)} characters; expected '{_PREFIX}:...' or 64 hex digits); "
            "make one with `dyetrace keygen`"
        )
    body, _, checksum = text.rpartition(":")
    fields = body.split(":")
    if _checksum(body) != checksum:
        raise DyetraceError(
            f"the key in {where} is damaged or cut short (its checksum differs); restore it from a backup"
        )
    try:
        if len(fields) == 3 and fields[1] == "master":
            return SecretKey(bytes.fromhex(fields[2]))
        if len(fields) == 6 and fields[1] == "tenant":
            secret = bytes.fromhex(fields[5])
            selector = SecretKey(secret[KEY_BYTES:])
            return TenantKey(fields[2], int(fields[3]), fields[4], selector, SecretKey(secret[:KEY_BYTES]))
        if len(fields) == 5 and fields[1] == "foreign":
            return ForeignKey.from_fields(fields[2], fields[3], fields[4])
    except ValueError:
        raise DyetraceError(
            f"the key in {where} is damaged (its fields do not hold a key); restore it from a backup"
        ) from None
    raise DyetraceError(f"the key in {where} is of a kind this version does not know; update dyetrace")


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdefABCDEF" for c in text)


def _looks_like_key(text: str) -> bool:
    return text.startswith(_PREFIX) or (len(text) == 2 * KEY_BYTES and _is_hex(text))


def write_key_file(path: Path, key: AnyKey) -> None:
    """Write a key file that only its owner can read (0600); an existing file is never overwritten."""
    write_private(path, f"{format_key(key)}\n".encode(), what="key file")


def source_path(source: str) -> Path | None:
    """The file that a key's source reads, so that no output goes there; None for other sources."""
    kind, _, rest = source.partition(":")
    return Path(os.path.expanduser(rest)) if kind == "file" and rest else None


def load_key(source: str) -> AnyKey:
    """Load a key from ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND`` (any command that prints it: a KMS client).

    Raises
    ------
    DyetraceError
        The source cannot be read, is open to others, or holds no intact key.
    """
    text, where = read_source(source, "key", _looks_like_key)
    return parse_key(text, where)


def read_source(source: str, what: str, looks_like_key: Callable[[str], bool]) -> tuple[str, str]:
    """The text at a key's source, and what messages call the place.

    Parameters
    ----------
    source
        ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``.
    what
        What is kept there, for messages.
    looks_like_key
        Whether a text is a key itself, pasted by mistake: then nothing of it is said.

    Raises
    ------
    DyetraceError
        The source cannot be read, or is open to others.
    """
    kind, _, rest = source.partition(":")
    if kind != "cmd" and looks_like_key(rest):
        kind = ""
    if kind == "file" and rest:
        return _read_private(Path(os.path.expanduser(rest))), f"file {rest}"
    if kind == "env" and rest:
        if rest not in os.environ:
            raise DyetraceError(f"environment variable {rest} is not set; export the {what} in it or use file:PATH")
        return os.environ[rest], f"environment variable {rest}"
    if kind == "cmd" and rest:
        return _run(rest), "the output of the key command"
    raise DyetraceError(f"{what} source not understood; allowed are file:PATH, env:NAME and cmd:COMMAND")


def load_master(source: str) -> SecretKey:
    """Load a key that must be a master key."""
    key = load_owner_key(source)
    if isinstance(key, ForeignKey):
        raise DyetraceError(
            f"this needs a master key of dyetrace, but the source holds a {key.format} key, which only reads marks"
        )
    return key


def load_owner_key(source: str) -> MarkingKey:
    """Load a key that a spec can be of: a master key, or a foreign format's."""
    key = load_key(source)
    if isinstance(key, TenantKey):
        raise DyetraceError(f"this needs the master key, but the source holds the key of tenant {key.tenant!r}")
    return key


def _read_private(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise DyetraceError(
                    f"key file {path} can be read by others (mode {mode & 0o777:04o}); run: chmod 600 {path}"
                )
            return file.read(4096)
    except OSError as error:
        raise DyetraceError(f"cannot read key file {path}: {error.strerror}") from None


def _run(command: str) -> str:
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise DyetraceError(f"the key command could not be run ({type(error).__name__}); check it in a shell") from None
    if done.returncode != 0:
        raise DyetraceError(f"the key command ended with status {done.returncode}; check it in a shell")
    return done.stdout
