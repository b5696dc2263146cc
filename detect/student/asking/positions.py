"""The tokens of an answer with their log-probabilities, as an endpoint sends them."""

from __future__ import annotations

from typing import NamedTuple

LEAST_LOGPROB = -9999.0
"""What vLLM and OpenAI write for "very unlikely"; smaller ones (llama.cpp's -3.4e38) are raised to it."""


class TokenLogprob(NamedTuple):
    """A token that stood at a position or could have.

    Attributes
    ----------
    text
        As the server wrote it.
    raw
        Its bytes: the server's own where it sends them, else of ``text``; empty where only an id is known. A server
        that cannot show part of a character writes U+FFFD in its place, and then ``raw`` is not the token's.
    id
        In the suspect's vocabulary, where the server says it.
    logprob
        Natural logarithm, at most 0 and at least `LEAST_LOGPROB`; NaN where the server sent no usable one.
    """

    text: str
    raw: bytes
    id: int | None
    logprob: float


class Position(NamedTuple):
    """One token of an answer and its alternatives, most likely first; none where what was sent can't be."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]
