"""`dyetrace generate`: checked before it loads anything, and whole in the end whatever comes between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from detect.cli import working
from detect.cli.main import main
from detect.cli.statuses import BAD_INPUT, INTERNAL, INTERRUPTED, MACHINE, Status
from tests import stopping
from tests.detect.marking_job import MarkingJob, marking_job
from tests.tiny_models import CAUSAL, made, write_gguf
from watermark.files.partial import partial_paths
from watermark.keys import TenantKey, load_master, write_key_file
from watermark.spec import load_spec, write_spec


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def answers(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MarkingJob:
    return marking_job(tmp_path_factory.mktemp("marking"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a model fails the test."""

    def load(*_: object) -> None:
        raise AssertionError("the model was loaded before the arguments were checked")

    monkeypatch.setattr("watermark.models.folder.load_model", load)


class Stopped(BaseException):
    """Ends a run at a chosen moment, as a fault of a package would."""


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Lets a run die when it has written so many batches and begun to write the next."""
    from watermark.files.partial import PartialFile

    append = PartialFile.append

    def stopping(count: int) -> None:
        def dying(self: PartialFile, group: bytes) -> None:
            if self.groups == count:
                os.write(self._file, group[: len(group) // 2])
                raise Stopped
            append(self, group)

        monkeypatch.setattr(PartialFile, "append", dying)

    yield stopping


def test_answers_become_the_output_when_all_are_there(job: MarkingJob, tmp_path: Path) -> None:
    done = run(*job.generate("-o", tmp_path / "a.jsonl"))
    assert done.exit_code == 0, done.output
    found = answers(tmp_path / "a.jsonl")
    assert [answer["id"] for answer in found] == [str(number) for number in range(7)]
    assert [answer["prompt"] for answer in found] == job.prompts.read_text().splitlines()
    assert os.listdir(tmp_path) == ["a.jsonl"]


@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("more", [(), ("--seed", "5")])
def test_a_run_that_died_goes_on_and_gives_what_an_unbroken_one_gives(
    job: MarkingJob, tmp_path: Path, stop_after: Any, batches: int, more: tuple[str, ...], monkeypatch: Any
) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    monkeypatch.setattr("secrets.token_hex", lambda count: "5a" * count)  # the same draws for both
    assert run(*job.generate("-o", whole, *more)).exit_code == 0
    with monkeypatch.context():
        stop_after(batches)
        assert run(*job.generate("-o", broken, *more)).exit_code == INTERNAL.number
    kept = partial_paths(broken)[0].read_bytes()
    assert not broken.exists() and kept
    monkeypatch.undo()
    done = run(*job.generate("-o", broken, *more))
    assert done.exit_code == 0, done.output
    assert broken.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["broken.jsonl", "whole.jsonl"]


def test_sub_keys_are_drawn_anew_for_each_output_even_under_one_seed(job: MarkingJob, tmp_path: Path) -> None:
    drawn = set()
    for number in range(6):
        path = tmp_path / f"{number}.jsonl"
        assert run(*job.generate("-o", path, "--seed", "1", "--max-new-tokens", "1")).exit_code == 0
        drawn.add(tuple(answer["subkey"] for answer in answers(path)))
    assert len(drawn) > 1  # all six alike: 1 in 4^35


def test_sub_keys_do_not_depend_on_what_prompts_and_answers_say(
    job: MarkingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "5a" * count)
    other = tmp_path / "other.txt"
    other.write_text("".join(f"{100 + number}\n" for number in range(7)))
    for path, more in ((tmp_path / "a", ()), (tmp_path / "b", ("--prompts", str(other), "--temperature", "0.5"))):
        assert run(*job.generate("-o", path, *more)).exit_code == 0
    a, b = (answers(tmp_path / name) for name in "ab")
    assert [x["subkey"] for x in a] == [x["subkey"] for x in b]
    assert [x["token_ids"] for x in a] != [x["token_ids"] for x in b]


def test_a_seed_repeats_the_unmarked_randomness(job: MarkingJob, tmp_path: Path) -> None:
    plain = [a for a in job.generate() if a not in ("--spec", str(job.spec), "--key", job.key)]
    done = [run(*plain, "--seed", seed) for seed in ("1", "1", "2")]
    assert [result.exception for result in done] == [None] * 3
    outputs = [result.stdout for result in done]
    assert outputs[0] == outputs[1] != outputs[2]
    texts = [json.loads(line)["token_ids"] for line in outputs[0].splitlines()]
    assert len({tuple(ids) for ids in texts}) == 7  # batches do not share one seed


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--seed", "2"), "seed"),
        (("--limit", "6"), "prompts"),
        (("--temperature", "0.5"), "temperature"),
        (("--placebo",), "placebo, spec"),
        (("--batch", "3"), "batch"),
        (("--raw",), "raw"),
        (("--dtype", "bfloat16"), "dtype"),
    ],
)
def test_other_settings_are_refused_in_one_line_that_names_the_partial_file(
    job: MarkingJob, tmp_path: Path, more: tuple[str, ...], named: str, request: pytest.FixtureRequest
) -> None:
    output = tmp_path / "a.jsonl"
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr("watermark.files.partial.PartialFile.finish", _stop)
        assert run(*job.generate("-o", output)).exit_code == INTERNAL.number
    before = [path.read_bytes() for path in partial_paths(output)]
    request.getfixturevalue("no_model")
    refused = run(*job.generate("-o", output, *more))
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert f"{output}.partial holds the beginning" in refused.stderr and f"({named} differ)" in refused.stderr
    assert [path.read_bytes() for path in partial_paths(output)] == before


def _stop(*_: object) -> None:
    raise Stopped


def stopped(job: MarkingJob, output: Path, answers: int) -> subprocess.Popen[str]:
    """A run that has written so many answers in this process, and stands still."""
    words = job.generate("-o", output, "--max-new-tokens", "20", "--batch", "1")
    command = stopping.command(partial_paths(output)[0].name, answers, *words)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=stopping.ROOT)
    stopping.wait_until_stopped(process)
    return process


@pytest.fixture
def long_job(tmp_path: Path) -> Iterator[MarkingJob]:
    job = marking_job(tmp_path)
    job.prompts.write_text("".join(f"{number} {number + 1} {number + 2}\n" for number in range(3, 43)))
    yield job


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_after_kill_9_every_prompt_is_answered_exactly_once(long_job: MarkingJob) -> None:
    output = long_job.folder / "a.jsonl"
    for number in (1, 5):
        process = stopped(long_job, output, number)
        process.kill()
        process.communicate()
        assert not output.exists()
    done = run(*long_job.generate("-o", output, "--max-new-tokens", "20", "--batch", "1"))
    assert done.exit_code == 0, done.output
    found = answers(output)
    assert [answer["prompt"] for answer in found] == long_job.prompts.read_text().splitlines()
    assert not any(path.exists() for path in partial_paths(output))


def test_an_interrupt_says_what_is_kept_and_two_at_once_do_not_mix(long_job: MarkingJob) -> None:
    output = long_job.folder / "a.jsonl"
    process = stopped(long_job, output, 2)  # it holds the lock
    second = run(*long_job.generate("-o", output, "--max-new-tokens", "20", "--batch", "1"))
    assert second.exit_code == MACHINE.number and f"another dyetrace is writing {output}.partial" in second.stderr
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED.number
    there = lines(partial_paths(output)[0])
    assert said.splitlines()[-1] == (
        f"dyetrace: interrupted; {there} of 40 answers are kept in {output}.partial, and the same command goes on from "
        "there"
    )


CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "limit of -1": (("--limit", "-1"), "--limit must be 1 or more (got -1)"),
    "limit of 0": (("--limit", "0"), "--limit must be 1 or more (got 0)"),
    "batch of 0": (("--batch", "0"), "must be at least 1"),
    "batch beyond all": (("--batch", str(10**30)), "2147483647 at most"),
    "samples beyond all": (("--samples", str(10**30)), "2147483647 at most"),
    "seed beyond 64 bits": (("--seed", str(2**64)), "seed must lie in 0 .. 2^64 - 1"),
    "seed below 0": (("--seed", "-1"), "seed must lie in"),
    "cold": (("--temperature", "1e-300"), "temperature must lie in"),
    "hot": (("--temperature", "inf"), "temperature must lie in"),
    "not a temperature": (("--temperature", "nan"), "temperature must be above 0"),
    "fresh share": (("--fresh-share", "1"), "fresh_share must lie in [0, 1)"),
    "long answer": (("--max-new-tokens", "5000"), "prompt 1 has 6 tokens, which with 5,000 of an answer is more"),
    "an account without accounts": (("--tenant", "acme"), "the spec has no "),
    "too many samples": (("--samples", "5"), "the spec has 4 sub-keys"),
    "force without a file": (("--force",), "--force goes with -o FILE"),
    "missing folder": (("-o", "/nowhere/at/all"), "folder /nowhere/at does not exist"),
    "a device": (("-o", "/dev/null"), "is not a plain file"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_answered_is_refused_before_a_model_is_loaded(
    case: str, job: MarkingJob, no_model: None
) -> None:
    more, message = CASES[case]
    refused = run(*job.generate(*more))
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert message in refused.stderr


PROMPTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"\n\n", "holds no prompt"),
    "binary": (bytes(range(256)), "convert it first"),
    "deep": (b'{"prompt": ' + b"[" * 10**5, "nested too deeply"),
    "cut": (b'[{"prompt": "a"},\n{"prompt": "', "element 2"),
    "one bracket a line": (b'[\n"a"\n', "element"),
    "deep elsewhere": (b'{"x": ' + b"[" * 10**5 + b"]" * 10**5 + b', "prompt": "a"}', "nested too deeply"),
    "no prompt": (b'{"text": "a"}', "its fields don't say which of them it is ('text')"),
    "empty": (b'{"prompt": "  "}', "line 1 has an empty prompt"),
    "very long": (b"17 " * 10**6, "prompt 1 has 1,000,000 tokens"),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_prompts_that_are_none_are_refused_before_a_model_is_loaded(
    case: str, job: MarkingJob, tmp_path: Path, no_model: None
) -> None:
    data, message = PROMPTS[case]
    (tmp_path / "prompts").write_bytes(data)
    refused = run(*job.generate("--prompts", tmp_path / "prompts"))
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert message in refused.stderr


@pytest.mark.parametrize("odd", [b"\x01", b"\x1b[2J", "\u202e 14".encode()])
def test_odd_characters_in_prompts_are_answered(job: MarkingJob, tmp_path: Path, odd: bytes) -> None:
    (tmp_path / "prompts").write_bytes(odd + b" 12\n")
    done = run(*job.generate("--prompts", tmp_path / "prompts"))
    assert done.exit_code == 0 and json.loads(done.stdout)["prompt"].encode() == odd + b" 12"


def test_a_model_in_one_file_answers_and_goes_on(tmp_path: Path) -> None:
    file = write_gguf(made(CAUSAL["llama"]), tmp_path / "m.gguf")
    (tmp_path / "p.txt").write_text("w5 w6\nw7 w8 w9\n")
    asked: list[str | Path] = ["generate", "--model", file, "--prompts", tmp_path / "p.txt", "--max-new-tokens", "3"]
    assert run(*asked, "-o", tmp_path / "a.jsonl").exit_code == 0
    assert len(answers(tmp_path / "a.jsonl")) == 2


def test_what_a_folder_asks_for_and_is_not_followed_is_named(job: MarkingJob, tmp_path: Path) -> None:
    shutil.copytree(job.model, tmp_path / "model")
    settings = tmp_path / "model" / "generation_config.json"
    asked = {"num_beams": 4, "repetition_penalty": 1.3, "do_sample": True, "temperature": 0.3, "token_type_ids": 1}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | asked))
    done = run(*job.generate("--model", tmp_path / "model", "-o", tmp_path / "a.jsonl"))
    assert done.exit_code == 0, done.output
    assert "asks for num_beams 4, repetition_penalty 1.3" in done.stderr and "not followed" in done.stderr
    assert {line["sampling"]["temperature"] for line in answers(tmp_path / "a.jsonl")} == {1.0}


def test_an_end_token_that_is_no_id_is_one_line(job: MarkingJob, tmp_path: Path) -> None:
    shutil.copytree(job.model, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": ["</s>"]}))
    done = run(*job.generate("--model", tmp_path / "model", "--limit", "1", "-o", tmp_path / "a.jsonl"))
    assert done.exit_code == BAD_INPUT.number and "mend eos_token_id" in done.output.splitlines()[-1], done.output
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize("template", ["{{ raise_exception('no\nusers') }}", "{% for", "8"])
def test_a_template_that_takes_no_prompt_ends_the_run_in_one_line(
    job: MarkingJob, tmp_path: Path, template: str
) -> None:
    shutil.copytree(job.model, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    arguments = job.generate("--model", tmp_path / "model", "--limit", "1")
    done = run(*arguments, "-o", tmp_path / "a.jsonl")
    assert done.exit_code == BAD_INPUT.number and done.output.rstrip().splitlines()[-1].startswith(
        "dyetrace: prompt 1:"
    )
    assert not (tmp_path / "a.jsonl").exists()
    assert run(*arguments, "--raw").exit_code == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tenant", "acme"), "tenant 'acme' was given, but nothing is marked without a spec"),
        (("--fresh-share", "0.1"), "fresh_share was given, but nothing is marked without a spec"),
        (("--key", "env:X"), "--key needs --spec"),
        (("--placebo",), "give --spec and --key"),
    ],
)
def test_options_of_a_mark_need_a_spec(job: MarkingJob, more: tuple[str, ...], message: str, no_model: None) -> None:
    refused = run("generate", "--model", job.model, "--prompts", job.prompts, *more)
    assert refused.exit_code == 2 and message in refused.stderr


def test_an_accounts_own_key_marks_nothing_and_says_so(tmp_path: Path, no_model: None) -> None:
    job = marking_job(tmp_path)
    write_key_file(tmp_path / "acme.key", TenantKey.from_master(load_master(job.key), "acme"))
    for share, more, message in (
        (0.5, ("--tenant", "acme"), "needs the master key"),
        (1.0, ("--tenant", "acme"), "the spec has no "),
        (1.0, (), ""),
    ):
        write_spec(job.spec, msgspec.structs.replace(load_spec(job.spec), global_share=share))
        refused = run(*job.generate("--key", f"file:{tmp_path / 'acme.key'}", *more))
        assert refused.exit_code == 2 and refused.stderr.count("\n") == 1 and message in refused.stderr


def test_a_wrong_tokenizer_is_found_before_the_model_is_loaded(tmp_path: Path, no_model: None) -> None:
    job = marking_job(tmp_path)
    job.spec.write_text(job.spec.read_text().replace('"vocabulary_size": 300', '"vocabulary_size": 299'))
    refused = run(*job.generate())
    assert refused.exit_code == 2 and "wrong tokenizer" in refused.stderr


def test_a_line_comes_now_and_then_without_a_terminal_and_none_with_quiet(
    job: MarkingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "SECONDS_BETWEEN_LINES", 0.001)
    said = run(*job.generate()).stderr
    assert "loading the model: still at it after 0:0" in said and "answering: 0 of 7 answers after 0:0" in said
    assert run(*job.generate("--quiet")).stderr == ""


@pytest.mark.parametrize(
    ("stream", "message", "status"),
    [
        (">/dev/full", "cannot write standard output: No space left on device", MACHINE),
        (">&-", "standard output is closed", MACHINE),
        ("<&- --prompts -", "standard input is closed", BAD_INPUT),
    ],
)
def test_streams_that_do_not_work_are_one_line(job: MarkingJob, stream: str, message: str, status: Status) -> None:
    redirect, _, more = stream.partition(" ")
    command = ["bash", "-c", f'exec "$@" {redirect}', "-", sys.executable, "-m", "detect.cli"]
    done = subprocess.run(
        [*command, *job.generate("--quiet", *more.split())], capture_output=True, text=True, check=False
    )
    assert done.returncode == status.number and done.stderr.count("\n") == 1 and message in done.stderr


def test_a_reader_that_leaves_is_one_line(job: MarkingJob) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "detect.cli", *job.generate("--quiet")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        said = stderr.read()
    assert process.wait(120) == MACHINE.number
    assert said == "dyetrace: standard output was closed before everything was written\n"
