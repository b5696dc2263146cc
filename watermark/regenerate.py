"""Twins drawn later: for each answer of a log, the same model answers the same request once more under the same law."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from watermark.errors import DyetraceError, MachineError
from watermark.generate import Answer, Sampling, generate_batches
from watermark.keys import KeyRing
from watermark.keys.secret import SecretKey
from watermark.models.prompts import encode_prompt, template_of
from watermark.models.writing import passed_over, stop_tokens
from watermark.spec import WatermarkSpec
from watermark.twins.logged import Logged
from watermark.twins.pair import Pair, TwinAnswer

UNSERVED = "unserved"
"""Name in `Pair.engine` of pairs whose first answer was logged and never served: nobody can have learnt from them."""
ON_RECORD = "served_model_sha256"
MODEL = "model_sha256"
_DATE, _AROUND = 24, 4  # characters of a date that differ from another date's, and around them


def regenerate(
    model: Any,
    tokenizer: Any,
    logged: Sequence[Logged],
    secret: SecretKey,
    *,
    engine: dict[str, str],
    have: Container[str] = (),
    batch: int = 16,
    spec: WatermarkSpec | None = None,
    ring: KeyRing | None = None,
) -> Iterator[list[Pair]]:
    """Yield the pairs of one batch after the other; those of ``have`` are left out.

    A batch has the same lines and is drawn from the same secret bytes whenever it is drawn. So a run that was killed
    between drawing and writing draws the same twins again, and nobody can choose among several.

    Parameters
    ----------
    model, tokenizer
        As for `watermark.generate.generate_batches`.
    logged
        All answers of a log, in its order.
    secret
        The twin key.
    engine
        What draws: `Pair.engine`.
    have
        Ids of pairs that are drawn already.
    batch
        Answers at a time.
    spec, ring
        What marked the served answers; their twins get sub-keys of their own, drawn by the same law.

    Raises
    ------
    DyetraceError
        The log is of another tokenizer, model, template or spec, or was served with settings that can't be drawn with
        here, or perhaps was.
    """
    if spec is None and ring is not None:
        raise DyetraceError("a key without a spec marks nothing")
    if left := passed_over(model):
        raise DyetraceError(
            f"the model's generation_config.json asks for {', '.join(sorted(left))}, and nothing on record says "
            "whether the answers were drawn with it: draw their twins from the server that served them (--model URL), "
            "or take it out of the file if they were drawn without it"
        )
    ends = stop_tokens(model, tokenizer)
    shown = check_drawable(tokenizer, logged, spec)
    alike = sorted(range(len(logged)), key=lambda i: (_law(logged[i], shown[i].raw), i))
    for _, numbers in groupby(alike, key=lambda i: _law(logged[i], shown[i].raw)):
        some = list(numbers)
        for start in range(0, len(some), batch):
            part = [logged[i] for i in some[start : start + batch]]
            read = [shown[i].ids for i in some[start : start + batch]]
            if all(one.id in have for one in part):
                continue
            drawn = _draw(model, tokenizer, part, read, secret, spec, ring)
            yield [
                one.pair(_twin(one, answer, ends), _engine(one, engine))
                for one, answer in zip(part, drawn, strict=True)
                if one.id not in have
            ]


class Shown(NamedTuple):
    """What the model read of a request, and whether that was the prompt without the chat template."""

    ids: list[int]
    raw: bool


def check_drawable(tokenizer: Any, logged: Iterable[Logged], spec: WatermarkSpec | None) -> list[Shown]:
    """Refuse answers that this tokenizer, this spec or this program can't draw a twin of.

    Returns
    -------
    list
        Of each, what the model was shown.
    """
    found = []
    for one in logged:
        if names := one.other_settings:
            raise DyetraceError(
                f"{one.where} was served with {', '.join(names)}, which a local model is not asked with here; draw its "
                "twin from the server that served it (--model URL)"
            )
        if one.spec_id != (None if spec is None else spec.spec_id):
            is_marked = "is not marked" if one.spec_id is None else f"is marked by spec {one.spec_id[:16]}"
            how = "leave --spec out" if one.spec_id is None else "give that spec by --spec and its key by --key"
            raise DyetraceError(f"{one.where} {is_marked}, and its twin must be alike: {how}")
        ids = one.answer.token_ids
        if ids is not None and tokenizer.decode(ids, skip_special_tokens=True) != one.answer.text:
            raise DyetraceError(
                f"{one.where}: its token ids are other text under this model's tokenizer; give the model that made it"
            )
        found.append(_shown(tokenizer, one))
        _sampling(one, 1)
    return found


def _sampling(one: Logged, batch: int) -> Sampling:
    asked = one.request
    try:
        return Sampling(
            temperature=float(asked["temperature"]),
            top_p=float(asked["top_p"]),
            top_k=int(asked["top_k"]),
            max_new_tokens=int(asked["max_tokens"]),
            batch=batch,
        )
    except DyetraceError as error:
        raise DyetraceError(f"{one.where}: {error}") from None


def _shown(tokenizer: Any, one: Logged) -> Shown:
    """What the model was shown: what is on record, if this tokenizer and chat template make it of the request."""
    if "messages" in one.request and template_of(tokenizer) is None:
        raise DyetraceError(f"{one.where} is a chat, and this model has no chat template; give the one that made it")
    try:
        ids = encode_prompt(tokenizer, one.prompt, one.chat)
    except MachineError:
        raise
    except DyetraceError as error:
        raise DyetraceError(f"{one.where}: {error}; give the model that made it") from error
    read = one.prompt_token_ids
    if read is None or ids == read:
        return Shown(ids, raw=False)
    if "strftime_now" in (template_of(tokenizer) or "") and _differ_by_date(tokenizer, read, ids, one.prompt):
        return Shown(read, raw=False)
    if "prompt" in one.request:
        ways = [encode_prompt(tokenizer, one.prompt, chat=False)]
        # Earlier releases put a tokenizer's last token behind raw prompts, and its first before no others.
        ways.append(tokenizer(one.prompt)["input_ids"])
        if template_of(tokenizer) is None:
            ways.append(tokenizer(one.prompt, add_special_tokens=False)["input_ids"])
        if read in ways:
            return Shown(read, raw=True)
    raise DyetraceError(
        f"{one.where}: the model read other tokens than this tokenizer and chat template make of the prompt; give the "
        "model that made it, and its system prompt by --system"
    )


def _differ_by_date(tokenizer: Any, one: list[int], other: list[int], prompt: str) -> bool:
    """Whether two prompts are the same but for a short stretch with figures in it: templates may write today's date."""
    then, now = tokenizer.decode(one), tokenizer.decode(other)
    start = _alike(then, now)
    end = _alike(then[start:][::-1], now[start:][::-1])
    parts = [text[max(0, start - _AROUND) : len(text) - end + _AROUND] for text in (then, now)]
    asked = prompt.strip() in then[:start] or prompt.strip() in then[len(then) - end :]
    short = max(len(then), len(now)) - start - end <= _DATE
    return asked and short and all(re.search(r"\d", part) for part in parts)


