"""What a race readout is asked to do, of weights or of an endpoint, before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.records.race import RaceAsk
from detect.student.asking.address import check_url
from detect.student.asking.budget import Budgets
from detect.student.asking.fields import as_options
from detect.student.texts.complete import FILTERED
from watermark.commitment import Commitment
from watermark.errors import DyetraceError
from watermark.generate import SamplingUsed
from watermark.models.folder import DEVICES, DTYPES

Via = Literal["auto", "completions", "prefill"]
"""How an endpoint is made to go on from a begun answer: as plain text, or as a chat whose last message is begun."""

SPREAD = 0.7
"""Least 1 - sum p^2 of the owner's chances at a place where a request is made for the next word: how often two draws
of the owner's differ. What is more certain tells less of the key."""

PER_ANSWER = 24
"""Most requests about an answer, where words are asked for. It is left sooner where its bets lose
(`detect.race.bets.goes_on`)."""

RUN = 8
"""Tokens of a reply to one cut that are read: as long as it says what was served, what it says next is said there."""

ECHO_ALONE = "an echo is not compared with a reference: leave out --reference, or give another --ask"

_CONTEXTS = 50_000


@dataclass(frozen=True, kw_only=True)
class RaceJob:
    """What to read, of whom, and what decides the result.

    Attributes
    ----------
    suspect
        Its folder, or the base address of its endpoint.
    read
        File of the served answers, in the order of serving.
    owner_model
        Folder of the model that made them.
    reference
        Folder of a model to compare with, best the suspect's base model; None needs none.
    model
        The suspect's name at its endpoint; None for a folder.
    ask, via
        What is read of an endpoint and how it is made to go on; weights are read whole.
    per_answer, spread
        Where one token is asked for (`detect.race.cuts`).
    contexts
        Most fresh places, in the order of serving.
    read_tenant
        Read only the answers served to this account.
    taken
        How the answers were taken from all that were served, as the analyst says: "all" or "random".
    complete
        A server's ledger or list of hashes that they must be all of.
    temperature, top_k, top_p, min_p
        The owner's sampling of answers that have no record of it; None where the analyst doesn't say.
    target_log10
        Log10 of the e-value at which asking an endpoint ends.
    alpha
        Level of the verdict.
    decoys, decoy_seed
        Number and public seed of the keys that nobody used.
    dtype, device
        Number format of local models, and where they run.
    base
        The base model of adapters among them; None takes the folders that they name themselves.
    budgets
        Of an endpoint.
    quotes
        Whether the report may show text.
    commitment
        To put on record.
    left_out
        Settings that no request to an endpoint is to have (`detect.student.asking.fields`).
    """

    suspect: str
    read: str
    owner_model: Path
    reference: Path | None = None
    model: str | None = None
    ask: RaceAsk | Literal["auto"] = "auto"
    via: Via = "auto"
    per_answer: int = PER_ANSWER
    spread: float = SPREAD
    contexts: int = _CONTEXTS
    read_tenant: str | None = None
    taken: Literal["all", "random"] | None = None
    complete: Path | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    target_log10: float = 10.0
    alpha: float = DEFAULT_ALPHA
    decoys: int = 100
    decoy_seed: str = "dyetrace"
    dtype: str = "bfloat16"
    device: str = "auto"
    base: Path | None = None
    budgets: Budgets = field(default_factory=Budgets)
    quotes: bool = True
    commitment: Commitment | None = None
    left_out: tuple[str, ...] = ()

    @property
    def through_endpoint(self) -> bool:
        """Whether the suspect is an address."""
        return self.suspect.startswith(("http://", "https://"))

    @property
    def sampling(self) -> SamplingUsed | None:
        """The settings that the analyst gave; None where none was given."""
        given = {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
        }
        known = {name: value for name, value in given.items() if value is not None}
        return SamplingUsed(**known) if known else None  # type: ignore[arg-type]

    @property
    def arguments(self) -> dict[str, str | int | float | bool | list[str] | None]:
        """What decides about the result, by the options' names."""
        return {
            "suspect": self.suspect,
            "model": self.model,
            "read": self.read,
            "owner_model": str(self.owner_model),
            **({} if self.reference is None else {"reference": str(self.reference)}),
            **({} if self.base is None else {"base": str(self.base)}),
            "ask": self.ask,
            "via": self.via,
            "per_answer": self.per_answer,
            "spread": self.spread,
            "contexts": self.contexts,
            "read_tenant": self.read_tenant,
            "taken": self.taken,
            "complete": None if self.complete is None else str(self.complete),
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "target": self.target_log10,
            "alpha": self.alpha,
            "decoys": self.decoys,
            "decoy_seed": self.decoy_seed,
            "dtype": self.dtype,
            **as_options(self.left_out),
        }

    def check(self) -> None:
        """Raise DyetraceError where things were asked for that don't go together, or are out of range."""
        check_alpha(self.alpha)
        _ = self.sampling
        if not (math.isfinite(self.target_log10) and self.target_log10 > 0):
            raise DyetraceError(
                f"the target must be a positive number, log10 of an e-value (got {self.target_log10:g})"
            )
        if self.decoys < 0:
            raise DyetraceError(f"the number of decoys must be 0 or more (got {self.decoys})")
        if self.per_answer < 1 or self.contexts < 1:
            raise DyetraceError("the number of places in an answer, and of contexts in all, must be 1 or more")
        if not 0 <= self.spread < 1:
            raise DyetraceError(f"spread must lie in [0, 1) (got {self.spread:g})")
        if self.taken not in (None, "all", "random"):
            raise DyetraceError(FILTERED)
        if self.dtype not in DTYPES:
            raise DyetraceError(f"dtype ({self.dtype!r}) must be one of {', '.join(DTYPES)}")
        if self.device not in DEVICES:
            raise DyetraceError(f"device ({self.device!r}) must be one of {', '.join(DEVICES)}")
        if self.reference is not None and self.ask == "echo":
            raise DyetraceError(ECHO_ALONE)
        if self.through_endpoint:
            self._check_endpoint()
        elif self.model is not None:
            raise DyetraceError("--model names a suspect at its endpoint, and this one is a folder: leave it out")
        elif self.ask not in ("auto", "weights") or self.via != "auto":
            what = f"--ask {self.ask}" if self.ask not in ("auto", "weights") else f"--via {self.via}"
            raise DyetraceError(
                f"of a model folder the weights are read, which tell most: leave out {what}, or serve the model and "
                "give its address"
            )

    def _check_endpoint(self) -> None:
        check_url(self.suspect)
        if not (self.model or "").strip():
            raise DyetraceError("an endpoint needs the suspect's name there: give --model")
        if self.ask == "weights":
            raise DyetraceError("an endpoint doesn't show its weights: leave out --ask weights")
