"""The record of a trace: what `report.json` holds, from which every other form of the report is drawn.

It holds no secret. `evidence.npz` beside it (named here with its SHA-256) holds the weighted tuples, so that another
party with the spec and the key computes every total, p-value and e-value again without the suspect model.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from detect.records.key_name import TENANT, KeyName
from detect.records.report import Report
from detect.records.scan import FileHash, Interval
from watermark.commitment import Commitment
from watermark.spec import WatermarkSpec

TRACE_VERSION = 1
_Z_COMPARED = 6.361340902404057  # -scipy.special.ndtri_exp(-10 * log(10)): readouts are compared at 10^-10


def tenant_name(key: str) -> str:
    """An account's name, whether "tenant:" stands before it or not."""
    return key.removeprefix(TENANT)


class ModelSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model that was read: the suspect, a reference or a control.

    Attributes
    ----------
    name
        As given: a folder, or "MODEL at URL" for an endpoint.
    sha256
        Of the folder's weights and configuration (`detect.models.forward.model_hash`); "" for an endpoint.
    tokenizer
        "same" when it is the spec's own, "aligned" when the model's tokens were mapped onto the spec's through text,
        "text" when only its text was seen.
    base, base_sha256
        The base model that an adapter was read over, and its hash, which has its part in ``sha256``; null for others.
    form
        How its numbers are held where they aren't plain weights, such as "LORA adapter" or "GGUF (Q8_0 and F32)".
    """

    name: str
    sha256: str
    tokenizer: Literal["same", "aligned", "text"]
    base: str | None = None
    base_sha256: str | None = None
    form: str | None = None


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A reference model and its share in the mixture that the suspect was compared with (fitted without any key)."""

    model: ModelSeen
    share: float


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the suspect was made to read or answer.

    Attributes
    ----------
    name, sha256
        The file: documents to read, or prompts.
    marked
        Whether the documents are themselves marked with the spec's key; then each context counts only where it stands
        first in all documents, and the verdict rests on the e-value.
    documents, tokens
        Read; for an endpoint, answers received and their tokens under the spec's tokenizer.
    contexts
        Distinct contexts that gave evidence.
    barred
        Contexts that did not count, as they stood in a prompt.
    taken
        How marked documents were taken from all that were served, as the analyst says: "all" or "random"; null where
        nobody said, and for unmarked text.
    complete
        What they were held against and found to be all of (a ledger or a list of hashes); null where there was none.
    texts_log10_pvalue
        Of the blind test of unmarked documents under the keys in question (`student.texts.marked`); null for marked.
    prompts_log10_pvalue
        The same of the documents' prompts, or of those that were asked; null where there are none.
    unlike_text
        Records whose token ids spell other text than the one beside them, which was read instead (of marked answers,
        then, the text of all); null where none has both, and in reports of earlier releases, which took ids as they
        stand.
    """

    name: str
    sha256: str
    marked: bool
    documents: int
    tokens: int
    contexts: int
    barred: int = 0
    taken: Literal["all", "random"] | None = None
    complete: str | None = None
    texts_log10_pvalue: float | None = None
    prompts_log10_pvalue: float | None = None
    unlike_text: int | None = None


class TraceHypothesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The test of one key.

    Attributes
    ----------
    key
        "global" or "tenant:NAME".
    contexts, tuples
        Distinct contexts that this key marks, and distinct (context, token, sub-key) words that were summed.
    total
        Weighted sum of the words' scores, an integer.
    expected, sd
        Its exact mean and standard deviation when the key is independent of the suspect.
    log10_pvalue, log10_pvalue_lower
        Of totals as large (the suspect leans to the mark) or as small (against it): exact tails given the weights, or
        bounds by e-values where the verdict rests on those.
    log10_evalue
        Mixture e-value of the total, or of the e-process for an endpoint.
    log10_pvalue_tested
        What the verdict uses: ``log10_pvalue``, or the bound by the e-value; twice the smaller tail when two-sided.
    log10_pvalue_adjusted
        The same with the choice among keys paid for (Holm).
    """

    key: str
    contexts: int
    tuples: int
    total: int
    expected: float
    sd: float
    log10_pvalue: float
    log10_pvalue_lower: float
    log10_evalue: float
    log10_pvalue_tested: float
    log10_pvalue_adjusted: float

    @property
    def z(self) -> float:
        """How many standard deviations the total lies above its mean."""
        return (self.total - self.expected) / self.sd if self.sd > 0 else 0.0


