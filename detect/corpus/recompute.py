"""Recompute a scan: the same inputs, specs and keys again, and every number of the record compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from detect.corpus.engines import Engine
from detect.corpus.scan import Progress, ScanJob, scan
from detect.corpus.settings import ScanSettings
from detect.keyed.held import own_part
from detect.laws.agreement import agree
from detect.readers import Form, ReadOptions
from detect.records.key_name import GLOBAL, KeyName
from detect.records.recorded_inputs import recorded_path, recorded_request
from detect.records.scan import ScanRecord
from watermark.errors import MachineError
from watermark.interruption import unwinding
from watermark.keys import AnyKey, TenantKey, load_key

# What differs by machine or folder, and not by what was found. Of inputs the hashes must agree, of files the contents.
_APART = frozenset(
    (
        *("versions", "arguments", "files", "encoder", "name", "skipped_first", "assumptions", "method"),
        *("created", "made", "how_to_check", "null_corpus"),
    )
)
# What an account's own key leaves as it is, and what of its own tests pays for other keys too.
_OF_NO_KEY = ("inputs", "documents", "tokens", "tuples", "distinct_tuples", "specs", "spec_ids", "key_fingerprint")
_OF_ALL_KEYS = {"log10_pvalue_adjusted", "pointed"}
# What older reports lack, or paid for over keys alone.
_LATER = frozenset(["pairs_paid", "points_to", "pointed", "null_key_log10_pvalue"])
# What reports lack from before it stood in them who made them.
_INPUTS = frozenset(["null_corpus_inputs", "reference_inputs"])
_SEEN = frozenset(["columns", "turns", "unread", "unread_first"])
_OLDER_LEFT_OUT: tuple[Literal["reasoning", "tools"], ...] = ("reasoning", "tools")
_NATURAL = "natural"


def recompute_scan(
    record: ScanRecord,
    key: str,
    tokenizer: str | None,
    report: Path,
    folder: Path | None,
    engine: Engine,
    *,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Scan again and list every difference, in the record's order; an empty list means that the report holds.

    The keys on record are tested and no others, whatever else ``key`` gives. An account's own key gives its own test
    alone: then what concerns it is compared, and what no key has a say in.

    Parameters
    ----------
    record
        The report.
    key
        Where the key is, which the report names but does not hold.
    tokenizer
        Path of the spec's tokenizer, for text.
    report, folder
        The report's path, and the folder with its inputs, for `detect.records.recorded_inputs.recorded_path`.
    engine
        Runs the tasks.
    note
        Told in a line what of an older report can't be compared.

    Raises
    ------
    DyetraceError
        An input is missing, or the key is another.
    """
    request = recorded_request(record.arguments, _Request)
    nulls = request.null_corpus
    hashes = {source.sha256 for source in record.inputs}

    def there(name: str, known: Collection[str] = ()) -> str:
        own = {source.sha256 for source in record.inputs if source.name == name}
        return str(recorded_path(name, folder, report, own if known and own else known))

    holder = load_key(key)
    epochs = {holder.epoch} if isinstance(holder, TenantKey) else {spec.epoch for spec in record.specs}
    mine = own_part(keys_on_record(record), held_of_scan(record, holder))
    every = range(len(record.specs))
    kept = [number for number in every if record.specs[number].epoch in epochs] or list(every)
    names = dict.fromkeys(replace(KeyName.read(h.key), of_spec="") for h in record.hypotheses)
    tested = [name for name in names if not isinstance(holder, TenantKey) or name.tenant == holder.tenant]
    job = ScanJob(
        paths=[there(name, hashes) for name in request.paths],
        specs=[record.specs[number] for number in kept],
        key=key,
        settings=_settings(record, request, tested),
        tokenizer=tokenizer,
        reference=[there(name) for name in request.reference],
        null_corpus=[] if "none" in nulls else [name if name == _NATURAL else there(name) for name in nulls],
        commitment=record.commitment,
        quotes=record.quotes,
    )
    again = _scanned_again(job, engine, progress)
    apart = _APART if record.pairs_paid or record.made else _APART | _LATER
    apart = apart if record.made else apart | _INPUTS
    apart = apart | _SEEN if is_older(record) else apart
    apart = apart if tokenizer else apart | {"excerpt"}  # without one, token ids can't be put into words
    before, after = msgspec.to_builtins(record), msgspec.to_builtins(again)
    if record.made is None and _NATURAL in nulls and mine is None:
        _set_control_apart(record, before["controls"], after["controls"], note)
    if mine is not None:
        on_record = {(h.spec, KeyName.read(h.key).tenant): h.key for h in record.hypotheses}
        for row in after["hypotheses"]:  # as the record counts specs, and names keys among several of them
            row["spec"] = kept[row["spec"]]
            row["key"] = on_record.get((row["spec"], KeyName.read(row["key"]).tenant), row["key"])
        after |= {name: before[name] for name in ("specs", "spec_ids")}
        before, after = _part(before, mine), _part(after, mine)
    return list(_differences("report", before, after, apart))


