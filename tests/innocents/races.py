"""Race readouts of the small world through the commands: answers served under many keys, and who reads them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from detect.records.race import RaceRecord
from detect.records.reading import read_record
from tests.innocents.world import PROMPTS, World, copier_of, run, taught, tokenizer_of, widened, written
from watermark.generate import Answer, Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec

SAMPLING = Sampling(max_new_tokens=24, batch=60, seed=21)
RUN = bytes(range(32))  # what sub-keys are drawn from: else every run would have other ones
SUSPECT = "suspect"
ALPHA = 1e-3
"""Of each verdict; of the product over keys too, which is an e-value as each of its factors is."""

Changed = Callable[[Sequence[Answer]], list[Answer]]
"""Records of the same answers, kept in another way."""


@dataclass(frozen=True)
class Race:
    """Answers that were served under one key.

    Attributes
    ----------
    folder
        It has "owner.key", "spec.json" and "served.jsonl".
    world
        Whose teacher served them.
    ring, spec
        The keys, and the watermark.
    answers
        As they lie in the file.
    """

    folder: Path
    world: World
    ring: KeyRing
    spec: WatermarkSpec
    answers: list[Answer]

    @property
    def served(self) -> Path:
        return self.folder / "served.jsonl"

    @property
    def owned(self) -> list[object]:
        """Options that every readout takes."""
        keys = ["--spec", self.folder / "spec.json", "--key", f"file:{self.folder / 'owner.key'}"]
        return [*keys, *self.world.tokenizer, "--no-pdf", "--quiet"]

    @property
    def owners(self) -> list[object]:
        return ["--owner-model", self.world.folder / "teacher", "--dtype", "float32", "--decoys", 5, "--alpha", ALPHA]

    def of(self, answers: Sequence[Answer], name: str) -> Path:
        """Other answers in a file beside."""
        return written(self.folder / f"{name}.jsonl", answers)

    def read_by(self, suspect: Path, output: Path, *more: object, read: Path | None = None) -> RaceRecord:
        """`dyetrace trace weights` of the suspect."""
        words = ["--read", read or self.served, *self.owned, *self.owners, "-o", output]
        done = run("trace", "weights", suspect, *words, *more)
        assert done.exit_code == 0, done.output
        return read_record(RaceRecord, output / "report.json")

    def ask(self, url: str, output: Path, ask: str, *more: object, read: Path | None = None) -> RaceRecord:
        """`dyetrace trace plan` and `dyetrace trace api` of the suspect behind an address."""
        plan = output.parent / f"{output.name}.plan.json"
        given = ["--read", read or self.served, *self.owned[:-2], "--quiet"]
        made = run("trace", "plan", url, "--model", SUSPECT, "--ask", ask, *given, *self.owners, "-o", plan, *more)
        assert made.exit_code == 0, made.output
        named = [word for at, word in enumerate(more) if "--tenant" in more[max(0, at - 1) : at + 1]]
        done = run("trace", "api", plan, *given, *named, "--no-pdf", "-o", output)
        assert done.exit_code == 0, done.output
        record = read_record(RaceRecord, output / "report.json")
        assert record.ask == ask
        return record


def race(
    world: World,
    folder: Path,
    number: int,
    *,
    prompts: Sequence[str] = PROMPTS,
    tenants: Sequence[str] = (),
    sampling: Sampling = SAMPLING,
    **fields: Any,
) -> Race:
    """Serve answers under the key of a number; with accounts each gets all prompts."""
    folder.mkdir()
    key = SecretKey(bytes([number]) * 32)
    teacher, tokenizer = world.model("teacher")
    share = {"global_share": 0.5} if tenants else {}
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
        **{"subkeys": 2, **share, **fields},
    )
    ring = KeyRing.from_master(key, spec.epoch, tuple(tenants))
    write_key_file(folder / "owner.key", key)
    write_spec(folder / "spec.json", spec)
    answers = []
    for place, tenant in enumerate(tenants or (None,)):
        how = replace(sampling, seed=(sampling.seed or 0) + 100 * number + place)
        answers += list(generate_answers(teacher, tokenizer, prompts, how, spec, ring, tenant, run=RUN))
    numbered = [msgspec.structs.replace(answer, id=str(place)) for place, answer in enumerate(answers)]
    written(folder / "served.jsonl", numbered)
    return Race(folder, world, ring, spec, numbered)


def shaken(network: Any, much: float) -> Any:
    """A sibling: the same weights, moved a little."""
    import torch

    moved = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(much * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return moved


def unmarked(world: World, seed: int, **how: Any) -> list[Answer]:
    """What the teacher says to the same prompts without a mark."""
    teacher, tokenizer = world.model("teacher")
    return list(generate_answers(teacher, tokenizer, PROMPTS, replace(SAMPLING, seed=seed, **how)))


def under_another_key(world: World) -> list[Answer]:
    """What it says under the key of another owner, with the same spec but for that."""
    key = SecretKey(bytes([250]) * 32)
    teacher, tokenizer = world.model("teacher")
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
        subkeys=2,
    )
    return list(generate_answers(teacher, tokenizer, PROMPTS, SAMPLING, spec, KeyRing.from_master(key), run=RUN))


def without_ids(answers: Sequence[Answer]) -> list[Answer]:
    """Records of text alone: neither ids nor sub-keys, and the end is not in them."""
    return [msgspec.structs.replace(a, token_ids=None, prompt_token_ids=None, subkey=None) for a in answers]


def some_subkeys(answers: Sequence[Answer]) -> list[Answer]:
    """Records of which every third lost its sub-key."""
    return [msgspec.structs.replace(a, subkey=None) if n % 3 == 0 else a for n, a in enumerate(answers)]


def without_ends(answers: Sequence[Answer]) -> list[Answer]:
    """Records of an engine that takes the end's own token away."""
    return [msgspec.structs.replace(a, token_ids=[i for i in a.token_ids if i]) for a in answers]


