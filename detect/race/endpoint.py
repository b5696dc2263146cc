"""A race readout through an endpoint: a plan is made, the suspect is asked by it, and its replies are concluded from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detect.models.forward import Progress
from detect.race.job import RaceJob
from detect.race.plan import RacePlan
from detect.records.made import Made
from detect.records.race import RaceRecord
from detect.student.asking.account import Account, ClientSettings, more_to_target
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.trouble import Tell
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a readout through an endpoint is.

    Attributes
    ----------
    steps, of
        Requests that have been answered, and those in the plan.
    cuts
        Places bet on.
    answers, lit
        Served answers asked about, and how many of them have an e-value of 10 or more for themselves.
    log10_evalue, target
        The evidence, and where it stops, log10.
    account
        What was sent.
    """

    steps: int
    of: int
    cuts: int
    answers: int
    lit: int
    log10_evalue: float
    target: float
    account: Account

    @property
    def steps_to_target(self) -> int | None:
        """Requests still to be made at the pace so far; None where the evidence does not grow."""
        return more_to_target(self.steps, self.log10_evalue, self.target)


def make_race_plan(
    job: RaceJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Tokenizer,
    output: Path,
    *,
    key: ApiKey | None = None,
    client: ClientSettings | None = None,
    progress: Progress | None = None,
) -> RacePlan:
    """Find out what the endpoint offers, read the owner's chances, choose the cuts, and write the plan.

    Parameters
    ----------
    job
        What to do; its suspect is an address.
    spec, ring, tokenizer
        The watermark, the keys that are tested (which decide whose answers may be shown, and nothing else), and the
        spec's tokenizer.
    output
        The plan's file; the owner's chances are written beside it (`detect.race.plan.chances_path`).
    key, client
        For the endpoint.
    progress
        Told how far the owner's model is.

    Raises
    ------
    DyetraceError
        What is asked for doesn't go together, the answers can't be read, the endpoint can't be asked, or offers
        nothing of what was looked for; a file is already there.
    """
    raise NotImplementedError


def trace_race_endpoint(
    plan_path: Path,
    read: str,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Tokenizer,
    output: Path,
    *,
    budgets: Budgets | None = None,
    quotes: bool = True,
    api_key: ApiKey | None = None,
    client: ClientSettings | None = None,
    made: Made | None = None,
    progress: Callable[[Standing], None] | None = None,
    tell: Tell | None = None,
) -> RaceRecord:
    """Ask by the plan until the target is reached; write replies, evidence and report to ``output``.

    After a crash the same call goes on where it ended, and asks nothing twice. The owner's model is not needed.

    Parameters
    ----------
    plan_path
        The plan's file, with the owner's chances beside it.
    read
        The served answers that the plan was made of.
    spec, ring, tokenizer
        As for `make_race_plan`.
    output
        Folder of the report and of the ledger of replies.
    budgets
        Tighter than the plan's own.
    quotes
        Whether the report may show text.
    api_key, client
        For the endpoint.
    made
        Who makes the report.
    progress
        Called before the first request and after each.
    tell
        Takes a line when the endpoint gives no answers, from any thread.

    Raises
    ------
    DyetraceError
        The plan is of other answers, another watermark or other keys; the endpoint can't be asked.
    """
    raise NotImplementedError
