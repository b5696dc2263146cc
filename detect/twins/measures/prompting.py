"""How a pair's prompt, and the beginning of an answer to it, are put to an endpoint."""

from __future__ import annotations

from typing import Any, Literal

from detect.twins.measures.protocol import Question
from watermark.twins.pair import Pair

Form = Literal["completions", "continue", "prefix", "last"]
"""How a server is made to go on with an answer that has been begun.

"completions" puts plain text to /completions: the bare prompt and the answer's beginning. The others end the messages
of a chat with one of the assistant: "continue" says ``continue_final_message`` (vLLM, SGLang), "prefix" marks the
message with ``prefix`` (DeepSeek, Mistral), "last" says nothing more (llama.cpp's server).
"""

FORMS: tuple[Form, ...] = ("completions", "continue", "prefix", "last")

_FRAME = 16  # tokens that a chat template may put around a message; as for plans of traces
_LONGEST = 512  # tokens of an answer whose request sets no limit


def clean(text: str) -> str:
    """Text that can be encoded: surrogate pairs are joined and unpaired ones become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


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


def content_text(content: Any) -> str:
    """The words of a message, whose content may be a list of parts."""
    if isinstance(content, str):
        return clean(content)
    parts = content if isinstance(content, list) else []
    return "".join(clean(p["text"]) for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))


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
    body: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0, **settings}
    if form == "completions":
        text = plain_prompt(pair) + begun
        return Question("completions", {"prompt": text, **body}, len(text.encode()) + _FRAME + max_tokens)
    chat = messages(pair)
    if begun:
        last: dict[str, Any] = {"role": "assistant", "content": begun}
        chat = [*chat, last | {"prefix": True} if form == "prefix" else last]
    if begun and form == "continue":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    size = sum(len(content_text(message.get("content")).encode()) + 2 * _FRAME for message in chat)
    return Question("chat", {"messages": chat, **body}, size + max_tokens)
