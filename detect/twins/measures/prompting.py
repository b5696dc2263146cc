"""How a pair's prompt, and the beginning of an answer to it, are put to an endpoint."""

from __future__ import annotations

from typing import Any

from detect.student.asking.forms import Form, Question, clean, content_text, question_of
from watermark.twins.pair import Pair

_LONGEST = 512  # tokens of an answer whose request sets no limit


def messages(pair: Pair) -> list[dict[str, Any]]:
    """The pair's prompt as a chat: its messages as they were, or a plain prompt as the user's."""
    prompt = pair.prompt
    return [{"role": "user", "content": clean(prompt)}] if isinstance(prompt, str) else list(prompt)


def plain_prompt(pair: Pair) -> str:
    """The pair's prompt as plain text: a plain prompt as it was, or a line for each message, without its role."""
    prompt = pair.prompt
    if isinstance(prompt, str):
        return clean(prompt)
    return "".join(f"{content_text(message.get('content'))}\n" for message in prompt)


def answer_limit(pair: Pair) -> int:
    """How many tokens an answer to the pair's request may have."""
    for name in ("max_completion_tokens", "max_tokens"):
        limit = pair.request.get(name)
        if type(limit) is int and limit > 0:
            return limit
    return _LONGEST


def number_of(pair: Pair, name: str, default: float) -> float:
    """A setting of the pair's request between 0.01 and 100; the default where it has none that can be used."""
    value = pair.request.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.01 <= value <= 100:
        return float(value)
    return default


def question(pair: Pair, form: Form, begun: str, max_tokens: int, **settings: Any) -> Question:
    """Ask for what comes after the beginning of an answer.

    Parameters
    ----------
    form
        How the server is made to go on; it does not matter where nothing has been begun, but for "completions".
    begun
        The answer's beginning; "" asks for an answer to the bare prompt.
    max_tokens
        Of the reply.
    settings
        More of the body; ``temperature`` is 0 unless it stands there.
    """
    prompt = plain_prompt(pair) if form == "completions" else messages(pair)
    return question_of(prompt, form, begun, max_tokens, **settings)
