"""The demo model's answers that the benchmarks of power and quality read; made once and kept in the user's cache.

A cell is one scheme (or none) at one temperature: the same prompts, a fixed key, and raw answers as `dyetrace generate`
writes them. A cell's file name holds a hash of all that shaped it, so a change of spec or prompts makes new answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from benchmarks.common import Floats
from watermark.files.writing import write_atomically
from watermark.generate import Answer, Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey
from watermark.models.demo import demo_model_dir
from watermark.models.folder import load_model
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec

SCHEMES = ("gumbel", "tournament", "green_list")
TEMPERATURES = (0.7, 1.0)
KEY = SecretKey(b"a key that everybody knows......")

_TASKS = (
    "Write a long story about {}.",
    "Explain in detail, with examples, all you know about {}.",
    "Write a letter to a friend about {}. Make it long and personal.",
    "Describe the history of {} from the beginning until today.",
    "Write an essay of many paragraphs on why people care about {}.",
    "Write a dialogue between two strangers who argue about {}.",
    "Give a beginner long and practical advice about {}.",
    "Write a newspaper report about a surprising event that has to do with {}.",
)
_TOPICS = (
    ("lighthouses", "bread", "trains", "the night sky", "gardens", "old maps", "rivers", "musical instruments"),
    ("bicycles", "libraries", "the weather", "markets", "mountains", "letters", "horses", "the sea"),
)


def prompts(count: int) -> list[str]:
    """Prompts that ask for long texts; there are 128."""
    pairs = [
        (task, topics[(i + shift) % 8]) for topics in _TOPICS for shift in range(8) for i, task in enumerate(_TASKS)
    ]
    if not 1 <= count <= len(pairs):
        raise click.BadParameter(f"there are prompts for 1 .. {len(pairs)} answers (got {count})")
    return [task.format(topic) for task, topic in pairs[:count]]


class Model:
    """A causal language model and its tokenizer, loaded when first asked for."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder or demo_model_dir(lambda line: click.echo(line, err=True))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return load_model(self.folder)

    @property
    def network(self) -> Any:
        """The transformers model."""
        return self._loaded[0]

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._loaded[1]


@dataclass(frozen=True)
class Cell:
    """One scheme at one temperature; ``scheme`` None leaves the text unmarked, ``seed`` tells repetitions apart."""

    scheme: str | None
    temperature: float
    seed: int = 1

    @property
    def name(self) -> str:
        """As it stands in tables."""
        again = "" if self.seed == 1 else " again"
        return f"{self.scheme or 'unmarked'}{again}, T={self.temperature}"


