"""Runs to be tried: a command line that works, changed here and there, under streams, settings, signals at random."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.grammar import (
    ADDRESSES,
    FITTING,
    KEYS,
    LINES,
    LOADS_MODELS,
    OUTPUTS,
    SLOW_WORDS,
    TAKES_SECONDS,
    URL,
    VALUES,
    Option,
    options,
)

STDIN = ("nothing", "closed", "prompts", "text", "not UTF-8", "NUL bytes")
STDOUT = ("kept", "closed", "full", "nobody reads")
STDERR = ("kept", "closed", "full", "nobody reads")
SETTINGS = (
    "usual",
    "no home",
    "ASCII",
    "Latin-1",
    "no cache",
    "no temporary folder",
    "temporary file",
    "narrow",
    "dumb",
)
SIGNALS = ("INT", "TERM", "KILL")


@dataclass(frozen=True, slots=True)
class Job:
    """A command line and what befalls it.

    Attributes
    ----------
    command
        Its name: "trace weights".
    words
        All that follows "dyetrace".
    stdin, stdout, stderr, setting
        One of those above.
    signal, after
        What is sent, and when: milliseconds after the start.
    file_size
        Bytes beyond which no file may grow, as on a disk that is full then; 0 for no limit.
    process
        Whether it is a process from the beginning, and not a fork of one that has loaded its packages.
    workers
        Whether a scan starts its workers, which takes seconds, and does not do their work itself.
    """

    command: str
    words: tuple[str, ...]
    stdin: str = "nothing"
    stdout: str = "kept"
    stderr: str = "kept"
    setting: str = "usual"
    signal: str = ""
    after: int = 0
    file_size: int = 0
    process: bool = False
    workers: bool = False

    @property
    def loads_models(self) -> bool:
        """Whether it loads torch."""
        return self.command in LOADS_MODELS or "--aware" in self.words or "--text" in self.words

    @property
    def waits(self) -> bool:
        """Whether it may well wait for something that never comes."""
        runs_on = self.command == "gateway" and "--check" not in self.words
        return runs_on or any("pipe" in word for word in self.words)

    def __str__(self) -> str:
        usual = Job(self.command, self.words)
        names = [name for name in self.__slots__ if getattr(self, name) != getattr(usual, name)]
        line = " ".join(_quoted(word) for word in ("dyetrace", *self.words))
        return line + "".join(f"  [{name}: {getattr(self, name)}]" for name in names)


def _quoted(word: str) -> str:
    shown = ascii(word)[1:-1] if not word.isascii() or not word.isprintable() else word
    return shlex.quote(shown if len(shown) < 80 else f"{shown[:40]}...({len(word)})")


def jobs(folder: Path) -> st.SearchStrategy[Job]:
    """Jobs on the files of a workshop."""
    return _jobs(_inputs(folder))


@st.composite
def _jobs(draw: st.DrawFn, inputs: tuple[str, ...]) -> Job:
    command = draw(st.sampled_from(_commands()))
    words = shlex.split(draw(st.sampled_from(LINES[command][1])))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 2, 3)))):
        words = draw(_changed(command, words, inputs))
    befalls = {
        "stdin": draw(_sometimes(STDIN, 3)),
        "stdout": draw(_sometimes(STDOUT, 8)),
        "stderr": draw(_sometimes(STDERR, 16)),
        "setting": draw(_sometimes(SETTINGS, 8)),
        "signal": draw(_cut_off if command in TAKES_SECONDS else _sometimes(("", *SIGNALS), 8)),
    }
    return Job(
        command=command,
        words=tuple(word for word in words if word not in SLOW_WORDS),
        **befalls,
        after=draw(st.integers(0, 400)) if befalls["signal"] else 0,
        file_size=draw(st.sampled_from((1, 500, 5_000, 40_000))) if draw(st.integers(0, 15)) == 7 else 0,
        process=draw(st.integers(0, 199)) == 77,
        workers=draw(st.integers(0, 29)) == 17,
    )


_cut_off = st.sampled_from((*SIGNALS, *SIGNALS, *SIGNALS, ""))


@lru_cache(maxsize=1)
def _commands() -> tuple[str, ...]:
    return tuple(name for name, (often, _) in LINES.items() for _ in range(often))


@lru_cache(maxsize=64)
def _sometimes(choices: tuple[str, ...], rarely: int) -> st.SearchStrategy[str]:
    """The first of the choices, and one in so many times another."""
    usual = (choices[0],) * (rarely - 1) * (len(choices) - 1)
    return st.sampled_from((*usual, *choices[1:]))


def _changed(command: str, words: list[str], inputs: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    """The words with one change."""
    own = options()[command]
    begin = len(command.split())
    return st.one_of(
        _with_option(words, own, inputs),
        _with_option(words, own, inputs),
        _with_another_value(words, own, inputs, begin),
        _with_another_value(words, own, inputs, begin),
        _without_a_word(words, begin),
        _with_a_word(words, inputs, begin),
    )


@st.composite
def _with_option(draw: st.DrawFn, words: list[str], own: tuple[Option, ...], inputs: tuple[str, ...]) -> list[str]:
    option = draw(st.sampled_from(own))
    return [*words, option.name, *([] if option.kind == "flag" else [draw(_value(option, inputs))])]


@st.composite
def _with_another_value(
    draw: st.DrawFn, words: list[str], own: tuple[Option, ...], inputs: tuple[str, ...], begin: int
) -> list[str]:
    places = [i for i in range(begin, len(words)) if not words[i].startswith("-") or words[i] == "-"]
    if not places:
        return words
    place = draw(st.sampled_from(places))
    named = {option.name: option for option in own} | {"-o": Option("--output", "output")}
    option = named.get(words[place - 1], Option("", "file"))
    kind = Option("", "address") if words[place].startswith(URL) else option
    return [*words[:place], draw(_value(kind, inputs)), *words[place + 1 :]]


@st.composite
def _without_a_word(draw: st.DrawFn, words: list[str], begin: int) -> list[str]:
    if len(words) <= begin:
        return words
    place = draw(st.integers(begin, len(words) - 1))
    return words[:place] + words[place + 1 :]


@st.composite
def _with_a_word(draw: st.DrawFn, words: list[str], inputs: tuple[str, ...], begin: int) -> list[str]:
    place = draw(st.integers(begin, len(words)))
    return [*words[:place], draw(st.sampled_from(VALUES + inputs)), *words[place:]]


def _value(option: Option, inputs: tuple[str, ...]) -> st.SearchStrategy[str]:
    """A value that fits an option as a rule."""
    fitting: tuple[str, ...] = {
        "choice": option.choices,
        "key": KEYS,
        "output": OUTPUTS,
        "address": ADDRESSES,
        "number": ("0", "1", "2", "3", "0.5", "0.1", "-1", "1e-3"),
        "word": ("acme", "zenith", "text", "gumbel", "gamma=0.5", "delta=2", "1"),
    }.get(option.kind, FITTING.get(option.name, inputs))
    others = inputs if option.name in FITTING else fitting
    return st.one_of(st.sampled_from(fitting), st.sampled_from(others), st.sampled_from(VALUES))


@lru_cache(maxsize=4)
def _inputs(folder: Path) -> tuple[str, ...]:
    """Everything in ``mine`` and ``odd``, and what is in neither."""
    found = [f"../{part}/{path.name}" for part in ("mine", "odd") for path in sorted((folder / part).iterdir())]
    inside = [f"../{part}/{kind}/report.json" for part in ("mine", "odd") for kind in ("detection", "scan", "trace")]
    return (*found, *inside, "../mine/model/tokenizer.json", "../out/plain", "-", "nope", "/dev/null", "")
