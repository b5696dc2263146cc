"""What one of two requests is answered, taken down beside the bytes, which go to a client or to nobody."""

from __future__ import annotations

from typing import Any

import msgspec

from watermark.gateway.drawing import Drawing
from watermark.gateway.events import DONE, Events, data_of


class Tape:
    """Takes down one of two answers, of which each has a response of its own.

    Parameters
    ----------
    drawing, number
        Both, and which of them this is.
    stream
        Whether it comes as server-sent events.
    """

    def __init__(self, drawing: Drawing, number: int, stream: bool) -> None:
        self._drawing, self._side = drawing, drawing.sides[number]
        self._events = Events() if stream else None
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self._drawing.under_way:
            self._body.clear()
        elif self._events is None:
            self._body += data
        else:
            for event in self._events.feed(data):
                if (found := data_of(event)) is not None and found != DONE:
                    self._add(found)
            self._drawing.look()

    def end(self) -> None:
        """Take down that no more comes."""
        if self._events is None and self._drawing.under_way:
            self._add(bytes(self._body))
            self._drawing.look()
        if self._side.finish_reason is None:
            self._drawing.drop("unfinished")

    def _add(self, data: bytes) -> None:
        try:
            response: Any = msgspec.json.decode(data)
            for choice in response["choices"]:
                self._side.add(response, choice)
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError, RecursionError):
            self._drawing.drop("not understood")
            return
        self._side.count(response.get("usage"))
