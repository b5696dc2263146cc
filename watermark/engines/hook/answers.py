"""One answer while it is generated: its contexts, which of them chose a token before, and its sub-key.

Everything follows from the tokens themselves, so that an engine that drafts, rewinds, preempts or moves a request to
another worker cannot leave stale state behind.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from watermark import prf
from watermark.engines.hook.epoch import Epoch
from watermark.errors import DyetraceError
from watermark.prf import U32
from watermark.rowkeys import GLOBAL, TENANT, KeyWords, marks_globally

Context = tuple[int, ...]
_REMEMBERED_PROMPTS = 4096
_HIDDEN = "the engine hides tokens that it has generated (placeholders stand for them)"


class HiddenTokensError(DyetraceError):
    """The engine does not show the tokens that a context is made of."""


@dataclass(eq=False)
class Answer:
    """One answer.

    Attributes
    ----------
    epoch, tenant, subkey
        What marks it.
    prompt
        At least the last h token ids before the answer; fewer only where the prompt has no more.
    tokens
        The answer's token ids: the engine's own list, which grows.
    """

    epoch: Epoch
    tenant: str | None
    subkey: int
    prompt: Sequence[int]
    tokens: Sequence[int]

    def __post_init__(self) -> None:
        width = self.epoch.spec.context_width
        tail = list(self.prompt[-width:]) if width else []
        self._lead = (prf.MISSING,) * (width - len(tail)) + tuple(tail)
        self._seen: dict[Context, int] = {}
        self._counted = 0
        self._told = 0
        self._begun = len(self.tokens)

    @property
    def key_words(self) -> KeyWords:
        """The keys that mark it."""
        return self.epoch.key_words(self.tenant, self.subkey)

    def context(self, position: int | None = None) -> Context:
        """The context of a position of the answer, oldest token first; by default of the next one.

        Raises
        ------
        HiddenTokensError
            The engine shows a placeholder in place of a token.
        """
        at = len(self.tokens) if position is None else position
        width = len(self._lead)
        if at < width:
            context = self._lead[at:] + tuple(self.tokens[:at])
        else:
            context = tuple(self.tokens[at - width : at])
        if context and min(context) < 0:
            raise HiddenTokensError(_HIDDEN)
        return context

    def next(self) -> tuple[Context, bool]:
        """The next context, and whether it already chose one of the answer's tokens; it is then left unmarked."""
        self._advance()
        context = self.context()
        return context, bool(self._lead) and context in self._seen

    def repeats(self) -> bool:
        """Whether the next context already chose one of the answer's tokens."""
        return self.next()[1]

    def news(self) -> list[tuple[Context, int]]:
        """Context and token of each position since the last call, where the context stood first in the answer."""
        self._advance()
        start, self._told = self._told, max(self._told, self._counted)
        news = range(start, self._told)
        if not self._lead:
            return [((), self.tokens[position]) for position in news]
        at = [(position, self.context(position)) for position in news]
        return [(context, self.tokens[position]) for position, context in at if self._seen[context] == position]

    @property
    def told(self) -> int:
        """How many of its tokens `news` has looked at."""
        return self._told

    def contexts(self) -> U32:
        """The distinct contexts that chose a token since it began or was resumed, (n, h), oldest token first."""
        self._advance()
        mine = [context for context, position in self._seen.items() if position >= self._begun]
        return np.array(mine, dtype=np.uint32).reshape(len(mine), len(self._lead))

    def _advance(self) -> None:
        """Take note of the contexts of tokens that are new; of a rewound answer anew."""
        if len(self.tokens) < self._counted:
            self._seen.clear()
            self._counted = 0
            self._told = min(self._told, len(self.tokens))
        for position in range(self._counted, len(self.tokens)):
            if self.tokens[position] < 0:
                raise HiddenTokensError(_HIDDEN)
            self._seen.setdefault(self.context(position), position)
            self._counted = position + 1
        self._counted = len(self.tokens)


