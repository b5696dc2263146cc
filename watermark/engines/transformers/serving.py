"""transformers' continuous batching: a processor that knows each row's request (checked with transformers 5.24).

What transformers calls there in place of ``generate``'s processors sees one token of each row, so that a context of two
tokens becomes one and the mark vanishes without a word. The per-request kind of processor is told which requests the
rows belong to; this one reads their tokens before each step. A request names its account when it is added::

    manager = watermarked_manager(model, hook, GenerationConfig(do_sample=True, max_new_tokens=200))
    manager.start()
    manager.add_request(prompt_ids, dyetrace_tenant="acme")

It needs each token before the next step begins: asynchronous batching, CUDA graphs and compiled steps are refused.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, LogitsProcessor
from transformers.generation.configuration_utils import BaseWatermarkingConfig
from transformers.generation.continuous_batching import cb_logits_processors as engine
from transformers.generation.continuous_batching.requests import RequestStatus

from watermark.engines.hook.admission import MARK, SUBKEY, TENANT, Decoding
from watermark.engines.hook.answers import Answer
from watermark.engines.hook.hook import Hook
from watermark.engines.hook.rows import Rows
from watermark.errors import DyetraceError

_HIDDEN = -1


def watermarked_manager(
    model: Any, hook: Hook, generation: GenerationConfig, batching: ContinuousBatchingConfig | None = None
) -> Any:
    """A `ContinuousBatchingManager` whose text is marked; start it and add requests as to any other.

    Parameters
    ----------
    model
        A transformers model that generates.
    hook
        Of this process.
    generation, batching
        As for ``model.init_continuous_batching``; neither is changed.

    Raises
    ------
    DyetraceError
        The settings would drop the processor or hide tokens from it, or the hook cannot start.
    """
    hook.start(torch.device(model.device), model.config.get_text_config().vocab_size)
    generation = copy.deepcopy(generation)
    generation.watermarking_config = _Config(hook, greedy=not generation.do_sample)
    batching = copy.deepcopy(batching) if batching is not None else ContinuousBatchingConfig()
    for name, why in (
        ("use_async_batching", "asynchronous batching hides the last token"),
        ("use_cuda_graph", "CUDA graphs replay the first step's contexts"),
        ("varlen_compile_config", "compiled steps replay the first step's contexts"),
        ("decode_compile_config", "compiled steps replay the first step's contexts"),
        ("default_compile_level", "compiled steps replay the first step's contexts"),
    ):
        value = getattr(batching, name)
        if any(value) if isinstance(value, tuple) else value:
            raise DyetraceError(f"{name}={value!r} would lose the mark: {why}; leave it off")
    batching.use_async_batching = batching.use_cuda_graph = False
    batching.per_request_processors = True
    manager = model.init_continuous_batching(generation_config=generation, continuous_batching_config=batching)
    installed = list(manager.logit_processor.logits_processor)
    if not installed or not isinstance(installed[-1], MarkProcessor) or installed[-1].hook is not hook:
        raise DyetraceError(
            "transformers did not take the processor: destroy the model's cached manager, or this version is not known"
        )
    manager.stop = _and_then(manager.stop, installed[-1].close)
    return manager


def _and_then(first: Callable[..., None], then: Callable[[], None]) -> Callable[..., None]:
    def both(*arguments: Any, **settings: Any) -> None:
        first(*arguments, **settings)
        then()

    return both


class _Config(BaseWatermarkingConfig):  # type: ignore[misc]
    """What brings the processor into transformers' list, after temperature, top-k and top-p."""

    def __init__(self, hook: Hook, greedy: bool) -> None:
        self._hook = hook
        self._greedy = greedy

    def __deepcopy__(self, memo: dict[int, Any]) -> _Config:
        return self

    def validate(self) -> None:
        """Settings were checked when the hook was made."""

    def to_dict(self) -> None:
        """What is saved with a generation configuration: nothing, as transformers would take it for its own."""
        return None

    def construct_processor(self, vocab_size: int, device: Any = None) -> LogitsProcessor:
        """Called by transformers."""
        return _Unconverted(self._hook, self._greedy)


