"""The Hugging Face hook: mark the text of ``model.generate`` in batches, each row with its own tenant and sub-key.

transformers runs the processor of ``watermarking_config`` last, after penalties, temperature, top-k and top-p, whereas
one passed in ``logits_processor`` would run before temperature; a scheme that stands in for sampling needs the former::

    mark = WatermarkConfig(spec, ring)
    model.generate(**inputs, do_sample=True, watermarking_config=mark)

Greedy and beam search leave no randomness to a scheme that samples: generation stops with an error, unless the
configuration says ``on_unmarkable="pass"``. `green_list` adds a bias and marks any decoding.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Literal

import torch
from transformers import GenerationConfig, LogitsProcessor
from transformers.generation.configuration_utils import BaseWatermarkingConfig

from watermark.engines.transformers.context import next_contexts, seen_before
from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.rowkeys import RowKeys
from watermark.schemes.marking import mark_rows
from watermark.spec import WatermarkSpec, check_key

OnUnmarkable = Literal["error", "pass"]


class WatermarkProcessor(LogitsProcessor):  # type: ignore[misc]
    """Marks one call of ``generate``. It keeps no state but the prompt's length, so drafting and rewinding are safe.

    Parameters
    ----------
    spec, ring
        The watermark and the owner's keys.
    tenants, subkeys
        Of each row.
    padding
        Leading padding entries of each row, shape (b,).
    fresh_share
        Share of positions left to the engine's own randomness.
    device
        Where the logits are.
    """

    def __init__(
        self,
        spec: WatermarkSpec,
        ring: KeyRing,
        tenants: Sequence[str | None],
        subkeys: Sequence[int],
        padding: torch.Tensor,
        prompt_length: int,
        fresh_share: float,
        device: torch.device,
    ) -> None:
        self._scheme = spec.build_scheme()
        self._width = spec.context_width
        self._keys = RowKeys.of(spec, ring, tenants, subkeys, device)
        self._padding = padding.to(device)
        self._prompt_length = prompt_length
        self._fresh_share = fresh_share

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mark final logits (b, V) given the tokens so far (b, length); rows left unmarked return as they are."""
        contexts = next_contexts(input_ids, self._padding, self._width)
        marked = mark_rows(self._scheme, scores, *self._keys.at(contexts))
        unmarked = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        if self._width:
            unmarked |= seen_before(input_ids, contexts, self._prompt_length)
        if self._fresh_share > 0:
            unmarked |= torch.rand(len(scores), device=scores.device) < self._fresh_share
        # Asking costs nothing where logits are in main memory, and would stall a GPU.
        if scores.device.type == "cpu" and not unmarked.any():
            return marked
        return torch.where(unmarked[:, None], scores.to(marked.dtype), marked)


class WatermarkConfig(BaseWatermarkingConfig):  # type: ignore[misc]
    """What ``model.generate(watermarking_config=...)`` takes; build one for each request or batch.

    Parameters
    ----------
    spec, ring
        The watermark and the owner's keys.
    tenants
        The tenant of each prompt of the batch, or one name for all; None where the spec has no tenants.
    subkeys
        The sub-key of each returned row; by default drawn by the operating system, different for samples of one prompt.
    attention_mask
        Of the prompts (b, length): where a prompt shorter than the context begins. Without it no row counts as padded.
    fresh_share
        Share of positions left to the engine's own randomness, in [0, 1): more diversity, less evidence.
    on_unmarkable
        What to do when the decoding leaves a sampling scheme nothing to mark: ``"error"``, or ``"pass"`` it unmarked.

    Raises
    ------
    DyetraceError
        The key is not the spec's, or a value is out of range.
    """

    def __init__(
        self,
        spec: WatermarkSpec,
        ring: KeyRing,
        *,
        tenants: str | Sequence[str] | None = None,
        subkeys: Sequence[int] | None = None,
        attention_mask: torch.Tensor | None = None,
        fresh_share: float = 0.0,
        on_unmarkable: OnUnmarkable = "error",
    ) -> None:
        check_key(spec, ring.master_fingerprint)
        if not 0.0 <= fresh_share < 1.0:
            raise DyetraceError(f"fresh_share must lie in [0, 1) (got {fresh_share})")
        if subkeys is not None and not all(0 <= index < spec.subkeys for index in subkeys):
            raise DyetraceError(f"sub-keys must lie in 0 .. {spec.subkeys - 1} (got {list(subkeys)})")
        self.spec = spec
        self.ring = ring
        self.tenants = tenants
        self.subkeys = subkeys
        self.attention_mask = attention_mask
        self.fresh_share = fresh_share
        self.on_unmarkable = on_unmarkable

    def validate(self) -> None:
        """All checks are made when the configuration is built."""

    def to_dict(self) -> None:
        """What is saved with a model's generation configuration: nothing, and so never a key.

        transformers takes whatever it finds there for its own watermark, and a model saved with it can't be loaded.
        A model that is loaded again needs a new configuration with the key.
        """
        return None

    def to_json_string(self) -> str:
        """The same as JSON."""
        return "null\n"

    def construct_processor(self, vocab_size: int, device: Any) -> LogitsProcessor:
        """Return the processor of one generation (called by transformers)."""
        if vocab_size < self.spec.vocabulary_size:
            raise DyetraceError(
                f"wrong model: its vocabulary has {vocab_size} entries, the spec's {self.spec.vocabulary_size}"
            )
        return _FirstCall(self, _decoding(sys._getframe(1)), torch.device(device))


