"""vLLM's V2 runner: rows of a step are taken from slots, tokens stay on the device, drafts have rows of their own."""

from __future__ import annotations

from typing import Any

import torch

from watermark.engines.hook.admission import Admitted, Decoding
from watermark.engines.hook.answers import Answer
from watermark.engines.hook.epoch import Epoch
from watermark.engines.hook.hook import Hook
from watermark.prf import MISSING
from watermark.rowkeys import RowKeys
from watermark.schemes.marking import mark_rows

_GREEDY = 1e-5  # vLLM takes lower temperatures for greedy


def decoding_of(params: Any) -> Decoding:
    """What a request's SamplingParams ask of vLLM."""
    return Decoding(greedy=params.temperature < _GREEDY, samples=params.n or 1)


def heat_of(params: Any) -> float:
    """The temperature that vLLM divides a request's logits by; 1 for greedy ones."""
    return 1.0 if params.temperature < _GREEDY else float(params.temperature)


class SlotRows:
    """Answers by slot. Tokens are read back to the host when a request enters or has left, never during a step.

    Parameters
    ----------
    hook
        Of this engine.
    state
        vLLM's ``LogitsProcRequestState``.
    """

    def __init__(self, hook: Hook, state: Any) -> None:
        self._hook = hook
        self._state = state
        self._entering: dict[int, tuple[Admitted, Any]] = {}
        self._answers: dict[int, tuple[Answer, int]] = {}  # with the length of the prompt
        size, device = state.max_num_reqs, state.device
        self._heat = torch.ones(size, device=device)
        self._min_p = torch.zeros(size, device=device)
        self._k = torch.full((size,), state.vocab_size, dtype=torch.long, device=device)
        self._p = torch.ones(size, device=device)
        self._prompt = torch.zeros(size, dtype=torch.long, device=device)
        self._epochs: list[tuple[Epoch, RowKeys, torch.Tensor]] = []
        self._floors = self._limits = self._nuclei = False

    def add(self, slot: int, params: Any) -> bool:
        """A request enters ``slot``; whether it is to be marked."""
        self._leave(slot)
        admitted = self._hook.readmit(params.extra_args, decoding_of(params))
        self._entering[slot] = admitted, params
        return admitted.unmarked is None

    def _leave(self, slot: int) -> None:
        """Take note of the answer that stood in a slot: its tokens are still there when the next request enters."""
        self._entering.pop(slot, None)
        answer, prompt = self._answers.pop(slot, (None, 0))
        if answer is None:
            return
        length = int(self._state.total_len.gpu[slot])
        answer.tokens = self._state.all_token_ids.gpu[slot, prompt:length].tolist()
        self._hook.finish(answer)

    def begin(self) -> None:
        """Begin the answers of the requests that entered; their tokens are in place now."""
        if not self._entering:
            return
        for slot, (admitted, params) in self._entering.items():
            prompt, length = int(self._state.prompt_len.np[slot]), int(self._state.prefill_len.np[slot])
            ids = self._state.all_token_ids.gpu[slot, :length].tolist()
            answer = self._hook.begin(admitted, ids[:prompt], ids[prompt:], params.seed)
            if answer is None:
                continue
            self._answers[slot] = answer, prompt
            self._heat[slot] = heat_of(params)
            self._min_p[slot] = params.min_p
            self._k[slot] = params.top_k if params.top_k and params.top_k > 0 else self._state.vocab_size
            self._p[slot] = params.top_p
            self._prompt[slot] = prompt
        self._entering.clear()
        self._settle()

    def _settle(self) -> None:
        device = self._state.device
        by_epoch: dict[Epoch, list[int]] = {}
        for slot, (answer, _) in self._answers.items():
            by_epoch.setdefault(answer.epoch, []).append(slot)
        self._epochs = []
        for epoch, slots in by_epoch.items():
            place = torch.full((self._state.max_num_reqs,), -1, dtype=torch.long, device=device)
            place[torch.tensor(slots, device=device)] = torch.arange(len(slots), device=device)
            words = [self._answers[slot][0].key_words for slot in slots]
            self._epochs.append((epoch, RowKeys(epoch.spec, epoch.selector, words, device), place))
        taken = torch.tensor(list(self._answers), dtype=torch.long, device=device)
        self._floors = bool((self._min_p[taken] > 0).any())
        self._limits = bool((self._k[taken] < self._state.vocab_size).any())
        self._nuclei = bool((self._p[taken] < 1).any())

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        """Mark a step: logits (rows, V) before temperature."""
        if not any(int(slot) in self._answers for slot in ctx.idx_mapping_np):
            return logits
        slots = ctx.expanded_idx_mapping.long()
        heat = self._heat[slots][:, None]
        for epoch, keys, place in self._epochs:
            rows = place[slots]
            contexts, repeats = self._contexts(ctx, slots, epoch.spec.context_width)
            final = logits / heat
            if epoch.scheme.samples:
                final = self._truncated(final, slots)
            marked = mark_rows(epoch.scheme, final, *keys.pick(rows.clamp(min=0)).at(contexts)).to(logits.dtype)
            mine = (rows >= 0) & ~repeats
            if self._hook.settings.fresh_share > 0:
                mine &= torch.rand(len(mine), device=mine.device) >= self._hook.settings.fresh_share
            # Temperature comes later and divides; a choice (0 and -inf) is the same after it.
            logits = torch.where(mine[:, None], marked * heat, logits)
        return logits

    def _truncated(self, logits: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """What min_p, top-k and top-p of the requests leave."""
        from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

        if self._floors:
            least = self._min_p[slots][:, None]
            probabilities = logits.softmax(-1)
            logits = logits.masked_fill(probabilities < least * probabilities.amax(-1, keepdim=True), -torch.inf)
        if self._limits or self._nuclei:
            k, p = (self._k[slots] if self._limits else None), (self._p[slots] if self._nuclei else None)
            logits = apply_top_k_top_p(logits, k, p)
        return logits

    def _contexts(self, ctx: Any, slots: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Contexts of the tokens to be sampled, (rows, h), and whether they chose a token of the same answer before."""
        length = int(ctx.seq_lens_upper_bound_np.max())
        known = self._state.all_token_ids.gpu[slots, :length].long()
        pos, drafts = ctx.pos.long(), ctx.expanded_local_pos.long()
        row = torch.arange(len(slots), device=slots.device)
        # What a row's own request feeds at this step is in `input_ids` alone: its last token and drafts.
        for back in range(int(drafts.max()) + 1 if len(drafts) else 0):
            fed = back <= drafts
            known[row[fed], pos[fed] - back] = ctx.input_ids[row[fed] - back].long()
        at = pos[:, None] + 1 - torch.arange(width, 0, -1, device=pos.device)
        contexts = known.gather(1, at.clamp(min=0)).masked_fill(at < 0, MISSING)
        if not width:
            return contexts, torch.zeros(len(slots), dtype=torch.bool, device=pos.device)
        # Position i of the sequence was chosen by the `width` tokens before it.
        places = torch.arange(length, device=pos.device)
        same = torch.ones_like(known, dtype=torch.bool)
        for back in range(1, width + 1):
            before = torch.nn.functional.pad(known, (back, 0), value=MISSING)[:, :length]
            same &= before == contexts[:, width - back, None]
        generated = (places >= self._prompt[slots][:, None]) & (places <= pos[:, None])
        return contexts, (same & generated).any(-1)
