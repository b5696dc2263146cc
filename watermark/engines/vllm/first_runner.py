"""vLLM's V1 runner: a batch whose rows it adds, moves and removes; tokens and outputs are lists on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

from watermark.engines.hook.answers import Answer
from watermark.engines.hook.hook import Hook
from watermark.engines.hook.rows import Rows
from watermark.engines.vllm.second_runner import decoding_of, heat_of
from watermark.schemes.marking import chooses

CHOSEN = 1e9
"""The logit of a chosen token, far above any other; a temperature may still divide it."""


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
