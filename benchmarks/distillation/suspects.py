"""Which students are traced, and where they are kept: each is a recipe, and its weights are made again from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks.distillation.students import Recipe, save, train
from benchmarks.distillation.teacher import Mark, Teacher, digest
from watermark.generate import Answer
from watermark.models.folder import load_model

Kind = Literal["", "paraphrased", "Gemma"]


@dataclass(frozen=True)
class Suspect:
    """A student and what it was trained on.

    Attributes
    ----------
    mark
        Of the marked part; also where the share is 0, then it is what the test looks for.
    share
        Marked answers among all.
    answers
        All that it was trained on.
    kind
        "paraphrased": the marked answers were put in other words first; "Gemma": the student is of that family.
    """

    mark: Mark
    share: float
    answers: int
    kind: Kind = ""

    def __str__(self) -> str:
        return f"{self.mark}, share {self.share:g}" + (f", {self.kind}" if self.kind else "")

    @property
    def marked(self) -> int:
        """How many answers are marked; the first so many prompts'."""
        return round(self.share * self.answers)


@dataclass(frozen=True)
class Suspects:
    """Trains students, or finds those that were trained before.

    Attributes
    ----------
    teacher
        Whose answers they learn from.
    recipe
        Of training.
    keep
        Folder.
    """

    teacher: Teacher
    recipe: Recipe
    keep: Path

    def served(self, suspect: Suspect) -> list[Answer]:
        """The marked answers as the owner served them; where the student saw none, those that others saw."""
        return self.teacher.answers(suspect.mark, suspect.marked or suspect.answers)

    def mixture(self, suspect: Suspect) -> list[Answer]:
        """What the student is trained on."""
        marked = self.teacher.answers(suspect.mark, suspect.marked) if suspect.marked else []
        if suspect.kind == "paraphrased":
            marked = self.teacher.paraphrased(marked)
        rest = suspect.answers - suspect.marked
        return marked + (self.teacher.answers(None, suspect.answers)[-rest:] if rest else [])

    def base(self, suspect: Suspect) -> Path:
        """The model that a student was made from."""
        if suspect.kind != "Gemma":
            return self.teacher.folder
        from benchmarks.distillation.second_family import gemma_dir

        return gemma_dir()

    def folder(self, suspect: Suspect) -> Path:
        """The student's weights, trained if need be."""
        path = self.place(suspect)
        if not (path / "config.json").exists():
            self._train(suspect, path)
        return path

    def place(self, suspect: Suspect) -> Path:
        """Where they are kept: named by recipe, base model and texts."""
        mixture = self.mixture(suspect)
        texts = [[answer.prompt, answer.token_ids] for answer in mixture]
        name = digest(asdict(self.recipe), self.base(suspect).name, texts)
        label = (
            f"{suspect.mark.scheme}{suspect.mark.width}-{suspect.share:g}{'-' + suspect.kind if suspect.kind else ''}"
        )
        return self.keep / f"student-{label}-{name}"

    def _train(self, suspect: Suspect, path: Path) -> None:
        base = self.base(suspect)
        model, tokenizer = load_model(base, "float32")
        model.to(self.teacher.device)
        examples = examples_for(tokenizer, self.mixture(suspect), own=base == self.teacher.folder)
        click.echo(f"training {suspect} on {len(examples)} answers", err=True)
        train(model, examples, self.recipe, str(suspect))
        save(model, tokenizer, base, path)


def examples_for(tokenizer: Any, answers: Sequence[Answer], own: bool) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids): the teacher's own, or, for a student of another family, its own of the same texts."""
    if own:
        return [(answer.prompt_token_ids, answer.token_ids) for answer in answers]
    found = []
    for answer in answers:
        if tokenizer.chat_template:
            chat = [{"role": "user", "content": answer.prompt}]
            told = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            before = tokenizer(told, add_special_tokens=False).input_ids
        else:
            before = tokenizer(answer.prompt).input_ids
        found.append((before, tokenizer(answer.text, add_special_tokens=False).input_ids))
    return [pair for pair in found if pair[1]]


@dataclass(frozen=True)
class Grid:
    """Which students a run has.

    Attributes
    ----------
    schemes, widths, shares
        As asked for.
    answers
        Of the students of the main mark.
    whole
        Every combination; else the shares are those of the main mark, the first scheme with h = 2 or the first width,
        and every other scheme (at that h) and h (of that scheme) has share 1 and half as many answers.
    paraphrased, other_family
        Whether there is a student of paraphrased text, and one of another family.
    """

    schemes: tuple[str, ...]
    widths: tuple[int, ...]
    shares: tuple[float, ...]
    answers: int
    whole: bool
    paraphrased: bool
    other_family: bool

    @cached_property
    def main(self) -> Mark:
        """The mark whose shares are looked at."""
        return Mark(self.schemes[0], 2 if 2 in self.widths else self.widths[0])

    @cached_property
    def suspects(self) -> list[Suspect]:
        """In the order in which they are trained and traced; the never-marked one first."""
        main, half = self.main, max(1, self.answers // 2)
        if self.whole:
            marks = [Mark(scheme, width) for scheme in self.schemes for width in self.widths]
            found = [Suspect(mark, share, self.answers) for mark in marks for share in self.shares]
        else:
            found = [Suspect(main, share, self.answers) for share in self.shares]
            others = [Mark(scheme, main.width) for scheme in self.schemes[1:]]
            others += [Mark(main.scheme, width) for width in self.widths if width != main.width]
            found += [Suspect(mark, 1.0, half) for mark in others]
        whole = Suspect(main, 1.0, self.answers if self.whole else half)
        found += [replace(whole, kind="paraphrased")] if self.paraphrased else []
        found += [replace(whole, kind="Gemma")] if self.other_family else []
        # At share 0 no mark was seen: one student serves all marks.
        return sorted(found, key=lambda suspect: suspect.share != 0)
