"""The teacher: the demo model, whose answers with and without a mark are made once, in chunks, and kept.

A chunk's file name holds a hash of all that shaped it, so a killed run goes on where it was and a change makes new
answers. The key is known to everybody: what is measured here protects nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import msgspec

from benchmarks.distillation.prompts import prompts
from benchmarks.edits import sentences
from benchmarks.robustness import REWRITE
from detect.text.encode import Encoder
from watermark.files.writing import write_atomically
from watermark.generate import Answer, Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey
from watermark.models.demo import demo_model_dir
from watermark.models.folder import load_model
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec

KEY = SecretKey(b"a key that everybody knows......")
ALL_PROMPTS = 2000


@dataclass(frozen=True, order=True)
class Mark:
    """How answers are marked."""

    scheme: str
    width: int

    def __str__(self) -> str:
        return f"{self.scheme}, h = {self.width}"


@dataclass(frozen=True)
class Teacher:
    """The demo model and the folder of its answers.

    Attributes
    ----------
    keep
        Folder.
    tokens
        Most of an answer.
    device
        Where models run.
    together
        Answers that are made together, and that a killed run loses at most.
    tiny
        Take a model of random weights with the demo model's tokenizer instead: only to see that everything runs.
    """

    keep: Path
    tokens: int
    device: str
    together: int = 100
    tiny: bool = False

    @cached_property
    def folder(self) -> Path:
        """The demo model's."""
        found = demo_model_dir(lambda line: click.echo(line, err=True))
        return _tiny(found, self.keep) if self.tiny else found

    @cached_property
    def tokenizer(self) -> Any:
        """The demo model's, as the detectors take it."""
        return load_tokenizer(self.folder)

    @cached_property
    def encoder(self) -> Encoder:
        """Of the same."""
        return Encoder.load(self.tokenizer)

    @cached_property
    def ring(self) -> KeyRing:
        """The owner's keys."""
        return KeyRing.from_master(KEY)

    @property
    def key(self) -> SecretKey:
        """With which answers are marked."""
        return owner_key(self.ring)

    def spec(self, mark: Mark) -> WatermarkSpec:
        """The default spec of a scheme, with a context width."""
        return msgspec.structs.replace(self._plain_spec, scheme=mark.scheme, context_width=mark.width)

    @cached_property
    def _plain_spec(self) -> WatermarkSpec:
        return WatermarkSpec(
            vocabulary_size=vocabulary_size(self.tokenizer),
            tokenizer=tokenizer_fingerprint(self.tokenizer),
            key_fingerprint=KEY.fingerprint,
        )

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        model, tokenizer = load_model(self.folder)
        return model.to(self.device), tokenizer

    def answers(self, mark: Mark | None, count: int, first: int = 0) -> list[Answer]:
        """Answers to ``count`` prompts from number ``first`` on; without a mark where there is none."""
        wanted, size = prompts(ALL_PROMPTS), self.together
        begin = first // size * size
        found: list[Answer] = []
        for start in range(begin, first + count, size):
            # Whole chunks, so that what is made does not depend on how much of it was asked for.
            path = self.chunk(mark, wanted[start : start + size], start)
            if not path.exists():
                self._make(path, mark, wanted[start : start + size], self.tokens, start)
            found += _read(path)
        return found[first - begin :][:count]

    def chunk(self, mark: Mark | None, asked: Sequence[str], start: int) -> Path:
        """File of one chunk."""
        name = "unmarked" if mark is None else f"{mark.scheme}{mark.width}"
        spec = None if mark is None else self.spec(mark).spec_id
        return self.keep / f"answers-{name}-{start:05d}-{digest(self.folder.name, spec, self.tokens, asked)}.jsonl"

    def file(self, answers: Sequence[Answer], name: str) -> Path:
        """The same answers as one file, as tracing reads them."""
        data = b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers)
        path = self.keep / f"text-{name}-{hashlib.sha256(data).hexdigest()[:12]}.jsonl"
        if not path.exists():
            write_atomically(path, data)
        return path

    def paraphrased(self, answers: Sequence[Answer]) -> list[Answer]:
        """The same answers with each sentence put in other words by the unmarked model."""
        parts = [sentences(answer.text) for answer in answers]
        asked = [REWRITE.format(sentence) for some in parts for sentence in some]
        rewritten: list[Answer] = []
        for start in range(0, len(asked), self.together):
            some = asked[start : start + self.together]
            path = self.keep / f"paraphrased-{start:05d}-{digest(self.folder.name, self.tokens, some)}.jsonl"
            if not path.exists():
                self._make(path, None, some, self.tokens, start)
            rewritten += _read(path)
        texts = iter(answer.text.strip() for answer in rewritten)
        encode = self.encoder.encode
        made = []
        for answer, some in zip(answers, parts, strict=True):
            text = " ".join(next(texts) for _ in some)
            made.append(
                Answer(
                    id=answer.id,
                    prompt=answer.prompt,
                    text=text,
                    prompt_token_ids=answer.prompt_token_ids,
                    token_ids=[*encode(text).tolist(), answer.token_ids[-1]][: 2 * self.tokens],
                )
            )
        return made

    def _make(self, path: Path, mark: Mark | None, asked: Sequence[str], tokens: int, seed: int) -> None:
        click.echo(f"teacher: {path.name}", err=True)
        model, tokenizer = self._loaded
        spec, ring = (None, None) if mark is None else (self.spec(mark), self.ring)
        sampling = Sampling(temperature=1.0, max_new_tokens=tokens, batch=self.together, seed=seed + 7)
        made = list(generate_answers(model, tokenizer, asked, sampling, spec, ring))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"".join(msgspec.json.encode(answer) + b"\n" for answer in made))


def _tiny(demo: Path, keep: Path) -> Path:
    """A model of some million random weights with the demo model's tokenizer."""
    folder = keep / "tiny-teacher"
    if (folder / "tokenizer.json").exists():
        return folder
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.from_pretrained(demo, local_files_only=True, num_key_value_heads=2, head_dim=16, **small)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo, local_files_only=True).save_pretrained(folder)
    shutil.copy(demo / "tokenizer.json", folder / "tokenizer.json")
    return folder


def owner_key(ring: KeyRing) -> SecretKey:
    """The global key of a ring that was made from a master key."""
    key = ring.global_key
    assert isinstance(key, SecretKey)
    return key


def digest(*shape: Any) -> str:
    """A short hash of whatever shaped a file."""
    return hashlib.blake2b(json.dumps(shape).encode(), digest_size=6).hexdigest()


def _read(path: Path) -> list[Answer]:
    return [msgspec.json.decode(line, type=Answer) for line in path.read_bytes().splitlines()]
