"""Lines while commands work: from every long phase without a terminal, a bar with one, and none with --quiet."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from benchmarks.distillation.server import Server
from detect.cli import working
from detect.cli.main import main
from detect.cli.working import Working, doing, rest, say
from tests.detect.marking_server import MASTER, MarkingServer, spec_of
from tests.detect.student.asking.conftest import serve, tiny_model  # noqa: F401 (the model that API traces are tried on)
from watermark.generate import Sampling, generate_answers
from watermark.keys import KeyRing, write_key_file
from watermark.spec import write_spec


def run(*words: object) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert "Traceback" not in result.output, result.output
    return result


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of each phase: it waits for the thread that says them, however busy the machine is."""
    monkeypatch.setattr(working, "SECONDS_BETWEEN_LINES", 0.0005)
    begin, said = Working.begin, list[str]()

    def recorded(line: str) -> None:
        said.append(line)
        say(line)

    def patient(self: Working, what: str, *given: Any) -> None:
        begin(self, what, *given)
        before = len(said)
        while what and self._thread is not None and not any(line.startswith(f"{what}: ") for line in said[before:]):
            time.sleep(0.001)

    monkeypatch.setattr(working, "say", recorded)
    monkeypatch.setattr(Working, "begin", patient)


# ------------------------------------------------------------------------------------------------- the mechanism


