"""llama-cpp-python: a `Llama` whose text is marked (checked with llama-cpp-python 0.3.36).

Its own ``logits_processor`` runs first, before penalties, grammar, temperature, top-k and top-p, and all processors are
dropped without a word where a request gives ``logit_bias`` as well. So the hook is a sampler of llama.cpp's chain
instead, the last one before a token is drawn: it sees the final distribution, whatever made it. An exception in such a
sampler is swallowed by ctypes; here it is kept and raised before the token is handed out, and so is a count of tokens
that the hook has not seen.

    llama = MarkedLlama("model.gguf", hook=hook)
    with asked({"dyetrace_tenant": "acme"}):
        llama.create_completion("Rivers", max_tokens=200)

`server` beside this file is llama-cpp-python's own HTTP server with this class in it.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import llama_cpp
import numpy as np
import torch
from llama_cpp import Llama

from watermark.engines.hook.admission import Decoding
from watermark.engines.hook.answers import Answer
from watermark.engines.hook.hook import Hook
from watermark.engines.hook.rows import Rows
from watermark.engines.hook.settings import load_settings
from watermark.errors import DyetraceError

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks of the hook: its ``dyetrace_`` arguments, and its own seed."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None


_request: ContextVar[Request] = ContextVar("dyetrace_request", default=Request())  # noqa: B039 (immutable)


@contextmanager
def asked(arguments: Mapping[str, Any], seed: int | None = None) -> Iterator[None]:
    """Completions that are asked for inside are one client's: its account and what else `admission` reads."""
    token = _request.set(Request(arguments, seed))
    try:
        yield
    finally:
        _request.reset(token)


@lru_cache(1)
def process_hook() -> Hook:
    """Return the hook of this process. Raises DyetraceError where dyetrace is not configured."""
    settings = load_settings()
    if settings is None:
        raise DyetraceError("dyetrace is not configured: set DYETRACE_CONFIG, or DYETRACE_SPEC and DYETRACE_KEY")
    return Hook(settings)


def decoding_of(temperature: float, mirostat_mode: int, hook: Hook) -> Decoding:
    """What a request asks of llama.cpp. Raises DyetraceError for a decoding that chooses tokens by itself."""
    if mirostat_mode and hook.epoch.scheme.samples:
        raise DyetraceError("mirostat chooses tokens itself and leaves the watermark nothing: set mirostat_mode to 0")
    return Decoding(greedy=temperature == 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """A generation that was admitted; ``sampling`` is None where it stays unmarked."""

    sampling: _Sampling | None


class MarkedLlama(Llama):  # type: ignore[misc]
    """`llama_cpp.Llama` whose every generated token goes through the hook.

    Parameters
    ----------
    arguments, settings
        As for `llama_cpp.Llama`.
    hook
        By default that of this process, made from its environment.

    Raises
    ------
    DyetraceError
        The hook cannot start, or this version of llama-cpp-python is not known.
    """

    def __init__(self, *arguments: Any, hook: Hook | None = None, **settings: Any) -> None:
        if not hasattr(Llama, "_init_sampler") or not hasattr(llama_cpp, "llama_sampler_chain_remove"):
            raise DyetraceError("this version of llama-cpp-python is not known to dyetrace; use 0.3.36")
        self._hook = process_hook() if hook is None else hook
        self._turn: _Turn | None = None
        super().__init__(*arguments, **settings)
        self._hook.start(_CPU, self.n_vocab())

    def generate(self, tokens: Sequence[int], *arguments: Any, **settings: Any) -> Generator[int, Any, None]:
        """As `Llama.generate`, marked. Raises DyetraceError where the request can't be admitted."""
        bound = inspect.signature(Llama.generate).bind(self, tokens, *arguments, **settings)
        bound.apply_defaults()
        asked_for, request = bound.arguments, _request.get()
        admitted = self._hook.admit(
            request.arguments, decoding_of(asked_for["temp"], asked_for["mirostat_mode"], self._hook)
        )
        before = [] if asked_for["reset"] else self._input_ids.tolist()
        answer = self._hook.begin(admitted, [*before, *tokens], [], request.seed)
        return self._generate(answer, super().generate(tokens, *arguments, **settings))

    def _generate(self, answer: Answer | None, tokens: Generator[int, Any, None]) -> Generator[int, Any, None]:
        generated: list[int] = []
        if answer is not None:
            answer.tokens = generated
        sampling = None if answer is None else _Sampling(self._hook, answer, self.n_vocab())
        self._turn = mine = _Turn(sampling)
        try:
            for token in tokens:
                if sampling is not None:
                    sampling.check(len(generated) + 1)
                generated.append(token)
                if (yield token) is not None:
                    raise DyetraceError("tokens sent into a generation are not the hook's: put them into the prompt")
        finally:
            tokens.close()
            if self._turn is mine:  # one that was broken off may be closed when the next has begun
                self._turn = self._sampler = None
            if answer is not None:
                self._hook.finish(answer)

    def _create_completion(self, *arguments: Any, **settings: Any) -> Iterator[Any]:
        # A stream is read later, perhaps in another thread: it keeps the request in whose scope it was asked for.
        return _within(copy_context(), super()._create_completion(*arguments, **settings))

    def _init_sampler(self, *arguments: Any, **settings: Any) -> Any:
        if self._turn is None:
            raise DyetraceError("a token sampled by itself is not marked: use generate or create_completion")
        sampler = super()._init_sampler(*arguments, **settings)
        if self._turn.sampling is not None:
            chain = sampler.sampler
            draws = llama_cpp.llama_sampler_chain_remove(chain, llama_cpp.llama_sampler_chain_n(chain) - 1)
            sampler.add_custom(self._turn.sampling.apply)
            llama_cpp.llama_sampler_chain_add(chain, draws)
        return sampler


def _within(context: Any, chunks: Any) -> Iterator[Any]:
    try:
        while True:
            try:
                chunk = context.run(next, chunks)
            except StopIteration:
                return
            yield chunk
    finally:
        chunks.close()


class _Sampling:
    """One answer's place in the chain: between what shapes the distribution and what draws from it."""

    def __init__(self, hook: Hook, answer: Answer, vocabulary: int) -> None:
        self._hook = hook
        self._answer = answer
        self._rows = Rows([answer], _CPU)
        self._vocabulary = vocabulary
        self._calls = 0
        self._trouble: BaseException | None = None

    def apply(self, candidates: Any) -> None:
        """Called by llama.cpp with the candidates that are left."""
        self._calls += 1
        try:
            self._mark(candidates.contents)
        except BaseException as error:
            self._trouble = error

    def _mark(self, candidates: Any) -> None:
        array = (llama_cpp.llama_token_data * candidates.size).from_address(ctypes.addressof(candidates.data.contents))
        left = np.frombuffer(array, dtype=np.dtype([("id", np.intc), ("logit", np.single), ("p", np.single)]))
        ids = torch.from_numpy(left["id"].astype(np.int64))
        final = torch.full((1, self._vocabulary), -torch.inf)
        final[0, ids] = torch.from_numpy(left["logit"].copy())
        self._hook.mark(final, [self._answer], self._rows)
        left["logit"] = final[0, ids].numpy()
        candidates.sorted = False

    def check(self, tokens: int) -> None:
        """Raise what llama.cpp's callback could not, or that it was never made."""
        if self._trouble is not None:
            raise self._trouble
        if self._calls != tokens:
            raise DyetraceError(
                f"llama-cpp-python drew {tokens} tokens and called the hook {self._calls} times: the text is not marked"
            )
