"""A check of a server as plain text, for a terminal, a log and a run book alike."""

from __future__ import annotations

from collections.abc import Iterator

from detect.records.server_check import ServeCheck
from detect.records.written import clean, format_p, format_time, key_label
from detect.report.wording import assumption_lines
from detect.server.check import LOG10_MARKED


def lines(record: ServeCheck) -> Iterator[str]:
    """The whole verdict."""
    tokens = sum(answer.tokens for answer in record.answers)
    tuples = sum(answer.tuples for answer in record.answers)
    asked_as = "no account" if record.tenant is None else f"account {record.tenant}"
    yield _safe(f"{record.url}  model {record.model}  {record.endpoint}  {format_time(record.created)}")
    yield _safe(f"spec {record.spec_id} ({record.scheme}, epoch {record.epoch}), key {record.key_fingerprint}")
    yield _safe(f"by dyetrace {record.versions.get('dyetrace', '')}, code {record.code_sha256[:12]}")
    yield _safe(
        f"{len(record.answers)} answers as {asked_as}, temperature {record.temperature:g}, {tokens:,} tokens, "
        f"{tuples:,} distinct tuples, "
        + ("token ids from the server" if record.token_ids == "server" else "token ids from the text")
    )
    width = max(len(check.name) for check in record.checks)
    for check in record.checks:
        yield _safe(f"{check.status}  {check.name:<{width}}  {check.reason}")
    yield _safe(f"VERDICT: {record.verdict}")
    for line in assumption_lines(record.assumptions):
        yield _safe(f"assumes: {line}")


def one_line(record: ServeCheck, number: int) -> str:
    """One round of a canary."""
    keys = ", ".join(f"{key_label(found.key)} p = {format_p(found.log10_pvalue)}" for found in record.keys)
    marked = sum(answer.log10_pvalue <= LOG10_MARKED for answer in record.answers)
    tuples = sum(found.tuples for found in record.keys)
    status = "FAIL" if not record.passed else "PASS" if record.decided else "OPEN"
    said = (
        f"{record.created} {status} round {number}: {record.verdict}; {keys}; "
        f"{marked} of {len(record.answers)} answers marked by themselves, {tuples:,} tuples"
    )
    bad = [check for check in record.checks if check.status in ("FAIL", "OPEN")]
    failed = "; ".join(f"{check.name}: {check.reason}" for check in bad)
    return _safe(said + (f"; {failed}" if failed else ""))


def _safe(line: str) -> str:
    return clean(line).encode("ascii", "backslashreplace").decode()
