"""Chats of every shape as the texts of the turns that are wanted, each part by itself, and a count of all there was.

Known are lists of messages (also as JSON in a string, or as one list for each key), turns whose keys are the roles
(``{"user": ..., "assistant": ...}``), lists of texts, and what the interfaces of OpenAI, Anthropic and Google answer.
Reasoning and the arguments of calls are read as parts of their turn. Parts are never joined.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from detect.readers.batch import Broken, ReadOptions, Tally

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
_NO_NAMES = ("role", "from")  # of these; the others may say who wrote a book
CONTENT_KEYS = ("content", "value", "text", "parts", "blocks", "message", "utterance")
CALL_KEYS = ("tool_calls", "function_call", "functionCall", "function_calls", "tool_call")
"""A turn with one of these calls a tool and needs no text."""

ASSISTANTS = frozenset(
    "assistant gpt model bot chatbot ai chatgpt claude gemini gemma bard bing copilot llama vicuna tulu mistral "
    "mixtral qwen deepseek grok phi alpaca koala llm lm agent davinci openai anthropic cohere command kimi glm chatglm "
    "yi falcon dolly oasst generator machine helper".split()
)
"""Words of a role that is the assistant's, whatever else is said beside them: a version, a number, a size."""
OTHERS = frozenset(
    "user human prompter system developer tool tools function customer client observation environment".split()
)
"""Words of a role that is not the assistant's, whatever else is said beside them."""
ANSWERS = frozenset(
    "response responses completion completions output outputs answer answers solution solutions generation generations "
    "generated reply replies chosen rejected candidate candidates choice choices prediction predictions predicted "
    "continuation continuations attempt attempts accepted preferred target targets resp resps".split()
) | (ASSISTANTS - {"model", "agent", "machine", "helper", "command", "phi", "yi", "lm"})
"""Words in the names of fields that hold what a model answered."""
PROMPTS = frozenset(
    "prompt prompts question questions instruction instructions input inputs system query queries user human problem "
    "problems context contexts request requests task tasks premise source sources persona seed".split()
)
"""Words in the names of fields that hold what a model was asked."""
REASONING = frozenset(
    "reasoning thinking thought thoughts cot rationale rationales scratchpad trajectory trajectories analysis "
    "reflection explanation explanations justification critique plan".split()
)
CALLS = frozenset("tool tools function functions call calls".split())
ABOUT = frozenset("id ids signature effort tokens token count encrypted type name time duration budget score".split())
"""Words in the names of fields that say something about what other fields hold."""

_CHATS = ("messages", "contents", "conversations", "conversation", "chat", "turns", "dialogue", "dialog", "mapping")
_AROUND = ("body", "result", "message", "request", "data", "item", "content", "delta")
_CALL_TYPES = CALLS | frozenset("mcp computer executable code action".split())
_CALLING = frozenset(["call", "calls"])
_RESULTS = frozenset("result results response output outputs".split())
_ARGUMENTS = ("arguments", "input", "args", "parameters", "code", "action")
_SAID = ("text", "thinking", "reasoning", "summary", "content", "value", "thought", "refusal")
_TEXT_TYPES = frozenset(["text", "output_text", "input_text", "refusal", None])
_LONG = 32  # characters from which on a text that isn't read is worth a word
_MANY, _PIECE = 12, 12  # pieces of a text, and their characters on average, at most
_DEEPEST = 40  # nesting of lists and objects within each other
_LONGEST = 200  # characters of a role that are looked at
_NAMES = 40  # characters of a role or a field's name that are kept
_WORD = re.compile(r"[^\W\d_]+")
_NO_COMMA = re.compile(r"\}[ \t]*\n\s*\{")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@lru_cache(maxsize=1 << 12)
def words_of(name: str) -> frozenset[str]:
    """The words in a name of a field or role, in lower case: "modelAnswer_2" has "model" and "answer"."""
    return frozenset(word.casefold() for word in _WORD.findall(_CAMEL.sub(" ", name)))


@lru_cache(maxsize=1 << 12)
def head_of(name: str) -> str:
    """The last word in a name, which says what it is that the others describe; "" without any."""
    words = _WORD.findall(_CAMEL.sub(" ", name))
    return words[-1].casefold() if words else ""


