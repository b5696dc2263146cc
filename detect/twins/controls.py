"""Who is asked about regenerated twins before the suspect is: the owner's model, unrelated ones, and a classifier.

All numbers are differences between a pair's two sides and flip with it. Models read the answers from their weights.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from detect.models.network import check_numbers
from detect.student.asking.forms import clean
from detect.twins.law import Control, flat, learnt_scores
from detect.twins.measures.logprobs import Read, numbers
from detect.twins.measures.weights import Progress, Reader, Tokens
from watermark.twins.pair import Pair, TwinAnswer

if TYPE_CHECKING:
    import torch

F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]

OWNER_NUMBERS = ("log-probability per token", "share of likeliest tokens", "entropy", "log of the rank")
_HASHED = 192  # words that the classifier tells apart, and pairs of neighbours
_RIDGE_NUMBERS, _RIDGE_WORDS = 2.0, 20.0
_WORD = re.compile(r"\w+|[^\w\s]")


def owner_numbers(reader: Reader, pairs: Sequence[Pair], progress: Progress | None = None) -> F64:
    """What the owner's model says of each pair, first side less second: shape (n, `OWNER_NUMBERS`)."""
    means = token_means(reader, [reader.tokens(pair, side.text) for pair in pairs for side in pair.sides], progress)
    found: F64 = means[0::2] - means[1::2]
    return found


def token_means(reader: Reader, sequences: Sequence[Tokens], progress: Progress | None = None) -> F64:
    """Means over each answer's tokens, shape (m, `OWNER_NUMBERS`); 0 for an empty answer.

    How likely its tokens are, how often they are the likeliest ones, how open the model was, and how far down its list
    they stand: a temperature or a cut of the tail that differs shows in these first.
    """
    totals = np.zeros((len(sequences), len(OWNER_NUMBERS)))

    def take(number: int, first: int, logits: torch.Tensor) -> None:
        import torch

        ids = torch.from_numpy(sequences[number].ids[first : first + len(logits)]).to(logits.device)
        logs = logits.log_softmax(-1)
        own = logs.gather(1, ids[:, None])
        check_numbers(own)
        rank = (logs > own).sum(-1).double()
        entropy = -(logs.exp() * logs.clamp(min=-1e4)).sum(-1).double()
        totals[number] += [
            float(own.double().sum()),
            float((rank == 0).double().sum()),
            float(entropy.sum()),
            float(rank.log1p().sum()),
        ]

    reader.forward(sequences, take, progress)
    counts = np.array([max(1, len(one.ids) - one.first if one.first else 0) for one in sequences])
    found: F64 = totals / counts[:, None]
    return found


def log_probability(reads: Mapping[str, Read], pairs: Sequence[Pair]) -> F64:
    """A model's log-probability per token of each pair, first side less second; 0 where it was silent: shape (n,)."""
    return np.array([0.0 if (read := reads.get(pair.id)) is None else read.difference[0] for pair in pairs])


