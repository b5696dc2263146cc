"""How somebody else checks a report, and who made it: one wording for every kind of report and every form of it.

The sentences are ASCII, so that they survive any terminal; names of an examiner or a case need not be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detect.records.code_hash import SHELL, code_sha256
from detect.records.detection import Record
from detect.records.report import versions
from detect.records.made import Made, now
from detect.records.scan import ScanRecord
from detect.records.trace import TraceRecord
from detect.records.written import format_time
from detect.report.runs import Runs, plain, runs
from watermark.commitment import Commitment
from watermark.formats.protocol import is_format
from watermark.spec import WatermarkSpec

TITLE = "How to check this without us"
_VERIFY = "<code>dyetrace report verify report.json --inputs FOLDER</code>"
AnyRecord = Record | ScanRecord | TraceRecord


def how_to_check(record: AnyRecord) -> list[Runs]:
    """What another party does who has this report, in the order in which it may be done; a whole paragraph each."""
    return [
        _files(record),
        _without_key(record),
        _with_key(record),
        _which_key(record),
        _code(record),
        _arithmetic(record),
    ]


def short_check(record: AnyRecord) -> list[Runs]:
    """The same in one paragraph, for a terminal: the commands, and where the rest stands."""
    folder = "" if isinstance(record, TraceRecord) else " --inputs FOLDER"
    own = ", or an account's own for its part" if any(spec.global_share < 1 for spec in _specs(record)) else ""
    return [
        runs(
            f"Without any key: {_VERIFY}. With the key{own}: <code>dyetrace recompute report.json --key "
            f"file:KEYFILE{folder}</code>. What each of them shows, what it takes, the hash of the code and where the "
            "arithmetic is described, which is public: how_to_check in report.json, and docs/reports.md."
        )
    ]


def in_words(lines: Sequence[Runs]) -> list[str]:
    """The same as plain text, as the record has it."""
    return [plain(line) for line in lines]


def made_facts(record: AnyRecord) -> list[tuple[str, Runs]]:
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
    if not isinstance(record, TraceRecord) and not record.quotes:
        facts.append(("Quotes", runs("none: no text of the suspect's, and no id of its records")))
    return facts


def made_line(record: AnyRecord) -> str:
    """The same in a line: "made 2026-11-29 17:16 UTC by dyetrace 0.1.0, code 4f2a91c07be3; examiner N. N.; case 7"."""
    line = ", ".join(_when_and_what(record.created, record.versions.get("dyetrace"), record.made))
    said = {} if record.made is None else {"examiner": record.made.examiner, "case": record.made.case}
    return "; ".join([line, *(f"{what} {text}" for what, text in said.items() if text is not None)])


def made_now() -> str:
    """The same of what is made now and is no record of its own: with the whole hash of the code."""
    return f"made {format_time(now())} by dyetrace {versions()['dyetrace']}, whose code has SHA-256 {code_sha256()}"


def _when_and_what(created: str, version: str | None, made: Made | None) -> Iterator[str]:
    when = f" {format_time(created)}" if created else ""
    yield f"made{when} by dyetrace {version or 'of an unknown version'}"
    if made is not None:
        yield f"code {made.code_sha256[:12]}"


def _specs(record: AnyRecord) -> list[WatermarkSpec]:
    return record.specs if isinstance(record, ScanRecord) else [record.spec]


def _files(record: AnyRecord) -> Runs:
    beside = ""
    if isinstance(record, ScanRecord):
        beside = (
            " Beside it <code>documents.parquet</code> has a row for each document, <code>hits.jsonl</code> each "
            "document that is listed and <code>skipped.jsonl</code> each record that was left out; it holds their "
            "SHA-256."
        )
    elif isinstance(record, TraceRecord):
        beside = (
            " Beside it <code>evidence.npz</code> has every context, token and weight that was summed; it holds its "
            "SHA-256."
        )
    return runs(
        f"<code>report.json</code> is the report: it holds every number.{beside} Pages and PDFs are drawn from it "
        "(<code>dyetrace report render</code>) and hold nothing more."
    )


def _without_key(record: AnyRecord) -> Runs:
    follow = "that every p-value and the answer follow from the totals"
    if isinstance(record, ScanRecord):
        follow = "that every p-value, the list of documents, the shares and the answer follow from the totals"
    elif isinstance(record, TraceRecord):
        follow = (
            "that the answer, the names and the controls follow from the keys' numbers, and that these are of this "
            "evidence"
        )
    return runs(
        f"Without any key, {_VERIFY} checks that the report is whole, who signed it, by their SHA-256 that the files "
        f"beside it and those in FOLDER are the ones that were read and written, and {follow}."
    )


def _with_key(record: AnyRecord) -> Runs:
    if isinstance(record, TraceRecord):
        again = (
            "The answers themselves are in the ledger of the trace, each chained to the one before by its hash, whose "
            "last one stands here."
            if record.mode == "api"
            else "That these predictions are the suspect's is seen by tracing the same model anew: its SHA-256 stands "
            "here."
        )
        return runs(
            "With the key, <code>dyetrace recompute report.json --key file:KEYFILE</code> sums the evidence again and "
            f"compares every total, p-value and e-value; it needs no model and no text. {again}"
        )
    return runs(
        "With the key, <code>dyetrace recompute report.json --key file:KEYFILE --inputs FOLDER</code> tests the files "
        "again and compares every total and p-value. It takes the files with the SHA-256 that stand here, and for text "
        "the watermark's tokenizer (<code>--tokenizer</code>); the spec stands in the report."
    )


def _which_key(record: AnyRecord) -> Runs:
    account = (
        " An account's own key gives the part that concerns it, tells nothing of any other key, and can be lent alone."
        if any(spec.global_share < 1 for spec in _specs(record))
        else ""
    )
    shown = (
        "No commitment is on record: that this key was fixed before the suspect existed is not to be seen from here."
        if record.commitment is None
        else "That the key is the one that was committed to is seen with the commitment and its opening "
        "(<code>dyetrace verify-commitment</code>); when it was published, from where it was published."
    )
    return runs(
        "The key is secret, and never part of a report: its owner runs that command before your eyes, or lends it to "
        f"an expert whom both sides trust.{account} {shown}"
    )


def _code(record: AnyRecord) -> Runs:
    if record.made is None:
        return runs("Which code made this report is not on record: an older release wrote it.")
    return runs(
        "Use your own copy of dyetrace $version. Whether it is the same code shows in the folder that holds its "
        "packages: <code>$shell</code> prints <code>$hash</code>. Other versions of dyetrace, Python or numpy give the "
        "same totals, and the same p-values to six digits.",
        version=record.versions.get("dyetrace", ""),
        shell=SHELL,
        hash=record.made.code_sha256,
    )


def _arithmetic(record: AnyRecord) -> Runs:
    scheme = _specs(record)[0].build_scheme()
    words = (
        runs("as $system computes them", system=scheme.system)
        if is_format(scheme)
        else runs(
            "of ChaCha with 8 rounds, its state laid out as in RFC 8439, from the key, the context and the token's "
            "number"
        )
    )
    return runs(
        "Nothing rests on this program alone. The words are those $words; the scores, their law and the payment for "
        "every choice stand with their formulas in the section on the method, and at length in "
        "<code>docs/reports.md</code> and <code>docs/validity.md</code> of dyetrace's source. Totals are whole "
        "numbers: another program that follows them gets the same, to the last digit.",
        words=words,
    )


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
