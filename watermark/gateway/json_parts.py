"""JSON objects of which some members are exchanged, and all others keep their bytes: numbers, escapes and all."""

from __future__ import annotations

import msgspec

Parts = dict[str, msgspec.Raw]
"""The members of an object, each as it was written."""

NULL = msgspec.Raw(b"null")
_OBJECT = msgspec.json.Decoder(Parts)
_OBJECTS = msgspec.json.Decoder(list[Parts])
_ENCODER = msgspec.json.Encoder()


def parts_of(data: bytes | msgspec.Raw) -> Parts:
    """An object's members.

    Raises
    ------
    msgspec.DecodeError
        It is no object.

    Examples
    --------
    >>> joined(parts_of(b'{"a": 1.10, "b": [ 1 ]}') | {"c": NULL})
    b'{"a":1.10,"b":[ 1 ],"c":null}'
    """
    return _OBJECT.decode(data)


def list_of_parts(data: bytes | msgspec.Raw) -> list[Parts]:
    """The members of each object of a list.

    Raises
    ------
    msgspec.DecodeError
        It is no list of objects.
    """
    return _OBJECTS.decode(data)


def joined(parts: Parts) -> bytes:
    """The object again."""
    return _ENCODER.encode(parts)


def joined_list(several: list[Parts]) -> msgspec.Raw:
    """A list of objects again."""
    return msgspec.Raw(_ENCODER.encode(several))
