"""Measure of log-probabilities: how much likelier the suspect finds one twin than the other, by what an endpoint says.

Each of the two answers is put after the prompt in a request of its own, and the server is asked for the log-probability
of every token that it was given. The answer's tokens are found among them by their text, so the suspect's own tokenizer
is used and need not be known. Both answers are shown to the suspect, so that what is asked here must not be trained on
before other measures are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from detect.student.asking.answers import TokenLogprob, read_prompt
from detect.student.asking.forms import Question, clean
from detect.twins.measures.prompting import plain_prompt, question
from detect.twins.measures.protocol import F64
from watermark.twins.pair import Pair

LEAST = -20.0
"""Natural logarithm to which a token's log-probability is raised: one token must not outweigh all others of a pair."""

Form = Literal["prompt_logprobs", "echo", "chat"]
"""What the server is asked for.

"prompt_logprobs": /completions of vLLM with the bare prompt. "echo": /completions of OpenAI's older form (``echo``
with ``logprobs``: vLLM, SGLang, llama-cpp-python) with the bare prompt. "chat": /chat/completions of vLLM, with the
suspect's own chat template, where the answer is the last message, to be gone on with.
"""

COLUMNS = ("mean log-probability", "log-probability")
COLUMNS_BESIDE = ("surprise taken away", "mean less reference", "total less reference", *COLUMNS)

STEEPNESS = 8.0
"""How much more an answer counts, the more of its surprise is gone (`lost_surprise`). Chosen on a student that used a
tenth of the pairs (`benchmarks.twins`, seed 0), where 16, squares and cubes do as well."""
_LEAST_SURPRISE = 0.01  # nats of a token, of the reference
_MOST_GAINED = 4.0


class Read(NamedTuple):
    """What a model makes of a pair's two sides.

    Attributes
    ----------
    totals
        Log-probability (natural) of each answer after its prompt.
    tokens
        How many of the model's tokens each answer has, at least 1.
    """

    totals: tuple[float, float]
    tokens: tuple[int, int]

    @property
    def difference(self) -> tuple[float, float]:
        """First side less second: the means per token, and the totals."""
        (one, other), (n, m) = self.totals, self.tokens
        return one / n - other / m, one - other

    def lost_surprise(self, reference: Read) -> tuple[float, float]:
        """How much of the reference's surprise at each answer is gone: exp(`STEEPNESS` share), the share at most 1.

        What a student learnt loses a large share of its surprise; what it did not may gain or lose a little. Where few
        pairs were used, a plain difference may be large because a model likes the *other* answer less, which tells
        nothing. A convex function of each answer's own share lets count what was gained. It is of whole texts, and
        so the same in whatever tokens each model reads.
        """
        found = []
        for total, other, tokens in zip(self.totals, reference.totals, reference.tokens, strict=True):
            surprise = max(-other, _LEAST_SURPRISE * tokens)
            share = min(1.0, max(-_MOST_GAINED, (total - other) / surprise))
            found.append(math.exp(STEEPNESS * share))
        return found[0], found[1]


def columns(reference: bool) -> tuple[str, ...]:
    """Names of the numbers of `numbers`: those with a reference stand first, where there is one."""
    return COLUMNS_BESIDE if reference else COLUMNS


def numbers(suspect: Read | None, reference: Read | None, beside: bool) -> F64:
    """The numbers of a pair, shape (columns,): zeros where the suspect, or the reference that is asked for, is silent.

    Parameters
    ----------
    suspect, reference
        What each makes of the pair.
    beside
        Whether there is a reference at all.
    """
    found = np.zeros(len(columns(beside)))
    if suspect is None:
        return found
    found[-2:] = suspect.difference
    if beside and reference is not None:
        first, second = suspect.lost_surprise(reference)
        found[:3] = first - second, *np.subtract(suspect.difference, reference.difference)
    return found


