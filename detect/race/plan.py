"""`RacePlan`: everything about a race readout through an endpoint that must be fixed before its first query.

The plan holds no key, no text and nothing that the key decided after a cut, so that it can be published before the
suspect is asked. The owner's chances at its cuts lie in a file beside it, which it names by SHA-256: whoever has both,
the served answers and the key needs the owner's model no more.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.race.chances import F64, Chances
from detect.records.arrays import encode_arrays, read_arrays
from detect.records.race import SamplingSeen
from detect.records.trace import ModelSeen
from detect.student.asking.address import check_url
from detect.student.asking.budget import Budgets
from detect.student.asking.canonical import canonical_json
from detect.student.asking.fields import sampling_in_words
from detect.student.asking.forms import Form
from watermark.commitment import Commitment
from watermark.errors import DyetraceError, EvidenceError
from watermark.files.versioned import check_known_version, parse_versioned
from watermark.files.writing import write_atomically

RACE_PLAN_FORMAT = "dyetrace-race-plan"
RACE_PLAN_VERSION = 1
PLAN_FILE = "plan.json"
"""Where a program that plans and asks in one call keeps the plan, in the folder of the report."""

RaceEndpointAsk = Literal["prompt-logprobs", "echo", "logprobs", "bias", "greedy"]
RACE_ASKS: tuple[RaceEndpointAsk, ...] = ("prompt-logprobs", "echo", "logprobs", "bias", "greedy")
"""From the strongest access to the weakest (`detect.records.race.RaceAsk`)."""
WHOLE_ANSWERS: frozenset[str] = frozenset({"prompt-logprobs", "echo"})
"""Asks that read a whole served answer in one request; the others ask for one token at a cut."""

Shown = Literal["ids", "rendered", "plain", "messages"]
"""What a request holds: the token ids as they were served; their text, special tokens included; the bare prompt, a line
feed and the answer; or messages, which the server puts into the suspect's own chat template."""

_ADDED = {"left_out", "base", "base_sha256", "form"}  # since the first release: see `canonical_json`


