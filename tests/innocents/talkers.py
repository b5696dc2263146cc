"""Endpoints that answer by a rule of their own, which may remember all that they were ever asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.detect.replying import Replying

Says = Callable[[str, list[str]], str]
"""What it says to a prompt, given all prompts that it was shown before, in their order."""


class Talker(Replying):
    """A chat endpoint at `url`, which has no other one; use it in a ``with`` block.

    Attributes
    ----------
    shown
        All prompts so far.
    """

    def __init__(self, says: Says) -> None:
        self.shown: list[str] = []

        def reply(body: dict[str, Any]) -> tuple[int, Any]:
            if "messages" not in body:
                return 404, {"error": {"message": "there is nothing here"}}
            prompt = "\n".join(message["content"] for message in body["messages"])
            text = says(prompt, list(self.shown))
            self.shown.append(prompt)
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "index": 0}
            usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
            return 200, {"choices": [choice], "model": "suspect", "usage": usage}

        super().__init__(reply)
