"""How `dyetrace detect` and `dyetrace scan` grow with the number of accounts: seconds, the ratio, sizes of the reports.

    python -m benchmarks.accounts                       1, 100, 1,000 and 10,000 accounts, 500 documents of 200 tokens

Each command runs in a process of its own, from start to report, on the same JSONL file of token ids drawn from a Zipf
law; half of the contexts are the accounts'. The ratio is taken within a round. A scan counts each tuple once over the
whole corpus and keeps the best account of a document; a detection tests every document by itself.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import msgspec
import numpy as np

from benchmarks.common import Report, json_option, quick_option
from watermark.keys import SecretKey, write_key_file
from watermark.spec import WatermarkSpec, write_spec

TOKENS = 200
VOCABULARY = 49_152


def write_documents(path: Path, documents: int) -> None:
    """JSONL with token ids."""
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        for number in range(documents):
            ids = ((rng.zipf(1.25, TOKENS) - 1) % VOCABULARY).tolist()
            file.write(msgspec.json.encode({"id": number, "token_ids": ids}) + b"\n")


def run(job: Path, command: str, more: list[str]) -> tuple[float, dict[str, int]]:
    """Seconds of one command, and the bytes of each file of its report."""
    with tempfile.TemporaryDirectory(dir=job) as output:
        words = [
            *(sys.executable, "-m", "detect.cli", command, str(job / "text.jsonl"), "--spec", str(job / "spec.json")),
            *("--key", f"file:{job / 'owner.key'}", "-o", output, *more),
        ]
        started = time.perf_counter()
        done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise click.ClickException(done.stderr)
        return seconds, {path.name: path.stat().st_size for path in Path(output).iterdir()}


@click.command()
@quick_option
@json_option
@click.option("--accounts", multiple=True, type=int, default=(1, 100, 1_000, 10_000), help="Numbers of accounts.")
@click.option("--documents", default=500, help="How many.")
@click.option("--rounds", default=3, help="Of which the median counts.")
def main(quick: bool, json_path: Path | None, accounts: tuple[int, ...], documents: int, rounds: int) -> None:
    """Measure both commands in turn."""
    from watermark.models.demo import demo_model_dir
    from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size

    if quick:
        accounts, documents, rounds = (120,), 5, 1
    folder = demo_model_dir()
    tokenizer = load_tokenizer(folder)
    key = SecretKey(bytes(range(32)))
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
        global_share=0.5,
    )
    report = Report(
        "Many accounts: detections beside scans",
        {"documents": documents, "tokens of each": TOKENS, "sub-keys": spec.subkeys, "decoys": 100},
    )
    with tempfile.TemporaryDirectory(prefix="dyetrace-accounts-") as name:
        job = Path(name)
        write_key_file(job / "owner.key", key)
        write_spec(job / "spec.json", spec)
        write_documents(job / "text.jsonl", documents)
        for count in accounts:
            (job / "accounts.txt").write_text("".join(f"account-{i}\n" for i in range(count)))
            more = ["--tenants-file", str(job / "accounts.txt")]
            times = []
            for _ in range(rounds):
                detection, files = run(job, "detect", [*more, "--tokenizer", str(folder)])
                scan, _ = run(job, "scan", [*more, "--null-corpus", "none", "--no-pdf"])
                times.append((detection, scan))
            detections, scans = np.array(times).T
            report.add(
                accounts=count,
                detect_s=float(np.median(detections)),
                scan_s=float(np.median(scans)),
                ratio=float(np.median(detections / scans)),
                report_json_MB=files["report.json"] / 1e6,
                report_html_MB=files["report.html"] / 1e6,
            )
            report.save(json_path)
    report.finish(json_path)


if __name__ == "__main__":
    main()
