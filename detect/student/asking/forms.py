"""How a prompt, and the beginning of an answer to it, are put to an endpoint: forms that servers know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from detect.student.asking.address import address_below
from detect.student.asking.fields import LIMITS, fitted

Form = Literal["completions", "continue", "prefix", "last"]
"""How a server is made to go on with an answer that has been begun.

"completions" puts plain text to /completions: the prompt and the answer's beginning. The others end the messages
of a chat with one of the assistant: "continue" says ``continue_final_message`` (vLLM, SGLang), "prefix" marks the
message with ``prefix`` (DeepSeek, Mistral), "last" says nothing more (llama.cpp's server).
"""

FORMS: tuple[Form, ...] = ("completions", "continue", "prefix", "last")

_FRAME = 16  # tokens that a chat template may put around a message; as for plans of traces
_PATHS = {"chat": "/chat/completions", "completions": "/completions"}


@dataclass(frozen=True, slots=True)
class Question:
    """One request to the suspect's endpoint.

    Attributes
    ----------
    endpoint
        "chat" or "completions".
    body
        Its JSON, all but the model's name.
    most_tokens
        Prompt and answer together hold no more tokens than this: for budgets.
    """

    endpoint: Literal["chat", "completions"]
    body: dict[str, Any]
    most_tokens: int


def clean(text: str) -> str:
    """Text that can be encoded: surrogate pairs are joined and unpaired ones become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def content_text(content: Any) -> str:
    """The words of a message, whose content may be a list of parts."""
    if isinstance(content, str):
        return clean(content)
    parts = content if isinstance(content, list) else []
    return "".join(clean(p["text"]) for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))


def question_of(
    prompt: str | Sequence[int] | Sequence[Mapping[str, Any]],
    form: Form,
    begun: str,
    max_tokens: int,
    **settings: Any,
) -> Question:
    """Ask for what comes after the beginning of an answer.

    Parameters
    ----------
    prompt
        For "completions" all that stands before the answer, as text, or as token ids that hold the answer's beginning
        already (then ``begun`` is ""). For the other forms the chat's messages.
    form
        How the server is made to go on.
    begun
        The answer's beginning; "" asks for an answer to the bare prompt.
    max_tokens
        Of the reply.
    settings
        More of the body; ``temperature`` is 0 unless it stands there.

    Examples
    --------
    >>> question_of([{"role": "user", "content": "Hello"}], "prefix", "Good", 1).body["messages"][-1]
    {'role': 'assistant', 'content': 'Good', 'prefix': True}
    """
    body: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0, **settings}
    if form == "completions":
        if isinstance(prompt, str):
            text = prompt + begun
            return Question("completions", {"prompt": text, **body}, len(text.encode()) + _FRAME + max_tokens)
        return Question("completions", {"prompt": list(prompt), **body}, len(prompt) + _FRAME + max_tokens)
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    chat: list[Any] = list(prompt)
    if begun:
        last: dict[str, Any] = {"role": "assistant", "content": begun}
        chat = [*chat, last | {"prefix": True} if form == "prefix" else last]
    if begun and form == "continue":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    size = sum(len(content_text(message.get("content")).encode()) + 2 * _FRAME for message in chat)
    return Question("chat", {"messages": chat, **body}, size + max_tokens)


def request_of(url: str, model: str, question: Question, left_out: Collection[str] = ()) -> tuple[str, bytes, int]:
    """Address, JSON and most tokens of the answer of a question's request.

    Parameters
    ----------
    left_out
        Settings that the endpoint doesn't take (`detect.student.asking.fields.fitted`). The most tokens are those of
        the question also where no limit is sent.
    """
    most = next((question.body[name] for name in LIMITS if isinstance(question.body.get(name), int)), 0)
    body = {"model": model, **fitted(question.body, left_out)}
    try:
        encoded = msgspec.json.encode(body)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and UTF-8 can't
        encoded = msgspec.json.encode(_sound(body))
    return address_below(url, _PATHS[question.endpoint]), encoded, most


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_sound(name): _sound(part) for name, part in value.items()}
    return [_sound(part) for part in value] if isinstance(value, list) else value
