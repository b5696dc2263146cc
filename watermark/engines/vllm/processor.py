"""vLLM: one processor for both of its model runners (checked with vLLM 0.32).

vLLM's V1 runner runs processors that leave the likeliest token alone after penalties, temperature and min_p, and before
top-k and top-p; there a sampling scheme applies the request's own top-k and top-p and leaves one token. The V2 runner
runs all custom processors before temperature; there it applies temperature, min_p, top-k and top-p. Nothing that comes
later can change the choice. Log-probabilities of the default ``raw_logprobs`` stay the model's own; the ``processed_``
modes show the choice alone.

A request names its account in ``SamplingParams.extra_args``, over HTTP in ``vllm_xargs``. `vllm_start` beside this file
sees to it that no engine starts in which vLLM would drop the processor.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

from watermark.engines.hook.answers import Answer
from watermark.engines.hook.counters import register
from watermark.engines.hook.hook import Hook, say
from watermark.engines.hook.rows import Rows
from watermark.engines.hook.settings import load_settings
from watermark.engines.vllm.processor import start as vllm_start
from watermark.engines.vllm.second_runner import SlotRows, decoding_of, heat_of
from watermark.errors import DyetraceError
from watermark.schemes.marking import chooses

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SecondLogitsProcessor
except ImportError:  # a vLLM that has the V1 runner alone

    class SecondLogitsProcessor:  # type: ignore[no-redef]
        """Stands in for the interface of a runner that this vLLM does not have."""


CHOSEN = 1e9
"""The logit of a chosen token, far above any other; a temperature may still divide it."""


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
        if not vllm_start.installed():
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


class FirstRunner:
    """The V1 runner's batch: which answer stands in which row, and the truncation that the request asked for."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._answers: dict[int, tuple[Answer | None, Any]] = {}
        self._rows: Rows | None = None
        self._made: list[Answer | None] = []

    def update(self, update: BatchUpdate) -> None:
        """Removed, added, moved, in vLLM's order."""
        self._rows = None
        for index in update.removed:
            self._leave(index)
        for index, params, prompt, tokens in update.added:
            self._leave(index)
            self._answers[index] = self._begin(params, prompt or [], tokens), params
        for one, other, direction in update.moved:
            moved = self._answers.pop(one, None)
            stood = self._answers.pop(other, None)
            if moved is not None:
                self._answers[other] = moved
            if stood is None:
                continue
            if direction == MoveDirectionality.SWAP:
                self._answers[one] = stood
            elif stood[0] is not None:  # replaced: vLLM does not say so again
                self._hook.finish(stood[0])

    def _begin(self, params: Any, prompt: Sequence[int], tokens: Sequence[int]) -> Answer | None:
        admitted = self._hook.readmit(params.extra_args, decoding_of(params))
        return self._hook.begin(admitted, prompt, tokens, params.seed)

    def _leave(self, index: int) -> None:
        answer, _ = self._answers.pop(index, (None, None))
        if answer is not None:
            self._hook.finish(answer)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mark a step; a sampling scheme after temperature and min_p, a bias before penalties and temperature."""
        count = len(logits)
        if self._rows is None or len(self._made) != count:
            self._made = [self._answers.get(row, (None, None))[0] for row in range(count)]
            self._rows = Rows(self._made, logits.device)
            self._settle(logits.device)
        if self._hook.epoch.scheme.samples:
            return self._choose(logits)
        # The bias is defined on the distribution after temperature, which divides later.
        logits.mul_(1 / self._temperature)
        self._hook.mark(logits, self._made, self._rows)
        return logits.mul_(self._temperature)

    def _settle(self, device: torch.device) -> None:
        """The requests' settings as tensors."""
        params = [self._answers.get(row, (None, None))[1] for row in range(len(self._made))]
        heat = [1.0 if p is None else heat_of(p) for p in params]
        self._temperature = torch.tensor(heat, device=device)[:, None]
        k = [0 if p is None or p.top_k is None or p.top_k < 1 else p.top_k for p in params]
        top = [1.0 if p is None else p.top_p for p in params]
        self._k = torch.tensor(k, device=device) if any(k) else None
        self._p = torch.tensor(top, device=device) if min(top, default=1.0) < 1 else None

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        mine = self._hook
        if not chooses(mine.epoch.scheme):
            return self._transform(logits)
        assert self._rows is not None
        contexts, left = mine.step(self._made, logits.device)
        if all(left):
            return logits
        choices = self._rows.choose(logits, contexts, left)
        if self._k is not None or self._p is not None:
            # A sort of every row would cost more than the model's step: only rows whose choice is cut off pay for it.
            cut = self._cut_off(logits, choices)
            if len(cut):
                again = Rows([self._made[row] for row in cut.tolist()], logits.device)
                choices[cut] = again.choose(self._truncated(logits[cut], cut), contexts[cut], [False] * len(cut))
        # Nothing that follows can bring another token up to this, and no other entry need be written.
        if not any(left):
            return logits.scatter_(1, choices[:, None], CHOSEN)
        rows = torch.nonzero(choices >= 0)[:, 0]
        logits[rows, choices[rows]] = CHOSEN
        return logits

    def _cut_off(self, logits: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
        """Rows whose choice the request's top-k and top-p would cut off, or may cut off where both are given."""
        rows = torch.nonzero(choices >= 0)[:, 0]
        some = logits[rows]
        chosen = some.gather(1, choices[rows, None])
        above = some > chosen
        cut = torch.zeros(len(rows), dtype=torch.bool, device=logits.device)
        if self._k is not None:
            k = self._k[rows]
            cut |= (k > 0) & (above.sum(-1) >= k)
        if self._p is not None:
            p = self._p[rows]
            mass = some.softmax(-1)
            if self._k is not None:
                # top-p is of what top-k has left.
                least = torch.where(self._k[rows] > 0, self._k[rows], logits.shape[1]).clamp(max=logits.shape[1])
                kept = _mass_of_likeliest(mass, least)
                mass = mass / kept[:, None]
            cut |= (p < 1) & ((mass * above).sum(-1) >= p)
        return rows[cut]

    def _truncated(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        k = None if self._k is None else torch.where(self._k[rows] > 0, self._k[rows], logits.shape[1])
        truncated: torch.Tensor = apply_top_k_top_p(logits.clone(), k, None if self._p is None else self._p[rows])
        return truncated

    def _transform(self, logits: torch.Tensor) -> torch.Tensor:
        if self._k is None and self._p is None:
            return self._hook.mark(logits, self._made, self._rows)
        # Rows that stay unmarked must not be truncated twice: top-p of a truncated row takes more away.
        final = self._truncated(logits, torch.arange(len(logits), device=logits.device))
        marked = self._hook.mark(final.clone(), self._made, self._rows)
        return torch.where((marked == final).all(-1, keepdim=True), logits, marked)


def _mass_of_likeliest(mass: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The probability of each row's k likeliest tokens: (b, V) and (b,) -> (b,)."""
    most = int(k.max())
    if most >= mass.shape[1]:
        most = int(k[k < mass.shape[1]].max()) if bool((k < mass.shape[1]).any()) else 1
    likeliest = mass.topk(most).values.cumsum(-1)
    within = likeliest.gather(1, (k - 1).clamp(max=most - 1)[:, None])[:, 0]
    return torch.where(k >= mass.shape[1], torch.ones_like(within), within)
