"""Power before a trace: what a suspect of an assumed training share would show, and what it takes to see it.

Means and variances come from simulated students (`power.simulated`); the total's law is taken as normal. That
is for planning alone: no p-value of a trace rests on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import msgspec
import numpy as np

from detect.laws.level import DEFAULT_ALPHA
from detect.records.how_to_check import in_words
from detect.records.made import made_by, now
from detect.records.power_plan import Assumed, PlanRow, PowerPlan, PowerPoint
from detect.records.report import versions
from detect.student.power.simulated import (
    Look,
    Signal,
    Simulation,
    Student,
    gaussian_contexts,
    mean_entropy,
    own_share,
)
from detect.student.verdict.weights import Floats, Readout
from watermark.errors import DyetraceError
from watermark.spec import TRACEABLE_WIDTH, WatermarkSpec

POWER = 0.95
SIMULATED = 3000  # contexts
_QUICK = 1000
_MOST_TOKENS = 1e12
_WIDTHS = (1, 2, 3, 4)
_NORMAL = NormalDist()
# Distinct contexts in n tokens of English technical prose: a n^b (the text of `simulated._RATE_SHARES`).
_HEAPS = {1: (191.9, 0.332), 2: (8.85, 0.75), 3: (2.49, 0.899), 4: (1.47, 0.955), 5: (1.22, 0.975)}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a plan is asked for.

    Attributes
    ----------
    spec
        The watermark.
    student, look
        What is assumed of the suspect, and how it is to be read.
    contexts
        Distinct contexts that the budget allows.
    alpha
        Level of the test.
    entropy
        Mean entropy of the owner's model, nats a token; the synthetic distributions have it.
    answer_tokens
        Tokens of each answer of an endpoint.
    seed
        Of the simulation.
    """

    spec: WatermarkSpec
    student: Student
    look: Look
    contexts: int = 20_000
    alpha: float = DEFAULT_ALPHA
    entropy: float = 1.0
    answer_tokens: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        student, look = self.student, self.look
        if self.spec.context_width < 1:
            raise DyetraceError("a spec of context_width 0 has one context alone, so that no student can be traced")
        _within("share", student.share, 0, 1)
        _within("overlap", 0 if student.overlap is None else student.overlap, 0, 1)
        _within("training tokens", student.training_tokens, 1, _MOST_TOKENS)
        _within("memory", student.memory, 1e-6, 1e9)
        _within("drift", student.drift, 0, 10)
        _within("mismatch", look.mismatch, 0, 10)
        _within("samples", look.samples, 1, 256)
        _within("contexts", self.contexts, 1, 1e12)
        _within("alpha", self.alpha, 1e-300, 0.5)
        _within("entropy", self.entropy, 0.02, 4)
        _within("answer tokens", self.answer_tokens, 1, 1e6)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DyetraceError(f"{name} must lie in {low:g} .. {high:g} (got {value:g})")


def power(signal: Signal, contexts: float, alpha: float) -> float:
    """Probability that the test of so many contexts reaches alpha, by normal approximation of the total."""
    n = math.sqrt(contexts)
    return _NORMAL.cdf((n * signal.mean + _NORMAL.inv_cdf(alpha) * signal.null_sd) / signal.sd)


def contexts_needed(signal: Signal, alpha: float, wanted: float = POWER) -> int | None:
    """Contexts at which the power is as wanted; None where there is no signal to speak of."""
    if signal.mean <= 0:
        return None
    root = (_NORMAL.inv_cdf(wanted) * signal.sd - _NORMAL.inv_cdf(alpha) * signal.null_sd) / signal.mean
    return math.ceil(root**2) if 0 < root < 1e6 else None


def tokens_to_read(contexts: float, width: int) -> int:
    """Tokens of natural text that hold so many distinct contexts (Heaps' law)."""
    a, b = _HEAPS[min(max(width, 1), 5)]
    return math.ceil(max(contexts, float((contexts / a) ** (1 / b))))


