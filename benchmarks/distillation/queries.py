"""The API half of the experiment: a student behind a real HTTP server, traced by its answers alone.

What was asked lies in the traces' own ledger, so all tests see the same answers, and a run that was killed asks on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from benchmarks.distillation.experiment import Bench, Found, labels
from benchmarks.distillation.published import closed_model
from benchmarks.distillation.server import Server
from benchmarks.distillation.suspects import Suspect
from detect.models.reading import NO_SUBKEY, read_text, served_subkeys
from detect.records.trace import TraceRecord
from detect.student.asking.asking import ask_all
from detect.student.asking.ledger import LEDGER_FILE, Ledger
from detect.student.asking.plan import PlannedPrompt, SamplingPlan, TracePlan
from detect.student.asking.prompts import choose_prompts, prompts_of
from detect.student.endpoint import statistic_of, trace_endpoint
from watermark.errors import DyetraceError
from watermark.models.folder import load_model

PUBLISHED = "closed model (published)"
NEVER = -10_000.0  # a target that no trace reaches: all answers are used, and the curve says when -10 was passed
_FIRST_PORT, _PORTS = 20_000, 20_000


def api_rows(bench: Bench, suspect: Suspect, samples: int, logprobs: int) -> Iterator[dict[str, Any]]:
    """Trace a student through its endpoint.

    Parameters
    ----------
    samples, logprobs
        Prompts to ask for text alone, and with logprobs.
    """
    folder = bench.suspects.folder(suspect)
    place = bench.suspects.keep / f"api-{folder.name}"
    served = str(bench.teacher.file(bench.suspects.served(suspect), f"{suspect.mark.scheme}{suspect.mark.width}"))
    with _serving(bench, folder) as server:
        asked = _plan(bench, suspect, server.url, "samples", samples, None, None)
        texts = _answers(asked, place, bench)
        tests = [_published(bench, suspect, texts, served, known) for known in (False, True)]
        published = max(tests, key=lambda found: found.z)
        rows: list[tuple[str, int, Found, float | None]] = [
            (PUBLISHED, len(texts), tests[0], None),
            (f"{PUBLISHED}, served sub-keys", len(texts), tests[1], None),
        ]
        for evidence, count in (("samples", samples), ("logprobs", logprobs)):
            for filtered in (served, None):
                for reference in (bench.teacher.folder, None) if evidence == "logprobs" else (None,):
                    plan = _plan(bench, suspect, server.url, evidence, count, filtered, reference)  # type: ignore[arg-type]
                    click.echo(f"tracing {suspect} by {evidence}", err=True)
                    name = f"{evidence}, {'served contexts' if filtered else 'all contexts'}"
                    name += ", base as reference" if reference else ""
                    try:
                        record = trace_endpoint(
                            plan,
                            bench.teacher.spec(suspect.mark),
                            bench.teacher.ring,
                            bench.teacher.tokenizer,
                            place,
                            served=filtered,
                            reference=reference,
                        )
                    except DyetraceError as error:  # a few short answers may hold no context that counts
                        click.echo(f"{name}: {error}", err=True)
                        continue
                    answers = 0 if record.queries is None else record.queries.answers
                    rows.append((name, answers, _found(record), _passed(record)))
    for name, answers, found, passed in rows:
        queries = None if found.needed is None else found.needed / max(1, found.contexts) * answers
        bound = published.at_least / max(1, published.contexts) * len(texts)
        yield {
            **labels(suspect),
            "test": name,
            "answers": answers,
            "contexts": found.contexts,
            "z": found.z,
            "log10 p": found.log10_p,
            "log10 e": found.log10_e,
            "answers to 1e-10": queries,
            "answers to e = 1e10": passed,
            "times fewer": None if queries is None or name.startswith(PUBLISHED) else bound / queries,
            "published seen": published.needed is not None,
        }


def _serving(bench: Bench, folder: Path) -> Server:
    """At a port that depends on the student alone where it is free: the ledger knows answers by their address."""
    model, tokenizer = load_model(folder)
    model.to(bench.teacher.device)
    port = _FIRST_PORT + int.from_bytes(folder.name.encode()[-6:], "big") % _PORTS
    largest = 64 if bench.teacher.device == "cuda" else 32
    try:
        return Server(model, tokenizer, port=port, largest_batch=largest)
    except OSError:
        return Server(model, tokenizer, largest_batch=largest)


def _plan(
    bench: Bench,
    suspect: Suspect,
    url: str,
    evidence: Literal["samples", "logprobs"],
    count: int,
    served: str | None,
    reference: Path | None,
) -> TracePlan:
    spec, ring = bench.teacher.spec(suspect.mark), bench.teacher.ring
    prompts = choose_prompts(prompts_of(bench.suspects.served(suspect)), count)
    if len(prompts) < count:
        # Few were served marked: the rest are prompts of the same kind.
        have = {planned.prompt for planned in prompts}
        more = [answer.prompt for answer in bench.teacher.answers(suspect.mark, suspect.answers)]
        prompts += [PlannedPrompt(prompt=text) for text in more if text not in have][: count - len(prompts)]
    return TracePlan(
        created=datetime(2026, 1, 1, tzinfo=UTC).isoformat(timespec="seconds"),
        url=url,
        model="student",
        evidence=evidence,
        prompts=prompts,
        sampling=SamplingPlan(max_tokens=bench.teacher.tokens),
        readout="entropy" if reference is None else "reference",
        statistic=statistic_of(served, reference),
        spec_id=spec.spec_id,
        key_fingerprint=ring.master_fingerprint,
        decoys=20,
        target_log10_p=NEVER,
        alpha=0.01,
    )


def _answers(plan: TracePlan, place: Path, bench: Bench) -> list[str]:
    """Ask all prompts of a plan; the texts of the answers."""
    place.mkdir(parents=True, exist_ok=True)
    with Ledger(place / LEDGER_FILE) as ledger, ask_all(plan, ledger) as asking:
        return [answer.text for answers in asking for answer in answers]


def _published(bench: Bench, suspect: Suspect, texts: list[str], served: str, known: bool) -> Found:
    spec = bench.teacher.spec(suspect.mark)
    counts = served_subkeys(read_text(served, spec, bench.teacher.encoder).documents, spec.context_width)
    filtered = {value: list(some) if known else [NO_SUBKEY] for value, some in counts.items()}
    ids = [np.asarray(bench.teacher.encoder.encode(text), dtype=np.uint32) for text in texts]
    return bench.found(suspect.mark, closed_model(ids, filtered, spec.context_width))


def _found(record: TraceRecord) -> Found:
    first = record.hypotheses[0]
    z = (first.total - first.expected) / first.sd if first.sd else 0.0
    return Found(first.contexts, z, first.log10_pvalue, first.log10_evalue)


def _passed(record: TraceRecord) -> float | None:
    """Answers after which log10 e was 10, between the points of the curve."""
    counts = np.array([0.0, *(point.count for point in record.curve)])
    grown = np.maximum.accumulate([0.0, *(point.log10_evalue for point in record.curve)])
    return float(np.interp(10.0, grown, counts)) if grown[-1] >= 10.0 else None
