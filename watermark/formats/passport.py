"""Key passport: from another system's own configuration file to a format's public parameters and its secret key.

The key goes into a key file of its own; nothing of it is in the parameters, in messages, or in the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import msgspec

from watermark.errors import DyetraceError
from watermark.formats.protocol import Format
from watermark.keys.foreign import ForeignKey
from watermark.registry import load_format, make_scheme

_MOST_BYTES = 1 << 20

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reader:
    """How a system's configuration says what a format needs.

    Attributes
    ----------
    keys
        Where the key is, the first name that is there; several parts of one key are one tuple of names.
    names
        Its names of the format's fields, where they differ.
    inner
        The object that holds all this, where the file holds more.
    must
        Fields that say which of the system's marks it is, with the values that are this format's.
    derived
        A field that follows from another: our name to its and a function of its value.
    """

    keys: tuple[str, ...] = ("key", "hash_key")
    names: Mapping[str, str] = field(default_factory=dict)
    inner: str | None = None
    must: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    derived: Mapping[str, tuple[str, Callable[[Any], Any]]] = field(default_factory=dict)


_SYNTHID = Reader(
    keys=("keys",),
    inner="watermarking_config",
    derived={
        "context_width": ("ngram_len", lambda n: n - 1),
        "depth": ("keys", len),
        "key_bits": ("keys", lambda keys: max(10, *(abs(key).bit_length() for key in keys))),
    },
)
_READERS = {
    "vllm-gumbel": Reader(must={"algorithm": ("gumbel", None), "prf": ("philox", None)}),
    "vllm-dual-key-gumbel": Reader(must={"algorithm": ("dual_key_gumbel",), "prf": ("philox", None)}),
    "sglang": Reader(names={"context_window": "context_width"}, must={"key_b": (None,)}),
    "sglang-two-keys": Reader(keys=("key", "key_b"), names={"context_window": "context_width"}),
    "transformers-kgw-lefthash": Reader(
        keys=("hashing_key",),
        inner="watermarking_config",
        names={"greenlist_ratio": "gamma"},
        must={"seeding_scheme": ("lefthash", None)},
    ),
    "transformers-kgw-selfhash": Reader(
        keys=("hashing_key",),
        inner="watermarking_config",
        names={"greenlist_ratio": "gamma", "context_width": "window"},
        must={"seeding_scheme": ("selfhash",)},
    ),
    "transformers-synthid": _SYNTHID,
    "synthid-text": _SYNTHID,
    "markllm-kgw": Reader(names={"prefix_length": "context_width"}, must={"algorithm_name": ("KGW", None)}),
    "markllm-unigram": Reader(must={"algorithm_name": ("Unigram", None)}),
    "three-bricks": Reader(keys=("key", "seed"), names={"ngram": "context_width"}),
    "three-bricks-gumbel": Reader(keys=("key", "seed"), names={"ngram": "context_width"}),
    "textseal-green": Reader(keys=("key", "secret_key", "seed"), names={"ngram": "context_width"}),
    "textseal-gumbel": Reader(keys=("key", "secret_key", "seed"), names={"ngram": "context_width"}),
    "textseal-dual-key": Reader(keys=("key", "secret_key", "seed"), names={"ngram": "context_width"}),
}
_TWO_KEYS = {"sglang-two-keys"}


def read_passport(
    name: str, data: bytes, where: str, given: Config | None = None, vocabulary_size: int | None = None
) -> tuple[Format, ForeignKey]:
    """Read a configuration that holds a key.

    Parameters
    ----------
    name
        The format.
    data
        The system's file: a JSON object with the key among its settings, or the key alone as the system spells it.
    where
        What messages call the file.
    given
        Parameters of the format that the file doesn't hold, or holds otherwise; they come first.
    vocabulary_size
        Of the model's output, for formats whose green lists depend on it.

    Raises
    ------
    DyetraceError
        No such format; the file is of another mark, lacks the key or holds a damaged one; a parameter is missing or
        out of range. No message shows anything of the key.
    """
    cls, reader = load_format(name), _READERS.get(name, Reader())
    config = _config(data, where, reader)
    wanted = {f.name for f in fields(cls)}
    parameters = _parameters(config, reader, wanted, where, name) | dict(given or {})
    if "vocabulary_size" in wanted and vocabulary_size is not None:
        parameters.setdefault("vocabulary_size", vocabulary_size)
    for f in fields(cls):
        if f.name not in parameters and f.default is MISSING and f.default_factory is MISSING:
            raise DyetraceError(
                f"format {name!r} needs {f.name}, which {where} doesn't hold: add --param {f.name}=VALUE"
            )
    scheme: Any = make_scheme(name, parameters)
    return scheme, ForeignKey(name, scheme.parse_key(_key_text(config, reader, where, name)))


def _config(data: bytes, where: str, reader: Reader) -> Config | str:
    """The settings, or the key's text where the file holds that alone."""
    if len(data) > _MOST_BYTES:
        raise DyetraceError(f"{where} is too large for a configuration ({len(data):,} bytes)")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise DyetraceError(
            f"{where} is not UTF-8 text; give the system's own configuration, or the key alone"
        ) from None
    if not text:
        raise DyetraceError(f"{where} is empty; give the system's own configuration, or the key alone")
    if not text.startswith("{"):
        return text
    try:
        config = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError):
        raise DyetraceError(f"{where} is not valid JSON; give the system's configuration as it reads it") from None
    inner = config.get(reader.inner) if reader.inner else None
    if reader.inner and inner is None and not any(key in config for key in reader.keys):
        raise DyetraceError(f"{where} has no {reader.inner!r}; give the generation_config.json that marks")
    found = config if inner is None else inner
    if not isinstance(found, dict):
        raise DyetraceError(f"{where}: {reader.inner!r} must be a JSON object")
    return found


def _parameters(config: Config | str, reader: Reader, wanted: set[str], where: str, name: str) -> dict[str, Any]:
    if isinstance(config, str):
        return {}
    for setting, allowed in reader.must.items():
        if config.get(setting) not in allowed:
            shown = "is set" if setting.startswith("key") else f"is {config.get(setting)!r}"
            raise DyetraceError(f"{where} is not of format {name!r}: its {setting} {shown}; give another --format")
    # Our own names pass as well, so that any system's settings can be written down.
    found = {reader.names.get(setting, setting): value for setting, value in config.items()}
    parameters = {ours: value for ours, value in found.items() if ours in wanted and value is not None}
    for ours, (theirs, derive) in reader.derived.items():
        if ours in wanted and theirs in config:
            try:
                parameters[ours] = derive(config[theirs])
            except (TypeError, ValueError, AttributeError):
                raise DyetraceError(f"{where}: its {theirs} is not as {name} has it") from None
    return parameters


def _key_text(config: Config | str, reader: Reader, where: str, name: str) -> str:
    if isinstance(config, str):
        return config
    if name in _TWO_KEYS:
        parts = [config.get(key) for key in reader.keys]
        missing = [key for key, part in zip(reader.keys, parts, strict=True) if part is None]
        if missing:
            raise DyetraceError(f"{where} lacks the field {missing[0]!r} of the key; give the file with the key in it")
        return ",".join(map(str, parts))
    for key in reader.keys:
        value = config.get(key)
        if value is not None:
            return ",".join(map(str, value)) if isinstance(value, list) else str(value)
    raise DyetraceError(
        f"{where} lacks the field {reader.keys[0]!r} of the key; give the file with the key in it, or the key alone"
    )
