"""The record of a test by twins: what `report.json` holds, from which every other form of the report is drawn.

`twins.npz` beside it (named here with its SHA-256) holds every pair's differences and sign in the order of the bets, so
that another party computes each number again without the suspect, the ledger or a key.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from detect.records.report import Report
from detect.records.scan import FileHash, Interval
from detect.records.trace import CurvePoint, ModelSeen, PlanSeen, Queries

TWINS_VERSION = 1


class LedgerSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The private ledger of pairs.

    Attributes
    ----------
    name, head, pairs
        The file, the last hash of its chain, and how many pairs it holds in all.
    root
        Merkle root of the hashes of all its pairs (`dyetrace twins commit`), hex.
    committed
        What was published of it and when, where that was before the first query: the root; null where nothing was.
    key_fingerprint
        Names the twin key.
    """

    name: str
    head: str
    pairs: int
    root: str
    committed: str | None
    key_fingerprint: str


class PairCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which of the ledger's pairs entered; all of it was decided without a coin.

    Attributes
    ----------
    eligible
        Of the accounts and times asked for.
    sampled
        Of these, chosen by the public seed.
    tied, follow_ups
        Of these, left out: equal twins, and prompts that quote an answer of an earlier pair.
    erased
        Pairs of the ledger whose text was erased, so that nobody can ask about them; not among the eligible.
    used
        Planned: the rest of the sample, no more than the plan's limit, the first in time.
    asked, silent
        Of these, bet on before the end (the rows of ``twins.npz``), and of those the ones without any usable
        difference.
    """

    eligible: int
    sampled: int
    tied: int
    follow_ups: int
    erased: int
    used: int
    asked: int
    silent: int


class MeasureFound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One number of a pair over all pairs: how often it spoke for the served twin, and against.

    Attributes
    ----------
    name
        A column of ``twins.npz``; the first one stands for the measure.
    wins, losses, ties
        Pairs in which it spoke for the served twin, for the withheld one, and for neither.
    log10_pvalue
        Exact sign test, one-sided, ties dropped; of a coin as far from fair as ``law.bias`` allows, where there is a
        law test. For information: the verdict rests on the bets.
    """

    name: str
    wins: int
    losses: int
    ties: int
    log10_pvalue: float


class AccountFound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One account's own coins.

    Attributes
    ----------
    pairs, wins, losses
        The account's among the pairs that were bet on, and how the first number spoke in them.
    log10_evalue
        Of the bets on these pairs alone, in their order.
    log10_evalue_adjusted
        The same divided by the number of accounts, which pays for the choice among them.
    """

    account: str
    pairs: int
    wins: int
    losses: int
    log10_evalue: float
    log10_evalue_adjusted: float


ControlKind = Literal["owner", "unrelated", "classifier", "unserved"]
NEEDED_KINDS: dict[ControlKind, str] = {
    "owner": "the owner's model",
    "unrelated": "a model of another family",
    "classifier": "the learnt classifier",
}
"""Of controls: a law test without a veto has at least one of each that bounds the bias; and what each is."""


class LawControl(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A control of regenerated twins: who preferred served ones though it can't have learnt from them, and how often.

    Attributes
    ----------
    name
        "the owner's model", "unrelated model ...", "classifier".
    kind
        "owner": the model that made both answers, or what is seen without a model. "unrelated": another one, which
        can't have learnt from them. "classifier": what was learnt from earlier pairs. "unserved": anybody, on answers
        that were never served.
    log10_pvalue
        Two-sided and exact, that these are fair coins.
    bias_upper
        Upper limit of |P(win) - 1/2|, at 99% for all controls together that bound the bias.
    bounds
        Whether ``LawTest.bias`` is the largest of this and its like; others can only refuse.
    """

    name: str
    kind: ControlKind
    pairs: int
    wins: int
    losses: int
    log10_pvalue: float
    bias_upper: float
    bounds: bool = True


class LawTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether regenerated twins follow the law of the served answers.

    Attributes
    ----------
    bias
        The largest P(win) - 1/2 that the verdict allows for under its null.
    veto
        Why no verdict is given; null where none is needed.
    """

    controls: list[LawControl]
    bias: float
    veto: str | None


class WatermarkLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trace of the watermark in the same suspect: a second line of evidence, under another secret.

    Attributes
    ----------
    report_sha256
        Of that trace's report.json.
    log10_evalue
        Its own.
    log10_evalue_together
        Of both lines.
    rule
        "product" where the trace read no answer that the coins decided about; else "mean", which is an e-value
        whatever two lines have in common.
    """

    report_sha256: str
    log10_evalue: float
    log10_evalue_together: float
    rule: Literal["product", "mean"]


class ShownPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pair for the page: what was asked, both answers, and what the suspect said.

    Attributes
    ----------
    suspect
        Null where it was not let speak.
    difference
        The first number of the measure, positive where it spoke for the served twin.
    """

    id: str
    prompt: str
    served: str
    withheld: str
    suspect: str | None
    difference: float


class TwinRecord(Report, frozen=True, kw_only=True):
    """A whole test by twins.

    Attributes
    ----------
    arguments
        Options of the command, by name, those that change the result.
    level
        "withheld" (exact), or "regenerated" (rests on the law test too).
    mode, ask
        Weights or an endpoint, and what was read of it.
    suspect, reference
        The models; the reference is null where there was none.
    accounts
        Those that were named, ascending by name; else empty.
    target_log10
        Log10 of the e-value at which asking might end.
    log10_evalue
        Of the bets, over all pairs in the order of time, whatever was learnt on the way.
    log10_pvalue
        min(0, -log10_evalue): valid whenever one looks. Null when it is refused.
    measures
        Beside the bets, each alone.
    share
        Of the pairs, how many were used, as far as wins over pairs tell; null where it is not identified.
    share_reason
        How it was estimated, or why it is not identified.
    curve
        Evidence after so many pairs; its p-values are the first number's sign tests, for the eye.
    law
        For regenerated twins alone.
    shown
        The pairs in which the first number differs most, the most telling first; empty where the report is to quote no
        text.
    quotes
        Whether pairs may be shown.
    watermark
        The other line of evidence, where the same suspect was traced for the watermark too.
    identified
        Accounts whose adjusted e-value reaches 1 / alpha.
    files
        Files that belong to the report.
    """

    format: Literal["dyetrace-twins"] = "dyetrace-twins"
    version: int = TWINS_VERSION
    arguments: dict[str, str | int | float | bool | list[str] | None]
    level: Literal["withheld", "regenerated"]
    mode: Literal["weights", "api"]
    ask: Literal["logprobs", "parting", "answers"]
    suspect: ModelSeen
    reference: ModelSeen | None
    ledger: LedgerSeen
    pairs: PairCounts
    measures: list[MeasureFound]
    accounts: list[AccountFound]
    identified: list[str]
    target_log10: float
    log10_evalue: float
    log10_pvalue: float | None
    refused: str | None
    found: bool
    share: Interval | None
    share_reason: str
    curve: list[CurvePoint]
    law: LawTest | None
    shown: list[ShownPair]
    plan: PlanSeen | None
    queries: Queries | None
    files: list[FileHash]
    quotes: bool = True
    watermark: WatermarkLine | None = None
