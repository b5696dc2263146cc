"""Who made a report, and when its key was fixed: one wording for every kind of report and every form of it.

The sentences are ASCII, so that they survive any terminal; names of an examiner or a case need not be.
"""

from __future__ import annotations

from collections.abc import Iterator

from detect.records.made import Made
from detect.records.report import Report
from detect.records.written import format_time
from detect.report.runs import Runs, runs
from watermark.commitment import Commitment


def made_facts(record: Report) -> list[tuple[str, Runs]]:
    """When, by whom and with which code a report was made: names and values; older reports know less."""
    made = record.made or Made(code_sha256="")
    facts = [("Made", runs("$time, by the maker's clock", time=format_time(record.created)))] if record.created else []
    if made.examiner is not None:
        facts.append(("Examiner", runs("$name", name=made.examiner)))
    if made.case is not None:
        facts.append(("Case", runs("$name", name=made.case)))
    facts.append(("dyetrace", runs("version $number", number=record.versions.get("dyetrace", "not on record"))))
    if made.code_sha256:
        facts.append(("Code, SHA-256", runs("<code>$hash</code>", hash=made.code_sha256)))
    if not getattr(record, "quotes", True):
        facts.append(("Quotes", runs("none: no text of the suspect's, and no id of its records")))
    return facts


def made_line(record: Report) -> str:
    """The same in a line: "made 2026-11-29 17:16 UTC by dyetrace 0.1.0, code 4f2a91c07be3; examiner N. N.; case 7"."""
    line = ", ".join(_when_and_what(record.created, record.versions.get("dyetrace"), record.made))
    said = {} if record.made is None else {"examiner": record.made.examiner, "case": record.made.case}
    return "; ".join([line, *(f"{what} {text}" for what, text in said.items() if text is not None)])


def _when_and_what(created: str, version: str | None, made: Made | None) -> Iterator[str]:
    when = f" {format_time(created)}" if created else ""
    yield f"made{when} by dyetrace {version or 'of an unknown version'}"
    if made is not None:
        yield f"code {made.code_sha256[:12]}"


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