class Subkeys:
    """Draws sub-keys so that answers to one prompt differ for as long as there are sub-keys that differ."""

    def __init__(self) -> None:
        self._used: OrderedDict[tuple[str | None, Context], dict[int, int]] = OrderedDict()
        self._left: OrderedDict[tuple[str | None, Context], list[int]] = OrderedDict()
        self._draws = 0

    def draw(self, epoch: Epoch, tenant: str | None, prompt: Sequence[int]) -> int:
        """A sub-key for a new answer: one of those that this prompt used least recently, at random among equals."""
        pool = epoch.spec.subkeys
        if pool == 1:
            return 0
        key = tenant, (hash(tuple(prompt)), len(prompt))
        used = self._used.setdefault(key, {})
        self._used.move_to_end(key)
        if len(self._used) > _REMEMBERED_PROMPTS:
            self._used.popitem(last=False)
        oldest = min(used.get(index, 0) for index in range(pool))
        drawn = secrets.choice([index for index in range(pool) if used.get(index, 0) == oldest])
        self._draws += 1
        used[drawn] = self._draws
        return drawn

    def leave(self, answer: Answer) -> None:
        """Remember an answer that leaves the batch: perhaps it was preempted, and will be back."""
        # Samples of one prompt that say the same so far may go on under each other's sub-key, but not under a third.
        self._left.setdefault(_so_far(answer.tenant, answer.prompt, answer.tokens), []).append(answer.subkey)
        if len(self._left) > _REMEMBERED_PROMPTS:
            self._left.popitem(last=False)

    def resume(self, epoch: Epoch, tenant: str | None, prompt: Sequence[int], tokens: Sequence[int]) -> int:
        """The sub-key of an answer that is back: remembered, or else read off its tokens."""
        key = _so_far(tenant, prompt, tokens)
        known = self._left.get(key)
        if not known:
            return likeliest_subkey(epoch, tenant, prompt, tokens)
        subkey = known.pop()
        if not known:
            del self._left[key]
        return subkey


def _so_far(tenant: str | None, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[str | None, Context]:
    return tenant, (hash(tuple(prompt)), hash(tuple(tokens)), len(tokens))


def likeliest_subkey(epoch: Epoch, tenant: str | None, prompt: Sequence[int], tokens: Sequence[int]) -> int:
    """The sub-key that an answer was begun under, read off its own tokens: the one with the largest sum of statistics.

    An engine that resumes a preempted request, perhaps in another process, tells nothing of what went before. Where
    the tokens are too few to tell, either choice serves them.
    """
    pool = epoch.spec.subkeys
    if pool == 1 or not tokens:
        return 0
    sums = []
    for index in range(pool):
        news = Answer(epoch, tenant, index, prompt, list(tokens)).news()
        sums.append(int(statistics(epoch, tenant, index, news).sum()))
    return int(np.argmax(sums))


def statistics(
    epoch: Epoch, tenant: str | None, subkey: int, tuples: Sequence[tuple[Context, int]]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """What the scheme scores (context, token) tuples under the keys of an answer, (n,) integer units."""
    width = epoch.spec.context_width
    n = len(tuples)
    contexts = np.array([context for context, _ in tuples], dtype=np.uint32).reshape(n, width)
    tokens = np.array([token for _, token in tuples], dtype=np.uint32)
    words = epoch.key_words(tenant, subkey)
    of_global = marks_globally(epoch.spec, epoch.selector, n, lambda key: prf.nonces(contexts, key))
    found = np.empty(n, dtype=np.int64)
    for owner in (TENANT, GLOBAL):
        chosen = of_global == (owner == GLOBAL)
        if chosen.any():
            compress = None if words.context_keys is None else words.context_keys[owner]
            nonces = np.ascontiguousarray(prf.nonces(contexts[chosen], compress))
            found[chosen] = epoch.scheme.statistic(prf.words_at(words.keys[owner], nonces, tokens[chosen]))
    return found
