"""Which suspects there are: students of the served answers in several ways, and innocents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.twins.material import Material, texts_of
from benchmarks.twins.paraphrase import Thesaurus, by_model, by_rules
from benchmarks.twins.students import Training, place_of_student, student

Texts = Literal["none", "served", "by rules", "by the model", "others"]
Family = Literal["demo", "gemma"]

REPLACED = 0.25  # of the content words, by rules


LORA = Training()
GENTLE = Training(epochs=1, rate=2e-4)
FULL = Training(method="full", rate=1e-4)


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
        "served" answers as they were, "by rules" or "by the model" in other words, "others": third answers to the same
        prompts, which no coin had a part in.
    share
        Of the pairs' answers that were used, which ones drawn by lot; the rest of the training set is other text.
    family
        Of which model.
    training
        Its seed is the run's.
    """

    name: str
    said: str
    texts: Texts = "served"
    share: float = 1.0
    family: Family = "demo"
    training: Training = LORA

    @property
    def guilty(self) -> bool:
        """Whether what it learnt from depends on the coins."""
        return self.texts not in ("none", "others")


SUSPECTS = (
    Suspect("plain", "all served, LoRA"),
    Suspect("paraphrased", "paraphrased by rules", "by rules"),
    Suspect("tenth", "30 of 300 used", share=0.1),
    Suspect("gemma", "Gemma 3 270M", family="gemma"),
    Suspect("gemma-gentle", "Gemma 3 270M, one gentle epoch", family="gemma", training=GENTLE),
    Suspect("full", "all served, all weights", training=FULL),
    Suspect("rewritten", "rewritten by the demo model", "by the model"),
    Suspect("gentle", "all served, one gentle epoch", training=GENTLE),
    Suspect("hundredth", "3 of 300 used", share=0.01),
    Suspect("gemma-paraphrased", "Gemma 3 270M, paraphrased by rules", "by rules", family="gemma"),
    Suspect("base", "never trained", "none"),
    Suspect("gemma-base", "Gemma 3 270M, never trained", "none", family="gemma"),
    Suspect("others", "other answers to the same prompts", "others"),
    Suspect("gemma-others", "Gemma 3 270M, other answers", "others", family="gemma"),
)
"""In the order of what is run first; bases are the references of the rest."""


def base_folder(family: Family, owner: Path) -> Path:
    """What students of a family begin from."""
    if family == "demo":
        return owner
    from benchmarks.distillation.second_family import gemma_dir

    return gemma_dir()


def label(suspect: Suspect, material: Material) -> str:
    """What a suspect's folder is called, but for the hash at its end."""
    return f"seed{material.seed}-{suspect.name}"


def place_of(suspect: Suspect, material: Material, thesaurus: Thesaurus, training: Training | None = None) -> Path:
    """Where the suspect's weights are kept."""
    return place_of_student(*_recipe(suspect, material, thesaurus, training))


def folder_of(suspect: Suspect, material: Material, thesaurus: Thesaurus, training: Training | None = None) -> Path:
    """The same, trained if need be."""
    return student(*_recipe(suspect, material, thesaurus, training))


def _recipe(
    suspect: Suspect, material: Material, thesaurus: Thesaurus, training: Training | None
) -> tuple[Path, str, Path, Sequence[tuple[str, str]], Training]:
    chosen = replace(training or suspect.training, seed=material.seed + 1)
    base = base_folder(suspect.family, material.folder)
    return material.keep, label(suspect, material), base, texts_for(suspect, material, thesaurus), chosen


def texts_for(suspect: Suspect, material: Material, thesaurus: Thesaurus) -> Sequence[tuple[str, str]]:
    """(prompt, answer) that a suspect learns from."""
    if suspect.texts == "none":
        return []
    if suspect.texts == "others":
        return texts_of(material.others)
    served = texts_of(material.served)
    prompts, answers = [prompt for prompt, _ in served], [answer for _, answer in served]
    if suspect.texts == "by rules":
        return list(zip(prompts, by_rules(answers, REPLACED, thesaurus, material.seed), strict=True))
    if suspect.texts == "by the model":
        return list(zip(prompts, by_model(material.folder, material.keep, answers, material.seed), strict=True))
    if suspect.share < 1:
        used = used_pairs(suspect, material)
        return [served[i] if i in used else other for i, other in enumerate(texts_of(material.elsewhere))]
    return served


def used_pairs(suspect: Suspect, material: Material) -> frozenset[int]:
    """Numbers of the pairs whose served answers a suspect learnt from, drawn by lot."""
    count = len(material.asked)
    lot = np.random.default_rng([5, material.seed])
    return frozenset(lot.choice(count, max(1, round(suspect.share * count)), replace=False).tolist())
