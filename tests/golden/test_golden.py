"""The golden reports hold here; `.ci/other_pythons` says the same of other Pythons and other packages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.records.reading import written
from tests.golden.other_python import HERE, SECRET, compare
from watermark.keys import SecretKey, write_key_file


@pytest.mark.parametrize("name", ["detection", "scan", "trace", "twins", "race"])
def test_a_golden_report_holds_here(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    shutil.copytree(HERE, work, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.chdir(work)
    write_key_file(tmp_path / "owner.key", SecretKey(SECRET))  # workers that other tests started have no new settings
    verified = CliRunner().invoke(main, ["report", "verify", f"{name}/report.json"])
    assert verified.exit_code == 0, verified.output
    files = [] if name in ("trace", "twins", "race") else ["--tokenizer", "tokenizer.json", "--inputs", "."]
    again = CliRunner().invoke(
        main, ["recompute", f"{name}/report.json", "--key", f"file:{tmp_path / 'owner.key'}", *files]
    )
    assert again.exit_code == 0 and "every number the same" in again.output, again.output


@pytest.mark.parametrize("name", ["power-plan", "server-check"])
def test_a_golden_plan_and_check_are_read_verified_and_drawn(name: str, tmp_path: Path) -> None:
    """Both as this release writes them, and as older ones did, which lacked fields."""
    shutil.copytree(HERE / name, tmp_path / "new")
    older = json.loads((HERE / name / "report.json").read_bytes())
    for field in (
        "assumed",
        "how_to_check",
        "made",
        "spec",
        *(["created", "versions"] if name == "power-plan" else []),
    ):
        older.pop(field, None)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_bytes(written(older))
    for folder in (tmp_path / "new", tmp_path / "old"):
        report = str(folder / "report.json")
        verified = CliRunner().invoke(main, ["report", "verify", report])
        assert verified.exit_code == 0, verified.output
        forms = ["--format", "html", "--format", "text", "--format", "markdown"]
        drawn = CliRunner().invoke(main, ["report", "render", report, "-o", str(folder / "drawn"), *forms])
        assert drawn.exit_code == 0, drawn.output
        again = CliRunner().invoke(main, ["recompute", report, "--key", "env:NONE"])
        assert again.exit_code == 2
        assert "takes no key" in again.output or "nothing to test again" in again.output


def test_last_bits_of_floats_may_differ_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"total": 12, "log10_p": -3.25, "created": "then", "files": [{"sha256": "a"}]}

    def left(name: str, **changes: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("detection.json", "scan.json", "documents.json"):
            (folder / file).write_text(json.dumps(record | changes))
        return folder

    first = left("first")
    assert compare(first, left("same", created="now", files=[])) == 0
    assert compare(first, left("bits", log10_p=-3.25 * (1 + 1e-12))) == 0
    assert "1 floats differ" in capsys.readouterr().out
    assert compare(first, left("float", log10_p=-3.2500001)) == 1
    assert compare(first, left("integer", total=13)) == 1
    assert "detection.json: total: 12 and 13" in capsys.readouterr().out
