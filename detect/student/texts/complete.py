"""Whether the marked answers to be read are all that were served, held against a server's ledger or a list of hashes.

Which answers are read must not depend on what they say, how long they are, or whether they ended: the key decided all
of that, and a model that never saw the mark looks guilty on what such a choice leaves (line "served answers" of
`docs/validity.md`). Whoever keeps a record at serving time can show that nothing was left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from detect.models.reading import line_hash
from detect.student.texts.served import read_answers
from watermark.errors import DyetraceError
from watermark.generate import Answer
from watermark.keys import KeyRing
from watermark.ledger import Ledger, answer_contexts
from watermark.ledger_file import is_ledger
from watermark.prf import U32
from watermark.spec import WatermarkSpec

FILTERED = (
    "answers that were chosen by what they say, their length or whether they ended can't be read: the key decided all "
    "of that, and an innocent model would look guilty; read all that were served, or a random part of them"
)
"""What is said where answers were chosen so."""

_LINE = re.compile(r"([0-9a-f]{64})(?:[ \t]+(\S+))?")


def hash_lines(path: Path) -> Iterator[str]:
    """A line for each answer of a file: its hash, and its account where it has one. To be made when it is served."""
    for answer in read_answers(path):
        yield line_hash(answer) + ("" if answer.tenant is None else f" {answer.tenant}")


def check_complete(source: str, record: Path, spec: WatermarkSpec, ring: KeyRing, tenant: str | None) -> str:
    """Hold served answers against what was recorded when they were served; say what they were held against.

    Parameters
    ----------
    source
        The answers (JSONL of `dyetrace generate`).
    record
        A server's ledger, which counts the answers of all accounts, or a list of `hash_lines`.
    spec, ring
        Whose answers.
    tenant
        Only this account's answers are read.

    Raises
    ------
    DyetraceError
        Answers are missing, or there are some that were never served; the record can't tell.
    """
    answers = [answer for answer in read_answers(Path(source)) if answer.spec_id == spec.spec_id]
    if is_ledger(record):
        return _by_ledger(source, answers, record, spec, ring, tenant)
    listed = Counter(value for value, account in _listed(record) if tenant in (None, account))
    given = Counter(line_hash(answer) for answer in answers if tenant in (None, answer.tenant))
    missing, strange = (listed - given).total(), (given - listed).total()
    if missing:
        raise DyetraceError(
            f"{source} lacks {missing:,} of the {listed.total():,} served answers that {record} lists: give all of "
            "them, as a choice among served answers can make an innocent model look guilty"
        )
    if strange:
        raise DyetraceError(f"{source} holds {strange:,} answers that {record} does not list; leave them out")
    return f"{record}: {listed.total():,} hashes of served answers"


def _by_ledger(
    source: str, answers: list[Answer], record: Path, spec: WatermarkSpec, ring: KeyRing, tenant: str | None
) -> str:
    if tenant is not None:
        raise DyetraceError(
            f"ledger {record} counts the answers of all accounts together: it can't tell whether those of {tenant!r} "
            "are complete; give a list of their hashes (`dyetrace ledger hashes`)"
        )
    with Ledger.open(record, spec, ring) as ledger:
        counted, contexts = ledger.answers, ledger.contexts
        own = [_distinct(answer, spec.context_width) for answer in answers]
        strange = _never_served(ledger, answers, own)
    if counted != len(answers):
        kind = "fewer" if len(answers) < counted else "more"
        raise DyetraceError(
            f"{source} holds {len(answers):,} answers of this spec, {kind} than the {counted:,} that ledger {record} "
            "counted: give all that were served and no others, as a choice among served answers can make an innocent "
            "model look guilty"
        )
    if (total := sum(map(len, own))) != contexts or strange:
        raise DyetraceError(
            f"{source} holds as many answers as ledger {record} counted, but {total:,} contexts where it counted "
            f"{contexts:,}, {strange:,} of them oftener than it did: they are not the same answers; give those that "
            "were served"
        )
    return f"{record}: a ledger that counted {counted:,} answers with {contexts:,} contexts"


def _distinct(answer: Answer, width: int) -> U32:
    """Distinct contexts in which an answer's tokens were chosen, as a server counts them, (n, h)."""
    contexts = answer_contexts(np.array(answer.prompt_token_ids), np.array(answer.token_ids), width)
    return np.unique(contexts, axis=0)


def _never_served(ledger: Ledger, answers: list[Answer], own: list[U32]) -> int:
    """How many contexts stand under a sub-key in more answers than the ledger counted; its counts are never too low."""
    strange = 0
    for subkey in {answer.subkey for answer in answers}:
        parts = [contexts for answer, contexts in zip(answers, own, strict=True) if answer.subkey == subkey]
        distinct, times = np.unique(np.concatenate(parts), axis=0, return_counts=True)
        if subkey is not None and len(distinct):
            strange += int((ledger.counts(distinct, subkey) < times).sum())
    return strange


def serving_order(record: Path) -> dict[str, int] | None:
    """The place of each answer in a list of hashes, which is made as they are served; None of a ledger."""
    if is_ledger(record):
        return None
    return {value: place for place, (value, _) in reversed(list(enumerate(_listed(record))))}


def _listed(record: Path) -> Iterator[tuple[str, str | None]]:
    try:
        lines = record.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is neither a ledger nor text"
        raise DyetraceError(f"cannot read {record}: {reason}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DyetraceError(
                f"{record}, line {number} is no SHA-256 of an answer, perhaps with its account after it; make the list "
                "with `dyetrace ledger hashes answers.jsonl`"
            )
        yield match.group(1), match.group(2)
