"""What a detection's report says first, to people who decide: the answer, its numbers, and how far it goes."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from detect.document.blind import NOTHING
from detect.document.pointing import level_per_test
from detect.records.detection import Record
from detect.records.written import clean, counted
from detect.report.checking import commitment_line
from detect.report.detection.wording import Verdict, ranked, score, several_keys
from detect.report.runs import Runs, level, runs
from detect.report.story import Fact, Tone
from detect.report.wording import (
    capital,
    chance_of,
    decoys_run,
    exactness,
    inputs_named,
    limits_of_text,
    watermark_line,
)

_SENTENCE = 300  # characters of one that names accounts


def tone(answers: Sequence[Verdict]) -> Tone:
    """Of the whole report: "marked", "refused" where every document is, else "unmarked"."""
    tones = {answer.tone for answer in answers}
    if "marked" in tones:
        return "marked"
    return "refused" if tones == {"refused"} else "unmarked"


def headline(answers: Sequence[Verdict]) -> str:
    """The answer in one line."""
    total, found = len(answers), tone(answers)
    if total == 0:
        return "No documents were tested."
    if total == 1:
        marked = f"The text is {clean(answers[0].sentence, _SENTENCE)}."
        return {"marked": marked, "refused": "No answer is given.", "unmarked": "No mark was found."}[found]
    if found == "marked":
        return f"The mark was found in {_count(answers, 'marked'):,} of {total:,} documents."
    if found == "unmarked":
        return f"No mark was found in any of {total:,} documents."
    return f"No answer is given for any of {total:,} documents."


def _count(answers: Sequence[Verdict], tone: Tone) -> int:
    return Counter(answer.tone for answer in answers)[tone]


def lead(record: Record, answers: Sequence[Verdict]) -> Iterator[Runs]:
    """What the answer means."""
    if not answers:
        return
    first = answers[0]
    if len(answers) == 1 and first.document.refused is not None:
        yield runs("$why.", why=capital(first.document.refused))
    if first.log10_pvalue is None:
        return
    strongest = "as high as the strongest document’s" if len(answers) > 1 else "this high"
    limit, found = level_per_test(record.documents, record.alpha), tone(answers) == "marked"
    yield chance_of(f"a score {strongest} comes about", first.log10_pvalue, limit, found=found)


def brief(record: Record, answers: Sequence[Verdict]) -> Iterator[Runs]:
    """The answer as a terminal has it, in a line; and where p-values came from, if not from the law."""
    empty = sum((answer.document.refused or "").startswith(NOTHING) for answer in answers)
    refused = _count(answers, "refused") - empty
    yield runs(
        "Mark found in $n of $all at level $level, all keys and documents of this run paid for"
        + (f"; {refused:,} refused" if refused else "")
        + (f"; {empty:,} with nothing to test" if empty else ""),
        n=_count(answers, "marked"),
        all=counted(len(answers), "document"),
        level=level(record.alpha),
    )
    if record.calibration is not None:
        yield runs("$said", said=record.calibration)


def facts(record: Record, answers: Sequence[Verdict]) -> list[Fact]:
    """The numbers that a reader looks for first."""
    tokens = Fact("Tokens", f"{sum(document.tokens for document in record.documents):,}")
    if len(answers) != 1:
        counts: dict[str, Tone] = {"Marked": "marked", "No mark found": "unmarked", "Refused": "refused"}
        numbers = [Fact(name, f"{_count(answers, tone):,}") for name, tone in counts.items()]
        return [Fact("Documents", f"{len(answers):,}"), *numbers, Fact("Tokens in all", tokens.value)]
    told = [tokens, Fact("Tuples tested", f"{answers[0].document.tuples:,}")]
    strength = score(record.spec, answers[0])
    if strength is not None:
        told.append(Fact(f"Strength, {strength.unit}", strength.short, f"against {strength.expected_short}"))
    if answers[0].rank is not None:
        told.append(Fact("Rank of the key", answers[0].rank))
    return told


def parts(record: Record) -> list[tuple[str, Sequence[Runs]]]:
    """What stands behind the answer: lists of sentences under headings."""
    limits = limits_of_text("or whether a quotation carries it", accounts=several_keys(record))
    return [
        ("What was tested", list(_tested(record))),
        ("How sure the answer is", list(_sure(record))),
        ("What it does not show", limits),
    ]


def _tested(record: Record) -> Iterator[Runs]:
    documents = counted(len(record.documents), "document")
    yield runs("$documents from $names.", documents=documents, names=inputs_named(record.inputs))
    scheme = runs("<code>$scheme</code>", scheme=record.spec.scheme)
    derived = "the accounts that were named" if several_keys(record) else ""
    yield watermark_line([scheme], record.key_fingerprint, derived)
    yield commitment_line(record.commitment)


def _sure(record: Record) -> Iterator[Runs]:
    where = " (the last section)" if record.assumptions else ""
    yield runs(
        f"If what this verdict assumes is true{where}, the chance of calling even one unmarked document marked is at "
        "most $level over this whole report. Every sub-key, account key, document and test of this run is paid for, "
        "other runs are not.",
        level=level(record.alpha),
    )
    if several_keys(record):
        yield runs(
            "A key is named where it pays for all pairs of a document and a key (Holm). The chance of naming even one "
            "that had no say in its document is at most $level, whoever else is guilty.",
            level=level(record.alpha),
        )
    yield exactness(record.calibration)
    if ranked(record):
        yield runs("No other check by decoy keys is needed: the p-value is the true key’s rank among them.")
    else:
        yield decoys_run(record.decoy_count)
