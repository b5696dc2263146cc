"""`WatermarkSpec`: what both sides must agree on about a watermark, and all of it may be published."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from watermark.errors import DyetraceError
from watermark.files.versioned import check_known_version, parse_versioned
from watermark.files.writing import check_output, write_atomically
from watermark.formats.protocol import Format, is_format
from watermark.registry import make_scheme
from watermark.schemes.protocol import Scheme, parameters

SPEC_VERSION = 1
WIDEST_CONTEXT = 32
LARGEST_VOCABULARY = 2**31
# Published figures for Llama-7b students: a context of 3 needs 100 times the tokens of a context of 2 or does not trace
# at all (Sander et al. 2024, arXiv 2402.14904, and later neutralisation studies).
TRACEABLE_WIDTH = 2


class WatermarkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A versioned description of one watermark.

    Attributes
    ----------
    version
        Of this format.
    scheme, parameters
        Name and parameters of the scheme (`watermark.schemes`), or of a foreign format (`watermark.formats`).
    context_width
        h: how many preceding token ids seed each position.
    subkeys
        Size of the pool of sub-keys of which each request uses one. More of them bring back diversity between the
        answers to one prompt; detection pays for them as multiplicity.
    global_share
        Share of contexts that the global key marks; the request's tenant key marks the rest. 1 means no tenants.
    vocabulary_size
        1 + the tokenizer's largest id.
    tokenizer
        `watermark.models.tokenizer.tokenizer_fingerprint` of the tokenizer.
    key_fingerprint
        Of the master key, or of the foreign format's key.
    epoch
        Rotation number; keys of different epochs are unrelated.
    """

    version: int = SPEC_VERSION
    scheme: str = "gumbel"
    parameters: dict[str, Any] = {}
    context_width: int = 2
    subkeys: int = 4
    global_share: float = 1.0
    vocabulary_size: int
    tokenizer: str
    key_fingerprint: str
    epoch: int = 0

    def __post_init__(self) -> None:
        _check_version(self.version)
        _within("context_width", self.context_width, 0, WIDEST_CONTEXT)
        _within("subkeys", self.subkeys, 1, 1024)
        _within("global_share", self.global_share, 0.0, 1.0)
        _within("vocabulary_size", self.vocabulary_size, 2, LARGEST_VOCABULARY)
        _within("epoch", self.epoch, 0, 2**31)
        scheme = self.build_scheme()
        if is_format(scheme):
            self._check_format(scheme)
        elif self.context_width == 0 and scheme.samples:
            raise DyetraceError(
                f"scheme {self.scheme!r} needs context_width of 1 or more: without a context it would repeat one token"
            )
        if self.context_width == 0 and self.global_share < 1:
            raise DyetraceError("context_width 0 leaves no contexts to split between tenants: set global_share to 1")

    def _check_format(self, scheme: Format) -> None:
        """A foreign format has one key and a width of its own."""
        only = {"context_width": scheme.context_width, "subkeys": 1, "global_share": 1.0, "epoch": 0}
        for field, value in only.items():
            if getattr(self, field) != value:
                raise DyetraceError(
                    f"spec field {field} must be {value:g} for format {self.scheme!r} (got {getattr(self, field):g})"
                )
        size = getattr(scheme, "vocabulary_size", None)
        if size is not None and size < self.vocabulary_size:
            raise DyetraceError(
                f"format {self.scheme!r}: its vocabulary_size ({size}) must be that of the model's output, at least "
                f"the tokenizer's {self.vocabulary_size}"
            )

    def build_scheme(self) -> Scheme:
        """The scheme with this spec's parameters."""
        return make_scheme(self.scheme, self.parameters)

    @property
    def canonical_json(self) -> bytes:
        """The one byte string that stands for this spec: all fields, sorted keys, no white space."""
        full = msgspec.structs.replace(
            self, parameters=parameters(self.build_scheme()), global_share=float(self.global_share)
        )
        return msgspec.json.encode(full, order="sorted")

    @property
    def spec_id(self) -> str:
        """``dt1-`` and 32 hex digits: BLAKE2b-128 of the canonical JSON."""
        return "dt1-" + hashlib.blake2b(self.canonical_json, digest_size=16).hexdigest()

    @property
    def warning(self) -> str | None:
        """What the owner should know before using this spec, if anything."""
        if self.context_width > TRACEABLE_WIDTH:
            return (
                f"context_width {self.context_width}: a student trained on this text will show it where it is asked "
                "about the very answers that were served, and hardly in any other text or in what it says itself; use "
                f"{TRACEABLE_WIDTH} unless all served answers are kept"
            )
        return None


def _check_version(version: int) -> None:
    check_known_version(version, SPEC_VERSION, "spec")


def _within(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DyetraceError(f"spec field {field} must lie in {low} .. {high} (got {value})")


def parse_spec(data: bytes, where: str) -> WatermarkSpec:
    """Read a spec from JSON.

    Raises
    ------
    DyetraceError
        Not JSON, an unknown or missing field, a value out of range, or another version.
    """
    return parse_versioned(
        data,
        WatermarkSpec,
        where,
        what="a watermark spec",
        restore="restore it, or write it anew with `dyetrace spec`",
        check_version=_check_version,
    )


def load_spec(path: str | Path) -> WatermarkSpec:
    """Read a spec file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read spec {path}: {error.strerror}; write one with `dyetrace spec`") from None
    return parse_spec(data, f"spec {path}")


def write_spec(path: Path, spec: WatermarkSpec, *, replace: bool = True) -> None:
    """Write a spec as indented JSON with every parameter spelt out.

    Raises
    ------
    DyetraceError
        The file can't be written, or is there already and is no spec; with ``replace`` false, whatever it is.
    """
    check_output(path, kind="a watermark spec", is_kind=is_spec, force=replace)
    write_atomically(path, msgspec.json.format(spec.canonical_json, indent=2) + b"\n", replace=replace)


def is_spec(path: Path) -> bool:
    """Whether the file at this path is a spec, of whatever mark."""
    try:
        load_spec(path)
    except DyetraceError:
        return False
    return True


def check_tokenizer(spec: WatermarkSpec, fingerprint: str, vocabulary_size: int) -> None:
    """Raise DyetraceError unless this is the tokenizer that the spec was made for."""
    if vocabulary_size != spec.vocabulary_size:
        raise DyetraceError(
            f"wrong tokenizer: its vocabulary has {vocabulary_size} entries, the spec's {spec.vocabulary_size}; "
            "use the tokenizer of the model that was watermarked"
        )
    if fingerprint != spec.tokenizer:
        raise DyetraceError(
            f"wrong tokenizer: its fingerprint is {fingerprint}, the spec's {spec.tokenizer}; "
            "use the tokenizer of the model that was watermarked"
        )


def check_key(spec: WatermarkSpec, fingerprint: str) -> None:
    """Raise DyetraceError unless the key with this fingerprint is the spec's."""
    if fingerprint != spec.key_fingerprint:
        raise DyetraceError(
            f"wrong key: its fingerprint is {fingerprint}, the spec's {spec.key_fingerprint}; "
            "give the key that the spec was made with"
        )
