"""No innocent is found by reading served answers beside the owner's model, and who learnt from them is.

An innocent reads answers that were served under several keys, each time by the command itself. The e-values of
different keys are independent, so their product is an e-value too: it shows a small lean that no single one does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.innocents.races import (
    ALPHA,
    RUN,
    SAMPLING,
    Changed,
    Race,
    race,
    saved,
    saved_innocents,
    some_subkeys,
    twice,
    without_ends,
    without_ids,
)
from tests.innocents.world import PROMPTS, World, copier_of, run, taught, tokenizer_of
from watermark.generate import generate_answers

KEYS = 3


@pytest.fixture(scope="module")
def innocents(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return saved_innocents(world, tmp_path_factory.mktemp("innocents"))


@pytest.fixture(scope="module")
def races(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Race]:
    folder = tmp_path_factory.mktemp("races")
    return [race(world, folder / str(number), number) for number in range(1, KEYS + 1)]


@pytest.fixture(scope="module")
def guilty(world: World, races: Sequence[Race], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of what was served under the first key."""
    student = taught(world.model("teacher")[0], races[0].answers, steps=25)
    return saved(student, tokenizer_of(), tmp_path_factory.mktemp("guilty") / "student")


def not_found(races: Sequence[Race], suspect: Path, output: Path, change: Changed | None = None, *more: object) -> None:
    """The suspect is found under none of the keys, and not under all of them together."""
    together = 0.0
    for one in races:
        read = None if change is None else one.of(change(one.answers), "changed")
        record = one.read_by(suspect, output / one.folder.name, *more, read=read)
        assert not record.found and record.refused is None and record.identified == []
        assert record.counts.asked > 300 and record.counts.silent < 0.5 * record.counts.asked
        together += record.log10_evalue
    assert together < -math.log10(ALPHA)


WHO = [
    "the owner's own sibling",
    "a student of unmarked answers",
    "a student of another key's answers",
    "a student of short answers",
    "a student of long answers",
    "one that copies",
    "another tokenizer",
]


@pytest.mark.parametrize("who", WHO)
def test_no_innocent_is_found(who: str, races: list[Race], innocents: dict[str, Path], tmp_path: Path) -> None:
    not_found(races, innocents[who], tmp_path)


CHANGES: dict[str, Changed] = {
    "text alone": without_ids,
    "some sub-keys": some_subkeys,
    "ends taken away": without_ends,
    "twice": twice,
}


@pytest.mark.parametrize("how", CHANGES)
def test_nor_where_records_say_less(
    how: str, races: list[Race], innocents: dict[str, Path], guilty: Path, tmp_path: Path
) -> None:
    change = CHANGES[how]
    for who in ("a student of unmarked answers", "a student of short answers"):
        not_found(races, innocents[who], tmp_path / who.replace(" ", "-"), change)
    found = races[0].read_by(guilty, tmp_path / "guilty", read=races[0].of(change(races[0].answers), "changed"))
    assert found.found and found.log10_evalue > 6


def test_who_learnt_what_was_served_is_found_under_that_key_alone(
    races: list[Race], guilty: Path, tmp_path: Path
) -> None:
    """Else nothing here would say anything."""
    record = races[0].read_by(guilty, tmp_path / "own")
    assert record.found and record.log10_evalue > 20 and max(record.controls.decoy_log10_evalues) < 3
    not_found(races[1:], guilty, tmp_path)


def test_answers_that_are_there_twice_say_nothing_twice(races: list[Race], guilty: Path, tmp_path: Path) -> None:
    once = races[0].read_by(guilty, tmp_path / "once")
    again = races[0].read_by(guilty, tmp_path / "twice", read=races[0].of(twice(races[0].answers), "twice"))
    assert again.counts.asked == once.counts.asked and again.log10_evalue == once.log10_evalue


@pytest.mark.parametrize("fields", [{"scheme": "tournament"}, {"scheme": "green_list"}], ids=["tournament", "green"])
def test_of_the_other_schemes(fields: dict[str, Any], world: World, innocents: dict[str, Path], tmp_path: Path) -> None:
    two = [race(world, tmp_path / str(number), number, **fields) for number in (1, 2)]
    for who in ("the owner's own sibling", "a student of unmarked answers"):
        not_found(two, innocents[who], tmp_path / who.replace(" ", "-"))
    student = taught(world.model("teacher")[0], two[0].answers)
    record = two[0].read_by(saved(student, tokenizer_of(), tmp_path / "guilty"), tmp_path / "found")
    assert record.found and record.log10_evalue > 6


