"""Scans made by hand: a corpus of random totals under given keys, its record, and the files beside it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detect.corpus import rare
from detect.corpus.share import marked_documents
from detect.keyed.decoys import log10_agreement
from detect.laws.multiplicity import benjamini_hochberg_log10, e_benjamini_hochberg, holm_log10, sidak_log10
from detect.laws.tails import log10_sf
from detect.records.detection import Input, SubkeyTally
from detect.records.made import Made
from detect.records.reading import write_record
from detect.records.scan import (
    HISTOGRAM_BINS,
    Controls,
    Discoveries,
    FileHash,
    Hit,
    Interval,
    ScanHypothesis,
    ScannedInput,
    ScanRecord,
    Segment,
    Shares,
    Skipped,
    UnreadFile,
)
from detect.records.seen import ColumnSeen, TurnCount
from watermark.commitment import Commitment
from watermark.spec import WatermarkSpec

HEX = "0123456789abcdef" * 4
UNITS = 2**24  # in a nat
SUBKEYS = 4
UNREAD = [UnreadFile(name="crawl/model.bin", reason="is no file with texts")]
INPUT_NAMES = ("crawl/part-000.jsonl", "crawl/part-001.jsonl", "answers.parquet")
MADE = Made(code_sha256=HEX, examiner="N. N., Institute of Dyes", case="2026/7 owner against suspect")
Floats = npt.NDArray[np.float64]


def make_spec(**changes: Any) -> WatermarkSpec:
    fields: dict[str, Any] = {"vocabulary_size": 49152, "tokenizer": HEX[:32], "key_fingerprint": HEX[:32]}
    return WatermarkSpec(**(fields | {"global_share": 0.5} | changes))


@dataclass(frozen=True)
class Corpus:
    """What the builder makes of a seed: for each key its tuples and totals in every document."""

    spec: WatermarkSpec
    keys: list[str]
    tokens: list[int]
    own: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    log10_ps: Floats
    log10_es: Floats
    excerpts: list[str] = field(default_factory=list)


@lru_cache(maxsize=8)
def make_corpus(seed: int, documents: int, marked: int, keys: tuple[str, ...], strength: float = 1.7) -> Corpus:
    """Totals of documents of which the first ``marked`` in a shuffled order hold the first two keys' marks."""
    draw = np.random.default_rng(seed)
    spec = make_spec(global_share=0.5 if len(keys) > 1 else 1.0)
    tokens = draw.integers(40, 700, documents)
    tuples = np.maximum(0, tokens - 2 - draw.integers(0, 30, documents))
    tuples[-1] = 0  # a document that repeats others
    halves = draw.binomial(tuples, 0.5) if len(keys) > 1 else tuples
    own = np.array([halves if key == "global" else tuples - halves for key in keys])
    totals = draw.gamma(np.maximum(own, 1e-9)[:, None, :], size=(len(keys), SUBKEYS, documents)) * UNITS
    where = draw.permutation(documents - 1)[:marked]
    for number in where:
        subkey = int(draw.integers(SUBKEYS))
        for key in range(min(2, len(keys))):
            totals[key, subkey, number] *= strength
    whole = np.where(own[:, None, :] > 0, totals, 0).astype(np.int64)
    law = spec.build_scheme().law
    unit = spec.build_scheme().unit
    log10_ps = np.zeros((len(keys), documents))
    log10_es = np.zeros((len(keys), documents))
    for k in range(len(keys)):
        for d in range(documents):
            n = int(own[k, d])
            if n:
                log10_ps[k, d] = sidak_log10([log10_sf(law, n, int(t) * unit) for t in whole[k, :, d]])
                # Any e-value will do: exp(theta t) (1 - theta)^n at theta = 0.3, its mean over sub-keys.
                logs = [0.3 * int(t) * unit + n * math.log(0.7) for t in whole[k, :, d]]
                top = max(logs)
                log10_es[k, d] = (top + math.log(sum(math.exp(x - top) for x in logs) / SUBKEYS)) / math.log(10)
    return Corpus(spec, list(keys), tokens.tolist(), own, whole, log10_ps, log10_es)