def _decoding(frame: FrameType | None) -> GenerationConfig | None:
    """The generation configuration of the call of ``generate`` that this is for; None where no caller has one.

    transformers shows a watermarking configuration nothing of the decoding that it serves, and a sampling scheme would
    turn greedy decoding into sampling without a word. `generate` is not always the direct caller: subclasses of
    `WatermarkConfig`, and configurations that hold one, pass the call on.
    """
    while frame is not None:
        found = frame.f_locals.get("generation_config")
        if isinstance(found, GenerationConfig):
            return found
        frame = frame.f_back
    return None


class _FirstCall(LogitsProcessor):  # type: ignore[misc]
    """Stands in until the first step shows how many rows there are and how long the prompt is."""

    def __init__(self, config: WatermarkConfig, generation: GenerationConfig | None, device: torch.device) -> None:
        self._config = config
        self._device = device
        self._beams = (generation.num_beams or 1) if generation is not None else 1
        greedy = generation is not None and not generation.do_sample
        samples = config.spec.build_scheme().samples
        self._pass = samples and (generation is None or greedy or self._beams > 1)
        if self._pass and config.on_unmarkable == "error":
            if generation is None:
                raise DyetraceError(
                    f"whether this decoding samples can't be seen here, and the scheme {config.spec.scheme!r} would "
                    "make greedy decoding sample: pass watermarking_config to model.generate, use the scheme "
                    "green_list, or set on_unmarkable='pass'"
                )
            mode = "beam search" if self._beams > 1 else "greedy decoding"
            raise DyetraceError(
                f"{mode} leaves the sampling scheme {config.spec.scheme!r} nothing to mark: pass do_sample=True and "
                "num_beams=1, use the scheme green_list, or set on_unmarkable='pass'"
            )
        self._processor: WatermarkProcessor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._pass:
            return scores
        if self._processor is None:
            self._processor = self._start(input_ids)
        return self._processor(input_ids, scores)

    def _start(self, input_ids: torch.Tensor) -> WatermarkProcessor:
        config, rows = self._config, len(input_ids)
        tenants = _spread(config.tenants, rows)
        if config.subkeys is not None and len(config.subkeys) != rows:
            raise DyetraceError(
                f"{len(config.subkeys)} sub-keys were given for {rows} rows; give one for each returned row"
            )
        subkeys = config.subkeys or draw_subkeys(
            input_ids, tenants, config.spec.subkeys, self._beams, must_differ=config.fresh_share == 0
        )
        padding = torch.zeros(rows, dtype=torch.long)
        if config.attention_mask is not None:
            leading = (config.attention_mask.cumsum(-1) == 0).sum(-1).cpu()
            padding = leading.repeat_interleave(rows // len(leading))
        return WatermarkProcessor(
            config.spec,
            config.ring,
            tenants,
            subkeys,
            padding,
            input_ids.shape[1],
            config.fresh_share,
            self._device,
        )


def _spread(tenants: str | Sequence[str] | None, rows: int) -> list[str | None]:
    """The tenant of each row; ``generate`` repeats each prompt for its samples or beams in place."""
    if tenants is None or isinstance(tenants, str):
        return [tenants] * rows
    if rows % len(tenants):
        raise DyetraceError(f"{len(tenants)} tenants were given for {rows} rows; give one for each prompt")
    return [tenant for tenant in tenants for _ in range(rows // len(tenants))]


def draw_subkeys(
    prompts: torch.Tensor,
    tenants: Sequence[str | None],
    pool: int,
    beams: int,
    *,
    must_differ: bool,
    choose: Callable[[Sequence[int]], int] = secrets.choice,
) -> list[int]:
    """A random sub-key for each prompt's every sample; beams of one prompt share theirs, since beams swap rows.

    Parameters
    ----------
    prompts
        The prompt of each returned row, shape (rows, length).
    tenants
        The tenant of each row.
    pool
        How many sub-keys the spec has.
    beams
        Rows of one beam search.
    must_differ
        Samples of one prompt would repeat each other under one sub-key.
    choose
        Takes one of several at random, independently of every text.

    Raises
    ------
    DyetraceError
        More samples of one prompt than sub-keys that differ.
    """
    used: dict[tuple[str | None, tuple[int, ...]], list[int]] = {}
    drawn: list[int] = []
    for row, prompt in enumerate(prompts.tolist()):
        if beams > 1 and row % beams:
            drawn.append(drawn[-1])
            continue
        taken = used.setdefault((tenants[row], tuple(prompt)), [])
        if len(taken) == pool and must_differ:
            raise DyetraceError(
                f"more than {pool} samples of one prompt would repeat each other: the spec has {pool} sub-keys; make a "
                "spec with more, or set fresh_share above 0"
            )
        free = sorted(set(range(pool)) - set(taken)) or list(range(pool))
        taken.append(choose(free))
        drawn.append(taken[-1])
    return drawn