def _scanned_again(job: ScanJob, engine: Engine, progress: Progress | None) -> ScanRecord:
    """The scan once more, in a temporary folder that goes afterwards."""
    with unwinding(), tempfile.TemporaryDirectory(prefix="dyetrace-") as output:
        try:
            return scan(job, Path(output), engine, progress=progress)
        except MachineError as error:
            refusal, where, _ = str(error).partition(f"work folder {output}")
            if not where:
                raise
            raise MachineError(
                f"{refusal}temporary folder {output}: the disk may be full; set TMPDIR to a folder with more room"
            ) from None


def _set_control_apart(
    record: ScanRecord, before: dict[str, Any], after: dict[str, Any], note: Callable[[str], None] | None
) -> None:
    """Take out what an older report says of its control corpus, where that is no longer to be had.

    It was the documentation of the Python that made the report, whose text changes from version to version; since then
    it comes with dyetrace.
    """
    mine = [name for name in before if name.startswith("null_corpus_") and name not in _INPUTS]
    if not any(difference for name in mine for difference in _differences("", before[name], after[name], frozenset())):
        return
    for controls in (before, after):
        for name in mine:
            controls.pop(name, None)
    python = record.versions.get("python", "a version that is not on record")
    if note is not None:
        note(
            "not compared: what this older report says of its control corpus, which was the documentation of the "
            f"Python that made it ({python}) and gives other numbers than the text that comes with dyetrace now"
        )


def _part(record: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """What of a record follows without the keys, and from these keys alone."""
    mine = [
        {name: value for name, value in row.items() if name not in _OF_ALL_KEYS}
        for row in record["hypotheses"]
        if row["key"] in keys
    ]
    return {name: record[name] for name in _OF_NO_KEY} | {"hypotheses": mine}


def keys_on_record(record: ScanRecord) -> list[str]:
    """Names of all keys that a report tests, in the order of the record."""
    return [h.key for h in record.hypotheses]


def held_of_scan(record: ScanRecord, key: AnyKey) -> list[str]:
    """Which of a report's keys a party's key gives: a master key all of them, an account's own those of its epoch."""
    if not isinstance(key, TenantKey):
        return keys_on_record(record)
    held = [
        h.key
        for h in record.hypotheses
        if KeyName.read(h.key).tenant == key.tenant and record.specs[h.spec].epoch == key.epoch
    ]
    return held or [str(KeyName(key.tenant))]


class _Request(msgspec.Struct, frozen=True):
    """What a scan was asked for that stands in its record nowhere else."""

    paths: list[str]
    reference: list[str] = []
    null_corpus: tuple[str, ...] = (_NATURAL,)
    format: Form | Literal["auto"] = "auto"
    field: list[str] | str | None = None
    id_field: str | None = None
    roles: tuple[str, ...] = ("assistant",)
    leave_out: tuple[Literal["reasoning", "tools"], ...] = ()
    on_error: Literal["stop", "skip"] = "stop"
    limit: int | None = None
    sample: float = 1.0
    decoys: int = 100


def _settings(record: ScanRecord, request: _Request, keys: Collection[KeyName]) -> ScanSettings:
    """The settings of the scan, with the keys to test."""
    columns, older = dict.fromkeys(source.column for source in record.inputs if source.column), is_older(record)
    read = ReadOptions(
        form=request.format,
        fields=_several(request.field) or (tuple(columns) if older else ()),
        id_field=request.id_field,
        roles=request.roles,
        leave_out=_OLDER_LEFT_OUT if older else request.leave_out,
        skip_errors=request.on_error == "skip",
    )
    return ScanSettings(
        read=read,
        alpha=record.alpha,
        rate=record.discoveries.rate,
        sample=request.sample,
        limit=request.limit,
        decoys=request.decoys,
        decoy_seed=record.controls.decoy_seed,
        tenants=tuple(name.tenant for name in keys if name.tenant is not None),
        global_key=GLOBAL in keys,
    )


def is_older(record: ScanRecord) -> bool:
    """Whether the record is from before it stood there which fields and turns there were, and reasoning was read."""
    return not any(source.columns for source in record.inputs)


def _several(field: list[str] | str | None) -> tuple[str, ...]:
    """Fields that were named; older records hold one or none."""
    return (field,) if isinstance(field, str) else tuple(field or ())


def _differences(where: str, before: Any, after: Any, apart: frozenset[str]) -> Iterator[str]:
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
        if not agree(before, after):
            yield f"{where} is {before}, now {after}"
    elif before != after:
        yield f"{where} is {before!r}, now {after!r}"
