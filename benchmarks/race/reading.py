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
from detect.race.bets import log_growths
from detect.race.cuts import cuts
from detect.race.evidence import NOT_SAID, RaceEvidence
from detect.race.job import RaceJob
from detect.race.served import ServedReading, served_reading
from detect.race.tilts import tilts
from detect.records.race import RaceAsk
from watermark.keys import SecretKey
from watermark.models.tokenizer import load_tokenizer

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

File = Literal["served", "all", "tenth"]
ASKS: tuple[RaceAsk, ...] = ("weights", "prompt-logprobs", "echo", "logprobs", "bias", "greedy")
LISTED = 20
"""Likely tokens that an endpoint tells at each place."""
POWER, LEAST = 0.75, 1e-3
"""Of the bias: minus so many times the logarithm of the chance, on candidates of at least this chance."""


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

    def predicted(self, suspect: Path, served: ServedReading) -> Predictions:
        """What a suspect's weights predict at these places."""
        return self._bench.predictions(suspect, served.text, served.where)

    def heard(self, suspect: Path, served: ServedReading, ask: RaceAsk, at_cuts: bool | None = None) -> RaceEvidence:
        """What the suspect says.

        Parameters
        ----------
        ask
            What is read of it.
        at_cuts
            Whether at the cuts alone, else at all places; by default as the product has it.
        """
        one_token = ask in ("logprobs", "bias", "greedy")
        rows = np.arange(len(served))
        if one_token if at_cuts is None else at_cuts:
            tokenizer = load_tokenizer(self.material.folder)
            rows = cuts(served.text, served.where, served.held, served.chances.spread, tokenizer)
        seen = self.predicted(suspect, served)
        seen = Predictions(seen.ids[rows], seen.probabilities[rows])
        given = served.chances.take(rows)
        if ask in ("prompt-logprobs", "logprobs"):
            seen = Predictions(seen.ids[:, :LISTED], seen.probabilities[:, :LISTED])
        shares = seen.at(given.tokens.astype(np.int64), self.material.spec.vocabulary_size)
        shares[~seen.known] = np.nan
        documents = served.where.document[rows]
        steps = np.arange(1, len(rows) + 1)
        if not one_token:
            steps = np.cumsum(np.diff(documents, prepend=-1) != 0)
        said = np.where(seen.known, _said(seen, given.tokens, given.chances, shares, ask), NOT_SAID)
        return served.evidence(ask, rows, given, said, _told(served, rows, given.tokens, shares, ask), steps)

    def growths(self, evidence: RaceEvidence, key: SecretKey | None = None) -> F64:
        """Log growths of all bets, shape (s, n, bets), under the seed's key or another."""
        ring = self.material.ring if key is None else replace(self.material.ring, global_key=key)
        owner = ring.global_key
        assert isinstance(owner, SecretKey)
        tilt = tilts(self.material.spec, owner, evidence.contexts, evidence.subkeys, evidence.tokens, evidence.chances)
        return log_growths(evidence.ask, tilt, evidence.chances, evidence.said, evidence.shares)

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
