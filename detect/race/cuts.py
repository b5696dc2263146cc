"""Which places of served answers one token is asked for at, where requests are paid for one by one.

A place is taken or left by what stands before it: its prefix, the owner's chances there, and whether a key that is
tested marks it. What follows, how long the answer is and how many answers there are have no say (line "served answers"
of `docs/validity.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detect.models.reading import Positions, ReadingDocument, ReadingText
from detect.race.chances import F64
from detect.race.job import PER_ANSWER, SPREAD
from watermark.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def cuts(
    text: ReadingText,
    where: Positions,
    held: Mask,
    spread: F64,
    tokenizer: Any,
    *,
    per_answer: int = PER_ANSWER,
    least_spread: float = SPREAD,
    run: int = 1,
) -> I64:
    """The rows of places to ask about, ascending, so in the order of serving.

    Of each answer the first ones are taken where two draws of the owner's would differ often enough, and whose prefix
    stands in the answer as a suspect can be shown it: as text that gives the same token ids again. A reply of ``run``
    tokens is about the places behind such a one as well, while it says what was served, so these come with it, and no
    other request is made within them.

    Parameters
    ----------
    text, where
        The served answers and their n fresh places.
    held
        Whether a key that is tested marks a place, shape (n,).
    spread
        1 - sum p^2 of the owner's chances, shape (n,).
    tokenizer
        The spec's.
    per_answer
        Most requests about an answer.
    least_spread
        Least spread of a place that one is made at.
    run
        Tokens of a reply.

    Raises
    ------
    ValueError
        ``per_answer`` or ``run`` is below 1.
    """
    if per_answer < 1 or run < 1:
        raise ValueError(f"per_answer and run must be 1 or more (got {per_answer} and {run})")
    backend = load_tokenizer(tokenizer)
    special = frozenset(token for token, added in backend.get_added_tokens_decoder().items() if added.special)
    mine = np.flatnonzero(held)
    wanted = (spread[mine] >= least_spread).tolist()
    chosen: list[int] = []
    taken: dict[int, int] = {}
    ends: dict[int, int] = {}  # one past the last place that the reply before is about
    for row, document, position, good in zip(
        mine.tolist(), where.document[mine].tolist(), where.position[mine].tolist(), wanted, strict=True
    ):
        if position < ends.get(document, 0):
            chosen.append(row)
        elif (
            good
            and taken.get(document, 0) < per_answer
            and can_be_shown(text.documents[document], position, backend, special)
        ):
            taken[document] = taken.get(document, 0) + 1
            ends[document] = position + run
            chosen.append(row)
    return np.array(chosen, dtype=np.int64)


def first_of_runs(documents: I64, positions: I64, run: int) -> I64:
    """Which of the places that `cuts` gives a request is made at: the others come with the one before them.

    Examples
    --------
    >>> first_of_runs(np.array([0, 0, 0, 1]), np.array([5, 8, 9, 6]), run=4).tolist()
    [0, 2, 3]
    """
    starts: list[int] = []
    last = (-1, -1)
    for row, (document, position) in enumerate(zip(documents.tolist(), positions.tolist(), strict=True)):
        if document != last[0] or position >= last[1] + run:
            last = (document, position)
            starts.append(row)
    return np.array(starts, dtype=np.int64)


def can_be_shown(document: ReadingDocument, position: int, tokenizer: Tokenizer, special: frozenset[int]) -> bool:
    """Whether an answer's beginning, as text, is read as the same token ids that were served.

    Not so inside of a character, after a special token (such as the answer's own end), and in a later piece of an
    answer that was cut, whose beginning isn't here.

    Parameters
    ----------
    document
        The answer.
    position
        One past the last token of the beginning, in its sequence.
    tokenizer, special
        The spec's, and its special tokens.
    """
    begun = document.sequence[document.lead : position].tolist()
    if len(document.before) or not special.isdisjoint(begun):
        return False
    spelled = tokenizer.decode(begun, skip_special_tokens=False)
    return bool(tokenizer.encode(spelled, add_special_tokens=False).ids == begun)
