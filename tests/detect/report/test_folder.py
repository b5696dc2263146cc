"""A folder holds one report: files of two runs never lie beside each other, and what is no report's is not touched."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.corpus.scan import scan
from detect.folders import own as own_folder
from detect.folders import published as folders
from detect.folders.published import (
    DETECTION_FORMAT,
    NAMES,
    RACE_FORMAT,
    SCAN_FORMAT,
    STAGE,
    TRACE_FORMAT,
    TWINS_FORMAT,
    Unwritten,
    add_drawings,
    check_folder,
    replace_report,
)
from detect.report.signature import write_signing_key
from tests.detect.corpus.marked import SECRET, InlineEngine, documents, spec, write_jsonl
from tests.detect.corpus.test_scan import job
from watermark.errors import DyetraceError
from watermark.files import writing as files
from watermark.keys import write_key_file
from watermark.spec import write_spec

HTML = b"<title>dyetrace corpus scan"


def made(run: str, *names: str, kind: str = SCAN_FORMAT) -> dict[str, bytes]:
    """Files of a report; each says of which run it is."""
    listed = [{"name": name, "sha256": "", "bytes": 0} for name in names]
    record = {"format": kind, "version": 1, "files": listed, "run": run}
    return {**{name: f"{run} {name}".encode() for name in names}, "report.json": json.dumps(record).encode()}


def drawings(run: str) -> dict[str, bytes]:
    return {"report.html": HTML + f" {run}".encode(), "report.pdf": f"%PDF-1.7 dyetrace {run}".encode()}


FIRST = made("first", "documents.parquet", "hits.jsonl", "skipped.jsonl")
SECOND = made("second", "evidence.npz", kind=TRACE_FORMAT)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with a whole report, a signature and somebody's own files."""
    output = tmp_path / "out"
    replace_report(output, FIRST)
    add_drawings(output, FIRST["report.json"], drawings("first"))
    (output / "report.json.sig").write_text('{"format": "dyetrace-report-signature"}')
    (output / "notes.txt").write_text("mine")
    (output / ".git").mkdir()
    return output


def test_a_new_report_takes_the_place_of_all_of_the_old_one(old: Path) -> None:
    replace_report(old, SECOND)
    assert held_files(old) == SECOND | {"notes.txt": b"mine"}
    assert (old / ".git").is_dir() and not (old / STAGE).exists()


def held_files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


def killed_after(steps: int, work: Callable[[], None]) -> bool:
    """Do the work in another process that is killed after so many changes of the disk; whether it came to its end."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    left = [steps]

    def counted(real: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            if not left[0]:
                os.kill(os.getpid(), 9)
            left[0] -= 1
            return real(*given, **more)

        return call

    try:
        files.os.replace = counted(os.replace)  # type: ignore[attr-defined]
        folders.remove_plain = counted(own_folder.remove_plain)  # type: ignore[attr-defined]
        own_folder.os.chmod = counted(os.chmod)  # type: ignore[attr-defined]
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def test_a_change_that_is_cut_off_anywhere_leaves_one_report_and_is_ended_by_the_next_command(old: Path) -> None:
    """At every step: what lies under a report.json is that report's, and one more command puts all right."""
    before, after = held_files(old), SECOND | {"notes.txt": b"mine"}
    seen = set()
    for steps in range(60):
        replace_report(old, FIRST)
        for name, data in before.items():
            (old / name).write_bytes(data)
        whole = killed_after(steps, lambda: replace_report(old, SECOND))
        now = held_files(old)
        if "report.json" in now:
            assert now in (before, after)
        seen.add("report.json" in now)
        check_folder(old, TRACE_FORMAT, force=True)  # what any next command does first
        assert held_files(old) in (before, after)
        assert not (old / STAGE).exists()
        if whole:
            break
    assert whole and steps > 10 and seen == {True, False}


