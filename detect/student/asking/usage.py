"""What an endpoint says that a request took, by whichever of its numbers says most: reasoning costs as answers do."""

from __future__ import annotations

from typing import Any, NamedTuple

_MOST_TOKENS = 1_000_000_000


class Usage(NamedTuple):
    """Tokens of a request's prompt and of all that was written for it; None where the endpoint doesn't say."""

    prompt: int | None
    completion: int | None


def usage_of(body: Any) -> Usage:
    """The ``usage`` of a response body.

    Most endpoints count reasoning among the completion's tokens. Some (xAI) count it beside them, where the total, or a
    number of reasoning tokens that the completion's can't hold, gives it away.

    Examples
    --------
    >>> usage_of({"usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 311}})
    Usage(prompt=9, completion=302)
    """
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return Usage(None, None)
    prompt = _first(usage, "prompt_tokens", "input_tokens")
    completion = _first(usage, "completion_tokens", "output_tokens")
    total = _first(usage, "total_tokens")
    if prompt is None and total is not None and completion is not None and total >= completion:
        prompt = total - completion
    if completion is None:
        return Usage(prompt, None if total is None or prompt is None or total < prompt else total - prompt)
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    reasoning = _first(details, "reasoning_tokens") if isinstance(details, dict) else None
    reasoning = reasoning or _first(usage, "reasoning_tokens") or 0
    if reasoning > completion:
        completion += reasoning
    return Usage(prompt, completion if total is None or prompt is None else max(completion, total - prompt))


def _first(found: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = found.get(name)
        if type(value) is int and 0 <= value <= _MOST_TOKENS:
            return value
    return None