def fit_memory(z_per_context: float, question: Question, probabilities: Floats | None = None) -> float:
    """The kappa with which a simulated student shows a measured z per context (z of a trace / sqrt(its contexts)).

    Parameters
    ----------
    z_per_context
        Of a real trace of a student whose share and training tokens are known.
    question
        That experiment; its own memory does not matter.
    probabilities
        Measured distributions, as for `plan`.

    Raises
    ------
    DyetraceError
        No kappa between 1e-3 and 1e6 shows so much or so little.
    """
    simulation = _simulation(question, probabilities, SIMULATED)

    def shown(kappa: float) -> float:
        student = replace(question.student, memory=kappa)
        return simulation.signal(student, question.look).z_per_context * math.sqrt(_own_part(question.spec))

    low, high = math.log(1e-3), math.log(1e6)
    if not shown(math.exp(high)) <= z_per_context <= shown(math.exp(low)):
        raise DyetraceError(
            f"no memory explains z per context of {z_per_context:g} with this share and these training tokens "
            f"({shown(math.exp(high)):.2g} to {shown(math.exp(low)):.2g} can be explained)"
        )
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if shown(math.exp(middle)) > z_per_context else (low, middle)
    return math.exp((low + high) / 2)


def plan(question: Question, probabilities: Floats | None = None) -> PowerPlan:
    """Simulate the students of a question.

    Parameters
    ----------
    question
        Student, look and budget.
    probabilities
        Next-token distributions of the owner's model on its own text, (n, m), rows summing to 1; without them
        synthetic ones of the question's entropy are used.
    """
    simulation = _simulation(question, probabilities, SIMULATED)
    spec, look, student = question.spec, question.look, question.student
    signal = simulation.signal(student, look)
    asked = _row("as asked", signal, question, look, spec)
    looks = [_row(name, simulation.signal(student, other), question, other, spec) for name, other in _other_looks(look)]
    widths = []
    for width in sorted({*_WIDTHS, spec.context_width}):
        wide = msgspec.structs.replace(spec, context_width=width)
        same = width == spec.context_width
        shown = (
            signal
            if same
            else Simulation(wide, _contexts(question, probabilities, SIMULATED), question.seed).signal(student, look)
        )
        widths.append(_row(f"width {width}", shown, question, look, wide))
    made = PowerPlan(
        created=now(),
        versions=versions(),
        made=made_by(),
        scheme=spec.scheme,
        context_width=spec.context_width,
        subkeys=spec.subkeys,
        entropy=mean_entropy(_contexts(question, probabilities, SIMULATED)),
        share=student.share,
        training_tokens=student.training_tokens,
        memory=student.memory,
        drift=student.drift,
        contexts=question.contexts,
        alpha=question.alpha,
        reading=look.reading,
        reference=look.reference,
        evidence=look.evidence,
        samples=look.samples,
        seed=question.seed,
        assumed=Assumed(
            spec=spec,
            entropy=question.entropy if probabilities is None else None,
            overlap=student.overlap,
            mismatch=look.mismatch,
            answer_tokens=question.answer_tokens,
            readout=look.readout,
        ),
        seen=signal.seen,
        asked=asked,
        looks=looks,
        widths=widths,
        marked_tokens_needed=_marked_tokens_needed(question, probabilities),
        curve=_curve(signal, question),
        warnings=_warnings(question, signal),
        method=(
            f"{SIMULATED:,} contexts simulated with the scheme's own marking, words and scores; normal approximation "
            "of the total, for planning alone"
        ),
    )
    return msgspec.structs.replace(made, how_to_check=in_words(made))


def question_of(made: PowerPlan) -> Question | None:
    """What a plan was asked for; None where its record does not say all of it, as that of an older release."""
    assumed = made.assumed
    if assumed is None:
        return None
    student = Student(
        share=made.share,
        training_tokens=made.training_tokens,
        overlap=assumed.overlap,
        memory=made.memory,
        drift=made.drift,
    )
    look = Look(
        reading=made.reading,
        reference=made.reference,
        evidence=made.evidence,
        samples=made.samples,
        mismatch=assumed.mismatch,
        readout=msgspec.convert(assumed.readout, Readout | None),
    )
    return Question(
        spec=assumed.spec,
        student=student,
        look=look,
        contexts=made.contexts,
        alpha=made.alpha,
        entropy=made.entropy if assumed.entropy is None else assumed.entropy,
        answer_tokens=assumed.answer_tokens,
        seed=made.seed,
    )