@lru_cache(maxsize=1 << 12)
def is_call(role: str) -> bool:
    """Whether a role is none, but says that the assistant calls a tool: "function_call", "tool_calls"."""
    words = words_of(role)
    return bool(words & _CALLING) and bool(words & OTHERS) and not words & _RESULTS


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
    reasoning: bool = True
    tools: bool = True


def wanted(options: ReadOptions) -> Wanted:
    """What the options want of chats."""
    roles = frozenset(role.strip().casefold() for role in options.roles)
    return Wanted(roles, "reasoning" not in options.leave_out, "tools" not in options.leave_out)


@lru_cache(maxsize=1 << 12)
def is_read(role: str, roles: frozenset[str]) -> bool:
    """Whether turns of a role are read; "assistant" stands for every name of an assistant."""
    if role.strip().casefold() in roles:
        return True
    words = words_of(role)
    return "assistant" in roles and bool(words & ASSISTANTS) and not words & OTHERS


@lru_cache(maxsize=1 << 12)
def is_asked(role: str) -> bool:
    """Whether a role is surely not the assistant's."""
    words = words_of(role)
    return bool(words & OTHERS) and not words & ASSISTANTS


@lru_cache(maxsize=1 << 12)
def is_answer(key: str, roles: frozenset[str]) -> bool:
    """Whether a key of a turn without a role holds what is read."""
    return is_read(key, roles) or ("assistant" in roles and bool(words_of(key) & ANSWERS))


@lru_cache(maxsize=1 << 12)
def _is_question(key: str) -> bool:
    return bool(words_of(key) & (PROMPTS | OTHERS))


@lru_cache(maxsize=1 << 12)
def is_reasoning(key: str) -> bool:
    """Whether a field by this name holds reasoning."""
    words = words_of(key)
    return bool(words & REASONING) and not words & ABOUT


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
    walk = _Walk(column, want)
    chat = chat_in(value) if isinstance(value, str) else value
    try:
        if isinstance(chat, list):
            walk.entries(chat, _whose(column), 0)
        elif not isinstance(chat, dict) or not walk.whole(chat):
            raise wrong(value, column, "a list of messages")
    except RecursionError:
        raise Broken("is nested too deeply") from None
    for role, part, read, characters in walk.counted:
        tally.add(role, part, read, characters)
    return walk.texts


def glance(value: Any, column: str, want: Wanted) -> list[tuple[str, str, bool, int]] | None:
    """What `turns_of` would count of a list or object: role, part, whether it is read, characters; None of others."""
    walk = _Walk(column, want)
    try:
        if isinstance(value, list):
            walk.entries(value, _whose(column), 0)
        elif not isinstance(value, dict) or not walk.whole(value):
            return None
    except (Broken, RecursionError):
        return None
    return walk.counted


def _whose(column: str) -> str | None:
    """Whose the entries of a list are that don't say it: a model's, in fields named for what models answer."""
    words = words_of(column)
    return "assistant" if words & ANSWERS and not words & PROMPTS else None


