"""What a ledger of served contexts costs a server, how far its counts are off, and that weights from it keep the null.

Contexts of the first two parts are drawn from a Zipf-Mandelbrot law, whose head and long tail are like those of word
pairs in text. The third part marks answers of a small random model under a fresh key each time, weighs the contexts by
the ledger's counts of them and tests a suspect that never saw the mark: its z must have mean 0 and deviation 1.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.common import Report, clock, json_option, quick_option
from detect.student.verdict.weights import HALF
from watermark import prf
from watermark.keys import KeyRing, SecretKey
from watermark.ledger import Ledger, answer_contexts
from watermark.ledger_file import describe, new_file, new_header
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

Floats = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

KEY = SecretKey(bytes(32))
RING = KeyRing.from_master(KEY, tenants=("acme",))
LENGTH = 256  # tokens of an answer
PAUSE = 0.02  # seconds between answers; at 10 ms a step and batch 8 they would be 0.32 s apart
DISTINCT = 1 << 24  # contexts that there are
VOCABULARY, WALK = 256, 30  # of the model whose answers are marked, and tokens of its answers


def _spec(key: SecretKey, **fields: Any) -> WatermarkSpec:
    return WatermarkSpec(vocabulary_size=1 << 20, tokenizer="none", key_fingerprint=key.fingerprint, **fields)


def _zipf(generator: np.random.Generator, count: int, exponent: float) -> I64:
    """Ranks 0 .. DISTINCT - 1 with chances (rank + 3)^-exponent, by inversion of the integral."""
    power = 1 - exponent
    low, high = 3.0**power, (DISTINCT + 3.0) ** power
    ranks = (low + (high - low) * generator.random(count)) ** (1 / power) - 3
    found: I64 = np.minimum(ranks.astype(np.int64), DISTINCT - 1)
    return found


def _contexts(ranks: I64) -> I64:
    contexts: I64 = np.stack([ranks >> 12, ranks & 4095], axis=-1)
    return contexts


def _paced(ledger: Ledger, tenant: str | None, contexts: I64) -> float:
    """Seconds that the engine's thread spends on an answer; then it has other things to do."""
    seconds = clock(lambda: ledger.add(tenant, 0, contexts))
    time.sleep(PAUSE)
    return seconds