class _Unconverted(LogitsProcessor):  # type: ignore[misc]
    """Stands in until transformers turns it into `MarkProcessor`; where it doesn't, generation stops."""

    supports_continuous_batching = True

    def __init__(self, hook: Hook, greedy: bool) -> None:
        self.hook = hook
        self.greedy = greedy

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raise DyetraceError(
            "the processor cannot see whole requests: make the manager with watermarked_manager (outside of continuous "
            "batching, use watermark.engines.transformers.processor)"
        )


@dataclass(frozen=True, slots=True)
class _Served:
    """An answer, and where its tokens are: those of an earlier stay in the cache, and transformers' own list."""

    answer: Answer | None
    state: weakref.ref[Any]
    before: list[int]
    generated: list[int]

    def tokens(self) -> list[int]:
        return self.before + self.generated if self.before else self.generated


class MarkProcessor(engine.ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """The processor of a manager. Contexts are read on the host before each step, from the requests themselves."""

    supported_kwargs: ClassVar = {TENANT: str, MARK: str, SUBKEY: int}
    ignored_kwargs: ClassVar = ()

    def __init__(self, unconverted: _Unconverted) -> None:
        self.hook = unconverted.hook
        self._greedy = unconverted.greedy
        self._answers: dict[str, _Served] = {}
        self._step: list[Answer | None] | None = None
        self._rows: Rows | None = None
        self._made: list[Answer | None] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """No row has an argument of its own on the device."""
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Note which answer stands in which row of the coming step."""
        if self._step is not None:
            raise DyetraceError("transformers prepared a step and did not mark the last one (graphs, compiled steps)")
        self._forget()
        self._step = [self._answer(future.state) for future in requests_with_new_token]
        return torch.zeros(len(requests_with_new_token), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Mark a step: scores (rows, V) float32 after temperature, top-k and top-p."""
        step, self._step = self._step, None
        if step is None or len(step) > len(scores):
            raise DyetraceError("transformers runs a step that was not prepared (graphs, compiled steps)")
        step += [None] * (len(scores) - len(step))  # of prompts that are still being read
        if self._rows is None or self._made != step:
            self._rows, self._made = Rows(step, scores.device), step
        return self.hook.mark(scores, step, self._rows)

    def _answer(self, state: Any) -> Answer | None:
        """The answer of a request, begun when it is first seen."""
        served = self._answers.get(state.request_id)
        if served is None or served.state() is not state:
            # What was generated before the engine made room for others stands at the end of the prompt.
            begun = state._true_initial_tokens or len(state.initial_tokens)
            prompt, before = state.initial_tokens[:begun], state.initial_tokens[begun:]
            answer = self._begin(state, prompt, before + state.generated_tokens) if served is None else served.answer
            served = _Served(answer, weakref.ref(state), before, state.generated_tokens)
            self._answers[state.request_id] = served
        if served.answer is not None:
            shown = len(state.initial_tokens) + len(state.generated_tokens)
            served.answer.tokens = served.tokens() if state.position_offset <= shown else [*served.tokens(), _HIDDEN]
        return served.answer

    def _begin(self, state: Any, prompt: list[int], tokens: list[int]) -> Answer | None:
        decoding = Decoding(greedy=self._greedy, samples=state.num_children + 1)
        try:
            admitted = self.hook.admit(state.logit_processor_kwargs, decoding)
        except DyetraceError as error:
            self._refuse(state, str(error))
            return None
        return self.hook.begin(admitted, prompt, tokens)

    @staticmethod
    def _refuse(state: Any, message: str) -> None:
        """End one request without a token of text: its result has ``error`` set."""
        if not hasattr(state, "_new_tokens_limit"):
            raise DyetraceError(f"{message} (and this version of transformers cannot end a single request)")
        state.error = message
        state._new_tokens_limit = 0

    def close(self) -> None:
        """Take note of all answers: the manager has stopped."""
        self._step = None
        self._forget(all_of_them=True)

    def _forget(self, *, all_of_them: bool = False) -> None:
        """Take note of answers that transformers is done with: finished, cancelled, or moved out of its cache."""
        for request_id, served in list(self._answers.items()):
            state = served.state()
            if all_of_them or state is None or state.status >= RequestStatus.FINISHED:
                del self._answers[request_id]
                if served.answer is not None:
                    served.answer.tokens = served.tokens()
                    self.hook.finish(served.answer)


engine.CLASSIC_TO_CB_PROCESSORS_MAP[_Unconverted] = MarkProcessor
