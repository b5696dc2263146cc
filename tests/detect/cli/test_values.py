"""Options of the commands that mark which can't be used together: one line, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from tests.detect.marking_job import MarkingJob, marking_job


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MarkingJob:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # values may be taken for names of files
    return marking_job(tmp_path)


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
    assert result.exit_code in (0, 2), arguments
    return result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("keygen", "new.key", "--epoch", "3"), "--epoch goes with --tenant"),
        (("keygen", "new.key", "--key", "env:X"), "--key goes with --tenant"),
        (("spec", "new.json", "--tenants", "--global-share", "1"), "drop one of the two"),
        (("spec", "new.json", "--param", "gamma=0.1", "--param", "gamma=0.2"), "--param gamma was given twice"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: tuple[str, ...], message: str, job: MarkingJob) -> None:
    own = ("--key", job.key, "--model", str(job.model)) if arguments[0] == "spec" else ()
    refused = run(*arguments, *own)
    assert refused.exit_code == 2 and message in refused.stderr
    assert os.listdir() == []