def chat_in(text: str) -> Any:
    """The list or object that a string spells, as JSON or as Python writes it; None where it spells neither."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        try:
            # numpy writes no comma between objects; within texts Python writes ends of lines as \\n.
            found = ast.literal_eval(_NO_COMMA.sub("}, {", text.strip()))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
    return found if isinstance(found, list | dict) else None


class _Walk:
    """What one chat holds: texts that are read, and a line for each part."""

    def __init__(self, column: str, want: Wanted) -> None:
        self.column, self.want = column, want
        self.texts: list[str] = []
        self.counted: list[tuple[str, str, bool, int]] = []

    def take(self, role: str, part: str, read: bool, text: str) -> None:
        """Count a part, and read it if it is to be."""
        self.counted.append((role[:_NAMES], part, read, len(text)))
        if read:
            self.texts.append(text)

    def entries(self, entries: Sequence[Any], role: str | None, depth: int) -> None:
        """Turns, texts or lists of them; ``role`` is whose they are where they don't say."""
        if depth > _DEEPEST:
            raise Broken("is nested too deeply")
        if _are_pieces(entries):
            self.take(role or "", "text", True, "".join(entries))
            return
        roles, take = self.want.roles, self.take
        for number, entry in enumerate(entries, 1):
            if isinstance(entry, dict):
                if len(entry) == 2:
                    who, said = entry.get("role"), entry.get("content")
                    if type(who) is str and type(said) is str and said[:2] != "[{" and not is_call(who[:_LONGEST]):
                        take(who, "text", is_read(who[:_LONGEST], roles), said)  # most turns there are
                        continue
                self.entry(entry, role, number, depth)
            elif isinstance(entry, str):
                take("", "text", True, entry)
            elif isinstance(entry, list):
                self.entries(entry, role, depth + 1)
            elif entry is None:
                self.counted.append((role or "", "null", False, 0))
            else:
                raise Broken(f"has {name_of(entry)} as message {number} of {self.column!r}, not an object")

    def whole(self, chat: dict[str, Any]) -> bool:
        """A chat that is an object; tell whether it is one of a known kind."""
        if _role(chat) is not None:
            self.turn(chat, str(_role(chat)), 1, 0)
            return True
        turned = self.transposed(chat)
        if turned is not None:
            self.entries(turned, None, 0)
            return True
        if isinstance(chat.get("parts"), list):
            self.content(chat, "", True, 1, 0)
            return True
        if self.container(chat, None, 0):
            return True
        kept = {key: value for key, value in chat.items() if isinstance(value, str | list) and value}
        answers = [key for key in kept if is_answer(key, self.want.roles)]
        if answers and len(answers) < len(kept) and all(_is_question(key) for key in kept if key not in answers):
            self.pair(chat, 1, 0)
            return True
        return False

    def entry(self, entry: dict[str, Any], role: str | None, number: int, depth: int) -> None:
        """One of a list: a turn, an answer of an interface, a part, or a question and its answer."""
        own = _role(entry)
        if own is not None:
            self.turn(entry, own, number, depth)
        elif isinstance(entry.get("type"), str) and (inner := _said_within(entry)) is not None:
            said_by = entry["type"] if _is_role(entry["type"][:_LONGEST]) else _role(inner)
            self.turn(inner, str(said_by), number, depth + 1)
        elif isinstance(entry.get("type"), str) and entry["type"] != "message" and not self.is_turn(entry, role):
            self.part(entry, role or "", role is None or is_read(role, self.want.roles), number)
        elif self.container(entry, role, depth):
            pass
        elif role is not None and any(key in entry for key in (*CONTENT_KEYS, *CALL_KEYS)):
            self.turn(entry, role, number, depth)
        elif any(
            isinstance(value, str | list) and (is_answer(key, self.want.roles) or _is_question(key))
            for key, value in entry.items()
        ):
            self.pair(entry, number, depth)
        elif (
            any(key in entry for key in CALL_KEYS)
            or isinstance(entry.get("function"), dict)
            or (isinstance(entry.get("name"), str) and _arguments(entry) is not None)
        ):
            self.calls([entry], "", read=True)
        else:
            raise Broken(f"has a message without 'role' or 'from' ({self.column!r}, message {number})")

    def is_turn(self, entry: dict[str, Any], role: str | None) -> bool:
        """Whether an entry that says a type is an answer around a message, not a part of one."""
        return any(isinstance(entry.get(key), dict) for key in ("message", "body")) and role is None

    def transposed(self, chat: dict[str, Any]) -> list[dict[str, Any]] | None:
        """One object for each turn from one list for each key, as `datasets` stores a sequence of objects."""
        lists = {key: items for key, items in chat.items() if items is not None}
        if not any(isinstance(lists.get(key), list) for key in ROLE_KEYS):
            known = [key for key in lists if is_answer(key, self.want.roles) or _is_question(key)]
            strings = all(isinstance(x, list) and all(isinstance(y, str) for y in x) for x in lists.values())
            if len(known) < 2 or not strings or len({len(items) for items in lists.values()}) > 1:
                return None
        if not all(isinstance(items, list) for items in lists.values()) or len({len(x) for x in lists.values()}) > 1:
            raise wrong(chat, self.column, "a list of messages")
        return [dict(zip(lists, turn, strict=True)) for turn in zip(*lists.values(), strict=True)]

    def container(self, entry: dict[str, Any], role: str | None, depth: int) -> bool:
        """What interfaces answer, with turns some way below; tell whether it is one."""
        if depth > _DEEPEST:
            raise Broken("is nested too deeply")
        used: list[str] = []
        for key, value in entry.items():
            if not isinstance(value, list | dict) or not value:
                continue
            if key in _CHATS:
                whose = "user" if key == "contents" else None
            elif key in _AROUND:
                whose = role
            elif words_of(key) & ANSWERS and not words_of(key) & ABOUT:
                whose = "assistant"
            else:
                continue
            if isinstance(value, list):
                objects = [one for one in value if one is not None]
                if key in _AROUND or not objects or not all(isinstance(one, dict) for one in objects):
                    continue
                self.entries(objects, whose, depth + 1)
            elif (own := _role(value)) is not None:
                self.turn(value, own, 1, depth + 1)
            elif not self.container(value, whose, depth + 1):
                if whose is None or not any(name in value for name in (*CONTENT_KEYS, *CALL_KEYS)):
                    continue
                self.turn(value, whose, 1, depth + 1)
            used.append(key)
        if not used:
            values = list(entry.values())
            if len(values) < 1 or not all(isinstance(value, dict) for value in values):
                return False
            if not all(_role(value) is not None or "message" in value for value in values):
                return False
            for number, value in enumerate(values, 1):  # turns by their number or name
                if value.get("message", value) is not None:
                    self.entry(value, role, number, depth + 1)
            return True
        for key, value in entry.items():
            if key not in used:
                self.beside(key, value, role or "", read=True)
        return True

    def pair(self, entry: dict[str, Any], number: int, depth: int) -> None:
        """A turn whose keys are the roles."""
        for key, value in entry.items():
            if value is None:
                continue
            if is_reasoning(key):
                self.beside(key, value, "", read=True)
            elif isinstance(value, str | list | dict) and is_answer(key, self.want.roles):
                self.content(value, key, True, number, depth)
            elif isinstance(value, str | list | dict) and _is_question(key):
                self.content(value, key, is_read(key, self.want.roles), number, depth)
            else:
                self.beside(key, value, "", read=True)

    def turn(self, turn: dict[str, Any], role: str, number: int, depth: int) -> None:
        """All that a turn holds."""
        if depth > _DEEPEST:
            raise Broken("is nested too deeply")
        calls = is_call(role) and role.strip().casefold() not in self.want.roles
        read = is_read("assistant" if calls else role, self.want.roles)
        before, empty = len(self.counted), False
        for key, value in turn.items():
            if key in CONTENT_KEYS:
                empty = True
                if calls and isinstance(value, str | dict):
                    self.calls(value, role, read)
                elif value is not None:
                    self.content(value, role, read, number, depth)
            elif key in ROLE_KEYS:
                continue
            elif isinstance(value, str) and words_of(key) & ANSWERS and not words_of(key) & (ABOUT | {"model"}):
                self.take(role, "text", read, value)
            elif isinstance(value, list) and value and all(map(_is_turn, value)):
                self.entries(value, None, depth + 1)  # replies to this turn, of whoever
            else:
                self.beside(key, value, role, read)
        if len(self.counted) == before and not empty and not any(key in turn for key in CALL_KEYS):
            raise Broken(f"has a message without 'content' or 'value' ({self.column!r}, message {number})")

    def content(self, content: Any, role: str, read: bool, number: int, depth: int) -> None:
        """What a turn says: a text, or parts."""
        if isinstance(content, str) and content[:2] == "[{" and _are_parts(parts := chat_in(content)):
            content = parts
        if isinstance(content, str):
            self.take(role, "text", read, content)
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, str):
                    self.take(role, "text", read, part)
                elif isinstance(part, dict):
                    self.part(part, role, read, number)
                elif part is not None:
                    raise Broken(f"has {name_of(part)} among the parts of message {number} of {self.column!r}")
        elif isinstance(content, dict):
            own = _role(content)
            if own is not None:
                self.turn(content, own, number, depth + 1)
            elif isinstance(content.get("parts"), list):
                self.content(content["parts"], role, read, number, depth + 1)
            elif any(key in content for key in CONTENT_KEYS) and "type" not in content:
                self.turn(content, role, number, depth + 1)
            else:
                self.part(content, role, read, number)
        else:
            raise Broken(f"has {name_of(content)} as content of message {number} of {self.column!r}, not text")

    def part(self, part: dict[str, Any], role: str, read: bool, number: int) -> None:
        """A part of a turn, by its type or, where it says none, by what it has."""
        kind = part.get("type")
        if kind is None and part.get("text") is None and part.get("thought") is not True:
            self.untyped(part, role, read, number)
            return
        words = words_of(kind) if isinstance(kind, str) else frozenset()
        called = next((key for key in CALL_KEYS if part.get(key) is not None), None)
        if words & REASONING or "summary" in words or part.get("thought") is True:
            said = [text for key in _SAID for text in _strings(part.get(key))]
            for text in said:
                self.take(role, "reasoning", read and self.want.reasoning, text)
            if not said:
                self.left(kind, part, role)
        elif kind in _TEXT_TYPES:
            texts = [part[key] for key in _SAID if isinstance(part.get(key), str)]
            if texts:
                self.take(role, "text", read, texts[0])
            elif called is not None:
                self.calls(part[called], role, read)
            else:
                raise Broken(f"has a part without 'text' in message {number} of {self.column!r}")
        elif words & _RESULTS:
            self.left(kind, part, role)
        elif words & _CALL_TYPES:
            self.calls([part] if called is None else part[called], role, read)
        elif isinstance(part.get("text"), str):
            self.take(role, "text", read, part["text"])
        else:
            self.left(kind, part, role)

    def untyped(self, part: dict[str, Any], role: str, read: bool, number: int) -> None:
        """A part that says neither a type nor a text: Google's and Amazon's, or whatever somebody made up."""
        if not part:
            raise Broken(f"has a part without 'text' in message {number} of {self.column!r}")
        there = {key: value for key, value in part.items() if value is not None}
        for key, value in there.items():
            words = words_of(key)
            if is_reasoning(key):
                self.beside(key, value, role, read)
            elif isinstance(value, str) and not words & ABOUT:
                self.take(role, "text", read, value)
            elif isinstance(value, dict | list) and words & _CALL_TYPES and not words & _RESULTS:
                self.calls(value, role, read)
            else:
                self.left(key, value, role)
        if not there:
            self.left("null", None, role)

    def left(self, kind: object, part: Any, role: str) -> None:
        """Count a part that isn't text of the turn."""
        self.counted.append((role[:_NAMES], str(kind)[:_NAMES], False, _length(part)))

    def beside(self, key: str, value: Any, role: str, read: bool) -> None:
        """A field of a turn beside what it says."""
        if value is None or isinstance(value, bool | int | float) or not value:
            return
        if key in CALL_KEYS:
            self.calls(value, role, read)
        elif is_reasoning(key):
            for text in _strings(value):
                self.take(role, "reasoning", read and self.want.reasoning, text)
        elif key == "refusal" and isinstance(value, str):
            self.take(role, "text", read, value)
        elif key == "audio" and isinstance(value, dict) and isinstance(value.get("transcript"), str):
            self.take(role, "text", read, value["transcript"])
        elif read and _length(value):
            self.counted.append((role[:_NAMES], f"field {key[:_NAMES]}", False, _length(value)))

    def calls(self, calls: Any, role: str, read: bool) -> None:
        """The arguments of calls of tools, as the model wrote them or as JSON writes them again."""
        if isinstance(calls, str):
            calls = [chat_in(calls) or calls]
            calls = calls[0] if isinstance(calls[0], list) else calls
        for call in calls if isinstance(calls, list) else [calls]:
            given = _arguments(call)
            if given is None:
                continue
            text = given if isinstance(given, str) else json.dumps(_without_nulls(given), ensure_ascii=False)
            self.take(role, "tools", read and self.want.tools, text)
            if read and self.want.tools:
                # Engines write JSON anew; a model that doesn't call tools in JSON has written texts as they are.
                self.texts += _escaped(chat_in(given) if isinstance(given, str) else given)