def cost(folder: Path, answers: int, step_ms: float, batch: int, megabytes: tuple[int, ...]) -> Report:
    """Time `add` for each finished answer, and look-ups."""
    report = Report(
        f"Cost of adding answers of {LENGTH} tokens; share of the time of steps of {step_ms:g} ms at batch {batch}",
        {"answers": answers},
        notes=[
            "add: what the engine's thread waits; cpu: of all threads; flush: what has been added so far, to the disk",
            f"answers come {PAUSE * 1e3:g} ms apart, which leaves the disk less time than such a server would",
        ],
    )
    generator = np.random.default_rng(0)
    each = [_contexts(_zipf(generator, LENGTH, 0.95)) for _ in range(answers)]
    for size in megabytes:
        for name, tenant in (("no accounts", None), ("with an account", "acme")):
            path = folder / f"cost-{size}-{tenant}"
            with Ledger.create(path, _spec(KEY), RING, megabytes=size) as ledger:
                before = time.process_time()
                seconds = np.array([_paced(ledger, tenant, x) for x in each])
                assert ledger.answers == answers
                cpu = time.process_time() - before
                flush = clock(ledger.flush)
                known = np.concatenate(each[: max(1, answers // 8)])
                look = clock(lambda: ledger.counts(known, 0, tenant))  # noqa: B023
            path.unlink()
            report.add(
                ledger=f"{size} MB, {name}",
                add_us=float(np.median(seconds) * 1e6),
                p99_us=float(np.quantile(seconds, 0.99) * 1e6),
                largest_us=float(seconds.max() * 1e6),
                mean_percent_of_step=float(100 * seconds.mean() * batch / (LENGTH * step_ms / 1e3)),
                cpu_percent_of_step=100 * cpu / answers * batch / (LENGTH * step_ms / 1e3),
                flush_ms=flush * 1e3,
                million_lookups_a_second=len(known) / look / 1e6,
            )
    return report


def accuracy(folder: Path, megabytes: int, loads: tuple[float, ...], exponents: tuple[float, ...]) -> Report:
    """Compare counts with true ones as the table fills."""
    report = Report(
        f"Accuracy of a ledger of {megabytes} MB; load: contexts added per counter of a row; weight n / (n + {HALF:g})",
        {"distinct contexts": f"{DISTINCT:,}"},
        notes=["unserved: contexts that were never added; for another size read the row of the same load"],
    )
    generator = np.random.default_rng(1)
    for exponent in exponents:
        path = folder / f"accuracy-{exponent}"
        true = np.zeros(DISTINCT, dtype=np.int64)
        with Ledger.create(path, _spec(KEY), RING, megabytes=megabytes) as ledger:
            width = describe(path).header.width
            for load in loads:
                while ledger.contexts < load * width:
                    ranks = np.unique(_zipf(generator, 4 * LENGTH, exponent))
                    ledger.add(None, 0, _contexts(ranks))
                    true[ranks] += 1
                report.add(zipf=exponent, load=load, **_errors(ledger, true, generator), used=describe(path).used)
        path.unlink()
    return report


def _errors(ledger: Ledger, true: I64, generator: np.random.Generator) -> dict[str, float]:
    """Errors of distinct served contexts and of contexts that were never added."""
    read = generator.choice(np.flatnonzero(true), 20_000)
    often = np.flatnonzero(true >= 10)
    unserved = ledger.counts(_contexts(np.arange(20_000) + DISTINCT), 0)

    def weight(counts: npt.ArrayLike) -> Floats:
        return np.asarray(counts) / (np.asarray(counts) + HALF)

    counts = ledger.counts(_contexts(read), 0)
    assert (counts >= true[read]).all()
    return {
        "too_high": float((counts - true[read]).mean()),
        "weight_error": float((weight(counts) - weight(true[read])).mean()),
        "unserved_reads": float(unserved.mean()),
        "unserved_weight": float(weight(unserved).mean()),
        "weight_of_10_and_more": float(weight(ledger.counts(_contexts(often), 0)).mean())
        if len(often)
        else float("nan"),
    }


def null(folder: Path, keys: int, answers: int, widths: tuple[int, ...]) -> Report:
    """Test a suspect that never saw the mark with weights from ledgers, under fresh keys."""
    report = Report(
        "Null: z of an unmarked suspect under fresh keys",
        {"keys": keys, "contexts": VOCABULARY, "marked answers": f"{answers} of {WALK} tokens"},
        notes=[
            f"mean should be 0 +- {1 / np.sqrt(keys):.2g}, sd 1 +- {1 / np.sqrt(2 * keys):.2g}, "
            "tails like the first row's (scores are skewed)",
            "the suspect is the very model that was marked, without the mark: its predictions follow no key",
        ],
    )
    generator = np.random.default_rng(2)
    logits = 2 * generator.standard_normal((VOCABULARY, VOCABULARY)) + 2 * generator.standard_normal(VOCABULARY)
    model = np.exp(logits - logits.max(1, keepdims=True))
    model /= model.sum(1, keepdims=True)
    found: dict[str, list[float]] = {}
    for trial in range(keys):
        for name, value in _trial(folder, model, answers, widths, generator).items():
            found.setdefault(name, []).append(value)
        if trial % 500 == 499:
            click.echo(f"{trial + 1} keys done", err=True)
    for name, of_keys in found.items():
        z = np.array(of_keys)
        report.add(
            weights=name,
            mean=float(z.mean()),
            sd=float(z.std()),
            above_1_645=float((z > 1.6449).mean()),
            above_2_326=float((z > 2.3263).mean()),
        )
    return report


def _trial(
    folder: Path, model: Floats, answers: int, widths: tuple[int, ...], generator: np.random.Generator
) -> dict[str, float]:
    """One key's z under each kind of weights."""
    key = SecretKey(generator.bytes(32))
    ring, spec = KeyRing.from_master(key), _spec(key, context_width=1, subkeys=1)
    contexts = np.arange(VOCABULARY, dtype=np.uint32)[:, None]
    marking = subkey(ring.global_key, 0).words  # type: ignore[arg-type]
    words = prf.words_rows(np.tile(marking, (VOCABULARY, 1)), prf.nonces(contexts, None), VOCABULARY)
    uniform = (words + 0.5) / 2**32
    served = _marked_answers(model, uniform, answers, generator)
    kinds = {"all alike": np.ones(VOCABULARY)}
    counts = {"exact counts": np.zeros(VOCABULARY, dtype=np.int64)}
    for answer in served:
        counts["exact counts"][np.unique(answer[:-1])] += 1
    for width in widths:
        header = msgspec.structs.replace(new_header(spec.spec_id, spec.key_fingerprint, 1), width=width)
        path = folder / "null"
        with new_file(path, header):
            pass
        with Ledger.open(path, spec, ring, write=True) as ledger:
            for answer in served:
                ledger.add(None, 0, answer_contexts(answer[:1], answer[1:], 1))
            counts[f"ledger, {width} counters a row"] = ledger.counts(contexts, 0)
        path.unlink()
    kinds |= {name: n / (n + HALF) for name, n in counts.items()}
    kinds |= {f"{name}, not saturated": n.astype(np.float64) for name, n in counts.items()}
    of = model * (1 - model)  # what the suspect predicts, as the readout without a reference weighs it
    scores = (of * (-np.log1p(-uniform) - 1)).sum(1)
    variance = (of**2).sum(1)
    return {name: float(w @ scores / np.sqrt(w**2 @ variance)) for name, w in kinds.items()}


def _marked_answers(model: Floats, uniform: Floats, answers: int, generator: np.random.Generator) -> I64:
    """Marked walks through the model, (answers, WALK + 1); a context that comes back is left unmarked."""
    race = np.log(uniform) / model
    cumulative = model.cumsum(1)
    walks = np.empty((answers, WALK + 1), dtype=np.int64)
    walks[:, 0] = generator.integers(0, VOCABULARY, answers)
    for step in range(WALK):
        at = walks[:, step]
        repeated = (walks[:, :step] == at[:, None]).any(1)
        fresh = (generator.random(answers)[:, None] < cumulative[at]).argmax(1)
        walks[:, step + 1] = np.where(repeated, fresh, race[at].argmax(1))
    return walks


PARTS = ("cost", "accuracy", "null")


@click.command()
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS, show_default=True)
@click.option("--answers", default=1000, show_default=True, help="Answers whose cost is measured.")
@click.option("--step-ms", default=10.0, show_default=True, help="Time of a step of the engine.")
@click.option("--batch", default=8, show_default=True, help="Answers that the engine writes at a time.")
@click.option("--keys", default=4000, show_default=True, help="Keys of the null.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where ledgers are written; by default a temporary one."
)
@quick_option
@json_option
def main(
    parts: tuple[str, ...],
    answers: int,
    step_ms: float,
    batch: int,
    keys: int,
    folder: Path | None,
    quick: bool,
    json_path: Path | None,
) -> None:
    """Measure a ledger of served contexts."""
    sizes: tuple[int, ...] = (1,) if quick else (64, 1024)
    megabytes, exponents = (1, (0.8,)) if quick else (4, (0.8, 1.0001))
    loads: tuple[float, ...] = (0.1,) if quick else (0.25, 1.0, 4.0, 16.0)
    if quick:
        answers, keys = 20, 20
    with tempfile.TemporaryDirectory(dir=folder) as name:
        here = Path(name)
        reports = {
            "cost": lambda: cost(here, answers, step_ms, batch, sizes),
            "accuracy": lambda: accuracy(here, megabytes, loads, exponents),
            "null": lambda: null(here, keys, 20, (16, 64)),
        }
        for part in parts:
            reports[part]().finish(None if json_path is None else json_path.with_stem(f"{json_path.stem}-{part}"))


if __name__ == "__main__":
    main()
