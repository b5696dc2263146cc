"""Measure of partings: which of two ways a suspect goes on, one short greedy reply to each question.

Two kinds of places are asked about. Where the twins part, both begin alike, and the reply goes on as one of them or as
neither. Later, on each twin's own text, there are places where that text takes a turn that the owner's model itself
finds second best: a suspect that goes on as the text does is likely to have learnt it. Such places are found by the
owner's model (or by counting words, without it) on both sides by one rule and in the same number, and no coin has a say
in it. What is shown to the suspect are beginnings of both answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from detect.student.asking.answers import Choice, read_response
from detect.student.asking.forms import Form, Question, clean
from detect.twins.measures.prompting import number_of, question
from detect.twins.measures.protocol import F64
from detect.twins.measures.weights import Progress, Reader, Tokens
from watermark.twins.pair import Pair

if TYPE_CHECKING:
    import torch

COLUMNS = ("turns taken, weighted", "turns taken", "first parting")

EVERY = 8
"""Words from one place to the next where there is no owner's model to choose them."""
LEAST = 0.1
"""Probability under the owner's model that a token has at least where it counts as a turn."""
PER_SIDE = 2
"""Places asked about on each side."""
_TOKENS = 4  # of a reply: tokenizers differ, and what is compared is text

# Thai, Lao, Khmer, Japanese and Chinese are written without white space between words.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_BREAK = re.compile(rf"\s+|(?<=[{_UNSPACED}])")
_WORD = re.compile(rf"\s*[{_UNSPACED}]|\s+[^\s{_UNSPACED}]+")


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place on a side's text where the suspect is asked how it goes on.

    Attributes
    ----------
    side
        0 or 1, in the order of `Pair.sides`.
    begun
        How many characters of the answer are shown.
    turn
        What the answer says next: the token, by the owner's tokenizer, or the word.
    instead
        What the owner's model finds likelier; null where there is no owner's model.
    weight
        What a suspect that takes the turn counts: log(1 / probability of the turn), natural.
    """

    side: Literal[0, 1]
    begun: int
    turn: str
    instead: str | None
    weight: float


@dataclass(frozen=True)
class PartingMeasure:
    """Short greedy replies to beginnings of both twins: one request a place, and one where they part.

    Attributes
    ----------
    form
        How the server is made to go on with a beginning.
    places
        By a pair's id (`find_places`); where a pair, or all of them, is missing: every `EVERY` words.
    per_side
        Places on each side at most.
    first
        Whether to ask where the twins part: None asks of pairs without places of the owner's model.
    """

    form: Form = "completions"
    places: Mapping[str, Sequence[Place]] | None = None
    per_side: int = PER_SIDE
    first: bool | None = None
    name: str = "parting"
    columns: tuple[str, ...] = COLUMNS

    def questions(self, pair: Pair) -> list[Question]:
        """Where the twins part, then the places of the first side, then those of the second."""
        asked = [] if not self._asks_first(pair) else [clean(pair.sides[0].text)[: self._common(pair)]]
        asked += [clean(pair.sides[place.side].text)[: place.begun] for place in self.of(pair)]
        return [question(pair, self.form, begun, _TOKENS) for begun in asked]

    def difference(self, pair: Pair, replies: Sequence[bytes | None]) -> F64:
        """Numbers of shape (columns,): turns taken on the first side less those on the second."""
        found = np.zeros(len(self.columns))
        places, first = self.of(pair), self._asks_first(pair)
        if len(replies) != len(places) + first:
            return found
        choices = [None if reply is None else usable(reply) for reply in replies]
        texts = [clean(side.text) for side in pair.sides]
        if first and (choice := choices.pop(0)) is not None:
            common = self._common(pair)
            ends = [side.finish_reason == "stop" for side in pair.sides]
            found[2] = towards(choice, texts[0][:common], (texts[0][common:], texts[1][common:]), (ends[0], ends[1]))
        taken = np.zeros((2, 2))
        for place, choice in zip(places, choices, strict=True):
            if choice is not None and takes(choice, texts[place.side], place):
                taken[place.side] += place.weight, 1
        found[:2] = taken[0] - taken[1]
        return found

    def of(self, pair: Pair) -> Sequence[Place]:
        """The places of a pair."""
        known = None if self.places is None else self.places.get(pair.id)
        return by_words(pair, self.per_side) if known is None else known

    def _asks_first(self, pair: Pair) -> bool:
        if pair.tied:
            return False
        if self.first is None:
            return not (self.places or {}).get(pair.id)
        return self.first

    def _common(self, pair: Pair) -> int:
        return parting(*(clean(side.text) for side in pair.sides))


def usable(reply: bytes) -> Choice | None:
    """The reply's choice; None where it has none. An empty text is of use: the answer ended there."""
    response = read_response(reply, 1)
    if not response.choices:
        return None
    choice = response.choices[0]
    return choice if choice.problem in (None, "an empty text") else None


def parting(one: str, other: str) -> int:
    """How many characters to show of two texts that begin alike: up to the end of a word before they part.

    Shown text must not end inside a word, nor in white space, since tokens of most models begin with it.
    """
    common = _alike(one, other)
    head = one[:common]
    if all(not rest or rest[0].isspace() for rest in (one[common:], other[common:])):
        return len(head.rstrip())
    return max((match.start() for match in _BREAK.finditer(head)), default=0)