@dataclass(frozen=True)
class LogprobMeasure:
    """Log-probabilities of both twins through an endpoint: two requests a pair.

    Attributes
    ----------
    form
        What the server is asked for.
    reference
        What a reference model makes of each pair, by the pair's id (`detect.twins.measures.weights.read_pairs`).
    echo_tokens
        Tokens to be written after the echo: 0, or 1 for servers that refuse to write none.
    render
        Makes the text of a pair's prompt for /completions; None takes the bare prompt.
    """

    form: Form = "prompt_logprobs"
    reference: Mapping[str, Read] | None = None
    echo_tokens: Literal[0, 1] = 1
    render: Callable[[Pair], str] | None = None
    name: str = "logprobs"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers of `difference`."""
        return columns(self.reference is not None)

    def questions(self, pair: Pair) -> list[Question]:
        """One request for each side, in the order of the sides; none where an answer is empty."""
        texts = [clean(side.text) for side in pair.sides]
        if pair.tied or not all(text.strip() for text in texts):
            return []
        if self.form == "chat":
            return [question(pair, "continue", text, 1, prompt_logprobs=0) for text in texts]
        if self.form == "echo":
            settings = {"echo": True, "logprobs": 1}
            return [self._plain(pair, text, self.echo_tokens, settings) for text in texts]
        return [self._plain(pair, text, 1, {"prompt_logprobs": 0}) for text in texts]

    def difference(self, pair: Pair, replies: Sequence[bytes | None]) -> F64:
        """Numbers of shape (columns,): zeros where a reply is missing or can't be read."""
        reference = None if self.reference is None else self.reference.get(pair.id)
        return numbers(self.read(pair, replies), reference, self.reference is not None)

    def read(self, pair: Pair, replies: Sequence[bytes | None]) -> Read | None:
        """What the suspect makes of a pair; None where its replies don't say."""
        if len(replies) != 2 or replies[0] is None or replies[1] is None:
            return None
        lead = "" if self.form == "chat" else self._lead(pair)
        return read_replies((replies[0], replies[1]), lead, (pair.sides[0].text, pair.sides[1].text))

    def problem(self, pair: Pair, replies: Sequence[bytes | None]) -> str | None:
        """Why the replies say nothing, in words for people; None where they are of use."""
        for reply in replies:
            if reply is not None and (reason := read_prompt(reply).problem) is not None:
                return reason
        if self.read(pair, replies) is None:
            return "the answer's tokens are not among those that came back"
        return None

    def _lead(self, pair: Pair) -> str:
        return plain_prompt(pair) if self.render is None else self.render(pair)

    def _plain(self, pair: Pair, text: str, max_tokens: int, settings: Mapping[str, object]) -> Question:
        whole = self._lead(pair) + text
        body = {"prompt": whole, "max_tokens": max_tokens, "temperature": 0, **settings}
        return Question("completions", body, len(whole.encode()) + 16 + max_tokens)


def read_replies(replies: tuple[bytes, bytes], lead: str, texts: tuple[str, str]) -> Read | None:
    """What two replies say of the two texts that they were asked with.

    Parameters
    ----------
    replies
        Bodies, each of a request with the lead and one text.
    lead
        All text before the answer, as far as it is known.
    texts
        The answers.

    Returns
    -------
    Read or None
        None where a reply is broken, says too little, or holds other text than was asked for.
    """
    found = [read_prompt(reply) for reply in replies]
    if any(one.problem is not None for one in found):
        return None
    tokens = [one.tokens for one in found]
    spans = [answer_span(some, lead, clean(text)) for some, text in zip(tokens, texts, strict=True)]
    if spans[0] is None or spans[1] is None:
        if any(span is None and _letters(text.encode()) for span, text in zip(spans, map(clean, texts), strict=True)):
            return None
        # Servers that can't show parts of characters: what stands before the first token that differs is the same for
        # both, and cancels in the difference of totals.
        common = _common(*tokens)
        spans = [(common, len(some) - one.written) for some, one in zip(tokens, found, strict=True)]
    sides = [_summed(some[slice(*span)]) for some, span in zip(tokens, spans, strict=True) if span is not None]
    (one, n), (other, m) = sides
    return None if math.isnan(one + other) else Read((one, other), (n, m))


def answer_span(tokens: Sequence[TokenLogprob], lead: str, text: str) -> tuple[int, int] | None:
    """First and end of the tokens that hold any part of an answer; None where its text is not found.

    Compared are bytes; failing that, letters of ASCII alone, since some servers lose white space at the beginning of
    tokens and parts of characters.
    """
    for spell in (bytes, _letters):
        parts = [spell(token.raw) for token in tokens]
        whole, wanted, before = b"".join(parts), spell(text.encode()), spell(lead.encode())
        if not wanted.strip():
            continue
        if before and whole.startswith(before + wanted):
            start = len(before)
        elif (start := whole.rfind(wanted)) < 0:
            # Chat templates take white space away at the ends of an answer.
            wanted = wanted.strip()
            start = whole.rfind(wanted)
        if start >= 0:
            return _covering(parts, start, start + len(wanted))
    return None


def _covering(parts: Sequence[bytes], start: int, end: int) -> tuple[int, int]:
    first, last, place = len(parts), 0, 0
    for number, part in enumerate(parts):
        if place < end and place + len(part) > start:
            first, last = min(first, number), number + 1
        place += len(part)
    return first, last


def _letters(raw: bytes) -> bytes:
    return bytes(byte for byte in raw if 0x20 < byte < 0x7F)


def _common(one: Sequence[TokenLogprob], other: Sequence[TokenLogprob]) -> int:
    """How many tokens both begin with."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if (a.text, a.id) != (b.text, b.id):
            return place
    return min(len(one), len(other))


def _summed(tokens: Sequence[TokenLogprob]) -> tuple[float, int]:
    """Log-probability and number of tokens; NaN where there is none, or one without a number."""
    values = [token.logprob for token in tokens]
    if not values:
        return math.nan, 1
    return math.fsum(max(value, LEAST) if not math.isnan(value) else math.nan for value in values), len(values)
