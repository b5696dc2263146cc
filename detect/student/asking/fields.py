"""Which settings of a request an endpoint takes: one that a refusal names is left out, and whoever asked is told.

OpenAI's reasoning models refuse ``max_tokens`` and each ``temperature`` but 1, Claude refuses ``temperature`` beside
``top_p``, TGI a ``top_p`` of 1, Mistral whatever it doesn't know. No list of models says who refuses what: the refusal
itself does. One setting goes at a time, so that no more is given up than need be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

LimitField = Literal["max_tokens", "max_completion_tokens"]
LIMITS: Final[tuple[LimitField, LimitField]] = ("max_tokens", "max_completion_tokens")
"""What endpoints call the most tokens of an answer."""
Setting = Literal["temperature", "top_p", "max_tokens"]
SETTINGS = ("top_p", "seed", "n", "temperature", *LIMITS)
"""Fields that a request can do without, in the order in which they are given up where a refusal names several."""
_GUESSES: Final[tuple[frozenset[str], ...]] = (
    frozenset({"top_p"}),
    frozenset({"max_tokens"}),
    frozenset({"top_p", "max_tokens"}),
    frozenset({"temperature"}),
    frozenset({"temperature", "top_p"}),
    frozenset({"temperature", "max_tokens"}),
    frozenset({"temperature", "top_p", "max_tokens"}),
    frozenset({"temperature", "top_p", *LIMITS}),
)
"""What may be meant by a refusal that names nothing, what costs least to do without first."""

_PLACES = {"param", "params", "parameter", "parameters", "field", "fields", "property", "argument", "loc", "location"}
"""Where error bodies say which field is meant: OpenAI's param, pydantic's loc."""
_ESSENTIAL = {"model", "messages", "prompt"}
_UNKNOWN = re.compile(
    r"unsupported|not supported|n[o']t support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|forbidden"
    r"|deprecated|extraneous",
    re.IGNORECASE,
)
_TOO_SMALL = re.compile(
    r"reached|higher|at least|minimum|greater than|larger than|below|too (small|low)|>=?", re.IGNORECASE
)
_TOO_LARGE = re.compile(
    r"too (large|high|many|big|long)|exceed|context (length|window)|at most|less than|smaller|lower|reduce|maximum|<=?"
    r"|range|between",
    re.IGNORECASE,
)
_USED_UP = re.compile(r"(limit|max\w*tokens)[^.]{0,60}\breached\b", re.IGNORECASE)
_CALLED = {"top_p": "top-p", "max_tokens": "limit of tokens"}
_DEEP, _LONG = 12, 100_000


def fitted(body: Mapping[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    """A request's body without what is left out.

    Of the two names of the limit the other one is sent in the place of one that is left out, unless both are.

    Examples
    --------
    >>> fitted({"max_tokens": 9, "temperature": 1.0}, ["max_tokens", "temperature"])
    {'max_completion_tokens': 9}
    """
    found: dict[str, Any] = {}
    for name, value in body.items():
        if name in LIMITS and name in left_out:
            other = next((one for one in LIMITS if one not in left_out), None)
            found |= {} if other is None or other in body else {other: value}
        elif name not in left_out:
            found[name] = value
    return found


def chosen(leave_out: Collection[str], limit_field: LimitField | None) -> list[str]:
    """What is left out by somebody's own choice: of the limit both names, or the one that it is not to have."""
    found = [name for name in leave_out if name not in LIMITS]
    if "max_tokens" in leave_out:
        return sorted([*found, *LIMITS])
    return sorted([*found, *(name for name in LIMITS if limit_field not in (None, name))])


def as_options(left_out: Collection[str]) -> dict[str, str | int | float | bool | list[str] | None]:
    """What was `chosen`, by the options' names; nothing where nothing was.

    Examples
    --------
    >>> as_options(["max_tokens", "temperature"])
    {'leave_out': ['temperature'], 'limit_field': 'max_completion_tokens'}
    """
    kept = [name for name in LIMITS if name not in left_out]
    leave_out = sorted({name for name in left_out if name not in LIMITS} | ({"max_tokens"} if not kept else set()))
    return {
        **({"leave_out": leave_out} if leave_out else {}),
        **({"limit_field": kept[0]} if len(kept) == 1 else {}),
    }


def refused_next(
    left_out: Sequence[str], sent: Collection[str], refusal: bytes, besides: Sequence[str] = ()
) -> list[str] | None:
    """What to leave out when the request is sent again; None where the refusal is about something else.

    Parameters
    ----------
    left_out
        So far.
    sent
        Fields of the body that was refused, as far as it can do without them.
    refusal
        The body of the reply.
    besides
        More fields that the request can do without, which go before `SETTINGS`.
    """
    wanted = named(refusal, sent, besides)
    return sorted({*left_out, wanted[0]}) if wanted else None


def guesses(sent: Collection[str], refusal: bytes) -> list[list[str]]:
    """What may be left out, one after the other, after a refusal that names no field at all; nothing after others.

    Parameters
    ----------
    sent
        Fields of the body that was refused.
    refusal
        The body of the reply.
    """
    # "`temperature` is not for this model": where that wasn't sent, it is another setting that is called so.
    others = _names_any(refusal, {*SETTINGS} - {*sent})
    if _names_any(refusal, sent if others else {*sent, *_ESSENTIAL}):
        return []
    return [sorted(guess) for guess in _GUESSES if guess - set(LIMITS) <= set(sent) and guess & set(sent)]