def make_scan(folder: Path, corpus: Corpus, *, refused: str | None = None, **changes: Any) -> ScanRecord:
    """Write report.json and the files beside it into ``folder``; return the record."""
    documents = len(corpus.tokens)
    tuples = corpus.own.max(axis=0) if len(corpus.keys) == 1 else corpus.own[0] + corpus.own[1]
    best = corpus.log10_ps.argmin(axis=0)
    rows = np.arange(documents)
    log10_p = np.minimum(0.0, corpus.log10_ps[best, rows] + math.log10(len(corpus.keys)))
    log10_e = _mean_e(corpus.log10_es)
    tested = tuples > 0
    adjusted = np.full(documents, np.nan)
    adjusted[tested] = benjamini_hochberg_log10(log10_p[tested])
    rate = 0.05
    found = np.zeros(documents, bool)
    found[tested] = adjusted[tested] <= math.log10(rate)
    by_evalue = int(e_benjamini_hochberg(log10_e[tested], rate).sum())
    per_input = -(-documents // len(INPUT_NAMES))
    place = [(i // per_input, i % per_input + 1 + (i % per_input >= 5)) for i in range(documents)]
    names = [None if source == 2 else f"doc-{i:04d}" for i, (source, _) in enumerate(place)]
    hits = [
        _hit(corpus, int(i), place[i], names[i], int(best[i]), tuples, log10_p, adjusted, log10_e)
        for i in np.flatnonzero(found)
    ]
    columns = {
        "input": [source for source, _ in place],
        "record": [record for _, record in place],
        "id": names,
        "tokens": corpus.tokens,
        "tuples": tuples.tolist(),
        "key": [corpus.keys[k] for k in best],
        "key_tuples": corpus.own[best, rows].tolist(),
        "totals": corpus.totals[best, :, rows].tolist(),
        "log10_pvalue": log10_p.tolist(),
        "log10_pvalue_adjusted": [None if math.isnan(a) else a for a in adjusted.tolist()],
        "log10_pvalue_segment": [None] * len(names),
        "log10_evalue": log10_e.tolist(),
        "found": found.tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_documents(folder / "documents.parquet", columns, corpus.keys)
    (folder / "hits.jsonl").write_bytes(b"".join(msgspec.json.encode(hit) + b"\n" for hit in hits))
    inputs = [_input(i, place, corpus.tokens) for i in range(len(INPUT_NAMES))]
    skipped = [{"input": s.name, **msgspec.to_builtins(one)} for s in inputs for one in s.skipped_first]
    skipped = [{"input": file.name, "record": None, "reason": file.reason} for file in UNREAD] + skipped
    (folder / "skipped.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in skipped))
    hypotheses = _hypotheses(corpus, hits)
    smallest = min(h.log10_pvalue_adjusted for h in hypotheses)
    fields: dict[str, Any] = {
        "arguments": {
            "paths": ["crawl", "answers.parquet"], "field": None, "on_error": "skip", "fdr": rate, "alpha": 1e-6,
            "tenants": [key.removeprefix("tenant:") for key in corpus.keys if key != "global"], "roles": ["assistant"],
        },
        "versions": {"dyetrace": "0.1.0", "numpy": "2.4.6", "python": "3.11.7"},
        "specs": [corpus.spec],
        "spec_ids": [corpus.spec.spec_id],
        "key_fingerprint": HEX[:32],
        "commitment": Commitment(
            sha256=HEX, spec_id=corpus.spec.spec_id, key_fingerprint=HEX[:32], created="2025-11-02T09:00:00+00:00"
        ),
        "alpha": 1e-6,
        "encoder": "tokenizers 0.23",
        "inputs": inputs,
        "files": hashes(folder),
        "documents": documents,
        "tokens": sum(corpus.tokens),
        "tuples": sum(corpus.tokens) - 2 * documents,
        "distinct_tuples": int(tuples.sum()),
        "hypotheses": hypotheses,
        "log10_pvalue": None if refused else smallest,
        "refused": refused,
        "found": refused is None and smallest <= -6,
        "discoveries": Discoveries(
            rate=rate,
            tested=int(tested.sum()),
            benjamini_hochberg=int(found.sum()),
            e_benjamini_hochberg=by_evalue,
            tokens=int(np.array(corpus.tokens)[found].sum()),
        ),
        "shares": _shares(log10_p[tested]),
        "histogram": bins(log10_p[tested]),
        "controls": make_controls(
            broken=refused is not None, documents=int(tested.sum()), decoy_tuples=int(tuples.sum())
        ),
        "hits": sorted(hits, key=lambda hit: (hit.log10_pvalue, hit.ordinal))[:20],
        "created": "2026-02-03T04:05:06+00:00",
        "made": MADE,
        "unread": len(UNREAD),
        "unread_first": UNREAD,
    }  # fmt: skip
    record = ScanRecord(**(fields | changes))
    write_record(folder / "report.json", record)
    return record


def marked_scan(folder: Path, **changes: Any) -> ScanRecord:
    """A marked corpus with three accounts, one of them in it, and some broken lines."""
    keys = ("global", "tenant:acme", "tenant:zenith", "tenant:north-wind")
    return make_scan(folder, make_corpus(1, 160, 24, keys), **changes)


def clean_scan(folder: Path, **changes: Any) -> ScanRecord:
    """A corpus without any mark."""
    return make_scan(folder, make_corpus(2, 90, 0, ("global", "tenant:acme")), **changes)


def refused_scan(folder: Path, **changes: Any) -> ScanRecord:
    """A scan that its own decoys contradict."""
    why = "the decoy keys contradict the test: their p-values are too small to be uniform (log10 p of agreement -19.3)"
    return make_scan(folder, make_corpus(3, 60, 4, ("global",)), refused=why, **changes)


def write_documents(path: Path, columns: dict[str, list[Any]], keys: list[str]) -> None:
    """Write documents.parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {
        "input": pa.int32(), "record": pa.int64(), "id": pa.string(), "tokens": pa.int32(), "tuples": pa.int32(),
        "key": pa.dictionary(pa.int32(), pa.string()), "key_tuples": pa.int32(), "totals": pa.list_(pa.int64()),
        "log10_pvalue_segment": pa.float64(), "log10_pvalue": pa.float64(),
        "log10_pvalue_adjusted": pa.float64(), "log10_evalue": pa.float64(),
        "found": pa.bool_(),
    }  # fmt: skip
    arrays: dict[str, Any] = {name: pa.array(values, kinds[name]) for name, values in columns.items() if name != "key"}
    indices = pa.array([keys.index(key) for key in columns["key"]], pa.int32())
    arrays["key"] = pa.DictionaryArray.from_arrays(indices, pa.array(keys))
    parquet.write_table(pa.table({name: arrays[name] for name in kinds}), path, compression="zstd", store_schema=False)


def hashes(folder: Path) -> list[FileHash]:
    """SHA-256 of the files beside report.json."""
    found = []
    for name in ("documents.parquet", "hits.jsonl", "skipped.jsonl"):
        data = (folder / name).read_bytes()
        found.append(FileHash(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    return found


def bins(log10_ps: Floats) -> list[int]:
    """Count p-values in the record's bins."""
    numbers = np.clip(np.ceil(10.0**log10_ps * HISTOGRAM_BINS).astype(int) - 1, 0, HISTOGRAM_BINS - 1)
    return [int(count) for count in np.bincount(numbers, minlength=HISTOGRAM_BINS)]


def make_controls(*, broken: bool = False, documents: int = 100, decoys: int = 100, **changes: Any) -> Controls:
    """Controls that agree with chance, or don't."""
    draw = np.random.default_rng(7)
    log10_ps = np.log10(draw.random(decoys)) * (8 if broken else 1)
    fields: dict[str, Any] = {
        "decoy_seed": "dyetrace",
        "decoy_tuples": 30000,
        "decoy_log10_pvalues": log10_ps.tolist(),
        "decoy_log10_agreement": log10_agreement(log10_ps),
        "null_key_histogram": bins(np.log10(draw.random(documents))),
        "null_key_discoveries": 0,
        "null_corpus": "the documentation of Python's own language and library",
        "null_corpus_documents": 400,
        "null_corpus_log10_pvalue": math.log10(0.61),
        "null_corpus_histogram": bins(np.log10(draw.random(400) ** 0.4)),
        "null_corpus_discoveries": 0,
    }
    return Controls(**(fields | changes))


def _mean_e(log10_es: Floats) -> Floats:
    top = log10_es.max(axis=0)
    return np.asarray(top + np.log10((10.0 ** (log10_es - top)).mean(axis=0)))


def _hypotheses(corpus: Corpus, hits: list[Hit]) -> list[ScanHypothesis]:
    scheme = corpus.spec.build_scheme()
    rows: list[dict[str, Any]] = []
    for k, key in enumerate(corpus.keys):
        own = corpus.own[k]
        n, documents = int(own.sum()), int((own > 0).sum())
        totals = [int(t) for t in corpus.totals[k].sum(axis=1)]
        smallest = np.sort(corpus.log10_ps[k][own > 0])[: rare.KEPT]
        pooled = log10_sf(scheme.law, n * SUBKEYS, sum(totals) * scheme.unit)
        few = float(rare.log10_pvalue(smallest, documents))
        rows.append(
            {
                "key": key,
                "spec": 0,
                "tuples": n,
                "documents": documents,
                "subkeys": [
                    SubkeyTally(subkey=j, total=t, log10_pvalue=log10_sf(scheme.law, n, t * scheme.unit))
                    for j, t in enumerate(totals)
                ],
                "log10_pvalue_pooled": pooled,
                "log10_pvalue_rare": few,
                "smallest_log10_pvalues": smallest.tolist(),
                "log10_pvalue": min(0.0, min(pooled, few) + math.log10(2)),
                "pointed": sum(key in hit.points_to for hit in hits),
            }
        )
    adjusted = holm_log10([row["log10_pvalue"] for row in rows])
    return [ScanHypothesis(**row, log10_pvalue_adjusted=float(p)) for row, p in zip(rows, adjusted, strict=True)]


def _hit(
    corpus: Corpus,
    i: int,
    place: tuple[int, int],
    name: str | None,
    best: int,
    tuples: npt.NDArray[np.int64],
    log10_p: Floats,
    adjusted: Floats,
    log10_e: Floats,
) -> Hit:
    draw = np.random.default_rng(i)
    tokens = corpus.tokens[i]
    count = min(60, tokens)
    middle = (count // 4, count // 4 + count // 2)
    scores: list[float | None] = [
        None if draw.random() < 0.04 else round(float(draw.gamma(8) / 8 * (1.9 if j in range(*middle) else 1)), 4)
        for j in range(count)
    ]
    passed = holm_log10(corpus.log10_ps[:, i]) <= -6
    subkey = int(corpus.totals[best, :, i].argmax())
    return Hit(
        ordinal=i,
        input=place[0],
        record=place[1],
        id=name,
        tokens=tokens,
        tuples=int(tuples[i]),
        key=corpus.keys[best],
        subkey=subkey,
        score=float(corpus.totals[best, subkey, i] / UNITS / max(1, corpus.own[best, i])),
        expected=1.0,
        log10_pvalue=float(log10_p[i]),
        log10_pvalue_adjusted=float(adjusted[i]),
        log10_evalue=float(log10_e[i]),
        points_to=[key for key, yes in zip(corpus.keys, passed, strict=True) if yes],
        segments=[
            Segment(start=middle[0] * tokens // count, end=middle[1] * tokens // count, log10_pvalue=float(log10_p[i]))
        ],
        scores=scores,
        excerpt="The dye runs out of the cloth and into the water, where it can be followed for a long way down.",
    )


def _input(number: int, place: list[tuple[int, int]], tokens: list[int]) -> ScannedInput:
    mine = [i for i, (source, _) in enumerate(place) if source == number]
    broken = [Skipped(record=6, reason="line is not JSON: unexpected end of data")] if number < 2 else []
    chats, texts = number == 2, 80 * len(mine)
    columns = [
        ColumnSeen("prompt", "text", len(mine), texts // 4, read=False),
        ColumnSeen("messages" if chats else "text", "messages" if chats else "text", len(mine), texts, read=True),
    ]
    turns = [
        TurnCount("assistant", "reasoning", True, len(mine) // 2, texts),
        TurnCount("assistant", "text", True, len(mine), texts),
        TurnCount("user", "text", False, len(mine), texts // 4),
    ]
    return ScannedInput(
        name=INPUT_NAMES[number],
        sha256=HEX,
        bytes=1234567 + number,
        form="parquet" if number == 2 else "jsonl",
        column="messages" if number == 2 else "text",
        kind="messages" if number == 2 else "text",
        records=len(mine) + len(broken),
        documents=len(mine),
        tokens=sum(tokens[i] for i in mine),
        skipped=len(broken),
        skipped_first=broken,
        columns=columns,
        turns=turns if chats else [],
    )


def _shares(log10_ps: Floats) -> Shares:
    documents = marked_documents(log10_ps)
    method = "binomial bounds on the statistics of tuples"
    return Shares(
        documents=documents,
        tokens=Interval(low=documents.low * 0.4, estimate=None, high=None, confidence=0.95, method=method),
    )


def hostile_scan(text: str, folder: Path) -> ScanRecord:
    """A marked scan in which ``text`` stands wherever a suspect, or anyone else, could have put it."""
    record = marked_scan(folder)
    broken = Skipped(record=1, reason=text)
    inputs = [
        msgspec.structs.replace(
            i, name=text, sha256=text, form=text, column=text, kind=text, skipped_first=[broken],
            columns=[ColumnSeen(text, text, 1, 1, read=read) for read in (True, False)],
            turns=[TurnCount(text, text, read, 1, 1) for read in (True, False)],
        )
        for i in record.inputs
    ]  # fmt: skip
    key = f"tenant:{text}"
    hypotheses = [msgspec.structs.replace(h, key=key if i == 0 else h.key) for i, h in enumerate(record.hypotheses)]
    hits = [msgspec.structs.replace(h, id=text, key=key, points_to=[key, text], excerpt=text) for h in record.hits]
    shares = [msgspec.structs.replace(s, method=text) for s in (record.shares.documents, record.shares.tokens)]
    return msgspec.structs.replace(
        record,
        arguments={text: text, "paths": [text], "list": [text]},
        versions={text: text, "dyetrace": text},
        spec_ids=[text],
        key_fingerprint=text,
        commitment=Commitment(sha256=text, spec_id=text, key_fingerprint=text, created=text),
        created=text,
        made=Made(code_sha256=text, examiner=text, case=text),
        how_to_check=[text],
        encoder=text,
        inputs=inputs,
        files=[FileHash(name=text, sha256=text, bytes=1)],
        hypotheses=hypotheses,
        hits=hits,
        unread=1,
        unread_first=[UnreadFile(name=text, reason=text)],
        shares=Shares(documents=shares[0], tokens=shares[1]),
        controls=make_controls(
            decoy_seed=text, null_corpus=text, null_corpus_inputs=[Input(name=text, sha256=text, bytes=1)]
        ),
    )
