"""The README keeps its word: its commands parse, its Python names exist, and no command goes unmentioned."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

import watermark
from detect.cli.main import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("#")[0].split("|")[-1].strip()
    for language, block in BLOCKS
    if not language
    for line in block.splitlines()
    if re.match(r"(cat \S+ \| )?dyetrace ", line)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_is_one_that_the_program_takes(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = main.commands[name]
    while isinstance(command, click.Group):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(name, arguments)


def test_there_are_commands_and_every_command_is_mentioned() -> None:
    assert len(COMMANDS) >= 7
    for name in main.commands:
        assert f"dyetrace {name}" in README


def test_the_python_example_uses_names_that_exist() -> None:
    [source] = [block for language, block in BLOCKS if language == "python"]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "watermark"
            assert all(hasattr(watermark, alias.name) for alias in node.names)
