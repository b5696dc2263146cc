"""The end of a race readout: from what was heard to the record, and all of it to the report's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from detect.folders.published import Unwritten, replace_report
from detect.keyed.owners import tested_keys
from detect.race.conclude import Live, conclude, rows_of
from detect.race.evidence import EVIDENCE_FILE, I32, NOT_SAID, RaceEvidence, encode_evidence
from detect.race.job import RaceJob
from detect.race.served import ServedText
from detect.race.tilts import tilts
from detect.records.how_to_check import in_words
from detect.records.made import Made, made_by, now
from detect.records.race import RaceRecord, SamplingSeen, ShownCut
from detect.records.race_assumptions import assumptions
from detect.records.reading import encode_record
from detect.records.report import versions
from detect.records.scan import FileHash
from detect.records.trace import ModelSeen, PlanSeen, Queries
from detect.records.written import clean
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.models.tokenizer import load_tokenizer
from watermark.schemes.green_list import GreenList
from watermark.spec import WatermarkSpec

MOST_SHOWN = 40
_SHOWN_TOKENS = 48  # before a cut
_LONGEST = 200  # characters of them
_CHOSEN = 0.5  # a key that gives a word more than this has chosen it
_LOG10_CARRIED = 4.0  # of served words as if the suspect had said them
_ENOUGH = 100  # cuts that show whether the answers carry their mark


def write_report(
    output: Path,
    evidence: RaceEvidence,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    *,
    job: RaceJob,
    mode: Literal["weights", "api"],
    served: ServedText,
    cuts: int,
    suspect: ModelSeen,
    owner: ModelSeen,
    sampling: SamplingSeen,
    reference: ModelSeen | None = None,
    plan: PlanSeen | None = None,
    queries: Queries | None = None,
    early: bool = False,
    objection: str | None = None,
    made: Made | None = None,
) -> RaceRecord:
    """Conclude from the evidence, and write it and the record to ``output``.

    Parameters
    ----------
    output
        Folder.
    evidence
        In the order of the bets.
    spec, ring, tokenizer
        The watermark, the keys that are tested and the spec's tokenizer.
    job
        What was asked for.
    mode, suspect, owner, sampling, reference, plan, queries
        As the record has them.
    served
        The answers, which ``evidence`` is of.
    cuts
        How many places were to be bet on.
    early
        Whether asking might have ended early, by the evidence.
    objection
        Why the way in which the evidence was gathered allows no verdict.
    made
        Who makes the report.

    Raises
    ------
    Unwritten
        The folder can't be written; the record is in it.
    """
    found = conclude(
        evidence,
        spec,
        ring,
        alpha=job.alpha,
        decoy_seed=job.decoy_seed,
        decoy_count=job.decoys,
        objection=objection,
        early=early,
    )
    if not found.found and found.refused is None:
        lacking = not_carried(evidence, served, spec, ring, owner)
        if lacking is not None:
            found = replace(found, refused=lacking, log10_pvalue=None, identified=[])
    data = encode_evidence(evidence)
    record = RaceRecord(
        created=now(),
        versions=versions(),
        alpha=job.alpha,
        made=made or made_by(),
        arguments={**job.arguments, "tenants": list(ring.tenants)},
        mode=mode,
        ask=evidence.ask,
        spec=msgspec.json.decode(spec.canonical_json, type=WatermarkSpec),
        spec_id=spec.spec_id,
        key_fingerprint=ring.master_fingerprint,
        commitment=job.commitment,
        suspect=suspect,
        owner=owner,
        sampling=sampling,
        reading=msgspec.structs.replace(served.reading, contexts=len(evidence)),
        counts=served.counts(cuts=cuts, evidence=evidence),
        hypotheses=found.hypotheses,
        identified=found.identified,
        target_log10=job.target_log10,
        log10_evalue=found.log10_evalue,
        log10_pvalue=found.log10_pvalue,
        refused=found.refused,
        found=found.found,
        curve=found.curve,
        lit=found.lit,
        shown=shown_cuts(evidence, served, spec, ring, tokenizer) if job.quotes else [],
        quotes=job.quotes,
        controls=found.controls,
        plan=plan,
        queries=queries,
        files=[FileHash.of(EVIDENCE_FILE, data)],
        reference=reference,
    )
    record = msgspec.structs.replace(record, assumptions=assumptions(record), how_to_check=in_words(record))
    try:
        replace_report(output, {EVIDENCE_FILE: data, "report.json": encode_record(record)})
    except DyetraceError as error:
        raise Unwritten(record, str(error)) from None
    return record


def not_carried(
    evidence: RaceEvidence, served: ServedText, spec: WatermarkSpec, ring: KeyRing, owner: ModelSeen
) -> str | None:
    """Why nothing found says nothing of the suspect: the served words themselves are not those that the key chose.

    Their words are bet on as if the suspect had said them. Spec, sub-keys or ids on record may not be those of what was
    served, or the owner's model not the one that wrote it. A finding needs no such test. Few cuts tell nothing.
    """
    tokens = served_tokens(evidence, served)
    there = (evidence.tokens == tokens[:, None]) & (tokens >= 0)[:, None]
    said = np.where(there.any(axis=1), there.argmax(axis=1), NOT_SAID).astype(np.int32)
    if int((tokens >= 0).sum()) < _ENOUGH:
        return None
    spoken = replace(evidence, ask="greedy", said=said, shares=np.zeros((len(evidence), 0)), base=None)
    log10 = Live(spec, ring).observe(spoken)
    if log10 >= _LOG10_CARRIED:
        return None
    return (
        f"nothing was found, but the answers of {served.text.name} do not hold the words that the key chooses from the "
        f"chances of {owner.name} (evidence 10^{log10:.1f}): the model, the spec, their sub-keys or token ids may not "
        "be those of what was served, so that this says nothing of the suspect"
    )


def served_tokens(evidence: RaceEvidence, served: ServedText) -> I32:
    """The token that was served at each cut, -1 where the answer ended; shape (n,). To be looked at in the end alone.

    Parameters
    ----------
    evidence, served
        Cuts, and the answers that they are in.
    """
    found = np.full(len(evidence), -1, dtype=np.int32)
    for row, (number, place) in enumerate(zip(evidence.documents.tolist(), evidence.positions.tolist(), strict=True)):
        sequence = served.text.documents[number].sequence
        if place < len(sequence):
            found[row] = sequence[place]
    return found


def chosen_columns(evidence: RaceEvidence, spec: WatermarkSpec, ring: KeyRing) -> I32:
    """The column of the word that the key chose at each cut, -1 where it chose no single one; shape (n,)."""
    chosen = np.full(len(evidence), -1, dtype=np.int32)
    if isinstance(spec.build_scheme(), GreenList):
        return chosen
    names = rows_of(evidence.contexts, evidence.account[evidence.documents], evidence.accounts, spec, ring)
    for name, key in tested_keys(spec, ring).items():
        rows = np.array([row for row, one in enumerate(names) if one == name], dtype=np.int64)
        if not len(rows) or not isinstance(key, SecretKey):
            continue
        weights = tilts(
            spec, key, evidence.contexts[rows], evidence.subkeys[rows], evidence.tokens[rows], evidence.chances[rows]
        ).mean(axis=0)
        chosen[rows] = np.where(weights.max(axis=1) > _CHOSEN, weights.argmax(axis=1), -1)
    return chosen


def shown_cuts(
    evidence: RaceEvidence, served: ServedText, spec: WatermarkSpec, ring: KeyRing, tokenizer: Any
) -> list[ShownCut]:
    """The cuts where the suspect's word is the one that the key chose, those of the smallest chance first."""
    speaking = np.flatnonzero(evidence.said != NOT_SAID)
    if not len(speaking):
        return []
    chosen = chosen_columns(evidence, spec, ring)
    hits = speaking[chosen[speaking] == evidence.said[speaking]]
    chance = evidence.chances[hits, evidence.said[hits]]
    backend = load_tokenizer(tokenizer)

    def spelled(tokens: list[int]) -> str:
        return clean(backend.decode(tokens, skip_special_tokens=False)[-_LONGEST:])

    shown = []
    for row in hits[np.lexsort([hits, chance])][:MOST_SHOWN].tolist():
        document = served.text.documents[int(evidence.documents[row])]
        place = int(evidence.positions[row])
        word = spelled([int(evidence.tokens[row, evidence.said[row]])])
        shown.append(
            ShownCut(
                answer=document.name,
                begun=spelled(document.sequence[max(document.lead, place - _SHOWN_TOKENS) : place].tolist()),
                chosen=word,
                said=word,
                chance=float(evidence.chances[row, evidence.said[row]]),
            )
        )
    return shown
