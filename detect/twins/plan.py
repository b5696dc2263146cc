"""`TwinPlan`: everything about a test by twins that must be fixed before the first query, and its hash.

The pairs in the order of the bets, what is asked and how, models, target and budgets stand in one JSON file in the
report's folder. It is written before the suspect is asked anything and before any coin is looked at, and the same
command goes on from it.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.records.trace import ModelSeen
from detect.records.twins import LedgerSeen, PairCounts
from detect.student.asking.address import check_url
from detect.student.asking.budget import Budgets
from detect.student.asking.canonical import canonical_json
from detect.twins.selection import Level
from watermark.errors import DyetraceError
from watermark.files.versioned import check_known_version, parse_versioned
from watermark.files.writing import write_atomically

PLAN_FILE = "plan.json"
"""Its name in the folder of a report."""
PLAN_VERSION = 1

Ask = Literal["logprobs", "parting", "answers"]
ASKS: tuple[Ask, ...] = ("logprobs", "parting", "answers")
"""From the strongest access to the weakest."""

_ADDED = {"left_out", "base", "base_sha256", "form"}  # since the first release: see `canonical_json`


class PlannedPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pair by its id and its leaf hash in the ledger's Merkle tree, hex: neither says anything of its texts."""

    id: str
    leaf: str


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the pairs were chosen; see `detect.twins.selection.PairChoice`.

    Attributes
    ----------
    offered
        Pairs of the accounts and times asked for.
    counts
        Which of them are left out, and why.
    """

    level: Level
    accounts: list[str]
    since: str | None
    until: str | None
    sample: float
    seed: str
    most: int | None
    offered: int
    counts: PairCounts


class TwinPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A test by twins, as fixed before its first query.

    Attributes
    ----------
    created
        UTC, by the analyst's clock.
    arguments
        Options of the command that change the result: a command with others is another test.
    mode
        "weights" or "api".
    suspect, reference, owner
        Models: the suspect, what it is compared with, and the owner's own; null where there is none.
    url, model
        Base address of the suspect's endpoint and its name there; null for weights.
    ask
        What is read of the suspect.
    measure
        How, as the measure's own settings; whatever is large (places, a reference's readings) by its SHA-256.
    probed
        What was tried at the endpoint before, and what came of it, a line each.
    columns, covariates
        Names of the numbers of a pair.
    choice, pairs
        How the pairs were chosen, and which they are, in the order of the bets.
    ledger
        They are from.
    target_log10
        Log10 of the e-value at which asking may stop.
    left_out
        Settings that no request has, since the endpoint doesn't take them (`detect.student.asking.fields.fitted`).
    """

    format: Literal["dyetrace-twin-plan"] = "dyetrace-twin-plan"
    version: int = PLAN_VERSION
    created: str
    arguments: dict[str, str | int | float | bool | list[str] | None]
    mode: Literal["weights", "api"]
    suspect: ModelSeen
    reference: ModelSeen | None
    owner: ModelSeen | None
    url: str | None
    model: str | None
    ask: Ask
    measure: dict[str, Any]
    probed: list[str] = []
    columns: list[str]
    covariates: list[str]
    choice: Choice
    pairs: list[PlannedPair]
    ledger: LedgerSeen
    target_log10: float = 10.0
    alpha: float = DEFAULT_ALPHA
    budgets: Budgets = msgspec.field(default_factory=Budgets)
    left_out: list[str] = []

    def __post_init__(self) -> None:
        _check_version(self.version)
        check_alpha(self.alpha)
        check_target(self.target_log10)
        if self.url is not None:
            check_url(self.url)
        if not self.pairs:
            raise DyetraceError("the plan has no pairs; choose at least one")
        if len({pair.id for pair in self.pairs}) < len(self.pairs):
            raise DyetraceError("the plan names a pair twice, and each coin is bet on once")


def check_target(log10: float) -> None:
    """Raise DyetraceError unless a target is one."""
    if not (math.isfinite(log10) and log10 > 0):
        raise DyetraceError(f"the target must be a positive number, log10 of an e-value (got {log10:g})")


def _check_version(version: int) -> None:
    check_known_version(version, PLAN_VERSION, "plan")


def canonical_plan(plan: TwinPlan) -> bytes:
    """The one byte string that stands for this plan: all fields, sorted keys, no white space."""
    return canonical_json(parse_plan(msgspec.json.encode(plan), "the plan"), _ADDED)


def plan_sha256(plan: TwinPlan) -> str:
    """SHA-256 (hex) of the canonical plan."""
    return hashlib.sha256(canonical_plan(plan)).hexdigest()


def parse_plan(data: bytes, where: str) -> TwinPlan:
    """Read a plan from JSON.

    Raises
    ------
    DyetraceError
        Not JSON, an unknown or missing field, a value out of range, or another version.
    """
    return parse_versioned(
        data,
        TwinPlan,
        where,
        what="a plan of a test by twins",
        restore="restore it, or begin in another folder",
        check_version=_check_version,
    )


def kept_plan(output: Path) -> TwinPlan | None:
    """The plan that lies in a folder; None where there is none."""
    path = output / PLAN_FILE
    if not os.path.lexists(path):
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read plan {path}: {error.strerror}") from None
    return parse_plan(data, f"plan {path}")


def keep_plan(output: Path, plan: TwinPlan) -> None:
    """Write the plan to the folder, which holds none."""
    write_atomically(output / PLAN_FILE, msgspec.json.format(canonical_plan(plan), indent=2) + b"\n", replace=False)


def check_same_test(plan: TwinPlan, arguments: dict[str, Any], output: Path) -> None:
    """Raise DyetraceError unless a command is the one that the plan in its folder was made by."""
    names = {*plan.arguments, *arguments}
    other = sorted(name for name in names if plan.arguments.get(name) != arguments.get(name))
    if other:
        options = ", ".join(name.replace("_", "-") for name in other)
        raise DyetraceError(
            f"{output / PLAN_FILE} is the plan of another test (these are not the same: {options}); give the same "
            "command again to go on with it, or another folder with -o"
        )
