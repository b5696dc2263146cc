"""How a prompt becomes the tokens that a local model reads: one way for all that asks a model or lets it read.

A chat template writes all special tokens itself. Without one, a prompt stands behind what the tokenizer puts in front
of any text: models that were taught with such a token (Gemma's <bos>) write nonsense without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from watermark.errors import DyetraceError, MachineError

__all__ = ["as_chat", "encode_prompt", "leading_tokens", "template_of", "well_formed"]

Message = Mapping[str, Any]
"""A turn of a chat: "role" and "content"."""

_NEEDLE = "dyetrace{}asks"  # stands for a message, to see where a template puts it
_PURPOSES = ("tool_use", "rag")  # templates of these names are for chats with tools or documents
_SAMPLES = ("a", "1", ".", "the")


def template_of(tokenizer: Any) -> str | None:
    """The chat template that plain chats go through; None where the model has none.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer. Of several named templates the one called "default" is taken, or the only one that is
        not for tools or documents. A template that stands in the model's folder for its processor (chat_template.json,
        processor_config.json) counts as the tokenizer's.

    Raises
    ------
    DyetraceError
        There are several, and none is the one for plain chats.
    """
    found = getattr(tokenizer, "chat_template", None) or _of_processor(tokenizer)
    if isinstance(found, list | tuple):
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
    if isinstance(found, dict):
        named = {str(name): text for name, text in found.items() if isinstance(text, str) and text}
        plain = [name for name in named if name not in _PURPOSES] or list(named)
        if "default" not in named and len(plain) > 1:
            raise DyetraceError(
                f"the model has several chat templates ({', '.join(map(ascii, sorted(named)))}) and none is called "
                "'default'; give that name, in its tokenizer_config.json, to the one that is for plain chats"
            )
        found = named.get("default") or (named[plain[0]] if plain else None)
    return found if isinstance(found, str) and found else None


def _of_processor(tokenizer: Any) -> Any:
    """The chat template that a model's folder has for what takes pictures as well."""
    folder = getattr(tokenizer, "name_or_path", None)
    if not isinstance(folder, str | os.PathLike) or not folder:
        return None
    for name in ("chat_template.json", "processor_config.json"):
        try:
            found = json.loads((Path(folder) / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict) and found.get("chat_template"):
            return found["chat_template"]
    return None


def leading_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Ids that a tokenizer puts in front of any text: the token that begins a text, or none.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer, or a `tokenizers.Tokenizer`.
    """
    for sample in _SAMPLES:
        if callable(tokenizer):
            bare = list(tokenizer(sample, add_special_tokens=False)["input_ids"])
            whole = list(tokenizer(sample)["input_ids"])
        else:
            bare, whole = (tokenizer.encode(sample, add_special_tokens=added).ids for added in (False, True))
        places = [place for place in range(len(whole)) if whole[place : place + len(bare)] == bare]
        if bare and places:
            return tuple(whole[: places[0]])
    return ()


def encode_prompt(
    tokenizer: Any, prompt: str, messages: Sequence[Message] | None = None, *, chat: bool = True
) -> list[int]:
    """The ids of a prompt after which a model is to write.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer.
    prompt
        What is asked, for models without a chat template.
    messages
        The same as a chat; by default the prompt as the user's only message.
    chat
        Whether the chat template is used, where there is one.

    Raises
    ------
    DyetraceError
        As `as_chat`.
    """
    if chat and template_of(tokenizer) is not None:
        told = as_chat(tokenizer, [{"role": "user", "content": prompt}] if messages is None else messages)
        return list(tokenizer(well_formed(told), add_special_tokens=False)["input_ids"])
    return [*leading_tokens(tokenizer), *tokenizer(well_formed(prompt), add_special_tokens=False)["input_ids"]]


def as_chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    """What a model's chat template makes of messages, up to where the answer begins.

    Templates of models that see pictures as well take the text of a message in parts, and say nothing of a plain one:
    messages that a template would leave out are given to it in parts.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer with a chat template.
    messages
        The chat, oldest first.

    Raises
    ------
    DyetraceError
        The template refuses the chat, or leaves out what the user asks.
    MachineError
        A package that templates need is missing or too old.
    """
    template = template_of(tokenizer)
    asked = [{**one, "content": _cleaned(one.get("content"))} for one in messages]
    plain = tuple(isinstance(one["content"], str) for one in asked)
    try:
        form = _form(tokenizer, template, tuple(str(one.get("role")) for one in asked), plain)
        return _rendered(tokenizer, template, _in_form(asked, form))
    except DyetraceError:
        raise
    except ImportError as error:
        raise MachineError(f"chat templates need another package: {_line(error)}") from error
    except Exception as error:  # a template raises what it likes
        raise DyetraceError(
            f"the model's chat template can't take this chat: {type(error).__name__}: {_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@lru_cache(maxsize=64)
def _form(tokenizer: Any, template: str | None, roles: tuple[str, ...], plain: tuple[bool, ...]) -> tuple[bool, ...]:
    """Of each message whether a template wants its text in parts, seen by needles that stand in for the texts."""
    needles = [_NEEDLE.format(number) for number in range(len(roles))]
    probe = [{"role": role, "content": needle} for role, needle in zip(roles, needles, strict=True)]

    def missing(form: Sequence[bool]) -> list[bool] | None:
        """Which needles are left out; None where the template refuses them."""
        own = [parted or not text for parted, text in zip(form, plain, strict=True)]
        try:
            told = _rendered(tokenizer, template, _in_form(probe, own)).casefold()
        except ImportError:
            raise
        except Exception:  # what it says of the messages themselves is told
            return None
        if "{'type': 'text'" in told:
            return None  # it takes text, and the parts stand there as Python writes them
        return [text and needle not in told for needle, text in zip(needles, plain, strict=True)]

    as_they_are = (False,) * len(roles)
    of_user = tuple(text and role == "user" for text, role in zip(plain, roles, strict=True))
    asked = max((number for number, own in enumerate(of_user) if own), default=None)
    lost = missing(as_they_are)
    if lost is not None and not any(lost):
        return as_they_are
    for form in [plain, of_user] if lost is None else [tuple(lost)]:
        left = missing(form)
        if left is not None and left != lost and (asked is None or not left[asked]):
            return form
    if lost is not None and asked is not None and lost[asked]:
        raise DyetraceError("the model's chat template leaves out what the user asks, so nothing would be answered")
    # What else is left out (a system prompt, say) is the template's own will.
    return as_they_are


def _in_form(messages: Sequence[Message], form: Sequence[bool]) -> list[Message]:
    return [
        {**one, "content": [{"type": "text", "text": one["content"]}]} if parted else one
        for one, parted in zip(messages, form, strict=True)
    ]


def _rendered(tokenizer: Any, template: str | None, messages: Sequence[Message]) -> str:
    told: str = tokenizer.apply_chat_template(
        [dict(one) for one in messages], chat_template=template, tokenize=False, add_generation_prompt=True
    )
    return told


def _cleaned(content: Any) -> Any:
    return well_formed(content) if isinstance(content, str) else content


def well_formed(text: str) -> str:
    """Join surrogate pairs, and replace unpaired ones by U+FFFD: no tokenizer takes them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
