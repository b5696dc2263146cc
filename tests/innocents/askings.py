"""Endpoints that never saw the key, prompts for them, and what the product makes of their answers under many keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from detect.student.asking.answers import SuspectAnswer
from detect.student.asking.plan import PlannedPrompt
from detect.student.asking.prompts import choose_prompts, prompts_of
from tests.innocents.paths import asked_at_endpoint, save
from tests.innocents.readings import World
from tests.innocents.suspects import DIGITS, END, WIDTH, Prompts, Table, as_said, spelled, stop_or_go, written
from watermark.errors import DyetraceError
from watermark.generate import Answer

OFFERED, ASKED = 150, 40
LISTS = stop_or_go(1)

Endpoint = Callable[[Prompts, np.random.Generator], list[Answer]]
"""What it answers to some prompts, with its own dice."""


def own_dice(table: Table) -> Endpoint:
    """The teacher's own decisions, with dice of its own."""
    return lambda asked, rng: written(table, asked, rng)


def deterministic(table: Table) -> Endpoint:
    return own_dice(table.greedy)


def of_unmarked_answers(table: Table) -> Endpoint:
    taught = table.taught(written(table, Prompts.of(OFFERED, 3), np.random.default_rng(7)))
    return own_dice(taught)


def remembering(table: Table) -> Endpoint:
    """It goes on as any earlier prompt or answer went on after the same words, else as the teacher does."""

    def answers(asked: Prompts, rng: np.random.Generator) -> list[Answer]:
        followed: dict[tuple[int, ...], int] = {}
        said = []
        for number, ids in enumerate(asked.ids):
            told = [*ids, *asked.opening[number].tolist()]
            _remember(followed, told)
            answer = asked.opening[number].tolist()
            while len(answer) < 40 and answer[-1] != END:
                tokens, mass = table.rows(np.array(answer[-2:-1]), np.array(answer[-1:]))
                drawn = int(rng.choice(tokens[0], p=mass[0]))
                answer.append(followed.get(tuple(answer[-WIDTH:]), drawn))
            _remember(followed, answer)
            said.append(written_as(asked, number, answer))
        return said

    return answers


def _remember(followed: dict[tuple[int, ...], int], ids: Sequence[int]) -> None:
    for place in range(WIDTH, len(ids)):
        followed[tuple(ids[place - WIDTH : place])] = ids[place]


def correcting(table: Table) -> Endpoint:
    """It gives back the text of its prompt, with a word here and there as the teacher would have it."""

    def answers(asked: Prompts, rng: np.random.Generator) -> list[Answer]:
        said = []
        for number, ids in enumerate(asked.ids):
            text = [i for i in ids if i >= DIGITS] or asked.opening[number].tolist()
            for place in range(WIDTH, len(text)):
                if rng.random() < 0.15:
                    tokens, mass = table.rows(np.array([text[place - 2]]), np.array([text[place - 1]]))
                    text[place] = int(rng.choice(tokens[0], p=mass[0]))
            said.append(written_as(asked, number, text))
        return said

    return answers


def written_as(asked: Prompts, number: int, ids: Sequence[int]) -> Answer:
    text = spelled([i for i in ids if i != END])
    return Answer(
        id=f"{number}.0",
        prompt=spelled(asked.ids[number]),
        text=text,
        prompt_token_ids=asked.ids[number],
        token_ids=list(ids),
    )


def asked_in_order(prompts: Prompts, texts: Sequence[str]) -> Prompts:
    """The prompts with these texts."""
    place = {text: number for number, text in enumerate(prompts.texts())}
    chosen = [place[text] for text in texts]
    return Prompts([prompts.ids[i] for i in chosen], prompts.opening[chosen])


def traced(
    folder: Path,
    world: World,
    prompts: Prompts,
    table: Table,
    endpoint: Endpoint,
    *,
    number: int,
    served: bool,
    shown: Table | None = None,
    choose: Callable[[Sequence[Answer]], list[PlannedPrompt]] | None = None,
) -> tuple[float, float]:
    """log10 e at the end, and the largest that was shown on the way."""
    spec, ring, rng = world
    answers = written(table, prompts, rng, mark=(spec, ring))
    planned = choose_prompts(prompts_of(answers), ASKED) if choose is None else choose(answers)
    kept = save(folder / "served.jsonl", answers) if served else None

    def says(texts: Sequence[str]) -> list[list[SuspectAnswer]]:
        asked = asked_in_order(prompts, texts)
        return as_said(endpoint(asked, rng), len(texts), shown)

    evidence = "samples" if shown is None else "logprobs"
    try:
        record, path = asked_at_endpoint(
            folder / f"found-{number}", spec, ring, planned, says, served=kept, evidence=evidence
        )
    except DyetraceError as error:
        assert "no context that counts" in str(error)  # it said nothing that its prompts had not said
        return 0.0, 0.0
    return record.log10_evalue, max(path)
