"""kill -9, Ctrl-C and SIGTERM at random moments of every long command: what is lost, and who is left running.

    python -m benchmarks.interrupts --tries 20

Each command runs for real, on tiny models and a local endpoint, in a session of its own. A signal comes at a moment
drawn evenly from the time that the command takes undisturbed. Then nobody of the session may be left, inputs and other
people's files must be as they were, outputs whole or absent, and what was said one line; the command is run again and
must end as an undisturbed run does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from benchmarks.common import Report, json_option, quick_option

KINDS = {"kill": signal.SIGKILL, "ctrl-c": signal.SIGINT, "sigterm": signal.SIGTERM}
FOREIGN = ("notes.txt", ".hidden", ".git/config", "project/main.py", ".dyetrace-mine/secret", "report.docx")
TORCH = "torchinductor_"  # begins the name of a cache of torch's own, which an undisturbed run leaves as well
LEFT_SECONDS = 20.0  # in which all processes must be gone
END_SECONDS = 90.0  # in which a command must end after Ctrl-C or SIGTERM
EARLY = "early: the interpreter itself was still starting, and what it says of Ctrl-C then is its own"
_FIRST = ("detect/__init__.py", "detect/cli/start.py", "detect/interruption.py", "watermark/__init__.py",
          "watermark/interruption.py")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A long command.

    Attributes
    ----------
    arguments
        Made of the folder that its output goes to.
    result
        What an undisturbed run leaves, made of that folder: equal for equal results.
    again
        Statuses with which the command may end when its output is there and whole already.
    clean
        Whether its output folder must be empty at the start.
    """

    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    again: tuple[int, ...] = (0,)
    clean: bool = False


@dataclass
class Seen:
    """What came of the tries of one command and one signal."""

    tries: int = 0
    finished: int = 0
    early: int = 0
    again: int = 0
    longest: float = 0.0
    faults: list[str] = field(default_factory=list)


