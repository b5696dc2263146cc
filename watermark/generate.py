"""Marked answers from a local model: prompts in, records with text and token ids out."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec, check_tokenizer

if TYPE_CHECKING:
    import torch


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of `dyetrace generate`'s JSONL; `dyetrace detect` reads the same.

    Attributes
    ----------
    id
        The prompt's number, and the sample's.
    prompt, text
        As given, and as decoded without special tokens.
    prompt_token_ids, token_ids
        What the model read (chat template included) and what it wrote (end token included).
    spec_id
        The spec that marked it; None for unmarked text.
    tenant
        The account it was made for.
    subkey
        The sub-key that marked it. It is drawn at random, independently of the text, and it is no secret; tracing a
        student gains from knowing it.
    """

    id: str
    prompt: str
    text: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    spec_id: str | None = None
    tenant: str | None = None
    subkey: int | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample: the settings of ``model.generate``; top_k 0 and top_p 1 keep the whole vocabulary."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 200
    samples: int = 1
    fresh_share: float = 0.0
    batch: int = 16
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise DyetraceError(
                f"temperature must be above 0 (got {self.temperature}): at 0 there is nothing to sample and to mark"
            )
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise DyetraceError(f"top_p must lie in (0, 1] and top_k be 0 or more (got {self.top_p} and {self.top_k})")
        if self.max_new_tokens < 1 or self.samples < 1 or self.batch < 1:
            raise DyetraceError("max_new_tokens, samples and batch must be at least 1")


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    sampling: Sampling,
    spec: WatermarkSpec | None = None,
    ring: KeyRing | None = None,
    tenant: str | None = None,
    *,
    chat: bool = True,
) -> Iterator[Answer]:
    """Yield answers to ``prompts`` as their batches finish, in order.

    Parameters
    ----------
    model, tokenizer
        A transformers causal language model and its tokenizer.
    spec, ring
        The watermark and the owner's keys; without them the text is not marked.
    tenant
        The account; None where the spec has no tenants.
    chat
        Put each prompt through the tokenizer's chat template where it has one.

    Raises
    ------
    DyetraceError
        A spec without keys, the wrong tokenizer or model for the spec, or an empty prompt.
    """
    import torch

    if spec is not None and ring is None:
        raise DyetraceError("marking text needs a key beside the spec")
    if spec is not None:
        from watermark.tokenizer import tokenizer_fingerprint, vocabulary_size

        check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    for number, prompt in enumerate(prompts, 1):
        if not prompt.strip():
            raise DyetraceError(f"prompt {number} is empty; remove it or fill it in")
    torch.manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    for start in range(0, len(prompts), sampling.batch):
        part = prompts[start : start + sampling.batch]
        texts = [_as_chat(tokenizer, prompt) if chat and tokenizer.chat_template else prompt for prompt in part]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not chat).to(model.device)
        subkeys = _subkeys(inputs["input_ids"], sampling, spec, tenant)
        rows = _generate(model, tokenizer, inputs, sampling, spec, ring, tenant, subkeys)
        for row, ids in enumerate(rows):
            number, sample = divmod(row, sampling.samples)
            mask = inputs["attention_mask"][number].bool()
            yield Answer(
                id=f"{start + number}" if sampling.samples == 1 else f"{start + number}.{sample}",
                prompt=part[number],
                text=tokenizer.decode(ids, skip_special_tokens=True),
                prompt_token_ids=inputs["input_ids"][number][mask].tolist(),
                token_ids=ids,
                spec_id=None if spec is None else spec.spec_id,
                tenant=tenant,
                subkey=None if subkeys is None else subkeys[row],
            )


def _subkeys(
    prompts: torch.Tensor, sampling: Sampling, spec: WatermarkSpec | None, tenant: str | None
) -> list[int] | None:
    """Draw here what the hook would draw by itself, so that each answer's record can name its sub-key."""
    if spec is None:
        return None
    from watermark.processor import draw_subkeys

    rows = prompts.repeat_interleave(sampling.samples, dim=0)
    return draw_subkeys(rows, [tenant] * len(rows), spec.subkeys, beams=1, must_differ=sampling.fresh_share == 0)


def _as_chat(tokenizer: Any, prompt: str) -> str:
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return text


def _generate(
    model: Any,
    tokenizer: Any,
    inputs: Any,
    sampling: Sampling,
    spec: WatermarkSpec | None,
    ring: KeyRing | None,
    tenant: str | None,
    subkeys: list[int] | None,
) -> list[list[int]]:
    import torch

    mark = None
    if spec is not None and ring is not None:
        from watermark.processor import WatermarkConfig

        mark = WatermarkConfig(
            spec,
            ring,
            tenants=tenant,
            subkeys=subkeys,
            attention_mask=inputs["attention_mask"],
            fresh_share=sampling.fresh_share,
        )
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            max_new_tokens=sampling.max_new_tokens,
            num_return_sequences=sampling.samples,
            pad_token_id=tokenizer.pad_token_id,
            watermarking_config=mark,
        )
    ends = model.generation_config.eos_token_id
    stops = set(ends if isinstance(ends, list) else [ends])
    return [_until_end(row, stops) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]


def _until_end(ids: list[int], stops: set[int]) -> list[int]:
    """Drop the padding after the first end token."""
    for place, token in enumerate(ids):
        if token in stops:
            return ids[: place + 1]
    return ids


def read_prompts(source: str) -> list[str]:
    """Prompts of a file or of standard input ("-"): one a line, or JSONL with a ``prompt`` field."""
    where = "standard input" if source == "-" else source
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DyetraceError(f"cannot read prompts from {where}: {reason}") from None
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise DyetraceError(f"{where} holds no prompt; give one a line")
    if source.endswith(".jsonl") or lines[0].startswith('{"'):
        return [_prompt_of(line, f"{where}, line {number}") for number, line in enumerate(lines, 1)]
    return lines


class _PromptLine(msgspec.Struct):
    prompt: str


def _prompt_of(line: str, where: str) -> str:
    try:
        return msgspec.json.decode(line, type=_PromptLine).prompt
    except msgspec.MsgspecError as error:
        raise DyetraceError(f"{where}: {error}; each line needs a 'prompt' field") from None


def write_answers(target: str, answers: Iterable[Answer], advance: Callable[[], None]) -> None:
    """Write answers as JSONL to a file or to standard output ("-"), each as soon as it is there."""
    if target == "-":
        _write_lines(sys.stdout.buffer, answers, advance)
        return
    try:
        with open(target, "wb") as file:
            _write_lines(file, answers, advance)
    except OSError as error:
        raise DyetraceError(f"cannot write {target}: {error.strerror}") from None


def _write_lines(file: Any, answers: Iterable[Answer], advance: Callable[[], None]) -> None:
    for answer in answers:
        file.write(msgspec.json.encode(answer) + b"\n")
        file.flush()
        advance()
