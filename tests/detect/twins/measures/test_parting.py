"""Partings: where to ask, what a reply says, and that no order of the twins has a say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.answers import Choice
from detect.student.asking.forms import FORMS
from detect.twins.measures.parting import (
    PartingMeasure,
    Place,
    by_words,
    find_places,
    parting,
    takes,
    towards,
    usable,
)
from tests.detect.twins.measures.twins import HOSTILE, PROMPT, chat_reply, check_flips, pair, texts

LONG_ONE = "The sea is deep and cold, and few ships ever cross it when the long winter comes to the north of it again"
LONG_OTHER = "The sea is a mirror of the sky on calm days, and on others it is grey and loud and nobody goes near to it"


def said(text: str, finish: str = "length") -> Choice:
    found = usable(chat_reply(text, finish))
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------ where they part


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("The sea is deep", "The sea is a mirror", "The sea is"),
        ("The theory", "The the", "The"),
        ("The sea", "The sea\nis", "The sea"),
        ("The sea", "The sea is", "The sea"),
        ("The sea", "The season", "The"),
        ("Yes", "No", ""),
        ("", "No", ""),
        ("One  two", "One  three", "One"),
        ("A b \n\nc", "A b \n\nd", "A b"),
        ("\u6d77\u662f\u84dd", "\u6d77\u662f\u6df1", "\u6d77\u662f"),
        ("\U0001f30a\U0001f30a", "\U0001f30a\U0001f30b", ""),
    ],
)
def test_what_is_shown_ends_with_a_word(one: str, other: str, shown: str) -> None:
    assert one[: parting(one, other)] == shown
    assert parting(other, one) == parting(one, other)


# ------------------------------------------------------------------------------------------ what a reply says


@pytest.mark.parametrize(
    ("reply", "sign"),
    [
        (" deep", 1),
        (" de", 1),
        (" d", 1),
        ("deep", 1),
        ("The sea is deep", 1),
        (" a mirror", -1),
        (" a", -1),
        (" ", 0),
        ("", 0),
        (" blue", 0),
        ("\ufffd", 0),
        (" d\ufffd", 1),
    ],
)
def test_a_reply_goes_on_as_one_of_both(reply: str, sign: int) -> None:
    rests = (" deep and", " a mirror")
    assert towards(said(reply), "The sea is", rests, (True, True)) == sign
    assert towards(said(reply), "The sea is", rests[::-1], (True, True)) == -sign


def test_words_that_begin_alike_are_told_apart_by_what_follows() -> None:
    rests = (" theory is", " the cat")
    assert towards(said(" the"), "I think", rests, (True, True)) == 0
    assert towards(said(" the cat sat"), "I think", rests, (True, True)) == -1
    assert towards(said(" theo"), "I think", rests, (True, True)) == 1


def test_a_reply_that_ends_speaks_for_the_twin_that_ends() -> None:
    rests = ("", " But it is cold.")
    assert towards(said("", "stop"), "The sea is deep.", rests, (True, True)) == 1
    assert towards(said("", "stop"), "The sea is deep.", rests, (False, True)) == 0  # a limit cut it off
    assert towards(said("", "length"), "The sea is deep.", rests, (True, True)) == 0
    assert towards(said(" But", "stop"), "The sea is deep.", rests, (True, True)) == -1


def test_white_space_tells_twins_apart() -> None:
    rests = ("\nThe", " The")
    assert towards(said("\n"), "Yes.", rests, (True, True)) == 1
    assert towards(said(" The"), "Yes.", rests, (True, True)) == -1
    assert towards(said("The"), "Yes.", rests, (True, True)) == 0


@pytest.mark.parametrize(
    ("reply", "hit"),
    [
        (" mirror of", True),
        (" mirror", True),
        (" mir", True),
        ("mirror", True),
        (" m", False),  # the owner's own " map" begins so too
        (" map", False),
        (" mirrors", False),
        (" ", False),
        ("", False),
        (" blue", False),
    ],
)
def test_a_turn_is_taken_or_not(reply: str, hit: bool) -> None:
    text = "The sea is a mirror of the sky"
    place = Place(side=0, begun=len("The sea is a"), turn=" mirror", instead=" map", weight=1.5)
    assert takes(said(reply), text, place) is hit


def test_without_the_owners_model_the_first_letter_counts() -> None:
    place = Place(side=0, begun=3, turn=" sea", instead=None, weight=1.0)
    assert takes(said(" s"), "The sea is", place)
    assert not takes(said(" "), "The sea is", place)
    assert takes(said(" sea"), "The sea", place)


# ------------------------------------------------------------------------------------------ the measure


@pytest.mark.parametrize("form", FORMS)
@given(one=texts, other=texts, replies=st.lists(texts, min_size=1, max_size=4), stops=st.booleans())
def test_swapping_the_twins_flips_every_number(
    form: Any, one: str, other: str, replies: list[str], stops: bool
) -> None:
    def reply(question: Any) -> bytes:
        shown = str(question.body)
        if len(shown) % 3 == 0:
            begun = shown[-40:]
            rest = next((t for t in (one, other) if t.startswith(begun[:3])), "")
            return chat_reply(rest[len(begun) :][:9])
        return chat_reply(replies[len(shown) % len(replies)], "stop" if stops else "length")

    check_flips(lambda _: PartingMeasure(form, first=True), one, other, reply)


@given(st.lists(st.sampled_from(HOSTILE), min_size=5, max_size=5))
def test_hostile_replies_say_nothing(replies: list[bytes]) -> None:
    twins, measure = pair(LONG_ONE, LONG_OTHER), PartingMeasure()
    asked = measure.questions(twins)
    assert len(asked) == 5
    assert not measure.difference(twins, replies).any()
    assert not measure.difference(twins, replies[:2]).any()
    assert not measure.difference(twins, [None] * 5).any()


def test_a_student_of_one_side_takes_its_turns() -> None:
    twins = pair(LONG_ONE, LONG_OTHER)
    measure = PartingMeasure()
    for text, sign in ((LONG_ONE, 1), (LONG_OTHER, -1)):
        replies = []
        for question in measure.questions(twins):
            begun = question.body["prompt"].removeprefix(f"{PROMPT}\n")
            replies.append(chat_reply(text[len(begun) :][:12] if text.startswith(begun) else " nothing of it"))
        assert measure.difference(twins, replies) == pytest.approx([2 * sign, 2 * sign, sign])


def test_places_without_a_model_are_as_many_on_both_sides() -> None:
    for one, other in ((LONG_ONE, LONG_OTHER), (LONG_ONE, "The sea is a mirror"), ("\u6d77" * 40, "\u5c71" * 30)):
        places = by_words(pair(one, other), 2)
        assert [place.side for place in places] == sorted(place.side for place in places)
        assert sum(place.side for place in places) * 2 == len(places)
        for place in places:
            text = pair(one, other).sides[place.side].text
            assert text[place.begun :].startswith(place.turn) and not text[: place.begun][-1:].isspace()
    assert len(by_words(pair(LONG_ONE, LONG_OTHER), 2)) == 4


def test_what_is_asked_of_each_server() -> None:
    twins = pair("The sea is deep", "The sea is a mirror")
    begun = {"role": "assistant", "content": "The sea is"}
    asked = {form: PartingMeasure(form).questions(twins)[0] for form in FORMS}
    assert {form: question.endpoint for form, question in asked.items() if form != "completions"} == dict.fromkeys(
        FORMS[1:], "chat"
    )
    assert asked["completions"].body["prompt"] == f"{PROMPT}\nThe sea is"
    assert asked["continue"].body["continue_final_message"] and not asked["continue"].body["add_generation_prompt"]
    assert asked["continue"].body["messages"][-1] == asked["last"].body["messages"][-1] == begun
    assert asked["prefix"].body["messages"][-1] == begun | {"prefix": True}
    assert "continue_final_message" not in asked["last"].body
    bare = PartingMeasure("continue").questions(pair("Yes", "No"))[0]
    assert bare.body["messages"] == [{"role": "user", "content": PROMPT}]
    assert "continue_final_message" not in bare.body
    assert PartingMeasure().questions(pair("Yes", "Yes")) == []


def test_the_owners_model_finds_turns_that_it_would_not_take(smollm2_dir: Path) -> None:
    """Real texts; all of what is found follows the rule, whichever way round the twins stand."""
    both = [pair(LONG_ONE, LONG_OTHER, first=first) for first in (0, 1)]
    found = [find_places(smollm2_dir, [twins], per_side=3, dtype="float32")[twins.id] for twins in both]
    assert len(found[0]) >= 2
    assert [place.side for place in found[0]] == sorted(place.side for place in found[0])
    assert sum(place.side for place in found[0]) * 2 == len(found[0])
    key = [sorted((p.begun, p.turn, p.instead, p.weight) for p in places) for places in found]
    assert [k[:3] for k in key[0]] == [k[:3] for k in key[1]]
    for place in found[0]:
        text = both[0].sides[place.side].text
        assert text[place.begun :].startswith(place.turn) and place.begun > len("The sea is")
        assert place.instead != place.turn and 0 < place.weight < 2.31
    measure = PartingMeasure(places={both[0].id: found[0]})
    assert len(measure.questions(both[0])) == len(found[0])  # where they part is not asked about
