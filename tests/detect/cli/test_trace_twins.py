"""`dyetrace trace twins` as people type it: against a real endpoint, through kills, in one line where it fails."""

# ruff: noqa: F811 (fixtures of other rooms' tests)
from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.distillation.server import Fault, Server
from detect.cli.main import main
from detect.cli.statuses import BAD_INPUT, FOUND, MACHINE
from detect.twins.evidence import EVIDENCE_FILE
from tests.detect.student.asking.conftest import serve, tiny_model  # noqa: F401
from tests.detect.twins.conftest import Serve, greedy, ledger, pairs, suspect  # noqa: F401
from tests.detect.twins.made import ledger_of, twins
from watermark.twins.pair import Pair


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def typed(url: str, ledger: Path, output: Path, *more: object) -> list[object]:
    """The words of a test by free answers."""
    key = f"file:{ledger.parent / 'twins.key'}"
    asked = ["--model", "student", "--ask", "answers", "--target", "3", "--alpha", "1e-3", "--no-pdf"]
    return ["trace", "twins", url, "--ledger", ledger, "--twin-key", key, "-o", output, *asked, *more]


def refused(*words: object) -> str:
    """The one line of a command that can't do what it was asked for."""
    result = run(*words)
    assert result.exit_code in (BAD_INPUT.number, MACHINE.number) and result.stdout == ""
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("dyetrace: ") and "Traceback" not in result.stderr
    return line


def about_pairs(server: Server) -> Counter[str]:
    prompts = [received.body["messages"][0]["content"] for received in server.received]
    return Counter(prompt for prompt in prompts if "Count from one" not in prompt)


