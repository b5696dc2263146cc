"""What a request asks for, and whether two answers to it can be drawn of which one is served truthfully.

Nothing here looks at an answer, and nothing at a coin, which is tossed later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import msgspec

from watermark.gateway.json_parts import Parts, joined, parts_of

Untwinned = Literal[
    "not understood",
    "too large",
    "several answers",
    "several prompts",
    "seed",
    "greedy",
    "beam search",
    "echo",
    "not text alone",
    "other endpoint",
    "engine gives one answer",
    "at once",
    "budget",
    "ledger",
    "gateway ends",
    "not drawn",
]
"""Why a request got one answer alone. All of it is known before an answer is there.

"several answers", "several prompts": more than one answer is asked for as it is. "seed", "greedy", "beam search": two
answers would be equal by design, or would not be what was asked for. "echo": answers would begin with the prompt. "not
text alone": images or sound in it. "too large": a body that is not kept in memory. "engine gives one answer": as the
gateway saw at its start. "at once", "budget": the operator's limits. "ledger": it can't be written at present.
"""

ENDPOINTS = {"/chat/completions": True, "/completions": False}
"""What twins are drawn for, below /v1; and whether it is a chat."""
_GREEDY_BELOW = 1e-5
"""vLLM takes lower temperatures for 0 (its `_SAMPLING_EPS`)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an answer.

    Attributes
    ----------
    chat
        Whether it is one of chat completions.
    raw
        Its body as it came.
    body
        The same, read.
    untwinned
        Why it can't be twinned; None where it can.
    """

    chat: bool
    raw: bytes
    body: dict[str, Any]
    untwinned: Untwinned | None

    @property
    def usage_last(self) -> bool:
        """Whether a stream is to end with the count of its tokens."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @property
    def token_ids(self) -> bool:
        """Whether the client wants token ids."""
        return self.body.get("return_token_ids") is True

    @property
    def recorded(self) -> dict[str, Any]:
        """What is written down of it: its body, where a list of one prompt is that prompt."""
        return self.body if self.chat else self.body | {"prompt": _only(self.body.get("prompt"))}

    def asking_for(self, answers: int) -> bytes:
        """The body that asks an engine for so many answers, and for their token ids; the rest stays as it came."""
        parts = parts_of(self.raw)
        own = {"n": msgspec.Raw(str(answers).encode()), "return_token_ids": msgspec.Raw(b"true")}
        if answers == 1:
            del own["n"]
        return joined(parts | own)


def read(raw: bytes, chat: bool) -> Asked:
    """Read a request's body.

    Examples
    --------
    >>> read(b'{"model": "m", "prompt": "Why?", "temperature": 0}', chat=False).untwinned
    'greedy'
    >>> read(b'{"model": "m", "prompt": "Why?"}', chat=False).asking_for(2)
    b'{"model":"m","prompt":"Why?","n":2,"return_token_ids":true}'
    """
    try:
        body = msgspec.json.decode(raw)
        parts: Parts = parts_of(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Asked(chat, raw, {}, "not understood")
    if not isinstance(body, dict) or not parts:
        return Asked(chat, raw, {}, "not understood")
    return Asked(chat, raw, body, next(_reasons(body, chat), None))


def _reasons(body: dict[str, Any], chat: bool) -> Iterator[Untwinned]:
    if not _is_one(body.get("n")) or not _is_one(body.get("best_of")):
        yield "several answers"
    if body.get("use_beam_search"):
        yield "beam search"
    if body.get("seed") is not None:
        yield "seed"
    if _greedy(body):
        yield "greedy"
    if chat:
        if not _is_text(body.get("messages")) or set(_listed(body.get("modalities"))) - {"text"}:
            yield "not text alone"
    elif isinstance(prompt := body.get("prompt"), list) and len(prompt) > 1 and not _is_number(prompt[0]):
        yield "several prompts"
    elif not isinstance(_only(prompt), str) or not _only(prompt):
        yield "not text alone"  # token ids among them, which no measure of pairs could ask a suspect with
    if body.get("echo"):
        yield "echo"


def _only(prompt: Any) -> Any:
    """What a list of one prompt holds, and anything else as it is."""
    return prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt


def _is_one(value: Any) -> bool:
    return value is None or (value == 1 and not isinstance(value, bool))


def _greedy(body: dict[str, Any]) -> bool:
    temperature, top_k, top_p = (body.get(name) for name in ("temperature", "top_k", "top_p"))
    return (
        (_is_number(temperature) and temperature < _GREEDY_BELOW)
        or (_is_number(top_k) and top_k == 1)
        or (_is_number(top_p) and top_p <= 0)
        or body.get("do_sample") is False
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _listed(value: Any) -> list[Any]:
    return [part for part in value if isinstance(part, str)] if isinstance(value, list) else []


def _is_text(messages: Any) -> bool:
    """Whether all that is said in a chat is text: strings, or parts that are."""
    if not isinstance(messages, list) or not messages:
        return False
    for message in messages:
        if not isinstance(message, dict):
            return False
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            if not isinstance(part, dict) or part.get("type") not in ("text", "refusal"):
                return False
    return True
