"""Chats of every shape as the texts of the turns that are wanted, each part by itself, and a count of all there was.

Known are lists of messages (also as JSON in a string, or as one list for each key), turns whose keys are the roles
(``{"user": ..., "assistant": ...}``), lists of texts, and what the interfaces of OpenAI, Anthropic and Google answer.
Reasoning and the arguments of calls are read as parts of their turn. Parts are never joined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from detect.readers.batch import Broken, ReadOptions, Tally

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS = ("content", "value", "text", "parts", "message", "utterance")
PAIRED_KEYS = ("content", "value")  # of these one is read where both say the same
CALL_KEYS = ("tool_calls", "function_call", "functionCall", "function_calls", "tool_call")
"""A turn with one of these calls a tool and needs no text."""

ASSISTANTS = frozenset(
    "assistant gpt model bot chatbot ai chatgpt claude gemini gemma bard bing copilot llama vicuna tulu mistral mixtral "
    "qwen deepseek grok phi alpaca koala llm lm agent davinci openai anthropic cohere command kimi glm chatglm yi "
    "falcon dolly oasst generator machine helper 助手 机器人".split()
)
"""Words of a role that is the assistant's, whatever else is said beside them (a version, a number, a size)."""
_OTHERS = frozenset("user human system developer tool tools function customer client observation environment".split())
ANSWERS = frozenset(
    "response responses completion completions output outputs answer answers solution solutions generation generations "
    "generated reply replies chosen rejected candidate candidates choice choices prediction predictions continuation "
    "attempt attempts predicted accepted preferred target targets".split()
) | (ASSISTANTS - {"model", "agent", "machine", "helper", "command", "phi", "yi"})
"""Words in the names of fields that hold what a model answered."""
PROMPTS = frozenset(
    "prompt prompts question questions instruction instructions input inputs system query queries user human problem "
    "problems context contexts request requests task tasks premise source sources src persona seed".split()
)
"""Words in the names of fields that hold what a model was asked."""
REASONING = frozenset(
    "reasoning thinking thought thoughts cot rationale rationales scratchpad trajectory trajectories reason".split()
)
CALLS = frozenset("tool tools function functions call calls arguments".split())
_ABOUT = frozenset("id ids signature effort tokens token count encrypted type name time duration budget".split())

_CALL_TYPES = frozenset("tool function call calls mcp computer executable code action".split())
_LONG = 32  # characters from which on a field of a turn that isn't read is worth a word
_DEEP = 12  # nesting of lists and containers within each other
_NAMES = 40  # characters of a role or a field's name that are kept
_WORD = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")

_TEXT_TYPES = frozenset(["text", "output_text", "input_text", "refusal", None])


@lru_cache(maxsize=1 << 12)
def words_of(name: str) -> frozenset[str]:
    """The words in a name of a field or role, in lower case: "modelAnswer_2" has "model" and "answer"."""
    return frozenset(word.casefold() for word in _WORD.findall(_CAMEL.sub(" ", name)))


@dataclass(frozen=True)
class Wanted:
    """Whose turns are read, and which of their parts.

    Attributes
    ----------
    roles
        In lower case, without blanks around.
    reasoning, tools
        Whether the reasoning and the arguments of calls are read.
    """

    roles: frozenset[str]
    reasoning: bool
    tools: bool

    @property
    def assistant(self) -> bool:
        """Whether the assistant's turns are among them, by whatever name."""
        return "assistant" in self.roles


def wanted(options: ReadOptions) -> Wanted:
    """What the options want of chats."""
    roles = frozenset(role.strip().casefold() for role in options.roles)
    return Wanted(roles, "reasoning" not in options.leave_out, "tools" not in options.leave_out)


def turns_of(value: Any, column: str, want: Wanted, tally: Tally) -> list[str]:
    """Return what is wanted of a chat: a text for each part of each turn; ``tally`` counts all parts.

    Parameters
    ----------
    value
        A chat of any known shape, a list of texts, or JSON of one as a string.
    column
        The field's name, for messages.

    Raises
    ------
    Broken
        It is none of these.
    """
    raise NotImplementedError
