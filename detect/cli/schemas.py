"""JSON Schemas (draft 2020-12) of all documents that dyetrace writes or prints, made from the types that write them.

``python -m detect.cli.schemas docs/schemas`` writes them anew, one file each; `dyetrace schema` prints them.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from detect.cli.options.ledger import Schema
from detect.cli.results import print_result
from detect.corpus.forecast import ScanForecast
from detect.corpus.run_times import RunTimes
from detect.race.plan import RacePlan
from detect.records import results
from detect.records.detection import Record
from detect.records.power_plan import PowerPlan
from detect.records.race import RaceRecord
from detect.records.reading import printed
from detect.records.report import Report
from detect.records.scan import Hit, ScanRecord
from detect.records.server_check import ServeCheck
from detect.records.trace import TraceRecord
from detect.records.twins import TwinRecord
from detect.report.signature import Signature
from detect.report.verify.documents import SkippedRow
from detect.student.asking.plan import TracePlan
from detect.twins.plan import TwinPlan
from watermark.commitment import Commitment, Opening
from watermark.errors import DyetraceError
from watermark.files.writing import make_folder, write_atomically
from watermark.generate import Answer
from watermark.ledger_file import LedgerInfo
from watermark.spec import WatermarkSpec
from watermark.twins.commitment import TwinCommitment, TwinOpening, TwinReveal
from watermark.twins.pair import Pair

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECTION = re.compile(r"\n+Attributes\n-+\n")
_DOCUMENTS: dict[str, tuple[type[msgspec.Struct], str]] = {
    "detection": (Record, "dyetrace detection record"),
    "scan": (ScanRecord, "dyetrace scan record"),
    "trace": (TraceRecord, "dyetrace trace record"),
    "trace-plan": (TracePlan, "dyetrace plan of a trace"),
    "power-plan": (PowerPlan, "dyetrace plan of power"),
    "serve-check": (ServeCheck, "dyetrace check of a server"),
    "twins": (TwinRecord, "dyetrace record of a test by twins"),
    "twin-plan": (TwinPlan, "dyetrace plan of a test by twins"),
    "race": (RaceRecord, "dyetrace record of a race readout"),
    "race-plan": (RacePlan, "dyetrace plan of a race readout"),
    "signature": (Signature, "dyetrace signature of a report"),
    "spec": (WatermarkSpec, "dyetrace watermark spec"),
    "commitment": (Commitment, "dyetrace commitment"),
    "opening": (Opening, "dyetrace opening of a commitment"),
    "twin-pair": (Pair, "dyetrace pair of twins: one line of the export of a ledger"),
    "twin-commitment": (TwinCommitment, "dyetrace commitment to twins"),
    "twin-opening": (TwinOpening, "dyetrace opening of a commitment to twins"),
    "twin-reveal": (TwinReveal, "dyetrace pairs of twins shown to an expert"),
    "answer": (Answer, "dyetrace answer: one line of generate's output"),
    "scan-run": (RunTimes, "dyetrace times of a scan's run: run.json"),
    "hit": (Hit, "dyetrace hit: one line of a scan's hits.jsonl"),
    "skipped": (SkippedRow, "dyetrace skipped record: one line of a scan's skipped.jsonl"),
}
_RESULTS = (
    results.KeyMade,
    results.SpecMade,
    results.SpecImported,
    results.CommitmentMade,
    results.CommitmentChecked,
    results.Generated,
    ScanForecast,
    results.TracePlanned,
    results.AskingForecast,
    results.RacePlanned,
    results.RaceForecast,
    results.Recomputed,
    results.ReportChecked,
    results.Drawn,
    results.ReportSigned,
    results.SigningKeyMade,
    LedgerInfo,
    results.AnswersHashed,
    results.LedgersMerged,
    results.TwinsTold,
    results.TwinsCommitted,
    results.TwinsRevealed,
    results.RevealChecked,
    results.TwinsExported,
    results.TwinsErased,
    results.TwinsRegenerated,
    results.TwinsForecast,
    results.SchemaNames,
)


def schema(asked: Schema) -> None:
    """Print one schema, or the names of all."""
    if asked.name is not None:
        click.echo(printed(json_schema(asked.name)).decode(), nl=False)
    elif asked.as_json:
        print_result(results.SchemaNames(names=schema_names()))
    else:
        click.echo("\n".join(schema_names()))


def schema_names() -> list[str]:
    """Names of all schemas: documents, then the results of commands as "result-" and the command's words."""
    return [*_DOCUMENTS, *(_result_name(kind)[0] for kind in _RESULTS)]