def test_a_folder_that_others_have_prepared_lets_nothing_outside_it_change(old: Path, tmp_path: Path) -> None:
    mine = {"thesis.txt": b"mine"}
    for name, data in mine.items():
        (tmp_path / name).write_bytes(data)
    digest = hashlib.sha256(b"mine").hexdigest()
    for change in ({"gone": {"../thesis.txt": digest}, "new": {}}, {"gone": {}, "new": {"../notes.txt": digest}}):
        (old / STAGE).mkdir(exist_ok=True)
        (old / STAGE / own_folder.MARK).write_bytes(folders._MARKED)
        (old / STAGE / "change.json").write_text(json.dumps(change))
        check_folder(old, SCAN_FORMAT, force=True)
        assert held_files(tmp_path) == mine and (old / "notes.txt").read_bytes() == b"mine"
        assert not (old / STAGE).exists()


def test_a_failure_while_writing_leaves_the_old_report(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = held_files(old), files.write_atomically

    def full(path: Path, *given: Any) -> None:
        if path.name == "report.json":
            raise DyetraceError(f"cannot write {path}: No space left on device")
        real(path, *given)

    monkeypatch.setattr(folders, "write_atomically", full)
    with pytest.raises(DyetraceError, match="No space left"):
        replace_report(old, SECOND)
    assert held_files(old) == before and not (old / STAGE).exists()


def test_the_same_report_again_keeps_every_file_of_it(tmp_path: Path) -> None:
    for _ in range(2):
        replace_report(tmp_path, FIRST)
        assert held_files(tmp_path) == FIRST
    for steps in range(60):
        if killed_after(steps, lambda: replace_report(tmp_path, FIRST)):
            break
        check_folder(tmp_path, SCAN_FORMAT)
        assert held_files(tmp_path) == FIRST


@pytest.mark.parametrize("name", [name for name in NAMES if name != "run.json"])
def test_somebodys_own_file_with_a_reports_name_is_never_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"somebody's own")
    new = made("new", "documents.parquet", "hits.jsonl", "skipped.jsonl", "evidence.npz", "twins.npz", "race.npz")
    with pytest.raises(DyetraceError, match=name):
        replace_report(tmp_path, new)
    with pytest.raises(DyetraceError, match=name):
        kinds = {"evidence.npz": TRACE_FORMAT, "twins.npz": TWINS_FORMAT, "race.npz": RACE_FORMAT}
        check_folder(tmp_path, kinds.get(name, SCAN_FORMAT), force=True)
    assert held_files(tmp_path) == {name: b"somebody's own"}


def test_somebodys_own_file_that_seems_to_belong_to_another_kind_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "hits.jsonl").write_bytes(b"somebody's own")
    for _ in range(2):
        replace_report(tmp_path, SECOND)
        assert held_files(tmp_path) == SECOND | {"hits.jsonl": b"somebody's own"}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "own.html").write_bytes(HTML)
    output = tmp_path / "out"
    replace_report(output, SECOND)
    (output / "report.html").symlink_to(tmp_path / "own.html")
    with pytest.raises(DyetraceError, match=r"report\.html"):
        replace_report(output, SECOND)
    assert (tmp_path / "own.html").read_bytes() == HTML


def test_reports_of_another_kind_and_signed_ones_are_replaced_with_force_alone(old: Path) -> None:
    for kind, says in ((DETECTION_FORMAT, "the report of a scan"), (SCAN_FORMAT, "signed report")):
        with pytest.raises(DyetraceError, match=f"{says}.*--force"):
            check_folder(old, kind)
        check_folder(old, kind, force=True)
    (old / "report.json.sig").unlink()
    check_folder(old, SCAN_FORMAT)


