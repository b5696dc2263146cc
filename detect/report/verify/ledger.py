"""Check the ledger of an endpoint's answers beside a trace's report: its own hashes, and what the report says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from detect.race import plan as race_plan
from detect.records.race import RaceRecord
from detect.records.trace import PlanSeen, TraceRecord
from detect.records.twins import TwinRecord
from detect.report.verify.checks import NotDone, refuse, same
from detect.student.asking import plan as trace_plan
from detect.student.asking.ledger import LEDGER_FILE, Chain, Entry, verify_chain
from detect.twins import plan as twin_plan
from detect.twins.endpoint import asked_for


def ledger(record: TraceRecord | TwinRecord | RaceRecord, folder: Path) -> str:
    """The chain of hashes is whole and ends where the report says, and the plan and its first query are in it.

    A ledger may have grown after the report was made; then the entry that was its last must still be there.
    """
    asked, path = record.queries, folder / LEDGER_FILE
    if asked is None:
        return "no endpoint was asked"
    if not path.is_file():
        raise NotDone(f"{LEDGER_FILE}, which holds every answer, is not beside the report")
    seen = _Seen()
    whole = verify_chain(path, seen.take)
    last = seen.numbers.get(asked.ledger_head)
    if last is None:
        refuse(f"no entry of {LEDGER_FILE} has the hash {asked.ledger_head}, which was that of its last one")
    if record.plan is not None:
        _plan(record.plan, whole, seen, before=asked.before_plan)
        if asked.sampling:
            same("sampling asked for", asked.sampling, _asked_for(record, seen.plans[record.plan.sha256]))
        sent = sum(plan == record.plan.sha256 for number, plan in seen.requests if number <= last)
        same("requests of the plan", asked.requests, sent)
        entered = whole.plans[record.plan.sha256].number
        same("answers before the plan", asked.before_plan, sum(number < entered for number in seen.answered))
    grown = f"; {whole.entries - last:,} were added after the report" if last < whole.entries else ""
    return f"all {whole.entries:,} entries of {LEDGER_FILE} fit their hashes, the report's plan among them{grown}"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a pass over the entries collects: numbers by hash, requests, answers and plans."""

    numbers: dict[str, int] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    plans: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[int, str]] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        self.numbers[entry.hash] = entry.number
        if entry.kind == "asked":
            self.sent.add(entry.time)
            self.requests.append((entry.number, entry.plan))
        elif entry.kind == "answered":
            self.answered.append(entry.number)
        elif entry.kind == "plan":
            self.plans.setdefault(entry.key, entry.payload)


class _Choice(msgspec.Struct, frozen=True):
    seed: str
    offered: int


class _Plan(msgspec.Struct, frozen=True):
    """What a report repeats of its plan, of whatever version that is."""

    created: str
    choice: _Choice | None = None


def _asked_for(record: TraceRecord | TwinRecord | RaceRecord, payload: bytes) -> str:
    """Which sampling a plan asks for."""
    where = f"the plan in {LEDGER_FILE}"
    if isinstance(record, TraceRecord):
        return trace_plan.parse_plan(payload, where).asked_for
    if isinstance(record, RaceRecord):
        return race_plan.parse_plan(payload, where).asked_for
    return asked_for(twin_plan.parse_plan(payload, where))


def _plan(said: PlanSeen, whole: Chain, seen: _Seen, *, before: int) -> None:
    entered = whole.plans.get(said.sha256)
    if entered is None:
        refuse(f"{LEDGER_FILE} does not hold the plan {said.sha256}")
    plan = msgspec.json.decode(seen.plans[said.sha256], type=_Plan)
    held = (plan.created, None if plan.choice is None else plan.choice.seed, plan.choice.offered if plan.choice else 0)
    if (said.created, said.seed, said.offered) != held:
        refuse(
            f"of its plan the record says {said.created}, seed {said.seed!r}, {said.offered:,} offered; the one "
            f"in {LEDGER_FILE} has {held[0]}, seed {held[1]!r}, {held[2]:,}"
        )
    if said.first_query is None:
        return
    if said.first_query not in seen.sent:
        refuse(f"no request in {LEDGER_FILE} was sent at {said.first_query}, the time of the first one by the report")
    if not before and datetime.fromisoformat(said.first_query) < datetime.fromisoformat(entered.entered):
        refuse(
            f"the first query was sent before the plan was entered ({entered.entered}), and the report knows of none"
        )
