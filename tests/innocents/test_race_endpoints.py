"""No innocent endpoint is found by a race readout, however it is asked and whatever it does with what it is shown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.distillation.server import Fault, Server
from tests.innocents.races import (
    ALPHA,
    NETWORKS,
    RUN,
    SAMPLING,
    SUSPECT,
    Race,
    race,
    without_ends,
    without_ids,
)
from tests.innocents.talkers import Says, Talker
from tests.innocents.world import PROMPTS, World, taught
from watermark.generate import Answer, generate_answers

ASKS = ["greedy", "logprobs", "echo", "prompt-logprobs"]  # a bias needs a tokenizer with words
WHOLE = ["echo", "prompt-logprobs"]
FEW = PROMPTS[::4]


class Suspects:
    """Networks by name, each made once."""

    def __init__(self, world: World, guilty_of: Race) -> None:
        self._world, self._guilty_of = world, guilty_of
        self._made: dict[str, Any] = {}

    def __call__(self, name: str, **options: Any) -> Server:
        """One of them behind an address."""
        teacher, tokenizer = self._world.model("teacher")
        if name not in self._made:
            learnt = self._guilty_of.answers
            self._made[name] = taught(teacher, learnt, steps=30) if name == "guilty" else NETWORKS[name](self._world)
        return Server(self._made[name], tokenizer, name=SUSPECT, **options)


@pytest.fixture(scope="module")
def races(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Race]:
    folder = tmp_path_factory.mktemp("races")
    return [race(world, folder / str(number), number, prompts=FEW) for number in (1, 2)]


@pytest.fixture(scope="module")
def suspects(world: World, races: list[Race]) -> Suspects:
    return Suspects(world, races[0])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is concluded from how long a busy machine takes."""
    monkeypatch.setattr("detect.student.asking.pace._SLACK", float("inf"))


def not_found(races: Sequence[Race], url: str, output: Path, ask: str, *more: object) -> None:
    """The suspect is found under none of the keys, and not under all of them together; no cut is dropped by a reply."""
    together = 0.0
    for one in races:
        record = one.ask(url, output / one.folder.name, ask, *more)
        assert not record.found and record.refused is None
        assert record.counts.cuts >= record.counts.asked >= len(FEW) - 3
        assert ask not in WHOLE or record.counts.asked == record.counts.cuts
        together += record.log10_evalue
    assert together < -math.log10(ALPHA)


@pytest.mark.parametrize("ask", ASKS)
def test_no_innocent_endpoint_is_found(ask: str, races: list[Race], suspects: Suspects, tmp_path: Path) -> None:
    with suspects("a student of unmarked answers") as server:
        not_found(races, server.url, tmp_path, ask)


@pytest.mark.parametrize("ask", ASKS)
def test_who_learnt_what_was_served_is_found_under_that_key_alone(
    ask: str, races: list[Race], suspects: Suspects, tmp_path: Path
) -> None:
    """Else nothing here would say anything."""
    with suspects("guilty") as server:
        record = races[0].ask(server.url, tmp_path / "own", ask)
        assert record.found and record.log10_evalue >= 9
        not_found(races[1:], server.url, tmp_path, ask)


@pytest.mark.parametrize("ask", WHOLE)
@pytest.mark.parametrize("who", ["a student of long answers", "a student of short answers"])
def test_that_an_answer_ends_is_no_gap_in_what_is_read(
    who: str, ask: str, races: list[Race], suspects: Suspects, tmp_path: Path
) -> None:
    """An engine took the ends away: what is known of an answer stops where the key chose to end it."""
    with suspects(who) as server:
        together = 0.0
        for one in races:
            read = one.of(without_ends(one.answers), "ends-taken-away")
            record = one.ask(server.url, tmp_path / one.folder.name, ask, read=read)
            assert not record.found and record.counts.asked == record.counts.cuts == record.counts.fresh
            together += record.log10_evalue
    assert together < -math.log10(ALPHA)