def log10_naming_level(alpha: float, tenants: int) -> float:
    """Log10 of the level at which a single account is named.

    Where there are several accounts it is also asked whether one of them at least left its mark
    (`TraceRecord.together`): each of the two questions has half of alpha, so that the chance that either of them is
    answered wrongly is at most alpha.
    """
    return math.log10(alpha / 2 if tenants > 1 else alpha)


class Coalition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Accounts that reports of dyetrace 0.1.0 named together. No report does any more, and none shows their names.

    Where somebody was guilty such a group could hold an innocent: only "one of all accounts at least" was shown.
    """

    tenants: list[str]
    log10_pvalue: float
    log10_pvalue_adjusted: float


class ReadoutResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another way to weigh the same readings: shown for comparison, never part of the verdict.

    Attributes
    ----------
    readout
        Its name (`detect.student.readout.READOUTS`).
    z
        (total - expected) / sd.
    log10_pvalue
        Exact; null where weights or stopping depend on the key, so that there is none (the verdict is the e-value's).
    contexts_needed
        Contexts at which log10 p = -10 is expected, by z^2 growing with their number; null where z is not positive.
    """

    readout: str
    contexts: int
    z: float
    log10_pvalue: float | None
    contexts_needed: int | None


def contexts_needed(z: float, contexts: int) -> int | None:
    """Contexts at which p = 10^-10 is expected by the normal law, z^2 growing with their number; None if z <= 0."""
    return None if z <= 0 else math.ceil(contexts * (_Z_COMPARED / z) ** 2)


class CurvePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Evidence after so many contexts (open weights) or answers (an endpoint), in the order in which they came."""

    count: int
    log10_pvalue: float | None
    log10_evalue: float


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same test where no mark can be: a reference in the suspect's place, or a model trained on unmarked text.

    Attributes
    ----------
    readout
        How its predictions were weighed; another one than the suspect's sees less. "" in older reports.
    contexts
        That gave evidence; 0 in older reports.
    """

    what: str
    model: ModelSeen
    log10_pvalue: float
    log10_evalue: float
    readout: str = ""
    contexts: int = 0


class TraceControls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether the test's p-values can be believed.

    Attributes
    ----------
    decoy_seed
        Public seed of the decoy keys.
    decoy_log10_pvalues
        The first key's test under each decoy key.
    decoy_log10_agreement
        log10 p-value of these against "uniform or larger".
    models
        Controls by other models.
    """

    decoy_seed: str
    decoy_log10_pvalues: list[float]
    decoy_log10_agreement: float
    models: list[Control]


class DosePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A calibration student: its known marked share and its effect.

    Attributes
    ----------
    name
        Its folder.
    share
        Of its training data.
    effect
        Mean excess per context.
    standard_error
        Over contexts. All students read the same ones, so it has no part in the interval, which rests on how far
        students of one share differ.
    """

    name: str
    share: float
    effect: float
    standard_error: float


class TrainingShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Marked share of the suspect's training data.

    Attributes
    ----------
    interval
        Null when it is not identified.
    reason
        Why it is not, or how it was estimated.
    effect, standard_error
        The suspect's own effect per context, in the units of ``doses``, and its standard error over contexts.
    doses
        Every calibration student, those included that the interval leaves out as the only ones of their share.
    """

    interval: Interval | None
    reason: str
    effect: float | None
    standard_error: float | None
    doses: list[DosePoint]


class Power(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What this budget could have shown.

    Attributes
    ----------
    detectable_z_per_context
        Shift of the total per context, in its standard deviations, that this many contexts show at the report's level
        with probability 0.95.
    observed_z_per_context
        What was seen.
    contexts_needed
        For log10 p at the report's level with that, or null.
    """

    detectable_z_per_context: float
    observed_z_per_context: float
    contexts_needed: int | None


class PlanSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The plan that fixed prompts, statistic, keys and target before the first query.

    Attributes
    ----------
    sha256, created
        Of the plan.
    first_query
        When the first of the answers that were used was asked for; null where none was.
    seed
        Public seed by which prompts were chosen among the ``offered`` ones; null where they were not chosen so.
    """

    sha256: str
    created: str
    first_query: str | None
    seed: str | None = None
    offered: int = 0


class TextsRead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Texts of one kind in the answers of an endpoint.

    Attributes
    ----------
    answers
        How many answers have one.
    tokens
        Of these texts, under the spec's tokenizer.
    """

    answers: int
    tokens: int