class World:
    """Keys, specs, models, texts, an endpoint that marks and one that is a suspect; commands read nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs = folder / "inputs"
        self.inputs.mkdir()
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        self.environment["DYETRACE_CACHE"] = str(folder / "cache")
        self._models()
        self._answers()
        self._corpus()

    def _models(self) -> None:
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        from watermark.models.demo import demo_model_dir

        real = demo_model_dir()
        self.tokenizer = AutoTokenizer.from_pretrained(real)
        fields: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
        fields |= {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.5}
        config = LlamaConfig(
            vocab_size=len(self.tokenizer), bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id, **fields,
        )  # fmt: skip
        for seed, place in enumerate((self.inputs / "model", self.inputs / "base")):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config).eval()
            model.save_pretrained(place)
            self.tokenizer.save_pretrained(place)
            if seed == 0:
                self.model = model
        shutil.copytree(self.inputs / "model", self.folder / "cache" / real.name)

    def _answers(self) -> None:
        from tests.detect.marking_server import MASTER, spec_of
        from watermark.generate import Sampling, encode_answers, generate_answers
        from watermark.keys import KeyRing, write_key_file
        from watermark.spec import write_spec

        write_key_file(self.inputs / "owner.key", MASTER)
        self.spec = spec_of(self.tokenizer.backend_tokenizer, global_share=1.0)
        write_spec(self.inputs / "spec.json", self.spec)
        prompts = [f"Tell me about lighthouse number {number}." for number in range(10)]
        (self.inputs / "prompts.txt").write_text("\n".join(prompts) + "\n")
        sampling = Sampling(max_new_tokens=120, seed=1)
        answers = list(
            generate_answers(self.model, self.tokenizer, prompts, sampling, self.spec, KeyRing.from_master(MASTER))
        )
        (self.inputs / "answers.jsonl").write_bytes(encode_answers(answers))

    def _corpus(self) -> None:
        rows = [json.loads(line) for line in (self.inputs / "answers.jsonl").read_text().splitlines()]
        (self.inputs / "corpus").mkdir()
        for number in range(6):
            lines = [{"id": f"{number}-{place}", "text": row["text"]} for place, row in enumerate(rows)]
            path = self.inputs / "corpus" / f"{number}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Run the two endpoints."""
        from benchmarks.distillation.server import Server
        from tests.detect.marking_server import MarkingServer

        with (
            MarkingServer(self.model, self.tokenizer, self.spec) as marking,
            Server(self.model, self.tokenizer, largest_batch=4) as suspect,
        ):
            self.marking, self.suspect = marking, suspect
            yield

    def keys(self) -> list[str]:
        """The owner's spec and key."""
        return ["--spec", str(self.inputs / "spec.json"), "--key", f"file:{self.inputs / 'owner.key'}"]

    def run(self, *arguments: str) -> None:
        """Run a command that the cases start from."""
        subprocess.run(_command(arguments), check=True, capture_output=True, env=self.environment)

    def prepare(self) -> None:
        """Make the reports and plans that some of the commands read."""
        self.run("trace", "plan", *self._plan(self.inputs / "plan.json"))
        self.run("scan", *self._scan(self.inputs / "scanned"), "--workers", "1")

    def _scan(self, output: Path) -> list[str]:
        return [
            str(self.inputs / "corpus"), *self.keys(), "--tokenizer", str(self.inputs / "model"), "-o", str(output),
            "--null-corpus", "none", "--decoys", "20",
        ]  # fmt: skip

    def _plan(self, output: Path) -> list[str]:
        return [
            self.suspect.url, "--model", "student", *self.keys(), "--prompts", str(self.inputs / "prompts.txt"),
            "--samples", "2", "--max-tokens", "60", "-o", str(output),
        ]  # fmt: skip

    def cases(self) -> dict[str, Case]:
        """All long commands by name."""
        inputs, keys = self.inputs, self.keys()
        model = ["--tokenizer", str(inputs / "model")]
        marked = ["--prompts", str(inputs / "prompts.txt"), "--model", str(inputs / "model"), "--batch", "2"]
        simulated = ["--spec", str(inputs / "spec.json"), "--contexts", "1000"]
        weights = [str(inputs / "model"), "--reference", str(inputs / "base"), "--read", str(inputs / "answers.jsonl")]
        weights += [*keys, *model, "--taken", "all", "--dtype", "float32", "--decoys", "20", "--contexts", "300"]
        asked = [self.marking.url, *keys, "--count", "6", "--max-tokens", "100", "--no-special"]
        traced = [str(inputs / "plan.json"), *keys, *model]
        scanned = str(inputs / "scanned" / "report.json")
        again = ["--key", f"file:{inputs / 'owner.key'}", *model]
        return {
            "generate": Case(
                lambda out: ["generate", *marked, *keys, "--max-new-tokens", "60", "-o", str(out / "a.jsonl")],
                lambda out: [json.loads(line)["prompt"] for line in (out / "a.jsonl").read_text().splitlines()],
                (2,),
            ),
            "detect": Case(
                lambda out: ["detect", str(inputs / "answers.jsonl"), *keys, *model, "-o", str(out)],
                lambda out: _report(out, "documents"),
            ),
            "scan": Case(
                lambda out: ["scan", *self._scan(out), "--workers", "2"],
                lambda out: (_report(out, "hypotheses", "documents"), _sha256(out / "documents.parquet")),
            ),
            "plan": Case(
                lambda out: ["plan", *simulated, "--html", str(out / "plan.html")],
                lambda out: _undated(out / "plan.html"),
                (2,),
            ),
            "trace weights": Case(
                lambda out: ["trace", "weights", *weights, "-o", str(out)],
                lambda out: _report(out, "hypotheses", "contexts"),
            ),
            "trace plan": Case(
                lambda out: ["trace", "plan", *self._plan(out / "plan.json")],
                lambda out: json.loads((out / "plan.json").read_text())["prompts"],
                (2,),
            ),
            "trace api": Case(
                lambda out: ["trace", "api", *traced, "-o", str(out), "--concurrency", "2"],
                lambda out: _report(out, "queries")["queries"]["answers"],
            ),
            "serve-check": Case(lambda out: ["serve-check", *asked], lambda out: None),
            "demo": Case(lambda out: ["demo", "-o", str(out)], _of_demo, (2,), clean=True),
            "recompute": Case(lambda out: ["recompute", scanned, *again], lambda out: None),
            "report render": Case(
                lambda out: ["report", "render", scanned, "-o", str(out), "--format", "html", "--format", "pdf"],
                lambda out: _sha256(out / "report.html"),
                (0, 2),
            ),
        }


def _command(arguments: tuple[str, ...] | list[str]) -> list[str]:
    return [str(Path(sys.executable).with_name("dyetrace")), *arguments]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _report(folder: Path, *names: str) -> dict[str, Any]:
    record = json.loads((folder / "report.json").read_text())
    return {name: record[name] for name in names}