@dataclass(frozen=True)
class Setting:
    """How many answers of how many tokens, from which model, and where they are kept.

    With ``full_length`` the model may not end an answer before it has all its tokens.
    """

    model: Model
    folder: Path
    count: int
    tokens: int
    batch: int
    full_length: bool = False

    @cached_property
    def ring(self) -> KeyRing:
        """The keys of all cells."""
        return KeyRing.from_master(KEY)

    @cached_property
    def _spec(self) -> WatermarkSpec:
        tokenizer = load_tokenizer(self.model.folder)
        return WatermarkSpec(
            vocabulary_size=vocabulary_size(tokenizer),
            tokenizer=tokenizer_fingerprint(tokenizer),
            key_fingerprint=KEY.fingerprint,
        )

    def spec(self, scheme: str) -> WatermarkSpec:
        """The default spec of a scheme for the model."""
        return msgspec.structs.replace(self._spec, scheme=scheme)

    def answers(self, cell: Cell) -> list[Answer]:
        """Return the answers of a cell, from the cache or from the model."""
        path = self._path(cell)
        if not path.exists():
            spec, ring = (None, None) if cell.scheme is None else (self.spec(cell.scheme), self.ring)
            self._generate(path, cell.name, prompts(self.count), cell.temperature, cell.seed, spec, ring)
        return _read(path)

    def rewritten(self, texts: Sequence[str], temperature: float) -> list[Answer]:
        """Return the model's unmarked answers to other prompts, from the cache or from the model."""
        shape = {
            "model": self.model.folder.name,
            "temperature": temperature,
            "tokens": self.tokens,
            "batch": self.batch,
            "prompts": texts,
        }
        path = self.folder / f"rewritten-{temperature}-{_short(json.dumps(shape))}.jsonl"
        if not path.exists():
            self._generate(path, "rewritten", texts, temperature, 1, None, None)
        return _read(path)

    def _generate(
        self,
        path: Path,
        name: str,
        asked: Sequence[str],
        temperature: float,
        seed: int,
        spec: WatermarkSpec | None,
        ring: KeyRing | None,
    ) -> None:
        made = []
        sampling = Sampling(temperature=temperature, max_new_tokens=self.tokens, batch=self.batch, seed=seed)
        with _least_tokens(self.model.network, self.tokens if self.full_length else None):
            for answer in generate_answers(self.model.network, self.model.tokenizer, asked, sampling, spec, ring):
                made.append(answer)
                if len(made) % self.batch == 0 or len(made) == len(asked):
                    click.echo(f"{name}: {len(made)} of {len(asked)} answers", err=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"".join(msgspec.json.encode(answer) + b"\n" for answer in made))

    def scores(self, cell: Cell, judge: Model) -> list[Scores]:
        """What a model thinks of each answer of a cell, from the cache or from the model."""
        path = self._path(cell).with_suffix(f".{_short(str(judge.folder))}.npz")
        answers = self.answers(cell)
        if not path.exists():
            made: dict[str, Any] = {}
            for number, answer in enumerate(answers):
                one = score(judge, answer, cell.temperature)
                made |= {f"nats{number}": one.nats, f"entropy{number}": one.entropy}
            np.savez(path, **made)
        with np.load(path) as file:
            return [Scores(file[f"nats{number}"], file[f"entropy{number}"]) for number in range(len(answers))]

    def _path(self, cell: Cell) -> Path:
        shape = {
            "model": self.model.folder.name,
            "spec": None if cell.scheme is None else self.spec(cell.scheme).spec_id,
            "temperature": cell.temperature,
            "seed": cell.seed,
            "tokens": self.tokens,
            "batch": self.batch,
            "prompts": prompts(self.count),
        }
        if self.full_length:
            shape["full length"] = True
        name = f"{cell.scheme or 'unmarked'}-{cell.temperature}-{_short(json.dumps(shape))}.jsonl"
        return self.folder / name


@contextmanager
def _least_tokens(network: Any, least: int | None) -> Iterator[None]:
    """Forbid the end token until an answer has that many tokens, inside the block."""
    before = network.generation_config.min_new_tokens
    network.generation_config.min_new_tokens = least
    try:
        yield
    finally:
        network.generation_config.min_new_tokens = before


def _read(path: Path) -> list[Answer]:
    return [msgspec.json.decode(line, type=Answer) for line in path.read_bytes().splitlines()]


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class Scores:
    """Of each token of one answer, in nats: its surprise at temperature 1, and the entropy it was drawn with."""

    nats: Floats
    entropy: Floats


def score(model: Model, answer: Answer, temperature: float) -> Scores:
    """Run the model over prompt and answer once."""
    import torch

    lead, ids = len(answer.prompt_token_ids), torch.tensor([answer.prompt_token_ids + answer.token_ids])
    with torch.inference_mode():
        logits = model.network(input_ids=ids).logits[0, lead - 1 : -1].float()
        own = logits.log_softmax(-1).gather(-1, ids[0, lead:, None])[:, 0]
        drawn = (logits / temperature).log_softmax(-1)
        entropy = -(drawn.exp() * drawn).sum(-1)
    return Scores(-own.double().numpy(), entropy.double().numpy())


def cell_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options by which a benchmark chooses its cells."""
    for option in (
        click.option("--answers", "count", default=32, show_default=True, help="Answers per cell, 1 to 128."),
        click.option("--tokens", default=300, show_default=True, help="Most tokens of an answer."),
        click.option("--batch", default=32, show_default=True, help="Answers generated side by side."),
        click.option(
            "--temperature", "temperatures", type=float, multiple=True, default=TEMPERATURES, show_default=True
        ),
        click.option(
            "--scheme", "schemes", type=click.Choice(SCHEMES), multiple=True, default=SCHEMES, show_default=True
        ),
        click.option(
            "--model", "folder", type=click.Path(path_type=Path), help="Model folder instead of the demo model."
        ),
        click.option("--keep", type=click.Path(path_type=Path), help="Folder of the answers; by default in the cache."),
    ):
        command = option(command)
    return command


def setting(folder: Path | None, keep: Path | None, count: int, tokens: int, batch: int) -> Setting:
    """Put the options together; answers lie beside the demo model in the user's cache unless told otherwise."""
    model = Model(folder)
    return Setting(model, keep or demo_model_dir().parent / "benchmark-answers", count, tokens, batch)