def _are_pieces(entries: Sequence[Any]) -> bool:
    """Whether a list holds one text as it was streamed, in pieces: texts of their own have no blanks at their ends."""
    if len(entries) < _MANY or not all(type(piece) is str for piece in entries):
        return False
    edged = sum(piece[:1].isspace() or piece[-1:].isspace() for piece in entries)
    return 3 * edged > len(entries) and sum(map(len, entries)) < _PIECE * len(entries)


def _are_parts(value: Any) -> bool:
    """Whether a value is a list of parts of a turn, each of which says its type."""
    return isinstance(value, list) and all(isinstance(x, dict) and isinstance(x.get("type"), str) for x in value)


def _is_turn(value: Any) -> bool:
    """Whether a value says plainly whose turn it is, and what was said."""
    return (
        isinstance(value, dict)
        and any(isinstance(value.get(key), str) for key in ROLE_KEYS)
        and any(isinstance(value.get(key), str | list) for key in CONTENT_KEYS)
    )


def _role(turn: dict[str, Any]) -> str | None:
    for key in ROLE_KEYS:
        found = turn.get(key)
        if found is None or (key not in _NO_NAMES and not any(name in turn for name in CONTENT_KEYS)):
            continue
        if isinstance(found, dict):
            found = found.get("role", found.get("name"))
        if isinstance(found, str) or (isinstance(found, int) and not isinstance(found, bool)):
            return str(found)[:_LONGEST]
    if not any(isinstance(turn.get(key), str | list) for key in CONTENT_KEYS):
        return None
    # By whatever name: a short word that says whose it is, and nothing else.
    short = (x for key, x in turn.items() if key not in CONTENT_KEYS and isinstance(x, str) and len(x) <= _NAMES)
    return next((x for x in short if len(x.split()) == 1 and _is_role(x)), None)


