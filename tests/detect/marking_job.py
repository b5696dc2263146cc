"""A tiny model's folder with key, spec and prompts beside it, on which `dyetrace generate` takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from tests.tiny_models import CAUSAL, made, tokenizer
from watermark.keys import SecretKey, write_key_file
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec

SECRET = bytes(range(32))


@dataclass(frozen=True)
class MarkingJob:
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def key(self) -> str:
        return f"file:{self.folder / 'owner.key'}"

    @property
    def spec(self) -> Path:
        return self.folder / "spec.json"

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.txt"

    def generate(self, *more: str | Path) -> list[str]:
        """Arguments of a run that marks seven prompts, two at a time."""
        arguments = ["generate", "--spec", self.spec, "--key", self.key, "--model", self.model, "--dtype", "float32"]
        arguments += ["--prompts", self.prompts, "--max-new-tokens", "12", "--batch", "2", *more]
        return [str(argument) for argument in arguments]


def marking_job(folder: Path, **fields: Any) -> MarkingJob:
    job = MarkingJob(folder)
    made(CAUSAL["llama"]).save_pretrained(job.model)
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer().backend_tokenizer, eos_token="2", pad_token="0"
    )
    words.save_pretrained(job.model)
    write_key_file(folder / "owner.key", SecretKey(SECRET))
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(job.model),
        tokenizer=tokenizer_fingerprint(job.model),
        key_fingerprint=SecretKey(SECRET).fingerprint,
        **fields,
    )
    write_spec(job.spec, spec)
    job.prompts.write_text("".join(f"{10 + number} {20 + number} 30\n" for number in range(7)))
    return job
