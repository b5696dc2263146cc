"""vLLM's start-up: name the processor explicitly, so that vLLM itself refuses to start where it would drop it.

A processor that is merely installed (entry point ``vllm.logits_processors``) is dropped without a word under
speculative decoding, and sees placeholders in place of tokens under asynchronous scheduling. One that is named on the
command line raises in the first case and sees tokens in the second. This plugin (entry point ``vllm.general_plugins``,
which vLLM runs in each of its processes) names it wherever dyetrace is configured.
"""

from __future__ import annotations

from typing import Any

from watermark.engines.hook.epoch import Epochs
from watermark.engines.hook.settings import load_settings
from watermark.errors import DyetraceError

PROCESSOR = "watermark.engines.vllm.processor:DyetraceProcessor"
_installed = False


def installed() -> bool:
    """Whether the check stands in this process."""
    return _installed


def install() -> None:
    """Called by vLLM. Raises DyetraceError where settings, spec or key can't be used, or this vLLM is not known."""
    global _installed
    if _installed:
        return
    settings = load_settings()
    if settings is None:
        return
    Epochs(settings)  # a spec or key that can't be used is said now, and not when the model is loaded
    from vllm.engine.arg_utils import EngineArgs

    original = getattr(EngineArgs, "create_model_config", None)
    if original is None:
        raise DyetraceError("this version of vLLM is not known to dyetrace: EngineArgs has no create_model_config")

    def create_model_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.logits_processors = named(self.logits_processors)
        return original(self, *args, **kwargs)

    EngineArgs.create_model_config = create_model_config
    _installed = True


def named(processors: list[Any] | None) -> list[Any]:
    """The processors with ours among them, once."""
    others = [p for p in processors or [] if p != PROCESSOR and getattr(p, "__name__", "") != "DyetraceProcessor"]
    return [*others, PROCESSOR]