def named(refusal: bytes, sent: Collection[str], besides: Sequence[str] = ()) -> list[str]:
    """The settings among the fields that were sent which a refusal names as not taken, in the order of `SETTINGS`.

    Fields ``besides`` these come first.

    A limit whose value is too large or too small is none of them.

    Examples
    --------
    >>> named(b'{"error": {"message": "`temperature` and `top_p` cannot both be specified"}}', ["temperature", "top_p"])
    ['top_p', 'temperature']
    """
    body, text = _parsed(refusal)
    explicit = _explicit(body)
    if explicit & _ESSENTIAL:
        return []
    known = [name for name in (*besides, *SETTINGS) if name in sent]
    found = [name for name in known if _plain(name) in {_plain(one) for one in explicit}]
    if not found:
        found = [name for name in known if _pattern(name).search(text)]
    is_size = not _UNKNOWN.search(text) and (_TOO_SMALL.search(text) or _TOO_LARGE.search(text))
    return [name for name in found if not (name in LIMITS and is_size)]


def is_too_short(refusal: bytes) -> bool:
    """Whether a refusal says that more tokens must be allowed: all else was taken then."""
    body, text = _parsed(refusal)
    about_limit = any(_pattern(name).search(text) for name in LIMITS) or bool(_explicit(body) & set(LIMITS))
    return about_limit and not _UNKNOWN.search(text) and bool(_TOO_SMALL.search(text))


def is_used_up(refusal: bytes) -> bool:
    """Whether a refusal says that the model began, and that the limit was too low for it to come to an answer."""
    _, text = _parsed(refusal)
    return bool(_USED_UP.search(text)) and not _UNKNOWN.search(text)


def in_words(left_out: Collection[str]) -> str:
    """What is left out, for people.

    Examples
    --------
    >>> in_words(["max_tokens", "temperature"])
    'temperature is left out, and the limit is called max_completion_tokens'
    >>> in_words(["max_completion_tokens", "max_tokens"])
    'the limit of tokens is left out'
    """
    plain = [name for name in left_out if name not in LIMITS]
    limits = [name for name in LIMITS if name not in left_out]
    if not limits:
        plain.append("the limit of tokens")
    *others, last = plain or [""]
    listed = f"{', '.join(others)} and {last}" if others else last
    said = f"{listed} {'are' if others else 'is'} left out" if listed else ""
    if len(limits) == 1:
        said += f"{', and ' if said else ''}the limit is called {limits[0]}"
    return said


def sampling_in_words(settings: Mapping[str, Any], left_out: Collection[str] = ()) -> str:
    """Which sampling was asked for, for a report: what was left out is the server's own.

    Parameters
    ----------
    settings
        By the fields' names; None for one that is not sent.
    left_out
        Those that are left out all the same, and names of limits.

    Examples
    --------
    >>> sampling_in_words({"temperature": None, "top_p": 1.0, "max_tokens": 200, "top_k": -1})
    "the server's own temperature, top-p 1, at most 200 tokens, top_k -1"
    >>> sampling_in_words({"temperature": 0, "max_tokens": 1}, ["max_completion_tokens", "max_tokens"])
    "temperature 0, the server's own limit of tokens"
    """
    unlimited = all(name in left_out for name in LIMITS)
    found = []
    for name, value in settings.items():
        if value is None or (unlimited if name == "max_tokens" else name in left_out):
            found.append(f"the server's own {_CALLED.get(name, name)}")
        elif name == "max_tokens":
            found.append(f"at most {value:,} {'token' if value == 1 else 'tokens'}")
        else:
            shown = f"{value:g}" if isinstance(value, int | float) else json.dumps(value)
            found.append(f"{_CALLED.get(name, name)} {shown}")
    return ", ".join(found)


def _parsed(refusal: bytes) -> tuple[Any, str]:
    """The body, and all that it says, in one string."""
    text = refusal[:_LONG].decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None, text
    return body, " ".join(_strings(body, _DEEP))


def _names_any(refusal: bytes, names: Collection[str]) -> bool:
    """Whether a refusal says which field is meant."""
    body, text = _parsed(refusal)
    return bool(_explicit(body) & set(names)) or any(_pattern(name).search(text) for name in names)


def _strings(value: Any, deep: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif deep and isinstance(value, dict):
        for key, part in value.items():
            if key != "input" and key != "ctx":  # pydantic quotes the request there
                yield from _strings(part, deep - 1)
    elif deep and isinstance(value, list):
        for part in value:
            yield from _strings(part, deep - 1)


def _explicit(body: Any, deep: int = _DEEP) -> set[str]:
    """Names that stand where error bodies say which field is meant."""
    found: set[str] = set()
    if not deep:
        return found
    if isinstance(body, list):
        return found.union(*(_explicit(part, deep - 1) for part in body))
    if not isinstance(body, dict):
        return found
    for key, value in body.items():
        if key.lower() in _PLACES:
            for text in _strings(value, 2):
                found |= set(re.findall(r"[A-Za-z_]+", text))
        elif isinstance(value, dict | list):
            found |= _explicit(value, deep - 1)
    return found


def _plain(name: str) -> str:
    return name.replace("_", "").casefold()


def _pattern(name: str) -> re.Pattern[str]:
    """A field's name in running text, in either case style; a single letter only where it is quoted."""
    if len(name) == 1:
        return re.compile(rf"[\"'`]{re.escape(name)}[\"'`]")
    spelled = r"max_?(new_?|output_?)?tokens" if name == "max_tokens" else re.escape(name).replace("_", "_?")
    if name == "max_completion_tokens":
        spelled = r"max_?(completion|output)_?tokens"
    return re.compile(rf"(?<![A-Za-z0-9_]){spelled}(?![A-Za-z0-9_])", re.IGNORECASE)
