"""Reports that an older release wrote are still read, verified, drawn and recomputed.

Under older/: traces of a student of the demo model as dyetrace 0.1.0 wrote them before assumptions stood in records,
one whose verdict rests on the e-value (it gives exact tails beside it, which are no longer written) and one on the
p-value; a scan and a detection of the files in older/data, from before reports said who made them and when; and a plan
of power and a check of a server as they were printed before they were reports like all others.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from detect.cli.main import main
from watermark.keys import SecretKey, write_key_file

OLDER = Path(__file__).parent / "older"


@pytest.mark.parametrize("name", ["trace-account", "trace-prose"])
def test_an_older_trace_holds_and_gives_every_number_again(name: str, tmp_path: Path) -> None:
    report = OLDER / name / "report.json"
    key = tmp_path / "owner.key"
    write_key_file(key, SecretKey(b"a key that everybody knows......"))
    verified = CliRunner().invoke(main, ["report", "verify", str(report)])
    assert verified.exit_code == 0, verified.output
    assert "as an older release wrote it" in verified.output
    again = CliRunner().invoke(main, ["recompute", str(report), "--key", f"file:{key}"])
    assert again.exit_code == 0 and "every number the same" in again.output
    drawn = CliRunner().invoke(main, ["report", "render", str(report), "-o", str(tmp_path), "--format", "html"])
    assert drawn.exit_code == 0 and (tmp_path / "report.html").stat().st_size > 10_000


def test_a_number_of_an_older_trace_that_was_changed_is_noticed(tmp_path: Path) -> None:
    old = (OLDER / "trace-account" / "report.json").read_text()
    (tmp_path / "evidence.npz").write_bytes((OLDER / "trace-account" / "evidence.npz").read_bytes())
    (tmp_path / "report.json").write_text(old.replace('"found": true', '"found": false', 1))
    assert CliRunner().invoke(main, ["report", "verify", str(tmp_path / "report.json")]).exit_code == 3


@pytest.mark.parametrize("name", ["scan", "detection"])
def test_an_older_scan_and_detection_hold_and_give_every_number_again(
    name: str, tmp_path: Path, smollm2_dir: Path
) -> None:
    report = OLDER / name / "report.json"
    key = tmp_path / "owner.key"
    write_key_file(key, SecretKey(b"a key that everybody knows......"))
    verified = CliRunner().invoke(main, ["report", "verify", str(report), "--inputs", str(OLDER / "data")])
    assert verified.exit_code == 0, verified.output
    assert "as an older release wrote it" in verified.output
    again = CliRunner().invoke(
        main, ["recompute", str(report), "--key", f"file:{key}", "--tokenizer", str(smollm2_dir)]
    )
    assert again.exit_code == 0 and "every number the same" in again.output, again.output
    forms = ["--format", "html", "--format", "pdf", "--format", "text"]
    drawn = CliRunner().invoke(main, ["report", "render", str(report), "-o", str(tmp_path), *forms])
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "report.html").stat().st_size > 10_000 and (tmp_path / "report.txt").stat().st_size > 1_000


@pytest.mark.parametrize(("name", "lacks"), [("power-plan", "what was asked"), ("server-check", "the spec")])
def test_an_older_plan_and_check_of_a_server_hold_as_they_were_printed(name: str, lacks: str, tmp_path: Path) -> None:
    """Their fields stood in another order, and each line said what is missing, not that somebody changed it."""
    report = OLDER / name / "report.json"
    verified = CliRunner().invoke(main, ["report", "verify", str(report)])
    assert verified.exit_code == 0, verified.output
    assert "as an older release wrote it" in verified.output
    assert (
        f"{lacks} is not all on record: an older" in verified.output or f"{lacks} is not on record" in verified.output
    )
    forms = ["--format", "html", "--format", "pdf", "--format", "text", "--format", "markdown"]
    drawn = CliRunner().invoke(main, ["report", "render", str(report), "-o", str(tmp_path), *forms])
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "report.html").stat().st_size > 5_000 and (tmp_path / "report.txt").stat().st_size > 500


@pytest.mark.parametrize(
    "change", [('"samples": 4', '"samples":  4'), ('"power": 0.', '"power": 00.'), ("e-6", "e-06")]
)
def test_what_was_rewritten_by_hand_in_an_older_plan_is_seen(change: tuple[str, str], tmp_path: Path) -> None:
    old = (OLDER / "power-plan" / "report.json").read_text()
    assert change[0] in old
    (tmp_path / "report.json").write_text(old.replace(*change, 1))
    assert CliRunner().invoke(main, ["report", "verify", str(tmp_path / "report.json")]).exit_code != 0
