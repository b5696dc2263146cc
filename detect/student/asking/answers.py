"""What an endpoint answered: texts and log-probabilities out of whatever OpenAI-compatible servers send.

Formats read: OpenAI (chat, legacy completions), vLLM, SGLang, llama.cpp's server (whose completions carry the chat form
of logprobs, with token ids), Ollama (which ignores ``n``), llama-cpp-python. Everything in an answer is the suspect's
and is trusted in nothing: what is broken becomes a reason, never an exception and never a number out of range.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from detect.student.asking.error_bodies import error_message as error_message
from detect.student.asking.error_bodies import error_of
from detect.student.asking.error_bodies import one_line as one_line
from detect.student.asking.message_texts import Said, is_thought, sound_text, texts_of
from detect.student.asking.placing import Places, places_of
from detect.student.asking.positions import LEAST_LOGPROB as LEAST_LOGPROB
from detect.student.asking.positions import Position as Position
from detect.student.asking.positions import TokenLogprob as TokenLogprob
from detect.student.asking.usage import usage_of

_ROUNDING = 0.01  # a logprob that much above 0, or probabilities that sum to that much above 1, are still rounding
_SIGNS = ("\u0120", "\u010a", "\u2581")  # a blank, a line feed and a blank in pieces of vocabularies
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES_OF = {" ": 32} | {chr(byte): byte for byte in _PRINTABLE}
_BYTES_OF |= {chr(256 + n): byte for n, byte in enumerate(byte for byte in range(256) if byte not in _PRINTABLE)}
"""Characters by which GPT-2's vocabulary, and most since, write bytes."""
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})|(.)", re.DOTALL)