class Queries(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was asked of an endpoint.

    Attributes
    ----------
    evidence
        "samples" or "logprobs".
    requests, answers
        Sent in all (retries excluded), and answers used.
    prompt_tokens, completion_tokens
        As the endpoint counted them, or as the answers show where they show more; 0 where it does not say.
    ledger_sha256, ledger_head
        Of the ledger file, and the last hash of its chain.
    stopped
        Why it stopped: "target reached", "budget spent", "plan finished".
    before_plan
        Answers that were on record before the plan was; they forbid a verdict.
    looks
        How many moments of looking were fixed beforehand; 0 where one may look at any time.
    texts
        What was read of the answers, by kind: "answer" (the answer proper), "reasoning", "tool call"; empty in older
        reports, which read answers proper alone, and where text is not what is read.
    without_logprobs
        Answers that were read by what they say alone, though log-probabilities were asked for: they had none, or such
        as don't fit the answer.
    unusable
        Answers of no use, by reason.
    refused
        Prompts that the endpoint refused, by what it said; they are left out.
    sampling
        Which sampling was asked for, in words; "" in older reports.
    """

    evidence: Literal["samples", "logprobs"]
    requests: int
    answers: int
    prompt_tokens: int
    completion_tokens: int
    ledger_sha256: str
    ledger_head: str
    stopped: str
    before_plan: int = 0
    looks: int = 0
    texts: dict[str, TextsRead] = {}
    without_logprobs: int = 0
    unusable: dict[str, int] = {}
    refused: dict[str, int] = {}
    sampling: str = ""


class TraceRecord(Report, frozen=True, kw_only=True):
    """A whole trace.

    Attributes
    ----------
    mode
        "weights" (the suspect's parameters are at hand) or "api".
    arguments
        Options of the command, by name, those that change the result.
    readout
        How readings became weights, fixed beforehand; the only one that the verdict uses.
    sided
        "upper", or "two-sided", which also sees a mark that was subtracted too far.
    basis
        Whether the verdict rests on the exact p-value or on the e-value.
    served
        Which answers' contexts were counted to weigh contexts, or null.
    log10_pvalue
        That no key left its mark in the suspect: the smallest adjusted p-value; with several accounts twice the smaller
        of that and ``together``. Null when it is refused.
    log10_evalue
        Mean of the keys' e-values.
    coalitions
        Of older reports alone.
    identified
        Accounts whose own adjusted p-value is at or below `log10_naming_level`.
    together
        Log10 of the p-value of "none of the accounts tested left its mark", the choice among their sums paid for;
        null where fewer than two were tested, or no answer is given. It is at or below `log10_naming_level` where one
        of them at least left its mark, though which one is not known.
    identification
        One sentence: who, or that nobody is identified.
    files
        Files that belong to the report.
    served_marked
        Whether the answers that ``served`` counts were marked: weights are then predictable, not fixed.
    """

    format: Literal["dyetrace-trace"] = "dyetrace-trace"
    version: int = TRACE_VERSION
    mode: Literal["weights", "api"]
    arguments: dict[str, str | int | float | bool | list[str] | None]
    spec: WatermarkSpec
    spec_id: str
    key_fingerprint: str
    commitment: Commitment | None
    student: ModelSeen
    references: list[Reference]
    readings: list[Reading]
    served: FileHash | None
    readout: str
    sided: Literal["upper", "two-sided"]
    basis: Literal["p-value", "e-value"]
    contexts: int
    hypotheses: list[TraceHypothesis]
    coalitions: list[Coalition] = msgspec.field(default_factory=list)
    identified: list[str]
    together: float | None = None
    identification: str
    log10_pvalue: float | None
    log10_evalue: float
    refused: str | None
    found: bool
    comparisons: list[ReadoutResult]
    curve: list[CurvePoint]
    power: Power
    share: TrainingShare
    controls: TraceControls
    plan: PlanSeen | None
    queries: Queries | None
    files: list[FileHash]
    calibration: str | None = None
    served_marked: bool = False

    @property
    def accounts(self) -> list[TraceHypothesis]:
        """The accounts' keys among those tested."""
        return [h for h in self.hypotheses if not KeyName.read(h.key).is_global]
