"""Answers that were served in the past, as logs hold them, with all that a twin's law rests on: read, or refused.

A line is one of `dyetrace generate`'s, or a request and an answer in OpenAI's form: "messages" or "prompt" and settings
(at the top, under "request" or under "body"), and the answer as "response" or "text" (a string, or what the API sent).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from watermark.errors import DyetraceError
from watermark.keys.secret import SecretKey
from watermark.twins.pair import Pair, TwinAnswer

_SETTINGS = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "max_tokens": ("max_tokens", "max_completion_tokens", "max_new_tokens"),
}
_OPTIONS = {"temperature": "--temperature", "top_p": "--top-p", "top_k": "--top-k", "max_tokens": "--max-tokens"}
_OTHER_LAW = (
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "min_p",
    "typical_p",
    "logit_bias",
    "stop",
    "response_format",
    "tools",
    "functions",
)
"""Settings that change the law of an answer, and that a local model is not asked with here."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What the owner says of all answers of a log; None where the log says it.

    Attributes
    ----------
    temperature, top_p, top_k, max_tokens
        Of sampling.
    system
        The system prompt.
    model
        What the log calls the model that is given.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    system: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """An answer that was served, or was logged and never served.

    Attributes
    ----------
    where
        File and line, for messages.
    id
        That of the pair which it will be in: by the twin key, the prompt, its time and its own id, and never by its
        text.
    made
        When its request came.
    account
        Whose it was.
    request
        That of the pair which it will be in: by the twin key, the prompt and the log's id, never by its text.
        names, all other settings on record.
    answer
        What was served.
    prompt_token_ids
        What the model read, where that is on record.
    spec_id, tenant
        What marked it; None for unmarked text.
    model_sha256
        Of the model that made it, where that is on record.
    counted
        Whether its finish reason is not on record and follows from its length: so must its twin's.
    """

    where: str
    id: str
    made: str
    account: str | None
    request: dict[str, Any]
    answer: TwinAnswer
    prompt_token_ids: list[int] | None = None
    spec_id: str | None = None
    tenant: str | None = None
    model_sha256: str | None = None
    counted: bool = False

    @property
    def prompt(self) -> str:
        """The last thing that was asked, for people."""
        if "prompt" in self.request:
            return str(self.request["prompt"])
        return str(self.request["messages"][-1]["content"])

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages that the model is shown."""
        found: list[dict[str, str]] = self.request.get("messages") or [{"role": "user", "content": self.prompt}]
        return found

    @property
    def other_settings(self) -> list[str]:
        """Settings on record that change the law and that are none of `Stated`."""
        return [name for name in _OTHER_LAW if self.request.get(name) not in (None, 0, 0.0, [], {}, "")]

    def pair(self, twin: TwinAnswer, engine: dict[str, str]) -> Pair:
        """The pair, once its twin was drawn."""
        return Pair(
            id=self.id,
            made=self.made,
            account=self.account,
            request=self.request,
            answers=(self.answer, twin),
            served=0,
            level="regenerated",
            proof=None,
            prompt_token_ids=self.prompt_token_ids,
            engine=engine,
        )


def read_logged(path: Path, secret: SecretKey, stated: Stated) -> list[Logged]:
    """Read a log of served answers, in its order.

    Parameters
    ----------
    path
        JSONL.
    secret
        The twin key, which names pairs.
    stated
        What holds for all lines; a line that says otherwise is refused.

    Raises
    ------
    DyetraceError
        It can't be read, a line is no served answer, settings are missing, or a line contradicts what was stated.
    """
    try:
        text, written = path.read_bytes().decode("utf-8-sig"), path.stat().st_mtime
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DyetraceError(f"cannot read served answers from {path}: {reason}") from None
    began = datetime.fromtimestamp(written, UTC)
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            # Where the log has no times, its lines are in the order of time.
            time = (began + timedelta(microseconds=number)).isoformat(timespec="microseconds")
            found.append(_logged(line, f"{path}, line {number}", time, stated))
    if not found:
        raise DyetraceError(
            f"{path} holds no served answer; give JSON lines of `dyetrace generate` or of a server's log"
        )
    return _named(found, secret)


def _named(found: Sequence[Logged], secret: SecretKey) -> list[Logged]:
    """With the ids of their pairs, which a log that has grown gives again."""
    times, named = Counter[str](), []
    for one in found:
        key = json.dumps([one.id, one.account, one.request.get("messages"), one.request.get("prompt")])
        message = json.dumps(["regenerated", key, times[key]])
        times[key] += 1
        named.append(replace(one, id=secret.derive("pairs", message).fingerprint))
    return named


def _logged(line: str, where: str, time: str, stated: Stated) -> Logged:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        raise DyetraceError(f"{where} is not JSON; give one served answer a line") from None
    if not isinstance(body, dict):
        raise DyetraceError(f"{where} is not a JSON object; give one served answer a line")
    asked = next((body[name] for name in ("request", "body") if isinstance(body.get(name), dict)), body)
    text, finish, ids = _answer(body, where)
    request = _prompt(asked, where, stated.system)
    request |= _settings(asked, where, stated)
    engine = body.get("engine")
    ids = _ids(body.get("token_ids"), where, "token_ids") if ids is None else ids
    longest = request["max_tokens"]
    if ids is not None and len(ids) > longest:
        raise DyetraceError(
            f"{where}: the answer has {len(ids):,} tokens, and max_tokens ({longest:,}) allows no more; it was served "
            "under other settings"
        )
    counted = finish is None and ids is not None
    if counted:
        finish = "length" if len(ids or ()) == longest else "stop"
    return Logged(
        where=where,
        id=str(body.get("id", "")),
        made=_time(body, time, where),
        account=_string(body, ("account", "tenant"), where),
        request=request,
        answer=TwinAnswer(text=text, token_ids=ids, finish_reason=finish),
        prompt_token_ids=_ids(body.get("prompt_token_ids"), where, "prompt_token_ids"),
        spec_id=_string(body, ("spec_id",), where),
        tenant=_string(body, ("tenant",), where),
        model_sha256=_string(engine if isinstance(engine, dict) else body, ("model_sha256",), where),
        counted=counted,
    )


def _answer(body: dict[str, Any], where: str) -> tuple[str, str | None, list[int] | None]:
    """Text, finish reason and token ids, as far as they are on record."""
    found = next((body[name] for name in ("response", "text", "completion", "answer") if name in body), None)
    finish, ids = body.get("finish_reason"), None
    if isinstance(found, dict):
        found = found.get("body", found)
        choices = found.get("choices") if isinstance(found, dict) else None
        choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
        if not isinstance(choice, dict):
            raise DyetraceError(f"{where}: its response must have exactly one choice")
        finish, ids = choice.get("finish_reason", finish), choice.get("token_ids")
        message = choice.get("message")
        found = message.get("content") if isinstance(message, dict) else choice.get("text")
    if not isinstance(found, str):
        raise DyetraceError(f"{where} has no answer: a string 'text' or 'response', or a response of the API")
    if finish is not None and not isinstance(finish, str):
        raise DyetraceError(f"{where}: its finish_reason must be a string")
    return found, finish, _ids(ids, where, "token_ids")


def _prompt(asked: dict[str, Any], where: str, system: str | None) -> dict[str, Any]:
    messages, prompt = asked.get("messages"), asked.get("prompt")
    if messages is None and isinstance(prompt, str) and prompt.strip():
        if system is None:
            return {"prompt": prompt}
        return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}]}
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise DyetraceError(f"{where} has no prompt: a string 'prompt', or 'messages' with a role and a text each")
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    if system is not None:
        own = [message["content"] for message in plain if message["role"] == "system"]
        if own and own != [system]:
            raise DyetraceError(f"{where} has another system prompt than --system says; leave the option out")
        if not own:
            plain.insert(0, {"role": "system", "content": system})
    return {"messages": plain}


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def _settings(asked: dict[str, Any], where: str, stated: Stated) -> dict[str, Any]:
    """All settings of the law: of the line, or else as stated for all."""
    found = {name: asked[name] for name in (*_OTHER_LAW, "seed") if asked.get(name) is not None}
    found.pop("seed", None)  # of the request's own draw; the twin is another one
    for name, spellings in _SETTINGS.items():
        given = [asked[spelling] for spelling in spellings if asked.get(spelling) is not None]
        said = getattr(stated, name)
        if given and said is not None and given[0] != said:
            raise DyetraceError(
                f"{where} was served with {name} {given[0]!r}, and {_OPTIONS[name]} says {said}; leave that out"
            )
        value = given[0] if given else said
        if value is None and name == "top_k":
            value = 0
        if value is None:
            raise DyetraceError(
                f"{where} doesn't say with which {name} it was served, and a twin of another law convicts the "
                f"innocent; give {_OPTIONS[name]}"
            )
        if isinstance(value, bool) or not isinstance(value, int if name in ("top_k", "max_tokens") else (int, float)):
            raise DyetraceError(f"{where}: {name} must be a number (got {value!r})")
        found[name] = value
    model = asked.get("model")
    if isinstance(model, str):
        found["model"] = model
    elif stated.model is not None:
        found["model"] = stated.model
    return found


def _ids(value: Any, where: str, name: str) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(token) is int and 0 <= token < 2**32 for token in value):
        raise DyetraceError(f"{where}: its {name} must be a list of token ids")
    return value


def _string(body: dict[str, Any], names: Sequence[str], where: str) -> str | None:
    value = next((body[name] for name in names if body.get(name) is not None), None)
    if value is not None and not isinstance(value, str):
        raise DyetraceError(f"{where}: its {names[0]} must be a string")
    return value


def _time(body: dict[str, Any], default: str, where: str) -> str:
    """When the request came: "made" or "created_at" (ISO 8601) or "created" (seconds since 1970)."""
    value = next((body[name] for name in ("made", "created_at", "created") if body.get(name) is not None), None)
    try:
        if value is None:
            return default
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            found = found if found.tzinfo else found.replace(tzinfo=UTC)
        else:
            found = datetime.fromtimestamp(float(value), UTC)
        return found.astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, TypeError, OverflowError, OSError):
        raise DyetraceError(f"{where}: its time must be ISO 8601 or seconds since 1970 (got {value!r})") from None
