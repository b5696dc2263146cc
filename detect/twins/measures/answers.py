"""Measure of free answers: whether what a suspect says to a prompt is more like the one twin or the other.

Text alone is needed. What tells of training is what an answer shares with one twin and would not have said otherwise:
words in a row that are rare in all answers, that the prompt doesn't hold, and that the owner's model, which was taught
neither twin, doesn't say to this prompt by itself. The first number weighs words by that, with fixed weights; other
similarities stand beside it, since each student remembers in its own way.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from detect.student.asking.answers import read_response
from detect.student.asking.forms import Form, Question, clean
from detect.twins.measures.prompting import answer_limit, plain_prompt, question
from detect.twins.measures.protocol import F64
from watermark.twins.pair import Pair

Gram = tuple[str, ...]
"""Words in a row."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")

CHRF_ORDER = 6
CHRF_BETA = 2.0

TEMPERATURE = 0.7
"""Of answers beside the likeliest one."""

COLUMNS = ("telling words", "chrF", "longest common prefix", "words in order")
"""Names of the numbers of a pair."""

ORDERS = (1, 2, 3)
"""Words in a row that are looked at."""
LEARNT = 0.1
"""How much likelier a student says words in a row that stand in what it learnt: `telling`. Chosen, as `USUAL` is, on
students of the demo model and of Gemma 3 270M (`benchmarks.twins`, seed 0); figures hardly change between 0.03 and 0.6.
"""
USUAL = 1.0
"""Answers' worth of the share of all texts, beside what is known of the prompt at hand."""


@dataclass(frozen=True)
class Idf:
    """In how many texts words, or several in a row, stand: what is rare in all of them tells more.

    Attributes
    ----------
    texts
        How many were counted.
    counts
        In how many of them each n-gram of words stands, of the `ORDERS`.
    """

    texts: int = 0
    counts: Counter[Gram] = field(default_factory=Counter)

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Idf:
        """Count in both answers of pairs together: swapping twins changes nothing."""
        counts: Counter[Gram] = Counter()
        texts = 0
        for pair in pairs:
            for side in pair.sides:
                counts.update(shingles(side.text))
                texts += 1
        return cls(texts, counts)

    def share(self, gram: Gram, without: int) -> float:
        """Of the texts but a pair's own two, the share that holds an n-gram, smoothed: between 0 and 1.

        Parameters
        ----------
        without
            In how many of the pair's own two it stands; these are among the texts.
        """
        texts, count = max(0, self.texts - 2), max(0, self.counts[gram] - without)
        return (min(count, texts) + 0.5) / (texts + 1)


@dataclass(frozen=True)
class AnswerMeasure:
    """Free answers of a plain endpoint: one greedy answer a pair, and more samples where they are asked for.

    Attributes
    ----------
    idf
        Of pairs that end with the one at hand, in the order of the bets.
    usual
        What the owner's model itself answers to each pair's prompt, by the pair's id (`usual_answers` of
        `detect.twins.measures.weights`): such words tell nothing. None where the model is not at hand.
    samples
        Answers beside the greedy one.
    temperature
        Of these.
    completions
        Whether the prompt goes to /completions as plain text.
    """

    idf: Idf
    usual: Mapping[str, Sequence[str]] | None = None
    samples: int = 0
    temperature: float = TEMPERATURE
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
        known = [shingles(plain_prompt(pair)), *map(shingles, (self.usual or {}).get(pair.id, ()))]
        return differences(said, pair.sides[0].text, pair.sides[1].text, self.idf, known)


def answer_of(reply: bytes) -> str | None:
    """The text of a reply; None where it has none."""
    response = read_response(reply, 1)
    if not response.choices or response.choices[0].problem is not None:
        return None
    return response.choices[0].text


def differences(said: Sequence[str], one: str, other: str, idf: Idf, known: Sequence[Set[Gram]] = ()) -> F64:
    """How much more like the first text answers are than like the second: shape (columns,).

    Parameters
    ----------
    said
        The suspect's answers; none give zeros.
    one, other
        The twins.
    idf
        Of all texts, these two among them.
    known
        N-grams of the prompt, and of each answer that the owner's model gives to it (`shingles`).
    """
    if not said:
        return np.zeros(len(COLUMNS))
    rows = []
    for text in said:
        likeness = telling(text, one, other, idf, known)
        rows.append([likeness, *np.subtract(similarities(text, one), similarities(text, other))])
    found: F64 = np.mean(rows, axis=0)
    return found


def telling(said: str, one: str, other: str, idf: Idf, known: Sequence[Set[Gram]] = ()) -> float:
    """How much more telling words an answer shares with one twin than with the other, each from 0 to 1.

    An n-gram that an untaught model says with probability p is said by one that learnt a text with it with probability
    p + q (1 - p), q = `LEARNT`. Its weight is the logarithm of the ratio, log(1 + q (1 - p) / p), as in a naive Bayes
    classifier; p is estimated from what such a model says to this prompt (``known``) and from all texts. Of a twin
    counts the weight of what it shares with the answer over the mean weight of both (Dice).
    """
    answer, twins = shingles(said), (shingles(one), shingles(other))

    def weight(gram: Gram) -> float:
        share = idf.share(gram, (gram in twins[0]) + (gram in twins[1]))
        p = (sum(gram in some for some in known) + USUAL * share) / (len(known) + USUAL)
        return math.log1p(LEARNT * (1 - p) / p)

    weights = {gram: weight(gram) for gram in answer | twins[0] | twins[1]}

    def mass(grams: Set[Gram]) -> float:
        return math.fsum(weights[gram] for gram in grams)  # exact, in whatever order a set is gone through

    own = mass(answer)
    shares = [2 * mass(answer & twin) / total if (total := own + mass(twin)) > 0 else 0.0 for twin in twins]
    return shares[0] - shares[1]


def similarities(said: str, text: str) -> F64:
    """How alike an answer and a text are, each from 0 to 1: all of `COLUMNS` but the first."""
    said, text = clean(said), clean(text)
    mine, theirs = words_of(said), words_of(text)
    return np.array([chrf(said, text), common_prefix(mine, theirs), in_order(mine, theirs)])


def words_of(text: str) -> list[str]:
    """Words and signs of a text, without case."""
    return _WORD.findall(clean(text).casefold())


def shingles(text: str) -> set[Gram]:
    """All words of a text in a row, of each of the `ORDERS`."""
    words = words_of(text)
    return {gram for n in ORDERS for gram in zip(*(words[start:] for start in range(n)), strict=False)}


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
