"""Who is asked about regenerated twins before the suspect: numbers that flip with the pair, by real models."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from detect.twins.controls import OWNER_NUMBERS, law_controls, leading, owner_numbers, text_numbers, words
from detect.twins.law import law_test
from detect.twins.lawful import law_of, unserved_pairs
from detect.twins.measures.weights import Reader
from detect.twins.readings import Readings
from tests.detect.twins.made import KEY, ledger_of, twins
from tests.tiny_models import CAUSAL, made, saved
from watermark.errors import DyetraceError
from watermark.regenerate import MODEL, UNSERVED
from watermark.twins.pair import Pair, TwinAnswer

COUNT = 140


def later(number: int, one: str, other: str) -> Pair:
    """A pair whose second answer was drawn later."""
    answers = TwinAnswer(text=one), TwinAnswer(text=other)
    engine = {MODEL: "a" * 64}
    return twins(number, answers=answers, prompt="3 4 5", served=0, level="regenerated", proof=None, engine=engine)


def said(random: np.random.Generator, low: int = 6, high: int = 290) -> str:
    return " ".join(str(word) for word in random.integers(low, high, random.integers(4, 9)))


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Served answers and twins of one law."""
    random = np.random.default_rng(5)
    return [later(number, said(random), said(random)) for number in range(COUNT)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The owner's model, an unrelated one, and a suspect that never learnt anything."""
    place = tmp_path_factory.mktemp("models")
    return [saved(made(CAUSAL["llama"], seed), place / f"model-{seed}") for seed in range(3)]


@pytest.fixture(scope="module")
def owner(folders: list[Path]) -> Reader:
    return Reader.load(folders[0], "float32")


def swapped(pair: Pair) -> Pair:
    """The same two texts, of which the other one was served."""
    return msgspec.structs.replace(pair, answers=pair.answers[::-1])


def test_no_number_knows_which_answer_was_served(owner: Reader, pairs: list[Pair]) -> None:
    some = pairs[:12]
    other = [swapped(pair) for pair in some]
    assert [pair.sign for pair in some] == [-pair.sign for pair in other]
    for of in (lambda given: owner_numbers(owner, given), text_numbers, words):
        assert np.array_equal(of(some), of(other))


def test_numbers_flip_where_the_two_texts_change_places(pairs: list[Pair]) -> None:
    one, other = pairs[0], later(0, pairs[0].answers[1].text, pairs[0].answers[0].text)
    for of in (text_numbers, words):
        assert np.array_equal(of([one]), of([other]))  # the order of sides is by their texts
    same = later(1, "7 8 9", "7 8 9")
    assert not text_numbers([same]).any() and not words([same]).any()


def test_the_owner_s_numbers_are_those_of_its_predictions(owner: Reader, pairs: list[Pair]) -> None:
    found = owner_numbers(owner, pairs[:6])
    assert found.shape == (6, len(OWNER_NUMBERS))
    reads = owner.read(pairs[:6])
    assert np.allclose(found[:, 0], [read.difference[0] for read in reads if read is not None], atol=1e-5)
    assert (np.abs(found[:, 1]) <= 1).all() and (np.abs(found[:, 2]) <= np.log(300)).all()
    assert not owner_numbers(owner, [later(1, "7 8 9", "7 8 9")]).any()


def test_every_control_that_is_needed_is_there_and_bounds_the_bias(owner: Reader, pairs: list[Pair]) -> None:
    controls = law_controls(pairs, owner_numbers(owner, pairs), {"x": np.ones(COUNT)})
    assert {control.kind for control in controls if control.bounds} == {"owner", "unrelated", "classifier"}
    assert len({control.name for control in controls}) == len(controls)
    assert law_test(controls, bets=COUNT).controls[0].pairs == COUNT


def test_one_law_passes_with_a_bias_that_pairs_of_answers_never_served_do_not_make_smaller(
    folders: list[Path], pairs: list[Pair], tmp_path: Path
) -> None:
    readings = Readings(tmp_path, "float32")
    law = law_of(pairs, folders[0], folders[1:2], readings)
    assert law.veto is None and 0.1 < law.bias < 0.2
    random = np.random.default_rng(6)
    unserved = [later(1000 + number, said(random), said(random)) for number in range(COUNT)]
    more = law_of(pairs, folders[0], folders[1:2], readings, unserved=unserved, suspect=folders[2])
    assert more.bias >= law.bias and {one.pairs for one in more.controls} == {COUNT}
    assert more.veto is None or "tells" not in more.veto
    assert {one.kind for one in more.controls[len(law.controls) :]} == {"unserved"}
    assert [one.pairs for one in more.controls][-1] == COUNT and "the suspect" in more.controls[-1].name


def test_answers_that_were_never_served_do_not_hide_another_law_of_those_that_were(
    folders: list[Path], tmp_path: Path
) -> None:
    random = np.random.default_rng(8)
    wrong = [later(number, said(random), said(random, 60, 200)) for number in range(COUNT)]
    right = [later(1000 + number, said(random), said(random)) for number in range(6 * COUNT)]
    law = law_of(wrong, folders[0], folders[1:2], Readings(tmp_path, "float32"), unserved=right)
    assert law.veto is not None and "the learnt classifier tells" in law.veto
    assert {one.pairs for one in law.controls if one.bounds} == {COUNT}


def test_beside_a_reference_controls_are_numbers_of_the_suspects_kind_and_the_reference_is_one_of_them(
    folders: list[Path], pairs: list[Pair], tmp_path: Path
) -> None:
    readings = Readings(tmp_path, "float32")
    owner, unrelated, reference = folders
    plain = law_of(pairs, owner, [unrelated], readings)
    law = law_of(pairs, owner, [unrelated], readings, reference=reference)
    assert [(one.name, one.kind) for one in law.controls if one.bounds] == [
        ("the owner's model", "owner"),
        ("the owner's model beside the reference", "owner"),
        ("unrelated model model-1 beside the reference", "unrelated"),
        ("the reference model-2", "unrelated"),
        ("the learnt classifier", "classifier"),
    ]
    signs = np.array([pair.sign for pair in pairs])
    x = leading(readings.read(owner, pairs), readings.read(reference, pairs), pairs)
    assert law.controls[2].wins == int(np.sum(x * signs > 0)) and len({one.name for one in law.controls}) == len(
        law.controls
    )
    assert law.controls[0].wins == plain.controls[0].wins
    assert law.bias >= plain.controls[0].bias_upper


@pytest.mark.parametrize("which", [0, 1])
def test_a_reference_that_is_a_control_already_is_asked_once(
    which: int, folders: list[Path], pairs: list[Pair], tmp_path: Path
) -> None:
    """A model less itself says nothing, and would be refused as too few pairs."""
    law = law_of(pairs, folders[0], folders[1:2], Readings(tmp_path, "float32"), reference=folders[which])
    bounding = [one for one in law.controls if one.bounds]
    assert len(bounding) == 4 - (which == 0)
    assert "says something of" not in (law.veto or "")
    assert all(one.wins + one.losses > 0 for one in bounding)
    assert not any(one.name.startswith("the reference") for one in law.controls)


def test_a_reference_that_prefers_one_law_s_answers_refuses(
    folders: list[Path], pairs: list[Pair], tmp_path: Path
) -> None:
    """An innocent suspect without an opinion would lean as far as it does, the other way."""
    readings = Readings(tmp_path, "float32")
    reads = readings.read(folders[2], pairs)
    leaning = []
    for pair in pairs:
        likelier = pair.sides[int(reads[pair.id].difference[0] < 0)]
        answers = pair.answers if pair.answers[1] == likelier else pair.answers[::-1]
        leaning.append(msgspec.structs.replace(pair, answers=answers))
    law = law_of(leaning, folders[0], folders[1:2], readings, reference=folders[2])
    assert law.veto is not None and "the reference model-2, as it is tells served answers from twins" in law.veto


def test_pairs_never_served_are_in_the_order_of_time_whatever_zone_it_is_written_in(
    pairs: list[Pair], tmp_path: Path
) -> None:
    times = "2026-11-02T00:30:00+02:00", "2026-11-01T23:00:00+00:00", "2026-11-01T23:00:00.5+00:00"
    kept = [
        msgspec.structs.replace(pair, made=made, engine={**pair.engine, UNSERVED: "true"})
        for pair, made in zip(pairs, times, strict=False)
    ]
    assert unserved_pairs(ledger_of(tmp_path, kept[::-1]), KEY) == kept


def test_a_ledger_of_answers_that_were_served_is_no_control(pairs: list[Pair], tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="of answers that were served"):
        unserved_pairs(ledger_of(tmp_path, pairs[:3]), KEY)
    kept = [msgspec.structs.replace(pair, engine={**pair.engine, UNSERVED: "true"}) for pair in pairs[:3]]
    same = msgspec.structs.replace(later(900, "7 8", "7 8"), engine=kept[0].engine)
    other = tmp_path / "other"
    other.mkdir()
    assert unserved_pairs(ledger_of(other, [same, *kept[::-1]]), KEY) == kept


def test_another_law_is_seen_and_refused(folders: list[Path], tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    wrong = [later(number, said(random), said(random, 60, 200)) for number in range(COUNT)]
    law = law_of(wrong, folders[0], folders[1:2], Readings(tmp_path, "float32"))
    assert law.veto is not None and "the learnt classifier tells served answers from twins" in law.veto
