"""The documentation keeps its word: what the code says of it is there, and what it names of the code."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import detect
import watermark
from detect.cli.main import main
from tests.watermark.formats.test_readme_table import row
from watermark.engines.hook.settings import Settings
from watermark.registry import FORMATS

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
_NAMED = re.compile(r'[Ll]ines?\s+((?:"[a-z ]+"(?:\s+and\s+)?)+)\s+of\s+`docs/validity\.md`')
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL = ("", "sh")
"""Languages of the blocks that are typed in; what a command prints stands in blocks of text."""
_COMMAND = re.compile(r"\bdyetrace (?=[a-z])(?:'[^'\n]*'|[^'\n|)>#&])*")


def typed(text: str) -> list[str]:
    """All commands in the blocks of a page that are typed in."""
    blocks = [block for language, block in _BLOCK.findall(text) if language in _SHELL]
    return _COMMAND.findall("\n".join(blocks).replace("\\\n", " ").replace(" 2>/dev/null", ""))


def mentioned(text: str) -> list[str]:
    """All commands that stand in a sentence, often without what they need."""
    spans = re.findall(r"`(dyetrace [a-z][^`]*)`", _BLOCK.sub("", text))
    return [span.removesuffix("...") for span in spans]


def take(line: str) -> None:
    """Let the program read a command line, and run nothing.

    Raises
    ------
    click.UsageError
        There is no such command or option, or something is missing.
    """
    _, *words = shlex.split(line)
    command: click.Command = main
    name = ""
    while isinstance(command, click.Group) and words:
        name, *words = words
        found = command.commands.get(name)
        if found is None:
            raise click.NoSuchOption(name)
        command = found
    if isinstance(command, click.Group):
        return
    try:
        command.make_context(name, words)
    except click.exceptions.Exit:  # --help
        return


TYPED = [(page.name, line) for page in PAGES for line in typed(page.read_text(encoding="utf-8"))]
MENTIONED = [
    (page.name, line) for page in [ROOT / "README.md", *PAGES] for line in mentioned(page.read_text(encoding="utf-8"))
]


def test_every_line_of_the_theory_page_that_the_code_names_stands_there() -> None:
    page = (ROOT / "docs" / "validity.md").read_text(encoding="utf-8")
    named: set[str] = set()
    for folder in ("detect", "watermark"):
        for path in (ROOT / folder).rglob("*.py"):
            text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
            for lines in _NAMED.findall(text):
                named |= set(re.findall(r'"([a-z ]+)"', lines))
    assert {"prompts", "shown text", "served answers", "served counts", "looks", "aware"} <= named
    missing = [name for name in named if f'Line "{name}"' not in page]
    assert not missing


def anchors(page: Path) -> set[str]:
    """What links may name of a page: its headings, as the builder of the site writes them."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *PAGES]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
            there = page.parent / target if target else page
            assert there.exists(), f"{page.name} names {target}"
            assert not anchor or anchor in anchors(there), f"{page.name} names {target}#{anchor}"


def test_every_page_is_in_the_navigation_once_and_linked_from_the_index() -> None:
    navigation = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(navigation) == [page.name for page in PAGES]
    linked = re.findall(r"\]\(([^)#:]+\.md)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    assert set(linked) == {page.name for page in PAGES} - {"index.md"}


@pytest.mark.parametrize(("page", "line"), TYPED, ids=[line for _, line in TYPED])
def test_a_command_that_is_shown_is_one_that_the_program_takes(page: str, line: str) -> None:
    take(line)


@pytest.mark.parametrize(("page", "line"), MENTIONED, ids=[line for _, line in MENTIONED])
def test_a_command_that_is_mentioned_exists_with_its_options(page: str, line: str) -> None:
    try:
        take(line)
    except (click.MissingParameter, click.BadOptionUsage):
        pass  # a sentence need not say all, nor an option's value


@pytest.mark.parametrize(
    "line", ["dyetrace detetc a.txt", "dyetrace scan corpus/ --spek spec.json", "dyetrace trace all"]
)
def test_a_command_that_does_not_exist_would_be_noticed(line: str) -> None:
    assert typed(f"```\n{line}\n```") == [line] == mentioned(f"`{line}`")
    with pytest.raises(click.NoSuchOption):
        take(line)


def test_commands_are_found_in_every_page_that_shows_some() -> None:
    assert {page for page, _ in TYPED} >= {
        *("marking.md", "serving.md", "formats.md", "documents.md", "corpora.md", "students.md"),
        *("reports.md", "json.md", "exit-statuses.md"),
    }


def test_files_of_the_code_that_pages_name_are_there() -> None:
    for page in [ROOT / "README.md", *PAGES]:
        named = re.findall(r"`((?:detect|watermark|tests|benchmarks)/[\w/.-]*)`", page.read_text(encoding="utf-8"))
        for path in named:
            if re.search(r"\b(?:NAME|KIND)\b", path):
                continue
            assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), f"{page.name} names {path}"


def test_modules_that_pages_name_are_there() -> None:
    for page in [ROOT / "README.md", *PAGES]:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`(?:python -m )?(benchmarks(?:\.\w+)+|watermark\.engines(?:\.[a-z_]+)+)", text):
            path = ROOT / name.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").exists(), f"{page.name} names {name}"


def test_the_page_of_formats_has_a_row_for_each_format() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    start = page.index("| format | checked against |")
    assert page[start : page.index("\n\n", start)].splitlines()[2:] == [row(name) for name in FORMATS.built_in]


def all_options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.commands:
            yield from all_options(command.commands[name])
    for other in getattr(command, "instead", {}).values():
        yield from all_options(other)


OTHERS = {"--watermark-config", "--help"}
"""Options of other programs, and the one that click adds to every command."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_a_page_names_are_some_commands(page: Path) -> None:
    spans = re.findall(r"`(-[^`]*)`", _BLOCK.sub("", page.read_text(encoding="utf-8")))
    named = {word for span in spans for word in re.findall(r"(?:^|\s)(--?[a-z][a-z-]*)", span)}
    assert named <= {*all_options(main), *OTHERS}


def test_every_setting_of_a_server_is_explained_with_its_default() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert [name for name in Settings.__struct_fields__ if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_that_a_python_example_imports_exist(page: Path) -> None:
    blocks = [block for language, block in _BLOCK.findall(page.read_text(encoding="utf-8")) if language == "python"]
    for node in (node for block in blocks if ">>>" not in block for node in ast.walk(ast.parse(block))):
        match node:
            case ast.ImportFrom(module="watermark", names=names):
                assert all(hasattr(watermark, alias.name) for alias in names)
            case ast.Attribute(value=ast.Name(id="detect"), attr=name):
                assert hasattr(detect, name)