def test_a_guilty_suspect_is_found_and_its_report_holds(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = run(*typed(suspect.url, ledger, output, "--tenant", "acme", "--tenant", "zenith", "--fail"))
    assert result.exit_code == FOUND.number, result.stderr
    assert "evidence 10^" in result.stderr and "Traceback" not in result.stderr
    assert {path.name for path in output.iterdir()} >= {"report.json", "report.html", "plan.json", EVIDENCE_FILE}
    checked = run("report", "verify", output / "report.json")
    assert checked.exit_code == 0, checked.stdout
    anew = run("recompute", output / "report.json", "--key", f"file:{tmp_path / 'twins.key'}", "--inputs", tmp_path)
    assert anew.exit_code == 0, anew.output


def test_json_is_the_report(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    result = run(*typed(suspect.url, ledger, tmp_path / "out", "--json", "--quiet"))
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.encode() == (tmp_path / "out" / "report.json").read_bytes()
    assert json.loads(result.stdout)["format"] == "dyetrace-twins"


def test_a_dry_run_asks_nothing_and_writes_nothing(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    words = typed(suspect.url, ledger, tmp_path / "out", "--dry-run")
    words[words.index("answers")] = "auto"
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    for ask in ("logprobs", "parting", "answers"):
        assert f"--ask {ask}:" in result.stdout
    assert "40 pairs: of 40 eligible" in result.stdout and "to 10^3, if 95% of them" in result.stdout
    assert not suspect.received and not (tmp_path / "out").exists()
    told = json.loads(run(*words, "--json").stdout)
    assert told["pairs"]["used"] == 40 and [cost["requests"] for cost in told["costs"]][-1] == 40


def test_a_dry_run_of_a_test_under_way_knows_what_is_answered(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    words = typed(suspect.url, ledger, tmp_path / "out")
    assert run(*words, "--max-requests", "6").exit_code == 0
    before = len(suspect.received)
    told = json.loads(run(*words, "--dry-run", "--json").stdout)
    (cost,) = told["costs"]
    assert (cost["ask"], cost["cached"], cost["requests"]) == ("answers", 6, 34)
    assert cost["plan_sha256"] == json.loads((tmp_path / "out" / "report.json").read_bytes())["plan"]["sha256"]
    assert len(suspect.received) == before


def test_a_killed_test_goes_on_and_asks_nothing_twice(serve: Serve, ledger: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def hold(body: dict[str, Any]) -> Fault | None:
        seen.append(body)
        return Fault("held") if len(seen) == 9 else None

    server = serve(faults=hold)
    words = typed(server.url, ledger, tmp_path / "out", "--target", "100", "--concurrency", "1")
    child = [sys.executable, "-m", "detect.cli", *map(str, words)]
    with subprocess.Popen(child, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        server.wait_for(9)
        process.send_signal(signal.SIGKILL)
    server.release()
    assert not (tmp_path / "out" / "report.json").exists()
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    # Each of eight prompts stands in five pairs; what was under way when it was killed is asked again.
    assert sum(about_pairs(server).values()) == 41
    assert json.loads((tmp_path / "out" / "report.json").read_bytes())["pairs"]["asked"] == 40


def test_without_quotes_no_file_of_the_report_holds_an_answer(
    suspect: Server, ledger: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert run(*typed(suspect.url, ledger, output, "--no-quotes")).exit_code == 0
    told = json.loads((output / "report.json").read_bytes())
    assert told["shown"] == [] and told["quotes"] is False
    texts = {answer.text for pair in pairs for answer in pair.answers}
    for name in ("report.json", "report.html", "plan.json", EVIDENCE_FILE):
        data = (output / name).read_bytes()
        assert not any(text.encode() in data for text in texts)
    assert run("report", "verify", output / "report.json").exit_code == 0


def test_the_twin_key_stands_in_no_file(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    secret = bytes(range(32))
    result = run(*typed(suspect.url, ledger, tmp_path / "out"))
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes() and secret.hex().encode() not in path.read_bytes()
    assert secret.hex() not in result.output


def test_answers_with_terminal_escapes_are_shown_without_them(suspect: Server, tmp_path: Path) -> None:
    hostile = "\x1b]0;owned\x07\x1b[31mred \u202e right \ud800 half <script>alert(1)</script>"
    ledger = ledger_of(tmp_path, [twins(number, hostile, f"{number} owls {hostile}", hostile) for number in range(3)])
    result = run(*typed(suspect.url, ledger, tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    assert "\x1b]0" not in result.output
    assert b"<script>alert" not in (tmp_path / "out" / "report.html").read_bytes()
    assert run("report", "verify", tmp_path / "out" / "report.json").exit_code == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--level", "regenerated"], "none that is asked for can be used"),
        (["--tenant", "nobody"], "none that is asked for can be used"),
        (["--since", "yesterday"], "is no time"),
        (["--sample", "0"], "above 0"),
        (["--seed", "x"], "--seed has no effect"),
        (["--target", "-3"], "positive number"),
        (["--alpha", "2"], "alpha"),
        (["--reference", "nowhere"], "nowhere"),
        (["--dry-run", "--fail"], "--fail has no effect"),
        (["--dtype", "float32"], "--dtype has no effect"),
        (["--twin-key", "env:NO_SUCH_TWIN_KEY"], "NO_SUCH_TWIN_KEY"),
        (["--ledger", "nowhere.ledger"], "nowhere.ledger"),
        (["--model", " "], "give --model"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line_before_anything_is_asked(
    suspect: Server, ledger: Path, tmp_path: Path, more: list[object], said: str
) -> None:
    assert said in refused(*typed(suspect.url, ledger, tmp_path / "out", *more))
    assert not suspect.received and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://user:secret@host/v1", "holds a user"),
        ("http://127.0.0.1:9/v1", "cannot reach 127.0.0.1:9"),
        ("nowhere", "nowhere"),
    ],
)
def test_a_suspect_that_is_not_there_is_said_in_one_line(ledger: Path, tmp_path: Path, url: str, said: str) -> None:
    words = typed(url, ledger, tmp_path / "out")
    if not url.startswith("http"):
        for name in ("--model", "--ask"):
            del words[words.index(name) : words.index(name) + 2]
    line = refused(*words)
    assert said in line and "secret@" not in line


@pytest.mark.parametrize("name", ["--max-requests", "--samples", "--concurrency", "--model", "--api-key"])
def test_options_for_endpoints_are_refused_for_folders(ledger: Path, tmp_path: Path, name: str) -> None:
    key = f"file:{ledger.parent / 'twins.key'}"
    words = ["trace", "twins", tmp_path, "--ledger", ledger, "--twin-key", key, "-o", tmp_path / "out"]
    assert name in refused(*words, name, {"--model": "x", "--api-key": "env:X"}.get(name, "1"))


def test_a_ledger_of_something_else_is_named(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ledger"
    other.write_bytes(b"SQLite format 3\0" + bytes(100))
    assert "other.ledger" in refused(*typed(suspect.url, ledger, tmp_path / "out", "--ledger", other))


def test_the_report_does_not_go_where_the_ledger_of_a_trace_lies(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    """Another kind of report is never replaced."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "report.json").write_bytes(b'{"format": "dyetrace-trace"}')
    assert "holds the report of a trace" in refused(*typed(suspect.url, ledger, output))
    assert not suspect.received


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
def test_an_adapter_is_read_over_the_base_that_is_named(tiny_model: Any, ledger: Path, tmp_path: Path) -> None:
    import peft

    network, tokenizer = tiny_model
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    network.save_pretrained(base)
    tokenizer.save_pretrained(base)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(copy.deepcopy(network), settings).save_pretrained(adapter)
    words = ["trace", "twins", adapter, "--ledger", ledger, "--twin-key", f"file:{tmp_path / 'twins.key'}"]
    words += ["-o", tmp_path / "out", "--pairs", 4, "--dtype", "float32", "--no-pdf"]
    line = refused(*words)
    assert "merge the adapter" in line and "--base" in line
    result = run(*words, "--base", base)
    assert result.exit_code == 0, result.stderr
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (record["suspect"]["base"], record["suspect"]["form"]) == (str(base), "LORA adapter")
    assert "--base has no effect" in refused(*words[:2], base, *words[3:], "--base", base)
