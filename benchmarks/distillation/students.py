"""Students: the demo model (or any other) fine-tuned, all weights, on mixtures of marked and unmarked answers."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np


@dataclass(frozen=True)
class Recipe:
    """How a student is trained.

    Attributes
    ----------
    epochs, batch
        Passes over the answers, and answers in a step.
    rate
        Peak learning rate of AdamW; it rises over the first tenth of the steps and falls to zero along a cosine.
    seed
        Of the order of the answers.
    """

    epochs: int = 3
    batch: int = 16
    rate: float = 1e-4
    seed: int = 1


def train(model: Any, examples: Sequence[tuple[list[int], list[int]]], recipe: Recipe, label: str = "") -> None:
    """Fine-tune all weights of a model in place on (prompt ids, answer ids); the loss is on the answers alone.

    The model is expected in float32; on a CPU or GPU that has it, matrix products run in bfloat16.
    """
    import torch

    device = next(model.parameters()).device
    order = np.random.default_rng(recipe.seed)
    steps = recipe.epochs * math.ceil(len(examples) / recipe.batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    model.train()
    done = 0
    for epoch in range(recipe.epochs):
        losses = []
        for places in np.array_split(order.permutation(len(examples)), math.ceil(len(examples) / recipe.batch)):
            ids, mask, wanted = _batch([examples[i] for i in places], device)
            with torch.autocast(device.type, torch.bfloat16):
                hidden = model.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state
                rows = hidden[:, :-1][wanted[:, 1:]]
                loss = torch.nn.functional.cross_entropy(
                    model.get_output_embeddings()(rows).float(), ids[:, 1:][wanted[:, 1:]]
                )
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
            losses.append(loss.item())
            done += 1
        click.echo(f"{label}: epoch {epoch + 1} of {recipe.epochs}, loss {np.mean(losses):.3f}", err=True)
    model.eval()


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))


def _batch(examples: Sequence[tuple[list[int], list[int]]], device: Any) -> tuple[Any, Any, Any]:
    """Pad on the right: ids, attention mask and which tokens are an answer's, each (b, length)."""
    import torch

    length = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids = torch.zeros((len(examples), length), dtype=torch.long)
    mask, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(examples):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        wanted[row, len(prompt) : end] = True
    return ids.to(device), mask.to(device), wanted.to(device)


def save(model: Any, tokenizer: Any, base: Path, folder: Path) -> None:
    """Write a student of the model in ``base`` as a bf16 folder, as a suspect's would be: whole or not at all."""
    import torch

    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        model.to(torch.bfloat16).save_pretrained(work)
        tokenizer.save_pretrained(work)
        # transformers writes the same tokenizer in other words, and that would be another fingerprint.
        shutil.copy(base / "tokenizer.json", work / "tokenizer.json")
        os.rename(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
