"""Recompute a scan: the same inputs, specs and keys again, and every number of the record compared."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec

from detect.corpus.engines import Engine
from detect.corpus.readers import ReadOptions
from detect.corpus.record import ScanRecord
from detect.corpus.scan import Progress, ScanJob, scan
from detect.corpus.settings import ScanSettings
from detect.recompute import own_part
from detect.recorded_inputs import recorded_path

# Totals are integers and must agree exactly; other numbers come from floating point that libraries round differently.
_RELATIVE = 1e-6
# What differs by machine or folder, and not by what was found. Of inputs the hashes must agree, of files the contents.
_APART = {"versions", "arguments", "files", "encoder", "name", "skipped_first", "excerpt", "assumptions", "method"}
# What an account's own key leaves as it is, and what of its own tests pays for other keys too.
_OF_NO_KEY = ("inputs", "documents", "tokens", "tuples", "distinct_tuples", "specs", "spec_ids", "key_fingerprint")
_OF_ALL_KEYS = {"log10_pvalue_adjusted", "pointed"}
# What older reports lack, or paid for over keys alone.
_LATER = {"pairs_paid", "points_to", "pointed", "null_key_log10_pvalue"}


def recompute_scan(
    record: ScanRecord,
    key: str,
    tokenizer: str | None,
    report: Path,
    folder: Path | None,
    engine: Engine,
    *,
    account: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Scan again and list every difference, in the record's order; an empty list means that the report holds.

    Parameters
    ----------
    record
        The report.
    key
        Where the key is, which the report names but does not hold.
    tokenizer
        Path of the spec's tokenizer, for text.
    report, folder
        The report's path, and the folder with its inputs, for `detect.recorded_inputs.recorded_path`.
    engine
        Runs the tasks.
    account
        Whose own key ``key`` is: then what concerns this account is compared, and what the key has no say in.

    Raises
    ------
    DyetraceError
        An input is missing, or the key is another.
    """
    options = record.arguments
    names: Any = options["paths"]
    references: Any = options["reference"]
    nulls: Any = options["null_corpus"]
    hashes = {source.sha256 for source in record.inputs}

    def there(name: str, known: Collection[str] = ()) -> str:
        return str(recorded_path(name, folder, report, known))

    job = ScanJob(
        paths=[there(name, hashes) for name in names],
        specs=record.specs,
        key=key,
        settings=_settings(options, account),
        tokenizer=tokenizer,
        reference=[there(name) for name in references],
        null_corpus=[] if "none" in nulls else [name if name == "natural" else there(name) for name in nulls],
        arguments=dict(options),
        commitment=record.commitment,
    )
    with tempfile.TemporaryDirectory(prefix="dyetrace-") as output:
        again = scan(job, Path(output), engine, progress=progress)
    apart = _APART if record.pairs_paid else _APART | _LATER
    before, after = msgspec.to_builtins(record), msgspec.to_builtins(again)
    if account is not None:
        held = {h.key for h in again.hypotheses}
        own_part([h.key for h in record.hypotheses], held)
        before, after = _part(before, held), _part(after, held)
    return list(_differences("report", before, after, apart))


def _part(record: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """What of a record follows without the keys, and from these keys alone."""
    mine = [
        {name: value for name, value in row.items() if name not in _OF_ALL_KEYS}
        for row in record["hypotheses"]
        if row["key"] in keys
    ]
    return {name: record[name] for name in _OF_NO_KEY} | {"hypotheses": mine}


def _settings(options: dict[str, Any], account: str | None) -> ScanSettings:
    """The settings that the command's options stand for."""
    read = ReadOptions(
        form=options["format"],
        field=options["field"],
        id_field=options["id_field"],
        roles=tuple(options["roles"]),
        skip_errors=options["on_error"] == "skip",
    )
    same = ("alpha", "sample", "limit", "decoys", "decoy_seed")
    tenants = tuple(options["tenants"]) if account is None else (account,)
    return ScanSettings(read=read, rate=options["fdr"], tenants=tenants, **{name: options[name] for name in same})


def _differences(where: str, before: Any, after: Any, apart: set[str]) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            older = name == "estimate" and after.get(name) is None and before.get("low") == 0  # of nothing, once
            if name not in apart and not older:
                yield from _differences(f"{where}.{name}", before.get(name), after.get(name), apart)
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield f"{where} has {len(before)} entries, now {len(after)}"
        for number, (a, b) in enumerate(zip(before, after, strict=False)):
            yield from _differences(f"{where}[{number}]", a, b, apart)
    elif isinstance(before, float) and isinstance(after, float | int):
        if abs(before - after) > _RELATIVE * max(1.0, abs(before)):
            yield f"{where} is {before}, now {after}"
    elif before != after:
        yield f"{where} is {before!r}, now {after!r}"
