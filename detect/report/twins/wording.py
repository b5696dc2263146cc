"""Words and numbers that several parts of a story of twins share. Every string is untrusted."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import math
import re

from detect.records.twins import MeasureFound, ShownPair, TwinRecord
from detect.records.written import clean
from detect.report.runs import Run, Runs, e_value, p_value, runs, said
from detect.report.story import Item

LEVELS = {"withheld": "twins withheld at serving", "regenerated": "twins drawn later"}
_LONGEST = 600  # characters shown of a text
_WORD = re.compile(r"\w+")
_IN_A_ROW = 3
_MANY = 10_000  # words of a text that are looked through


def leading(record: TwinRecord) -> MeasureFound:
    """The number that stands for the measure."""
    return record.measures[0]


def stopped_early(record: TwinRecord) -> bool:
    """Whether what was seen had a say in when it ended."""
    return record.queries is not None and record.queries.stopped == "target reached"


def tallied(record: TwinRecord) -> Runs:
    """In how many pairs the leading number speaks for which answer, as a sentence."""
    found = leading(record)
    beside = "" if record.reference is None else ", compared with its reference,"
    words, other, neither = {
        "answers": (
            "The suspect’s own answers are closer to the delivered one in",
            "to the other one in",
            "to neither",
        ),
        "parting": (
            "Where it is given the beginning of an answer, the suspect goes on rather as the delivered one does in",
            "as the other one in",
            "as neither",
        ),
        "logprobs": (f"The suspect{beside} finds the delivered one likelier in", "the other one in", "neither"),
    }[record.ask]
    if not found.ties:
        return runs(f"{words} <b>$wins</b> and {other} <b>$losses</b>.", wins=found.wins, losses=found.losses)
    return runs(
        f"{words} <b>$wins</b>, {other} <b>$losses</b> and {neither} in $ties.",
        wins=found.wins,
        losses=found.losses,
        ties=found.ties,
    )


def once_in(log10_p: float) -> Runs:
    """How rare a p-value is: "once in 10^27.1 cases", rounded down."""
    if log10_p > math.log10(0.5):
        return runs("more often than not")
    return runs("once in <b>$n</b> cases", n=e_value(-log10_p))


def excerpt(text: str) -> str:
    """A text of a pair on one line, cut where it is long."""
    return clean(" ".join(text[: 4 * _LONGEST].split()), _LONGEST)


def side_by_side(pair: ShownPair) -> tuple[Runs, Runs, Runs | None]:
    """The delivered answer, the withheld one and the suspect's, in which words in a row that it shares are bold."""
    if pair.suspect is None:
        return said(excerpt(pair.served), 2 * _LONGEST), said(excerpt(pair.withheld), 2 * _LONGEST), None
    own = excerpt(pair.suspect)
    served, withheld = excerpt(pair.served), excerpt(pair.withheld)
    both = _rows_of(served) & _rows_of(withheld)  # what both have tells neither from the other
    grams = _rows_of(own) - both
    return (
        _marked(served, grams),
        _marked(withheld, grams),
        _marked(own, (_rows_of(served) | _rows_of(withheld)) - both),
    )


def _rows_of(text: str) -> set[tuple[str, ...]]:
    words = [match[0].lower() for match in _WORD.finditer(text)][:_MANY]
    return {tuple(words[i : i + _IN_A_ROW]) for i in range(len(words) - _IN_A_ROW + 1)}


def _marked(text: str, grams: set[tuple[str, ...]]) -> Runs:
    """The text with every stretch of words that stands in ``grams`` bold."""
    found = list(_WORD.finditer(text))[:_MANY]
    words = [match[0].lower() for match in found]
    bold = [False] * len(words)
    for i in range(len(words) - _IN_A_ROW + 1):
        if tuple(words[i : i + _IN_A_ROW]) in grams:
            bold[i : i + _IN_A_ROW] = [True] * _IN_A_ROW
    written: list[Run] = []
    end = i = 0
    while i < len(found):
        if not bold[i]:
            i += 1
            continue
        j = i
        while j + 1 < len(found) and bold[j + 1]:
            j += 1
        written += [Run(text[end : found[i].start()]), Run(text[found[i].start() : found[j].end()], ("b",))]
        end, i = found[j].end(), j + 1
    return tuple(run for run in (*written, Run(text[end:])) if run.text)


def control_items(record: TwinRecord) -> list[Item]:
    """What each control of the law test says."""
    assert record.law is not None
    return [
        Item(
            runs(
                "$name: $wins for the delivered answers, $losses for their twins; two-sided p = $p, bias at most $bias "
                "at 99% confidence",
                name=control.name,
                wins=control.wins,
                losses=control.losses,
                p=p_value(control.log10_pvalue),
                bias=f"{control.bias_upper:.3f}",
            ),
            "good" if record.law.veto is None else "odd",
        )
        for control in record.law.controls
    ]
