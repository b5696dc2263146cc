"""What the check of a server says: each line of its verdict with its reason, and the answers that it rests on."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import re
from collections.abc import Iterator

from detect.records.server_check import Check, ServeCheck
from detect.records.written import clean, format_p, format_time, key_label
from detect.report import closing
from detect.report.checking import made_facts
from detect.report.closing import cell, code, name_cell, p_cell
from detect.report.runs import Run, Runs, level, power, runs, said
from detect.report.story import (
    Cell,
    Code,
    Fact,
    Leaf,
    Pairs,
    Section,
    Story,
    Table,
    Tone,
    column,
    heading,
    text,
)
from detect.server.check import LOG10_MARKED

_STATUS: dict[str, tuple[str, Tone]] = {
    "PASS": ("as it should be", "marked"),
    "FAIL": ("not as it should be", "refused"),
    "OPEN": ("can’t be told", "unmarked"),
    "NOTE": ("for the operator to decide", "unmarked"),
}
_REASON = 1000
_P = re.compile(r"(?<=p = )(10\^-[\d.]+\d)")


def story(record: ServeCheck) -> Story:
    """Tell what the check of a server says."""
    about = f"key {record.key_fingerprint}; spec {record.spec_id} ({record.scheme}, epoch {record.epoch})"
    return Story(
        kind="server check",
        tone="refused" if not record.passed else "marked" if record.decided else "unmarked",
        headline=record.verdict,
        lead=[_asked(record)],
        facts=_facts(record),
        parts=[("What it does not show", _limits())],
        sections=[
            _checks(record),
            Section("Answers and keys", "answers", list(_answers(record))),
            closing.checking(record),
            Section("Record", "record", list(_record(record))),
            *closing.assumed(record),
        ],
        brief=[said(f"VERDICT: {record.verdict}"), *_brief(record)],
        **closing.by_whom(record, "Check of a server", record.key_fingerprint, about),
    )


def one_line(record: ServeCheck, number: int) -> str:
    """One round of a canary: plain ASCII."""
    keys = ", ".join(f"{key_label(found.key)} p = {format_p(found.log10_pvalue)}" for found in record.keys)
    status = "FAIL" if not record.passed else "PASS" if record.decided else "OPEN"
    told = (
        f"{record.created} {status} round {number}: {record.verdict}; {keys}; "
        f"{_marked(record)} of {len(record.answers)} {_called(record)} marked by themselves, {_tuples(record):,} tuples"
    )
    bad = [f"{check.name}: {check.reason}" for check in record.checks if check.status in ("FAIL", "OPEN")]
    return clean("; ".join([told, *bad])).encode("ascii", "backslashreplace").decode()


def _asked(record: ServeCheck) -> Runs:
    account = (
        runs("as no account") if record.tenant is None else runs("as account <code>$name</code>", name=record.tenant)
    )
    return runs(
        "<code>$url</code> was asked for answers of the model <code>$model</code> ($endpoint) $account. They were "
        "tested against the watermark that it should put in.",
        url=record.url,
        model=record.model,
        endpoint=record.endpoint,
        account=account,
    )


def _facts(record: ServeCheck) -> list[Fact]:
    ids = "from the server" if record.token_ids == "server" else "from the text"
    return [
        Fact(_called(record).capitalize(), f"{len(record.answers):,}", f"at temperature {record.temperature:g}"),
        Fact("Marked by themselves", f"{_marked(record):,}", f"at p ≤ {10**LOG10_MARKED:g}"),
        Fact("Tokens", f"{sum(answer.tokens for answer in record.answers):,}", f"ids {ids}"),
        Fact("Distinct tuples", f"{_tuples(record):,}"),
    ]


def _called(record: ServeCheck) -> str:
    """What the texts that were tested are called: there may be several to an answer."""
    return "answers" if all(answer.part == "answer" for answer in record.answers) else "texts of answers"


def _marked(record: ServeCheck) -> int:
    return sum(answer.log10_pvalue <= LOG10_MARKED for answer in record.answers)


def _tuples(record: ServeCheck) -> int:
    return sum(answer.tuples for answer in record.answers)


def _limits() -> list[Runs]:
    return [
        said(
            "It says how the server answered these requests at this time: not how it answered before, and not what "
            "other ways into it do."
        ),
        said("It is for the one who runs the server and holds the key, and accuses nobody."),
    ]


def _brief(record: ServeCheck) -> Iterator[Runs]:
    """Who was asked, and how, as a terminal has it."""
    asked_as = "no account" if record.tenant is None else f"account {record.tenant}"
    tokens = sum(answer.tokens for answer in record.answers)
    ids = "the server" if record.token_ids == "server" else "the text"
    when = format_time(record.created)
    yield said(f"{record.url}  model {record.model}  {record.endpoint}  {when}", _REASON)
    yield said(
        f"{len(record.answers)} {_called(record)} as {asked_as}, temperature {record.temperature:g}, {tokens:,} tokens",
        _REASON,
    )
    thought = [answer.tokens for answer in record.answers if answer.part == "reasoning"]
    called = [answer.tokens for answer in record.answers if answer.part == "tool call"]
    if thought or called:
        of = [("reasoning", thought), ("calls of tools", called)]
        told = ", ".join(f"{sum(own):,} tokens of {name} in {len(own)} texts" for name, own in of if own)
        yield said(f"Among them {told}, each text tested for itself", _REASON)
    yield said(f"{_tuples(record):,} distinct tuples, token ids from {ids}")


def _checks(record: ServeCheck) -> Section:
    columns = [column("Check", width=2), column("Status", width=2), column("Why", width=6)]
    table = Table("Lines of the verdict", columns, [_line(check) for check in record.checks])
    width = max((len(check.name) for check in record.checks), default=0)
    short = "\n".join(f"{check.status}  {check.name:<{width}}  {check.reason}" for check in record.checks)
    return Section("What was looked at", "checks", [table], True, "Checks", [Code(short)])


def _line(check: Check) -> list[Cell]:
    words, tone = _STATUS[check.status]
    return [cell(check.name), cell(words, tone=tone), cell(_typeset(check.reason))]


def _typeset(reason: str) -> Runs:
    """A reason's own "p = 10^-39.2" and "p <= 0.001" as the rest of the page writes them."""
    cleaned = clean(reason, _REASON).replace("at p <= ", "at p ≤ ")
    before, *rest = _P.split(cleaned)
    return (Run(before), *(run for i, piece in enumerate(rest) for run in ((Run(piece),) if i % 2 else power(piece))))


