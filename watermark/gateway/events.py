"""Server-sent events as they come over the wire: cut into whole events, and their data read."""

from __future__ import annotations

import re

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
DONE = b"[DONE]"
"""The data of the event that ends a stream of an OpenAI-compatible server."""


class Events:
    """Cuts bytes into events, of which each keeps its bytes (WHATWG HTML, section 9.2.5).

    Examples
    --------
    >>> events = Events()
    >>> events.feed(b"data: 1\\n\\ndata:")
    [b'data: 1\\n\\n']
    >>> events.feed(b" 2\\n\\n"), events.rest
    ([b'data: 2\\n\\n'], b'')
    """

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The events that these bytes complete."""
        # An event may end across two pieces, and what was looked through already is not looked through again.
        start = max(0, len(self._waiting) - 3)
        self._waiting += data
        found, begin = [], 0
        for end in _END.finditer(self._waiting, start):
            found.append(bytes(self._waiting[begin : end.end()]))
            begin = end.end()
        del self._waiting[:begin]
        return found

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not complete."""
        return bytes(self._waiting)


def data_of(event: bytes) -> bytes | None:
    """The data of an event, its lines joined; None where it has none, as comments that keep connections open.

    Examples
    --------
    >>> data_of(b'event: x\\r\\ndata: {"a":1}\\r\\n\\r\\n'), data_of(b": ping\\n\\n")
    (b'{"a":1}', None)
    """
    lines = [line[5:].removeprefix(b" ") for line in re.split(rb"\r\n|\n|\r", event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def event_of(data: bytes) -> bytes:
    """An event of one line of data."""
    return b"data: " + data + b"\n\n"
