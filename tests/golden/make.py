"""Makes the golden reports in this folder anew, which every Python and every numpy must give again.

``python -m tests.golden.make`` writes over them. They hold nothing secret: the key is one that everybody knows. The
tokenizer has a token for each character, so that it is small and needs no model.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECRET = b"a key that everybody knows......"
KEPT = {
    "detection": ("report.json",),
    "scan": ("report.json", "documents.parquet", "hits.jsonl", "skipped.jsonl"),
    "trace": ("report.json", "evidence.npz"),
    "power-plan": ("report.json",),
    "server-check": ("report.json",),
    "race": ("report.json", "race.npz"),
    "twins": ("report.json", "twins.npz", "plan.json", "ledger.sqlite", "twins.ledger", "twins.ledger.keys"),
}
KEY = "env:DYETRACE_GOLDEN_KEY"
OPTIONS = ("--spec", "spec.json", "--key", KEY, "--tenant", "acme", "--tenant", "zenith", "--decoys", "20")
COMMANDS: dict[str, tuple[str, ...]] = {
    "detection": ("detect", "documents.jsonl", *OPTIONS, "--tokenizer", "tokenizer.json"),
    "scan": (
        "scan", "documents.jsonl", *OPTIONS, "--tokenizer", "tokenizer.json", "--reference", "answers.jsonl",
        "--workers", "1", "--no-pdf",
    ),
    "trace": (
        "trace", "weights", "model", *OPTIONS, "--tokenizer", "model", "--read", "answers.jsonl", "--taken", "all",
        "--dtype", "float32", "--contexts", "200", "--no-pdf",
    ),
}  # fmt: skip


def run(*words: str) -> str:
    """A command, which must succeed; its standard output."""
    from click.testing import CliRunner

    from detect.cli.main import main

    done = CliRunner().invoke(main, words)
    if done.exit_code:
        raise SystemExit(f"{' '.join(words)}: {done.output}")
    return done.stdout


def make() -> None:
    """Write inputs and reports into this folder."""
    from detect.text.natural_text import natural_documents
    from tests.innocents.world import network_of, tokenizer_of

    os.environ["DYETRACE_GOLDEN_KEY"] = SECRET.hex()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tokenizer: Any = tokenizer_of()
        network_of(tokenizer, seed=1).save_pretrained("model")
        tokenizer.save_pretrained("model")
        shutil.copy("model/tokenizer.json", "tokenizer.json")
        Path("prompts.txt").write_text("".join(f"Number {number}.\n" for number in range(6)))
        key = ("--key", KEY)
        run("spec", "spec.json", *key, "--model", "model", "--tenants")
        generate = (
            "generate",
            "--spec",
            "spec.json",
            *key,
            "--tenant",
            "acme",
            "--model",
            "model",
            "--dtype",
            "float32",
        )
        run(*generate, "--prompts", "prompts.txt", "--max-new-tokens", "200", "--seed", "1", "-o", "answers.jsonl")
        answers = [json.loads(line)["text"] for line in Path("answers.jsonl").read_text().splitlines()]
        natural = [text[:600] for _, text in natural_documents("prose", 6)]
        texts = [text for pair in zip(answers, natural, strict=True) for text in pair]
        lines = [json.dumps({"id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts)]
        Path("documents.jsonl").write_text("".join(lines))
        for name, words in COMMANDS.items():
            run(*words, "-o", name)
        make_plan_and_check()
        make_twins()
        make_race()
        for name in ("tokenizer.json", "spec.json", "documents.jsonl", "answers.jsonl"):
            shutil.copy(name, HERE / name)
        for name, files in KEPT.items():
            shutil.rmtree(HERE / name, ignore_errors=True)
            (HERE / name).mkdir()
            for file in files:
                if Path(name, file).exists():
                    shutil.copy(Path(name, file), HERE / name / file)


def make_plan_and_check() -> None:
    """A plan of power as it is printed, and the check of a server that was never asked: its answers are made here."""
    from detect.records.reading import write_record
    from detect.server.ask import Manner
    from detect.server.check import conclude
    from detect.server.evidence import make_keys
    from tests.detect.server.test_check import MASTER, marked, spec

    for name in ("power-plan", "server-check"):
        Path(name).mkdir()
    plan = run("plan", "--spec", "spec.json", "--entropy", "0.8", "--contexts", "2000", "--share", "0.2", "--json")
    Path("power-plan/report.json").write_text(plan)
    keys = make_keys(MASTER, spec(), "acme")
    manner = Manner("http://127.0.0.1:8000/v1", "a-model", tenant="acme")
    answers = marked(spec(), "acme", 6, 80)
    checked = conclude(spec(), keys, answers, [], [], 1e-6, manner, "chat", "2026-11-29T12:00:00+00:00")
    write_record(Path("server-check/report.json"), checked)


def make_twins() -> None:
    """A test by twins of a suspect that was never asked: its replies are made here, and the private ledger as well."""
    from tests.detect.report.twins.ledgers import report_of, write_ledger

    report_of(Path("twins"), write_ledger(Path("twins"), 80))


def make_race() -> None:
    """A race readout of a suspect that was never asked: places and replies are made here, under keys of three kinds."""
    from detect.records.made import Made
    from tests.detect.report.race.examples import both_race

    both_race(Path("race"), made=Made(code_sha256="ab" * 32))


if __name__ == "__main__":
    make()
