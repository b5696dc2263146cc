"""Which suspects there are: students of served answers in several ways, and innocents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.race.material import Material
from benchmarks.twins.material import texts_of
from benchmarks.twins.paraphrase import Thesaurus, by_rules
from benchmarks.twins.students import Training, student
from benchmarks.twins.suspects import Family, base_folder

Texts = Literal["none", "many", "few", "by rules", "elsewhere"]

LORA = Training()
FULL = Training(method="full", rate=5e-5)
REPLACED = 0.25  # of the content words, by rules


@dataclass(frozen=True)
class Suspect:
    """A model and what it was trained on.

    Attributes
    ----------
    name
        Of folders and rows.
    said
        The same for people.
    texts
        "many": the served answers that are used. "few": a tenth of its training set are served answers, the rest is
        unmarked text. "by rules": the many in other words. "elsewhere": that unmarked text alone.
    family
        Of which model.
    """

    name: str
    said: str
    texts: Texts
    training: Training = LORA
    family: Family = "demo"

    @property
    def guilty(self) -> bool:
        """Whether it learnt from served answers."""
        return self.texts not in ("none", "elsewhere")


SUSPECTS = (
    Suspect("lora", "all marked, LoRA", "many"),
    Suspect("lora-tenth", "a tenth marked, LoRA", "few"),
    Suspect("full", "all marked, all weights", "many", FULL),
    Suspect("full-tenth", "a tenth marked, all weights", "few", FULL),
    Suspect("gemma", "Gemma 3 270M, all marked, LoRA", "many", family="gemma"),
    Suspect("paraphrased", "paraphrased by rules, LoRA", "by rules"),
    Suspect("elsewhere", "other text, LoRA", "elsewhere"),
)
"""In the order of what is run first."""


def texts_for(suspect: Suspect, material: Material, thesaurus: Thesaurus) -> Sequence[tuple[str, str]]:
    """(prompt, answer) that a suspect learns from."""
    served = texts_of(material.served)
    if suspect.texts == "many":
        return [served[row] for row in material.used]
    if suspect.texts == "few":
        return [*(served[row] for row in material.few), *texts_of(material.elsewhere)]
    if suspect.texts == "by rules":
        used = [served[row] for row in material.used]
        answers = by_rules([answer for _, answer in used], REPLACED, thesaurus, material.seed)
        return list(zip([prompt for prompt, _ in used], answers, strict=True))
    return texts_of(material.elsewhere) if suspect.texts == "elsewhere" else []


def folder_of(suspect: Suspect, material: Material, thesaurus: Thesaurus, training: Training | None = None) -> Path:
    """The suspect's weights, trained if need be; ``training`` stands in for its own in tiny runs."""
    base = base_folder(suspect.family, material.folder)
    name = f"{material.setting.label}{suspect.name}{material.seed}"
    texts = texts_for(suspect, material, thesaurus)
    return student(material.keep, name, base, texts, training or suspect.training)
