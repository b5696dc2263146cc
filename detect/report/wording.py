"""Sentences that reports of several kinds share; what one kind alone says stands with it.

Strings of a record are untrusted: they go through `clean`, here by way of `runs`.
"""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from detect.records.detection import Input
from detect.records.scan import Interval, ScannedInput
from detect.records.trace import Queries
from detect.records.written import clean, coin_tosses, format_time, percent
from detect.report.runs import Runs, level, listed, p_value, runs
from watermark.commitment import Commitment

_NAMED_KEYS = 3  # that a document points to; more are counted
_FEW = 9  # tosses of a coin that tell nobody anything
_RENAMED = {"tenants": "tenant", "roles": "role"}  # arguments named otherwise than their options

SECRECY = runs("Whoever holds the key can make marked text. The answer is as good as the key’s secrecy.")
"""The last thing that a report does not show."""
LIMITS_OF_SERVED = (
    runs(
        "An e-value or a p-value says how well chance explains what was seen. It is not the chance that the suspect is "
        "innocent."
    ),
    runs(
        "It does not show how the text got there: who gathered it, who trained the model, or that anyone meant to. The "
        "owner’s customers publish answers, others copy and rewrite them, and models pass on what they learnt."
    ),
)
"""What no test shows of a suspect that learnt from served answers."""


def own_sampling(sent: Queries | None) -> Iterator[tuple[str, Runs]]:
    """That an endpoint's answers are drawn as it likes, where it was asked for nothing else."""
    if sent is not None and "the server's own temperature" in sent.sampling:
        yield (
            "Sampling",
            runs(
                "Its endpoint takes no temperature, and none was sent: what it says is drawn at the server’s own. What "
                "was asked for is $settings.",
                settings=sent.sampling,
            ),
        )


def commitment_date(commitment: Commitment | None) -> str:
    """Say what there is of a commitment, whose date nothing proves."""
    return (
        "no commitment given" if commitment is None else f"commitment dated {format_time(commitment.created)}, unproven"
    )


def in_tosses(log10_p: float) -> str:
    """How lucky a p-value is, as the end of a sentence about it; nothing where few tosses would do."""
    tosses = coin_tosses(log10_p)
    return f", the chance of calling {tosses:,} tosses of a fair coin, each one right" if tosses > _FEW else ""


def tosses_line(log10_p: float | None, *, found: bool) -> list[Runs]:
    """How lucky what was found would be, as a line of its own; nothing where few tosses would do."""
    tosses = coin_tosses(log10_p or 0.0)
    if not found or tosses <= _FEW:
        return []
    return [runs(f"As likely as calling {tosses:,} tosses of a fair coin, each one right.")]


def chance_of(scores: str, log10_p: float, alpha: float, *, found: bool) -> Runs:
    """The answer's p-value in a sentence; ``scores`` says of what: "scores as high as these come about"."""
    chance = runs(f"Without the key, {scores} with a chance of at most <b>$p</b>", p=p_value(log10_p))
    if found:
        return runs(f"$chance{in_tosses(log10_p)}.", chance=chance)
    return runs("$chance. A mark is called found at $level or less.", chance=chance, level=level(alpha))


def inputs_named(inputs: Sequence[Input | ScannedInput], most: int = 5) -> Runs:
    """The files that were read ("-" is standard input), in a sentence; of many the first few."""
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


def limits_of_text(further: str, *, accounts: bool) -> list[Runs]:
    """What no test of text shows; ``further``: what else a mark does not tell, the end of a sentence about that."""
    return [
        runs(
            "A p-value is the chance of such scores if the text was written without the key. It is not the chance that "
            "the text was written without the key."
        ),
        runs(
            "A mark shows that text came out of a generator that held the key, or quotes such text. It does not show "
            f"who asked for it, who passed it on, {further}."
            + (" A tenant’s key names the account that the text was generated for." if accounts else "")
        ),
        runs(
            "No mark found does not mean that people wrote the text. It may be too short, edited, translated, or from "
            "another generator."
        ),
        SECRECY,
    ]


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


def interval(share: Interval) -> str:
    """Write an estimate with its interval: "3.1% (2.2% to 4.0%)", "at least 2.2% (estimate 3.1%)", "not shown"."""
    estimate = "" if share.estimate is None else percent(share.estimate)
    if share.high is not None:
        both = f"{percent(share.low)} to {percent(share.high)}"
        return f"{estimate} ({both})" if estimate else both
    if share.low > 0:
        return f"at least {percent(share.low)}" + (f" (estimate {estimate})" if estimate else "")
    return "none shown"  # an older report's estimate has nothing to stand on here


def share_line(share: Interval | None, reason: str, of: str) -> Runs:
    """A share with its confidence and how it was estimated, or why it is not identified; ``of`` says of what it is."""
    why = capital(reason.strip())
    why += "" if why.endswith((".", "!", "?")) or not why else "."
    if share is None:
        return runs("It is not identified. $why", why=why)
    return runs(
        "<b>$share</b> of $of, at $confidence confidence. $how",
        share=interval(share),
        of=of,
        confidence=percent(share.confidence),
        how=why,
    )