def leading(reads: Mapping[str, Read], reference: Mapping[str, Read] | None, pairs: Sequence[Pair]) -> F64:
    """The number that a suspect is judged by, of any model, shape (n,): the first of `measures.logprobs.numbers`."""
    beside = reference is not None
    found = [
        numbers(reads.get(pair.id), None if reference is None else reference.get(pair.id), beside)[0] for pair in pairs
    ]
    return np.array(found, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Beside:
    """The reference of a test as controls of its law test.

    Attributes
    ----------
    name
        The reference's.
    alone
        Its own `log_probability`, shape (n,); None where it is one of the controls anyway.
    owner, unrelated
        Each control's `leading` number beside it, shape (n,), where the control is another model: None and missing
        ones are the reference itself.
    """

    name: str
    alone: F64 | None
    owner: F64 | None
    unrelated: Mapping[str, F64]


def text_numbers(pairs: Sequence[Pair]) -> F64:
    """What is seen of a pair without a model: length, number of tokens, ending, signs; shape (n, k)."""
    return _differences(pairs, _seen)


def words(pairs: Sequence[Pair]) -> F64:
    """Which words and pairs of neighbours stand in one side and not in the other, hashed: shape (n, k)."""
    return _differences(pairs, _hashed)


def law_controls(
    pairs: Sequence[Pair],
    owner: F64,
    unrelated: Mapping[str, F64],
    covariates: F64 | None = None,
    beside: Beside | None = None,
) -> list[Control]:
    """The controls of a measure of log-probabilities.

    With a reference the suspect is judged by what its opinion has more than the reference's. A limit says something of
    a number of the same kind alone, so the owner's model and unrelated ones are held against the same reference, and
    these numbers bound the bias. That is not enough: an innocent suspect without an opinion of its own has just the
    reference's, turned, and no other control need share it. So the reference bounds the bias too, as one more
    unrelated model; a limit holds in both directions. That is right to ask of it, since a model that learnt from what
    was served is no reference. What the owner's model says by itself, the number most sensitive to a wrong law, still
    bounds the bias as well: the largest of more limits can only be larger.

    Parameters
    ----------
    pairs
        Regenerated ones, in the order of time.
    owner
        `owner_numbers`, shape (n, k).
    unrelated
        By the names of models: `log_probability` of each, shape (n,).
    covariates
        As the suspect's numbers will have taken out of them (`detect.twins.law.flat`), without those of the unrelated
        models: shape (n, c).
    beside
        The reference, where the suspect is compared with one.
    """
    signs = np.array([pair.sign for pair in pairs], dtype=np.int8)
    seen = text_numbers(pairs)
    found = [Control("the owner's model", "owner", owner[:, 0], signs)]
    found.append(found[0].largest_half())
    learnt = [owner, *unrelated.values()]
    models = {f"unrelated model {name}": x for name, x in unrelated.items()}
    judged = dict(models)
    if beside is not None:
        if beside.owner is not None:
            found.append(Control("the owner's model beside the reference", "owner", beside.owner, signs))
            found.append(found[-1].largest_half())
            learnt.append(beside.owner)
        for name, x in beside.unrelated.items():
            del judged[f"unrelated model {name}"]
            judged[f"unrelated model {name} beside the reference"] = x
            learnt.append(x)
        if beside.alone is not None:
            models[f"the reference {beside.name}"] = judged[f"the reference {beside.name}"] = beside.alone
            learnt.append(beside.alone)
    for name, x in judged.items():
        found.append(Control(name, "unrelated", flat(x[:, None], covariates)[:, 0], signs))
    for name, x in models.items():
        raw = Control(f"{name}, as it is", "unrelated", x, signs, bounds=False)
        found += [raw, raw.largest_half()]
    found.append(classifier(pairs, np.column_stack([*learnt, seen])))
    found.append(Control("the number of tokens", "owner", seen[:, 2], signs, bounds=False))
    found.append(Control("whether the answer ended by itself", "owner", seen[:, 3], signs, bounds=False))
    return found


def classifier(pairs: Sequence[Pair], numbers: F64) -> Control:
    """A control that learns, pair after pair, to tell served answers from regenerated ones by all that is known.

    Parameters
    ----------
    pairs
        In the order of time.
    numbers
        What models and texts say of each pair, shape (n, k); words are added here.
    """
    signs = np.array([pair.sign for pair in pairs], dtype=np.int8)
    vocabulary = words(pairs)
    ridge = np.repeat([_RIDGE_NUMBERS, _RIDGE_WORDS], [numbers.shape[1], vocabulary.shape[1]])
    scores = learnt_scores(np.column_stack([numbers, vocabulary]), signs, ridge)
    return Control("the learnt classifier", "classifier", scores, signs)


def _differences(pairs: Sequence[Pair], of: Callable[[TwinAnswer], F64]) -> F64:
    rows = [of(one) - of(other) for one, other in (pair.sides for pair in pairs)]
    return np.array(rows, dtype=np.float64).reshape(len(pairs), len(of(TwinAnswer(text=""))))


def _seen(answer: TwinAnswer) -> F64:
    text = clean(answer.text)
    found = _WORD.findall(text.lower())
    return np.array(
        [
            len(text.encode()),
            np.log1p(len(text)),
            len(found) if answer.token_ids is None else len(answer.token_ids),
            answer.finish_reason == "length",
            len(set(found)) / max(1, len(found)),
            np.mean([len(word) for word in found]) if found else 0.0,
            text.count("\n"),
            text.count(","),
            text.count("."),
            sum(map(str.isdigit, text)),
            sum(map(str.isupper, text)),
        ],
        dtype=np.float64,
    )


def _hashed(answer: TwinAnswer) -> F64:
    found = _WORD.findall(clean(answer.text).lower())
    names = {*found, *map(" ".join, pairwise(found))}
    row = np.zeros(2 * _HASHED)
    for name in names:
        row[zlib.crc32(name.encode()) % _HASHED + (_HASHED if " " in name else 0)] += 1
    return row
