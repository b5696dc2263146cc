"""Sampling for many callers at once: rows that wait at the same time share each forward pass of the model."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Token:
    """A sampled token: its id, its log-probability before temperature, and (id, log-probability) of the likeliest."""

    id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass
class Row:
    """One sample to be drawn.

    Attributes
    ----------
    prompt
        Token ids, at least one.
    seed
        Makes the sample depend on nothing else; None for a fresh one.
    top
        Alternatives wanted at each position; None where no log-probabilities are wanted at all.
    each
        Called with every token as soon as it is drawn, in the batcher's thread; None where nobody listens.
    read
        Where the log-probabilities of the prompt's own tokens go, the first one's left out; None where they are not
        wanted.
    beside
        How many likely tokens are noted beside each of these.
    listed
        Where those go: (id, log-probability) of the likeliest at each place, and the own token's rank.
    bias
        What is added to the logits of some tokens before one is drawn; log-probabilities are those without it.
    named
        Tokens whose log-probabilities are noted in place of the likeliest.
    done
        The tokens, and whether the model ended by itself.
    """

    prompt: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    top: int | None
    each: Callable[[Token], None] | None = None
    read: list[float] | None = None
    beside: int = 0
    listed: list[tuple[list[tuple[int, float]], int]] = field(default_factory=list)
    bias: dict[int, float] = field(default_factory=dict)
    named: Sequence[int] = ()
    done: Future[tuple[list[Token], bool]] = field(default_factory=Future)


class Batcher:
    """A thread that owns the model and serves rows.

    Parameters
    ----------
    model
        A transformers causal language model.
    ends
        Token ids that end an answer.
    largest
        Rows in a batch at most.
    gather
        Seconds to wait for others after the first row of a batch.
    """

    def __init__(self, model: Any, ends: set[int], largest: int, gather: float = 0.01) -> None:
        self.sizes: list[int] = []
        self._model, self._ends, self._largest, self._gather = model, ends, largest, gather
        self._waiting: queue.Queue[Row | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Row]) -> None:
        """Queue rows; their ``done`` tells when."""
        for row in rows:
            self._waiting.put(row)

    def close(self) -> None:
        """Finish the batch under way and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        for batch in self._batches():
            self.sizes.append(len(batch))
            try:
                sample(self._model, batch, self._ends)
            except Exception as error:
                for row in batch:
                    if not row.done.done():
                        row.done.set_exception(error)

    def _batches(self) -> Iterator[list[Row]]:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < self._largest:
                try:
                    row = self._waiting.get(timeout=self._gather)
                except queue.Empty:
                    break
                if row is None:
                    yield batch
                    return
                batch.append(row)
            yield batch


def sample(model: Any, rows: Sequence[Row], ends: set[int]) -> None:
    """Draw rows together, padded on the left; a finished row leaves the batch at once."""
    import torch
    from transformers import DynamicCache

    device = model.device
    for row in rows:
        if row.read is not None:
            own, listed = _read(model, row.prompt, row.beside)
            row.read += own
            row.listed += listed
    length = max(len(row.prompt) for row in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, length - len(row.prompt) :] = torch.tensor(row.prompt, device=device)
        mask[place, length - len(row.prompt) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    # transformers gave the argument a new name within version 5.
    cache_name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    live = list(rows)
    tokens: list[list[Token]] = [[] for _ in rows]
    noise = [None if row.seed is None else torch.Generator(device).manual_seed(row.seed % 2**63) for row in rows]
    with torch.inference_mode():
        while live:
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
                **{cache_name: cache},
            )
            logits = output.logits[:, -1].float()
            chosen = _draw(_biased(logits, live), live, noise)
            _note(logits, chosen, live, tokens)
            keep = []
            for place, row in enumerate(live):
                ended = int(chosen[place]) in ends
                if row.each is not None:
                    row.each(tokens[place][-1])
                if ended or len(tokens[place]) >= row.max_tokens:
                    row.done.set_result((tokens[place], ended))
                else:
                    keep.append(place)
            if len(keep) < len(live):
                chosen, mask, positions = chosen[keep], mask[keep], positions[keep]
                live, tokens = [live[place] for place in keep], [tokens[place] for place in keep]
                noise = [noise[place] for place in keep]
                if keep:
                    cache.batch_select_indices(torch.tensor(keep, device=device))
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)


def _read(
    model: Any, prompt: Sequence[int], beside: int
) -> tuple[list[float], list[tuple[list[tuple[int, float]], int]]]:
    """Of each token of a prompt but the first: its log-probability, and the likeliest tokens with its rank."""
    import torch

    ids = torch.tensor([prompt], device=model.device)
    with torch.inference_mode():
        logs = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    own = logs.gather(1, ids[0, 1:, None])
    found: list[float] = own[:, 0].tolist()
    values, tokens = logs.topk(min(beside, logs.shape[1]))
    ranks: list[int] = (logs >= own).sum(1).tolist()
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    return found, [(list(zip(*some, strict=True)), rank) for some, rank in zip(pairs, ranks, strict=True)]


def _biased(logits: Any, rows: Sequence[Row]) -> Any:
    """Logits (b, v) with each row's bias on them."""
    if not any(row.bias for row in rows):
        return logits
    biased = logits.clone()
    for place, row in enumerate(rows):
        for token, value in row.bias.items():
            biased[place, token] += value
    return biased


def _draw(logits: Any, rows: Sequence[Row], noise: Sequence[Any]) -> Any:
    """Next tokens: logits (b, v) -> (b,)."""
    import torch

    temperature = torch.tensor([[row.temperature or 1.0] for row in rows], device=logits.device)
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if any(row.top_p < 1 for row in rows):
        ranked, order = probabilities.sort(dim=-1, descending=True)
        limit = torch.tensor([[row.top_p] for row in rows], device=logits.device)
        ranked[ranked.cumsum(-1) - ranked >= limit] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, ranked)
    drawn = torch.multinomial(probabilities, 1)[:, 0]
    for place, (row, own) in enumerate(zip(rows, noise, strict=True)):
        if row.temperature == 0:
            drawn[place] = logits[place].argmax()
        elif own is not None:
            race = torch.empty_like(logits[place]).exponential_(generator=own)
            drawn[place] = (probabilities[place] / race).argmax()
    return drawn


def _note(logits: Any, chosen: Any, rows: Sequence[Row], tokens: Sequence[list[Token]]) -> None:
    if all(row.top is None for row in rows):
        for own, number in zip(tokens, chosen.tolist(), strict=True):
            own.append(Token(number, 0.0, []))
        return
    logprobs = logits.log_softmax(-1)
    own_values = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
    values, places = logprobs.topk(max(1, *(row.top or 0 for row in rows)))
    for row, own, number, value, likeliest, scores in zip(
        rows, tokens, chosen.tolist(), own_values, places.tolist(), values.tolist(), strict=True
    ):
        top = list(zip(likeliest, scores, strict=True))[: row.top or 0]
        own.append(Token(number, value, top))
    for place, (row, own) in enumerate(zip(rows, tokens, strict=True)):
        if row.named:
            shown = list(dict.fromkeys([own[-1].id, *row.named]))
            own[-1] = replace(own[-1], top=[(token, float(logprobs[place, token])) for token in shown])