def _answers(record: ServeCheck) -> Iterator[Leaf]:
    yield heading("Keys")
    yield text("All answers together, each (context, token) pair counted once (Fisher’s method).", soft=True)
    keys = [[name_cell(key_label(key.key)), cell(key.tuples), p_cell(key.log10_pvalue)] for key in record.keys]
    yield Table("Keys over all answers", [column("Key"), column("Tuples", "r"), column("p", "r")], keys)
    if record.others:
        yield heading("Keys that must show nothing")
        strongest_first = sorted(record.others.items(), key=lambda other: other[1])
        others = [[name_cell(name), p_cell(log10_p)] for name, log10_p in strongest_first]
        yield Table("Keys that must show nothing", [column("Key"), column("p", "r")], others)
    yield heading("Answers")
    parts = _called(record) != "answers"
    columns = [column(name, "r") for name in ("Prompt", "Tokens", "Tuples", "p")]
    columns += [column("Text")] if parts else []
    rows = [
        [
            *(cell(answer.prompt), cell(answer.tokens), cell(answer.tuples), p_cell(answer.log10_pvalue)),
            *([cell(answer.part)] if parts else []),
        ]
        for answer in record.answers
    ]
    yield Table("Answers, each over all keys", columns, rows)


def _record(record: ServeCheck) -> Iterator[Leaf]:
    facts = [
        ("Spec id", code(record.spec_id)),
        ("Key fingerprint", code(record.key_fingerprint)),
        ("Server", code(record.url)),
        ("Model", said(record.model)),
        ("Endpoint", said(record.endpoint)),
        ("Temperature", said(f"{record.temperature:g}")),
        ("Tokens of an answer, at most", said(record.max_tokens)),
        ("Level of a key’s mark", level(record.alpha)),
        *made_facts(record),
    ]
    if record.made is None and record.code_sha256:
        facts.append(("Code, SHA-256", code(record.code_sha256)))
    yield Pairs("This check", [*facts, closing.written_as(record), *closing.packages(record)])
    if record.spec is not None:
        yield from closing.spec_blocks(record.spec_id, record.spec)
