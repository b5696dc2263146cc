"""What was served: marked answers of the demo model, those among them that students learn from, and other text.

The key is known to everybody: what is measured here protects nothing. Everything is drawn from a seed, so that a run
can be repeated, and kept, so that a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import msgspec
import numpy as np

from benchmarks.distillation.prompts import prompts
from watermark.files.writing import write_atomically
from watermark.generate import Answer, Sampling, generate_batches
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.models.folder import load_model
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec

ALL_PROMPTS = 2000
_TOGETHER = 20  # prompts in a batch


@dataclass(frozen=True)
class Setting:
    """How the owner's model was asked, and how it marked.

    Attributes
    ----------
    temperature, top_p, tokens
        Of sampling; ``tokens`` is the most of an answer.
    served, used, few
        Answers in all, those that a student of many learns from, and those among these that one of few learns from.
    scheme, parameters
        Of the watermark.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    tokens: int = 96
    served: int = 600
    used: int = 400
    few: int = 40
    scheme: str = "gumbel"
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        """Of folders, for schemes other than the default."""
        return "" if self.scheme == "gumbel" else f"{self.scheme}-"


@dataclass(frozen=True)
class Material:
    """Served answers of one seed.

    Attributes
    ----------
    keep
        Folder.
    seed
        Of prompts, key, sampling and lots.
    folder
        The owner's model.
    """

    keep: Path
    seed: int
    folder: Path
    setting: Setting = Setting()

    @property
    def key(self) -> SecretKey:
        """Of this seed."""
        return SecretKey(f"race key that everybody knows {self.seed:02d}".ljust(32, ".").encode()[:32])

    @property
    def ring(self) -> KeyRing:
        """Of the key."""
        return KeyRing.from_master(self.key, 0)

    @cached_property
    def spec(self) -> WatermarkSpec:
        """Width 2 and four sub-keys."""
        tokenizer = load_tokenizer(self.folder)
        return WatermarkSpec(
            vocabulary_size=vocabulary_size(tokenizer),
            tokenizer=tokenizer_fingerprint(tokenizer),
            key_fingerprint=self.key.fingerprint,
            scheme=self.setting.scheme,
            parameters=dict(self.setting.parameters),
        )

    @cached_property
    def served(self) -> list[Answer]:
        """One marked answer to each prompt of the seed, in the order of serving."""
        count = self.setting.served
        return self._drawn("served", prompts(ALL_PROMPTS)[self.seed * count :][:count], 7, marked=True)

    @cached_property
    def elsewhere(self) -> list[Answer]:
        """Unmarked answers to other prompts: the rest of the training set of a student of few."""
        count = self.setting.used - self.setting.few
        begin = (self.seed * self.setting.served + 700) % 1400
        return self._drawn("elsewhere", prompts(ALL_PROMPTS)[begin:][:count], 77, marked=False)

    @cached_property
    def used(self) -> list[int]:
        """Which served answers a student of many learns from, ascending."""
        return self._lots[0]

    @cached_property
    def few(self) -> list[int]:
        """Which of these a student of few learns from, ascending."""
        return self._lots[1]

    @cached_property
    def _lots(self) -> tuple[list[int], list[int]]:
        lot = np.random.default_rng([5, self.seed])
        used = sorted(lot.choice(self.setting.served, self.setting.used, replace=False).tolist())
        return used, sorted(lot.choice(used, self.setting.few, replace=False).tolist())

    def write(self) -> dict[str, Path]:
        """Spec, key and the files that are read ("served", "all" that many learn from, "tenth"); their paths."""
        paths = {"spec": self._path("spec", "json"), "key": self._path("owner", "key")}
        if not paths["spec"].exists():
            write_atomically(paths["spec"], msgspec.json.encode(self.spec))
        if not paths["key"].exists():
            write_key_file(paths["key"], self.key)
        for name, rows in (("served", range(len(self.served))), ("all", self.used), ("tenth", self.few)):
            paths[name] = self._path(name, "jsonl")
            if not paths[name].exists():
                write_atomically(paths[name], _lines([self.served[row] for row in rows]))
        return paths

    def _path(self, name: str, kind: str) -> Path:
        return self.keep / f"{self.setting.label}{name}{self.seed}.{kind}"

    def _drawn(self, name: str, asked: Sequence[str], seed: int, marked: bool) -> list[Answer]:
        path = self._path(name, "jsonl")
        if not path.exists():
            click.echo(f"drawing {path.name}", err=True)
            model, tokenizer = load_model(self.folder, "bfloat16")
            sampling = Sampling(
                temperature=self.setting.temperature,
                top_p=self.setting.top_p,
                max_new_tokens=self.setting.tokens,
                batch=_TOGETHER,
                seed=seed + self.seed,
            )
            mark = (self.spec, self.ring) if marked else ()
            made = [one for batch in generate_batches(model, tokenizer, asked, sampling, *mark) for one in batch]
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without their settings, so that others can be assumed of the same answers.
            write_atomically(path, _lines([msgspec.structs.replace(one, sampling=None) for one in made]))
        return [msgspec.json.decode(line, type=Answer) for line in path.read_bytes().splitlines()]


def _lines(answers: Sequence[Answer]) -> bytes:
    return b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers)
