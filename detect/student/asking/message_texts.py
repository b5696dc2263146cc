"""All texts of one answer: what is said, what was thought before it, and what is handed to tools, each for itself.

Servers put a model's reasoning under many names, so it is known by what a name says (``reasoning_content``,
``thinking_blocks``, a part of type "thinking"), and not by a list. A model that learnt marked text shows it there as
well, and often most of it there.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

TextKind = Literal["answer", "reasoning", "tool call"]

_THOUGHT = re.compile(r"reasoning|thinking|thought|chain_?of_?thought", re.IGNORECASE)
_NO_TEXT = re.compile(
    r"^(type|id|index|role|name|status|format|data|signature|model)$"
    r"|effort|signature|format|encrypted|redacted|budget|tokens|config|enabled|duration|_id$",
    re.IGNORECASE,
)
_CALLED = re.compile(r"tool_?(use|call)|function_?call", re.IGNORECASE)
_GIVEN = ("arguments", "input", "args", "parameters")
_DEEPEST = 6
_MOST_COMPARED = 100  # texts of an answer of which each is looked for in all others


class Said(NamedTuple):
    """One text of an answer, which no other is ever joined to.

    Attributes
    ----------
    kind
        What it is to whoever asked.
    text
        Valid Unicode.
    """

    kind: TextKind
    text: str


def sound_text(value: Any) -> str | None:
    """A string that can be encoded: lone surrogates, which JSON's escapes can spell, become U+FFFD."""
    if not isinstance(value, str):
        return None
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_thought(name: str) -> bool:
    """Whether a field holds reasoning, by its name."""
    return _THOUGHT.search(name) is not None and _NO_TEXT.search(name) is None


def texts_of(choice: dict[str, Any]) -> tuple[Said, ...]:
    """The texts of one of a response's choices: reasoning, answer, tool calls, in the order in which they were written.

    What a server sends twice, under two names or within the answer too, is taken once.

    Examples
    --------
    >>> texts_of({"message": {"content": "4.", "reasoning_content": "Two and two."}})
    (Said(kind='reasoning', text='Two and two.'), Said(kind='answer', text='4.'))
    """
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content = message["content"] if message.get("content") is not None else choice.get("text")
    found = [Said("reasoning", text) for text in (*_named_thoughts(message), *_named_thoughts(choice))]
    found += _of_content(content)
    calls = message.get("tool_calls")
    for call in (*(calls if isinstance(calls, list) else ()), message.get("function_call")):
        found += [Said("tool call", text) for text in _given_to(call)]
    # A blank may be all that an answer of one token says.
    return tuple(_once([said for said in found if (said.text if said.kind == "answer" else said.text.strip())]))


def _named_thoughts(where: dict[str, Any], depth: int = 1) -> Iterator[str]:
    """Reasoning under whatever name in a message, or in what a proxy adds to it."""
    for name, value in where.items():
        if is_thought(name):
            yield from _strings(value)
        elif depth and isinstance(value, dict) and name not in ("message", "logprobs", "usage", "function_call"):
            yield from _named_thoughts(value, depth - 1)


def _strings(value: Any, depth: int = _DEEPEST) -> Iterator[str]:
    """The texts within a value; plain parts in a row are pieces of one."""
    if isinstance(value, str):
        yield sound_text(value) or ""
    elif isinstance(value, list) and depth:
        pieces: list[str] = []
        for item in value:
            plain = item if isinstance(item, str) else _plain(item)
            if plain is not None:
                pieces.append(sound_text(plain) or "")
                continue
            yield "".join(pieces)
            pieces = []
            yield from _strings(item, depth - 1)
        yield "".join(pieces)
    elif isinstance(value, dict) and depth:
        for name, item in value.items():
            if not _NO_TEXT.search(name):
                yield from _strings(item, depth - 1)


def _plain(part: Any) -> str | None:
    """The text of a part that is nothing but text."""
    if not isinstance(part, dict) or part.get("type") not in ("text", "output_text"):
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _of_content(content: Any) -> Iterator[Said]:
    if isinstance(content, dict):
        content = content["parts"] if isinstance(content.get("parts"), list) else [content]
    if not isinstance(content, list):
        yield Said("answer", sound_text(content) or "")
        return
    pieces: list[str] = []
    for part in content:
        others = _of_part(part)
        if others is None:
            pieces.append((part if isinstance(part, str) else sound_text(part.get("text"))) or "")
        elif others:
            yield Said("answer", "".join(pieces))
            pieces = []
            yield from others
    yield Said("answer", "".join(pieces))


def _of_part(part: Any) -> list[Said] | None:
    """Reasoning and tool calls of a part of content; None where it is text, and nothing where it is none of these."""
    if isinstance(part, str):
        return None
    if not isinstance(part, dict):
        return []
    kind = sound_text(part.get("type")) or ""
    if _THOUGHT.search(kind) or part.get("thought") is True:
        return [Said("reasoning", text) for text in _strings({k: v for k, v in part.items() if k != "thought"})]
    if _CALLED.search(kind) or any(_CALLED.search(name) for name in part):
        return [Said("tool call", text) for text in _given_to(part)]
    if thoughts := list(_named_thoughts(part)):
        return [Said("reasoning", text) for text in thoughts]
    return None if kind in ("", "text", "output_text") and isinstance(part.get("text"), str) else []


def _given_to(call: Any, depth: int = 2) -> Iterator[str]:
    """What a call hands to its tool: the model's own JSON, or JSON as models write it where a server took it apart."""
    if not isinstance(call, dict):
        return
    for name in _GIVEN:
        value = call.get(name)
        if isinstance(value, str):
            yield sound_text(value) or ""
            return
        if isinstance(value, dict | list) and value:
            with contextlib.suppress(RecursionError):
                yield sound_text(json.dumps(value, ensure_ascii=False)) or ""
            return
    for value in call.values() if depth else ():
        yield from _given_to(value, depth - 1)


def _once(found: list[Said]) -> Iterator[Said]:
    """Without reasoning that stands in another text of the answer too, and calls that are given twice."""
    if len(found) > _MOST_COMPARED:
        yield from dict.fromkeys(found)
        return
    for place, said in enumerate(found):
        core = said.text.strip()
        others = [(at, other) for at, other in enumerate(found) if at != place]
        if said.kind == "reasoning" and any(_holds(other, core, at < place) for at, other in others):
            continue
        if said.kind == "tool call" and any(at < place and other == said for at, other in others):
            continue
        yield said


def _holds(other: Said, core: str, before: bool) -> bool:
    """Whether another text is the one to read: it has this one in it, and of two equal thoughts the first is read."""
    if other.kind == "tool call" or core not in other.text:
        return False
    return other.kind == "answer" or before or len(core) < len(other.text.strip())
