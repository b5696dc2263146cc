"""What a suspect's reply says of the owner's candidates: its word, or its probabilities of them.

Nothing here may depend on the token that was served after a cut. The log-probabilities of a prompt list the prompt's
own token whether it is likely or not, so that the list's length, its order and its odd member give it away: of such a
list only what would stand there whatever had been served is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detect.race.evidence import NOT_SAID
from detect.student.asking.answers import Choice, Position, TokenLogprob

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

_STOPPED = frozenset({"stop", "eos", "end_turn", "eos_token"})
_ROUNDING = 0.01  # that much above 1 is rounding, as `detect.student.asking.answers` has it


class Listed(NamedTuple):
    """A likely token at one place of a prompt.

    Attributes
    ----------
    id
        In the suspect's vocabulary.
    logprob
        Natural logarithm.
    text
        As the server wrote it; "" where it didn't.
    """

    id: int
    logprob: float
    text: str


def said_of(text: str, finish: str | None, candidates: Sequence[str | None]) -> int:
    """The column of the candidate that a reply's text begins with: the longest one.

    Parameters
    ----------
    text
        Of the reply, without what it repeats.
    finish
        Why it ended.
    candidates
        Texts of the candidates, by falling chance; None for one that ends an answer, "" for one that has no text of its
        own (part of a character) and is never said.

    Returns
    -------
    int
        -1 where the reply begins with none of them. An empty reply that came to its end says the likeliest candidate
        that ends an answer.

    Examples
    --------
    >>> said_of(" the end", "length", [" t", " the", None])
    1
    >>> said_of("", "stop", [" t", " the", None])
    2
    """
    if not text:
        ends = [column for column, candidate in enumerate(candidates) if candidate is None]
        return ends[0] if ends and finish in _STOPPED else NOT_SAID
    found = _longest(text, candidates)
    if found == NOT_SAID and not text[0].isspace():
        # Servers that trim replies take a word's leading blank away.
        found = _longest(text, [None if one is None else one.lstrip() for one in candidates])
    return found


def _longest(text: str, candidates: Sequence[str | None]) -> int:
    fits = [(len(one), -column) for column, one in enumerate(candidates) if one and text.startswith(one)]
    return -max(fits)[1] if fits else NOT_SAID


def said_in(choice: Choice, tokens: Sequence[int], candidates: Sequence[str | None], *, ids: bool, begun: str) -> int:
    """The column of a reply's first word.

    Parameters
    ----------
    choice
        Of the reply.
    tokens, candidates
        The candidates' ids (-1 for none) and texts.
    ids
        Whether the suspect's ids are the spec's own: then the reply's own id is taken, where it has one.
    begun
        What the reply repeats before anything new; "" for nothing.
    """
    if ids and (number := _first_id(choice)) is not None:
        found = [column for column, token in enumerate(tokens) if token == number]
        return found[0] if found else NOT_SAID
    if begun and not choice.text.startswith(begun):
        return NOT_SAID
    return said_of(choice.text[len(begun) :], choice.finish_reason, candidates)


def rest_of(choice: Choice, served: Sequence[int], text: str, *, ids: bool, begun: str) -> Choice | None:
    """A reply behind what was served after its cut, where it begins with that; None where it says something else.

    A greedy reply that says what was served says next what it would say of the answer up to there. What it is held
    against stands before that place.

    Parameters
    ----------
    choice
        Of the reply.
    served, text
        The ids that were served from the cut to that place, and their text.
    ids
        As for `said_in`.
    begun
        What the reply repeats before anything new; "" for nothing.
    """
    count = len(served)
    own = _own_ids(choice) if ids else None
    if own is not None:
        if list(own[:count]) != list(served):
            return None
        tokens = None if choice.tokens is None else choice.tokens[count:]
        # An end that isn't told by its id is an empty rest.
        return replace(choice, text="" if count else choice.text, tokens=tokens, token_ids=own[count:] or None)
    if begun and not choice.text.startswith(begun):
        return None
    said = choice.text[len(begun) :]
    if said and not said[0].isspace():
        text = text.lstrip()  # as in `said_of`
    if not said.startswith(text):
        return None
    tokens = choice.tokens
    if tokens is not None and count:
        spelled = [0, *accumulate(len(position.chosen.text) for position in tokens)]
        tokens = tokens[spelled.index(len(text)) :] if len(text) in spelled else None
    return replace(choice, text=said[len(text) :], tokens=tokens, token_ids=None if count else choice.token_ids)


def _own_ids(choice: Choice) -> tuple[int, ...] | None:
    if choice.token_ids:
        return choice.token_ids
    told = [position.chosen.id for position in choice.tokens or ()]
    found = tuple(number for number in told if number is not None)
    return found if found and len(found) == len(told) else None


def _first_id(choice: Choice) -> int | None:
    own = _own_ids(choice)
    return own[0] if own else None


def shares_of(
    listed: Sequence[TokenLogprob],
    tokens: Sequence[int],
    candidates: Sequence[str | None],
    vocabulary: int,
    *,
    ids: bool,
) -> F64:
    """Probabilities of the candidates by the likely next tokens of a reply, shape (k,).

    Parameters
    ----------
    listed
        Likely tokens and their log-probabilities. They are those of a place that nothing follows yet.
    tokens, candidates, ids
        As for `said_in`.
    vocabulary
        How many tokens there are.

    Returns
    -------
    ndarray
        NaN throughout where nothing usable is listed. A candidate that is not listed gets an equal part of what is
        left, and at most the least that is listed.
    """
    shares = np.full(len(tokens), math.nan)
    usable = [one for one in listed if not math.isnan(one.logprob)]
    if not usable:
        return shares
    found = np.zeros(len(tokens))
    for one in usable:
        column = _column(one, tokens, candidates, ids=ids)
        if column != NOT_SAID:
            found[column] += math.exp(one.logprob)
    masses = [math.exp(one.logprob) for one in usable]
    return _filled(found, masses, tokens, vocabulary)


def _column(one: TokenLogprob, tokens: Sequence[int], candidates: Sequence[str | None], *, ids: bool) -> int:
    if ids and one.id is not None:
        fits = [column for column, token in enumerate(tokens) if token == one.id]
        return fits[0] if fits else NOT_SAID
    text = one.raw.decode("utf-8", "replace") if one.raw else one.text
    return _longest(text, candidates) if text and "\ufffd" not in text else NOT_SAID


def _filled(found: F64, masses: Sequence[float], tokens: Sequence[int], vocabulary: int) -> F64:
    """What is listed of each candidate; of others an equal part of the rest, and at most the least that is listed."""
    rest = max(0.0, 1.0 - math.fsum(masses)) / max(1, vocabulary - len(masses))
    there = np.asarray(tokens) >= 0
    shares = np.where(there, np.where(found > 0, found, min(rest, min(masses))), math.nan)
    total = float(np.nansum(shares))
    return np.asarray(shares / total if total > 1 else shares)


def likeliest(shares: F64, top: float) -> int:
    """The column of the suspect's likeliest word, where that is a candidate; -1 where another token has more.

    Parameters
    ----------
    shares
        Of the candidates, shape (k,).
    top
        The largest probability that any token has.
    """
    if np.isnan(shares).all():
        return NOT_SAID
    column = int(np.nanargmax(shares))
    return column if shares[column] >= top - 1e-9 else NOT_SAID


def prompt_shares(entries: Sequence[Listed], tokens: Sequence[int], most: int, vocabulary: int) -> tuple[F64, int]:
    """Probabilities of the candidates by the likely tokens at one place of a prompt, and the suspect's own word.

    Parameters
    ----------
    entries
        All that is listed there, the prompt's own token among them.
    tokens
        The candidates' ids, -1 for none.
    most
        How many likely tokens were asked for.
    vocabulary
        How many there are.

    Returns
    -------
    tuple
        Shape (k,), as `shares_of` has it, and a column or -1.
    """
    kept = likely(entries, most)
    if not kept:
        return np.full(len(tokens), math.nan), NOT_SAID
    masses = {one.id: math.exp(one.logprob) for one in kept}
    found = np.array([masses.get(int(token), 0.0) for token in tokens])
    shares = _filled(found, list(masses.values()), tokens, vocabulary)
    # The prompt's own token stands first in vLLM's list, and in bf16 many tokens are equally likely: the order of the
    # list would settle ties in favour of what was served.
    best = max(kept, key=lambda one: (one.logprob, -one.id))
    said = [column for column, token in enumerate(tokens) if token == best.id]
    return shares, said[0] if said else NOT_SAID


def likely(entries: Sequence[Listed], most: int) -> list[Listed]:
    """The entries that stand there whatever the prompt's own token is.

    A server lists its ``most`` likeliest tokens and the prompt's own. The last of the likeliest is left out, with all
    that are as likely: which of those are listed may be the own token's doing, as may be their ranks (vLLM gives an own
    token the number of all that are at least as likely).
    """
    usable = [one for one in entries if not math.isnan(one.logprob)]
    if math.fsum(math.exp(one.logprob) for one in usable) > 1 + _ROUNDING:
        return []
    ranked = sorted(usable, key=lambda one: -one.logprob)
    return [one for one in ranked if len(ranked) < most or one.logprob > ranked[most - 1].logprob]


def listed_prompt(payload: bytes) -> list[list[Listed]] | None:
    """vLLM's ``prompt_logprobs``: what is listed at each place of the prompt, nothing at the first; None without it.

    Everything in it is the suspect's: what can't be read is left out.
    """
    body = _body(payload)
    choice = _first_choice(body)
    given = choice.get("prompt_logprobs") or body.get("prompt_logprobs")
    if not isinstance(given, list) or not given:
        return None
    return [_entries(entry) for entry in given]


def _entries(entry: Any) -> list[Listed]:
    if not isinstance(entry, dict):
        return []
    found = []
    for name, one in entry.items():
        if not (name.isascii() and name.isdecimal() and len(name) <= 10 and isinstance(one, dict)):
            continue
        text = one.get("decoded_token")
        found.append(Listed(int(name), _number(one.get("logprob")), text if isinstance(text, str) else ""))
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return math.nan if math.isnan(number) or number > _ROUNDING else min(number, 0.0)


def _body(payload: bytes) -> dict[str, Any]:
    try:
        body = json.loads(payload.decode("utf-8", "replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _first_choice(body: dict[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}


def own_of_prompt(
    positions: Sequence[Position] | None, listed: Sequence[Sequence[Listed]] | None, ids: Sequence[int]
) -> F64:
    """Log-probabilities of a prompt's own tokens, shape (n,): NaN where none is known, as at the first.

    Parameters
    ----------
    positions
        Of an ``echo`` with ``logprobs``: the prompt's tokens, and perhaps some that were written after them.
    listed
        `listed_prompt` where the reply has it; it is taken first, since it names tokens by their ids.
    ids
        The prompt's, n of them.
    """
    own = np.full(len(ids), math.nan)
    if listed is not None and len(listed) >= len(ids):
        for place, (entries, token) in enumerate(zip(listed, ids, strict=False)):
            own[place] = next((one.logprob for one in entries if one.id == token), math.nan)
    elif positions is not None and len(positions) >= len(ids):
        own[:] = [position.chosen.logprob for position in positions[: len(ids)]]
    own[:1] = math.nan
    return own


def echo_shares(own: float, token: int, tokens: Sequence[int]) -> F64:
    """Probabilities of the candidates where only that of the served token is known, shape (k,): NaN for all others.

    Parameters
    ----------
    own
        The served token's log-probability.
    token
        The served token; -1 where none was served.
    tokens
        The candidates' ids.
    """
    shares = np.full(len(tokens), math.nan)
    if not math.isnan(own):
        shares[np.asarray(tokens) == token] = min(1.0, math.exp(own))
    return shares
