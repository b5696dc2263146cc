"""How commands end: the one table of exit statuses, which all of them share and which the documentation prints."""

from __future__ import annotations

from dataclasses import dataclass

from watermark.errors import DyetraceError, EvidenceError, MachineError, UndecidedError


@dataclass(frozen=True, slots=True)
class Status:
    """One way to end: the number that the shell sees, its name, and what it means to whoever reads it."""

    number: int
    name: str
    meaning: str


DONE = Status(0, "done", "The command did what it was asked to do. Whether a mark was found stands in the result.")
INTERNAL = Status(
    1,
    "internal error",
    "A fault of dyetrace itself: one line says where. With DYETRACE_TRACEBACK=1 in the environment the details are "
    "printed as well.",
)
BAD_INPUT = Status(
    2,
    "bad input",
    "An option, an argument or a file can't be used as it was given: it is missing, unreadable, broken or of another "
    "kind, it contradicts another one, or an output is there already and stays.",
)
DOES_NOT_HOLD = Status(
    3,
    "evidence does not hold",
    "What was checked was changed, forged or is not reproduced: `report verify`, `recompute`, `verify-commitment`, "
    "damaged ledgers and signatures; for `serve-check`, the mark is not in the answers as it should be.",
)
UNDECIDED = Status(
    4,
    "cannot tell",
    "The command ran and has no verdict: too little to look at, or with `--fail` a verdict that was withheld because "
    "a control or an assumption failed.",
)
MACHINE = Status(
    5,
    "machine",
    "The input is good and the machine refuses: disk, memory, network, a package that isn't installed, an output that "
    "another process is writing, or standard output that was closed.",
)
INTERRUPTED = Status(
    130, "interrupted", "Ctrl-C (SIGINT). One line says what is kept and how to go on; no half-written output is left."
)
TERMINATED = Status(143, "terminated", "SIGTERM, with the same line and the same care as after Ctrl-C.")
FOUND = Status(183, "found", "The mark was found, and `--fail` asked for a status of its own for that.")

STATUSES = (DONE, INTERNAL, BAD_INPUT, DOES_NOT_HOLD, UNDECIDED, MACHINE, INTERRUPTED, TERMINATED, FOUND)
"""All there are: no command ends with another one."""


def status_of(error: DyetraceError) -> Status:
    """How a command ends that one of dyetrace's own errors ended."""
    if isinstance(error, EvidenceError):
        return DOES_NOT_HOLD
    if isinstance(error, UndecidedError):
        return UNDECIDED
    return MACHINE if isinstance(error, MachineError) else BAD_INPUT


def table() -> str:
    """The table as the documentation prints it, in Markdown."""
    rows = [f"| {status.number} | {status.name} | {status.meaning} |" for status in STATUSES]
    return "\n".join(["| status | name | when |", "| --- | --- | --- |", *rows])
