"""What a suspect says at the cuts of served answers, from its weights, as each way of asking would have it.

Places, the owner's chances, cuts, the key's weights and the bets are the product's own. What an endpoint would reply
is computed from what the suspect's weights predict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.race.material import Material
from detect.models.bench import Bench
from detect.models.forward import Predictions
from detect.models.reading import Positions
from detect.race.bets import log_growths
from detect.race.cuts import cuts, first_of_runs
from detect.race.evidence import NOT_SAID, RaceEvidence
from detect.race.job import RUN, RaceJob
from detect.race.offered import LEAST, POWER
from detect.race.served import ServedReading, served_reading
from detect.race.tilts import tilts
from detect.race.weights import base_at
from detect.records.race import RaceAsk
from watermark.keys import SecretKey
from watermark.models.tokenizer import load_tokenizer

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

File = Literal["served", "all", "tenth"]
ASKS: tuple[RaceAsk, ...] = ("weights", "prompt-logprobs", "echo", "logprobs", "bias", "greedy")
LISTED = 20
"""Likely tokens that an endpoint tells at each place."""
TIES = 0.8
"""Least spread of a place where the owner's model was undecided."""


@dataclass(frozen=True, eq=False)
class Reader:
    """The served answers of one seed, as they are read.

    Attributes
    ----------
    temperature, top_p
        That the owner is taken to have sampled with; None for what it did sample with.
    """

    material: Material
    temperature: float | None = None
    top_p: float | None = None

    def served(self, file: File) -> ServedReading:
        """A file's answers, their fresh places, and the owner's chances there."""
        setting = self.material.setting
        job = RaceJob(
            suspect=str(self.material.folder),
            read=str(self.material.write()[file]),
            owner_model=self.material.folder,
            temperature=setting.temperature if self.temperature is None else self.temperature,
            top_p=setting.top_p if self.top_p is None else self.top_p,
        )
        return served_reading(job, self.material.spec, self.material.ring, self._bench)

    def predicted(self, suspect: Path, served: ServedReading) -> tuple[Predictions, I64]:
        """What a suspect's weights predict at these places, and how often it has said another word before, (n,)."""
        ends = [(one.lead, len(one.sequence)) for one in served.text.documents]
        document = np.concatenate([np.full(end + 1 - lead, number) for number, (lead, end) in enumerate(ends)])
        position = np.concatenate([np.arange(lead, end + 1) for lead, end in ends])
        every = Positions(document, position, np.zeros(len(document), dtype=np.uint64))
        seen = self._bench.predictions(suspect, served.text, every)
        offsets = np.concatenate([[0], np.cumsum([end + 1 - lead for lead, end in ends])])
        leads = np.array([lead for lead, _ in ends])
        tokens = np.concatenate(
            [np.append(one.sequence[one.lead :].astype(np.int64), -1) for one in served.text.documents]
        )
        # How many of the tokens before each place are not what the suspect says there.
        wrong = np.concatenate([[0], np.cumsum(seen.ids[:, 0] != tokens)])
        rows = offsets[served.where.document] + served.where.position - leads[served.where.document]
        return Predictions(seen.ids[rows], seen.probabilities[rows]), wrong[rows]

    def heard(
        self, suspect: Path, served: ServedReading, ask: RaceAsk, *, ties: bool = False, reference: Path | None = None
    ) -> RaceEvidence:
        """What the suspect says: at all places, or in reply to each request that the plan would make.

        Parameters
        ----------
        ask
            What is read of it.
        ties
            Whether of the weights only places are read where the owner's model was undecided.
        reference
            A model to compare with: the suspect as it was before.
        """
        one_token = ask in ("logprobs", "bias", "greedy")
        rows = np.arange(len(served))
        steps = np.cumsum(np.diff(served.where.document, prepend=-1) != 0)
        seen, wrong = self.predicted(suspect, served)
        if ties:
            rows = np.flatnonzero(served.chances.spread >= TIES)
        if one_token:
            run = 1 if ask == "bias" else RUN
            tokenizer = load_tokenizer(self.material.folder)
            rows = cuts(served.text, served.where, served.held, served.chances.spread, tokenizer, run=run)
            begins = first_of_runs(served.where.document[rows], served.where.position[rows], run)
            request = np.searchsorted(begins, np.arange(len(rows)), side="right") - 1
            # A reply is about the places behind its first as long as it says what was served.
            heard = wrong[rows] == wrong[rows[begins]][request]
            rows, steps = rows[heard], request[heard] + 1
        else:
            steps = steps[rows]
        seen = Predictions(seen.ids[rows], seen.probabilities[rows])
        given = served.chances.take(rows)
        if ask in ("prompt-logprobs", "logprobs"):
            seen = Predictions(seen.ids[:, :LISTED], seen.probabilities[:, :LISTED])
        shares = seen.at(given.tokens.astype(np.int64), self.material.spec.vocabulary_size)
        shares[~seen.known] = np.nan
        said = np.where(seen.known, _said(seen, given.tokens, given.chances, shares, ask), NOT_SAID)
        base = None
        if reference is not None:
            base = base_at(self.predicted(reference, served)[0], rows, given, self.material.spec.vocabulary_size)
        return served.evidence(ask, rows, given, said, _told(served, rows, given.tokens, shares, ask), steps, base)

    def growths(self, evidence: RaceEvidence, key: SecretKey | None = None) -> F64:
        """Log growths of all bets, shape (s, n, bets), under the seed's key or another."""
        ring = self.material.ring if key is None else replace(self.material.ring, global_key=key)
        owner = ring.global_key
        assert isinstance(owner, SecretKey)
        tilt = tilts(self.material.spec, owner, evidence.contexts, evidence.subkeys, evidence.tokens, evidence.chances)
        return log_growths(evidence.ask, tilt, evidence.chances, evidence.said, evidence.shares, evidence.base)

    @cached_property
    def _bench(self) -> Bench:
        tokenizer = load_tokenizer(self.material.folder)
        return Bench(self.material.spec, tokenizer, self.material.keep / "read")


def _said(seen: Predictions, tokens: I32, chances: F64, shares: F64, ask: RaceAsk) -> I32:
    """Column of the suspect's word: its likeliest, or with a bias the one that it raises most."""
    if ask == "bias":
        raised = np.log(np.maximum(np.nan_to_num(shares), 1e-30)) - POWER * np.log(np.maximum(chances, 1e-30))
        return np.asarray(np.where((tokens >= 0) & (chances >= LEAST), raised, -np.inf).argmax(axis=1), dtype=np.int32)
    same = tokens == seen.ids[:, :1]
    return np.asarray(np.where(same.any(axis=1), same.argmax(axis=1), NOT_SAID), dtype=np.int32)


def _told(served: ServedReading, rows: npt.NDArray[np.int64], tokens: I32, shares: F64, ask: RaceAsk) -> F64:
    """The probabilities that the ask tells."""
    if ask in ("bias", "greedy"):
        return np.empty((len(rows), 0))
    if ask != "echo":
        return np.where(tokens >= 0, shares, np.nan)
    documents, places = served.where.document[rows], served.where.position[rows]
    sequences = [document.sequence for document in served.text.documents]
    own = [
        int(sequences[d][p]) if p < len(sequences[d]) else -1
        for d, p in zip(documents.tolist(), places.tolist(), strict=True)
    ]
    return np.where((tokens == np.array(own)[:, None]) & (tokens >= 0), shares, np.nan)
