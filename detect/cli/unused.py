"""Options that can't be used in a run are refused: whoever gives one expects that it does something."""

from __future__ import annotations

import click
from click.core import ParameterSource

from watermark.errors import DyetraceError


def refuse_unused(name: str, unused: bool, why: str) -> None:
    """Refuse a parameter that was given where it has no effect.

    Parameters
    ----------
    name
        Of the parameter, as the command's function has it.
    unused
        Whether it has no effect in this run.
    why
        The end of "--option has no effect: ".

    Raises
    ------
    DyetraceError
        It was given, and has none.
    """
    source = click.get_current_context().get_parameter_source(name)
    if unused and source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
        raise DyetraceError(f"{_option_name(name)} has no effect: {why}; leave it out")


def refuse_seed_of_no_decoys(decoys: int) -> None:
    """Refuse a seed of decoys where there are none."""
    refuse_unused("decoy_seed", decoys == 0, "--decoys 0 leaves no decoy keys to draw by it")


def _option_name(name: str) -> str:
    """How the running command calls a parameter, as it was given most likely: "--decoy-seed"."""
    context = click.get_current_context()
    parameter = next(one for one in context.command.params if one.name == name)
    off = parameter.secondary_opts and context.params.get(name) is False  # "--no-pdf" of "--pdf/--no-pdf"
    return max(parameter.secondary_opts if off else parameter.opts, key=len)