def _said_within(entry: dict[str, Any]) -> dict[str, Any] | None:
    """What a turn holds whose text stands in an object of its own: {"type": "ai", "data": {"content": ...}}."""
    known = _is_role(entry["type"][:_LONGEST])
    for value in entry.values():
        if isinstance(value, dict) and any(isinstance(value.get(key), str | list) for key in CONTENT_KEYS):
            whose = value.get("type")  # LangChain's
            if known or (isinstance(whose, str) and _is_role(whose[:_LONGEST])):
                return value
    return None


@lru_cache(maxsize=1 << 12)
def _is_role(word: str) -> bool:
    words = words_of(word)
    return bool(words & (ASSISTANTS | OTHERS)) and not words & (_CALL_TYPES | REASONING | _RESULTS)


def _arguments(call: Any) -> Any:
    """What a tool is called with; None where nothing is."""
    if isinstance(call, str) or not isinstance(call, dict):
        return call or None
    inner = [value for value in call.values() if isinstance(value, dict)]
    for place in (call.get("function"), call.get("custom"), call, *inner):
        if isinstance(place, dict) and not ("parameters" in place and "description" in place):  # what a tool is
            for key in _ARGUMENTS:
                if place.get(key) not in (None, ""):
                    return place[key]
    rest = {key: value for key, value in call.items() if not words_of(key) & (ABOUT | _RESULTS | OTHERS)}
    return rest if _length(rest) else None


def _without_nulls(value: Any) -> Any:
    """The same without members that are null: tables have all keys of a column in every row."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _strings(value: Any) -> Iterator[str]:
    """Texts in what a model has said somehow."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, dict):
        known = [key for key in _SAID if value.get(key) is not None]
        for key in known or [key for key in value if not words_of(key) & ABOUT]:
            yield from _strings(value[key])


def _escaped(value: Any) -> list[str]:
    """Long texts within arguments that JSON writes with escapes."""
    if isinstance(value, str):
        return [value] if len(value) >= _LONG and len(json.dumps(value, ensure_ascii=False)) > len(value) + 2 else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in _escaped(one)]


def _length(value: Any) -> int:
    """Characters of all long texts within a value."""
    if isinstance(value, str):
        return len(value) if len(value) >= _LONG else 0
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_length, inner))


def wrong(value: Any, column: str, what: str) -> Broken:
    """That a field holds something else."""
    return Broken(f"has {name_of(value)} in field {column!r}, not {what}")


def name_of(value: Any) -> str:
    """A value's kind in words."""
    if value is None:
        return "null"
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a value")