def _contexts(question: Question, probabilities: Floats | None, number: int) -> Floats:
    if probabilities is None:
        return _synthetic(question.entropy, number, question.seed)
    return probabilities[np.random.default_rng([question.seed, 0]).integers(0, len(probabilities), number)]


@lru_cache(maxsize=4)  # a plan asks several times
def _synthetic(entropy: float, number: int, seed: int) -> Floats:
    made = gaussian_contexts(entropy, number, np.random.default_rng([seed, 0]))
    made.flags.writeable = False
    return made


def _simulation(question: Question, probabilities: Floats | None, number: int) -> Simulation:
    return Simulation(question.spec, _contexts(question, probabilities, number), question.seed)


def _own_part(spec: WatermarkSpec) -> float:
    """Share of the contexts that one key marks: the global one, or a tenant's where there is no global one."""
    return spec.global_share or 1.0


def _row(name: str, signal: Signal, question: Question, look: Look, spec: WatermarkSpec) -> PlanRow:
    part = _own_part(spec)
    needed = contexts_needed(signal, question.alpha)
    needed = None if needed is None else math.ceil(needed / part)
    queries = None
    if needed is not None and look.evidence != "weights":
        samples = look.samples if look.evidence == "samples" else 1
        queries = math.ceil(needed * samples / question.answer_tokens)
    return PlanRow(
        name=name,
        z_per_context=signal.z_per_context * math.sqrt(part),
        power=power(signal, question.contexts * part, question.alpha),
        contexts_needed=needed,
        tokens_needed=None if needed is None else tokens_to_read(needed, spec.context_width),
        queries_needed=queries,
    )


def _other_looks(look: Look) -> list[tuple[str, Look]]:
    weights = replace(look, evidence="weights", readout=None)
    return [
        ("weights, base model as reference", replace(weights, reference="base")),
        ("weights, another model as reference", replace(weights, reference="other")),
        ("weights, no reference", replace(weights, reference="none")),
        ("weights, likeliest token alone (published)", replace(weights, reference="none", readout="argmax")),
        ("endpoint, top-20 logprobs, base model", replace(weights, evidence="logprobs", reference="base")),
        ("endpoint, top-20 logprobs, no reference", replace(weights, evidence="logprobs", reference="none")),
        (f"endpoint, {look.samples} samples a context", replace(weights, evidence="samples", reference="none")),
    ]


def _marked_tokens_needed(question: Question, probabilities: Floats | None) -> int | None:
    """By halving on the logarithm of the training tokens, to a tenth."""
    student = question.student
    if student.share <= 0:
        return None
    simulation = _simulation(question, probabilities, _QUICK)
    own = question.contexts * _own_part(question.spec)

    def enough(tokens: float) -> bool:
        signal = simulation.signal(replace(student, training_tokens=tokens), question.look)
        return power(signal, own, question.alpha) >= POWER

    low, high = 0.0, math.log(_MOST_TOKENS)
    if not enough(math.exp(high)):
        return None
    while high - low > 0.1:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(math.exp(middle)) else (middle, high)
    needed = math.exp(high) * student.share
    if question.look.reading == "served":  # the answers that it was trained on and that are read are among them
        needed = max(needed, own_share(student, question.look) * question.contexts)
    return math.ceil(needed)


def _curve(signal: Signal, question: Question) -> list[PowerPoint]:
    counts = np.unique(np.geomspace(10, max(1e6, 4 * question.contexts), 41).round().astype(np.int64))
    part = _own_part(question.spec)
    return [PowerPoint(contexts=n, power=power(signal, n * part, question.alpha)) for n in counts.tolist()]


def _warnings(question: Question, signal: Signal) -> list[str]:
    found = []
    if question.spec.context_width > TRACEABLE_WIDTH and question.look.reading != "served":
        found.append(
            f"{question.spec.warning}. Published for a 7b student of a green list: p = 4e-28 from 10,000 of its tokens "
            "at width 2, p = 2e-3 from 100,000 at width 3. The simulated student remembers contexts of any width "
            "equally well, so this plan is too hopeful here"
        )
    if question.student.share > 0 and signal.mean <= 0:
        found.append("the simulated signal is lost in its own noise; the power shown is that of chance")
    if question.look.evidence == "samples" and question.look.reference != "none":
        found.append("samples alone are weighed without a reference; with weights or logprobs the reference counts")
    return found
