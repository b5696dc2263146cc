"""Classes by name: dyetrace's own, and those that installed packages offer as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from watermark.errors import DyetraceError


@dataclass(frozen=True, slots=True)
class Registry:
    """One kind of class.

    Attributes
    ----------
    kind
        What messages call one: "scheme".
    group
        The group of entry points under which other packages offer theirs.
    built_in
        dyetrace's own: name to "module:Class". They are no entry points, so that a source tree serves uninstalled.
    """

    kind: str
    group: str
    built_in: Mapping[str, str]

    def names(self) -> list[str]:
        """All that are known here."""
        return sorted(self.built_in.keys() | entry_points(group=self.group).names)

    def find(self, name: str) -> type[Any] | None:
        """The class; None where none has the name.

        Raises
        ------
        DyetraceError
            Its package cannot be loaded.
        """
        if name in self.built_in:
            from pkgutil import resolve_name

            cls: type[Any] = resolve_name(self.built_in[name])
            return cls
        for entry in entry_points(group=self.group, name=name):
            try:
                cls = entry.load()
            except (ImportError, AttributeError) as error:
                raise DyetraceError(
                    f"{self.kind} {name!r} is installed as {entry.value} but cannot be loaded: {error}"
                ) from error
            return cls
        return None
