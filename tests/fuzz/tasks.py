"""What is said to the process that commands are forked from, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A command to run: words, environment, folder, and what befalls it. None for a stream closes it."""

    words: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    streams: tuple[bool, bool, bool]
    signal: int
    after: float
    file_size: int
    process: bool
    workers: bool
    limit: float
    grace: float


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    status
        As a shell has it.
    by_signal
        Whether a signal itself ended it.
    seconds
        Of a processor, its own and those of its children.
    late, hung
        Whether it had to be interrupted, and then killed.
    left
        Command lines of processes that it left behind.
    """

    status: int
    by_signal: bool
    seconds: float
    late: bool
    hung: bool
    left: tuple[str, ...]
