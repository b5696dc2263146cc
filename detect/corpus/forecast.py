"""What a scan would cost and what it could find, from the sizes of the files and a small part of the first ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from detect.corpus.chosen import FieldsRead, fields_lines, fields_read, turns_lines
from detect.corpus.engines.local import cores
from detect.corpus.gather import added
from detect.laws.strength import EFFECTS, ENTROPIES
from detect.readers import Source, find_sources, read, split
from detect.records.seen import TurnCount
from detect.text.encode import Encoder

if TYPE_CHECKING:
    from detect.corpus.scan import ScanJob
    from watermark.spec import WatermarkSpec

_LOOKED_AT = 8  # files of which a part is read
_PART = 1 << 20  # bytes of each
_NANOSECONDS = 90.0  # a token and worker, once it is an id; measured by benchmarks/scan_speed.py
_SLOWER = 8  # times that on slow or busy machines and disks
_AROUND = 3.0, 180.0  # seconds of small scans: the machine code may have to be made first, and the controls read
_SPILLED = 11  # bytes a token in the work folder
_POWER = 0.95


class PowerForecast(msgspec.Struct, frozen=True, kw_only=True):
    """How much must be marked for the scan to find it, by the normal approximation.

    Attributes
    ----------
    spec_id, scheme
        Of the watermark.
    alpha, power
        Found means a p-value at or below ``alpha``, with probability ``power``.
    tokens_least, tokens_most
        Tokens of one document, marked throughout, from which on it is found.
    share_least, share_most
        Share of marked tokens that is found where they lie scattered over all documents; above 1 where there is too
        little text.
    nats_least, nats_most
        Entropy of a token, for which the larger and the smaller numbers hold.
    """

    spec_id: str
    scheme: str
    alpha: float
    power: float
    tokens_least: int
    tokens_most: int
    share_least: float
    share_most: float
    nats_least: float
    nats_most: float


class ScanForecast(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag="dyetrace-scan-dry-run-1"):
    """What `scan --dry-run` says of a scan.

    Attributes
    ----------
    files, bytes, unreadable
        Files that would be read, their size, and how many can't be.
    tokens, documents, looked_at
        About how many tokens and documents are in them, judged by a part of so many of the files.
    seconds_least, seconds_most
        From start to report, under one key.
    workers, accounts
        With so many workers, and accounts to test besides, which take longer.
    disk_bytes
        Of the work folder.
    fields
        Which fields of the files are read, and which are not.
    turns
        Of chats in the parts that were looked at: which parts of whose turns there are.
    power
        What could be found; nothing where there is no text, and for schemes of which no effect is known.
    """

    files: int
    bytes: int
    unreadable: int
    tokens: int
    documents: int
    looked_at: int
    seconds_least: float
    seconds_most: float
    workers: int
    accounts: int
    disk_bytes: int
    fields: list[FieldsRead]
    turns: list[TurnCount]
    power: list[PowerForecast]


def forecast(job: ScanJob, workers: int | None) -> ScanForecast:
    """Look at the files, and at a part of the first ones."""
    sources, unreadable = find_sources(job.paths, job.settings.read)
    turns: list[TurnCount] = []
    all_tokens, all_documents, seconds = _contents(sources, job, turns)
    files = {source.path: source.bytes for source in sources}
    tokens, documents = (int(count * job.settings.sample) for count in (all_tokens, all_documents))
    workers = workers or cores()
    total = seconds + tokens * _NANOSECONDS * 1e-9
    return ScanForecast(
        files=len(files),
        bytes=sum(files.values()),
        unreadable=len(unreadable),
        tokens=tokens,
        documents=documents,
        looked_at=min(len(files), _LOOKED_AT),
        seconds_least=_AROUND[0] + total / workers,
        seconds_most=_AROUND[1] + total * _SLOWER / workers,
        workers=workers,
        accounts=len(job.settings.tenants),
        disk_bytes=tokens * _SPILLED,
        fields=fields_read(sources),
        turns=added(turns),
        power=[found for spec in job.specs for found in _power(spec, tokens, documents, job.settings.alpha)],
    )


def forecast_lines(found: ScanForecast) -> Iterator[str]:
    """Say, line by line, what the scan would read, take and find."""
    unreadable = f"; {found.unreadable} unreadable" if found.unreadable else ""
    yield f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB{unreadable}"
    yield from fields_lines(found.fields)
    yield from turns_lines(found.turns)
    part = "1 file" if found.looked_at == 1 else f"{found.looked_at} files"
    yield f"about {found.tokens:,} tokens in {found.documents:,} documents, judged by a part of {part}"
    more = f" under one key, and longer for {found.accounts:,} accounts" if found.accounts else ""
    yield (
        f"{_duration(found.seconds_least)} to {_duration(found.seconds_most)} with {found.workers} workers{more}; the "
        "more where the machine is busy or works on its first scan"
    )
    yield f"about {found.disk_bytes / 1e6:,.0f} MB of disk"
    for row in found.power:
        yield (
            f"{row.scheme}: p <= {row.alpha:g} with probability {row.power:.0%} needs one document of about "
            f"{row.tokens_least:,} to {row.tokens_most:,} marked tokens, or, scattered over all documents, "
            f"{_scattered(row)}; the first at {row.nats_most:g} nats of entropy a token, the second at "
            f"{row.nats_least:g}"
        )


def _scattered(row: PowerForecast) -> str:
    """What share of all tokens must be marked; shares beyond 1 are those of more text than there is."""
    if row.share_least > 1:
        return "more marked tokens than there are: there is too little text for that"
    if row.share_most > 1:
        return f"{row.share_least:.2%} of the tokens marked to more than there are: there may be too little text"
    return f"{row.share_least:.2%} to {row.share_most:.2%} of the tokens marked"


def _contents(sources: Sequence[Source], job: ScanJob, turns: list[TurnCount]) -> tuple[float, float, float]:
    """Tokens and documents in all files, and the processor seconds that reading and encoding them would take.

    What there was of turns of chats goes to ``turns``.
    """
    encoder = None if job.tokenizer is None else Encoder.load(job.tokenizer)
    sources = [source for source in sources if source.bytes]
    step = max(1, len(sources) // _LOOKED_AT)
    looked = sources[::step][:_LOOKED_AT]
    size = tokens = documents = 0.0
    options = msgspec.structs.replace(job.settings.read, skip_errors=True)
    started = perf_counter()
    for source in looked:
        before = tokens
        pieces = split(source, _PART)
        if not pieces:
            continue
        share = 1.0 / len(pieces)
        for batch in read(source, pieces[0], options):
            ids = batch.tokens.ids if batch.tokens is not None else None
            if ids is None:
                assert encoder is not None
                ids = encoder.encode_batch(batch.texts or []).ids
            tokens += len(ids)
            documents += len(batch.records)
            turns += batch.turns
            if len(pieces) == 1 and (source.compression or source.bytes > _PART):  # a look at its beginning is enough
                size_seen = (tokens - before) * (1.5 if source.compression else 4.0)
                share = min(1.0, size_seen / max(1, source.bytes))
                break
        size += source.bytes * share
    seconds = perf_counter() - started
    factor = sum(source.bytes for source in sources) / max(size, 1.0)
    return tokens * factor, documents * factor, seconds * factor


def _power(spec: WatermarkSpec, tokens: int, documents: int, alpha: float) -> Iterator[PowerForecast]:
    """What the tests would find, of single documents and of all together; this approximation is for planning alone."""
    effects = EFFECTS.get(spec.scheme)
    if effects is None or not tokens:
        return
    part = spec.global_share or 1.0  # of the contexts, that one key marks; an account's, where none are everybody's
    from scipy.special import ndtri

    # Each test has half of alpha. A document's pays for all documents and sub-keys; the pooled one sums over sub-keys,
    # one of which marks a token, so that noise grows with the square root of their number.
    apart = -(ndtri(alpha / 2 / max(1, documents) / spec.subkeys) + ndtri(1 - _POWER))
    pooled = -(ndtri(alpha / 2) + ndtri(1 - _POWER)) * math.sqrt(spec.subkeys)
    most, least = ((apart / effect) ** 2 / part for effect in effects)
    share_most, share_least = (pooled / effect / math.sqrt(tokens * part) for effect in effects)
    yield PowerForecast(
        spec_id=spec.spec_id,
        scheme=spec.scheme,
        alpha=alpha,
        power=_POWER,
        tokens_least=math.ceil(least),
        tokens_most=math.ceil(most),
        share_least=float(share_least),
        share_most=float(share_most),
        nats_least=ENTROPIES[0],
        nats_most=ENTROPIES[1],
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
