"""What the commands print with --json where their result is no document of its own; no secret stands in any of it.

Each has a ``format``: the command's words and a number, which is raised when a field goes or means something else.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from detect.records.race import RaceAsk
from detect.records.scan import FileHash
from detect.records.twins import PairCounts
from watermark.ledger_file import Header


class _Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="format"):
    """What all have; later releases may add fields, so that none is forbidden."""


class KeyMade(_Result, frozen=True, kw_only=True, tag="dyetrace-keygen-1"):
    """What `keygen` made.

    Attributes
    ----------
    path
        Where the key is, which is secret.
    kind
        "master", or "tenant" for the key of one account alone.
    fingerprint
        Of the master key, also where the file holds an account's: specs and reports name it.
    tenant, epoch
        Of an account's key; null for a master key.
    """

    path: str
    kind: Literal["master", "tenant"]
    fingerprint: str
    tenant: str | None = None
    epoch: int | None = None


class SpecMade(_Result, frozen=True, kw_only=True, tag="dyetrace-spec-1"):
    """What `spec` wrote.

    Attributes
    ----------
    path
        Where the spec is.
    spec_id
        What everything else calls it.
    scheme
        Of the watermark.
    key_fingerprint
        Of the master key.
    warnings
        What the owner should know before using it.
    """

    path: str
    spec_id: str
    scheme: str
    key_fingerprint: str
    warnings: list[str]


class SpecImported(_Result, frozen=True, kw_only=True, tag="dyetrace-spec-import-1"):
    """What `spec import` wrote.

    Attributes
    ----------
    path, key_path
        Where the spec is, and where the key is, which is secret.
    spec_id
        What everything else calls the spec.
    scheme
        The foreign format.
    key_fingerprint
        Salted, of the foreign key.
    warnings
        What the owner should know before using it.
    p_values
        How p-values come about where the format's randomness leaves them inexact; null where they are exact.
    """

    path: str
    key_path: str
    spec_id: str
    scheme: str
    key_fingerprint: str
    warnings: list[str]
    p_values: str | None


class CommitmentMade(_Result, frozen=True, kw_only=True, tag="dyetrace-commit-1"):
    """What `commit` wrote.

    Attributes
    ----------
    path
        Where the commitment is, which is to be published.
    opening_path
        Where its opening is, which stays with the key.
    sha256
        The commitment itself.
    spec_id, key_fingerprint
        What it is of.
    created
        UTC, by this machine's clock.
    """

    path: str
    opening_path: str
    sha256: str
    spec_id: str
    key_fingerprint: str
    created: str


class CommitmentChecked(_Result, frozen=True, kw_only=True, tag="dyetrace-verify-commitment-1"):
    """What `verify-commitment` found.

    Attributes
    ----------
    path
        Of the commitment.
    holds
        Whether it was made of this spec and this key.
    reason
        Why it does not hold; null where it does.
    sha256, spec_id, key_fingerprint
        As the commitment has them.
    stated_date
        What the commitment's file says of when it was made: nothing covers it, and anybody can edit it.
    """

    path: str
    holds: bool
    reason: str | None
    sha256: str
    spec_id: str
    key_fingerprint: str
    stated_date: str


class Generated(_Result, frozen=True, kw_only=True, tag="dyetrace-generate-1"):
    """What `generate` wrote with -o.

    Attributes
    ----------
    path, sha256, bytes
        Of the file of answers.
    prompts, answers, tokens
        Asked, answered, and the answers' tokens in all, end tokens included.
    kept
        How many of the answers an earlier run of the same command had made.
    spec_id
        What marked them; null for unmarked ones.
    tenant
        The account that they are for, if any.
    placebo
        Whether the placebo key marked them, so that nobody may be served them.
    twins
        Pairs that this run put into the private ledger; null without one.
    """

    path: str
    sha256: str
    bytes: int
    prompts: int
    answers: int
    tokens: int
    kept: int
    spec_id: str | None
    tenant: str | None
    placebo: bool
    twins: int | None = None


class TracePlanned(_Result, frozen=True, kw_only=True, tag="dyetrace-trace-plan-1"):
    """What `trace plan` wrote.

    Attributes
    ----------
    path
        Where the plan is.
    sha256
        Of the plan's canonical form, which the report names: to be published or deposited before the first query.
    prompts, offered
        How many prompts the plan holds, and how many there were to choose from.
    seed
        Of the choice.
    samples
        Answers to each prompt.
    sampling
        Which sampling is asked for; what is not sent is the server's own.
    probed
        What was tried at the endpoint to find what it takes, and what came of it, a line each.
    spec_id, key_fingerprint
        Of the watermark that is looked for.
    """

    path: str
    sha256: str
    prompts: int
    offered: int
    seed: str
    samples: int
    sampling: str
    probed: list[str]
    spec_id: str
    key_fingerprint: str


class AskingForecast(_Result, frozen=True, kw_only=True, tag="dyetrace-trace-api-dry-run-1"):
    """What `trace api --dry-run` says that asking would take.

    Attributes
    ----------
    plan, plan_sha256
        The plan's file, and the SHA-256 of its canonical form.
    requests, cached
        To be sent, and answered by the ledger already.
    prompt_tokens, completion_tokens
        Expected.
    most_tokens
        What they can cost at most.
    spent_requests, spent_tokens
        By this plan so far.
    within_budget
        Whether all of it fits the budgets even then.
    """

    plan: str
    plan_sha256: str
    requests: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    most_tokens: int
    spent_requests: int
    spent_tokens: int
    within_budget: bool


class TwinsCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one way to ask would take; fields as of `AskingForecast`.

    Attributes
    ----------
    ask
        Which one.
    plan_sha256
        Null where no plan is made yet.
    """

    ask: Literal["logprobs", "parting", "answers"]
    plan_sha256: str | None
    requests: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    most_tokens: int
    spent_requests: int
    spent_tokens: int
    within_budget: bool


class PairsForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs to the target if so many of them speak for what was served; null where too many would be needed."""

    win_chance: float
    pairs: int | None


class TwinsForecast(_Result, frozen=True, kw_only=True, tag="dyetrace-trace-twins-dry-run-1"):
    """What `trace twins --dry-run` says that a test would take.

    Attributes
    ----------
    pairs
        Those that would be asked about, and those left out.
    costs
        Of each way to ask that is possible by now; empty where a suspect's weights are read.
    target_log10, forecasts
        How many pairs it takes to the target.
    """

    pairs: PairCounts
    costs: list[TwinsCost]
    target_log10: float
    forecasts: list[PairsForecast]


class RacePlanned(_Result, frozen=True, kw_only=True, tag="dyetrace-trace-plan-race-1"):
    """What `trace plan --owner-model` wrote.

    Attributes
    ----------
    path, sha256
        As of `TracePlanned`.
    ask, form
        What is read of the endpoint, and as what a text that is begun is sent to it.
    probed
        What was tried to find that, a line each.
    answers, cuts
        Served answers that beginnings are taken of, and places to bet on in them.
    requests
        That asking about all of them would take.
    target_log10
        Log10 of the e-value at which asking may stop.
    spec_id, key_fingerprint
        Of the watermark that is looked for.
    """

    path: str
    sha256: str
    ask: RaceAsk
    form: str
    probed: list[str]
    answers: int
    cuts: int
    requests: int
    target_log10: float
    spec_id: str
    key_fingerprint: str


class RaceReach(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to the target if the suspect was trained as the students of the benchmark were.

    Attributes
    ----------
    used
        Share of the planned answers that it was trained on.
    requests, tokens
        Until the target, tokens of prompts included; null where all that is planned would not reach it.
    """

    used: float
    requests: int | None
    tokens: int | None


class RaceForecast(_Result, frozen=True, kw_only=True, tag="dyetrace-trace-api-dry-run-race-1"):
    """What `trace api --dry-run` says that a race readout would take.

    Attributes
    ----------
    plan, plan_sha256
        The plan's file, and the SHA-256 of its canonical form.
    ask
        What is read of the endpoint.
    answers, cuts
        Served answers, and places to bet on in them.
    requests, cached
        To be sent, and answered by the ledger already.
    prompt_tokens, completion_tokens
        Expected.
    most_tokens
        What they can cost at most.
    spent_requests, spent_tokens
        By this plan so far.
    within_budget
        Whether all of it fits the budgets even then.
    target_log10, forecasts
        Log10 of the e-value at which asking may stop, and what it takes until then.
    """

    plan: str
    plan_sha256: str
    ask: RaceAsk
    answers: int
    cuts: int
    requests: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    most_tokens: int
    spent_requests: int
    spent_tokens: int
    within_budget: bool
    target_log10: float
    forecasts: list[RaceReach]


