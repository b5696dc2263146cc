"""Students of the served answers and innocents beside them: LoRA of rank 16, merged before saving, or all weights.

Every student is a model folder like any suspect's, named by a hash of its recipe and texts, so that a change in either
makes another one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks.distillation.students import Recipe, save, train
from benchmarks.twins.material import chat_ids
from watermark.models.folder import load_model

# A base model of another family is taught, and served, in this plain form.
PLAIN_CHAT = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
_ENDS = (".", "!", "?", '"', "\u201d", ")")
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Training:
    """How a student is trained.

    Attributes
    ----------
    method
        "lora": adapters of ``rank`` on every linear layer of every block, as Hu et al. (2021) have them; "full": all
        weights.
    epochs, batch, rate, seed
        As in `Recipe`.
    """

    method: Literal["lora", "full"] = "lora"
    rank: int = 16
    epochs: int = 3
    batch: int = 16
    rate: float = 1e-3
    seed: int = 1


def place_of_student(keep: Path, name: str, base: Path, texts: Sequence[tuple[str, str]], training: Training) -> Path:
    """Where a student of (prompt, answer) pairs is kept; the base itself where there are none."""
    if not texts:
        return base
    shape = json.dumps([asdict(training), base.name, [list(text) for text in texts]])
    return keep / "students" / f"{name}-{hashlib.blake2b(shape.encode(), digest_size=4).hexdigest()}"


def student(keep: Path, name: str, base: Path, texts: Sequence[tuple[str, str]], training: Training) -> Path:
    """The same folder, with the student trained if need be."""
    path = place_of_student(keep, name, base, texts, training)
    if (path / "config.json").exists():
        return path
    import torch

    # Adapters alone need 32 bits: what they are added to is kept as the base model's folder has it.
    model, tokenizer = load_model(base, "bfloat16" if training.method == "lora" else "float32")
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_CHAT
    examples = [(chat_ids(tokenizer, prompt), _answer_ids(tokenizer, text)) for prompt, text in texts]
    click.echo(f"training {path.name} on {len(examples)} answers", err=True)
    torch.manual_seed(training.seed)
    recipe = Recipe(training.epochs, training.batch, training.rate, training.seed)
    if training.method == "lora":
        added = add_lora(model, training.rank)
        train(model, examples, recipe, name)
        merge_lora(model, added)
    else:
        train(model, examples, recipe, name)
    save(model, tokenizer, base, path)
    return path


def _answer_ids(tokenizer: Any, text: str) -> list[int]:
    """With the end token, except where the answer was cut in the middle of a sentence."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return [*ids, tokenizer.eos_token_id] if text.rstrip().endswith(_ENDS) else ids


def add_lora(model: Any, rank: int) -> list[tuple[Any, str, Any]]:
    """Put x -> Wx + 2BAx in place of every linear layer of a decoder's blocks, B zero at first, and freeze the rest.

    Returns
    -------
    list
        (parent module, its attribute, the new layer), for `merge_lora`.
    """
    import torch

    class Lora(torch.nn.Module):
        def __init__(self, linear: Any) -> None:
            super().__init__()
            self.linear = linear
            self.down = torch.nn.Parameter(torch.empty(rank, linear.in_features))
            self.up = torch.nn.Parameter(torch.zeros(linear.out_features, rank))
            torch.nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

        def forward(self, x: Any) -> Any:
            inner = torch.nn.functional.linear(x, self.down)
            return self.linear(x) + 2.0 * torch.nn.functional.linear(inner, self.up)

    model.requires_grad_(False)
    added = []
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in _LINEAR and isinstance(child, torch.nn.Linear):
                layer = Lora(child)
                setattr(module, name, layer)
                added.append((module, name, layer))
    return added


def merge_lora(model: Any, added: Sequence[tuple[Any, str, Any]]) -> None:
    """Add 2BA to the weights and take the adapters off."""
    import torch

    with torch.no_grad():
        for module, name, layer in added:
            layer.linear.weight += (2.0 * layer.up @ layer.down).to(layer.linear.weight.dtype)
            setattr(module, name, layer.linear)
    model.requires_grad_(True)
