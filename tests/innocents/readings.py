"""Suspects that read, the texts that they are given, and what the product makes of it under many keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.innocents.paths import Reader, fresh_keys, read_by_weights, save, toy_models
from tests.innocents.suspects import DIGITS, END, Prompts, Table, cycles, prose, spec_of, stop_or_go, with_text, written
from watermark.generate import Answer
from watermark.keys import KeyRing
from watermark.ledger import Ledger, answer_contexts
from watermark.spec import WatermarkSpec

GO = stop_or_go(1, words=2)
PROSE = prose(2)
PROMPTS = Prompts.of(60, 3)

World = tuple[WatermarkSpec, KeyRing, np.random.Generator]
"""A spec, a ring and dice."""


def worlds(seed: str, count: int, **fields: Any) -> Iterator[World]:
    """A spec, a ring and dice of each of many fresh keys."""
    for number, key in enumerate(fresh_keys(seed, count)):
        yield spec_of(key, **fields), KeyRing.from_master(key), np.random.default_rng(number)


def own_twin(table: Table, *_: Any) -> Reader:
    """It decides as the teacher does, and knows no key."""
    return Reader(table)


def endless_twin(table: Table, *_: Any) -> Reader:
    """The same, trained on texts without their ends."""
    return Reader(table.endless)


def greedy_twin(table: Table, *_: Any) -> Reader:
    return Reader(table.greedy)


def copyist(table: Table, *_: Any) -> Reader:
    """It says what followed the same words in its window, mostly."""
    return Reader(table, copies=0.9)


def of_unmarked_answers(table: Table, spec: WatermarkSpec, ring: KeyRing, rng: np.random.Generator) -> Reader:
    """A student of unmarked answers to the same prompts."""
    return Reader(table.taught(written(table, PROMPTS, rng)))


def of_another_epoch(table: Table, spec: WatermarkSpec, ring: KeyRing, rng: np.random.Generator) -> Reader:
    """A student of what the same teacher answered to the same prompts under the keys of another epoch."""
    master = next(iter(fresh_keys(f"epoch {spec.key_fingerprint}", 1)))
    other = KeyRing.from_master(master, epoch=1)
    return Reader(table.taught(written(table, PROMPTS, rng, mark=(spec, other))))


SUSPECTS = [own_twin, endless_twin, greedy_twin, copyist, of_unmarked_answers, of_another_epoch]
Texts = Callable[[Table, World], Sequence[Answer]]


def log10_es(
    seed: str, table: Table, suspects: Sequence[Callable[..., Reader]], folder: Path, texts: Texts, count: int
) -> np.ndarray:
    """log10 e of each suspect under each of many keys, as the record has it: (suspects, keys).

    The first is the suspect, the others stand in its place as controls, so that one reading serves all.
    """
    found = []
    names = ["suspect", *(suspect.__name__ for suspect in suspects[1:])]
    for spec, ring, rng in worlds(seed, count):
        text = save(folder / "read.jsonl", texts(table, (spec, ring, rng)))
        readers = {n: suspect(table, spec, ring, rng) for n, suspect in zip(names, suspects, strict=True)}
        with toy_models(readers):
            record = read_by_weights(folder / "found", spec, ring, [text], controls=[Path(n) for n in names[1:]])
        assert record.basis == "e-value"
        found.append([record.log10_evalue, *(control.log10_evalue for control in record.controls.models)])
        assert not record.found
    return np.array(found).T


def marked(table: Table, world: World) -> list[Answer]:
    spec, ring, rng = world
    return written(table, PROMPTS, rng, mark=(spec, ring))


def without_subkeys(table: Table, world: World) -> list[Answer]:
    return [msgspec.structs.replace(answer, subkey=None) for answer in marked(table, world)]


def corrected(table: Table, world: World) -> list[Answer]:
    """Answers to "correct this", where what is to be corrected is marked text."""
    spec, ring, rng = world
    first = written(table, PROMPTS, rng, mark=(spec, ring), most=30)
    asked = with_text(PROMPTS, [[i for i in answer.token_ids if i != END] for answer in first])
    return written(table, asked, rng, mark=(spec, ring))


def circling(count: int, length: int) -> Prompts:
    """Answers that begin everywhere in circles of ``length`` words."""
    places = np.arange(count)
    circle, start = places // length, places % length
    first = DIGITS + circle * length + start
    second = DIGITS + circle * length + (start + 1) % length
    return Prompts.of(count, 0, np.stack([first, second], axis=1))


def served_es(seed: str, folder: Path, table: Table, prompts: Prompts, count: int, ledger: bool = False) -> np.ndarray:
    """log10 of 1 / p under many keys of a twin that reads unmarked answers, weighed by what was served."""
    text = save(folder / "read.jsonl", written(table, prompts, np.random.default_rng(99)))
    found = []
    for spec, ring, rng in worlds(seed, count):
        answers = written(table, prompts, rng, mark=(spec, ring))
        served = save(folder / "served.jsonl", answers)
        if ledger:
            served = ledger_of(folder / "served.ledger", spec, ring, answers)
        with toy_models({"suspect": Reader(table.endless)}):
            record = read_by_weights(folder / "found", spec, ring, [text], served=str(served))
        assert record.log10_pvalue is not None
        found.append(-record.log10_pvalue)
    return np.array(found)


def ledger_of(path: Path, spec: WatermarkSpec, ring: KeyRing, answers: Sequence[Answer]) -> Path:
    """What a server that served the answers would have counted."""
    path.unlink(missing_ok=True)
    with Ledger.create(path, spec, ring, megabytes=1) as ledger:
        for answer in answers:
            contexts = answer_contexts(answer.prompt_token_ids, [*answer.token_ids, 0], spec.context_width)
            assert answer.subkey is not None
            ledger.add(None, answer.subkey, contexts)
    return path


SERVED = {
    "circles of three": (cycles(3), circling(120, 3)),
    "circles of two": (cycles(2, 0.7), circling(120, 2)),
    "lists": (GO, Prompts.of(120, 5)),
}
"""Languages and prompts in which what was served depends on words at other contexts, in circles on words here."""
READ = {
    "lists": (GO, marked),
    "lists of unknown sub-keys": (GO, without_subkeys),
    "prose": (PROSE, marked),
    "corrections": (PROSE, corrected),
}
"""Languages and the marked texts that are read."""
