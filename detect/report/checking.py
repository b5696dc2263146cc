"""Who made a report, and when its key was fixed: one wording for every kind of report and every form of it.

The sentences are ASCII, so that they survive any terminal; names of an examiner or a case need not be.
"""

from __future__ import annotations

from detect.records.report import Report
from detect.records.written import format_time
from detect.report.runs import Runs, runs
from watermark.commitment import Commitment


def made_facts(record: Report) -> list[tuple[str, Runs]]:
    """When, by whom and with which code a report was made: names and values; older reports know less."""
    facts = [("Made", runs("$time, by the maker's clock", time=format_time(record.created)))] if record.created else []
    facts += [(what.capitalize(), runs("$name", name=text)) for what, text in for_whom(record)]
    facts.append(("dyetrace", runs("version $number", number=record.versions.get("dyetrace", "not on record"))))
    if record.made is not None:
        facts.append(("Code, SHA-256", runs("<code>$hash</code>", hash=record.made.code_sha256)))
    if not getattr(record, "quotes", True):
        facts.append(("Quotes", runs("none: no text of the suspect's, and no id of its records")))
    return facts


def made_line(record: Report) -> str:
    """The same in a line: "made 2026-11-29 17:16 UTC by dyetrace 0.1.0, code 4f2a91c07be3; examiner N. N.; case 7"."""
    when = f" {format_time(record.created)}" if record.created else ""
    line = f"made{when} by dyetrace {record.versions.get('dyetrace') or 'of an unknown version'}"
    code = "" if record.made is None else f", code {record.made.code_sha256[:12]}"
    return "; ".join([line + code, *(f"{what} {text}" for what, text in for_whom(record))])


def for_whom(record: Report) -> list[tuple[str, str]]:
    """The examiner and the case of a report, as far as they are on record, each with a word for it."""
    said = [] if record.made is None else [("examiner", record.made.examiner), ("case", record.made.case)]
    return [(what, text) for what, text in said if text is not None]


def commitment_line(commitment: Commitment | None, suspect: str = "text") -> Runs:
    """What a commitment shows of when the key was fixed, and what it doesn't; ``suspect``: "text" or "model"."""
    if commitment is None:
        return runs(
            "No commitment is on record. This report alone cannot show that the key was fixed before the "
            f"{suspect} existed."
        )
    return runs(
        "A commitment to key and watermark is on record. Its file is dated <n>$time</n>, which nothing proves: its "
        "hash does not cover the date, and anybody can edit it. The commitment shows that the key was fixed before any "
        f"{suspect} that is later than the publication of its hash.",
        time=format_time(commitment.created),
    )