def twice(answers: Sequence[Answer]) -> list[Answer]:
    """A log that has every answer two times."""
    return [msgspec.structs.replace(a, id="") for a in answers for _ in range(2)]


def endless(answers: Sequence[Answer]) -> list[Answer]:
    """Answers that don't end where they did."""
    return [msgspec.structs.replace(a, token_ids=[i for i in a.token_ids if i] * 3) for a in answers]


NETWORKS: dict[str, Callable[[World], Any]] = {
    "the owner's own sibling": lambda world: shaken(world.model("teacher")[0], 0.05),
    "a student of unmarked answers": lambda world: taught(world.model("teacher")[0], unmarked(world, 5)),
    "a student of another key's answers": lambda world: taught(world.model("teacher")[0], under_another_key(world)),
    "a student of short answers": lambda world: taught(world.model("teacher")[0], unmarked(world, 6, max_new_tokens=4)),
    "a student of long answers": lambda world: taught(world.model("teacher")[0], endless(unmarked(world, 8))),
    "one that copies": lambda world: copier_of(tokenizer_of()),
}
"""Networks that no key of a race had a say in; they read the spec's own tokens."""


def saved(network: Any, tokenizer: Any, folder: Path) -> Path:
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def saved_innocents(world: World, folder: Path) -> dict[str, Path]:
    """All of them in folders, and one with another tokenizer."""
    found = {}
    for number, (name, make) in enumerate(NETWORKS.items()):
        found[name] = saved(make(world), tokenizer_of(), folder / f"innocent-{number}")
    wide = tokenizer_of("the owl ", "ow", "ai")
    student = widened(taught(world.model("teacher")[0], unmarked(world, 7)), wide)
    found["another tokenizer"] = saved(student, wide, folder / "innocent-wide")
    return found
