"""One of two answers while it comes: its text, its tokens and its end, gathered from what an engine says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from watermark.twins.pair import TwinAnswer

Odd = Literal["tool call", "refusal", "not text", "finished otherwise", "no text", "unfinished"]
"""Why an answer makes no pair, seen at it alone."""

_FINISHED = {"stop", "length"}
_TOOLS = {"tool_calls", "function_call"}


@dataclass(slots=True)
class Side:
    """An answer, complete or not.

    Attributes
    ----------
    pieces
        How many parts of it have come.
    finish_reason
        As the engine said it; None before.
    usage
        Its tokens by the engine's count, where that is of this answer alone.
    engine
        What the engine said of itself.
    """

    chat: bool
    pieces: int = 0
    finish_reason: str | None = None
    usage: int | None = None
    engine: dict[str, str] = field(default_factory=dict)
    prompt_token_ids: list[int] | None = None
    _texts: list[str] = field(default_factory=list)
    _token_ids: list[int] = field(default_factory=list)
    _thinks: bool = False
    _odd: Odd | None = None

    def add(self, response: dict[str, Any], choice: dict[str, Any]) -> None:
        """Take a part of it, or the whole.

        Parameters
        ----------
        response
            What is around the choice: a response, or a piece of a stream.
        choice
            One of its choices.
        """
        self.pieces += 1
        said = (choice.get("delta") or choice.get("message") or {}) if self.chat else choice
        text = said.get("content" if self.chat else "text")
        if isinstance(text, str):
            self._texts.append(text)
        elif text is not None:
            self._odd = "not text"
        if said.get("tool_calls") or said.get("function_call"):
            self._odd = "tool call"
        if said.get("refusal"):
            self._odd = "refusal"
        if said.get("audio"):
            self._odd = "not text"
        self._thinks = self._thinks or any(said.get(name) for name in ("reasoning", "reasoning_content"))
        self._token_ids += _ids(choice.get("token_ids")) or []
        for place in (response, choice):
            self.prompt_token_ids = self.prompt_token_ids or _ids(place.get("prompt_token_ids"))
        for name in ("model", "system_fingerprint"):
            if isinstance(value := response.get(name), str):
                self.engine[name] = value
        if (reason := choice.get("finish_reason")) is not None:
            self.finish_reason = str(reason)

    def count(self, usage: Any) -> None:
        """Take down the tokens that an engine counts for this answer alone."""
        if isinstance(usage, dict) and isinstance(tokens := usage.get("completion_tokens"), int):
            self.usage = tokens

    @property
    def odd(self) -> Odd | None:
        """Why it makes no pair; None where it is complete and text."""
        if self.finish_reason is None:
            return "unfinished"
        if self.finish_reason in _TOOLS:
            return "tool call"
        if self._odd is not None:
            return self._odd
        if self.finish_reason not in _FINISHED:
            return "finished otherwise"
        return None if any(self._texts) else "no text"

    @property
    def counted(self) -> bool:
        """Whether the engine said its token ids."""
        return bool(self._token_ids)

    @property
    def tokens(self) -> int:
        """How many tokens it has: by its ids, or as the engine counts, or else as many as it came in pieces."""
        return len(self._token_ids) or self.usage or self.pieces

    @property
    def answer(self) -> TwinAnswer:
        """As it is kept. Token ids are left out where some of them are of thoughts, which are no part of the text."""
        ids = None if self._thinks or not self._token_ids else self._token_ids
        return TwinAnswer(text="".join(self._texts), token_ids=ids, finish_reason=self.finish_reason)


def _ids(value: Any) -> list[int] | None:
    if isinstance(value, list) and value and all(type(token) is int for token in value):
        return value
    return None
