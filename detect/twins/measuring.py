"""From a plan's settings to a measure and covariates: the same questions and numbers each time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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

_PLACES, _USUAL = "places_sha256", "usual_sha256"


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
        For the places that the owner's model finds, and for what it answers itself.
    """
    if ask == "answers":
        usual = None if owner is None else _digest(readings.usual(owner, pairs))
        return {**offered, "samples": samples, _USUAL: usual}
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
        The owner's model finds other places, or says other things, than when the plan was made.
    """
    settings = plan.measure
    if plan.ask == "logprobs":
        beside = None if reference is None else readings.read(reference, pairs)
        return LogprobMeasure(form=settings["form"], echo_tokens=settings["echo_tokens"], reference=beside)
    if plan.ask == "answers":
        usual = None
        if settings[_USUAL] is not None and owner is not None:
            usual = readings.usual(owner, pairs)
            _check_digest(usual, settings[_USUAL], "answers the prompts in another way")
        measure = AnswerMeasure(Idf(), usual, samples=settings["samples"], completions=settings["completions"])
        return GrowingAnswers(measure)
    places: dict[str, list[Place]] | None = None
    if settings[_PLACES] is not None and owner is not None:
        places = readings.places(owner, pairs)
        _check_digest(places, settings[_PLACES], "finds other places to ask about")
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


def _digest(found: Mapping[str, list[Place]] | Mapping[str, list[str]]) -> str:
    return hashlib.sha256(json.dumps(msgspec.to_builtins(found), sort_keys=True).encode()).hexdigest()


def _check_digest(found: Mapping[str, list[Place]] | Mapping[str, list[str]], planned: str, what: str) -> None:
    if _digest(found) != planned:
        raise EvidenceError(
            f"the owner's model {what} than when the plan was made, as another machine or another release may; begin "
            "in another folder"
        )
