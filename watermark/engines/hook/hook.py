"""The hook as engines use it: requests in, marked logits out, and a count of everything that stays unmarked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from watermark.engines.hook.admission import Admitted, Decoding, admit
from watermark.engines.hook.answers import Answer, HiddenTokensError, Subkeys
from watermark.engines.hook.counters import Counters
from watermark.engines.hook.epoch import Epoch, Epochs
from watermark.engines.hook.rows import Rows
from watermark.engines.hook.selftest import self_test
from watermark.engines.hook.settings import Settings
from watermark.engines.hook.watch import Watch
from watermark.errors import DyetraceError
from watermark.files.writing import make_folder
from watermark.ledger import Ledger

if TYPE_CHECKING:
    import torch

REQUESTS, TOKENS, ALARMS = "dyetrace_requests_total", "dyetrace_tokens_total", "dyetrace_alarms_total"
_STEPS_BETWEEN_LOOKS = 16
_log = logging.getLogger("dyetrace")


def say(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """One structured log line: the word dyetrace and a JSON object. Keys and texts never stand in it."""
    _log.log(level, "dyetrace %s", json.dumps({"event": event, **fields}))


class Hook:
    """All that an adapter needs, for one engine.

    Parameters
    ----------
    settings
        What the operator decides.

    Raises
    ------
    DyetraceError
        Spec or key can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counters = Counters()
        self._epochs = Epochs(settings)
        self._known = self._epochs.current()
        self._subkeys = Subkeys()
        self._watch = Watch(settings.watch_tokens)
        self._ledgers: dict[str, Ledger] = {}
        self._trouble: str | None = None
        self._steps = 0

    @property
    def epoch(self) -> Epoch:
        """In force for requests that begin now."""
        epoch = self._epochs.current()
        if self._epochs.trouble != self._trouble:
            self._trouble = self._epochs.trouble
            if self._trouble:
                say("spec not reloaded", logging.ERROR, why=self._trouble)
        if epoch is not self._known:
            self._known = epoch
            self.counters.set("dyetrace_epoch", epoch.spec.epoch)
            say("keys changed", spec=epoch.spec_id, epoch=epoch.spec.epoch)
        return epoch

    def start(self, device: torch.device, vocabulary: int) -> None:
        """Check everything that can be checked before the first request.

        Parameters
        ----------
        device
            Where the logits will be.
        vocabulary
            Entries of the engine's logits.

        Raises
        ------
        DyetraceError
            The model is not the spec's, or the self-test fails.
        """
        epoch = self.epoch
        if vocabulary < epoch.spec.vocabulary_size:
            raise DyetraceError(
                f"wrong model: its vocabulary has {vocabulary} entries, the spec's {epoch.spec.vocabulary_size}"
            )
        z = self_test(epoch, device)
        self._ledger(epoch)
        self.counters.set("dyetrace_epoch", epoch.spec.epoch)
        # Only the process that generates writes the file; others count what they refuse.
        self.counters.path = None if self.settings.metrics is None else Path(self.settings.metrics)
        self.counters.write(now=True)
        say("started", spec=epoch.spec_id, epoch=epoch.spec.epoch, scheme=epoch.spec.scheme, self_test_z=round(z, 1))

    def admit(self, arguments: Mapping[str, Any] | None, decoding: Decoding) -> Admitted:
        """`admission.admit` where a request arrives; refusals are counted. Raises DyetraceError."""
        try:
            return admit(arguments, decoding, self.settings, self.epoch.spec)
        except DyetraceError:
            self.counters.add(REQUESTS, result="refused")
            raise

    def readmit(self, arguments: Mapping[str, Any] | None, decoding: Decoding) -> Admitted:
        """`admit` in the engine's own process, for a request that was admitted where it arrived.

        What is refused here (an engine's warm-up, a spec that was changed in between) cannot be answered any more: it
        is served unmarked, counted and logged.
        """
        try:
            return admit(arguments, decoding, self.settings, self.epoch.spec)
        except DyetraceError as error:
            say("not admitted", logging.ERROR, why=str(error))
            return Admitted(None, unmarked="not admitted")

    def begin(
        self, admitted: Admitted, prompt: Sequence[int], tokens: Sequence[int], seed: int | None = None
    ) -> Answer | None:
        """The answer to an admitted request; None where it stays unmarked, which is logged.

        Parameters
        ----------
        prompt
            All token ids of the prompt that are known.
        tokens
            The engine's list of the answer's tokens, which grows; not empty when the engine resumes a request.
        seed
            The client's own: it fixes the sub-key, so that the same request gives the same answer.
        """
        if not len(tokens):
            self.counters.add(REQUESTS, result=admitted.unmarked or "marked")
        if admitted.unmarked is not None:
            say("unmarked request", why=admitted.unmarked, tenant=admitted.tenant)
            return None
        epoch = self.epoch
        if admitted.subkey is not None:
            subkey = admitted.subkey
        elif seed is not None:
            subkey = seed % epoch.spec.subkeys
        elif len(tokens) and min(tokens) >= 0:
            subkey = self._subkeys.resume(epoch, admitted.tenant, prompt, tokens)
        else:
            subkey = self._subkeys.draw(epoch, admitted.tenant, prompt)
        answer = Answer(epoch, admitted.tenant, subkey, prompt, tokens)
        with suppress(HiddenTokensError):  # said at the first step
            answer.news()  # what a resumed answer brings was counted before
        return answer

    def contexts(self, answers: Sequence[Answer | None]) -> tuple[list[tuple[int, ...]], list[bool], list[Answer]]:
        """The next context of each row, which rows to leave unmarked at this step, and the rows that hide tokens.

        Raises
        ------
        DyetraceError
            The engine hides tokens, and the operator wants no unmarked text.
        """
        width = self.epoch.spec.context_width
        contexts, left, hidden = [], [], []
        for answer in answers:
            if answer is None:
                contexts.append((0,) * width)
                left.append(True)
                continue
            try:
                context, repeats = answer.next()
                contexts.append(context)
                left.append(repeats)
            except HiddenTokensError as error:
                if self.settings.on_unmarkable == "error":
                    say("stopped", logging.ERROR, why=str(error))
                    raise DyetraceError(
                        f"{error}: turn off asynchronous scheduling or speculative decoding, or load the hook with "
                        "--logits-processors"
                    ) from None
                contexts.append((0,) * width)
                left.append(True)
                hidden.append(answer)
        return contexts, left, hidden

    def mark(self, logits: torch.Tensor, answers: Sequence[Answer | None], rows: Rows | None = None) -> torch.Tensor:
        """Mark a step of a batch in place: final distributions (b, V) float32, one answer a row (None: unmarked).

        Parameters
        ----------
        logits
            Shape (b, V).
        answers
            Of each row.
        rows
            Made from the same answers before; by default made here.
        """
        import torch

        contexts, left = self.step(answers, logits.device)
        if all(left):
            return logits
        skip = torch.tensor(left, device=logits.device) if any(left) else None
        return (Rows(answers, logits.device) if rows is None else rows).mark(logits, contexts, skip)

    def step(self, answers: Sequence[Answer | None], device: torch.device) -> tuple[torch.Tensor, list[bool]]:
        """Contexts of a step, (b, h) int64, and the rows to leave unmarked; what was generated before is counted.

        Once for each step: `mark` does it by itself, and an adapter that chooses by `Rows.choose` does it before.
        """
        import torch

        contexts, left, hidden = self.contexts(answers)
        self._steps += 1
        if self._steps % _STEPS_BETWEEN_LOOKS == 0:
            for answer in answers:
                if answer is not None:
                    self._count(answer)
            self._look()
        if hidden:
            self.counters.add(TOKENS, len(hidden), marked="no", why="tokens hidden")
        if self.settings.fresh_share > 0:
            draws = torch.rand(len(left)).tolist()
            left = [skip or draw < self.settings.fresh_share for skip, draw in zip(left, draws, strict=True)]
        table = torch.from_numpy(np.array(contexts, dtype=np.int64).reshape(len(contexts), -1))
        return table.to(device), left

    def finish(self, answer: Answer) -> None:
        """Take note of an answer that the engine is done with, or has preempted."""
        self._subkeys.leave(answer)
        self._count(answer)
        self._look()
        try:
            contexts = answer.contexts()
        except HiddenTokensError:  # counted by the step
            return
        ledger = self._ledger(answer.epoch)
        if ledger is not None and len(contexts):
            answer.epoch.ring_of(answer.tenant)
            ledger.add(answer.tenant, answer.subkey, contexts)

    def close(self) -> None:
        """Score what is pending, write the counters, close the ledger."""
        self._look(all_of_them=True)
        self.counters.write(now=True)
        for ledger in self._ledgers.values():
            ledger.close()
        self._ledgers.clear()

    def _ledger(self, epoch: Epoch) -> Ledger | None:
        """The ledger of an epoch, made when it is first asked for."""
        if self.settings.ledger is None:
            return None
        if epoch.spec_id not in self._ledgers:
            folder = Path(self.settings.ledger)
            make_folder(folder)
            path = folder / f"{epoch.spec_id}.ledger"
            size = self.settings.ledger_megabytes
            self._ledgers[epoch.spec_id] = (
                Ledger.open(path, epoch.spec, epoch.ring, write=True)
                if path.exists()
                else Ledger.create(path, epoch.spec, epoch.ring, megabytes=size)
            )
        return self._ledgers[epoch.spec_id]

    def _count(self, answer: Answer) -> None:
        before = answer.told
        try:
            news = answer.news()
        except HiddenTokensError:  # counted by the step
            return
        grown = answer.told - before
        if not grown:
            return
        self.counters.add(TOKENS, len(news), marked="yes", why="")
        if grown > len(news):
            self.counters.add(TOKENS, grown - len(news), marked="no", why="repeated context")
        if self.settings.watch_tokens:
            self._watch.note(answer, news)

    def _look(self, *, all_of_them: bool = False) -> None:
        vanished = self._watch.looked(all_of_them=all_of_them)
        for tenant in vanished:
            evidence = self._watch.evidence[tenant]
            self.counters.add(ALARMS)
            say("mark vanished", logging.ERROR, tenant=tenant, tokens=round(evidence.tokens), z=round(evidence.z, 1))
        self.counters.set("dyetrace_accounts", len(self._watch.evidence))
        self.counters.write()
        if vanished and self.settings.alarm == "stop":
            raise DyetraceError(f"the mark has vanished from the text of account {vanished[0]!r}: the engine stops")