@dataclass(frozen=True)
class SuspectAnswer:
    """One answer of the suspect.

    Attributes
    ----------
    prompt
        Index into the plan's prompts.
    sample
        Number of the sample of that prompt, from 0; numbers of unusable answers are missing.
    text
        The answer proper; "" where there is none. Valid Unicode, otherwise as sent: it may hold terminal escapes
        (`detect.report.wording.clean` for showing it).
    tokens
        Positions with their logprobs; None where the server sent none.
    finish_reason
        "stop", "length" and so on, or None.
    prompt_tokens, completion_tokens
        Of the request that this answer came with, as counted by the endpoint; None where it doesn't say.
    entry
        The answer's entry in the ledger.
    parts
        Its reasoning, the answer proper and its calls of tools, where there is more than the answer proper.
    """

    prompt: int
    sample: int
    text: str
    tokens: tuple[Position, ...] | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    entry: int
    parts: tuple[Said, ...] = ()

    @property
    def said(self) -> tuple[Said, ...]:
        """All its texts, each for itself, in the order in which they were written."""
        return self.parts or ((Said("answer", self.text),) if self.text else ())

    @cached_property
    def places(self) -> list[Places | None]:
        """Where the tokens begin in each of the texts (`places_of`); None for a text that no logprobs belong to."""
        if self.tokens is None:
            return [None] * len(self.said)
        return places_of(self.said, self.tokens)

    @property
    def has_logprobs(self) -> bool:
        """Whether they can be used for the answer proper, or for the reasoning of one that has nothing else."""
        return any(places or not said.text.strip() for said, places in self._proper if places is not None)

    @property
    def is_spelled(self) -> bool:
        """Whether they spell one of those texts, be it that all of them stand at the ends of characters."""
        return any(places is not None for _, places in self._proper)

    @property
    def _proper(self) -> list[tuple[Said, Places | None]]:
        pairs = list(zip(self.said, self.places, strict=True))
        return [pair for pair in pairs if pair[0].kind == "answer"] or pairs


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a response's choices.

    Attributes
    ----------
    text
        The answer proper.
    problem
        Why there is none.
    parts
        Its reasoning, the answer proper and its calls of tools, where there is more than the answer proper.
    token_ids, prompt_token_ids
        Of the answer and of what the model read before it; None where the server does not send them (vLLM does when
        asked with ``return_token_ids``). An answer may have ids and positions, and still no text.
    """

    text: str
    tokens: tuple[Position, ...] | None
    finish_reason: str | None
    problem: str | None = None
    token_ids: tuple[int, ...] | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    parts: tuple[Said, ...] = ()

    @property
    def said(self) -> tuple[Said, ...]:
        """All its texts, each for itself, in the order in which they were written; there may be no answer proper."""
        return self.parts or ((Said("answer", self.text),) if self.text else ())


@dataclass(frozen=True, slots=True)
class Response:
    """A response body as read.

    Attributes
    ----------
    choices
        Usable or not, as many as were asked for at most.
    prompt_tokens, completion_tokens
        None where the endpoint doesn't say.
    model
        What the endpoint calls the model that answered.
    error
        The status and the message where the body is an error; some proxies send it with status 200.
    problem
        Why there are no choices at all.
    """

    choices: tuple[Choice, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str = ""
    error: tuple[int | None, str] | None = None
    problem: str | None = None


def read_response(payload: bytes, wanted: int) -> Response:
    """Read a response body.

    Parameters
    ----------
    payload
        The bytes as they came; invalid UTF-8 in them becomes U+FFFD.
    wanted
        How many choices were asked for; more are ignored.
    """
    try:
        # The standard library's parser, since servers in Python write NaN and Infinity where JSON has none.
        body = json.loads(payload.decode("utf-8", "replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return Response(problem="not JSON")
    if not isinstance(body, dict):
        return Response(problem="not a JSON object")
    if error := error_of(body):
        return Response(error=error, problem="an error in place of an answer")
    usage = usage_of(body)
    choices = body.get("choices")
    choices = choices if isinstance(choices, list) else []
    return Response(
        choices=tuple(_choice(choice, body.get("prompt_token_ids")) for choice in _in_order(choices)[:wanted]),
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        model=one_line(sound_text(body.get("model")) or "", 100),
        problem=None if choices else "no choices",
    )


def _in_order(choices: list[Any]) -> list[Any]:
    numbers = [choice.get("index") if isinstance(choice, dict) else None for choice in choices]
    if all(type(number) is int for number in numbers) and len(set(numbers)) == len(numbers):
        return sorted(choices, key=lambda choice: choice["index"])
    return choices


def _choice(choice: Any, prompt: Any) -> Choice:
    if not isinstance(choice, dict):
        return Choice("", None, None, "a choice that is no object")
    reason = sound_text(choice.get("finish_reason"))
    reason = one_line(reason, 40) if reason else None
    said = texts_of(choice)
    text = "".join(one.text for one in said if one.kind == "answer")
    ids = _ids(choice.get("token_ids")), _ids(choice.get("prompt_token_ids") or prompt)
    tokens = as_spelled(_positions(choice.get("logprobs")), [one.text for one in said])
    parts = said if any(one.kind != "answer" for one in said) else ()
    return Choice(text, tokens, reason, None if text else _why_empty(choice, reason, said), *ids, parts)


def _ids(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    return tuple(value) if all(type(token) is int and 0 <= token < 2**32 for token in value) else None


def _why_empty(choice: dict[str, Any], reason: str | None, said: Iterable[Said]) -> str:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    kinds = {one.kind for one in said}
    if message.get("refusal"):
        return "a refusal"
    if "tool call" in kinds or message.get("tool_calls") or message.get("function_call"):
        return "a tool call"
    if "reasoning" in kinds:
        return "reasoning alone, cut off before the answer"
    if reason == "content_filter":
        return "stopped by a content filter"
    content = choice.get("text") if message.get("content") is None else message["content"]
    return "no text" if sound_text(content) is None and not isinstance(content, list) else "an empty text"


def _positions(logprobs: Any) -> tuple[Position, ...] | None:
    if not isinstance(logprobs, dict):
        return None
    content = logprobs.get("content")
    # Some servers give reasoning's in a list of its own (DeepSeek); it was written first.
    thought = next((v for name, v in logprobs.items() if is_thought(name) and isinstance(v, list)), [])
    if (isinstance(content, list) and content) or thought:
        return tuple(_position(entry) for entry in [*thought, *(content if isinstance(content, list) else ())])
    tokens = logprobs.get("tokens")
    if isinstance(tokens, list) and tokens:
        return _legacy(tokens, logprobs.get("token_logprobs"), logprobs.get("top_logprobs"))
    return None


def as_spelled(tokens: tuple[Position, ...] | None, texts: Sequence[str]) -> tuple[Position, ...] | None:
    """Tokens with their bytes, where a server sends pieces of its vocabulary as they stand there ("Ġthe", "▁the").

    Parameters
    ----------
    tokens
        Of an answer.
    texts
        Its texts: they say which of the two it sends.
    """
    if tokens is None or not any(sign in position.chosen.text for position in tokens for sign in _SIGNS):
        return tokens
    spelled = b"".join(position.chosen.raw for position in tokens)
    if any(text.strip().encode() in spelled for text in texts if text.strip()):
        return tokens
    return tuple(Position(_unpieced(p.chosen), tuple(map(_unpieced, p.top))) for p in tokens)


def _unpieced(token: TokenLogprob) -> TokenLogprob:
    text = token.text.replace("\u2581", " ")
    raw = bytes(_BYTES_OF[c] for c in text) if all(c in _BYTES_OF for c in text) else text.encode()
    return token._replace(raw=raw)


def _position(entry: Any) -> Position:
    """One position of the chat form."""
    if not isinstance(entry, dict):
        return Position(TokenLogprob("", b"", None, math.nan), ())
    top = entry.get("top_logprobs")
    found = [_token(t.get("token"), t.get("bytes"), t.get("id"), t.get("logprob")) for t in _objects(top)]
    chosen = _token(entry.get("token"), entry.get("bytes"), entry.get("id"), entry.get("logprob"))
    return Position(chosen, _ranked(found))


def _legacy(tokens: list[Any], logprobs: Any, tops: Any) -> tuple[Position, ...]:
    """Positions of the completions form: parallel lists, and a dictionary of alternatives at each."""
    logprobs = logprobs if isinstance(logprobs, list) else []
    tops = tops if isinstance(tops, list) else []
    positions = []
    for place, token in enumerate(tokens):
        top = tops[place] if place < len(tops) else None
        found = [_token(word, None, None, value) for word, value in top.items()] if isinstance(top, dict) else []
        own = logprobs[place] if place < len(logprobs) else None
        positions.append(Position(_token(token, None, None, own), _ranked(found)))
    return tuple(positions)


def _token(text: Any, raw: Any, number: Any, logprob: Any) -> TokenLogprob:
    shown = sound_text(text) or ""
    identity = number if type(number) is int and 0 <= number < 2**32 else None
    if shown.startswith("token_id:") and shown[9:].isdecimal() and len(shown) < 20:
        # vLLM's --return-tokens-as-token-ids.
        return TokenLogprob(shown, b"", int(shown[9:]), _logprob(logprob))
    return TokenLogprob(shown, _raw(shown, raw), identity, _logprob(logprob))


def _raw(text: str, given: Any) -> bytes:
    if (
        isinstance(given, list)
        and all(type(byte) is int and 0 <= byte <= 255 for byte in given)
        and (given or not text)
    ):
        return bytes(given)
    if text.startswith("bytes:") and "\\x" in text:
        # OpenAI's completions: bytes:\xe2\x80, where other characters stand for themselves.
        parts = _ESCAPED.findall(text[6:])
        return b"".join(bytes([int(code, 16)]) if code else other.encode() for code, other in parts)
    return text.encode()


def _logprob(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    if math.isnan(number) or number > _ROUNDING:
        return math.nan
    return max(min(number, 0.0), LEAST_LOGPROB)


def _ranked(tokens: Iterable[TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """Alternatives with usable logprobs, each once, most likely first; none where their probabilities exceed 1."""
    best: dict[tuple[bytes, str, int | None], TokenLogprob] = {}
    for token in tokens:
        name = (token.raw, token.text, token.id)
        if not math.isnan(token.logprob) and (name not in best or best[name].logprob < token.logprob):
            best[name] = token
    ranked = sorted(best.values(), key=lambda token: -token.logprob)
    if math.fsum(math.exp(token.logprob) for token in ranked) > 1 + _ROUNDING:
        return ()
    return tuple(ranked)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Prompted:
    """What a server says of the tokens that it was given.

    Attributes
    ----------
    tokens
        All of them, what it wrote after them included; the first has no log-probability (NaN), since nothing stands
        before it.
    written
        How many at the end the server wrote itself.
    problem
        Why there are none.
    """

    tokens: tuple[TokenLogprob, ...] = ()
    written: int = 0
    problem: str | None = None


def read_prompt(payload: bytes) -> Prompted:
    """Read the log-probabilities of a request's own tokens.

    Forms: vLLM's ``prompt_logprobs``, inside the choice (completions) or beside it (chat), and ``echo`` with
    ``logprobs`` (OpenAI's legacy completions, vLLM, SGLang, llama-cpp-python).
    """
    response = read_response(payload, 1)
    if response.error is not None:
        return Prompted(problem=response.error[1])
    try:
        body = json.loads(payload.decode("utf-8", "replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return Prompted(problem="not JSON")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Prompted(problem=response.problem or "no choices")
    choice = choices[0]
    given = choice.get("prompt_logprobs") or body.get("prompt_logprobs")
    if isinstance(given, list) and given:
        ids = _ids(choice.get("prompt_token_ids") or body.get("prompt_token_ids"))
        tokens = [_prompt_token(entry, ids, place) for place, entry in enumerate(given)]
        return Prompted(tuple(tokens))
    # A choice whose whole text is the prompt's echo counts as well as one with a word after it.
    positions = _positions(choice.get("logprobs"))
    if positions is None:
        return Prompted(problem="no log-probabilities of the prompt's tokens")
    written = min(response.completion_tokens or 0, len(positions) - 1)
    return Prompted(tuple(position.chosen for position in positions), written)


def _prompt_token(entry: Any, ids: tuple[int, ...] | None, place: int) -> TokenLogprob:
    """One entry of vLLM's form: id -> {"logprob", "rank", "decoded_token"}, the token that stands there first."""
    if not isinstance(entry, dict) or not entry:
        return TokenLogprob("", b"", None, math.nan)
    name = str(ids[place]) if ids is not None and place < len(ids) else ""
    if name not in entry:
        name = next(iter(entry))
    found = entry[name] if isinstance(entry[name], dict) else {}
    number = int(name) if name.isdecimal() and len(name) <= 10 else None
    return _token(found.get("decoded_token"), None, number, found.get("logprob"))