def test_a_folder_that_is_read_gets_no_report(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "hits.jsonl").write_text("{}")
    for output, inputs in ((data, [data]), (data / "out" / "deep", [data]), (data, [data / "hits.jsonl"])):
        with pytest.raises(DyetraceError, match="-o"):
            check_folder(output, SCAN_FORMAT, inputs=inputs)
    check_folder(tmp_path / "out", SCAN_FORMAT, inputs=[data, data / "hits.jsonl"])


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_a_folder_that_cannot_be_written_is_found_beforehand(what: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(DyetraceError, match="x"):
        check_folder(tmp_path / "x" if what == "a file" else tmp_path / "x" / "out", SCAN_FORMAT)


def test_drawings_go_beside_their_own_report_alone(old: Path, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="another report"):
        add_drawings(old, SECOND["report.json"], drawings("second"))
    apart = tmp_path / "apart"
    add_drawings(apart, FIRST["report.json"], drawings("first"))
    with pytest.raises(DyetraceError, match="--force"):
        add_drawings(apart, SECOND["report.json"], {"report.html": HTML})
    add_drawings(apart, SECOND["report.json"], {"report.html": HTML}, force=True)
    assert held_files(apart) == {"report.html": HTML}
    (apart / "report.pdf").write_bytes(b"%PDF somebody's own")
    with pytest.raises(DyetraceError, match=r"report\.pdf"):
        add_drawings(apart, SECOND["report.json"], {"report.html": HTML}, force=True)


# --------------------------------------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made_in = tmp_path_factory.mktemp("keys")
    write_key_file(made_in / "owner.key", SECRET)
    write_spec(made_in / "spec.json", spec())
    write_signing_key(made_in / "signer.pem")
    write_jsonl(made_in / "marked.jsonl", documents(10, 160, 2, spec()))
    write_jsonl(made_in / "clean.jsonl", documents(30, 160, 1))
    return made_in


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def scan_to(output: Path, keys: Path, name: str, *more: str) -> Result:
    return run(
        "scan", keys / name, "--spec", keys / "spec.json", "--key", f"file:{keys / 'owner.key'}", "--workers", "1",
        "--decoys", "5", "-o", output, *more,
    )  # fmt: skip


def test_a_second_scan_leaves_nothing_of_the_first(keys: Path, tmp_path: Path) -> None:
    """No pdf that says "found" beside a report that says it was not, and no signature of what is gone."""
    assert scan_to(tmp_path, keys, "marked.jsonl").exit_code == 0
    assert b"The mark was found" in (tmp_path / "report.pdf").read_bytes()
    assert (
        run("report", "sign", tmp_path / "report.json", "--signing-key", f"file:{keys / 'signer.pem'}").exit_code == 0
    )
    signed = held_files(tmp_path)
    refused = scan_to(tmp_path, keys, "clean.jsonl", "--no-pdf")
    assert refused.exit_code == 2 and "--force" in refused.stderr and held_files(tmp_path) == signed
    assert scan_to(tmp_path, keys, "clean.jsonl", "--no-pdf", "--force").exit_code == 0
    assert set(held_files(tmp_path)) == {
        "report.json", "report.html", "run.json", "documents.parquet", "hits.jsonl", "skipped.jsonl"
    }  # fmt: skip
    assert not json.loads((tmp_path / "report.json").read_text())["found"]
    assert b"The mark was found" not in (tmp_path / "report.html").read_bytes()
    assert run("report", "verify", tmp_path / "report.json").exit_code == 0


def test_a_result_is_printed_though_its_folder_fails(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DyetraceError("cannot write: No space left on device")

    monkeypatch.setattr("detect.corpus.scan.replace_report", full)
    result = scan_to(tmp_path, keys, "marked.jsonl", "--json", "--no-pdf")
    assert result.exit_code == 5 and json.loads(result.stdout)["found"]
    assert result.stderr.splitlines()[-1].startswith("dyetrace: cannot write: No space left on device; the result was")
    with pytest.raises(Unwritten) as caught:
        scan(job(keys, str(keys / "marked.jsonl")), tmp_path / "out", InlineEngine())
    assert caught.value.record.found


def test_a_bad_folder_is_found_before_anything_is_read(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = scan_to(tmp_path / "file", keys, "marked.jsonl", "--no-pdf")
    assert result.exit_code == 2 and "is a file" in result.stderr and "done in" not in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_text_that_was_drawn_is_known_again(keys: Path, tmp_path: Path) -> None:
    assert scan_to(tmp_path, keys, "clean.jsonl", "--no-pdf").exit_code == 0
    for _ in range(2):
        drawn = run("report", "render", tmp_path / "report.json", "-o", tmp_path, "--format", "text")
        assert drawn.exit_code == 0, drawn.output
    assert scan_to(tmp_path, keys, "clean.jsonl", "--no-pdf").exit_code == 0
    assert not (tmp_path / "report.txt").exists()
