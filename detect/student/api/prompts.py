"""Which prompts to ask: those whose served answers hold the contexts that the owner served most.

A student leans to the mark where it was trained on it, and it was trained most on what was served most. Only contexts
are looked at, never the tokens that followed them and never a key: a choice of (context, token) pairs would favour
marked tokens and make false positives.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from detect.student.api.plan import PlannedPrompt
from watermark.errors import DyetraceError
from watermark.generate import Answer
from watermark.spec import WatermarkSpec

KAPPA = 1.0
"""A context served in f answers weighs f / (f + kappa)."""

_SCALE = 2**32  # gains are summed as integers, so that they don't depend on the order of summing

_Contexts = npt.NDArray[np.uint64]
_Index = npt.NDArray[np.signedinteger]


@dataclass(frozen=True, slots=True)
class _Pool:
    """Distinct prompts with the contexts of their answers, as indices into one list of distinct contexts."""

    prompts: list[PlannedPrompt]
    contexts: list[_Index]
    weights: npt.NDArray[np.int64]


def choose_prompts(
    answers: Iterable[Answer], spec: WatermarkSpec, count: int, *, kappa: float = KAPPA
) -> list[PlannedPrompt]:
    """Choose ``count`` prompts greedily, each the one that adds most to the contexts covered so far.

    A context's weight is f / (f + kappa), f the number of answers that hold it. Memory: 12 bytes a context of an
    answer, and the prompts themselves.

    Parameters
    ----------
    answers
        The owner's served answers; several may share a prompt, which is then asked once.
    spec
        Its context width says what a context is.
    count
        How many to choose; all there are where they are fewer.

    Raises
    ------
    DyetraceError
        There are no answers, or one has a token id that is none.
    """
    if count < 1:
        raise DyetraceError(f"the number of prompts must be at least 1 (got {count})")
    pool = _pool(answers, spec.context_width, kappa)
    covered = np.zeros(len(pool.weights), dtype=np.bool_)
    # A gain only shrinks as more is covered: an outdated one is an upper bound, looked at again when it comes first.
    heap = [(-int(pool.weights[own].sum()), place) for place, own in enumerate(pool.contexts)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, place = heapq.heappop(heap)
        own = pool.contexts[place]
        gain = -int(pool.weights[own[~covered[own]]].sum())
        if heap and (gain, place) > heap[0]:
            heapq.heappush(heap, (gain, place))
            continue
        chosen.append(place)
        covered[own] = True
    return [pool.prompts[place] for place in chosen]


def _pool(answers: Iterable[Answer], width: int, kappa: float) -> _Pool:
    places: dict[str, int] = {}
    prompts: list[PlannedPrompt] = []
    owners: list[int] = []
    parts: list[_Contexts] = []
    for answer in answers:
        if not answer.prompt.strip():
            continue
        place = places.setdefault(answer.prompt, len(prompts))
        if place == len(prompts):
            prompts.append(PlannedPrompt(prompt=answer.prompt, answer=answer.id))
        owners.append(place)
        parts.append(_contexts(answer, width))
    if not prompts:
        raise DyetraceError("there are no served answers with prompts to choose from; give the owner's answers (JSONL)")
    _, index, frequency = np.unique(np.concatenate(parts), return_inverse=True, return_counts=True)
    weights = np.rint(frequency / (frequency + kappa) * _SCALE).astype(np.int64)
    index = index.astype(np.int32)  # memory ends long before 2^31 distinct contexts
    bounds = np.cumsum([0, *map(len, parts)])
    own: list[list[_Index]] = [[] for _ in prompts]
    for owner, low, high in zip(owners, bounds[:-1], bounds[1:], strict=True):
        own[owner].append(index[low:high])
    return _Pool(prompts, [np.unique(np.concatenate(mine)) for mine in own], weights)


def _contexts(answer: Answer, width: int) -> _Contexts:
    """64-bit fingerprints of the distinct contexts that chose an answer's tokens, each once."""
    from detect.distinct import tuple_fingerprints

    prompt = answer.prompt_token_ids
    ids = np.array([*prompt, *answer.token_ids], dtype=np.int64)
    if len(ids) and not (ids.min() >= 0 and ids.max() < 2**32):
        raise DyetraceError(f"served answer {answer.id} has a token id outside 0 .. 2^32 - 1; mend or remove it")
    # Without the prompt's ids the first contexts are unknown.
    first = len(prompt) if prompt else width
    if len(ids) <= first:
        return np.empty(0, dtype=np.uint64)
    if width == 0:
        return np.zeros(1, dtype=np.uint64)
    # A context of h tokens is a tuple of h - 1 tokens and one more, one position earlier.
    fingerprints = tuple_fingerprints(np.ascontiguousarray(ids[:-1], dtype=np.uint32), width - 1, first - 1)
    return np.unique(fingerprints)


def read_answers(path: Path) -> Iterator[Answer]:
    """Read the owner's served answers, one a line as `dyetrace generate` writes them; other fields are ignored.

    Raises
    ------
    DyetraceError
        The file cannot be read, or a line is broken (its number is named).
    """
    decoder = msgspec.json.Decoder(Answer)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise DyetraceError(f"{path}, line {number}: {error}; mend or remove the line") from None
    except OSError as error:
        raise DyetraceError(f"cannot read served answers {path}: {error.strerror}") from None
