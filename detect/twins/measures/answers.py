"""Measure of free answers: whether what a suspect says to a prompt is more like the one twin or the other.

Text alone is needed. Similarities are of several kinds, since each student remembers in its own way: words in a row,
rare words, pieces of words. Each is a number of an answer and a side, and the difference of both sides is what counts.
A fixed combination of them, learnt beforehand on other students, stands first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from detect.student.asking.answers import read_response
from detect.twins.measures.prompting import Form, answer_limit, clean, question
from detect.twins.measures.protocol import F64, Question
from watermark.twins.pair import Pair

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")

CHRF_ORDER = 6
CHRF_BETA = 2.0

COLUMNS = ("combined", "chrF", "longest common prefix", "rare words", "rare 3-grams", "words in order")
"""Names of the numbers of a pair."""
WEIGHTS = (1.0, 0.5, 1.0, 1.0, 0.5)
"""Of all columns but the first, in it."""


@dataclass(frozen=True)
class Idf:
    """How much a word, or several in a row, tell of which answer one reads.

    Attributes
    ----------
    texts
        How many were counted.
    counts
        In how many of them each n-gram of up to `ORDER` words stands.
    """

    texts: int = 0
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)

    ORDER = 3

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Idf:
        """Count in both answers of pairs: swapping twins changes nothing.

        They are to be the pair at hand and those before it in time: later pairs may use the words of the answer that
        was served, so that their counts would tell its coin.
        """
        counts: Counter[tuple[str, ...]] = Counter()
        texts = 0
        for pair in pairs:
            for side in pair.sides:
                words = words_of(side.text)
                counts.update({gram for n in range(1, cls.ORDER + 1) for gram in grams(words, n)})
                texts += 1
        return cls(texts, counts)

    def weight(self, gram: tuple[str, ...]) -> float:
        """log((texts + 1) / (texts with it + 1)), natural, at least 0 (Spärck Jones 1972, smoothed)."""
        return math.log((self.texts + 1) / (self.counts[gram] + 1)) + 1.0 / (self.texts + 1)


@dataclass(frozen=True)
class AnswerMeasure:
    """Free answers of a plain endpoint: one greedy answer a pair, and more samples where they are asked for.

    Attributes
    ----------
    idf
        Of the planned pairs.
    samples
        Answers beside the greedy one.
    temperature
        Of these.
    completions
        Whether the prompt goes to /completions as plain text.
    """

    idf: Idf
    samples: int = 0
    temperature: float = 0.7
    completions: bool = False
    name: str = "answers"
    columns: tuple[str, ...] = COLUMNS

    def questions(self, pair: Pair) -> list[Question]:
        """The pair's prompt as it was; samples are told apart by their seed."""
        form: Form = "completions" if self.completions else "last"
        limit = answer_limit(pair)
        greedy = question(pair, form, "", limit)
        more = [
            question(pair, form, "", limit, temperature=self.temperature, seed=seed) for seed in range(self.samples)
        ]
        return [] if pair.tied else [greedy, *more]

    def difference(self, pair: Pair, replies: Sequence[bytes | None]) -> F64:
        """Numbers of shape (columns,): the mean over the answers that came."""
        said = [text for reply in replies if reply is not None and (text := answer_of(reply)) is not None]
        return differences(said, pair.sides[0].text, pair.sides[1].text, self.idf)


def answer_of(reply: bytes) -> str | None:
    """The text of a reply; None where it has none."""
    response = read_response(reply, 1)
    if not response.choices or response.choices[0].problem is not None:
        return None
    return response.choices[0].text


def differences(said: Sequence[str], one: str, other: str, idf: Idf) -> F64:
    """How much more like the first text answers are than like the second: shape (columns,).

    Parameters
    ----------
    said
        The suspect's answers; none give zeros.
    one, other
        The twins.
    """
    if not said:
        return np.zeros(len(COLUMNS))
    rows = [np.subtract(similarities(text, one, idf), similarities(text, other, idf)) for text in said]
    found = np.mean(rows, axis=0)
    return np.concatenate([[float(found @ np.array(WEIGHTS))], found])


def similarities(said: str, text: str, idf: Idf) -> F64:
    """How alike an answer and a text are, each from 0 to 1: all of `COLUMNS` but the first."""
    said, text = clean(said), clean(text)
    mine, theirs = words_of(said), words_of(text)
    return np.array(
        [
            chrf(said, text),
            common_prefix(mine, theirs),
            weighted_overlap(grams(mine, 1), grams(theirs, 1), idf.weight),
            weighted_overlap(grams(mine, 3), grams(theirs, 3), idf.weight),
            in_order(mine, theirs),
        ]
    )


def words_of(text: str) -> list[str]:
    """Words and signs of a text, without case."""
    return _WORD.findall(clean(text).casefold())


def grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n words in a row stand in a text."""
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def chrf(said: str, text: str, order: int = CHRF_ORDER, beta: float = CHRF_BETA) -> float:
    """Character n-gram F-score (Popović 2015, chrF2, equation 1), 0 to 1, without white space, as sacrebleu has it.

    Averaged are the F-scores' precision and recall over the orders at which both texts have n-grams.
    """
    one, other = "".join(said.split()), "".join(text.split())
    precision = recall = 0.0
    orders = 0
    for n in range(1, order + 1):
        mine = Counter(one[i : i + n] for i in range(len(one) - n + 1))
        theirs = Counter(other[i : i + n] for i in range(len(other) - n + 1))
        if mine and theirs:
            hits = (mine & theirs).total()
            precision += hits / mine.total()
            recall += hits / theirs.total()
            orders += 1
    if not orders or precision + recall == 0:
        return 0.0
    precision, recall = precision / orders, recall / orders
    factor = beta * beta
    return (1 + factor) * precision * recall / (factor * precision + recall)


def common_prefix(said: Sequence[str], text: Sequence[str]) -> float:
    """With how many equal words both begin: n / (n + 4), since each further word says less."""
    n = 0
    for a, b in zip(said, text, strict=False):
        if a != b:
            break
        n += 1
    return n / (n + 4)


def weighted_overlap(
    said: Counter[tuple[str, ...]], text: Counter[tuple[str, ...]], weight: Callable[[tuple[str, ...]], float]
) -> float:
    """The weight of what both have, over the mean weight of both (Dice)."""

    def mass(counts: Counter[tuple[str, ...]]) -> float:
        return math.fsum(number * weight(gram) for gram, number in counts.items())

    total = mass(said) + mass(text)
    return 2 * mass(said & text) / total if total > 0 else 0.0


def in_order(said: Sequence[str], text: Sequence[str]) -> float:
    """Longest common subsequence of words over their mean number (ROUGE-L's F1, Lin 2004)."""
    if not said or not text:
        return 0.0
    row = [0] * (len(text) + 1)
    for a in said:
        last = 0
        for place, b in enumerate(text, 1):
            above = row[place]
            row[place] = last + 1 if a == b else max(above, row[place - 1])
            last = above
    return 2 * row[-1] / (len(said) + len(text))
