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


def forecast(job: ScanJob, workers: int | None) -> Iterator[str]:
    """Say, line by line, what the scan would read, take and find."""
    sources, unreadable = find_sources(job.paths, job.settings.read)
    size = sum(source.bytes for source in sources)
    tokens, seconds = _tokens(sources, job)
    tokens = int(tokens * job.settings.sample)
    workers = workers or cores()
    yield f"{len(sources):,} files, {size / 1e6:,.1f} MB" + (f"; {len(unreadable)} unreadable" if unreadable else "")
    yield f"about {tokens:,} tokens, judged by a part of {min(len(sources), _LOOKED_AT)} files"
    total = seconds + tokens * _NANOSECONDS * 1e-9
    least, most = _duration(total / workers), _duration(total * _SLOWER / workers)
    time = f"about {least}" if least == most else f"{least} to {most}"
    yield (
        f"{time} with {workers} workers for reading, "
        f"encoding and scoring{_more(job)}; {_AROUND} for starting, controls and the report"
    )
    yield f"about {tokens * _SPILLED / 1e6:,.0f} MB of disk"
    for spec in job.specs:
        yield from _power(spec, tokens, job.settings.alpha)


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


def _power(spec: WatermarkSpec, tokens: int, alpha: float) -> Iterator[str]:
    """The share of marked tokens that the pooled test finds; the normal approximation is for planning alone."""
    effect = _EFFECTS.get(spec.scheme)
    if effect is None or not tokens:
        return
    from scipy.special import ndtri

    # One sub-key marks a token and the test sums over all: noise grows with the square root of their number.
    needed = -(ndtri(alpha) + ndtri(1 - _POWER)) * math.sqrt(spec.subkeys) / effect
    share = needed / math.sqrt(tokens * spec.global_share or tokens)
    yield (
        f"{spec.scheme}: at 1 nat of entropy a token, p <= {alpha:g} with probability {_POWER:.0%} needs about "
        f"{min(1.0, share):.2%} of {tokens:,} tokens marked"
        + ("" if share <= 1 else " and more than there are: too little text")
        + "; far fewer where text is less predictable, far more where it is more so"
    )


def _more(job: ScanJob) -> str:
    accounts = len(job.settings.tenants)
    return f" under one key, and longer for {accounts:,} accounts" if accounts else ""


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