class Told(io.StringIO):
    """Standard error that is a terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Told]:
    def replace(terminal: bool) -> Told:
        told = Told(terminal)
        monkeypatch.setattr(sys, "stderr", told)
        monkeypatch.setenv("TERM", "xterm")
        return told

    return replace


def waited_for(told: Told, words: str) -> None:
    """Until a line is there: it comes from another thread."""
    for _ in range(2000):
        if words in told.getvalue():
            return
        time.sleep(0.005)
    raise AssertionError(told.getvalue())


def test_each_phase_is_named_with_how_far_it_is(
    stderr: Callable[[bool], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "SECONDS_BETWEEN_LINES", 0.001)
    told = stderr(False)
    with Working():
        waited_for(told, "working: still at it after 0:00 minutes")
        doing("loading the model")
        waited_for(told, "loading the model: still at it after 0:00 minutes")
        doing("testing", 1234, 5678, "documents")
        waited_for(told, "testing: 1,234 of 5,678 documents after 0:00 minutes")
        doing("")
        time.sleep(0.05)
    assert "\n: " not in told.getvalue()  # a pause that was asked for is no work
    doing("nobody runs")  # and it is no fault to say so
    rest()
    assert "nobody" not in told.getvalue()


def test_quiet_says_nothing_and_a_terminal_gets_a_bar(
    stderr: Callable[[bool], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "SECONDS_BETWEEN_LINES", 0.001)
    for terminal in (False, True):
        told = stderr(terminal)
        with Working(quiet=True):
            doing("testing", 1, 2)
            time.sleep(0.02)
        assert told.getvalue() == ""
    told = stderr(True)
    with Working():
        doing("testing", 1, 2, "documents")
        doing("testing", 2, 2, "documents")
        doing("writing")
    assert "testing" in told.getvalue() and "2 of 2 documents" in told.getvalue() and "writing" in told.getvalue()
    assert "after 0:0" not in told.getvalue()  # the bar takes the place of lines
    assert told.getvalue().endswith("\x1b[2K") or "\x1b[?25h" in told.getvalue()  # and is gone, the cursor back


def test_results_do_not_pass_through_a_bar_on_standard_error(
    stderr: Callable[[bool], Told], capsys: pytest.CaptureFixture[str]
) -> None:
    stderr(True)
    before = sys.stdout
    with Working():
        doing("testing", 1, 2)
        assert sys.stdout is before


def test_all_long_commands_take_quiet() -> None:
    """Found by what they are, so that a new one is not forgotten: only those that end at once do without."""
    import click

    def commands(group: click.Group, name: str = "") -> list[tuple[str, click.Command]]:
        found = []
        for key, command in group.commands.items():
            full = f"{name} {key}".strip()
            found += commands(command, full) if isinstance(command, click.Group) else [(full, command)]
        return found

    quiet = {name for name, command in commands(main) if "quiet" in {p.name for p in command.params}}
    assert quiet >= {
        *("detect", "scan", "trace weights", "trace api", "trace plan", "plan", "recompute", "serve-check", "demo"),
        *("report verify", "report render", "generate"),
    }


# ------------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def owner(tmp_path: Path, smollm2_tokenizer: Any, tiny_model: tuple[Any, Any]) -> Path:  # noqa: F811
    """A folder with key, spec, the tiny model, and answers of it."""
    spec = spec_of(smollm2_tokenizer, global_share=1.0)
    write_key_file(tmp_path / "owner.key", MASTER)
    write_spec(tmp_path / "spec.json", spec)
    model, tokenizer = tiny_model
    model.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    prompts = [f"Tell me about lighthouse {number}." for number in range(4)]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    sampling = Sampling(max_new_tokens=30, seed=1)
    answers = generate_answers(model, tokenizer, prompts, sampling, spec, KeyRing.from_master(MASTER), chat=False)
    (tmp_path / "answers.jsonl").write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in answers))
    return tmp_path


def keys(owner: Path) -> list[object]:
    return ["--spec", owner / "spec.json", "--key", f"file:{owner / 'owner.key'}"]


def in_order(said: str, *phases: str) -> None:
    """Each phase has a line, the first of each in this order."""
    places = []
    for phase in phases:
        place = next((at for at, line in enumerate(said.splitlines()) if line.startswith(f"{phase}: ")), None)
        assert place is not None, f"nothing of {phase!r} in:\n{said}"
        places.append(place)
    assert places == sorted(places), said


@pytest.mark.usefixtures("talkative")
def test_a_detection_and_its_checks_tell_of_every_phase(owner: Path, smollm2_dir: Path) -> None:
    given = ["detect", owner / "answers.jsonl", *keys(owner), "--tokenizer", smollm2_dir, "--decoys", 5]
    out = owner / "found"
    said = run(*given, "-o", out, "--aware", "--model", owner / "tiny").stderr
    in_order(
        said,
        "reading the documents",
        "loading the model",
        "testing",
        "putting the documents' results together",
        "drawing and writing the report",
    )
    report = out / "report.json"
    in_order(run("report", "verify", report).stderr, "hashing the files and computing what follows from other numbers")
    in_order(run("report", "render", report, "-o", owner / "page").stderr, "drawing report.html")
    again = run("recompute", report, "--key", keys(owner)[-1], "--tokenizer", smollm2_dir)
    assert again.exit_code == 0, again.output
    in_order(again.stderr, "reading the report and its inputs", "computing the detection anew")
    assert run(*given, "--quiet").stderr == ""
    for quiet in (
        ["report", "verify", report],
        ["report", "render", report, "-o", owner / "more"],
        ["recompute", report, "--key", keys(owner)[-1], "--tokenizer", smollm2_dir],
    ):
        done = run(*quiet, "--quiet")
        assert (done.exit_code, done.stderr) == (0, "") and done.stdout, done.output


@pytest.mark.usefixtures("talkative")
def test_a_scan_tells_of_every_phase(owner: Path, smollm2_dir: Path) -> None:
    given = ["scan", owner / "answers.jsonl", *keys(owner), "--tokenizer", smollm2_dir, "--decoys", 5, "--workers", 1]
    texts = owner / "texts.txt"
    texts.write_text("A text that nobody marked, and that is the control here.\n" * 9)
    more = ["--reference", owner / "answers.jsonl", "--null-corpus", texts]
    said = run(*given, *more, "-o", owner / "found").stderr
    in_order(
        said,
        "looking for files",
        "looking for files of the control corpus",
        "hashing files of the control corpus",
        "reading and encoding of the control corpus",
        "scoring of the control corpus",
        "reading and encoding of the reference",
        "scoring of the reference",
        "hashing files",
        "reading and encoding",
        "finding repeats",
        "scoring",
        "computing p-values, decoys and shares",
        "drawing and writing the report",
    )
    in_order(run(*given, "-o", owner / "x", "--dry-run").stderr, "reading a part of the files")
    quiet = run(*given, *more, "-o", owner / "quiet", "--quiet")
    assert (quiet.exit_code, quiet.stderr) == (0, "") and quiet.stdout, quiet.stderr
    again = run("recompute", owner / "found" / "report.json", "--key", keys(owner)[-1], "--tokenizer", smollm2_dir)
    assert again.exit_code == 0, again.output
    in_order(again.stderr, "reading the report and its inputs", "reading and encoding", "scoring")


@pytest.mark.usefixtures("talkative")
def test_a_trace_of_weights_tells_of_every_phase(owner: Path, smollm2_dir: Path) -> None:
    given = ["trace", "weights", owner / "tiny", "--read", owner / "answers.jsonl", *keys(owner), "--contexts", 60]
    given += ["--tokenizer", smollm2_dir, "--decoys", 5, "--no-pdf"]
    done = run(*given, "-o", owner / "found")
    assert done.exit_code == 0, done.output
    in_order(
        done.stderr,
        "hashing tiny",
        "reading the texts",
        "loading tiny",
        "tiny reads answers.jsonl",
        "weighing what was read",
        "computing p-values under all keys and decoys",
        "drawing and writing the report",
    )
    quiet = run(*given, "-o", owner / "quiet", "--quiet")
    assert quiet.exit_code == 0 and quiet.stdout
    # A warning is said all the same: this model is random, and sure of itself.
    assert quiet.stderr.count("\n") == 1 and "hardly better than a guess" in quiet.stderr


@pytest.mark.usefixtures("talkative")
def test_a_trace_through_an_endpoint_tells_of_every_phase(
    owner: Path,
    serve: Callable[..., Server],  # noqa: F811
    smollm2_dir: Path,
) -> None:
    server = serve()
    plan = ["trace", "plan", server.url, "--model", "student", "--prompts", owner / "prompts.txt", *keys(owner)]
    plan += ["--served", owner / "answers.jsonl", "--max-tokens", 12, "--tokenizer", smollm2_dir, "--decoys", 5]
    made = run(*plan, "-o", owner / "plan.json")
    assert made.exit_code == 0, made.output
    in_order(
        made.stderr,
        "reading the served answers, and hashing them and the reference",
        "looking for the mark in the prompts",
    )
    quiet = run(*plan, "-o", owner / "other.json", "--quiet")
    assert (quiet.exit_code, quiet.stderr) == (0, "") and quiet.stdout, quiet.stderr
    everything = ["trace", "plan", server.url, "--model", "student", "--prompts", owner / "prompts.txt", *keys(owner)]
    assert run(*everything, "--max-tokens", 12, "-o", owner / "all.json").exit_code == 0
    ask = ["trace", "api", owner / "all.json", *keys(owner), "--tokenizer", smollm2_dir, "--no-pdf"]
    asked = run(*ask, "-o", owner / "found")
    assert asked.exit_code == 0, asked.output
    in_order(
        asked.stderr,
        "reading the served answers, the reference and what is on record",
        "asking the endpoint",
        "computing p-values under all keys and decoys",
        "drawing and writing the report",
    )
    assert "asking the endpoint: 0 of 4 prompts, evidence 10^" in asked.stderr
    silent = run(*ask, "-o", owner / "quiet", "--quiet")
    assert (silent.exit_code, silent.stderr) == (0, "") and silent.stdout, silent.output


@pytest.mark.usefixtures("talkative")
def test_a_check_of_a_server_tells_of_every_phase(owner: Path, tiny_model: tuple[Any, Any]) -> None:  # noqa: F811
    spec = spec_of(tiny_model[1].backend_tokenizer, global_share=1.0)
    with MarkingServer(*tiny_model, spec) as server:
        given = ["serve-check", server.url, *keys(owner), "--count", 3, "--max-tokens", 40, "--temperature", 1]
        done = run(*given)
        assert done.exit_code == 0, done.output
        in_order(
            done.stderr,
            "asking the server for its models",
            "asking the server",
            "asking for what a hook must treat with care",
            "testing the answers",
        )
        assert "asking the server: 0 of 3 answers after" in done.stderr
        quiet = run(*given, "--quiet")
    assert (quiet.exit_code, quiet.stderr) == (0, ""), quiet.output


@pytest.mark.usefixtures("talkative")
def test_a_plan_tells_of_every_phase(owner: Path) -> None:
    given = ["plan", "--spec", owner / "spec.json", "--model", owner / "tiny", "--text", owner / "answers.jsonl"]
    given += ["--contexts", 500]
    done = run(*given)
    assert done.exit_code == 0, done.output
    in_order(
        done.stderr,
        "reading the text",
        "loading the model",
        "measuring the model's entropy on the text",
        "simulating students",
    )


@pytest.mark.usefixtures("talkative")
def test_the_demo_tells_of_every_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are said as they begin; here it is stopped before the work, which takes minutes."""

    def stopped(folder: Path, scheme: str, say: Callable[[str], None]) -> None:
        say("1/4 the demo model")
        say("2/4 key, spec and commitment")
        raise ValueError

    monkeypatch.setattr("detect.cli.demo.run_demo", stopped)
    said = run("demo", "-o", tmp_path / "demo").stderr
    in_order(said, "1/4 the demo model", "2/4 key, spec and commitment")
    assert run("demo", "-o", tmp_path / "demo", "--quiet").stderr.count("\n") == 1  # the fault alone
    assert working._Current.working is None
