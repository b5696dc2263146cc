"""SGLang: a custom logit processor. **Tested at its interface alone**, with requests made by hand in the shape that
SGLang 0.5.23 gives them; no SGLang server has run with it.

The server is started with ``--enable-custom-logit-processor --disable-overlap-schedule``, without speculative decoding,
and with dyetrace configured in its environment. A proxy that knows the account adds `request_fields` to each request; a
client that reaches the server past the proxy is not marked, so the server must not be reachable by clients.

SGLang runs the processor after penalties, logit bias and grammar, and before temperature: a sampling scheme applies
temperature, top-k, top-p and min-p here and leaves one token. EAGLE and n-gram speculation verify drafts without
calling it, and the overlapped scheduler samples before a request's last token is known: both stop the server at the
first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import torch

from watermark.engines.hook.admission import PREFIX, Decoding
from watermark.engines.hook.answers import Answer
from watermark.engines.hook.hook import Hook
from watermark.engines.hook.settings import load_settings
from watermark.errors import DyetraceError

try:
    from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor
except ImportError:  # a proxy, or a test of the interface

    class CustomLogitProcessor:  # type: ignore[no-redef]
        """Stands in for the interface where SGLang is not installed."""


_HIDDEN = -1


def request_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a proxy adds to the body of ``/generate`` or of an OpenAI request: the processor and its arguments.

    Parameters
    ----------
    arguments
        ``dyetrace_tenant`` and whatever else `watermark.engines.hook.admission` reads.
    """
    import json

    import dill

    callable_ = dill.dumps(DyetraceProcessor).hex()
    return {"custom_logit_processor": json.dumps({"callable": callable_}), "custom_params": dict(arguments)}


class DyetraceProcessor(CustomLogitProcessor):  # type: ignore[misc]
    """What SGLang calls. It makes one anew for each batch, so that all state is the process's `Requests`."""

    def __call__(
        self, logits: torch.Tensor, custom_param_list: list[dict[str, Any] | None] | None = None
    ) -> torch.Tensor:
        """Mark a step: logits (rows, V) before temperature, one dictionary a row."""
        return requests().apply(logits, custom_param_list or [])


@lru_cache(1)
def requests() -> Requests:
    """Return the requests of this process, in whose first step the server's settings are checked."""
    settings = load_settings()
    if settings is None:
        raise DyetraceError("dyetrace is not configured in SGLang's environment: set DYETRACE_CONFIG")
    speculative = _speculative_algorithm()
    if speculative is not None:
        raise DyetraceError(
            f"SGLang verifies the drafts of {speculative} without the processor: turn speculative decoding off"
        )
    return Requests(Hook(settings))


def _speculative_algorithm() -> str | None:
    try:
        from sglang.srt.runtime_context import get_spec
    except ImportError:
        return None
    algorithm: str | None = get_spec().speculative_algorithm
    return algorithm


class Requests:
    """The answers of the requests that SGLang is serving.

    Parameters
    ----------
    hook
        Of this process.
    """

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._started = False
        self._answers: dict[
            str, tuple[Answer | None, Any, int]
        ] = {}  # with the request, and its tokens before decoding

    def apply(self, logits: torch.Tensor, params: list[dict[str, Any] | None]) -> torch.Tensor:
        """Mark a step.

        Raises
        ------
        DyetraceError
            SGLang does not say which requests the rows belong to, or gives rows to drafts: the engine stops.
        """
        if not self._started:
            self._hook.start(logits.device, logits.shape[1])
            self._started = True
        rows: list[Any] = [None if given is None else given.get("__req__") for given in params]
        if len(rows) != len(logits) or any(row is None for row in rows):
            raise DyetraceError("SGLang names no request for a row: send custom_params with the processor, even empty")
        names = [row.rid for row in rows]
        if len(set(names)) < len(names):
            raise DyetraceError("SGLang gives several rows to one request: turn speculative decoding off")
        self._forget(set(names))
        answers = [self._answer(row, given or {}) for row, given in zip(rows, params, strict=True)]
        sampled = [row.sampling_params for row in rows]
        heat = torch.tensor([[s.temperature] for s in sampled], device=logits.device)
        final = logits.float() / heat
        if self._hook.epoch.scheme.samples:
            final = truncated(final, sampled)
            marked = self._hook.mark(final.clone(), answers)
        else:
            marked = self._hook.mark(final.clone(), answers) * heat
            final = final * heat
        # Rows left unmarked stay as they are: SGLang truncates them itself.
        same = (marked == final).all(-1, keepdim=True)
        return torch.where(same, logits, marked.to(logits.dtype))

    def _answer(self, request: Any, params: Mapping[str, Any]) -> Answer | None:
        if request.rid not in self._answers:
            answer = self._begin(request, params)
            begun = len(request.output_ids) - request.decode_batch_idx
            self._answers[request.rid] = answer, request, begun
        answer, _, begun = self._answers[request.rid]
        if request.decode_batch_idx == 0:  # a prefill, the first one or that of a request that had to make room
            begun = len(request.output_ids)
            self._answers[request.rid] = answer, request, begun
        if answer is not None:
            late = len(request.output_ids) - begun < request.decode_batch_idx
            answer.tokens = [*request.output_ids, _HIDDEN] if late else request.output_ids
        return answer

    def _begin(self, request: Any, params: Mapping[str, Any]) -> Answer | None:
        sampling = request.sampling_params
        arguments = {name: value for name, value in params.items() if name.startswith(PREFIX)}
        try:
            admitted = self._hook.admit(arguments, Decoding(greedy=sampling.top_k == 1))
        except DyetraceError as error:
            request.to_finish = _abort(str(error))
            return None
        return self._hook.begin(
            admitted, list(request.origin_input_ids), list(request.output_ids), getattr(sampling, "sampling_seed", None)
        )

    def _forget(self, present: set[str]) -> None:
        """Take note of answers whose requests have ended."""
        for name, (answer, request, _) in list(self._answers.items()):
            if name in present or not _ended(request):
                continue
            del self._answers[name]
            if answer is not None:
                self._hook.finish(answer)


def _ended(request: Any) -> bool:
    try:
        return bool(request.finished())
    except ReferenceError:  # SGLang refers to requests weakly
        return True


def _abort(message: str) -> Any:
    """What ends one request with HTTP 400."""
    try:
        from sglang.srt.managers.schedule_batch import FINISH_ABORT
    except ImportError:
        raise DyetraceError(message) from None
    return FINISH_ABORT(message, HTTPStatus.BAD_REQUEST, "BadRequestError")


def truncated(logits: torch.Tensor, sampled: list[Any]) -> torch.Tensor:
    """Top-k, top-p and min-p as SGLang's sampler applies them, all to the one softmax: (rows, V) -> (rows, V)."""
    device, size = logits.device, logits.shape[1]
    k = torch.tensor([[min(s.top_k, size)] for s in sampled], device=device)
    p = torch.tensor([[s.top_p] for s in sampled], device=device)
    least = torch.tensor([[s.min_p] for s in sampled], device=device)
    probabilities, order = logits.softmax(-1).sort(dim=-1, descending=True)
    rank = torch.arange(size, device=device)
    dropped = (rank >= k) | (probabilities.cumsum(-1) - probabilities > p)
    dropped |= probabilities < probabilities[:, :1] * least
    return logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)
