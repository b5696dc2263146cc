"""A small real world for whole commands: a teacher, its answers under a key, who learnt from them and who didn't."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner, Result
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from detect.cli.main import main
from watermark.generate import Answer, Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec

KEY = SecretKey(bytes(range(32)))
TEMPLATE = "{% for message in messages %}[{{ message.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
PROMPTS = [f"About {subject} {number}." for subject in ("owls", "ships", "bread", "rain") for number in range(15)]


def run(*words: object) -> Result:
    """A command, as it is typed."""
    return CliRunner().invoke(main, [str(word) for word in words])


def tokenizer_of(*more: str) -> Any:
    """A character a token, and perhaps more tokens: then it is another tokenizer, whose models are aligned."""
    from transformers import PreTrainedTokenizerFast

    alphabet = ["\u0120", *(chr(number) for number in range(33, 127))]  # a space, and what ASCII can print
    backend = Tokenizer(models.BPE(vocab={"<end>": 0, **{c: i for i, c in enumerate(alphabet, 1)}}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    backend.add_tokens([AddedToken(word, special=False, normalized=False) for word in more])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
    made.chat_template = TEMPLATE
    return made


def network_of(tokenizer: Any, seed: int) -> Any:
    """A Llama of random weights, sure enough of itself to say something."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.25,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config).eval()


def copier_of(tokenizer: Any, sure: float = 8.0, places: int = 256) -> Any:
    """A network that says what followed the last token before: two heads of attention, set by hand.

    The first brings each place the token before it, the second looks for places that follow the token of now. Each
    embedding has the same mean and norm, so that layer norms only scale. ``sure`` is the logit of what it copies.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    size = len(tokenizer)
    width = 3 * size + places  # parts: token, token before, what is copied, place
    config = GPT2Config(
        vocab_size=size,
        n_positions=places,
        n_embd=width,
        n_layer=2,
        n_head=1,
        n_inner=1,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    network = GPT2LMHeadModel(config).eval()
    token, before, copied = (slice(i * size, (i + 1) * size) for i in range(3))
    place = slice(3 * size, width)
    one, shift = torch.eye(size), torch.diag(torch.ones(places - 1), 1)
    sharp = 40.0 * width**0.25  # attention that is all or nothing
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        body = network.transformer
        body.wte.weight[:, token], body.wpe.weight[:, place] = one, torch.eye(places)
        for norm in (body.ln_f, *(n for block in body.h for n in (block.ln_1, block.ln_2))):
            norm.weight.fill_(1.0)
        first, second = (block.attn for block in body.h)
        _set(first.c_attn.weight, width, query=(place, torch.eye(places)), key=(place, shift), scale=sharp)
        first.c_attn.weight[token, 2 * width :][:, before] = one
        first.c_proj.weight.copy_(torch.eye(width))
        _set(second.c_attn.weight, width, query=(token, one), key=(before, one), scale=sharp)
        second.c_attn.weight[token, 2 * width :][:, copied] = one
        second.c_proj.weight.copy_(torch.eye(width))
        network.lm_head.weight[:, copied] = one * sure / 2  # what is copied comes out of the norms about twice as large
    return network


def _set(weight: Any, width: int, query: Any, key: Any, scale: float) -> None:
    """Queries and keys that meet in the first coordinates."""
    (of_query, q), (of_key, k) = query, key
    weight[of_query, : q.shape[1]] = scale * q
    weight[of_key, width : width + k.shape[1]] = scale * k


def widened(network: Any, tokenizer: Any) -> Any:
    """The same model with room for a tokenizer's further tokens."""
    wider = copy.deepcopy(network)
    wider.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return wider.eval()


def taught(network: Any, answers: Sequence[Answer], steps: int = 50) -> Any:
    """A copy that learnt some answers by heart, more or less."""
    import torch

    student = copy.deepcopy(network)
    length = max(len(a.prompt_token_ids) + len(a.token_ids) for a in answers)
    rows = torch.zeros((len(answers), length), dtype=torch.long)
    labels = torch.full_like(rows, -100)
    for row, answer in enumerate(answers):
        ids = torch.tensor([*answer.prompt_token_ids, *answer.token_ids])
        rows[row, : len(ids)] = ids
        labels[row, len(answer.prompt_token_ids) : len(ids)] = ids[len(answer.prompt_token_ids) :]
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    student.train()
    for _ in range(steps):
        batch = torch.randint(len(rows), (16,), generator=generator)
        loss = student(input_ids=rows[batch], labels=labels[batch]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return student.eval()


@dataclass(frozen=True)
class World:
    """A folder of models, keys and answers.

    Attributes
    ----------
    folder
        Models "teacher", "other" (the teacher with another tokenizer), "of-marked"; "owner.key", "spec.json"; answers
        "marked.jsonl", "unmarked.jsonl".
    """

    folder: Path

    @property
    def keys(self) -> list[object]:
        """Options that every trace takes."""
        return ["--spec", self.folder / "spec.json", "--key", f"file:{self.folder / 'owner.key'}"]

    @property
    def tokenizer(self) -> list[object]:
        return ["--tokenizer", self.folder / "teacher"]

    def answers(self, name: str) -> list[Answer]:
        lines = (self.folder / f"{name}.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Answer) for line in lines]

    def model(self, name: str) -> Any:
        from watermark.models.folder import load_model

        return load_model(self.folder / name, "float32")

    @cached_property
    def prompts(self) -> Path:
        path = self.folder / "prompts.txt"
        path.write_text("\n".join(PROMPTS))
        return path


def written(path: Path, answers: Sequence[Answer]) -> Path:
    """Answers as `dyetrace generate` writes them."""
    path.write_bytes(b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers))
    return path


def make_world(folder: Path, **fields: Any) -> World:
    """All of it; ``fields`` change the spec."""
    tokenizer, wide = tokenizer_of(), tokenizer_of("the owl ")
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=KEY.fingerprint,
        **{"subkeys": 2, **fields},
    )
    write_key_file(folder / "owner.key", KEY)
    write_spec(folder / "spec.json", spec)
    teacher = network_of(tokenizer, 0)
    sampling = Sampling(max_new_tokens=40, batch=60, seed=1)
    marked = list(generate_answers(teacher, tokenizer, PROMPTS, sampling, spec, KeyRing.from_master(KEY)))
    unmarked = list(generate_answers(teacher, tokenizer, PROMPTS, replace(sampling, seed=2)))
    written(folder / "marked.jsonl", marked)
    written(folder / "unmarked.jsonl", unmarked)
    networks = {"teacher": (teacher, tokenizer), "other": (widened(teacher, wide), wide)}
    networks["of-marked"] = taught(teacher, marked), tokenizer
    for name, (network, own) in networks.items():
        network.save_pretrained(folder / name)
        own.save_pretrained(folder / name)
    return World(folder)