def json_schema(name: str) -> dict[str, Any]:
    """Build the schema of that name.

    Raises
    ------
    DyetraceError
        There is none.
    """
    if name in _DOCUMENTS:
        kind, title = _DOCUMENTS[name]
        versions = [field.default for field in msgspec.structs.fields(kind) if field.name == "version"]
        return _built(kind, name, versions[0] if versions else 1, title)
    for kind in _RESULTS:
        its_name, version = _result_name(kind)
        if its_name == name:
            command = name.removeprefix("result-").replace("-", " ")
            return _built(kind, name, version, f"dyetrace {command} --json")
    raise DyetraceError(f"there is no schema {name!r}; `dyetrace schema` lists them")


def write_schemas(folder: Path) -> None:
    """Write all schemas to a folder, one NAME.json each, over those that are there."""
    make_folder(folder)
    for name in schema_names():
        write_atomically(folder / f"{name}.json", printed(json_schema(name)))


def _result_name(kind: type[msgspec.Struct]) -> tuple[str, int]:
    """What a result's schema is called, and its version: "dyetrace-keygen-1" is version 1 of "result-keygen"."""
    words, _, version = str(kind.__struct_config__.tag).removeprefix("dyetrace-").rpartition("-")
    return f"result-{words}", int(version)


def _built(kind: type[msgspec.Struct], name: str, version: int, title: str) -> dict[str, Any]:
    (schema,), kinds = msgspec.json.schema_components([kind])
    head = {"$schema": _DIALECT, "$id": f"urn:dyetrace:{name}:{version}", "title": title}
    common = inspect.getdoc(Report) if issubclass(kind, Report) else None
    parts = {known: _described(part) for known, part in sorted(kinds.items())}
    parts[kind.__name__] = _described(kinds[kind.__name__], common or "")
    _fix_version(parts[kind.__name__], version)
    return {**head, **schema, "$defs": parts}


def _fix_version(part: dict[str, Any], version: int) -> None:
    """Say that a document names its format and version, and that the schema is of this version alone."""
    fields = part["properties"]
    if "version" in fields:
        fields["version"] = {"const": version}
    named = [name for name in ("format", "version") if name in fields and name not in part["required"]]
    part["required"] = [*named, *part["required"]]


def _described(part: dict[str, Any], common: str = "") -> dict[str, Any]:
    """Give each field what the type's docstring says of it, or ``common``, that of the type which it extends."""
    summary, *attributes = _SECTION.split(part.get("description", ""), maxsplit=1)
    attributes = [*_SECTION.split(common, maxsplit=1)[1:], *attributes]
    fields = {name: dict(field) for name, field in part.get("properties", {}).items()}
    for names, text in _attributes("\n".join(attributes)):
        for name in names:
            if name in fields:
                fields[name]["description"] = text
    return {**part, "description": " ".join(summary.split()), "properties": fields}


def _attributes(section: str) -> list[tuple[list[str], str]]:
    """Names and text of each entry of a docstring's attributes."""
    found: list[tuple[list[str], str]] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            found.append((line.split(", "), ""))
        elif found:
            names, text = found[-1]
            found[-1] = names, f"{text} {line.strip()}".strip()
    return found


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
