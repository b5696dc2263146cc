"""Local models at work: hashed, loaded one after the other, tested, and their predictions of each text kept."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from detect.models.alignment import AlignedModel
from detect.models.forward import Model, Predictions, Predictor, predictions
from detect.models.reading import Positions, ReadingText
from detect.models.seen import model_seen, template_hash
from detect.models.soundness import check_sound, unfit
from detect.records.report import versions
from detect.records.trace import ModelSeen
from watermark.errors import DyetraceError
from watermark.models.folder import load_model
from watermark.models.given import find_model
from watermark.models.prompts import leading_tokens
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much it is in all; 0 of 0 where it can't be counted."""


def check_beside(suspect: ModelSeen, reference: ModelSeen) -> None:
    """Raise DyetraceError where a suspect would be compared with itself, by its hash."""
    if suspect.sha256 == reference.sha256:
        raise DyetraceError(
            f"the suspect and the reference {reference.name} are the same model: nothing can be seen beside itself; "
            "give its base model as --reference, or another one"
        )


class Bench:
    """Models by their folders, the last one loaded.

    Parameters
    ----------
    spec
        Its tokens are predicted.
    tokenizer
        The spec's tokenizer.
    keep
        Folder of what models have read; None keeps nothing.
    dtype, device
        Number format that models run in, and where (`watermark.models.folder.DEVICES`).
    base
        The base model of adapters; None takes the folders that they name themselves.
    progress
        Told what is being done.
    """

    def __init__(
        self,
        spec: WatermarkSpec,
        tokenizer: Any,
        keep: Path | None,
        *,
        dtype: str = "bfloat16",
        device: str = "auto",
        base: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self._keep, self._dtype, self._device, self._base = keep, dtype, device, base
        self._progress = progress or (lambda what, done, total: None)
        self._seen: dict[Path, ModelSeen] = {}
        self._loaded: tuple[Path, Predictor] | None = None

    def begin(self, what: str) -> None:
        """Say what is being done where it can't be counted."""
        self._progress(what, 0, 0)

    def seen(self, folder: Path) -> ModelSeen:
        """What a record says of a model; it is hashed once."""
        if folder not in self._seen:
            given = find_model(folder, self._base)
            self.begin(f"hashing {folder.name}")
            same = tokenizer_fingerprint(given.tokenizer) == self.spec.tokenizer
            self._seen[folder] = model_seen(folder, "same" if same else "aligned", self._base)
        return self._seen[folder]

    def predictions(self, folder: Path, text: ReadingText, where: Positions) -> Predictions:
        """What the model predicts at the positions of a text."""
        seen = self.seen(folder)
        settings: list[object] = [seen.sha256, template_hash(folder, self._base), self._dtype]
        settings += [self.spec.tokenizer, self.spec.context_width]
        settings += [versions().get(package) for package in ("dyetrace", "torch", "transformers")]
        if first := leading_tokens(load_tokenizer(find_model(folder, self._base).tokenizer)):
            settings.append(f"behind {first}")  # without it, what earlier releases kept of such a model
        name = hashlib.sha256(" ".join(map(str, settings)).encode()).hexdigest()
        label = f"{folder.name} reads {Path(text.name).name}"
        return predictions(
            lambda: self._model(folder, seen),
            name,
            text,
            where,
            self._keep,
            lambda done, total: self._progress(label, done, total),
        )

    def _model(self, folder: Path, seen: ModelSeen) -> Predictor:
        """The model of a folder; the last one stays, as it may have another text to read."""
        if self._loaded is None or self._loaded[0] != folder:
            self._loaded = None  # before the next one needs the room
            self._loaded = folder, self._load(folder, seen)
        return self._loaded[1]

    def _load(self, folder: Path, seen: ModelSeen) -> Predictor:
        """The model of a folder, once it has passed its self-test; what was mended is said on standard error."""
        self.begin(f"loading {folder.name}")
        network, tokenizer = load_model(folder, self._dtype, partial(print, file=sys.stderr), self._device, self._base)
        same = seen.tokenizer == "same"
        check_sound(network, str(folder), self.spec.vocabulary_size if same else vocabulary_size(tokenizer))
        if (line := unfit(network, str(folder), tokenizer)) is not None:
            print(line, file=sys.stderr)
        if same:
            return Model(network, self.spec.vocabulary_size, leading_tokens(tokenizer))
        return AlignedModel(
            network, tokenizer, self.tokenizer, self.spec.vocabulary_size, context_width=self.spec.context_width
        )
