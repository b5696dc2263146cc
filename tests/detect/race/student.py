"""An owner's model of two layers, what it served to two accounts, and students of it, made on the spot."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detect.race.job import RaceJob
from detect.text.natural_text import natural_documents
from tests.detect.student.test_open_weights import _rows, _tokenizer, _train
from watermark.generate import Answer, Sampling, encode_answers, generate_answers
from watermark.keys import KeyRing, SecretKey
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
ACCOUNTS = ("acme", "bolt")
RING = KeyRing.from_master(KEY, 0, ACCOUNTS)
SAMPLING = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=60, batch=32, seed=1)


@dataclass(frozen=True)
class World:
    """The folder of models and answers, and the spec.

    ``owner`` made ``served.jsonl`` (first acme's, then bolt's); ``student`` learnt from acme's answers alone, and so
    did ``stranger``, which has another tokenizer; ``innocent`` learnt from answers to the same prompts without a mark.
    """

    folder: Path
    spec: WatermarkSpec

    @property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder / "owner")

    def job(self, suspect: str, **more: Any) -> RaceJob:
        fields: dict[str, Any] = {
            "suspect": suspect if "://" in suspect else str(self.folder / suspect),
            "read": str(self.folder / "served.jsonl"),
            "owner_model": self.folder / "owner",
            "dtype": "float32",
            "decoys": 20,
        }
        return RaceJob(**fields | more)


def saved(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def made_world(folder: Path) -> World:
    """Some ten seconds on one core."""
    prose = [text[:3000] for _, text in natural_documents("prose", 40)]
    tokenizer = _tokenizer(prose)
    owner = fresh_model(tokenizer)
    _train(owner, _rows([i for text in prose for i in tokenizer(text)["input_ids"]]), 120, 3e-3)
    sibling = copy.deepcopy(owner)
    _train(sibling, _rows([i for text in prose[:20] for i in tokenizer(text)["input_ids"]]), 10, 1e-3)
    spec = WatermarkSpec(
        context_width=2,
        subkeys=2,
        global_share=0.5,
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=KEY.fingerprint,
    )
    prompts = [text[100 * i : 100 * i + 40].strip() or "A" for text in prose[:32] for i in range(2)]
    served: list[Answer] = []
    for account in ACCOUNTS:
        served += generate_answers(owner, tokenizer, prompts[:32], SAMPLING, spec, RING, account)
    unmarked = list(generate_answers(owner, tokenizer, prompts[:32], SAMPLING))
    (folder / "served.jsonl").write_bytes(encode_answers(numbered(served)))
    (folder / "unmarked.jsonl").write_bytes(encode_answers(unmarked))
    for name, answers in (("student", served[:32]), ("innocent", unmarked)):
        student = copy.deepcopy(sibling)
        _train(student, _padded(answers, tokenizer.pad_token_id), 60, 2e-3)
        saved(student, tokenizer, folder / name)
    words = _tokenizer([text[::-1] for text in prose])
    stranger = fresh_model(words)
    texts = [words(answer.prompt + answer.text)["input_ids"] for answer in served[:32]]
    _train(stranger, _of_one_length(texts, words.pad_token_id), 200, 3e-3)
    saved(stranger, words, folder / "stranger")
    saved(owner, tokenizer, folder / "owner")
    saved(sibling, tokenizer, folder / "sibling")
    return World(folder, spec)


def fresh_model(tokenizer: Any, seed: int = 0) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def numbered(answers: Sequence[Answer]) -> list[Answer]:
    """With ids in the order of serving."""
    import msgspec

    return [msgspec.structs.replace(answer, id=str(number)) for number, answer in enumerate(answers)]


def _padded(answers: Sequence[Answer], pad: int) -> Any:
    """Prompts and answers as rows of one length."""
    return _of_one_length([[*answer.prompt_token_ids, *answer.token_ids] for answer in answers], pad)


def _of_one_length(rows: Sequence[Sequence[int]], pad: int) -> Any:
    import torch

    length = max(map(len, rows))
    return torch.from_numpy(np.array([[*row, *[pad] * (length - len(row))] for row in rows], dtype=np.int64))
