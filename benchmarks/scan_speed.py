"""How fast a whole scan is, from files to report: tokens a second and memory, beside a plain pass over the data.

    python -m benchmarks.scan_speed                     4, 40 and 400 million token ids, and 8 million tokens of text
    python -m benchmarks.scan_speed --engine ray        the same through Ray tasks on this machine

A corpus is Parquet with documents of 500 token ids (or JSONL with text) drawn from a Zipf law, so that about half of
the tuples are distinct: more than in natural text, which is cheaper. Times are those of the command `dyetrace scan` in
a process of its own, start to end. The plain pass reads the same ids and sorts 64-bit fingerprints of their tuples
with numpy, which is the least that any exact de-duplication in memory does. Memory is the largest sum of proportional
set sizes (shared pages counted once) over all processes of the command, sampled every 50 ms.
"""

from __future__ import annotations

import os
import shutil
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

DOCUMENT = 500
VOCABULARY = 49_152
_GROUP = 4_000_000


def write_ids(path: Path, tokens: int, seed: int) -> None:
    """Documents of token ids as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(seed)
    schema = pa.schema([("token_ids", pa.list_(pa.uint16()))])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, tokens, _GROUP):
            n = min(_GROUP, tokens - start) // DOCUMENT * DOCUMENT
            ids = pa.array(((rng.zipf(1.25, n) - 1) % VOCABULARY).astype(np.uint16))
            offsets = pa.array(np.arange(0, n + 1, DOCUMENT), pa.int32())
            table = pa.table({"token_ids": pa.ListArray.from_arrays(offsets, ids)})
            writer.write_table(table, row_group_size=n // DOCUMENT)


def write_texts(path: Path, tokens: int, folder: Path) -> int:
    """Documents of natural text in random order as JSONL; their number of tokens."""
    from detect.text.natural_text import natural_documents
    from watermark.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    pieces = [text for kind in ("prose", "code") for _, text in natural_documents(kind, 50 if tokens < 10**6 else 1500)]
    words = np.array(" ".join(pieces).split(" "), dtype=object)
    sizes = len(tokenizer.encode(" ".join(words[:20_000]), add_special_tokens=False).ids) / 20_000
    rng, count = np.random.default_rng(1), 0
    with path.open("wb") as file:
        while count < tokens:
            # Stretches of real text from anywhere: words in their natural order, documents that overlap little.
            start = rng.integers(0, len(words) - 400)
            file.write(msgspec.json.encode({"text": " ".join(words[start : start + 400])}) + b"\n")
            count += int(400 * sizes)
    return count


def plain_pass(path: Path) -> float:
    """Seconds to read all ids and sort the fingerprints of their tuples, a row group at a time."""
    from pyarrow import parquet

    from detect.text.distinct import tuple_fingerprints

    started = time.perf_counter()
    file = parquet.ParquetFile(path)
    for group in range(file.num_row_groups):
        values = file.read_row_group(group).column(0).combine_chunks().values.to_numpy().astype(np.uint32)
        np.sort(tuple_fingerprints(values, 2, 2))
    return time.perf_counter() - started


def memory(pid: int) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (OSError, StopIteration):
            continue
    return total


def run_scan(paths: list[Path], job: Path, more: list[str]) -> tuple[float, int, dict[str, float]]:
    """Seconds, bytes of memory at most, and seconds by stage of one scan."""
    output = Path(tempfile.mkdtemp(dir=job))
    command = [
        *(sys.executable, "-m", "detect.cli", "scan", *map(str, paths), "--spec", str(job / "spec.json")),
        *("--key", f"file:{job / 'owner.key'}", "-o", str(output), *more),
    ]
    started, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            most = max(most, memory(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise click.ClickException(process.stderr.read() if process.stderr else "")
    stages: dict[str, float] = msgspec.json.decode((output / "run.json").read_bytes())["stages"]
    shutil.rmtree(output)
    return seconds, most, stages


@click.command()
@quick_option
@json_option
@click.option("--engine", "engines", multiple=True, default=("local",), help="Engines to run; may be repeated.")
@click.option("--millions", multiple=True, type=float, default=(4, 40, 400), help="Sizes, in millions of token ids.")
@click.option("--text/--no-text", default=True, help="Scan text as well.")
@click.option("--rounds", default=3, help="Of which the median counts.")
def main(
    quick: bool, json_path: Path | None, engines: tuple[str, ...], millions: tuple[float, ...], text: bool, rounds: int
) -> None:
    """Measure whole scans."""
    from watermark.models.demo import demo_model_dir
    from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size

    if quick:
        millions, rounds = (0.1,), 1
    folder = demo_model_dir()
    tokenizer = load_tokenizer(folder)
    key = SecretKey(bytes(range(32)))
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
    )
    report = Report("Whole scans, files to report", {"documents of": DOCUMENT, "sub-keys": spec.subkeys, "decoys": 100})
    with tempfile.TemporaryDirectory(prefix="dyetrace-speed-") as name:
        job = Path(name)
        write_key_file(job / "owner.key", key)
        write_spec(job / "spec.json", spec)
        jobs: list[tuple[str, Path, float, list[str], float | None]] = []
        for million in millions:
            path = job / f"{million:g}.parquet"
            write_ids(path, int(million * 1e6), seed=int(million * 10))
            plain = float(np.median([plain_pass(path) for _ in range(min(rounds, 3))]))
            jobs.append((f"{million:g} M ids", path, million, ["--null-corpus", "none", "--no-pdf"], plain))
        if text:
            path = job / "text.jsonl"
            count = write_texts(path, 200_000 if quick else 40_000_000, folder)
            jobs.append(("text", path, count / 1e6, ["--no-pdf", "--tokenizer", str(folder)], None))
        for engine in engines:
            for label, path, million, more, plain in jobs:
                times = [run_scan([path], job, [*more, "--engine", engine]) for _ in range(rounds)]
                seconds = float(np.median([time for time, _, _ in times]))
                stages = min(times)[2]
                report.add(
                    corpus=label,
                    engine=engine,
                    seconds=seconds,
                    Mtokens_per_s=million / seconds,
                    to_plain_pass=None if plain is None else seconds / plain,
                    memory_MB=max(most for _, most, _ in times) / 1e6,
                    **{f"{stage}_s": stages.get(stage, 0.0) for stage in ("gather", "settle", "score", "locate")},
                )
                report.save(json_path)
    report.notes.append(
        f"disk: {shutil.disk_usage(tempfile.gettempdir()).free / 1e9:.0f} GB free; cores {os.cpu_count()}"
    )
    report.finish(json_path)


if __name__ == "__main__":
    main()
