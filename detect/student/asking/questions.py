"""What asking needs of whatever is asked: which requests there are, in which order, and what is made of the replies.

A trace's plan (`detect.student.asking.plan.TracePlan`) is one such thing, pairs of twins are another. The client, its
ledger, its pace and its budgets know nothing else of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from detect.student.asking.answers import Response
from detect.student.asking.budget import Budgets

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes
    ----------
    url
        Where it goes.
    body
        JSON, as it is sent.
    key
        Names its answer in the ledger (hex).
    step, sample, count
        For which step of the plan, from which sample of it on, and how many samples are wanted.
    prompt_bytes
        No tokenizer makes more tokens of what it shows.
    most_tokens
        Of one sample's answer.
    """

    url: str
    body: bytes
    key: str
    step: int
    sample: int
    count: int
    prompt_bytes: int
    most_tokens: int

    @property
    def bound(self) -> int:
        """The most tokens that it can cost."""
        return self.prompt_bytes + self.count * self.most_tokens


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """What a reply gave.

    Attributes
    ----------
    answers
        Those that can be used.
    unusable
        Why others can't, a reason each; none of both where the reply holds no answers at all.
    lacking
        Usable answers that lack something which the plan counts on.
    needed
        What may be lacking, and what to do then, as the end of a sentence: an endpoint none of whose answers has it is
        asked no more. None where nothing can be lacking.
    told
        What is said once, at the first reply that gives reason for it; None where there is nothing to say.
    """

    answers: list[T]
    unusable: list[str]
    lacking: int = 0
    needed: str | None = None
    told: str | None = None


class Questions(Protocol[T]):
    """Steps that are asked, each by some requests; the answers of a step are released together, in order.

    Attributes
    ----------
    url
        Base address of the API; messages name its host.
    budgets
        The most that may be spent over all resumptions.
    """

    @property
    def url(self) -> str:
        """As above."""
        ...

    @property
    def budgets(self) -> Budgets:
        """As above."""
        ...

    @property
    def steps(self) -> int:
        """How many there are."""
        ...

    @property
    def largest_body(self) -> int:
        """Bytes of a reply that are read at most."""
        ...

    @property
    def canonical(self) -> bytes:
        """What was fixed beforehand, as JSON: it is entered into the ledger before anything is sent."""
        ...

    @property
    def sha256(self) -> str:
        """Of `canonical`, hex: names the plan."""
        ...

    def samples_of(self, step: int) -> list[range]:
        """Sample numbers of a step, those of one request together."""
        ...

    def request(self, step: int, sample: int, count: int) -> Request:
        """The request for so many samples of a step, from sample number ``sample`` on."""
        ...

    def take(self, request: Request, entry: int, payload: bytes, response: Response) -> Taken[T]:
        """What is made of a reply.

        Parameters
        ----------
        request
            What was asked.
        entry
            The reply's entry in the ledger.
        payload
            Its body, as it came; empty where it was refused.
        response
            The same as `read_response` has it.
        """
        ...

    def repeated(self, answers: Sequence[T]) -> int:
        """How many answers of a step say what another one of them says too."""
        ...