def test_clients_that_go_on_with_what_they_were_served(
    world: World, innocents: dict[str, Path], tmp_path: Path
) -> None:
    """Each prompt holds an earlier answer, and asks for it again: who copies would say it."""
    first = [race(world, tmp_path / str(number), number, prompts=PROMPTS[:30]) for number in (1, 2)]
    teacher, tokenizer = world.model("teacher")
    conversations = []
    for one in first:
        prompts = [f"You said {n}: {answer.text} Say it again." for n, answer in enumerate(one.answers)]
        then = list(generate_answers(teacher, tokenizer, prompts, SAMPLING, one.spec, one.ring, run=RUN))
        both = [*one.answers, *(msgspec.structs.replace(a, id=str(30 + n)) for n, a in enumerate(then))]
        conversations.append((one, one.of(both, "conversation")))
    copier = saved(copier_of(tokenizer_of(), sure=12.0), tokenizer_of(), tmp_path / "copier")
    for suspect in (copier, innocents["a student of unmarked answers"]):
        together = 0.0
        for one, read in conversations:
            record = one.read_by(suspect, tmp_path / "out" / suspect.name / one.folder.name, read=read)
            assert not record.found and record.counts.answers == 60 and record.reading.barred > 0
            together += record.log10_evalue
        assert together < -math.log10(ALPHA)


def test_another_order_than_that_of_serving_is_refused_where_anything_shows_it(
    races: list[Race], innocents: dict[str, Path], tmp_path: Path
) -> None:
    one, suspect = races[0], innocents["a student of unmarked answers"]
    words = [*one.owned, *one.owners, "-o", tmp_path / "out"]
    backwards = one.of(list(reversed(one.answers)), "backwards")
    done = run("trace", "weights", suspect, "--read", backwards, *words)
    assert done.exit_code == 2 and "another order than their ids" in done.output
    (tmp_path / "list").write_text(run("ledger", "hashes", one.served).stdout)
    unnumbered = one.of([msgspec.structs.replace(a, id="") for a in reversed(one.answers)], "unnumbered")
    done = run("trace", "weights", suspect, "--read", unnumbered, "--complete", tmp_path / "list", *words)
    assert done.exit_code == 2 and "the list of their hashes" in done.output
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_choice_among_served_answers_is_refused_where_anything_shows_it(
    races: list[Race], innocents: dict[str, Path], tmp_path: Path
) -> None:
    """Those that did not end were chosen by the key; they make a suspect that seldom ends look guilty."""
    one, suspect = races[0], innocents["a student of unmarked answers"]
    words = [*one.owned, *one.owners, "-o", tmp_path / "out"]
    (tmp_path / "list").write_text(run("ledger", "hashes", one.served).stdout)
    unended = one.of([a for a in one.answers if a.token_ids[-1] != 0], "unended")
    assert unended.read_text().count("\n") < len(one.answers)
    for more in (["--taken", "filtered"], ["--complete", tmp_path / "list"]):
        done = run("trace", "weights", suspect, "--read", unended, *more, *words)
        assert done.exit_code == 2 and not (tmp_path / "out" / "report.json").exists()


def test_a_long_answer_is_read_in_pieces_as_a_short_one(
    races: list[Race], innocents: dict[str, Path], guilty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detect.models.reading.WINDOW", 20)
    for who in ("a student of unmarked answers", "one that copies"):
        not_found(races, innocents[who], tmp_path / who.replace(" ", "-"))
    record = races[0].read_by(guilty, tmp_path / "guilty")
    assert record.found and record.counts.answers == 60


ACCOUNTS = ("acme", "zenith", "bolt")


def test_an_innocent_account_is_not_named_beside_a_guilty_one(world: World, tmp_path: Path) -> None:
    """In one file, however the accounts' answers are mixed; and an account's answers can be read alone."""
    one = race(world, tmp_path / "race", 9, tenants=ACCOUNTS, prompts=PROMPTS[:40])
    acmes = [answer for answer in one.answers if answer.tenant == "acme"]
    student = saved(taught(world.model("teacher")[0], acmes), tokenizer_of(), tmp_path / "student")
    mixed = list(one.answers)
    random.Random(1).shuffle(mixed)
    read = one.of([msgspec.structs.replace(a, id=str(n)) for n, a in enumerate(mixed)], "mixed")
    named = [word for name in ACCOUNTS for word in ("--tenant", name)]
    for place, file in enumerate((one.served, read)):
        record = one.read_by(student, tmp_path / f"all-{place}", *named, read=file)
        assert record.identified == ["acme"]
    for name in ("zenith", "bolt"):
        alone = one.read_by(student, tmp_path / name, "--tenant", name, "--read-tenant", name)
        own = next(found for found in alone.hypotheses if found.key == f"tenant:{name}")
        assert alone.identified == [] and own.log10_evalue < 2 and own.cuts > 100
