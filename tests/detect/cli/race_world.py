"""A small world for race readouts: an owner's model, answers that it served to two accounts, and suspects."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from detect.cli.main import main
from detect.text.natural_text import natural_documents
from watermark.keys import SecretKey, write_key_file

ACCOUNTS = ("acme", "zenith")
_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% if not (loop.last and continue_final_message) %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def run(*words: object) -> Result:
    """A command, as it is typed."""
    return CliRunner().invoke(main, [str(word) for word in words])


@dataclass(frozen=True)
class World:
    """A folder with all that the commands are given.

    Attributes
    ----------
    folder
        It has ``owner`` (the model that made the answers), ``guilty`` (it learnt them by heart), ``innocent`` (answers
        of the same model to the same prompts, unmarked), ``served.jsonl``, ``spec.json`` and ``owner.key``; with
        accounts ``acme.jsonl``, ``both.jsonl`` and ``tenants.json``.
    """

    folder: Path

    @property
    def owned(self) -> list[object]:
        """Spec, key and tokenizer, as words of a command."""
        return [
            *("--spec", self.folder / "spec.json", "--key", f"file:{self.folder / 'owner.key'}"),
            *("--tokenizer", self.folder / "owner", "--decoys", 20),
        ]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The served answers, as they lie in their file."""
        return [json.loads(line) for line in (self.folder / "served.jsonl").read_text().splitlines()]

    def model(self, name: str) -> tuple[Any, Any]:
        """A model and its tokenizer, for a server."""
        import transformers

        folder = self.folder / name
        found = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        return found, transformers.AutoTokenizer.from_pretrained(folder)


def make_world(folder: Path) -> World:
    """Make it, with the commands themselves."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    prose = [text[:3000] for _, text in natural_documents("prose", 60)]
    words = _tokenizer(prose)
    torch.manual_seed(0)
    owner = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    ids = [i for text in prose for i in words(text)["input_ids"]]
    _train(owner, torch.tensor(ids[: len(ids) // 64 * 64]).view(-1, 64), 100, 3e-3)
    _save(owner, words, folder / "owner")
    write_key_file(folder / "owner.key", SecretKey(bytes(range(32))))
    prompts = [f"What is said of {text[:24].split(maxsplit=1)[-1].strip()}?" for text in prose[:16]]
    (folder / "prompts.txt").write_text("".join(" ".join(prompt.split()) + "\n" for prompt in prompts))
    key = ("--key", f"file:{folder / 'owner.key'}")
    _done("spec", folder / "spec.json", *key, "--model", folder / "owner", "--subkeys", 2)
    _done("spec", folder / "tenants.json", *key, "--model", folder / "owner", "--subkeys", 2, "--tenants")
    how: list[object] = ["--model", folder / "owner", "--dtype", "float32", "--seed", 1, "--max-new-tokens", 40]
    how += ["--quiet", "--top-p", "0.95", "--temperature", "0.8", "--prompts", folder / "prompts.txt"]
    _done("generate", *how, *key, "--spec", folder / "spec.json", "-o", folder / "served.jsonl")
    _done("generate", *how, "-o", folder / "unmarked.jsonl")
    for name in ACCOUNTS:
        marked = ("--spec", folder / "tenants.json", "--tenant", name)
        _done("generate", *how, *key, *marked, "-o", folder / f"{name}.jsonl")
    both = [(folder / f"{name}.jsonl").read_text() for name in ACCOUNTS]
    (folder / "both.jsonl").write_text("".join(both))
    for suspect, learnt in (("guilty", "served"), ("innocent", "unmarked"), ("acmes", "acme")):
        student = copy.deepcopy(owner)
        rows = [row for row in _rows(folder / f"{learnt}.jsonl") if len(row) > 1]
        _train(student, _padded(rows, words.pad_token_id), 100, 3e-3)
        _save(student, words, folder / suspect)
    return World(folder)


def _done(*words: object) -> None:
    result = run(*words)
    assert result.exit_code == 0, result.output


def _tokenizer(texts: list[str]) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=["<end>", "<user>", "<assistant>", "<system>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    made.chat_template = _TEMPLATE
    return made


def _rows(path: Path) -> list[list[int]]:
    """Each answer's tokens after its prompt's."""
    answers = [json.loads(line) for line in path.read_text().splitlines()]
    return [[*answer["prompt_token_ids"], *answer["token_ids"]] for answer in answers]


def _padded(rows: Sequence[list[int]], padding: int) -> Any:
    import torch

    longest = max(map(len, rows))
    return torch.tensor([row + [padding] * (longest - len(row)) for row in rows])


def _train(model: Any, rows: Any, steps: int, rate: float) -> None:
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (16,), generator=generator)]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


def _save(model: Any, words: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
