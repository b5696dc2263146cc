"""Whose a request is: told by what the operator configures, and never by what a client can choose.

Either the operator's own proxy names the account in a header and shows a shared secret in another, or a file says to
which account each client's API key belongs, by the key's SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from watermark.errors import DyetraceError, refused_write
from watermark.keys import check_tenant_name

SECRET_HEADER = "x-dyetrace-secret"
"""Where the operator's proxy shows the secret; it goes no further than the gateway."""
_TAKEN = {"authorization", "x-api-key", "api-key", "host", "content-length", "content-type", SECRET_HEADER}
_LINE = re.compile(r"([0-9a-fA-F]{64})\s+(\S+)")


class Accounts(Protocol):
    """What tells whose a request is."""

    @property
    def own_headers(self) -> frozenset[str]:
        """Headers that are meant for the gateway alone, in lower case."""
        ...

    def of(self, headers: Mapping[str, str]) -> str | None:
        """The account of a request with these headers; None for nobody's in particular."""
        ...


class NoAccounts:
    """Every request is nobody's in particular."""

    own_headers = frozenset({SECRET_HEADER})

    def of(self, headers: Mapping[str, str]) -> str | None:
        """None."""
        return None


@dataclass(frozen=True)
class NamedByProxy:
    """The operator's proxy names the account.

    Parameters
    ----------
    header
        The header that names it.
    secret_sha256
        Of the secret that only the proxy and the gateway know; the secret itself is not kept.

    Examples
    --------
    >>> named = NamedByProxy("x-account", hashlib.sha256(b"between us").digest())
    >>> named.of({"x-account": "acme", "x-dyetrace-secret": "between us"})
    'acme'
    >>> named.of({"x-account": "acme"}) is None
    True
    """

    header: str
    secret_sha256: bytes = field(repr=False)

    @property
    def own_headers(self) -> frozenset[str]:
        """Both headers."""
        return frozenset({self.header.lower(), SECRET_HEADER})

    def of(self, headers: Mapping[str, str]) -> str | None:
        """The account that the proxy names; None where no proxy vouches for it, or it names none."""
        shown = hashlib.sha256(headers.get(SECRET_HEADER, "").encode("utf-8", "surrogateescape")).digest()
        name = headers.get(self.header.lower())
        if not name or not hmac.compare_digest(shown, self.secret_sha256):
            return None
        try:
            check_tenant_name(name)
        except DyetraceError:
            return None
        return name


class NamedByKey:
    """A file says which account each API key belongs to; it is read anew when it changes.

    Parameters
    ----------
    path
        A line for each key: its SHA-256 in hex, white space, the account. Lines that begin with # are comments.

    Attributes
    ----------
    trouble
        Why the file could not be read the last time; what was read before it holds on.

    Raises
    ------
    DyetraceError
        The file can't be read, or a line is none of these.
    """

    own_headers = frozenset({SECRET_HEADER})

    def __init__(self, path: Path) -> None:
        self._path = path
        self._accounts, self._seen = _read(path), _stamp(path)
        self.trouble: str | None = None

    def of(self, headers: Mapping[str, str]) -> str | None:
        """The account of the key that the client sends; None for a key that the file has not."""
        self._renew()
        key = headers.get("authorization", "")
        key = key[7:].strip() if key[:7].lower() == "bearer " else headers.get("x-api-key", headers.get("api-key", ""))
        return self._accounts.get(hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()) if key else None

    def _renew(self) -> None:
        try:
            stamp = _stamp(self._path)
            if stamp == self._seen:
                return
            self._accounts, self._seen, self.trouble = _read(self._path), stamp, None
        except DyetraceError as error:
            self.trouble = str(error)


def header_name(name: str) -> str:
    """A header's name in lower case.

    Raises
    ------
    DyetraceError
        It is none that HTTP knows (RFC 9110, section 5.6.2), or has another meaning.

    Examples
    --------
    >>> header_name("X-Account")
    'x-account'
    """
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or name.lower() in _TAKEN:
        raise DyetraceError(
            f"{name!r} can't be the account's header; take a name of its own, of letters, digits and -: x-account"
        )
    return name.lower()


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        state = os.stat(path)
    except OSError as error:
        raise refused_write(f"cannot read accounts {path}", error) from None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise refused_write(f"cannot read accounts {path}", error) from None
    except UnicodeDecodeError:
        raise DyetraceError(f"accounts {path} are not UTF-8 text; mend the file") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = _LINE.fullmatch(line.strip())
        if whole is None:  # it may hold an API key, so nothing of it is said
            raise DyetraceError(
                f"line {number} of accounts {path} is not the SHA-256 of an API key (64 hex digits), a space and an "
                "account's name; mend the file"
            )
        check_tenant_name(whole[2])
        found[whole[1].lower()] = whole[2]
    return found
