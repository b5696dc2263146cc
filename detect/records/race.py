"""The record of a race readout: what `report.json` holds, from which every other form of the report is drawn.

It holds no secret. `race.npz` beside it (named here with its SHA-256) holds contexts, the owner's chances and what the
suspect said at each cut, in the order of the bets: with the spec and the key another party computes every number again,
without the suspect and without the owner's model.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from detect.records.key_name import KeyName
from detect.records.report import Report
from detect.records.scan import FileHash
from detect.records.trace import CurvePoint, ModelSeen, PlanSeen, Queries, Reading
from watermark.commitment import Commitment
from watermark.spec import WatermarkSpec

RACE_VERSION = 1

RaceAsk = Literal["weights", "prompt-logprobs", "echo", "logprobs", "bias", "greedy"]
"""What is read of the suspect: its weights, or through an endpoint the log-probabilities of a whole served answer (of
likely tokens, or of the answer's own alone), those of one next token, or one next word (with a bias against words that
are likely anyway, or without)."""


class SamplingSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings that the owner's chances were computed with.

    Attributes
    ----------
    source
        "recorded": they stand with each served answer. "given": the analyst gave them. "assumed": nobody knows them.
        Wrong ones cost evidence; the test stays exact.
    settings
        The different ones, as many as there are: "temperature 0.8, top-p 0.95".
    """

    source: Literal["recorded", "given", "assumed"]
    settings: list[str]


class RaceCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which places entered; nothing that the key decided later than a place had a say.

    Attributes
    ----------
    answers
        Served answers that were read.
    fresh
        Places where a context is used for the first time in all of them.
    unheld
        Of these, left out since no key that is tested marks them.
    cuts
        Of the rest, planned.
    asked, silent
        Of these, bet on before the end (the rows of ``race.npz``), and of those the ones whose reply says nothing.
    """

    answers: int
    fresh: int
    unheld: int
    cuts: int
    asked: int
    silent: int


class RaceFound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key's cuts.

    Attributes
    ----------
    key
        "global" or "tenant:NAME".
    cuts
        Where this key chose the next word, and the suspect said something.
    hits, expected
        How often the suspect's likeliest word was the one that the key chose, and how often chance has it: the sum of
        the owner's chances of the suspect's words. For schemes that choose no single word, the weight that the key put
        on the suspect's words.
    log10_pvalue
        Of so many hits, as if the chances had been fixed beforehand (Poisson-binomial); null where hits are no counts
        or asking might end early. For information: later cuts' chances depend on what the key chose at earlier ones,
        which the bets allow for, and the verdict rests on these.
    log10_evalue
        Of the bets on these cuts.
    log10_evalue_adjusted
        The same divided by the number of accounts, which pays for the choice among them; of the global key the same.
    """

    key: str
    cuts: int
    hits: float
    expected: float
    log10_pvalue: float | None
    log10_evalue: float
    log10_evalue_adjusted: float


class LitAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A served answer that the suspect seems to have learnt from.

    Attributes
    ----------
    name
        "FILE, line N".
    account
        Whom it was served to; null where that is not on record.
    cuts, hits, expected
        As of `RaceFound`.
    log10_evalue
        Of the bets on this answer alone.
    """

    name: str
    account: str | None
    cuts: int
    hits: float
    expected: float
    log10_evalue: float


class ShownCut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A cut for the page.

    Attributes
    ----------
    answer
        "FILE, line N".
    begun
        The end of what the suspect was shown.
    chosen
        What the key chose there, and whoever asked was served.
    said
        The suspect's likeliest word.
    chance
        The owner's chance of what the key chose.
    """

    answer: str
    begun: str
    chosen: str
    said: str
    chance: float


class RaceControls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same bets under keys that nobody used.

    Attributes
    ----------
    decoy_seed
        Public.
    decoy_log10_evalues
        Of each decoy.
    """

    decoy_seed: str
    decoy_log10_evalues: list[float]


class RaceRecord(Report, frozen=True, kw_only=True):
    """A whole race readout.

    Attributes
    ----------
    arguments
        Options of the command, by name, those that change the result.
    mode, ask
        Weights or an endpoint, and what was read of it.
    spec, spec_id, key_fingerprint, commitment
        The watermark and its key.
    suspect, owner
        The suspect, and the owner's model, whose chances the bets are made against.
    reference
        A model that the suspect was compared with; null where there was none.
    sampling
        How the owner's model drew its answers.
    reading
        The served answers.
    target_log10
        Log10 of the e-value at which asking might end.
    hypotheses
        Each key that is held.
    identified
        Accounts whose adjusted e-value reaches 1 / alpha.
    log10_evalue
        Of all cuts together, each under the key that marked it, in the order of serving.
    log10_pvalue
        min(0, -log10_evalue): valid whenever one looks. Null when it is refused.
    curve
        Evidence after so many cuts; it has no p-values.
    lit
        The answers with the largest e-values, those above 1 alone.
    shown
        Cuts where the suspect hit a word of small chance, the smallest first; empty where the report is to quote
        nothing.
    quotes
        Whether cuts may be shown.
    files
        Files that belong to the report.
    """

    format: Literal["dyetrace-race"] = "dyetrace-race"
    version: int = RACE_VERSION
    arguments: dict[str, str | int | float | bool | list[str] | None]
    mode: Literal["weights", "api"]
    ask: RaceAsk
    spec: WatermarkSpec
    spec_id: str
    key_fingerprint: str
    commitment: Commitment | None
    suspect: ModelSeen
    owner: ModelSeen
    sampling: SamplingSeen
    reading: Reading
    counts: RaceCounts
    hypotheses: list[RaceFound]
    identified: list[str]
    target_log10: float
    log10_evalue: float
    log10_pvalue: float | None
    refused: str | None
    found: bool
    curve: list[CurvePoint]
    lit: list[LitAnswer]
    shown: list[ShownCut]
    quotes: bool
    controls: RaceControls
    plan: PlanSeen | None
    queries: Queries | None
    files: list[FileHash]
    reference: ModelSeen | None = None

    @property
    def accounts(self) -> list[RaceFound]:
        """The accounts' keys among those tested."""
        return [found for found in self.hypotheses if not KeyName.read(found.key).is_global]
