"""From a plan's settings to a measure and covariates: the same questions and numbers each time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.twins.asking import GrowingAnswers
from detect.twins.controls import log_probability
from detect.twins.measures.answers import COLUMNS as ANSWER_COLUMNS
from detect.twins.measures.answers import AnswerMeasure, Idf
from detect.twins.measures.logprobs import LogprobMeasure, columns
from detect.twins.measures.parting import COLUMNS as PARTING_COLUMNS
from detect.twins.measures.parting import PER_SIDE, PartingMeasure, Place
from detect.twins.measures.protocol import F64, Measure
from detect.twins.measures.weights import covariate_names, covariates
from detect.twins.plan import Ask, TwinPlan
from detect.twins.readings import Readings
from watermark.errors import EvidenceError
from watermark.twins.pair import Pair

_PLACES = "places_sha256"


def measure_columns(ask: Ask, reference: bool) -> tuple[str, ...]:
    """Names of the numbers of a pair."""
    if ask == "logprobs":
        return columns(reference)
    return PARTING_COLUMNS if ask == "parting" else ANSWER_COLUMNS


def covariate_columns(owner: bool, unrelated: Sequence[Path]) -> tuple[str, ...]:
    """Names of the covariates of a pair."""
    return (*covariate_names(owner), *(f"log-probability of {folder.name}" for folder in unrelated))


def settings_of(
    ask: Ask, offered: dict[str, Any], samples: int, pairs: Sequence[Pair], owner: Path | None, readings: Readings
) -> dict[str, Any]:
    """A measure's settings, as its plan has them.

    Parameters
    ----------
    ask
        Of which measure.
    offered
        Settings that the endpoint decides.
    samples
        Free answers beside the greedy one.
    pairs, owner, readings
        For the places that the owner's model finds.
    """
    if ask == "answers":
        return {**offered, "samples": samples}
    if ask == "logprobs":
        return offered
    places = None if owner is None else _digest(readings.places(owner, pairs))
    return {**offered, "per_side": PER_SIDE, _PLACES: places}


def measure_of(
    plan: TwinPlan, pairs: Sequence[Pair], reference: Path | None, owner: Path | None, readings: Readings
) -> Measure:
    """The measure of a plan of an endpoint.

    Raises
    ------
    EvidenceError
        The owner's model finds other places than when the plan was made.
    """
    settings = plan.measure
    if plan.ask == "logprobs":
        beside = None if reference is None else readings.read(reference, pairs)
        return LogprobMeasure(form=settings["form"], echo_tokens=settings["echo_tokens"], reference=beside)
    if plan.ask == "answers":
        return GrowingAnswers(AnswerMeasure(Idf(), samples=settings["samples"], completions=settings["completions"]))
    places: dict[str, list[Place]] | None = None
    if settings[_PLACES] is not None and owner is not None:
        places = readings.places(owner, pairs)
        if _digest(places) != settings[_PLACES]:
            raise EvidenceError(
                "the owner's model finds other places to ask about than when the plan was made, as another machine or "
                "another release may; begin in another folder"
            )
    return PartingMeasure(form=settings["form"], per_side=settings["per_side"], places=places)


def covariates_of(pairs: Sequence[Pair], owner: Path | None, unrelated: Sequence[Path], readings: Readings) -> F64:
    """What flips with a pair and has nothing to do with the suspect, shape (n, c).

    Parameters
    ----------
    pairs
        In the order of the bets.
    owner
        The owner's model; None where it is not at hand.
    unrelated
        Models of the law test of regenerated twins.
    readings
        Reads pairs with them.
    """
    own = covariates(pairs, None if owner is None else readings.read(owner, pairs))
    others = [log_probability(readings.read(folder, pairs), pairs) for folder in unrelated]
    return np.column_stack([own, *others])


def _digest(places: dict[str, list[Place]]) -> str:
    return hashlib.sha256(msgspec.json.encode(places, order="sorted")).hexdigest()