def towards(choice: Choice, begun: str, rests: tuple[str, str], ends: tuple[bool, bool]) -> float:
    """Which of two texts a reply goes on as: 1 for the first, -1 for the second, 0 for neither or unsaid.

    Parameters
    ----------
    begun
        What was shown.
    rests
        What each text says after it.
    ends
        Whether each text ends where it does because the model ended it there, and not by a limit.
    """
    said = _reply(choice, begun)
    one, other = _same_space(said, rests)
    common = _alike(one, other)
    if _alike(said, one) > common:
        return 1.0
    if _alike(said, other) > common:
        return -1.0
    if said == one[:common] == other[:common] and choice.finish_reason == "stop":
        # The reply ended where one of the texts did.
        return float(ends[0] and len(one) == common) - float(ends[1] and len(other) == common)
    return 0.0


def takes(choice: Choice, text: str, place: Place) -> bool:
    """Whether a reply takes the turn that the text takes at a place.

    The reply goes on as the text does, beyond what the owner's likelier token has in common with the text, and to the
    turn's end or its own.
    """
    said, rest, turn = _reply(choice, text[: place.begun]), text[place.begun :], place.turn
    instead = place.instead or ""
    if not said[:1].isspace() and rest[:1].isspace():  # some servers take it away
        said, rest, turn, instead = (words.lstrip() for words in (said, rest, turn, instead))
    agreed = _alike(said, rest)
    inside = said[agreed : agreed + 1].isalnum() and not rest[agreed : agreed + 1].isalnum()
    known = max(_alike(instead, rest), len(rest) - len(rest.lstrip()))
    return agreed > known and agreed >= min(len(turn), len(said)) and not (inside and agreed == len(turn))


def by_words(pair: Pair, per_side: int) -> list[Place]:
    """Places without an owner's model: after every `EVERY` words from where the twins part, on both sides alike."""
    texts = [clean(side.text) for side in pair.sides]
    begin = parting(*texts)
    found: list[list[Place]] = []
    for side, text in ((0, texts[0]), (1, texts[1])):
        words = list(_WORD.finditer(text, begin))[EVERY::EVERY]
        found.append([Place(side, word.start(), word.group(), None, 1.0) for word in words if word.start()])  # type: ignore[arg-type]
    return _evenly(found, per_side)


def find_places(
    folder: str | Path,
    pairs: Sequence[Pair],
    *,
    per_side: int = PER_SIDE,
    dtype: str = "bfloat16",
    base: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, list[Place]]:
    """Places where the owner's model, greedy, would go on in another way than a side does, by the pair's id.

    A place counts where the side's token begins a word after white space, has at least the probability `LEAST` under
    the owner's model at the pair's temperature, and is not the likeliest. On each side the first of them after the
    twins part are taken, as many as on the other side.

    Parameters
    ----------
    folder
        The owner's model.
    pairs
        In any order; places of one don't depend on the others.
    base
        The base model, should the owner's be an adapter.
    """
    reader = Reader.load(folder, dtype, base)
    sides = [(pair, side) for pair in pairs for side in pair.sides]
    sequences = [reader.tokens(pair, side.text) for pair, side in sides]
    turns: list[list[tuple[int, int, float]]] = [[] for _ in sides]

    def take(number: int, first: int, logits: torch.Tensor) -> None:
        temperature = number_of(sides[number][0], "temperature", 1.0)
        turns[number] += _turns(sequences[number], first, logits / temperature)

    reader.forward(sequences, take, progress)
    out = {}
    for number in range(0, len(sides), 2):
        pair = sides[number][0]
        begin = _alike(*(clean(side.text) for side in pair.sides))
        found = []
        for side in (0, 1):
            at = number + side
            text = clean(sides[at][1].text)
            found.append(_as_places(side, text, begin, sequences[at], sorted(turns[at]), reader))
        out[pair.id] = _evenly(found, per_side)
    return out


def _turns(tokens: Tokens, first: int, logits: torch.Tensor) -> list[tuple[int, int, float]]:
    """Places in a sequence whose token is not the likeliest, but likely enough: place, likeliest token, probability."""
    import torch

    ids = torch.from_numpy(tokens.ids[first : first + len(logits)]).to(logits.device)
    logs = logits.log_softmax(-1)
    own, best = logs.gather(1, ids[:, None])[:, 0], logs.argmax(-1)
    counts = ((best != ids) & (own >= math.log(LEAST))).nonzero()[:, 0].tolist()
    return [(first + row, int(best[row]), float(own[row])) for row in counts]


def _as_places(
    side: Literal[0, 1], text: str, begin: int, tokens: Tokens, turns: list[tuple[int, int, float]], reader: Reader
) -> list[Place]:
    ends = [*tokens.starts[1:], len(text)]
    found = []
    for place, best, log in turns:
        start, end = tokens.starts[place], ends[place]
        turn = text[start:end]
        # Some tokenizers count a token's white space as its own, others as nobody's.
        shown = len(text[:start].rstrip())
        if begin < start and shown and (turn[:1].isspace() or text[start - 1].isspace()) and turn.strip():
            found.append(Place(side, shown, text[shown:end], reader.spelled(best), -log))
    return found


def _evenly(found: list[list[Place]], per_side: int) -> list[Place]:
    count = min(per_side, *map(len, found))
    return [place for places in found for place in places[:count]]


def _reply(choice: Choice, begun: str) -> str:
    """What a reply adds to what was shown: some servers repeat that, and some show parts of characters as U+FFFD."""
    said = choice.text
    if len(begun) > 3 and said.startswith(begun):
        said = said[len(begun) :]
    return said.rstrip("\ufffd")


def _same_space(said: str, rests: tuple[str, str]) -> tuple[str, str]:
    """The two texts, without white space at their beginning where both have some and the reply lost its own."""
    if said[:1].isspace() or not (rests[0][:1].isspace() and rests[1][:1].isspace()):
        return rests
    return rests[0].lstrip(), rests[1].lstrip()


def _alike(one: str, other: str) -> int:
    """With how many equal characters two texts begin."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
