"""The end of a test by twins: from what was measured to the record, and all of it to the report's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from detect.folders.published import Unwritten, replace_report
from detect.records.how_to_check import in_words
from detect.records.made import Made, made_by, now
from detect.records.reading import encode_record
from detect.records.report import versions
from detect.records.scan import FileHash
from detect.records.trace import PlanSeen, Queries
from detect.records.twins import LawTest, ShownPair, TwinRecord
from detect.records.twins_assumptions import assumptions
from detect.student.asking.forms import clean
from detect.twins.conclude import conclude
from detect.twins.evidence import EVIDENCE_FILE, TwinEvidence, encode_evidence
from detect.twins.measures.prompting import plain_prompt
from detect.twins.measures.protocol import F64
from detect.twins.plan import TwinPlan, plan_sha256
from detect.twins.selection import came_at
from detect.twins.together import OtherLine, together
from watermark.errors import DyetraceError
from watermark.twins.pair import Pair

MOST_SHOWN = 40
_LONGEST = 2000  # characters kept of a shown text


def evidence_of(plan: TwinPlan, pairs: Sequence[Pair], differences: F64, covariates: F64) -> TwinEvidence:
    """The evidence of the first pairs of a plan, as many as there are differences; here the coins come in.

    Parameters
    ----------
    plan, pairs
        The plan, and its pairs in their order.
    differences
        Shape (n, k).
    covariates
        Of all pairs of the plan, shape (m, c).
    """
    bet = pairs[: len(differences)]
    names = tuple(sorted(plan.choice.accounts))
    number = {name: place for place, name in enumerate(names)}
    return TwinEvidence(
        ids=tuple(pair.id for pair in bet),
        made=tuple(came_at(pair) for pair in bet),
        columns=tuple(plan.columns),
        differences=differences.reshape(len(bet), len(plan.columns)),
        covariate_names=tuple(plan.covariates),
        covariates=covariates[: len(bet)],
        signs=np.array([pair.sign for pair in bet], dtype=np.int8),
        accounts=names,
        account=np.array([number.get(pair.account or "", -1) for pair in bet], dtype=np.int32),
    )


def write_report(
    output: Path,
    plan: TwinPlan,
    pairs: Sequence[Pair],
    evidence: TwinEvidence,
    said: Sequence[str | None],
    *,
    law: LawTest | None,
    first_query: str | None,
    queries: Queries | None,
    quotes: bool,
    objection: str | None = None,
    beside: OtherLine | None = None,
    made: Made | None = None,
) -> TwinRecord:
    """Conclude from the evidence, and write it and the record to ``output``.

    Parameters
    ----------
    output
        Folder.
    plan, pairs, evidence
        What was planned, and what came of it.
    said
        What the suspect said to each pair of the evidence; None where it was not let speak.
    law, queries
        As the record has them.
    first_query
        When the first reply that counts was asked for; null where none was.
    quotes
        Whether pairs may be shown.
    objection
        Why the way in which the evidence was gathered allows no verdict.
    beside
        A trace of the watermark in the same suspect.
    made
        Who makes the report.

    Raises
    ------
    Unwritten
        The folder can't be written; the record is in it.
    """
    found = conclude(evidence, law, plan.alpha, objection)
    silent = int(np.sum(~np.any(evidence.differences != 0, axis=1)))
    data = encode_evidence(evidence)
    record = TwinRecord(
        created=now(),
        versions=versions(),
        alpha=plan.alpha,
        made=made or made_by(),
        arguments=plan.arguments,
        level=plan.choice.level,
        mode=plan.mode,
        ask=plan.ask,
        suspect=plan.suspect,
        reference=plan.reference,
        ledger=plan.ledger,
        pairs=msgspec.structs.replace(plan.choice.counts, asked=len(evidence), silent=silent),
        measures=found.measures,
        accounts=found.accounts,
        identified=found.identified,
        target_log10=plan.target_log10,
        log10_evalue=found.log10_evalue,
        log10_pvalue=found.log10_pvalue,
        refused=found.refused,
        found=found.found,
        share=found.share,
        share_reason=found.share_reason,
        curve=found.curve,
        law=law,
        shown=_shown(pairs, evidence, said) if quotes else [],
        plan=PlanSeen(
            sha256=plan_sha256(plan),
            created=plan.created,
            first_query=first_query,
            seed=plan.choice.seed,
            offered=plan.choice.offered,
        ),
        queries=queries,
        files=[FileHash.of(EVIDENCE_FILE, data)],
        quotes=quotes,
        watermark=None if beside is None else together(found.log10_evalue, beside),
    )
    record = msgspec.structs.replace(record, assumptions=assumptions(record), how_to_check=in_words(record))
    try:
        replace_report(output, {EVIDENCE_FILE: data, "report.json": encode_record(record)})
    except DyetraceError as error:
        raise Unwritten(record, str(error)) from None
    return record


def _shown(pairs: Sequence[Pair], evidence: TwinEvidence, said: Sequence[str | None]) -> list[ShownPair]:
    """The pairs that speak loudest, for what was served or against it; none that is silent."""
    signed = evidence.differences[:, 0] * evidence.signs
    order = sorted(np.flatnonzero(signed).tolist(), key=lambda row: (-abs(signed[row]), row))
    return [
        ShownPair(
            id=pairs[row].id,
            prompt=shown_text(plain_prompt(pairs[row])),
            served=shown_text(pairs[row].answers[pairs[row].served].text),
            withheld=shown_text(pairs[row].answers[1 - pairs[row].served].text),
            suspect=None if (words := said[row]) is None else shown_text(words),
            difference=float(signed[row]),
        )
        for row in order[:MOST_SHOWN]
    ]


def shown_text(text: str) -> str:
    """As much of a text as a report shows."""
    return clean(text[:_LONGEST])
