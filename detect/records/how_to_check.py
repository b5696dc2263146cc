"""How somebody else checks a report: one wording for every kind of report, which the record itself holds.

The sentences are ASCII, so that they survive any terminal. They have a little markup, which `detect.report.runs` reads
and `Sentence.plain` leaves out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from detect.records.code_hash import SHELL
from detect.records.detection import Record
from detect.records.power_plan import PowerPlan
from detect.records.race import RaceRecord
from detect.records.report import Report
from detect.records.scan import ScanRecord
from detect.records.server_check import ServeCheck
from detect.records.trace import TraceRecord
from detect.records.twins import TwinRecord
from detect.records.written import clean
from watermark.formats.protocol import is_format
from watermark.spec import WatermarkSpec

_LONGEST = 300  # characters kept of a value
_TOKEN = re.compile(r"</?(?:i|b|sub|sup|code|n)>|\$([a-z_]+)")
_VERIFY = "<code>dyetrace report verify report.json --inputs FOLDER</code>"
_RECOMPUTE = "<code>dyetrace recompute report.json --key file:KEYFILE</code>"
_RECOMPUTE_FILES = "<code>dyetrace recompute report.json --key file:KEYFILE --inputs FOLDER</code>"
_AGAIN = (
    f"With the key, {_RECOMPUTE_FILES} tests the files again and compares every total and p-value. It takes the files "
    "with the SHA-256 that stand here, and for text the watermark's tokenizer (<code>--tokenizer</code>); the spec "
    "stands in the report."
)

KeyedRecord = Record | ScanRecord | TraceRecord | RaceRecord
"""Records of tests under keys."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence or more: a template with a little markup, and what is put in for each ``$name``."""

    template: str
    values: dict[str, str] = field(default_factory=dict)

    @property
    def plain(self) -> str:
        """Without markup."""
        return _TOKEN.sub(lambda m: clean(self.values[m[1]], _LONGEST) if m[1] else "", self.template)


@dataclass(frozen=True, slots=True)
class _Words:
    """What is said of one kind: which files lie beside it, what follows without a key, and what a key shows."""

    beside: str
    follows: str
    again: str
    recompute: str


_OF = {
    Record: _Words("", "that every p-value and the answer follow from the totals", _AGAIN, _RECOMPUTE_FILES),
    ScanRecord: _Words(
        " Beside it <code>documents.parquet</code> has a row for each document, <code>hits.jsonl</code> each document "
        "that is listed and <code>skipped.jsonl</code> each record that was left out; it holds their SHA-256.",
        "that every p-value, the list of documents, the shares and the answer follow from the totals",
        _AGAIN,
        _RECOMPUTE_FILES,
    ),
    TraceRecord: _Words(
        " Beside it <code>evidence.npz</code> has every context, token and weight that was summed; it holds its "
        "SHA-256.",
        "that the answer, the names and the controls follow from the keys' numbers, and that these are of this "
        "evidence",
        f"With the key, {_RECOMPUTE} sums the evidence again and compares every total, p-value and e-value; it needs "
        "no model and no text.",
        _RECOMPUTE,
    ),
    RaceRecord: _Words(
        " Beside it <code>race.npz</code> has every place that was bet on, in the order of the bets: its context, the "
        "owner's chances of the words there, and what the suspect said; it holds its SHA-256.",
        "that the chance hits, the decoys, the p-values, the names and the answer follow from the places and from the "
        "e-values",
        f"With the key, {_RECOMPUTE} finds again what the key chose at every place, and compares every count of hits, "
        "every e-value and the answer; it needs no model and no text.",
        _RECOMPUTE,
    ),
}
_KEYLESS = {
    PowerPlan: "It takes no key: <code>dyetrace report verify report.json</code> simulates the same students again, "
    "which what is on record fixes, and compares every number.",
    ServeCheck: "Without any key, <code>dyetrace report verify report.json</code> checks that the lines and the "
    "verdict follow from the numbers of the answers. No answer is kept: with the key, <code>dyetrace "
    "serve-check</code> asks the server anew.",
}
_TWINS_BESIDE = (
    " Beside it <code>twins.npz</code> has every pair's differences and its coin, in the order of the bets, and no "
    "text; it holds its SHA-256."
)
_TWINS_VERIFY = (
    "Without any key, <code>dyetrace report verify report.json</code> checks that the report is whole and who signed "
    "it, and computes the bets, the sign tests, the curve, the accounts and the answer from <code>twins.npz</code> "
    "anew. Where the ledger of the suspect's replies lies beside it, its chain of hashes and the plan in it are "
    "checked too."
)
_TWINS_AGAIN = "<code>dyetrace recompute report.json --key file:TWINKEY --inputs FOLDER</code>"


def in_words(record: Report) -> list[str]:
    """`how_to_check` as plain text, as the record has it."""
    return [sentence.plain for sentence in how_to_check(record)]


