"""What local models make of pairs, kept on the disk as they go, so that a test that was stopped reads nothing twice.

What is kept is numbers, places in answers, and what the owner's model answers itself; no coin had a say in it.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from detect.folders.own import claim
from detect.models.seen import model_seen, template_hash
from detect.records.trace import ModelSeen
from detect.twins.controls import owner_numbers
from detect.twins.measures.logprobs import Read
from detect.twins.measures.parting import Place, find_places
from detect.twins.measures.protocol import F64
from detect.twins.measures.weights import USUAL_SAMPLES, Reader
from watermark.errors import DyetraceError, refused_write
from watermark.files.writing import write_atomically
from watermark.twins.pair import Pair

WORK = ".dyetrace-twins"
"""Name of the folder, in that of the report, with what models have read; the same test goes on from there."""

_MARKED = b"What models have read for `dyetrace trace twins`, which goes on from here; it may be removed.\n"
_AT_ONCE = 256  # pairs that are kept together
_ANSWERED_AT_ONCE = 16  # the same, where a model writes

Progress = Callable[[str, int, int], None]
"""Told what is read, how far that is, and how far it goes."""

_T = TypeVar("_T")


@dataclass(slots=True)
class Readings:
    """Reads pairs with the models of folders.

    Attributes
    ----------
    output
        Folder of the report.
    dtype
        Number format that models run in.
    progress
        Told how far they are; None where nobody is.
    base
        The base model of adapters; None takes the folders that they name themselves.
    """

    output: Path
    dtype: str = "bfloat16"
    progress: Progress | None = None
    base: Path | None = None
    _seen: dict[Path, ModelSeen] = field(default_factory=dict)
    _loaded: tuple[Path, Reader] | None = None

    def seen(self, folder: Path) -> ModelSeen:
        """A model as reports name it."""
        if folder not in self._seen:
            self._seen[folder] = model_seen(folder, "text", self.base)
        return self._seen[folder]

    def read(self, folder: Path, pairs: Sequence[Pair]) -> dict[str, Read]:
        """What a model makes of each pair, by the pair's id; pairs with an empty answer are missing."""
        found = self._kept(folder, pairs, "read", list[Read | None], lambda reader, some: reader.read(some))
        return {pair.id: read for pair, read in zip(pairs, found, strict=True) if read is not None}

    def owner_numbers(self, folder: Path, pairs: Sequence[Pair]) -> F64:
        """The numbers of `detect.twins.controls.owner_numbers`."""

        def numbers(reader: Reader, some: Sequence[Pair]) -> list[list[float]]:
            made: list[list[float]] = owner_numbers(reader, some).tolist()
            return made

        return np.array(self._kept(folder, pairs, "owner", list[list[float]], numbers))

    def places(self, folder: Path, pairs: Sequence[Pair]) -> dict[str, list[Place]]:
        """The places of `detect.twins.measures.parting.find_places`, by the pair's id."""
        label = f"{folder.name} looks for places to ask about"

        def look(some: Sequence[Pair]) -> list[list[Place]]:
            found = find_places(folder, some, dtype=self.dtype, base=self.base)
            return [found.get(pair.id, []) for pair in some]

        parts = self._blocks(folder, pairs, "places", list[list[Place]], label, look)
        return {pair.id: places for pair, places in zip(pairs, parts, strict=True)}

    def usual(self, folder: Path, pairs: Sequence[Pair]) -> dict[str, list[str]]:
        """What a model itself answers to each pair's prompt, by the pair's id (`Reader.answers`)."""
        label = f"{folder.name} answers the prompts itself"

        def answer(some: Sequence[Pair]) -> list[list[str]]:
            reader = self._reader(folder)
            return [reader.answers(pair, USUAL_SAMPLES) for pair in some]

        parts = self._blocks(folder, pairs, "usual", list[list[str]], label, answer, _ANSWERED_AT_ONCE)
        return {pair.id: answers for pair, answers in zip(pairs, parts, strict=True)}

    def _kept(
        self,
        folder: Path,
        pairs: Sequence[Pair],
        what: str,
        kind: type[list[_T]],
        make: Callable[[Reader, Sequence[Pair]], list[_T]],
    ) -> list[_T]:
        label = f"{folder.name} reads both answers of each pair"
        return self._blocks(folder, pairs, what, kind, label, lambda some: make(self._reader(folder), some))

    def _blocks(
        self,
        folder: Path,
        pairs: Sequence[Pair],
        what: str,
        kind: type[list[_T]],
        label: str,
        make: Callable[[Sequence[Pair]], list[_T]],
        at_once: int = _AT_ONCE,
    ) -> list[_T]:
        """What is made of each pair, some pairs at a time; what is on the disk is not made again."""
        settings = (what, self.seen(folder).sha256, template_hash(folder, self.base), self.dtype)
        found: list[_T] = []
        worked = False
        for start in range(0, len(pairs), at_once):
            some = pairs[start : start + at_once]
            # The whole pair, not its id alone: a ledger that was made anew may use an id again.
            names = [hashlib.sha256(msgspec.json.encode(_shown(pair))).hexdigest() for pair in some]
            path = self.output / WORK / hashlib.sha256(msgspec.json.encode([*settings, *names])).hexdigest()
            kept = _load(path, kind, len(some))
            if kept is None:
                worked = True
                self._tell(label, start, len(pairs))
                kept = make(some)
                _save(self.output / WORK, path, kept)
            found += kept
        if worked:
            self._tell(label, len(pairs), len(pairs))
        return found

    def _reader(self, folder: Path) -> Reader:
        """The model of a folder; the last one stays, as it may have more to read."""
        if self._loaded is None or self._loaded[0] != folder:
            self._loaded = None  # before the next one needs the room
            gc.collect()
            self._loaded = folder, Reader.load(folder, self.dtype, self.base)
        return self._loaded[1]

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)


def _shown(pair: Pair) -> list[str]:
    """What a model is shown of a pair, without the coin."""
    return [pair.id, _escaped(pair.request), *(_escaped(side.text) for side in pair.sides)]


def _escaped(value: Any) -> str:
    """JSON in ASCII: text may hold half of a surrogate pair."""
    return json.dumps(value)


def _load(path: Path, kind: type[list[_T]], count: int) -> list[_T] | None:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found if len(found) == count else None


def _save(folder: Path, path: Path, values: list[Any]) -> None:
    try:
        claim(folder, _MARKED, "give another folder with -o, or move it away")
        write_atomically(path, msgspec.json.encode(values), 0o600)
    except UnicodeEncodeError:
        return  # half of a surrogate pair stands in an answer: it is read again the next time
    except OSError as error:
        raise refused_write(f"cannot write to {folder}", error) from None


def check_other(suspect: ModelSeen, reference: ModelSeen) -> None:
    """Raise DyetraceError where the suspect would be compared with itself."""
    if suspect.sha256 == reference.sha256:
        raise DyetraceError(
            f"the suspect and the reference {reference.name} are the same model: nothing can be seen beside itself; "
            "give another reference, or none"
        )