def _alike(one: str, other: str) -> int:
    """How many characters at the beginning are the same."""
    length = min(len(one), len(other))
    return next((place for place in range(length) if one[place] != other[place]), length)


def _law(one: Logged, raw: bool) -> tuple[str, str]:
    """What answers of one batch must have in common, so as to be drawn together."""
    names = ("temperature", "top_p", "top_k", "max_tokens")
    return msgspec.json.encode([raw, *(one.request[name] for name in names)]).decode(), one.tenant or ""


def _draw(
    model: Any,
    tokenizer: Any,
    part: Sequence[Logged],
    read: Sequence[list[int]],
    secret: SecretKey,
    spec: WatermarkSpec | None,
    ring: KeyRing | None,
) -> list[Answer]:
    ids = msgspec.json.encode([one.id for one in part])
    run = bytes.fromhex(secret.derive("pairs", b"regenerated\0" + ids).reveal_hex())
    (drawn,) = generate_batches(
        model,
        tokenizer,
        [one.prompt for one in part],
        _sampling(part[0], len(part)),
        spec,
        ring,
        part[0].tenant if spec is not None else None,
        read=read,
        run=run,
    )
    return drawn


def _twin(one: Logged, answer: Answer, ends: Container[int]) -> TwinAnswer:
    """The twin, of which no more is said than of the served answer: what only one of them has would tell them apart."""
    cut = len(answer.token_ids) >= one.request["max_tokens"]
    if not one.counted and answer.token_ids:
        cut = answer.token_ids[-1] not in ends
    return TwinAnswer(
        text=answer.text,
        token_ids=None if one.answer.token_ids is None else answer.token_ids,
        finish_reason=None if one.answer.finish_reason is None else "length" if cut else "stop",
    )


def _engine(one: Logged, engine: dict[str, str]) -> dict[str, str]:
    return engine if one.model_sha256 is None else {**engine, ON_RECORD: one.model_sha256}


def differing(pairs: Iterable[Pair]) -> list[str]:
    """What on record is not the same for served answers and their twins, each in words; empty where all is.

    Settings and system prompt are: a twin is drawn with the request that is on record. What is left is the model.
    """
    drawn, other = set[str](), 0
    for pair in pairs:
        own = pair.engine.get(MODEL) or pair.engine.get("endpoint")
        if own is None:
            return [f"pair {pair.id} doesn't say which model drew its twin"]
        drawn.add(own)
        other += pair.engine.get(ON_RECORD, own) != own
    found = []
    if other:
        found.append(f"{other:,} served answers are of another model than their twins, by the hashes on record")
    if len(drawn) > 1:
        found.append(f"the twins were drawn by {len(drawn)} models, and one law is tested at a time")
    return found
