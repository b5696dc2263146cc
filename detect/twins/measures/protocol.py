"""What every measure of a pair is: questions fixed by the pair alone, and differences that flip when it is swapped.

A measure never learns which twin was served. It sees a pair's two sides in the order of `Pair.sides`, shows the
suspect either both of them or neither, and gives for each pair numbers "first less second". The coin enters afterwards,
as a sign (`detect.twins.bets`), and under the null hypothesis that sign is a fair coin whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from detect.student.asking.forms import Question
from watermark.twins.pair import Pair

F64 = npt.NDArray[np.float64]


class Measure(Protocol):
    """A measure of pairs by asking an endpoint."""

    @property
    def name(self) -> str:
        """The measure's: "logprobs", "parting" or "answers"."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers of `difference`, the first the one that stands for the measure where one must."""
        ...

    def questions(self, pair: Pair) -> list[Question]:
        """What to ask about a pair; none where it can't be asked about. Swapping the twins changes nothing."""
        ...

    def difference(self, pair: Pair, replies: Sequence[bytes | None]) -> F64:
        """Numbers of shape (columns,), first side less second, from the bodies of the replies to `questions`.

        None stands for a question that has no answer. Swapping the twins flips every sign; 0 says nothing; never NaN.
        """
        ...
