"""Every number and line of a server's check that follows from others, computed again without any key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detect.records.results import Check
from detect.records.server_check import ServeCheck
from detect.records.text_assumptions import of_serve_check
from detect.report.verify.checks import NotDone, close, each, refuse, same
from detect.report.verify.words import assumptions, by_this_code
from detect.server.check import judge, verdict
from detect.server.evidence import Findings, fisher_log10


def checks(record: ServeCheck, report: Path, folder: Path | None) -> Iterator[Check]:
    """All checks of a server's check, beside which no file lies."""
    del report, folder
    yield from each({"spec": spec, "keys": keys, "lines": lines, "verdict": said}, record)
    prompts = len({answer.prompt for answer in record.answers})
    yield from assumptions(record, [of_serve_check(prompts, len(record.answers))])
    answers = "whether the answers give these numbers takes the key and the server: `dyetrace serve-check`"
    yield Check("answers", "not done", answers)


def spec(record: ServeCheck) -> str:
    """What is said of the watermark is what its spec says."""
    found = record.spec
    if found is None:
        raise NotDone("the spec is not on record: an older release wrote it")
    stated = (record.spec_id, record.scheme, record.epoch, record.key_fingerprint)
    same(
        "id, scheme, epoch and key of the spec",
        stated,
        (found.spec_id, found.scheme, found.epoch, found.key_fingerprint),
    )
    return "the spec has the id, scheme, epoch and key on record"


def keys(record: ServeCheck) -> str:
    """Each tuple is of one key; where one key alone was looked for, its p-value is that of all answers together."""
    tuples = sum(answer.tuples for answer in record.answers)
    same("tuples of all keys", sum(found.tuples for found in record.keys), tuples)
    for answer in record.answers:
        if not answer.tuples and answer.log10_pvalue != 0:
            refuse(f"an answer to prompt {answer.prompt} has no tuple, and yet a p-value below 1")
    expected = [key for key in ("global", record.tenant and f"tenant:{record.tenant}") if key]
    if not {found.key for found in record.keys} <= set(expected):
        refuse("a key is on record that was not looked for")
    if len(record.keys) > 1:
        raise NotDone("both keys have a part in each answer's p-value, which takes the keys")
    together = fisher_log10([answer.log10_pvalue for answer in record.answers if answer.tuples])
    close("p-value of the key", [record.keys[0].log10_pvalue], [together])
    return f"the key's p-value follows from those of {len(record.answers):,} answers"


def lines(record: ServeCheck) -> str:
    """The lines on keys and answers are those that these numbers give; only the code that wrote them says the same."""
    judged = judge(Findings(record.keys, record.answers, record.others), record.alpha)
    found = record.checks[: len(judged)]
    same("lines of the verdict", [(one.name, one.status) for one in found], [(one.name, one.status) for one in judged])
    if by_this_code(record) and found != judged:
        refuse("the reasons on record are not what this code writes of these numbers: they were changed")
    return (
        f"{len(judged):,} lines follow from the numbers; {len(record.checks) - len(judged):,} are of special requests"
    )


def said(record: ServeCheck) -> str:
    """The verdict is that of the lines."""
    same("verdict", record.verdict, verdict(record.checks, record.keys, record.tenant))
    return "the verdict follows from its lines"
