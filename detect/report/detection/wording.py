"""The words and numbers of a detection: verdicts, keys, strength, and the command that makes it anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from detect.corpus.score import expectation
from detect.document.pointing import blind_and_aware, level_per_test
from detect.laws.multiplicity import holm_log10
from detect.laws.strength import fewest_tuples
from detect.records.detection import AwareHypothesis, Document, Hypothesis, Record
from detect.records.written import key_label, key_phrase
from detect.report.runs import Runs, p_value, runs, said
from detect.report.story import Tone
from detect.report.wording import command, keys_named, operand, options
from watermark.laws import Bernoulli, in_nats
from watermark.spec import WatermarkSpec

_SENTENCE = 600  # characters of a verdict
_NAMED_KEYS = 3  # more keys than this in one sentence are counted, not named
# Arguments of `dyetrace detect` that `recompute_command` states itself or leaves out.
_STATED = {"source", "key", "spec", "alpha", "decoys", "decoy_seed", "output", "json", "fail"}
_DEFAULTS = {"format": "auto", "text_field": "text"}  # not every file can be read with them
_LISTED = 20  # accounts that the command names one by one; more come from a file


@dataclass(frozen=True, slots=True)
class Verdict:
    """A document's result in words.

    Attributes
    ----------
    document
        Whose result it is.
    tone
        "marked", "unmarked" or "refused".
    sentence
        For a line of its own, p-value left out: "marked by this key", "no mark found", "refused: REASON".
    log10_pvalue
        The p-value behind it, keys and documents paid for; None when refused.
    aware
        Whether it rests on the model-aware test alone (then the p-value is an upper bound).
    keys
        The keys that are named: those that pay for all keys and documents (`detect.document.pointing`).
    """

    document: Document
    tone: Tone
    sentence: str
    log10_pvalue: float | None
    aware: bool = False
    keys: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """One or two words for a table."""
        return "no mark" if self.tone == "unmarked" else self.tone

    @property
    def line(self) -> Runs:
        """The sentence with its p-value."""
        sentence = said(self.sentence, _SENTENCE)
        if self.log10_pvalue is None:
            return sentence
        bound = "p ≤ $p (model-aware)" if self.aware else "p = $p"
        return runs(f"$sentence: {bound}", sentence=sentence, p=p_value(self.log10_pvalue))

    @property
    def best(self) -> Hypothesis | None:
        """The key with the smallest adjusted p-value; None when refused or when nothing was tested."""
        tested = [h for h in self.document.hypotheses if h.tuples and self.document.refused is None]
        return min(tested, key=_strength, default=None)

    @property
    def best_aware(self) -> AwareHypothesis | None:
        """The key with the largest e-value."""
        hypotheses = self.document.aware.hypotheses if self.document.aware else []
        return max(hypotheses, key=lambda h: h.log10_evalue, default=None)

    @property
    def named(self) -> str:
        """Which key to show beside the document: the only one tested, those that it points to, or "none named"."""
        if self.document.tested == 1 and self.document.hypotheses:
            return key_label(self.document.hypotheses[0].key)
        return keys_named([key_label(key) for key in self.keys])

    @property
    def rank(self) -> str | None:
        """The true key's place among the decoys; None where there is none, or no answer."""
        decoys = self.document.decoys
        return None if decoys is None or self.document.refused is not None else decoys.place


def _strength(h: Hypothesis) -> tuple[float, float]:
    return h.log10_pvalue_adjusted, h.log10_pvalue


def several_keys(record: Record) -> bool:
    """Whether more than one key was tested."""
    return any(document.tested > 1 for document in record.documents)


def ranked(record: Record) -> bool:
    """Whether p-values are ranks among decoy keys."""
    return any(d.decoys is not None and d.decoys.drawn is not None for d in record.documents)


def strongest_keys(document: Document) -> list[Hypothesis]:
    """The keys on record, smallest p-value first; none where no answer is given."""
    return [] if document.refused is not None else sorted(document.hypotheses, key=_strength)


def verdicts(record: Record) -> list[Verdict]:
    """Put into words what the record says of each document: marked ones, refused ones, the rest; strongest first."""
    level = level_per_test(record.documents, record.alpha)
    fewest = fewest_tuples(record.spec.scheme, level)
    aware = holm_log10([d.aware.log10_pvalue if d.aware else 0.0 for d in record.documents])
    named = zip(*blind_and_aware(record.documents, record.alpha), strict=True)
    told = [
        _verdict(d, math.log10(level), float(log10_p), keys, fewest)
        for d, log10_p, keys in zip(record.documents, aware, named, strict=True)
    ]
    return sorted(told, key=_interest)


def _interest(answer: Verdict) -> tuple[int, float]:
    log10_p = answer.document.log10_pvalue
    return ("marked", "refused", "unmarked").index(answer.tone), math.inf if log10_p is None else log10_p


def _verdict(
    document: Document, limit: float, log10_aware: float, named: tuple[list[str], list[str]], fewest: int
) -> Verdict:
    log10_p = document.log10_pvalue if document.log10_pvalue_corpus is None else document.log10_pvalue_corpus
    if document.refused is not None:
        return Verdict(document, "refused", f"refused: {document.refused}", None)
    if not document.found:
        floor = document.decoys is not None and document.decoys.drawn is not None and document.decoys.rank == 1
        sentence = "no decoy key is as extreme, which shows no more than this" if floor else "no mark found"
        most = max((h.tuples for h in document.hypotheses), default=0)
        if not floor and most < fewest:
            sentence = f"too short to tell ({most:,} tuples): no mark found"
        return Verdict(document, "unmarked", sentence, log10_p)
    blind = log10_p is not None and (log10_p <= limit or document.aware is None)
    keys = tuple(named[0 if blind else 1])
    sentence = f"marked by {_keys(keys, document.tested)}"
    return Verdict(document, "marked", sentence, log10_p if blind else log10_aware, aware=not blind, keys=keys)


def _keys(keys: Sequence[str], tested: int) -> str:
    """Name the keys that pay for being named: "this key", "the global key and the key of tenant acme"."""
    found = ["this key" if tested == 1 and key == "global" else key_phrase(key) for key in keys]
    if len(found) > _NAMED_KEYS:
        found = [*found[:_NAMED_KEYS], f"{len(found) - _NAMED_KEYS} more keys"]
    if len(found) < 2:
        return found[0] if found else "this key" if tested <= 1 else f"one of the {tested:,} keys tested"
    return f"{', '.join(found[:-1])} and {found[-1]}"


@dataclass(frozen=True, slots=True)
class Score:
    """The mean statistic of a token, what it would be without the key, and how both are called."""

    mean: float
    expected: float
    unit: str

    @property
    def text(self) -> str:
        """Such as "1.82 nats per token (1.00 expected without the key)"."""
        return f"{self._number(self.mean)} {self.unit} ({self._number(self.expected)} expected without the key)"

    @property
    def short(self) -> str:
        """Such as "1.82"."""
        return self._number(self.mean)

    @property
    def expected_short(self) -> str:
        """Such as "1.00"."""
        return self._number(self.expected)

    def _number(self, value: float) -> str:
        if self.unit == "green":
            return f"{value:.1%}"
        return f"{value:.2f}" if self.expected < 10 else f"{value:.1f}"


def score(spec: WatermarkSpec, answer: Verdict) -> Score | None:
    """How strongly the best sub-key's mark shows, whatever the length; None when nothing was tested."""
    hypothesis = answer.best
    if hypothesis is None:
        return None
    count = answer.document.tokens if spec.context_width == 0 else hypothesis.tuples
    if not count or not hypothesis.subkeys:
        return None
    scheme = spec.build_scheme()
    best = min(hypothesis.subkeys, key=lambda tally: tally.log10_pvalue)
    green = isinstance(scheme.law, Bernoulli)
    unit = "nats per token" if in_nats(scheme.law) else "green" if green else "points per token"
    return Score(best.total * scheme.unit / count, expectation(scheme) * scheme.unit, unit)


def recompute_command(record: Record) -> str:
    """Write the command that computes the record again; the key's place is named, never the key."""
    words = ["dyetrace", "detect", *(operand(file.name) for file in record.inputs)]
    words += ["--spec", "spec.json", "--key", "file:KEYFILE", "--alpha", f"{record.alpha:g}"]
    words += ["--decoys", str(record.decoy_count)]
    words += ["--decoy-seed", record.decoy_seed] if record.decoy_count else []
    arguments = {name: value for name, value in record.arguments.items() if _DEFAULTS.get(name) != value}
    left_out = _STATED if arguments.get("aware") else {*_STATED, "model"}
    tenants = arguments.get("tenants")
    if isinstance(tenants, list) and len(tenants) > _LISTED:
        arguments["tenants"] = None
        words += ["--tenants-file", "accounts.txt"]
    words += [*options(arguments, left_out), *([] if record.quotes else ["--no-quotes"])]
    return command(words)
