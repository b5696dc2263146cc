"""The registry of schemes and foreign formats: dyetrace's own, and entry points of other installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from typing import Any

from watermark.errors import DyetraceError
from watermark.schemes.protocol import Scheme


@dataclass(frozen=True, slots=True)
class Registry:
    """One kind of class.

    Attributes
    ----------
    kind
        What messages call one: "scheme".
    group
        The group of entry points under which other packages offer theirs.
    built_in
        dyetrace's own: name to "module:Class". They are no entry points, so that a source tree serves uninstalled.
    """

    kind: str
    group: str
    built_in: Mapping[str, str]

    def names(self) -> list[str]:
        """All that are known here."""
        return sorted(self.built_in.keys() | entry_points(group=self.group).names)

    def find(self, name: str) -> type[Any] | None:
        """The class; None where none has the name.

        Raises
        ------
        DyetraceError
            Its package cannot be loaded.
        """
        if name in self.built_in:
            from pkgutil import resolve_name

            cls: type[Any] = resolve_name(self.built_in[name])
            return cls
        for entry in entry_points(group=self.group, name=name):
            try:
                cls = entry.load()
            except (ImportError, AttributeError) as error:
                raise DyetraceError(
                    f"{self.kind} {name!r} is installed as {entry.value} but cannot be loaded: {error}"
                ) from error
            return cls
        return None


SCHEMES = Registry(
    "scheme",
    "dyetrace.schemes",
    {
        "gumbel": "watermark.schemes.gumbel:Gumbel",
        "tournament": "watermark.schemes.tournament:Tournament",
        "green_list": "watermark.schemes.green_list:GreenList",
    },
)

FORMATS = Registry(
    "format",
    "dyetrace.formats",
    {
        "vllm-gumbel": "watermark.formats.vllm_gumbel:VllmGumbel",
        "vllm-dual-key-gumbel": "watermark.formats.vllm_dual_key:VllmDualKeyGumbel",
        "sglang": "watermark.formats.sglang:Sglang",
        "sglang-two-keys": "watermark.formats.sglang:SglangTwoKeys",
        "transformers-kgw-lefthash": "watermark.formats.transformers_kgw:TransformersKgwLefthash",
        "transformers-kgw-selfhash": "watermark.formats.transformers_kgw:TransformersKgwSelfhash",
        "transformers-synthid": "watermark.formats.transformers_synthid:TransformersSynthid",
        "synthid-text": "watermark.formats.synthid_text:SynthidText",
        "lm-watermarking": "watermark.formats.lm_watermarking:LmWatermarking",
        "markllm-kgw": "watermark.formats.markllm:MarkllmKgw",
        "markllm-unigram": "watermark.formats.markllm:MarkllmUnigram",
        "tgi": "watermark.formats.tgi:Tgi",
        "three-bricks": "watermark.formats.three_bricks:ThreeBricks",
        "three-bricks-gumbel": "watermark.formats.three_bricks:ThreeBricksGumbel",
        "textseal-green": "watermark.formats.textseal:TextsealGreen",
        "textseal-gumbel": "watermark.formats.textseal:TextsealGumbel",
        "textseal-dual-key": "watermark.formats.textseal:TextsealDualKey",
        "sbw": "watermark.formats.sbw:Sbw",
    },
)


def scheme_names() -> list[str]:
    """All schemes that mark text here; a spec may also name a format (`format_names`)."""
    return SCHEMES.names()


def make_scheme(name: str, parameters: dict[str, Any]) -> Scheme:
    """Return the scheme ``name`` with ``parameters``.

    Raises
    ------
    DyetraceError
        No such scheme, or a parameter that it does not know or allow.
    """
    import msgspec

    cls = _load(name)
    try:
        scheme: Scheme = msgspec.convert(parameters, cls)
    except DyetraceError:
        raise
    except (msgspec.ValidationError, TypeError) as error:
        raise DyetraceError(f"scheme {name!r}: {error}") from None
    unknown = parameters.keys() - {field.name for field in fields(cls)}
    if unknown:
        raise DyetraceError(
            f"scheme {name!r} has no parameter {sorted(unknown)[0]!r}; it may come from a newer version"
        )
    return scheme


def format_names() -> list[str]:
    """All formats that a spec may name here."""
    return FORMATS.names()


def load_format(name: str) -> type[Any]:
    """The class of the format ``name``.

    Raises
    ------
    DyetraceError
        No such format, or its package cannot be loaded.
    """
    found = FORMATS.find(name)
    if found is None:
        raise DyetraceError(f"no format is called {name!r}; those known here: {', '.join(format_names())}")
    return found


def _load(name: str) -> type[Any]:
    found = SCHEMES.find(name) or FORMATS.find(name)
    if found is None:
        raise DyetraceError(
            f"no scheme is called {name!r}; installed here: {', '.join(scheme_names())}, "
            f"and formats of other systems: {', '.join(FORMATS.names())}"
        )
    return found