def how_to_check(record: Report) -> list[Sentence]:
    """What another party does who has this report, in the order in which it may be done; a whole paragraph each."""
    if isinstance(record, TwinRecord):
        return [
            _files(_TWINS_BESIDE),
            Sentence(_TWINS_VERIFY),
            Sentence(
                f"With the twin key, {_TWINS_AGAIN} opens the private ledger of pairs, which lies in FOLDER, chooses "
                "the pairs again, shows that the ledger has the root on record and that each coin follows from the key "
                "and the pair's number, and compares every sign. The key and the ledger are the owner's, who runs that "
                "command before your eyes, or shows pairs to an expert (<code>dyetrace twins reveal</code>)."
            ),
            _code(record),
            Sentence(
                "Nothing rests on this program alone. A sign test takes a table of the binomial law; the bets stand "
                "with their formulas in the section on the method, and at length in <code>docs/twins.md</code> and "
                "<code>docs/validity.md</code> of dyetrace's source."
            ),
        ]
    if not isinstance(record, KeyedRecord):
        return [_files(""), Sentence(_KEYLESS[type(record)]), _code(record)]
    words = _OF[type(record)]
    return [
        _files(words.beside),
        Sentence(
            f"Without any key, {_VERIFY} checks that the report is whole, who signed it, by their SHA-256 that the "
            f"files beside it and those in FOLDER are the ones that were read and written, and {words.follows}."
        ),
        Sentence(words.again + _of_suspect(record)),
        _which_key(record),
        _code(record),
        _arithmetic(record),
    ]


def short_check(record: Report) -> list[Sentence]:
    """The same in one paragraph, for a terminal: the commands, and where the rest stands."""
    if isinstance(record, TwinRecord):
        return [
            Sentence(
                "Without any key: <code>dyetrace report verify report.json</code>. With the twin key and the private "
                f"ledger: {_TWINS_AGAIN}. What each of them shows, and the hash of the code: how_to_check "
                "in report.json, and docs/twins.md."
            )
        ]
    if not isinstance(record, KeyedRecord):
        return [Sentence(_KEYLESS[type(record)])]
    own = ", or an account's own for its part" if _accounts(record) else ""
    return [
        Sentence(
            f"Without any key: {_VERIFY}. With the key{own}: {_OF[type(record)].recompute}. What each of them shows, "
            "what it takes, the hash of the code and where the arithmetic is described, which is public: how_to_check "
            "in report.json, and docs/reports.md."
        )
    ]


def specs_of(record: KeyedRecord) -> list[tuple[str, WatermarkSpec]]:
    """The specs that were looked for, with the ids on record."""
    if isinstance(record, ScanRecord):
        return list(zip(record.spec_ids, record.specs, strict=True))
    return [(record.spec_id, record.spec)]


def _accounts(record: KeyedRecord) -> bool:
    return any(spec.global_share < 1 for _, spec in specs_of(record))


def _files(beside: str) -> Sentence:
    return Sentence(
        f"<code>report.json</code> is the report: it holds every number.{beside} Pages and PDFs are drawn from it "
        "(<code>dyetrace report render</code>) and hold nothing more."
    )


def _of_suspect(record: KeyedRecord) -> str:
    """That the evidence is the suspect's own is shown by other means than the key."""
    if not isinstance(record, TraceRecord | RaceRecord):
        return ""
    of_owner = (
        " That the chances are the owner's is seen by whoever has its model and the answers: their SHA-256 stand here."
        if isinstance(record, RaceRecord)
        else ""
    )
    if record.mode == "api":
        return (
            " The answers themselves are in the ledger of the trace, each chained to the one before by its hash, whose "
            f"last one stands here.{of_owner}"
        )
    return (
        " That these predictions are the suspect's is seen by tracing the same model anew: its SHA-256 stands "
        f"here.{of_owner}"
    )


def _which_key(record: KeyedRecord) -> Sentence:
    account = (
        " An account's own key gives the part that concerns it, tells nothing of any other key, and can be lent alone."
        if _accounts(record)
        else ""
    )
    shown = (
        "No commitment is on record: that this key was fixed before the suspect existed is not to be seen from here."
        if record.commitment is None
        else "That the key is the one that was committed to is seen with the commitment and its opening "
        "(<code>dyetrace verify-commitment</code>); when it was published, from where it was published."
    )
    return Sentence(
        "The key is secret, and never part of a report: its owner runs that command before your eyes, or lends it to "
        f"an expert whom both sides trust.{account} {shown}"
    )


def _code(record: Report) -> Sentence:
    if record.made is None:
        return Sentence("Which code made this report is not on record: an older release wrote it.")
    return Sentence(
        "Use your own copy of dyetrace $version. Whether it is the same code shows in the folder that holds its "
        "packages: <code>$shell</code> prints <code>$hash</code>. Other versions of dyetrace, Python or numpy give the "
        "same totals, and the same p-values to six digits.",
        {"version": record.versions.get("dyetrace", ""), "shell": SHELL, "hash": record.made.code_sha256},
    )


def _arithmetic(record: KeyedRecord) -> Sentence:
    scheme = specs_of(record)[0][1].build_scheme()
    words, values = (
        ("as $system computes them", {"system": scheme.system})
        if is_format(scheme)
        else (
            "of ChaCha with 8 rounds, its state laid out as in RFC 8439, from the key, the context and the token's "
            "number",
            {},
        )
    )
    if isinstance(record, RaceRecord):
        return Sentence(
            f"Nothing rests on this program alone. The words are those {words}; what they choose, the bets on it and "
            "the payment for every choice stand with their formulas in the section on the method, and at length in "
            "<code>docs/race.md</code> and <code>docs/validity.md</code> of dyetrace's source.",
            values,
        )
    return Sentence(
        f"Nothing rests on this program alone. The words are those {words}; the scores, their law and the payment for "
        "every choice stand with their formulas in the section on the method, and at length in "
        "<code>docs/reports.md</code> and <code>docs/validity.md</code> of dyetrace's source. Totals are whole "
        "numbers: another program that follows them gets the same, to the last digit.",
        values,
    )
