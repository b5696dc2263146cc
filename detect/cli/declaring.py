"""How commands are declared: a class whose fields are a command's options, and that names the function which runs.

The classes (`detect.cli.options`) load nothing heavy, so that ``--help`` is quick. What runs is imported when it runs,
and imports what it needs at its top.
"""

from __future__ import annotations

import importlib
from collections import UserDict
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import click


class _Declared(NamedTuple):
    """An option (its names begin with dashes) or, without names, an argument; and click's settings of it."""

    names: tuple[str, ...]
    settings: dict[str, Any]


def option(*names: str, **settings: Any) -> Any:
    """Declare a field as an option; its type is read off the field, and without a default it must be given.

    It shows its default where it has one.
    """
    return _Declared(names, {"show_default": settings.get("default") is not None, **settings})


def argument(**settings: Any) -> Any:
    """Declare a field as an argument."""
    return _Declared((), settings)


class Options:
    """What a command was asked for. Subclasses declare its fields, and their docstring is the command's help.

    Attributes
    ----------
    runs
        The function that is called with it, as MODULE:NAME under `detect.cli`.
    instead
        Other commands, by what is given in the place of the first argument.
    """

    runs: ClassVar[str]
    instead: ClassVar[Mapping[str, type[Options]]] = {}

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def __init_subclass__(cls, runs: str | None = None, instead: Mapping[str, type[Options]] | None = None) -> None:
        if runs is not None:
            cls.runs, cls.instead = runs, instead or {}

    def before(self) -> None:
        """Do what should begin before anything heavy is imported."""

    def run(self) -> None:
        """Import what runs, and run it."""
        self.before()
        module, _, name = self.runs.partition(":")
        getattr(importlib.import_module(f"detect.cli.{module}"), name)(self)

    def of(self, kind: type) -> dict[str, Any]:
        """What was asked for of all that a dataclass or a struct has fields for, by their names."""
        return {name: value for name, value in vars(self).items() if name in kind.__annotations__}

    def on_record(self, *names: str) -> dict[str, Any]:
        """What was asked for in these fields, as reports hold it."""
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


class Commands(UserDict[str, Any]):
    """Commands by their names, each built from the class that declares it when it is asked for.

    Parameters
    ----------
    declared
        For each command MODULE:CLASS under `detect.cli.options`, or a command.
    """

    def __getitem__(self, name: str) -> Any:
        if isinstance(declared := self.data[name], str):
            module, _, kind = declared.partition(":")
            declared = getattr(importlib.import_module(f"detect.cli.options.{module}"), kind)
            self.data[name] = declared = command(declared, name)
        return declared


class _Command(click.Command):
    """A command of which a first argument may make another one."""

    def __init__(self, kind: type[Options], *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.instead = {word: command(other, word) for word, other in kind.instead.items()}

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        if (other := self.instead.get(args[0] if args else "")) is not None:
            return other.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def command(kind: type[Options], name: str) -> click.Command:
    """Build the command that a class declares: what must be given comes first, then its own, then what it shares."""
    hints, fields = get_type_hints(kind), dict[str, _Declared]()
    for part in kind.__mro__:
        for field, declared in vars(part).items():
            if isinstance(declared, _Declared):
                fields.setdefault(field, declared)
    params = [_parameter(field, declared, hints[field]) for field, declared in fields.items()]
    params.sort(key=lambda parameter: not parameter.required)
    return _Command(kind, name, params=params, help=kind.__doc__, callback=lambda **values: kind(**values).run())


def _parameter(name: str, declared: _Declared, hint: Any) -> click.Parameter:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    (kind,) = (part for part in parts if part is not NoneType)
    if several := get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    settings: dict[str, Any] = {"type": _type(kind), **declared.settings}
    optional = NoneType in parts or "default" in settings
    if not declared.names:
        return click.Argument([name], **{"nargs": -1 if several else 1, "required": not optional, **settings})
    if kind is bool:
        settings |= {"is_flag": True, "type": None} | ({"default": None} if NoneType in parts else {})
    elif several:
        settings |= {"multiple": True}
    settings.setdefault("required", not (optional or several or kind is bool))
    return click.Option([*declared.names, name], **settings)


def _type(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    return click.Path(path_type=Path) if kind is Path else kind