class RaceAsking(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the suspect is asked, as its endpoint was found to allow.

    Attributes
    ----------
    ask
        What is read of it.
    form, shown
        How it is made to go on with an answer, and what the request holds.
    ids
        Whether the endpoint's token ids were found to be the spec's own.
    repeats
        Whether replies begin with the answer's beginning once more, which is then taken off.
    max_tokens
        Of a reply.
    run
        Of its tokens so many are read: those behind the first say something at the places behind the cut, while the
        reply says what was served.
    alternatives
        Likely tokens that are asked for at each place; 0 where no log-probabilities are.
    named
        Whether the log-probabilities of the candidates are asked for by their ids, whatever is likely.
    extra
        Further fields of each request.
    left_out
        Settings that no request has, since the endpoint doesn't take them (`detect.student.asking.fields.fitted`).
    power, least
        Of "bias": each candidate of at least the chance ``least`` gets a bias of minus ``power`` times the logarithm
        of its chance.
    """

    ask: RaceEndpointAsk
    form: Form
    shown: Shown
    ids: bool
    repeats: bool = False
    max_tokens: int = 1
    run: int = 1
    alternatives: int = 0
    named: bool = False
    extra: dict[str, Any] = {}
    power: float = 0.0
    least: float = 0.0
    left_out: list[str] = []


class ServedSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The served answers of the plan.

    Attributes
    ----------
    name, sha256
        The file.
    answers
        In it, of the account that was asked for where one was.
    fresh, unheld
        Places where a context is used for the first time, and those of them that no key under test marks.
    tenant, taken, complete
        As they were given: see `detect.records.trace.Reading`.
    """

    name: str
    sha256: str
    answers: int
    fresh: int
    unheld: int
    tenant: str | None = None
    taken: Literal["all", "random"] | None = None
    complete: str | None = None


class RaceRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which places are asked about; null where all are.

    Attributes
    ----------
    per_answer
        The first so many of each answer.
    spread
        Only places where the chance that two draws differ, 1 less the sum of the squared chances, is at least this.
    """

    per_answer: int | None
    spread: float | None


class RacePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A race readout through an endpoint, as fixed before its first query.

    Attributes
    ----------
    created
        UTC, by the analyst's clock.
    arguments
        Options of the command that made it.
    url, model
        Base address of the suspect's endpoint, and its name there.
    spec_id, key_fingerprint, commitment
        The watermark, and the key by its fingerprint.
    accounts
        Those whose keys are tested, ascending; no answer of another account is shown to the suspect.
    owner
        The owner's model.
    sampling
        How it drew its answers.
    reference
        A model that the suspect is compared with; null where there is none.
    served
        The served answers.
    rule, asking
        Which places are asked about, and how.
    probed
        What was tried at the endpoint before, and what came of it, a line each.
    cuts
        The document and the position of the token that the key chose there, in the order of serving.
    chances_sha256
        Of the file with the owner's chances at these cuts, and the reference's probabilities.
    target_log10
        Log10 of the e-value at which asking may stop.
    decoy_seed, decoys
        Of the keys that nobody used.
    """

    format: Literal["dyetrace-race-plan"] = "dyetrace-race-plan"
    version: int = RACE_PLAN_VERSION
    created: str
    arguments: dict[str, str | int | float | bool | list[str] | None]
    url: str
    model: str
    spec_id: str
    key_fingerprint: str
    commitment: Commitment | None = None
    accounts: list[str]
    owner: ModelSeen
    sampling: SamplingSeen
    served: ServedSeen
    rule: RaceRule
    asking: RaceAsking
    probed: list[str] = []
    cuts: list[tuple[int, int]]
    chances_sha256: str
    target_log10: float = 10.0
    alpha: float = DEFAULT_ALPHA
    decoy_seed: str
    decoys: int
    budgets: Budgets = msgspec.field(default_factory=Budgets)
    reference: ModelSeen | None = None

    def __post_init__(self) -> None:
        check_known_version(self.version, RACE_PLAN_VERSION, "plan")
        check_alpha(self.alpha)
        check_url(self.url)
        if not (math.isfinite(self.target_log10) and self.target_log10 > 0):
            raise DyetraceError(
                f"the target must be a positive number, log10 of an e-value (got {self.target_log10:g})"
            )
        if not self.cuts:
            raise DyetraceError("the plan has no places to ask about; read more served answers")
        if any(one >= other for one, other in pairwise(self.cuts)) or min(map(min, self.cuts)) < 0:
            raise DyetraceError("the plan's places are not in the order of serving, or one of them stands there twice")

    @property
    def ask(self) -> RaceEndpointAsk:
        """What is read of the suspect."""
        return self.asking.ask

    @property
    def asked_for(self) -> str:
        """Which sampling is asked for, for people."""
        settings = {"temperature": 0, "max_tokens": self.asking.max_tokens}
        return sampling_in_words(settings, self.asking.left_out)

    @property
    def whole_answers(self) -> bool:
        """Whether a request reads a whole served answer."""
        return self.asking.ask in WHOLE_ANSWERS

    @property
    def suspect(self) -> ModelSeen:
        """The suspect as records name it."""
        tokenizer: Literal["same", "text"] = "same" if self.asking.ids else "text"
        return ModelSeen(name=f"{self.model} at {self.url}", sha256="", tokenizer=tokenizer)


def canonical_plan(plan: RacePlan) -> bytes:
    """The one byte string that stands for this plan: all fields, sorted keys, no white space."""
    return canonical_json(parse_plan(msgspec.json.encode(plan), "the plan"), _ADDED)


def plan_sha256(plan: RacePlan) -> str:
    """SHA-256 (hex) of the canonical plan."""
    return hashlib.sha256(canonical_plan(plan)).hexdigest()


def is_race_plan(data: bytes) -> bool:
    """Whether a file's bytes are meant to be such a plan, sound or not."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == RACE_PLAN_FORMAT


def parse_plan(data: bytes, where: str) -> RacePlan:
    """Read a plan from JSON.

    Raises
    ------
    DyetraceError
        Not JSON, an unknown or missing field, a value out of range, or another version.
    """
    return parse_versioned(
        data,
        RacePlan,
        where,
        what="a plan of a race readout",
        restore="restore it, or make it again with dyetrace trace plan",
        check_version=lambda version: check_known_version(version, RACE_PLAN_VERSION, "plan"),
    )


def load_plan(path: str | Path) -> RacePlan:
    """Read a plan's file.

    Raises
    ------
    DyetraceError
        It can't be read, or is no plan.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read plan {path}: {error.strerror}") from None
    return parse_plan(data, f"plan {path}")


def chances_path(plan_path: str | Path) -> Path:
    """Where the owner's chances lie that belong to a plan's file.

    Examples
    --------
    >>> chances_path("evidence/plan.json").name
    'plan.chances.npz'
    """
    path = Path(plan_path)
    return path.with_name(f"{path.stem}.chances.npz")


@dataclass(frozen=True, slots=True, eq=False)
class PlannedChances:
    """What the owner's model says, as far as a plan rests on it.

    Attributes
    ----------
    cuts
        The owner's chances at the plan's n cuts.
    spread
        How often two draws of the owner's differ, at each of the m fresh places of the answers, shape (m,): by it cuts
        were chosen.
    base
        A reference's probabilities of the candidates at the n cuts, as `detect.race.evidence.RaceEvidence` has them;
        None where there is none.
    """

    cuts: Chances
    spread: F64
    base: F64 | None = None


def encode_chances(given: PlannedChances) -> bytes:
    """The bytes of the file with the chances; equal ones give equal bytes."""
    return encode_arrays(
        {
            "tokens": given.cuts.tokens.astype("<i4"),
            "chances": given.cuts.chances.astype("<f8"),
            "spread": given.spread.astype("<f8"),
            **({} if given.base is None else {"base": given.base.astype("<f8")}),
        }
    )


def save_plan(path: str | Path, plan: RacePlan, chances: bytes) -> None:
    """Write the plan, and before it the chances beside it; neither may be there already with other contents.

    Raises
    ------
    DyetraceError
        A file can't be written, or another one lies there.
    """
    beside = chances_path(path)
    kept = beside.exists() and hashlib.sha256(beside.read_bytes()).hexdigest() == plan.chances_sha256
    if not kept:
        write_atomically(beside, chances, replace=False)
    write_atomically(Path(path), msgspec.json.format(canonical_plan(plan), indent=2) + b"\n", replace=False)


def load_chances(plan_path: str | Path, plan: RacePlan) -> PlannedChances:
    """Read the chances that belong to a plan.

    Raises
    ------
    DyetraceError
        They can't be read.
    EvidenceError
        They are not the plan's, or damaged.
    """
    path = chances_path(plan_path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DyetraceError(
            f"cannot read the owner's chances {path}: {error.strerror}; keep that file beside the plan"
        ) from None
    if hashlib.sha256(data).hexdigest() != plan.chances_sha256:
        raise EvidenceError(f"{path} is not the file that the plan was made with; restore both from a copy")
    arrays: dict[str, Any] = read_arrays(path)
    try:
        found = PlannedChances(
            Chances(arrays["tokens"].astype(np.int32), arrays["chances"].astype(np.float64)),
            arrays["spread"].astype(np.float64),
            arrays["base"].astype(np.float64) if "base" in arrays else None,
        )
    except KeyError as error:
        raise EvidenceError(f"{path} has no array {error}; restore it from a copy") from None
    cuts = found.cuts
    if cuts.tokens.ndim != 2 or cuts.tokens.shape != cuts.chances.shape or len(cuts) != len(plan.cuts):
        raise EvidenceError(f"{path} has other cuts than the plan; restore both from a copy")
    shape = None if found.base is None else found.base.shape
    if shape != (None if plan.reference is None else cuts.chances.shape):
        raise EvidenceError(f"{path} has another reference than the plan; restore both from a copy")
    return found
