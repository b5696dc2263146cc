"""vLLM: one processor for both of its model runners (checked with vLLM 0.32).

vLLM's V1 runner runs processors that leave the likeliest token alone after penalties, temperature and min_p, and before
top-k and top-p; there a sampling scheme applies the request's own top-k and top-p and leaves one token. The V2 runner
runs all custom processors before temperature; there it applies temperature, min_p, top-k and top-p. Nothing that comes
later can change the choice. Log-probabilities of the default ``raw_logprobs`` stay the model's own; the ``processed_``
modes show the choice alone.

A request names its account in ``SamplingParams.extra_args``, over HTTP in ``vllm_xargs``. `start` beside this file
sees to it that no engine starts in which vLLM would drop the processor.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from watermark.engines.hook.counters import register
from watermark.engines.hook.hook import Hook, say
from watermark.engines.hook.settings import load_settings
from watermark.engines.vllm import start
from watermark.engines.vllm.first_runner import FirstRunner
from watermark.engines.vllm.second_runner import SlotRows, decoding_of
from watermark.errors import DyetraceError

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SecondLogitsProcessor
except ImportError:  # a vLLM that has the V1 runner alone

    class SecondLogitsProcessor:  # type: ignore[no-redef]
        """Stands in for the interface of a runner that this vLLM does not have."""


@lru_cache(1)
def hook() -> Hook | None:
    """Return the hook of this process; None where dyetrace is not configured."""
    log = logging.getLogger("dyetrace")
    if not log.handlers:  # vLLM configures its own loggers alone
        log.handlers, log.propagate = logging.getLogger("vllm").handlers, False
        log.setLevel(logging.INFO)
    settings = load_settings()
    if settings is None:
        say("not configured: nothing is marked", logging.WARNING)
        return None
    made = Hook(settings)
    register(made.counters)
    return made


class DyetraceProcessor(LogitsProcessor, SecondLogitsProcessor):  # type: ignore[misc]
    """The processor that vLLM loads, for its V1 runner (``device`` is the second argument) and its V2 runner."""

    _alive: int | None = None
    _slots: SlotRows | None = None

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Check a request where it arrives; ValueError becomes HTTP 400 with its message."""
        mine = hook()
        if mine is None:
            return
        if not start.installed():
            raise ValueError(
                "dyetrace's start-up check did not run in this server: add 'dyetrace' to VLLM_PLUGINS, or unset it"
            )
        try:
            mine.admit(sampling_params.extra_args, decoding_of(sampling_params))
        except DyetraceError as error:
            raise ValueError(str(error)) from None

    def __init__(self, vllm_config: Any, state: Any, is_pin_memory: bool = False) -> None:
        self._hook = hook()
        # vLLM loads a processor twice that is both installed and named on the command line.
        if DyetraceProcessor._alive == id(vllm_config):
            self._hook = None
        if self._hook is None:
            return
        DyetraceProcessor._alive = id(vllm_config)
        device = state if isinstance(state, torch.device) else state.device
        self._hook.start(device, vllm_config.model_config.get_vocab_size())
        if vllm_config.model_config.logprobs_mode.startswith("processed"):
            say("logprobs show the hook's choice alone", logging.WARNING, mode=vllm_config.model_config.logprobs_mode)
        self._batch = FirstRunner(self._hook)
        self._slots = None if isinstance(state, torch.device) else SlotRows(self._hook, state)

    # --- V1 ----------------------------------------------------------------------------------------------

    def is_argmax_invariant(self) -> bool:
        """Where V1 runs it: a sampling scheme after temperature, a bias before greedy choices are made."""
        return self._hook is None or self._hook.epoch.scheme.samples

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow V1's batch."""
        if self._hook is not None and batch_update is not None:
            self._batch.update(batch_update)

    # --- V2 ----------------------------------------------------------------------------------------------

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """A request enters a slot of V2; whether it is to be marked."""
        return self._slots is not None and self._slots.add(req_idx, sampling_params)

    def apply_staged_writes(self) -> None:
        """Begin the answers of requests that entered."""
        if self._slots is not None:
            self._slots.begin()

    # --- both --------------------------------------------------------------------------------------------

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Mark a step: logits (rows, V) float32, in place."""
        if self._hook is None:
            return logits
        if ctx is None:
            return self._batch.apply(logits)
        assert self._slots is not None
        return self._slots.apply(logits, ctx)
