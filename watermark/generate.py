"""Marked answers from a local model: prompts in, records with text and token ids out."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from watermark.errors import DyetraceError, MachineError
from watermark.keys import KeyRing
from watermark.models.prompts import encode_prompt, template_of
from watermark.models.writing import (
    check_tokens,
    check_writes,
    known_tokens,
    padded,
    padding_token,
    pads_well,
    positions_of,
    stop_tokens,
    write,
)
from watermark.rowkeys import key_words
from watermark.spec import WatermarkSpec, check_tokenizer
from watermark.twins.pair import TwinAnswer, request_time
from watermark.twins.twinning import SUBKEYS, Twinning

if TYPE_CHECKING:
    import torch

_COLDEST, _HOTTEST = 1e-3, 1e3  # beyond, 32-bit logits over- or underflow
_LARGEST = 2**31 - 1
_RUN_BYTES = 32


class SamplingUsed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the words of an answer were drawn, so that the chances that the mark chose by can be computed again.

    The filters act in the order in which they stand here.

    Attributes
    ----------
    temperature
        Logits were divided by this; 0 stands for the likeliest token alone.
    top_k
        So many of the likeliest tokens were kept; 0 keeps all.
    top_p
        The fewest likeliest tokens whose chances come to this were kept; 1 keeps all.
    min_p
        Tokens less likely than this part of the likeliest one's chance were left out; 0 leaves none out.

    Raises
    ------
    DyetraceError
        A value is out of range (of JSON: msgspec.ValidationError).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= _HOTTEST:
            raise DyetraceError(f"temperature must lie in [0, {_HOTTEST:g}] (got {self.temperature})")
        if not 0 < self.top_p <= 1:
            raise DyetraceError(f"top_p must lie in (0, 1] (got {self.top_p})")
        if not 0 <= self.top_k <= _LARGEST:
            raise DyetraceError(f"top_k must lie in 0 .. {_LARGEST} (got {self.top_k})")
        if not 0 <= self.min_p <= 1:
            raise DyetraceError(f"min_p must lie in [0, 1] (got {self.min_p})")


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
    sampling
        How its words were drawn; None where that is not on record, as in files of earlier versions.
    """

    id: str
    prompt: str
    text: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    spec_id: str | None = None
    tenant: str | None = None
    subkey: int | None = None
    sampling: SamplingUsed | None = None


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
        if not _COLDEST <= self.temperature <= _HOTTEST:
            raise DyetraceError(f"temperature must lie in [{_COLDEST}, {_HOTTEST:g}] (got {self.temperature})")
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise DyetraceError(f"top_p must lie in (0, 1] and top_k be 0 or more (got {self.top_p} and {self.top_k})")
        if self.max_new_tokens < 1 or self.samples < 1 or self.batch < 1:
            raise DyetraceError("max_new_tokens, samples and batch must be at least 1")
        if max(self.max_new_tokens, self.samples, self.batch, self.top_k) > _LARGEST:
            raise DyetraceError(f"max_new_tokens, samples, batch and top_k must be {_LARGEST} at most")
        if not 0 <= self.fresh_share < 1:
            raise DyetraceError(f"fresh_share must lie in [0, 1) (got {self.fresh_share})")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise DyetraceError(f"seed must lie in 0 .. 2^64 - 1 (got {self.seed})")


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
    run: bytes | None = None,
) -> Iterator[Answer]:
    """Yield answers to ``prompts`` as their batches finish, in order: `generate_batches`, one answer at a time."""
    for batch in generate_batches(model, tokenizer, prompts, sampling, spec, ring, tenant, chat=chat, run=run):
        yield from batch