class Recomputed(_Result, frozen=True, kw_only=True, tag="dyetrace-recompute-1"):
    """What `recompute` found.

    Attributes
    ----------
    path
        Of the report.
    report
        What it is a report of.
    holds
        Whether every number that was compared is the same.
    differences
        What is not, in the record's order.
    unit, count
        What was computed anew: so many documents, contexts of a trace, pairs of twins, or places of a race readout.
    account
        Where an account's own key was given, which checks this account's part alone; else null.
    keys_unchecked
        How many of the report's keys could not be checked for that reason.
    """

    path: str
    report: Literal["detection", "scan", "trace", "twins", "race"]
    holds: bool
    differences: list[str]
    unit: Literal["documents", "contexts", "pairs", "places"]
    count: int
    account: str | None
    keys_unchecked: int


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at, how it came out, and a line about it."""

    name: str
    outcome: Literal["ok", "failed", "not done"]
    line: str


class ReportChecked(_Result, frozen=True, kw_only=True, tag="dyetrace-report-verify-1"):
    """What `report verify` found.

    Attributes
    ----------
    path
        Of the report.
    holds
        Whether nothing failed; what was not done says nothing.
    checks
        All that was looked at.
    """

    path: str
    holds: bool
    checks: list[Check]


class Drawn(_Result, frozen=True, kw_only=True, tag="dyetrace-report-render-1"):
    """What `report render` drew.

    Attributes
    ----------
    path
        Of the report.
    folder
        Where the drawings are.
    files
        The drawings.
    """

    path: str
    folder: str
    files: list[FileHash]


class ReportSigned(_Result, frozen=True, kw_only=True, tag="dyetrace-report-sign-1"):
    """What `report sign` wrote.

    Attributes
    ----------
    path, sha256
        Of the report that was signed.
    signature_path
        Where the signature is.
    public_key
        Whose it is: the Ed25519 public key in hex.
    """

    path: str
    sha256: str
    signature_path: str
    public_key: str


class SigningKeyMade(_Result, frozen=True, kw_only=True, tag="dyetrace-report-keygen-1"):
    """What `report keygen` made.

    Attributes
    ----------
    path
        Where the key is, which is secret.
    public_path
        Where its public key is, which whoever checks reports needs.
    public_key
        The same as 64 hex digits.
    """

    path: str
    public_path: str
    public_key: str


class AnswerHash(msgspec.Struct, frozen=True, kw_only=True):
    """The SHA-256 of one served answer, and its account where it has one."""

    sha256: str
    tenant: str | None = None


class AnswersHashed(_Result, frozen=True, kw_only=True, tag="dyetrace-ledger-hashes-1"):
    """What `ledger hashes` says.

    Attributes
    ----------
    path
        Of the answers.
    hashes
        One for each, in their order.
    """

    path: str
    hashes: list[AnswerHash]


class LedgersMerged(_Result, frozen=True, kw_only=True, tag="dyetrace-ledger-merge-1"):
    """What `ledger merge` wrote.

    Attributes
    ----------
    path, sha256
        Of the new ledger, as the report of a trace names it.
    header
        What it is of, and the identities of the ledgers in it.
    answers, contexts
        Counted in all of them.
    """

    path: str
    sha256: str
    header: Header
    answers: int
    contexts: int


class SchemaNames(_Result, frozen=True, kw_only=True, tag="dyetrace-schema-1"):
    """What `schema` lists without a name.

    Attributes
    ----------
    names
        Of all schemas, for `dyetrace schema NAME`.
    """

    names: list[str]


class AccountPairs(msgspec.Struct, frozen=True, kw_only=True):
    """An account (null: nobody's in particular) and how many pairs it has."""

    account: str | None
    pairs: int


class TwinsTold(_Result, frozen=True, kw_only=True, tag="dyetrace-twins-info-1"):
    """What `twins info` says.

    Attributes
    ----------
    path, identity, created
        Of the ledger, and the 32 hex digits and the time that its header holds.
    key_fingerprint
        Names the twin key.
    pairs, erased
        Pairs in all, and how many of them were erased.
    levels, months
        Pairs by level and by month (UTC), erased ones included.
    accounts
        Pairs by account, without erased ones; null where no key was given.
    unfinished_bytes
        Left at the end by a writer that was killed, and passed over.
    head
        The last hash of the chain.
    root
        Merkle root over all pairs, erased ones included.
    """

    path: str
    identity: str
    key_fingerprint: str
    created: str
    pairs: int
    erased: int
    levels: dict[str, int]
    months: dict[str, int]
    accounts: list[AccountPairs] | None
    unfinished_bytes: int
    head: str
    root: str


class TwinsCommitted(_Result, frozen=True, kw_only=True, tag="dyetrace-twins-commit-1"):
    """What `twins commit` wrote.

    Attributes
    ----------
    path
        Where the commitment is, which is to be published.
    opening_path
        Where its opening is, which stays with the key.
    root, pairs
        The commitment itself: the Merkle root, and of how many pairs it is.
    key_fingerprint, coin_sha256
        Of the twin key, and the commitment to the coin key.
    created
        UTC, by this machine's clock.
    """

    path: str
    opening_path: str
    root: str
    pairs: int
    key_fingerprint: str
    coin_sha256: str
    created: str


class TwinsRevealed(_Result, frozen=True, kw_only=True, tag="dyetrace-twins-reveal-1"):
    """What `twins reveal` wrote.

    Attributes
    ----------
    path, sha256
        Of the file, which holds withheld twins.
    root, pairs
        Of the commitment that it is to be checked against.
    revealed
        Pairs in it.
    """

    path: str
    sha256: str
    root: str
    pairs: int
    revealed: int


class RevealChecked(_Result, frozen=True, kw_only=True, tag="dyetrace-twins-verify-1"):
    """What `twins verify` found.

    Attributes
    ----------
    path
        Of the reveal.
    holds
        Whether every pair is among those committed to and was served as its coin says.
    reason
        Why it does not hold; null where it does.
    revealed, regenerated
        Pairs in it, and how many of them are twins that were drawn later and have no coin.
    pairs, root
        Of the commitment.
    coins_tossed_anew
        Whether the opening was there, so that each coin was computed under the coin key.
    """

    path: str
    holds: bool
    reason: str | None
    revealed: int
    regenerated: int
    pairs: int
    root: str
    coins_tossed_anew: bool


class TwinsExported(_Result, frozen=True, kw_only=True, tag="dyetrace-twins-export-1"):
    """What `twins export` wrote.

    Attributes
    ----------
    path, sha256
        Of the file, which holds withheld twins.
    pairs
        In it.
    account
        Whose alone; null for all.
    erased
        Pairs of the ledger that were erased, of whichever account.
    """

    path: str
    sha256: str
    pairs: int
    account: str | None
    erased: int


class ErasedPart(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs of an account (null: nobody's in particular) and a month that were erased."""

    account: str | None
    month: str
    pairs: int


class TwinsErased(_Result, frozen=True, kw_only=True, tag="dyetrace-twins-erase-1"):
    """What `twins erase` did.

    Attributes
    ----------
    path
        Of the ledger.
    pairs
        Erased now.
    parts
        The same by account and month.
    left
        Pairs that can still be read.
    """

    path: str
    pairs: int
    parts: list[ErasedPart]
    left: int


class TwinsRegenerated(_Result, frozen=True, kw_only=True, tag="dyetrace-twins-regenerate-1"):
    """What `twins regenerate` left in the ledger.

    Attributes
    ----------
    path, head, root
        Of the ledger: the last hash of its chain, and its Merkle root.
    served
        Answers in the log.
    pairs
        Of these, in the ledger with a twin by now.
    tied
        Of these pairs, those with the same text twice, which say nothing.
    refused
        Requests that the endpoint refused for good in this run.
    unserved
        Whether the answers were never served to anybody.
    """

    path: str
    served: int
    pairs: int
    tied: int
    refused: int
    unserved: bool
    head: str
    root: str