def refusing(refuses: Callable[[list[int]], bool]) -> Callable[[dict[str, Any]], Fault | None]:
    """A server that does not take some prompts, as one that filters what it is asked."""

    def fault(body: dict[str, Any]) -> Fault | None:
        return Fault("status", 400) if _is_ids(body) and refuses(body["prompt"]) else None

    return fault


def a_rather_common_word(races: Sequence[Race], spared: set[int]) -> int:
    """A token of some answers that is neither in the probes nor in the first answer of a race."""
    spared_ids = spared | {token for one in races for token in one.answers[0].token_ids}
    counts = Counter(t for one in races for answer in one.answers for t in set(answer.token_ids))
    most = sum(len(one.answers) for one in races) // 4
    return next(token for token, count in counts.most_common() if count <= most and token not in spared_ids)


@pytest.mark.parametrize(
    ("why", "ask"), [("a word", "greedy"), *((why, ask) for ask in WHOLE for why in ("a word", "its length"))]
)
def test_what_an_endpoint_refuses_to_read_is_no_gap_either(
    why: str, ask: str, races: list[Race], suspects: Suspects, tmp_path: Path
) -> None:
    """The key chose the word for which an answer is refused, and how long it is."""
    who = f"a student of {'short' if why == 'a word' else 'long'} answers"
    more = ["--per-answer", 2] if ask == "greedy" else []
    with suspects(who) as server:
        races[0].ask(server.url, tmp_path / "unhindered", ask, *more)
        bodies = [received.body for received in server.received]
    probes = [body["prompt"] for body in bodies if _is_ids(body) and not _shows(body, races[0])]
    word = a_rather_common_word(races, {token for ids in probes for token in ids})
    lengths = sorted({len(a.prompt_token_ids) + len(a.token_ids) for one in races for a in one.answers})
    least = lengths[len(lengths) // 2]
    refuses = (lambda ids: word in ids) if why == "a word" else (lambda ids: len(ids) < least)
    with suspects(who, faults=refusing(refuses)) as server:
        not_found(races, server.url, tmp_path, ask, *more)
        asked = [body["prompt"] for body in (received.body for received in server.received) if _is_ids(body)]
        assert sum(map(refuses, asked)) > 1


@pytest.mark.parametrize("ask", ["greedy", "prompt-logprobs"])
def test_requests_go_one_by_one_in_the_order_of_serving(
    ask: str, races: list[Race], suspects: Suspects, tmp_path: Path
) -> None:
    """A later one shows what the key chose at the cut of an earlier one."""
    with suspects("a student of unmarked answers") as server:
        races[0].ask(server.url, tmp_path / "out", ask)
        assert all(received.beside == 0 for received in server.received)
        asked = [tuple(received.body["prompt"]) for received in server.received if _shows(received.body, races[0])]
    prompts = [tuple(answer.prompt_token_ids) for answer in races[0].answers]
    order = [next(n for n, prompt in enumerate(prompts) if ids[: len(prompt)] == prompt) for ids in asked]
    assert len(order) >= len(FEW) - 3 and order == sorted(order)


def _shows(body: dict[str, Any], one: Race) -> bool:
    starts = [answer.prompt_token_ids for answer in one.answers]
    return _is_ids(body) and any(body["prompt"][: len(start)] == start for start in starts)


def _is_ids(body: dict[str, Any]) -> bool:
    return isinstance(body.get("prompt"), list)


# Endpoints by a rule


def going_on(says: Says) -> Says:
    """One that goes on with a beginning, as it shows by counting where it is asked to."""
    return lambda prompt, shown: " 7, 8" if prompt.endswith("4, 5, 6,") else says(prompt, shown)


def _learnt(prompt: str, shown: list[str]) -> str:
    """What stood after the prompt's last two letters in anything it was ever shown, or what it said last."""
    for text in [prompt, *reversed(shown)]:
        place = text.rfind(prompt[-2:], 0, -1 if text is prompt else None)
        if place >= 0 and text[place + 2 :]:
            return text[place + 2 :][:1]
    return prompt[-1]


RULES: dict[str, Says] = {
    "learns from what it is asked": _learnt,
    "says the last word again": lambda prompt, shown: prompt[-1],
    "repeats what it was asked": lambda prompt, shown: prompt,
    "ends at once": lambda prompt, shown: "",
    "says what it was asked before": lambda prompt, shown: shown[-1],
}
"""What they say to a begun answer; none of them knows a key."""


@pytest.mark.parametrize("who", RULES)
def test_endpoints_by_a_rule_are_not_found(who: str, races: list[Race], tmp_path: Path) -> None:
    with Talker(going_on(RULES[who])) as talker:
        not_found(races, talker.url, tmp_path, "greedy", "--via", "prefill")


def test_one_that_was_shown_the_answers_before_has_learnt_them(races: list[Race], tmp_path: Path) -> None:
    """So the page says: ask once, and keep the evidence. It also shows that the one above does learn."""
    with Talker(going_on(_learnt)) as talker:
        talker.shown.extend(f"{answer.prompt}\n{answer.text}" for answer in races[0].answers)
        record = races[0].ask(talker.url, tmp_path / "out", "greedy", "--via", "prefill")
    assert record.found


@pytest.mark.parametrize("ask", ["greedy", "prompt-logprobs"])
def test_nor_is_one_that_reads_quotes_of_earlier_answers(
    ask: str, world: World, suspects: Suspects, tmp_path: Path
) -> None:
    """Clients ask for what they were served once more, and the suspect copies from its prompt."""
    teacher, tokenizer = world.model("teacher")
    talks = []
    for number in (1, 2):
        one = race(world, tmp_path / str(number), number, prompts=FEW[:10])
        prompts = [f"You said {n}: {answer.text} Say it again." for n, answer in enumerate(one.answers)]
        then = generate_answers(teacher, tokenizer, prompts, SAMPLING, one.spec, one.ring, run=RUN)
        both = [*one.answers, *(msgspec.structs.replace(a, id=str(10 + n)) for n, a in enumerate(then))]
        talks.append((one, one.of(both, "talk")))
    with suspects("one that copies") as server:
        found = [one.ask(server.url, tmp_path / f"out-{one.folder.name}", ask, read=read) for one, read in talks]
    assert all(record.reading.barred > 0 and not record.found for record in found)
    assert sum(record.log10_evalue for record in found) < -math.log10(ALPHA)


def test_records_of_text_alone_do_too(races: list[Race], suspects: Suspects, tmp_path: Path) -> None:
    read = [one.of(without_ids(one.answers), "text") for one in races]
    with suspects("guilty") as server:
        assert races[0].ask(server.url, tmp_path / "guilty", "greedy", read=read[0]).found
    with suspects("a student of unmarked answers") as server:
        for one, file in zip(races, read, strict=True):
            assert not one.ask(server.url, tmp_path / one.folder.name, "greedy", read=file).found


@pytest.mark.parametrize("ask", ["greedy", "prompt-logprobs"])
def test_no_answer_of_an_account_that_is_not_tested_is_shown(
    ask: str, world: World, suspects: Suspects, tmp_path: Path
) -> None:
    one = race(world, tmp_path / "race", 9, tenants=("acme", "zenith"), prompts=FEW)
    mine, others = (_answers_of(one, name) for name in ("zenith", "acme"))
    with suspects("a student of unmarked answers") as server:
        record = one.ask(server.url, tmp_path / "out", ask, "--tenant", "zenith")
        shown = [received.body["prompt"] for received in server.received if _shows(received.body, one)]
    assert not record.found and record.identified == []
    theirs = {(*a.prompt_token_ids, *a.token_ids[:3]) for a in others}
    theirs -= {(*a.prompt_token_ids, *a.token_ids[:3]) for a in mine}
    assert shown and theirs and not any(tuple(ids[: len(start)]) == start for ids in shown for start in theirs)


def _answers_of(one: Race, name: str) -> list[Answer]:
    return [answer for answer in one.answers if answer.tenant == name]
