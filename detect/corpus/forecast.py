"""What a scan would cost and what it could find, from the sizes of the files and a small part of the first ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from detect.corpus.engines.local import cores
from detect.corpus.readers import Source, find_sources, read, split
from detect.encode import Encoder

if TYPE_CHECKING:
    from detect.corpus.scan import ScanJob
    from watermark.spec import WatermarkSpec

_LOOKED_AT = 8  # files of which a part is read
_PART = 1 << 20  # bytes of each
_NANOSECONDS = 90.0  # a token and worker, once it is an id; measured by benchmarks/scan_speed.py
_SLOWER = 8  # times that on slow or busy machines and disks
_AROUND = "5 s to 3 min more"  # of small scans: the machine code may have to be made first
_SPILLED = 11  # bytes a token in the work folder
_POWER = 0.95
# Standardised excess of a marked token's statistic: mean less expectation, over its standard deviation without the key,
# at an entropy of 1 nat a token (benchmarks/power.py measures it on real answers).
_EFFECTS = {"gumbel": 0.65, "tournament": 0.55, "green_list": 0.4}


class PowerForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What share of the tokens must be marked for the scan to find it, by the normal approximation.

    Attributes
    ----------
    spec_id, scheme
        Of the watermark.
    alpha, power
        A p-value at or below ``alpha`` is had with probability ``power``
    share
        where this share of the tokens is marked and text has 1 nat of entropy a token; above 1 where there is too
        little text for that.
    """

    spec_id: str
    scheme: str
    alpha: float
    power: float
    share: float


class ScanForecast(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag="dyetrace-scan-dry-run-1"):
    """What `scan --dry-run` says of a scan.

    Attributes
    ----------
    files, bytes, unreadable
        Files that would be read, their size, and how many can't be.
    tokens, looked_at
        About how many tokens are in them, judged by a part of so many of the files.
    seconds_least, seconds_most
        For reading, encoding and scoring under one key; starting, controls and the report come on top.
    workers, accounts
        With so many workers, and accounts to test besides, which take longer.
    disk_bytes
        Of the work folder.
    power
        What could be found; nothing where there is no text, and for schemes of which no effect is known.
    """

    files: int
    bytes: int
    unreadable: int
    tokens: int
    looked_at: int
    seconds_least: float
    seconds_most: float
    workers: int
    accounts: int
    disk_bytes: int
    power: list[PowerForecast]


def forecast(job: ScanJob, workers: int | None) -> ScanForecast:
    """Look at the files, and at a part of the first ones."""
    sources, unreadable = find_sources(job.paths, job.settings.read)
    tokens, seconds = _tokens(sources, job)
    tokens = int(tokens * job.settings.sample)
    workers = workers or cores()
    total = seconds + tokens * _NANOSECONDS * 1e-9
    return ScanForecast(
        files=len(sources),
        bytes=sum(source.bytes for source in sources),
        unreadable=len(unreadable),
        tokens=tokens,
        looked_at=min(len(sources), _LOOKED_AT),
        seconds_least=total / workers,
        seconds_most=total * _SLOWER / workers,
        workers=workers,
        accounts=len(job.settings.tenants),
        disk_bytes=tokens * _SPILLED,
        power=[found for spec in job.specs for found in _power(spec, tokens, job.settings.alpha)],
    )


def forecast_lines(found: ScanForecast) -> Iterator[str]:
    """Say, line by line, what the scan would read, take and find."""
    unreadable = f"; {found.unreadable} unreadable" if found.unreadable else ""
    yield f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB{unreadable}"
    yield f"about {found.tokens:,} tokens, judged by a part of {found.looked_at} files"
    least, most = _duration(found.seconds_least), _duration(found.seconds_most)
    time = f"about {least}" if least == most else f"{least} to {most}"
    more = f" under one key, and longer for {found.accounts:,} accounts" if found.accounts else ""
    yield (
        f"{time} with {found.workers} workers for reading, "
        f"encoding and scoring{more}; {_AROUND} for starting, controls and the report"
    )
    yield f"about {found.disk_bytes / 1e6:,.0f} MB of disk"
    for row in found.power:
        yield (
            f"{row.scheme}: at 1 nat of entropy a token, p <= {row.alpha:g} with probability {row.power:.0%} needs "
            f"about {min(1.0, row.share):.2%} of {found.tokens:,} tokens marked"
            + ("" if row.share <= 1 else " and more than there are: too little text")
            + "; far fewer where text is less predictable, far more where it is more so"
        )


def _tokens(sources: Sequence[Source], job: ScanJob) -> tuple[float, float]:
    """Tokens in all files, and the processor seconds that reading and encoding them would take."""
    encoder = None if job.tokenizer is None else Encoder.load(job.tokenizer)
    step = max(1, len(sources) // _LOOKED_AT)
    looked = sources[::step][:_LOOKED_AT]
    size = tokens = 0.0
    options = msgspec.structs.replace(job.settings.read, skip_errors=True)
    started = perf_counter()
    for source in looked:
        piece = split(source, _PART)[0]
        share = 1.0 / len(split(source, _PART))
        for batch in read(source, piece, options):
            ids = batch.tokens.ids if batch.tokens is not None else None
            if ids is None:
                assert encoder is not None
                ids = encoder.encode_batch(batch.texts or []).ids
            tokens += len(ids)
            if source.compression:  # one piece: a look at its beginning is enough
                share = min(1.0, tokens * 1.5 / max(1, source.bytes))
                break
        size += source.bytes * share
    seconds = perf_counter() - started
    factor = sum(source.bytes for source in sources) / max(size, 1.0)
    return tokens * factor, seconds * factor


def _power(spec: WatermarkSpec, tokens: int, alpha: float) -> Iterator[PowerForecast]:
    """The share of marked tokens that the pooled test finds; the normal approximation is for planning alone."""
    effect = _EFFECTS.get(spec.scheme)
    if effect is None or not tokens:
        return
    from scipy.special import ndtri

    # One sub-key marks a token and the test sums over all: noise grows with the square root of their number.
    needed = -(ndtri(alpha) + ndtri(1 - _POWER)) * math.sqrt(spec.subkeys) / effect
    share = float(needed / math.sqrt(tokens * spec.global_share or tokens))
    yield PowerForecast(spec_id=spec.spec_id, scheme=spec.scheme, alpha=alpha, power=_POWER, share=share)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
