"""What a client gets of an engine's response with two choices: the served one alone, in the form of a single one.

Responses with one choice, to requests that could have been twinned, take the same way, so that both have one form.
"""

from __future__ import annotations

from typing import Any

import msgspec

from watermark.gateway.drawing import Drawing
from watermark.gateway.events import DONE, data_of, event_of
from watermark.gateway.json_parts import Parts, joined, joined_list, list_of_parts, parts_of
from watermark.gateway.requests import Asked
from watermark.gateway.sides import Side

_FIRST, _NONE = msgspec.Raw(b"0"), msgspec.Raw(b"[]")
_TOKEN_IDS = ("token_ids", "prompt_token_ids")


class Unreadable(Exception):
    """A response with two choices can't be taken apart, and nothing of it may go to the client."""


def whole(body: bytes, asked: Asked, drawing: Drawing | None) -> bytes:
    """The response that the client gets of one that came whole.

    Raises
    ------
    Unreadable
        It should hold two answers, and it isn't known where they are.
    """
    try:
        parts = parts_of(body)
        choices = list_of_parts(parts.get("choices", _NONE))
        numbers = [msgspec.json.decode(choice["index"], type=int) for choice in choices]
    except (msgspec.DecodeError, KeyError, RecursionError):
        if drawing is not None:
            drawing.drop("not understood")
            raise Unreadable from None
        return body
    if not choices:
        if drawing is not None:
            drawing.drop("not understood")
        return body
    if drawing is not None:
        for number, choice in zip(numbers, choices, strict=True):
            _add(drawing, number, parts, choice)
        drawing.end()
        wanted = numbers.index(drawing.served) if drawing.served in numbers else 0
        if len(choices) == 2 and "usage" in parts:
            parts["usage"] = _usage(parts["usage"], drawing.sides[numbers[wanted] & 1])
        choices = choices[wanted : wanted + 1]
        for choice in choices:
            choice["index"] = _FIRST
    parts["choices"] = joined_list([_without_ids(choice, asked) for choice in choices])
    return joined(_without_ids(parts, asked))


class Chunks:
    """What the client gets of a stream.

    Parameters
    ----------
    asked, drawing
        The request, and the two answers to it; None where there is one.
    usage_last
        How this engine's last piece looks, which counts the tokens.

    Attributes
    ----------
    finished
        Whether the client has all of the served answer; the other one may go on.
    """

    def __init__(self, asked: Asked, drawing: Drawing | None, usage_last: Parts) -> None:
        self._asked, self._drawing, self._usage_like = asked, drawing, usage_last
        self._begun = False
        self._held: list[tuple[Parts, Parts]] = []
        self._counted: Parts | None = None
        self.finished = False

    def feed(self, event: bytes) -> bytes:
        """What goes to the client of an event, or because of it.

        Raises
        ------
        Unreadable
            It should hold a piece of one of two answers, and it isn't known of which.
        """
        data = data_of(event)
        if data is None:
            return b"" if self.finished else event
        if data == DONE:
            if self._drawing is not None:
                self._drawing.end()
            return b"" if self.finished else self._rest() + event_of(DONE)
        return self._alone(event, data) if self._drawing is None else self._of_two(event, data, self._drawing)

    def _alone(self, event: bytes, data: bytes) -> bytes:
        try:
            parts = parts_of(data)
            choices = list_of_parts(parts["choices"])
        except (msgspec.DecodeError, KeyError, RecursionError):
            return event
        parts["choices"] = joined_list([_without_ids(choice, self._asked) for choice in choices])
        return event_of(joined(_without_ids(parts, self._asked)))

    def _of_two(self, event: bytes, data: bytes, drawing: Drawing) -> bytes:
        try:
            parts = parts_of(data)
            if "choices" not in parts:  # an error that comes within a stream
                return b"" if self.finished else event
            choices = list_of_parts(parts["choices"])
            pieces = [(msgspec.json.decode(choice["index"], type=int), choice) for choice in choices]
        except (msgspec.DecodeError, KeyError, RecursionError):
            drawing.drop("not understood")
            raise Unreadable from None
        if not pieces:
            self._counted = parts
        sent = b""
        for number, choice in pieces:
            _add(drawing, number, parts, choice)
            if number != drawing.served:
                if not self._begun:
                    self._held.append((parts, choice))
            elif not self.finished:
                self._begun = True
                self._held.clear()
                sent += self._sent(parts, choice)
                if drawing.sides[drawing.served].finish_reason is not None:
                    sent += self._tail(parts, drawing.sides[drawing.served])
        drawing.look()
        return sent

    def _sent(self, parts: Parts, choice: Parts) -> bytes:
        one = _without_ids(choice, self._asked) | {"index": _FIRST}
        return event_of(joined(_without_ids(parts, self._asked) | {"choices": joined_list([one])}))

    def _tail(self, parts: Parts, side: Side) -> bytes:
        """What ends a stream once its answer is complete."""
        self.finished = True
        if not self._asked.usage_last:
            return event_of(DONE)
        last = {name: parts.get(name, value) for name, value in self._usage_like.items()}
        prompt = len(side.prompt_token_ids or ())
        last |= {"choices": joined_list([]), "usage": _usage(self._usage_like["usage"], side, prompt)}
        return event_of(joined(last)) + event_of(DONE)

    def _rest(self) -> bytes:
        """The only answer there is, where the engine gave one alone: then there is no pair, and it may be served."""
        self.finished = True
        if self._begun:
            return b""
        sent = b"".join(self._sent(parts, choice) for parts, choice in self._held)
        return sent if self._counted is None else sent + event_of(joined(self._counted))


def _add(drawing: Drawing, number: int, parts: Parts, choice: Parts) -> None:
    """Give a choice to its side.

    Raises
    ------
    Unreadable
        There are two sides, and it is of neither.
    """
    if number not in (0, 1):
        drawing.drop("not understood")
        raise Unreadable
    plain = {name: msgspec.json.decode(value) for name, value in choice.items() if name != "logprobs"}
    around = {name: msgspec.json.decode(value) for name, value in parts.items() if name not in ("choices", "usage")}
    drawing.sides[number].add(around, plain)


def _without_ids(parts: Parts, asked: Asked) -> Parts:
    """Without token ids, unless the client asked for them as well."""
    return parts if asked.token_ids else {name: value for name, value in parts.items() if name not in _TOKEN_IDS}


def _usage(usage: msgspec.Raw, side: Side, prompt_tokens: int | None = None) -> msgspec.Raw:
    """A count of tokens that is of one answer alone.

    Parameters
    ----------
    usage
        The engine's, of two answers or of another one.
    side
        The answer.
    prompt_tokens
        Those of the prompt; None where the engine's count of them is right.
    """
    counted: Any = msgspec.json.decode(usage)
    if not isinstance(counted, dict):
        return usage
    prompt = counted.get("prompt_tokens", 0) if prompt_tokens is None else prompt_tokens
    numbers = {"prompt_tokens": prompt, "completion_tokens": side.tokens, "total_tokens": prompt + side.tokens}
    counted |= {name: number for name, number in numbers.items() if name in counted}
    if isinstance(details := counted.get("completion_tokens_details"), dict):  # nobody knows whose they are
        counted["completion_tokens_details"] = {name: 0 if value == 0 else None for name, value in details.items()}
    return msgspec.Raw(msgspec.json.encode(counted))
