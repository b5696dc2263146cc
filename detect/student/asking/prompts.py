"""Which prompts to ask: those that a public seed picks, whatever was answered to them.

Line "prompts" of `docs/validity.md`: the key had a say in every word of a served answer, in its length and in whether
it ends, and the contexts of an answer are its words. A choice by answers, or an order by them, therefore favours
prompts whose answers happened to be what the key prefers, and an innocent model that says the same thing looks guilty.
So only the prompts themselves and the seed decide here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from detect.student.asking.plan import PlannedPrompt
from watermark.errors import DyetraceError
from watermark.generate import Answer

SEED = "dyetrace"
"""Where nobody gives one. A fixed seed leaves nothing to choose."""


def choose_prompts(offered: Iterable[PlannedPrompt], count: int, seed: str = SEED) -> list[PlannedPrompt]:
    """Take the first ``count`` prompts in the order of SHA-256 over the seed and the prompt.

    The order of the file has no say: somebody may have sorted it by answers.

    Parameters
    ----------
    offered
        Prompts; equal ones are asked once.
    count
        How many to choose; all there are where they are fewer.
    seed
        Public.

    Raises
    ------
    DyetraceError
        There is no prompt, or ``count`` is below 1.

    Examples
    --------
    >>> [p.prompt for p in choose_prompts([PlannedPrompt(prompt=t) for t in ("a", "b", "c", "b")], 2, "2026")]
    ['b', 'c']
    """
    if count < 1:
        raise DyetraceError(f"the number of prompts must be at least 1 (got {count})")
    ranked: dict[bytes, PlannedPrompt] = {}
    for planned in offered:
        if isinstance(planned.prompt, str) and not planned.prompt.strip():
            continue
        ranked.setdefault(_rank(planned, seed), planned)
    if not ranked:
        raise DyetraceError("there are no prompts to choose from; give served answers that name their prompts (JSONL)")
    return [ranked[rank] for rank in sorted(ranked)[:count]]


def prompts_of(answers: Iterable[Answer]) -> Iterator[PlannedPrompt]:
    """The prompts of served answers, each with the id of one answer to it."""
    for answer in answers:
        yield PlannedPrompt(prompt=answer.prompt, answer=answer.id)


def _rank(planned: PlannedPrompt, seed: str) -> bytes:
    asked = msgspec.json.encode([seed, msgspec.to_builtins(planned.prompt)])
    return hashlib.sha256(asked).digest()