def generate_batches(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    sampling: Sampling,
    spec: WatermarkSpec | None = None,
    ring: KeyRing | None = None,
    tenant: str | None = None,
    *,
    chat: bool = True,
    chats: Sequence[Sequence[Mapping[str, str]]] | None = None,
    read: Sequence[Sequence[int]] | None = None,
    run: bytes | None = None,
    first: int = 0,
    twins: Twinning | None = None,
) -> Iterator[list[Answer]]:
    """Yield the answers of one batch of prompts after the other.

    Parameters
    ----------
    model, tokenizer
        A transformers causal language model and its tokenizer.
    prompts
        All of them, also those of batches that are passed over.
    spec, ring
        The watermark and the owner's keys; without them the text is not marked.
    tenant
        The account; None where the spec has no tenants.
    chat
        Put each prompt through the tokenizer's chat template where it has one.
    chats
        Messages ("role", "content") in place of each prompt, where a chat is more than that one message; the template
        must know them.
    read
        The token ids that the model is to read for each prompt, where they are known already.
    run
        Secret random bytes (32), which each batch's sub-keys and, without a seed, its unmarked randomness are drawn
        from: with the same bytes any batch is made again as it was. By default they are drawn here.
    first
        The batch to begin with.
    twins
        Gives a share of the requests two answers, of which the coin's is yielded once the pair is on record. Which
        requests and which coins is decided by ``run`` and the twin key, before anything is drawn.

    Raises
    ------
    DyetraceError
        A spec without keys, the wrong tokenizer or model for the spec, a prompt that is empty or too long or that the
        chat template refuses, or a model that fails or predicts no numbers.
    """
    import torch

    run = secrets.token_bytes(_RUN_BYTES) if run is None else run
    check_request(prompts, sampling, spec, ring, tenant, twins=twins is not None)
    if spec is not None:
        from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size

        check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    check_writes(model)
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts] if chats is None else chats
    chat_texts = chat and template_of(tokenizer) is not None
    encoded = _encoded(tokenizer, prompts, messages, chat=chat) if read is None else read
    check_lengths([len(ids) for ids in encoded], sampling.max_new_tokens, positions_of(getattr(model, "config", None)))
    check_tokens(encoded, known_tokens(model))
    padding = padding_token(model, tokenizer)
    stops = stop_tokens(model, tokenizer)
    used = _used(sampling, model)
    alike: bool | None = None
    for batch in range(first, -(-len(prompts) // sampling.batch)):
        start = batch * sampling.batch
        inputs = padded(encoded[start : start + sampling.batch], padding, model.device)
        if alike is None and not inputs["attention_mask"].all():
            alike = pads_well(model, encoded, padding)
        nonces = _nonces(twins, run, batch, len(inputs["input_ids"]) * sampling.samples)
        came = [request_time() for _ in nonces]
        requests = [request for request, nonce in enumerate(nonces) for _ in range(1 if nonce is None else 2)]
        numbers = torch.tensor(requests, device=model.device) // sampling.samples
        rows = {name: values[numbers] for name, values in inputs.items()}
        subkeys = _subkeys(rows["input_ids"], sampling, spec, tenant, _drawn(run, "subkeys", batch))
        unmarked = _drawn(run, "sampling", batch) if sampling.seed is None else _seeded(sampling.seed, batch)
        torch.manual_seed(next(unmarked) >> 1)
        written = write(
            model,
            rows,
            padding=padding,
            stops=stops,
            mark=_marks(spec, ring, tenant, subkeys, sampling.fresh_share),
            apart=alike is False,
            temperature=used.temperature,
            top_k=used.top_k,
            top_p=used.top_p,
            min_p=used.min_p or None,
            max_new_tokens=sampling.max_new_tokens,
        )
        drawn: list[list[Answer]] = [[] for _ in nonces]
        for row, (request, ids) in enumerate(zip(requests, written, strict=True)):
            number, sample = divmod(request, sampling.samples)
            mask = inputs["attention_mask"][number].bool()
            drawn[request].append(
                Answer(
                    id=f"{start + number}" if sampling.samples == 1 else f"{start + number}.{sample}",
                    prompt=prompts[start + number],
                    text=tokenizer.decode(ids, skip_special_tokens=True),
                    prompt_token_ids=inputs["input_ids"][number][mask].tolist(),
                    token_ids=ids,
                    spec_id=None if spec is None else spec.spec_id,
                    tenant=tenant,
                    subkey=None if subkeys is None else subkeys[row],
                    sampling=used,
                )
            )
        chatted = [
            messages[start + request // sampling.samples] if chat_texts else None for request in range(len(nonces))
        ]
        served = {} if twins is None else _served(twins, nonces, came, chatted, drawn, set(stops))
        yield [served.get(request, answers[0]) for request, answers in enumerate(drawn)]


def _nonces(twins: Twinning | None, run: bytes, batch: int, count: int) -> list[str | None]:
    """For each request of a batch the nonce of its pair, or None where it gets one answer alone."""
    if twins is None:
        return [None] * count
    numbers = _drawn(run, "nonces", batch)
    return twins.chosen([f"{next(numbers):016x}{next(numbers):016x}" for _ in range(count)])


def _served(
    twins: Twinning,
    nonces: Sequence[str | None],
    came: Sequence[str],
    chats: Sequence[Sequence[Mapping[str, str]] | None],
    drawn: Sequence[Sequence[Answer]],
    stops: set[int],
) -> dict[int, Answer]:
    """Put a batch's pairs on record; the answer that the coin serves, by the number of its request."""
    pairs = {}
    for request, nonce in enumerate(nonces):
        if nonce is not None:
            one, other = drawn[request]
            chat = chats[request]
            pairs[request] = twins.pair(
                nonce,
                came[request],
                {"prompt": one.prompt} if chat is None else {"messages": [dict(message) for message in chat]},
                (_twin(one, stops), _twin(other, stops)),
                account=one.tenant,
                prompt_token_ids=one.prompt_token_ids,
                subkeys=[] if one.subkey is None or other.subkey is None else [one.subkey, other.subkey],
            )
    served = {}
    for request, pair in zip(pairs, twins.keep(list(pairs.values())), strict=True):
        answer, marks = pair.answers[pair.served], pair.engine.get(SUBKEYS, "").split()
        served[request] = msgspec.structs.replace(
            drawn[request][0],
            text=answer.text,
            token_ids=answer.token_ids or [],
            subkey=int(marks[pair.served]) if marks else None,
        )
    return served


def _twin(answer: Answer, stops: set[int]) -> TwinAnswer:
    ended = bool(answer.token_ids) and answer.token_ids[-1] in stops
    return TwinAnswer(text=answer.text, token_ids=answer.token_ids, finish_reason="stop" if ended else "length")


def _used(sampling: Sampling, model: Any) -> SamplingUsed:
    """What goes on record; ``min_p`` is the model's own, which ``model.generate`` takes from its folder."""
    return SamplingUsed(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=getattr(model.generation_config, "min_p", None) or 0.0,
    )


def check_request(
    prompts: Sequence[str],
    sampling: Sampling,
    spec: WatermarkSpec | None,
    ring: KeyRing | None,
    tenant: str | None,
    *,
    twins: bool = False,
) -> None:
    """Refuse, before a model is there, what can't be answered or marked.

    With ``twins`` an account needs no spec, since its pairs are its own, and each request may take two sub-keys.

    Raises
    ------
    DyetraceError
        A spec without keys, spec and account that don't go together, an empty prompt, or more samples of one prompt
        than sub-keys that differ.
    """
    for number, prompt in enumerate(prompts, 1):
        if not prompt.strip():
            raise DyetraceError(f"prompt {number} is empty; remove it or fill it in")
    if spec is None:
        if (tenant is not None and not twins) or sampling.fresh_share > 0:
            what = "fresh_share" if sampling.fresh_share > 0 else f"tenant {tenant!r}"
            raise DyetraceError(f"{what} was given, but nothing is marked without a spec; give the spec and its key")
        return
    if ring is None:
        raise DyetraceError("marking text needs a key beside the spec")
    key_words(spec, ring, tenant, 0)
    if sampling.fresh_share > 0:
        return
    for start in range(0, len(prompts), sampling.batch):
        _, most = Counter(prompts[start : start + sampling.batch]).most_common(1)[0]
        if most * sampling.samples * (1 + twins) > spec.subkeys:
            counted = "samples and twins" if twins else "samples"
            raise DyetraceError(
                f"more than {spec.subkeys} {counted} of one prompt in a batch would repeat each other: the spec has "
                f"{spec.subkeys} sub-keys; make a spec with more, set fresh_share above 0, or make batches smaller"
            )


def check_lengths(lengths: Sequence[int], max_new_tokens: int, positions: int | None) -> None:
    """Raise DyetraceError where a prompt of so many tokens and its answer don't fit into a model's positions."""
    for number, length in enumerate(lengths, 1):
        if positions is not None and length + max_new_tokens > positions:
            raise DyetraceError(
                f"prompt {number} has {length:,} tokens, which with {max_new_tokens:,} of an answer is more than the "
                f"{positions:,} that the model can read; shorten it, or lower max_new_tokens"
            )


def check_folder_fits(folder: Path, prompts: Sequence[str], sampling: Sampling, spec: WatermarkSpec | None) -> None:
    """Check tokenizer and prompts against a model's folder, before the model is loaded.

    Raises
    ------
    DyetraceError
        It is no model's folder, its tokenizer is not the spec's, or a prompt is too long.
    """
    from watermark.models.given import find_model
    from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size

    whole = find_model(folder).whole
    tokenizer = load_tokenizer(folder)
    if spec is not None:
        check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    try:
        config = json.loads((whole / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # what loads the model says how it is broken
    lengths = [len(tokenizer.encode(prompt, add_special_tokens=False).ids) for prompt in prompts]
    check_lengths(lengths, sampling.max_new_tokens, positions_of(config))


def _drawn(run: bytes, purpose: str, batch: int) -> Iterator[int]:
    """Random numbers of 64 bits for one batch, the same for the same bytes of a run."""
    for count in itertools.count():
        message = f"{purpose}:{batch}:{count}".encode()
        digest = hashlib.blake2b(message, key=run, digest_size=8, person=b"dyt:generate")
        yield int.from_bytes(digest.digest())


def _seeded(seed: int, batch: int) -> Iterator[int]:
    return _drawn(seed.to_bytes(8), "seed", batch)


def _subkeys(
    prompts: torch.Tensor, sampling: Sampling, spec: WatermarkSpec | None, tenant: str | None, drawn: Iterator[int]
) -> list[int] | None:
    """Draw here what the hook would draw by itself, so that each answer's record can name its sub-key."""
    if spec is None:
        return None
    from watermark.engines.transformers.processor import draw_subkeys

    return draw_subkeys(
        prompts,
        [tenant] * len(prompts),
        spec.subkeys,
        beams=1,
        must_differ=sampling.fresh_share == 0,
        choose=lambda free: free[next(drawn) % len(free)],  # off from even by less than 2^-50
    )


def _marks(
    spec: WatermarkSpec | None, ring: KeyRing | None, tenant: str | None, subkeys: Sequence[int] | None, fresh: float
) -> Callable[[torch.Tensor, Sequence[int]], Any]:
    """What marks some rows of a batch, for `watermark.models.writing.write`."""

    def mark(mask: torch.Tensor, numbers: Sequence[int]) -> Any:
        if spec is None or ring is None:
            return None
        from watermark.engines.transformers.processor import WatermarkConfig

        theirs = None if subkeys is None else [subkeys[number] for number in numbers]
        return WatermarkConfig(spec, ring, tenants=tenant, subkeys=theirs, attention_mask=mask, fresh_share=fresh)

    return mark


def _encoded(
    tokenizer: Any, prompts: Sequence[str], messages: Sequence[Sequence[Mapping[str, Any]]], *, chat: bool
) -> list[list[int]]:
    found = []
    for number, (prompt, chatted) in enumerate(zip(prompts, messages, strict=True), 1):
        try:
            found.append(encode_prompt(tokenizer, prompt, chatted, chat=chat))
        except MachineError:
            raise
        except DyetraceError as error:
            raise DyetraceError(f"prompt {number}: {error}") from error
    return found


def settings_of(
    prompts: Sequence[str],
    sampling: Sampling,
    spec: WatermarkSpec | None,
    tenant: str | None,
    folder: Path,
    **more: object,
) -> dict[str, str]:
    """All that decides what a run answers, for `watermark.files.partial.PartialFile`; long values as hashes."""
    from watermark.models.given import find_model

    base = find_model(folder).base  # of an adapter, which answers with both
    files = [one for place in (folder, base) if place is not None for one in _stamps(place)]
    found: dict[str, object] = {
        "prompts": hashlib.sha256(msgspec.json.encode(prompts)).hexdigest(),
        "spec": None if spec is None else spec.spec_id,
        "tenant": tenant,
        "model": str(folder.resolve()),
        "model_files": hashlib.sha256(msgspec.json.encode(files)).hexdigest(),
        **msgspec.to_builtins(sampling),
        **more,
    }
    return {name: str(value) for name, value in found.items()}


def _stamps(place: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a model's files: those of a folder and of its further chat templates, or the file."""
    found = [place] if place.is_file() else [*place.iterdir(), *place.glob("*chat_template*/*")]
    return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in found)


def is_answers(path: Path) -> bool:
    """Whether the file at this path is of answers as `dyetrace generate` writes them, or empty."""
    try:
        with path.open("rb") as file:
            first = file.readline(1 << 24)
        msgspec.json.decode(first, type=Answer) if first else None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def encode_answers(answers: Iterable[Answer]) -> bytes:
    """JSONL, one answer a line."""
    return b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers)
