"""What suspects prefer of pairs, by the product's own measures: from their weights, or through a real HTTP server.

Replies and readings are kept, by suspect and seed, and numbers are computed from them anew.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import numpy as np

from benchmarks.distillation.server import Server
from benchmarks.twins.figures import Numbers
from benchmarks.twins.material import Material
from benchmarks.twins.paraphrase import Thesaurus
from benchmarks.twins.students import PLAIN_CHAT, Training
from benchmarks.twins.suspects import Family, Suspect, base_folder, folder_of, label, place_of
from detect.student.asking.forms import Question
from detect.twins.asking import GrowingAnswers
from detect.twins.measures.answers import AnswerMeasure, Idf, answer_of
from detect.twins.measures.logprobs import Read, columns, numbers
from detect.twins.measures.parting import PartingMeasure, Place, find_places
from detect.twins.measures.protocol import Measure
from detect.twins.measures.weights import covariates, read_pairs
from watermark.files.writing import write_atomically
from watermark.models.folder import load_model

Ask = Literal["logprobs", "parting", "answers"]
ASKS: tuple[Ask, ...] = ("logprobs", "parting", "answers")

_CALLERS = 32
_NAME = "suspect"


@dataclass(frozen=True)
class Bench:
    """Pairs of one seed and the suspects of them.

    Attributes
    ----------
    thesaurus
        For paraphrase by rules.
    training
        For every student, instead of its own; None but for tiny runs.
    """

    material: Material
    thesaurus: Thesaurus
    training: Training | None = None

    def numbers(self, suspect: Suspect, ask: Ask, reference: bool = True) -> Numbers:
        """The numbers of all pairs.

        Parameters
        ----------
        reference
            Whether log-probabilities stand beside those of the model that the suspect was made from.
        """
        pairs = self.material.pairs
        if ask == "logprobs":
            read = self.read(suspect)
            beside = self.read(_base(suspect.family)) if reference else {}
            names = columns(reference)
            rows = [numbers(read.get(pair.id), beside.get(pair.id), reference) for pair in pairs]
            asked = np.full(len(pairs), 2)
        else:
            measure = self.measure(ask)
            names = measure.columns
            replies = self.replies(suspect, ask)
            rows = [measure.difference(pair, some) for pair, some in zip(pairs, replies, strict=True)]
            asked = np.array([len(some) for some in replies])
        signs = np.array([pair.sign for pair in pairs], dtype=np.int8)
        return Numbers(names, np.array(rows), covariates(pairs, self._owner), signs, asked)

    def measure(self, ask: Ask) -> Measure:
        """Through an endpoint, with the owner's model at hand; each pair must be taken in the order of time."""
        if ask == "answers":
            return GrowingAnswers(AnswerMeasure(Idf(), self._usual))
        return PartingMeasure(form="continue", places=self._places)

    def read(self, suspect: Suspect) -> dict[str, Read]:
        """What a suspect's weights make of each pair."""
        path = self._kept(f"read-{self.folder(suspect).name}.json")
        if not path.exists():
            click.echo(f"{suspect.name} reads the pairs of seed {self.material.seed}", err=True)
            _write(path, read_pairs(self.folder(suspect), self.material.pairs))
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Read])

    def replies(self, suspect: Suspect, ask: Ask) -> list[list[bytes | None]]:
        """Replies to the questions about each pair, in their order."""
        path = self._kept(f"{ask}-{self.folder(suspect).name}.json")
        if not path.exists():
            click.echo(f"{suspect.name} is asked for {ask} of seed {self.material.seed}", err=True)
            measure = PartingMeasure(form="continue", places=self._places) if ask == "parting" else AnswerMeasure(Idf())
            about = [measure.questions(pair) for pair in self.material.pairs]
            given = iter(self._asked(suspect, [question for some in about for question in some]))
            _write(path, [[next(given) for _ in some] for some in about])
        kept = msgspec.json.decode(path.read_bytes(), type=list[list[str]])
        return [[reply.encode() for reply in some] for some in kept]

    def kept(self, suspect: Suspect, ask: Ask) -> bool:
        """Whether earlier runs made all that `numbers` needs."""
        folder = self.place(suspect)
        if folder is None:
            return False
        needed = [("read" if ask == "logprobs" else ask, folder.name), ("read", self.material.folder.name)]
        if ask == "logprobs":
            needed.append(("read", base_folder(suspect.family, self.material.folder).name))
        if ask == "answers":
            needed.append(("answers", self.material.folder.name))
        return all(self._kept(f"{name}-{model}.json").exists() for name, model in needed)

    def place(self, suspect: Suspect) -> Path | None:
        """Where a suspect's weights are; None where it was not trained yet."""
        # Asked first, since texts in other words may have to be made before they name a folder.
        if suspect.texts != "none" and not any(self.material.keep.glob(f"students/{label(suspect, self.material)}-*")):
            return None
        path = place_of(suspect, self.material, self.thesaurus, self.training)
        return path if (path / "config.json").exists() else None

    def folder(self, suspect: Suspect) -> Path:
        """The suspect's weights."""
        return folder_of(suspect, self.material, self.thesaurus, self.training)

    @contextmanager
    def serving(self, suspect: Suspect) -> Iterator[Server]:
        """The suspect behind a real HTTP server."""
        model, tokenizer = load_model(self.folder(suspect))
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_CHAT
        with Server(model, tokenizer, name=_NAME, largest_batch=_CALLERS) as server:
            yield server

    def _asked(self, suspect: Suspect, questions: Sequence[Question]) -> list[str]:
        with self.serving(suspect) as server, ThreadPoolExecutor(_CALLERS) as callers:

            def ask(question: Question) -> str:
                path = "chat/completions" if question.endpoint == "chat" else "completions"
                body = json.dumps({**question.body, "model": _NAME}).encode()
                request = urllib.request.Request(
                    f"{server.url}/{path}", data=body, headers={"Content-Type": "application/json"}
                )
                with urllib.request.urlopen(request) as reply:
                    text: str = reply.read().decode()
                return text

            return list(callers.map(ask, questions))

    @cached_property
    def _owner(self) -> dict[str, Read]:
        return self.read(_base("demo"))

    @cached_property
    def _usual(self) -> dict[str, list[str]]:
        """What the owner's model says to each prompt: its greedy answer and the third one."""
        greedy = self.replies(_base("demo"), "answers")
        found = {}
        for pair, (reply,), third in zip(self.material.pairs, greedy, self.material.others, strict=True):
            said = None if reply is None else answer_of(reply)
            found[pair.id] = [*([] if said is None else [said]), third.text]
        return found

    @cached_property
    def _places(self) -> dict[str, list[Place]]:
        path = self._kept("places.json")
        if not path.exists():
            _write(path, find_places(self.material.folder, self.material.pairs))
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[Place]])

    def _kept(self, name: str) -> Path:
        label = f"seed{self.material.seed}-{self.material.setting.label}"
        return self.material.keep / "seen" / f"{label}-{name}"


def _base(family: Family) -> Suspect:
    return Suspect("base" if family == "demo" else "gemma-base", "", "none", family=family)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(value))
