"""Which pairs are taken is decided without their coins, and says what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.twins.selection import QUOTED, PairChoice, Selected, instant, is_sampled, select
from tests.detect.twins.made import twins
from watermark.errors import DyetraceError
from watermark.twins.ledger import Stored
from watermark.twins.pair import Pair

LONG = "Owls hunt at night, and the herring gull hunts by day."
OTHER = "Nobody knows how many owls there are in these old woods."


def stored(pairs: Sequence[Pair]) -> list[Stored]:
    return [Stored(number, bytes([number]) * 32, b"", pair) for number, pair in enumerate(pairs, 1)]


def chosen(pairs: Sequence[Pair], **choice: Any) -> Selected:
    return select(stored(pairs), PairChoice(**choice))


def numbers(pairs: Sequence[Pair], **choice: Any) -> list[int]:
    """Which of the pairs are taken, in the order of the bets."""
    place = {pair.id: number for number, pair in enumerate(pairs)}
    return [place[one.pair.id] for one in chosen(pairs, **choice).pairs]


def turned(pair: Pair) -> Pair:
    """The same pair, had its coin fallen on the other side."""
    return msgspec.structs.replace(pair, served=1 - pair.served, proof=None)


_TEXTS = st.sampled_from(["", "The sea.", LONG, OTHER, LONG + OTHER, f"You said: {LONG}", "\ud800 half", LONG.upper()])


@st.composite
def ledgers(draw: Any) -> list[Pair]:
    count = draw(st.integers(1, 8))
    return [
        twins(
            number,
            draw(_TEXTS),
            draw(_TEXTS),
            draw(_TEXTS),
            account=draw(st.sampled_from([None, "acme", "zenith"])),
            level=draw(st.sampled_from(["withheld", "regenerated"])),
        )
        for number in range(count)
    ]


@given(
    ledgers(),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.sampled_from([[], ["acme"], ["acme", "zenith"]]),
    st.sampled_from([0.3, 1.0]),
    st.sampled_from([None, 1, 3]),
    st.randoms(use_true_random=False),
)
def test_turning_any_coins_and_shuffling_the_ledger_changes_nothing(
    pairs: list[Pair], which: list[bool], accounts: list[str], sample: float, most: int | None, random: Any
) -> None:
    other = [turned(pair) if turn else pair for pair, turn in zip(pairs, which, strict=False)]
    random.shuffle(other)
    choice = {"accounts": accounts, "sample": sample, "most": most}
    one, again = chosen(pairs, **choice), chosen(other, **choice)
    assert [found.pair.id for found in one.pairs] == [found.pair.id for found in again.pairs]
    assert one.counts == again.counts


@given(ledgers(), st.lists(st.booleans(), min_size=8, max_size=8))
def test_exchanging_the_answers_of_any_pairs_changes_nothing(pairs: list[Pair], which: list[bool]) -> None:
    other = [
        msgspec.structs.replace(pair, answers=pair.answers[::-1]) if turn else pair
        for pair, turn in zip(pairs, which, strict=False)
    ]
    assert numbers(pairs) == numbers(other)


@given(ledgers())
def test_what_comes_later_changes_nothing_for_earlier_pairs(pairs: list[Pair]) -> None:
    """A later pair may be what an earlier coin led to."""
    for count in range(1, len(pairs)):
        assert numbers(pairs[:count]) == [number for number in numbers(pairs) if number < count]


def test_pairs_are_bet_on_in_the_order_of_their_requests() -> None:
    pairs = [twins(number) for number in (3, 1, 2)]
    assert numbers(pairs) == [1, 2, 0]


def test_times_in_other_zones_and_forms_have_their_place_in_the_order() -> None:
    pairs = [
        twins(1, made="2026-11-01T13:00:00.5+01:00"),
        twins(2, made="2026-11-01T12:00:00Z"),
        twins(3, made="2026-11-01T12:00:01"),
    ]
    assert numbers(pairs) == [1, 0, 2]


def test_accounts_levels_and_times_are_looked_at_and_counted() -> None:
    pairs = [
        twins(0, account="acme"),
        twins(1, account="zenith"),
        twins(2, account="acme", level="regenerated"),
        twins(3, account="acme"),
    ]
    assert numbers(pairs) == [0, 1, 3]
    assert numbers(pairs, accounts=["acme"]) == [0, 3]
    assert numbers(pairs, level="regenerated") == [2]
    assert numbers(pairs, since="2026-11-01T12:01:00+00:00", until="2026-11-01T12:03:00+00:00") == [1]
    assert numbers(pairs, since="2026-11-01", until="2026-11-02") == [0, 1, 3]
    assert chosen(pairs, accounts=["acme"]).counts.eligible == 2


def test_the_first_in_time_are_taken_where_there_are_too_many() -> None:
    found = chosen([twins(number) for number in range(9)], most=4)
    assert [one.pair.id for one in found.pairs] == [twins(number).id for number in range(4)]
    assert (found.counts.sampled, found.counts.used) == (9, 4)


def test_equal_twins_are_left_out() -> None:
    counts = chosen([twins(0, "Yes.", "Yes."), twins(1, "Yes.", "Yes. ")]).counts
    assert (counts.tied, counts.used) == (1, 1)


@pytest.mark.parametrize("quoted", [LONG, OTHER])
def test_a_prompt_that_quotes_an_earlier_answer_is_left_out_whichever_was_served(quoted: str) -> None:
    chat = [{"role": "user", "content": "Owls?"}, {"role": "assistant", "content": quoted}]
    follow_up = twins(1, prompt=[*chat, {"role": "user", "content": "And more?"}])
    counts = chosen([twins(0, LONG, OTHER), follow_up]).counts
    assert (counts.follow_ups, counts.used) == (1, 1)


def test_white_space_hides_no_quote_and_parts_of_messages_are_looked_at() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Is it true?\n> " + LONG.replace(" ", "\n> \t")}]}]
    assert chosen([twins(0, LONG, OTHER), twins(1, prompt=parts)]).counts.follow_ups == 0  # the signs are no space
    parts = [{"role": "user", "content": [{"type": "text", "text": LONG.replace(" ", "\n \t")}]}]
    assert chosen([twins(0, LONG, OTHER), twins(1, prompt=parts)]).counts.follow_ups == 1


def test_a_part_of_a_long_answer_is_a_quote_too() -> None:
    long = " ".join(f"word{number}" for number in range(60))
    squeezed = long.replace(" ", "")
    part = squeezed[100 : 100 + 2 * QUOTED]
    assert chosen([twins(0, long, OTHER), twins(1, prompt=f"What is {part}?")]).counts.follow_ups == 1


def test_what_both_twins_say_or_the_prompt_said_before_tells_no_coin() -> None:
    document = "The committee met on Monday and decided to postpone the matter until spring."
    alike = twins(0, document + " Good.", document + " Bad.")
    quoting = twins(1, f"It says: {document}", "It is about a committee.", prompt=f"Sum up: {document}")
    again = twins(2, prompt=f"Sum up once more: {document}")
    assert numbers([alike, quoting, again]) == [0, 1, 2]


def test_an_answer_to_ones_own_prompt_is_no_quote() -> None:
    assert numbers([twins(0, LONG, OTHER, prompt=f"Repeat: {LONG}")]) == [0]


def test_a_public_seed_picks_about_its_share_and_the_same_each_time() -> None:
    ids = [twins(number).id for number in range(2000)]
    picked = [one for one in ids if is_sampled(one, "2026-12-24", 0.25)]
    assert 400 < len(picked) < 600
    assert picked == [one for one in ids if is_sampled(one, "2026-12-24", 0.25)]
    assert picked != [one for one in ids if is_sampled(one, "2026-12-25", 0.25)]
    assert all(is_sampled(one, "", 1.0) for one in ids)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"sample": 0.0}, "above 0"),
        ({"sample": float("nan")}, "above 0"),
        ({"sample": 1.5}, "above 0"),
        ({"most": 0}, "at least 1"),
        ({"since": "yesterday"}, "no time"),
        ({"since": "2026-12-01", "until": "2026-11-01"}, "no request can have come"),
    ],
)
def test_choices_that_can_not_be_meant_are_refused(choice: dict[str, Any], said: str) -> None:
    with pytest.raises(DyetraceError, match=said):
        PairChoice(**choice)


def test_a_time_without_a_zone_is_utc() -> None:
    assert instant("2026-11-30T12:00").isoformat() == "2026-11-30T12:00:00+00:00"
