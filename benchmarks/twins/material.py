"""The pairs: the demo model answers each prompt three times, a coin serves one of the first two, and nobody the third.

The key of the coins is known to everybody: what is measured here protects nothing. Everything is drawn from a seed, so
that a run can be repeated, and kept, so that a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from benchmarks.distillation.prompts import prompts
from watermark.files.writing import write_atomically
from watermark.generate import Answer, Sampling, generate_batches
from watermark.keys import SecretKey
from watermark.models.demo import demo_model_dir
from watermark.models.folder import load_model
from watermark.twins.pair import Pair, TwinAnswer, coin_key, coin_proof, tossed

ALL_PROMPTS = 2000
DRAWN = 3  # two twins, and one more answer of the same law
_TOGETHER = 20  # prompts in a batch: the twins of a pair always share one
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Setting:
    """How the owner's model was asked.

    Attributes
    ----------
    temperature, top_p, tokens
        Of sampling; ``tokens`` is the most of an answer.
    prompts
        How many.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    tokens: int = 64
    prompts: int = 300

    @property
    def label(self) -> str:
        """For names of files."""
        return f"t{self.temperature:g}-p{self.top_p:g}-{self.tokens}x{self.prompts}"


@dataclass(frozen=True)
class Material:
    """Pairs of one seed, and the texts beside them that innocents learn from.

    Attributes
    ----------
    keep
        Folder.
    seed
        Of prompts, sampling and coins.
    folder
        The owner's model.
    """

    keep: Path
    seed: int
    folder: Path
    setting: Setting = Setting()

    @cached_property
    def asked(self) -> list[str]:
        """The prompts of one seed; no other seed has any of them."""
        count = self.setting.prompts
        return prompts(ALL_PROMPTS)[self.seed * count :][:count]

    @cached_property
    def answers(self) -> list[list[Answer]]:
        """Answers to each prompt, `DRAWN` of them."""
        drawn = self._drawn("answers", self.asked, DRAWN)
        return [drawn[place : place + DRAWN] for place in range(0, len(drawn), DRAWN)]

    @cached_property
    def pairs(self) -> list[Pair]:
        """In the order of time."""
        random = np.random.default_rng([2026, self.seed])
        key = coin_key(self.key)
        made = []
        for place, (prompt, (first, second, _)) in enumerate(zip(self.asked, self.answers, strict=True)):
            nonce = random.bytes(16).hex()
            proof = coin_proof(key, nonce)
            made.append(
                Pair(
                    id=nonce,
                    made=(_FIRST + timedelta(minutes=place)).isoformat(timespec="seconds"),
                    account=("acme", "bolt", "corso")[place % 3],
                    request={
                        "model": "demo",
                        "messages": [{"role": "user", "content": prompt}],
                        "temperature": self.setting.temperature,
                        "top_p": self.setting.top_p,
                        "max_tokens": self.setting.tokens,
                    },
                    answers=(self._twin(first), self._twin(second)),
                    served=tossed(proof),
                    proof=proof,
                    prompt_token_ids=first.prompt_token_ids,
                    engine={"name": "transformers", "model": self.folder.name},
                )
            )
        return made

    @property
    def key(self) -> SecretKey:
        """The twin key of this seed."""
        return SecretKey(f"a twin key everybody knows .. {self.seed:02d}".encode())

    @cached_property
    def served(self) -> list[Answer]:
        """What the client got."""
        return [some[pair.served] for some, pair in zip(self.answers, self.pairs, strict=True)]

    @cached_property
    def others(self) -> list[Answer]:
        """Third answers to the same prompts, which no coin had a part in."""
        return [some[2] for some in self.answers]

    @cached_property
    def elsewhere(self) -> list[Answer]:
        """One answer each to other prompts: the other text that a student learns from."""
        count = self.setting.prompts
        begin = ALL_PROMPTS - (self.seed + 1) * count
        return self._drawn("elsewhere", prompts(ALL_PROMPTS)[begin : begin + count], 1)

    def write(self) -> Path:
        """The pairs as JSON lines, beside the third answers; path of the pairs."""
        path = self.keep / f"pairs-seed{self.seed}.jsonl"
        write_atomically(path, b"".join(msgspec.json.encode(pair) + b"\n" for pair in self.pairs))
        for name, answers in (("others", self.others), ("elsewhere", self.elsewhere)):
            lines = b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers)
            write_atomically(self.keep / f"{name}-seed{self.seed}.jsonl", lines)
        return path

    def _twin(self, answer: Answer) -> TwinAnswer:
        ended = len(answer.token_ids) < self.setting.tokens
        return TwinAnswer(text=answer.text, token_ids=answer.token_ids, finish_reason="stop" if ended else "length")

    def _drawn(self, name: str, asked: Sequence[str], samples: int) -> list[Answer]:
        path = self.keep / "drawn" / f"{name}-{self.folder.name}-{self.setting.label}-seed{self.seed}.jsonl"
        if not path.exists():
            click.echo(f"drawing {path.name}", err=True)
            model, tokenizer = load_model(self.folder)
            sampling = Sampling(
                temperature=self.setting.temperature,
                top_p=self.setting.top_p,
                max_new_tokens=self.setting.tokens,
                samples=samples,
                batch=_TOGETHER * DRAWN // samples,
                seed=1000 + self.seed,
            )
            made = [answer for batch in generate_batches(model, tokenizer, asked, sampling) for answer in batch]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, b"".join(msgspec.json.encode(answer) + b"\n" for answer in made))
        return [msgspec.json.decode(line, type=Answer) for line in path.read_bytes().splitlines()]


def owner_folder() -> Path:
    """The demo model's."""
    found: Path = demo_model_dir(lambda line: click.echo(line, err=True))
    return found


def texts_of(answers: Sequence[Answer]) -> list[tuple[str, str]]:
    """(prompt, answer) of each."""
    return [(answer.prompt, answer.text) for answer in answers]


def chat_ids(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt as the model's chat reads it."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids
