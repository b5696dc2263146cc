"""Sentences that reports of several kinds share; what one kind alone says stands with it.

Strings of a record are untrusted: they go through `clean`, here by way of `runs`.
"""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from detect.document.pointing import blind_and_aware
from detect.laws.multiplicity import holm_log10
from detect.laws.strength import fewest_tuples
from detect.records.assumptions import Assumption
from detect.records.detection import AwareHypothesis, Document, Hypothesis, Record
from detect.records.key_name import KeyName
from detect.records.written import clean, coin_tosses, format_p, format_time, key_label
from detect.report.runs import Runs, listed, runs
from watermark.commitment import Commitment
from watermark.laws import Bernoulli, Exponential, Hypoexponential, WeightedBits
from watermark.spec import WatermarkSpec

_NAMED_KEYS = 3  # that a document points to; more are counted
_RENAMED = {"tenants": "tenant", "roles": "role"}  # arguments named otherwise than their options

SECRECY = runs("Whoever holds the key can make marked text. The answer is as good as the key’s secrecy.")
"""The last thing that a report does not show."""


class Named(Protocol):
    """A file that was read."""

    @property
    def name(self) -> str:
        """As it was given; "-" for standard input."""


def assumption_lines(assumptions: Sequence[Assumption]) -> list[str]:
    """What a verdict assumes, one line each: the sentence, then whether the run looked at it, and what it saw."""
    return [f"{one.says} ({one.status}: {one.how})" for one in assumptions]


def commitment_date(commitment: Commitment | None) -> str:
    """Say what there is of a commitment, whose date nothing proves."""
    return (
        "no commitment given" if commitment is None else f"commitment dated {format_time(commitment.created)}, unproven"
    )


def in_tosses(log10_p: float) -> str:
    """How lucky a p-value is, as the end of a sentence about it; nothing where few tosses would do."""
    tosses = coin_tosses(log10_p)
    return f", the chance of calling {tosses:,} tosses of a fair coin, each one right" if tosses > 9 else ""


def inputs_named(inputs: Sequence[Named], most: int = 5) -> Runs:
    """The files that were read, in a sentence; of many the first few."""
    names = [
        runs("standard input") if one.name == "-" else runs("<code>$name</code>", name=one.name)
        for one in inputs[:most]
    ]
    if len(inputs) > len(names):
        names.append(runs("$n more files", n=len(inputs) - len(names)))
    return listed(names) or runs("no file")


def watermark_line(schemes: Sequence[Runs], fingerprint: str, derived: str) -> Runs:
    """Which mark was looked for: schemes, the key, and what keys derived from it are for ("2 accounts"), if any."""
    more = f", and the keys derived from it for {derived}" if derived else ""
    return runs(
        f"Against the $schemes watermark of the key with fingerprint <code>$key</code>{more}.",
        schemes=listed(schemes),
        key=fingerprint,
    )


def exactness(calibration: str | None) -> Runs:
    """What p-values over text rest on."""
    if calibration is not None:
        return runs("$said.", said=calibration.rstrip("."))
    return runs(
        "P-values rest on the randomness of the key alone, on no model of language, and on no approximation: they are "
        "exact where the key had no say in the text or in its choice."
    )


def decoys_run(count: int) -> Runs:
    """What decoy keys are for."""
    if not count:
        return runs("No decoy keys were run.")
    return runs(
        "The same test ran under $n decoy keys that nobody used. A p-value that they contradict is not printed. They "
        "test the arithmetic, and can’t see that a text was chosen with the key.",
        n=count,
    )


def keys_named(labels: Sequence[str]) -> str:
    """The keys that a document points to: "global, tenant acme", "none named"; of many the first few."""
    more = len(labels) - _NAMED_KEYS
    return ", ".join([*labels[:_NAMED_KEYS], *([f"{more:,} more"] if more > 0 else [])]) or "none named"


def options(arguments: Mapping[str, Any], left_out: Collection[str]) -> Iterator[str]:
    """The words of a command that give these arguments again, but for some."""
    for name, value in arguments.items():
        if name in left_out or value is None or value is False:
            continue
        option = f"--{_RENAMED.get(name, name).replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            yield from [option] if one is True else [option, str(one)]


def command(words: Sequence[str]) -> str:
    """A command as a shell reads it, nothing in it unseen."""
    return " ".join(shlex.quote(clean(word, 500)) for word in words)


def operand(name: str) -> str:
    """A file's name that no command takes for an option."""
    return f"./{name}" if name.startswith("-") and name != "-" else name


def capital(text: str) -> str:
    """The same with its first letter raised."""
    return text[:1].upper() + text[1:]


_NAMED_KEYS = 3  # more keys than this in one sentence are counted, not named
# Arguments of `dyetrace detect` that `recompute_command` states itself or leaves out.
_STATED = {"source", "key", "spec", "alpha", "decoys", "decoy_seed", "output", "json", "fail"}
_DEFAULTS = {"format": "auto", "text_field": "text"}  # not every file can be read with them
_LISTED = 20  # accounts that the command names one by one; more come from a file
_OPTIONS = {"tenants": "tenant"}  # arguments named otherwise than their options


def best_hypothesis(document: Document) -> Hypothesis | None:
    """Find the key with the smallest adjusted p-value; None when refused or when nothing was tested."""
    tested = [h for h in document.hypotheses if h.tuples and document.refused is None]
    return min(tested, key=lambda h: (h.log10_pvalue_adjusted, h.log10_pvalue), default=None)


def best_aware(document: Document) -> AwareHypothesis | None:
    """Find the key with the largest e-value."""
    hypotheses = document.aware.hypotheses if document.aware else []
    return max(hypotheses, key=lambda h: h.log10_evalue, default=None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A document's result in words.

    Attributes
    ----------
    kind
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

    kind: Literal["marked", "unmarked", "refused"]
    sentence: str
    log10_pvalue: float | None
    aware: bool = False
    keys: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """One or two words for a table."""
        return "no mark" if self.kind == "unmarked" else self.kind

    @property
    def line(self) -> str:
        """The sentence with its p-value."""
        if self.log10_pvalue is None:
            return self.sentence
        p = format_p(self.log10_pvalue)
        return f"{self.sentence}: p <= {p} (model-aware)" if self.aware else f"{self.sentence}: p = {p}"


def limit_per_test(record: Record) -> float:
    """Compute the level of each test: alpha, or half of it where the model-aware test was run as well."""
    return record.alpha / 2 if any(document.aware for document in record.documents) else record.alpha


def verdicts(record: Record) -> list[Verdict]:
    """Put into words what the record says about each document."""
    limit = math.log10(limit_per_test(record))
    fewest = fewest_tuples(record.spec.scheme, limit_per_test(record))
    aware = holm_log10([d.aware.log10_pvalue if d.aware else 0.0 for d in record.documents])
    named = zip(*blind_and_aware(record.documents, record.alpha), strict=True)
    return [
        _verdict(d, limit, float(log10_p), keys, fewest)
        for d, log10_p, keys in zip(record.documents, aware, named, strict=True)
    ]


def _verdict(
    document: Document, limit: float, log10_aware: float, named: tuple[list[str], list[str]], fewest: int
) -> Verdict:
    log10_p = document.log10_pvalue if document.log10_pvalue_corpus is None else document.log10_pvalue_corpus
    if document.refused is not None:
        return Verdict("refused", f"refused: {document.refused}", None)
    if not document.found:
        floor = document.decoys is not None and document.decoys.drawn is not None and document.decoys.rank == 1
        sentence = "no decoy key is as extreme, which shows no more than this" if floor else "no mark found"
        most = max((h.tuples for h in document.hypotheses), default=0)
        if not floor and most < fewest:
            sentence = f"too short to tell ({most:,} tuples): no mark found"
        return Verdict("unmarked", sentence, log10_p)
    if log10_p is not None and (log10_p <= limit or document.aware is None):
        keys = tuple(named[0])
        return Verdict("marked", f"marked by {_keys(keys, document.tested)}", log10_p, keys=keys)
    keys = tuple(named[1])
    return Verdict("marked", f"marked by {_keys(keys, document.tested)}", log10_aware, aware=True, keys=keys)


def _keys(keys: Sequence[str], tested: int) -> str:
    """Name the keys that pay for being named: "this key", "the global key and the key of tenant acme"."""
    found = [_key_phrase(key, tested == 1) for key in keys]
    if len(found) > _NAMED_KEYS:
        found = [*found[:_NAMED_KEYS], f"{len(found) - _NAMED_KEYS} more keys"]
    if len(found) < 2:
        return found[0] if found else "this key" if tested <= 1 else f"one of the {tested:,} keys tested"
    return f"{', '.join(found[:-1])} and {found[-1]}"


def named_keys(document: Document, answer: Verdict) -> str:
    """Which key to show beside a document: the only one tested, those that it points to, or "none named"."""
    if document.tested == 1 and document.hypotheses:
        return key_label(document.hypotheses[0].key)
    names = [key_label(key) for key in answer.keys[:_NAMED_KEYS]]
    more = len(answer.keys) - len(names)
    return ", ".join([*names, *([f"{more:,} more"] if more else [])]) or "none named"


def _key_phrase(key: str, only: bool) -> str:
    if not KeyName.read(key).is_global:
        return f"the key of {key_label(key)}"
    return "this key" if only else f"the {key} key"


def interest(document: Document, answer: Verdict) -> tuple[int, float]:
    """Order documents: marked ones, refused ones, the rest; the smallest p-value first."""
    log10_p = math.inf if document.log10_pvalue is None else document.log10_pvalue
    return ("marked", "refused", "unmarked").index(answer.kind), log10_p


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


def score(spec: WatermarkSpec, document: Document, hypothesis: Hypothesis) -> Score | None:
    """How strongly the best sub-key's mark shows, whatever the length; None when nothing was tested."""
    count = document.tokens if spec.context_width == 0 else hypothesis.tuples
    if not count or not hypothesis.subkeys:
        return None
    scheme = spec.build_scheme()
    law = scheme.law
    best = min(hypothesis.subkeys, key=lambda tally: tally.log10_pvalue)
    mean = best.total * scheme.unit / count
    if isinstance(law, Exponential):
        return Score(mean, 1.0, "nats per token")
    if isinstance(law, Hypoexponential):
        return Score(mean, sum(law.weights), "nats per token")
    if isinstance(law, Bernoulli):
        return Score(mean, law.gamma, "green")
    if isinstance(law, WeightedBits):
        return Score(mean, sum(law.weights) / 2 * scheme.unit, "points per token")
    expected = math.fsum(v * p for v, p in zip(law.values, law.probabilities, strict=True))
    return Score(mean, expected * scheme.unit, "points per token")


def recompute_command(record: Record) -> str:
    """Write the command that computes the record again; the key's place is named, never the key."""
    words = ["dyetrace", "detect"]
    words += [f"./{i.name}" if i.name.startswith("-") and i.name != "-" else i.name for i in record.inputs]
    words += ["--spec", "spec.json", "--key", "file:KEYFILE", "--alpha", f"{record.alpha:g}"]
    words += ["--decoys", str(record.decoy_count)]
    words += ["--decoy-seed", record.decoy_seed] if record.decoy_count else []
    for name, value in record.arguments.items():
        option = f"--{_OPTIONS.get(name, name).replace('_', '-')}"
        if name in _STATED or value is None or value is False or _DEFAULTS.get(name) == value:
            continue
        if name == "model" and not record.arguments.get("aware"):
            continue
        if name == "tenants" and isinstance(value, list) and len(value) > _LISTED:
            words += ["--tenants-file", "accounts.txt"]
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [option] if one is True else [option, str(one)]
    words += [] if record.quotes else ["--no-quotes"]
    return " ".join(shlex.quote(clean(word, 500)) for word in words)
