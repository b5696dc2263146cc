"""What containers pass over (pictures beside texts, members without records), counted beside the turns of chats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from detect.readers.batch import Batch, Draft, Source, Tally

NO_TEXT = frozenset({"image", "audio", "video", "font"})
"""Kinds of media (the first half of a MIME type) that hold no text."""


class Passed:
    """Counts of what was passed over since they were last taken.

    Parameters
    ----------
    tally
        Takes the first of them, where somebody waits for all together.
    """

    def __init__(self, tally: Tally | None = None) -> None:
        self._tally = tally

    def add(self, part: str, size: int) -> None:
        """Count one thing of so many bytes."""
        self._tally = self._tally or Tally()
        self._tally.add("", part, False, size)

    def on(self, batches: Iterator[Batch], source: Source) -> Iterator[Batch]:
        """The same batches with the counts on them; what is counted after them comes in one without documents."""
        seen = 0
        for batch in batches:
            seen = batch.seen
            yield self._told(batch)
        if self._tally:
            yield self._told(Draft(source.kind, False).batch(seen))

    def _told(self, batch: Batch) -> Batch:
        if not self._tally:
            return batch
        counts, self._tally = self._tally.counts(), None
        return replace(batch, turns=batch.turns + counts)
