"""One level is the default of every command and of every function that tests."""

from __future__ import annotations

import click
import msgspec
import pytest

from detect.cli.main import main
from detect.corpus.settings import ScanSettings
from detect.document.detection import Settings
from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.student.verdict.evidence import TraceSettings
from tests.detect.student.asking.planned import plan
from watermark.errors import DyetraceError


def _levels(command: click.Command, name: str) -> dict[str, object]:
    if isinstance(command, click.Group):
        return {key: level for n, c in command.commands.items() for key, level in _levels(c, f"{name} {n}").items()}
    alphas = [option.default for option in command.params if option.name == "alpha"]
    return dict.fromkeys([name], alphas[0]) if alphas else {}


def test_the_default_is_the_same_everywhere() -> None:
    commands = _levels(main, "dyetrace")
    assert len(commands) >= 6 and set(commands.values()) == {DEFAULT_ALPHA}, commands
    assert {s.alpha for s in (Settings(), TraceSettings(), plan())} == {DEFAULT_ALPHA}
    assert [f.default for f in msgspec.structs.fields(ScanSettings) if f.name == "alpha"] == [DEFAULT_ALPHA]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1e-9, 1.5, float("nan")])
def test_a_level_at_which_nothing_or_everything_is_found_is_refused(alpha: float) -> None:
    with pytest.raises(DyetraceError, match=r"alpha must lie in \(0, 1\)"):
        check_alpha(alpha)
    for make in (Settings, TraceSettings, plan):
        with pytest.raises(DyetraceError, match=r"alpha must lie in \(0, 1\)"):
            make(alpha=alpha)
