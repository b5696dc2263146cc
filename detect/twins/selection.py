"""Which pairs of a ledger are bet on, and in which order: chosen by whose they are, their time and a public seed.

The coins have no say in it. Nothing here reads `Pair.served`, and whether a pair is taken rests on its unordered
answers, its own prompt, and what earlier pairs say: a later pair may itself be what an earlier coin led to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from detect.records.twins import PairCounts
from watermark.errors import DyetraceError
from watermark.twins.ledger import Stored
from watermark.twins.pair import Pair

SEED = "dyetrace"
"""Where nobody gives one. A fixed seed leaves nothing to choose."""
QUOTED = 32
"""Characters, white space apart, that a prompt has in common with an earlier answer before it counts as quoting it."""

Level = Literal["withheld", "regenerated"]


class PairChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What decides which pairs are taken.

    Attributes
    ----------
    level
        Of the pairs; those of the other level are not looked at.
    accounts
        Only pairs of these; all where it is empty.
    since, until
        Only requests from this time on, and before that one, in ISO 8601; a date begins at midnight, UTC.
    sample
        Share of the pairs that the seed picks, in (0, 1].
    seed
        Public.
    most
        So many at most, the first in time; null takes all.
    """

    level: Level = "withheld"
    accounts: list[str] = []
    since: str | None = None
    until: str | None = None
    sample: float = 1.0
    seed: str = SEED
    most: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise DyetraceError(f"the share of the pairs to take must lie above 0 and at most at 1 (got {self.sample})")
        if self.most is not None and self.most < 1:
            raise DyetraceError(f"the number of pairs must be at least 1 (got {self.most})")
        since, until = (None if text is None else instant(text) for text in (self.since, self.until))
        if since is not None and until is not None and since >= until:
            raise DyetraceError(f"no request can have come from {self.since} on and before {self.until}")


@dataclass(frozen=True, slots=True)
class Selected:
    """The pairs that are bet on, in the order of the bets, and how many others there were."""

    pairs: tuple[Stored, ...]
    counts: PairCounts


def select(stored: Iterable[Stored], choice: PairChoice, erased: int = 0) -> Selected:
    """Choose among the pairs of a ledger.

    Parameters
    ----------
    stored
        All pairs of the ledger that can be read, in any order: what is quoted may be another account's answer.
    choice
        Which of them to take.
    erased
        How many can't be read any more, for the counts.

    Returns
    -------
    Selected
        In the order in which their requests came.
    """
    since, until = (None if text is None else instant(text) for text in (choice.since, choice.until))
    taken: list[Stored] = []
    eligible = sampled = tied = follow_ups = 0
    said = _Said()
    for one in sorted(stored, key=lambda one: bet_order(one.pair)):
        pair = one.pair
        came = instant(pair.made)
        if (
            pair.level == choice.level
            and (not choice.accounts or pair.account in choice.accounts)
            and (since is None or came >= since)
            and (until is None or came < until)
        ):
            eligible += 1
            if is_sampled(pair.id, choice.seed, choice.sample):
                sampled += 1
                if pair.tied:
                    tied += 1
                elif said.is_quoted_in(prompt_words(pair)):
                    follow_ups += 1
                else:
                    taken.append(one)
        said.add(pair)
    used = taken[: choice.most]
    counts = PairCounts(
        eligible=eligible,
        sampled=sampled,
        tied=tied,
        follow_ups=follow_ups,
        erased=erased,
        used=len(used),
        asked=0,
        silent=0,
    )
    return Selected(tuple(used), counts)


def bet_order(pair: Pair) -> tuple[str, str]:
    """What pairs are sorted by: when their requests came, then their ids."""
    return came_at(pair), pair.id


def came_at(pair: Pair) -> str:
    """When a pair's request came, always written alike, so that it sorts as text: UTC, with microseconds."""
    return instant(pair.made).isoformat(timespec="microseconds")


def instant(text: str) -> datetime:
    """A time in ISO 8601, in UTC where it names no zone.

    Raises
    ------
    DyetraceError
        It is none.

    Examples
    --------
    >>> instant("2026-11-30").isoformat(), instant("2026-11-30T01:00:00+01:00").isoformat()
    ('2026-11-30T00:00:00+00:00', '2026-11-30T00:00:00+00:00')
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise DyetraceError(f"{text!r} is no time; write it as 2026-11-30 or 2026-11-30T12:00:00+00:00") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def is_sampled(pair_id: str, seed: str, share: float) -> bool:
    """Whether a public seed picks a pair: SHA-256 over the seed and the pair's random id, as a number in [0, 1).

    Examples
    --------
    >>> sum(is_sampled(f"{number:032x}", "2026", 0.25) for number in range(1000))
    235
    """
    drawn = hashlib.sha256(msgspec.json.encode([seed, pair_id])).digest()[:8]
    return int.from_bytes(drawn, "big") < share * 2.0**64


def prompt_words(pair: Pair) -> str:
    """All text that was put before a pair's answers, without white space."""
    return squeezed(" ".join(_strings(pair.prompt)))


def squeezed(text: str) -> str:
    """Text without its white space: clients and templates break lines as they like."""
    return "".join(text.split())


class _Said:
    """What only one twin of some pair says: passages of both twins alike, whichever was served.

    A passage that both twins have, or that stood in the prompt already, tells nothing of the coin.
    """

    def __init__(self) -> None:
        self._passages: set[str] = set()

    def add(self, pair: Pair) -> None:
        one, other = (squeezed(answer.text) for answer in pair.answers)
        shown = prompt_words(pair)
        for text, twin in ((one, other), (other, one)):
            ends = range(QUOTED, len(text) + 1, QUOTED)
            passages = [text[end - QUOTED : end] for end in ends]
            if len(text) >= QUOTED:
                passages.append(text[-QUOTED:])
            self._passages.update(part for part in passages if part not in twin and part not in shown)

    def is_quoted_in(self, words: str) -> bool:
        """Whether a prompt holds one of the passages; any quote of twice their length does."""
        passages = self._passages
        return any(words[start : start + QUOTED] in passages for start in range(len(words) - QUOTED + 1))


def _strings(value: Any) -> Iterator[str]:
    """All strings in JSON, in order; of messages their roles too, which are too short to matter."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _strings(part)
