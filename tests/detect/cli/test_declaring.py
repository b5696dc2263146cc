"""How commands come from the classes that declare them: what is built, and that what they run is there."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, Literal, get_type_hints

import click
import pytest
from click.testing import CliRunner

from detect.cli import options
from detect.cli.declaring import Options, argument, command, option
from detect.cli.main import main


class Shared(Options):
    count: int = option("--count", default=3, help="How many.")


class Example(Shared, runs="nowhere:example"):
    """Do something.

    It takes long.
    """

    paths: tuple[Path, ...] = argument(metavar="PATHS...")
    names: tuple[str, ...] = option("--name")
    kind: Literal["a", "b"] | None = option("--kind")
    loud: bool = option("--loud/--quiet", default=None)
    output: Path = option("-o", "--output")


def asked(*words: str) -> Example:
    made = command(Example, "example")
    with made.make_context("example", list(words)) as context:
        return Example(**context.params)


def test_types_are_read_off_the_fields() -> None:
    given = asked("x", "-o", "out", "--name", "n", "--name", "m", "--kind", "b", "--quiet")
    assert vars(given) == {
        "paths": (Path("x"),), "names": ("n", "m"), "kind": "b", "loud": False,
        "output": Path("out"), "count": 3,
    }  # fmt: skip
    least = asked("x", "-o", "out")
    assert (least.names, least.kind, least.loud) == ((), None, None)


@pytest.mark.parametrize("words", [("-o", "out"), ("x",), ("x", "-o", "out", "--kind", "c"), ("x", "-o", "o", "--c")])
def test_what_must_be_given_is_asked_for_and_what_is_wrong_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        asked(*words)


def test_help_has_what_must_be_given_first_and_what_is_shared_last() -> None:
    said = CliRunner().invoke(command(Example, "example"), ["--help"]).output
    places = [said.index(word) for word in ("Do something.", "--output", "--name", "--kind", "--count")]
    assert places == sorted(places) and "[default: 3]" in said and "[required]" in said


def test_what_a_job_has_fields_for_is_taken_by_its_name() -> None:
    class Job:
        count: int
        output: Path
        other: str

    given = asked("x", "-o", "out", "--name", "n")
    assert given.of(Job) == {"count": 3, "output": Path("out")}
    assert given.on_record("output", "paths", "names") == {"output": "out", "paths": ["x"], "names": ["n"]}


def declared() -> list[type[Options]]:
    folder = Path(options.__file__).parent
    modules = [importlib.import_module(f"detect.cli.options.{path.stem}") for path in sorted(folder.glob("[a-z]*.py"))]
    kinds: set[Any] = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return sorted((kind for kind in kinds if "runs" in vars(kind)), key=lambda kind: str(kind.runs))


@pytest.mark.parametrize("kind", declared(), ids=lambda kind: kind.runs)
def test_what_a_command_runs_takes_its_options(kind: type[Options]) -> None:
    module, _, name = kind.runs.partition(":")
    function = getattr(importlib.import_module(f"detect.cli.{module}"), name)
    assert get_type_hints(function) == {"asked": kind, "return": type(None)}


def test_every_declared_command_is_one_of_the_groups() -> None:
    def kinds(group: click.Group) -> list[click.Command]:
        found = [part for _, part in group.commands.items()]
        return [one for part in found for one in (kinds(part) if isinstance(part, click.Group) else [part])]

    built = kinds(main)
    built += [other for made in built for other in getattr(made, "instead", {}).values()]
    assert {made.help for made in built} == {kind.__doc__ for kind in declared()}