def _undated(page: Path) -> str:
    """A page without the times that are in it."""
    return re.sub(r"\d{4}-\d{2}-\d{2}([T ][\d:+.Z]+)?", "", page.read_text())


def _of_demo(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _plant(folder: Path) -> dict[Path, bytes]:
    made = {}
    for name in FOREIGN:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{path} is somebody's own".encode())
        made[path] = path.read_bytes()
    return made


def _all_files(folder: Path) -> dict[Path, str]:
    return {path: _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


class Trial:
    """One run of a command that a signal comes into, and all that is looked at afterwards."""

    def __init__(self, world: World, case: Case, place: Path) -> None:
        self._world, self._case = world, case
        self.output, self._temporary, around = place / "out", place / "tmp", place
        for folder in (self.output, self._temporary):
            folder.mkdir(parents=True)
        self._planted = _plant(around / "around") if case.clean else _plant(self.output)
        self._before = _all_files(world.inputs)

    def start(self) -> subprocess.Popen[str]:
        """Start the command in a session of its own."""
        return subprocess.Popen(
            _command(self._case.arguments(self.output)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True, errors="replace",
            env={**self._world.environment, "TMPDIR": str(self._temporary)},
            preexec_fn=_as_from_a_terminal,
        )  # fmt: skip

    def whole(self) -> tuple[float, Any]:
        """Run it undisturbed; return the seconds that it took and its result."""
        started = time.monotonic()
        process = self.start()
        _, said = process.communicate()
        if process.returncode:
            raise RuntimeError(f"status {process.returncode}: {said}")
        return time.monotonic() - started, self._case.result(self.output)

    def disturb(self, number: signal.Signals, seconds: float, seen: Seen, expected: Any, again: bool) -> None:
        """Send the signal at its moment; note in ``seen`` what was not as it should be."""
        seen.tries += 1
        process = self.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        send = os.killpg if number == signal.SIGINT else os.kill  # a terminal sends it to all, others to one
        with contextlib.suppress(ProcessLookupError):
            send(process.pid, number)
        sent = time.monotonic()
        try:
            _, said = process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, said = process.communicate()
            seen.faults.append(f"{seconds:.2f} s: did not end: {said[-300:]!r}")
            return
        seen.longest = max(seen.longest, time.monotonic() - sent)
        faults = [*self._ended(process.returncode, said, number, seen), *self._looked(process.pid, number)]
        if again and not faults:
            seen.again += 1
            faults += self._again(expected)
        seen.faults += [f"{seconds:.2f} s: {fault}" for fault in faults]

    def _ended(self, status: int, said: str, number: signal.Signals, seen: Seen) -> Iterator[str]:
        if status == 0:
            seen.finished += 1
            return
        if number == signal.SIGKILL:
            return
        if _is_early(said):
            seen.early += 1
            return
        lines = [line for line in said.splitlines() if "dyetrace: " in line]
        if status != 128 + number:
            yield f"status {status}: {said[-600:]!r}"
        elif len(lines) != 1 or "Traceback" in said:
            yield f"not one line: {said[-600:]!r}"

    def _looked(self, session: int, number: signal.Signals) -> Iterator[str]:
        """Whoever is left, and whatever was lost or left half done."""
        until = time.monotonic() + LEFT_SECONDS
        while (left := _session(session)) and time.monotonic() < until:
            time.sleep(0.05)
        if left:
            yield f"left running: {left}"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)
        if _all_files(self._world.inputs) != self._before:
            yield "inputs were changed"
        lost = [str(path) for path, data in self._planted.items() if not path.is_file() or path.read_bytes() != data]
        if lost:
            yield f"somebody's own files were lost: {lost}"
        if number != signal.SIGKILL:
            if temporary := [path.name for path in self._temporary.iterdir() if not path.name.startswith(TORCH)]:
                yield f"left in the temporary folder: {temporary}"
            if scratch := self._scratch():
                yield f"left in the output folder: {scratch}"
        yield from self._half_done()

    def _scratch(self) -> list[str]:
        """Names of unfinished files; a work folder that the same command goes on from is none."""
        return [
            str(path.relative_to(self.output))
            for path in self.output.rglob(".dyetrace-*")
            if path.name not in (".dyetrace-scan", ".dyetrace-trace", ".dyetrace-mine")
        ]

    def _half_done(self) -> Iterator[str]:
        for path in self.output.rglob("*.json"):
            if not {".dyetrace-scan", ".dyetrace-trace"} & set(path.parts):
                try:
                    json.loads(path.read_bytes())
                except ValueError:
                    yield f"half written: {path.name}"
        report = self.output / "report.json"
        if report.exists() and json.loads(report.read_bytes())["format"] != "dyetrace-detection":
            from detect.report.verification import verify_report

            if failed := verify_report(report).failed:
                yield f"report.json does not hold: {failed[0].name}: {failed[0].line}"

    def _again(self, expected: Any) -> Iterator[str]:
        """The same command once more, to its end."""
        process = self.start()
        _, said = process.communicate()
        if process.returncode not in (0, *self._case.again):
            yield f"run again: status {process.returncode}: {said[-600:]!r}"
            return
        try:
            found = self._case.result(self.output)
        except (OSError, ValueError) as error:
            yield f"run again: no result ({error}): {said[-600:]!r}"
            return
        if found != expected:
            yield "run again: another result than an undisturbed run's"
        if scratch := self._scratch():
            yield f"run again: left in the output folder: {scratch}"
        lost = [str(path) for path, data in self._planted.items() if not path.is_file() or path.read_bytes() != data]
        if lost:
            yield f"run again: somebody's own files were lost: {lost}"


def _is_early(said: str) -> bool:
    """Whether the signal came before dyetrace's first lines had run: nothing was said, or a traceback of theirs."""
    files = re.findall(r'File "([^"]*)"', said)
    own = [file for file in files if re.search(r"/(detect|watermark)/", file)]
    return "dyetrace: " not in said and all(file.endswith(_FIRST) for file in own)


def _as_from_a_terminal() -> None:
    """Shells have what they run in the background ignore Ctrl-C, and so would all that a benchmark there starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _session(number: int) -> list[str]:
    """Command lines of the processes of a session that are left, zombies apart."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == number and state != "Z":
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{entry.name}: {words[:150]}")
    return found


@click.command()
@click.option("--tries", type=click.IntRange(1), default=20, help="Kills and Ctrl-Cs of each command.")
@click.option("--terminations", type=click.IntRange(0), default=5, help="SIGTERMs of each command.")
@click.option("--again", type=click.IntRange(1), default=3, help="Run every so manieth command again, to its end.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only this signal.")
@click.option("--only", multiple=True, help="Only this command; may be repeated.")
@click.option("--seed", type=int, default=0, help="Of the moments.")
@quick_option
@json_option
def main(
    tries: int,
    terminations: int,
    again: int,
    kinds: tuple[str, ...],
    only: tuple[str, ...],
    seed: int,
    quick: bool,
    json_path: Path | None,
) -> None:
    """Disturb every long command and say what came of it."""
    if quick:
        tries, terminations, only = 1, 1, only or ("trace plan",)
    moments = random.Random(seed)
    report = Report("Signals at random moments", {"tries": tries, "terminations": terminations, "seed": seed})
    report.notes.append(EARLY)
    with tempfile.TemporaryDirectory(prefix="dyetrace-interrupts-") as name:
        world = World(Path(name))
        with world.serving():
            world.prepare()
            for command, case in world.cases().items():
                if only and command not in only:
                    continue
                place = Path(name) / "trials" / command.replace(" ", "-")
                Trial(world, case, place / "first").whole()  # machine code is kept on the disk from then on
                seconds, expected = Trial(world, case, place / "whole").whole()
                for kind, number in KINDS.items():
                    if kinds and kind not in kinds:
                        continue
                    seen = Seen()
                    for turn in range(terminations if kind == "sigterm" else tries):
                        trial = Trial(world, case, place / f"{kind}-{turn}")
                        trial.disturb(number, moments.uniform(0, seconds), seen, expected, turn % again == 0)
                        if not seen.faults:
                            shutil.rmtree(place / f"{kind}-{turn}")
                    report.add(
                        command=command, signal=kind, seconds=seconds, tries=seen.tries,
                        finished=seen.finished, early=seen.early, again=seen.again, longest=seen.longest,
                        faults=len(seen.faults),
                    )  # fmt: skip
                    report.save(json_path)
                    for fault in seen.faults:
                        click.echo(f"{command}, {kind}: {fault}")
    report.finish(json_path)


if __name__ == "__main__":
    main()
