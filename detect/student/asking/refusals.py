"""Prompts that an endpoint refuses, each for itself, told from an endpoint that takes none of them."""

from __future__ import annotations

import re

from watermark.errors import DyetraceError

_OF_PROMPT = re.compile(
    r"content[\s_-]*(filter|management|policy|moderation|violation)|moderat|flagged|safety|unsafe|responsible\s?ai"
    r"|harmful|prohibited|inappropriate|sensitive|policy[\s_-]violation|violat\w+ .{0,40}polic|inspection|high[\s_]risk"
    r"|(prompt|content) (was |is |has been )?blocked|too long|context[\s_-]*(length|window|size)|maximum context"
    r"|reduce (the|your) (length|prompt|input|message)|\binputs?\b.{0,60}(exceed|must be <=)",
    re.IGNORECASE,
)
_NAMES = re.compile(r"[\"'`].*?[\"'`]|\b(?=\w*\d)[\w-]+\b")  # quotes, numbers, ids of requests
_OF_ALL = {401, 402, 404, 405, 407, 408, 409, 425, 429}  # key, money, address, or the moment
_ALIKE, _MOST_AT_FIRST, _MOST_IN_A_ROW = 5, 20, 20
_MOST_REASONS = 10
_OTHER = "other reasons"


def is_of_prompt(status: int | None, payload: bytes) -> bool:
    """Whether a refusal is about the words of one prompt: a content filter, or a prompt that is too long.

    Such a refusal stands, whenever the same is asked again.
    """
    if status is None or not (400 <= status < 500 or 200 <= status < 300) or status in _OF_ALL:
        return False
    return _OF_PROMPT.search(payload[:20_000].decode("utf-8", "replace")) is not None


class Refusals:
    """Refused steps and why; what ends it all is raised.

    Parameters
    ----------
    host
        What the endpoint is called in messages.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._of: dict[int, str] = {}
        self._reasons: dict[str, str] = {}  # by what is alike in them, the first as it was said
        self._row: list[str] = []  # since the last answer

    @property
    def count(self) -> int:
        """Refused steps."""
        return len(self._of)

    def of(self, step: int) -> str | None:
        """Why a step was refused; None where it wasn't."""
        return self._of.get(step)

    def answered(self) -> None:
        """An answer came."""
        self._row = []

    def on_record(self, step: int, says: str) -> dict[str, int]:
        """Put down a step that an earlier run was refused, and count all."""
        alike = _NAMES.sub("_", says)
        if alike not in self._reasons and len(self._reasons) >= _MOST_REASONS:
            alike, says = _OTHER, _OTHER
        self._of[step] = self._reasons.setdefault(alike, says)
        return {reason: list(self._of.values()).count(reason) for reason in self._reasons.values()}

    def refused(self, step: int, says: str, advice: str, works: bool, of_prompt: bool) -> dict[str, int]:
        """Put down a refusal, and count all.

        Parameters
        ----------
        step
            What was refused.
        says, advice
            What the endpoint said, and what may be done about it.
        works
            Whether anything was ever answered.
        of_prompt
            `is_of_prompt`.

        Raises
        ------
        DyetraceError
            It refuses one after the other: the first ones alike, or, later on, several for no word in them.
        """
        if step not in self._of:
            self._row.append(_NAMES.sub("_", says))
        counted = self.on_record(step, says)
        alike = self._row.count(self._row[-1]) if self._row else 0
        if not works and (alike >= _ALIKE or len(self._row) >= _MOST_AT_FIRST):
            raise DyetraceError(f"{self._host} refuses the first {len(self._row)} prompts: {says}; {advice}")
        if works and (len(self._row) >= _MOST_IN_A_ROW or (alike >= _ALIKE and not of_prompt)):
            raise DyetraceError(
                f"{self._host} refuses one prompt after another ({len(self._row)} in a row: {says}); {advice}; "
                "what came so far is kept: the same command goes on from there"
            )
        return counted

    def check_end(self, works: bool) -> None:
        """Raise DyetraceError where all that was asked was refused."""
        if self._of and not works:
            says = next(iter(self._reasons.values()))
            which = "the one prompt" if len(self._of) == 1 else f"all {len(self._of)} prompts"
            raise DyetraceError(f"{self._host} refuses {which}: {says}; ask other prompts, or by other settings")
