"""`dyetrace recompute`: a report of any kind, computed anew from its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import click

from detect.cli.models import model_folder
from detect.cli.options.detection import Recompute
from detect.cli.reading import absolute_source
from detect.cli.results import print_result
from detect.cli.stages import StageProgress
from detect.cli.working import doing, rest, say
from detect.records.reading import read_report
from detect.records.results import Recomputed
from detect.report.kinds import kind_of
from detect.report.recompute import Request
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys import TenantKey, load_key

_NAMED = 5  # keys that were not checked, by name


def recompute(asked: Recompute) -> None:
    """Compute it and say whether all numbers are the same."""
    doing("reading the report and its inputs")
    found, left = _recomputed(asked)
    rest()
    if asked.as_json:
        print_result(found)
    if not found.holds:
        raise EvidenceError(f"the report does not hold: {'; '.join(found.differences[:5])}")
    what = f"{found.count:,} {found.unit if found.count != 1 else found.unit.removesuffix('s')} recomputed"
    if asked.as_json:
        return
    if not found.keys_unchecked:
        click.echo(f"the report holds: {what}, every number the same")
        return
    named = f"{', '.join(left[:_NAMED])}{' and more' if len(left) > _NAMED else ''}"
    click.echo(
        f"the part of account {found.account!r} holds: {what}, every number of its own test the same. Not checked "
        f"with this key: the {found.keys_unchecked:,} other keys ({named}), and what follows from all keys together "
        "(adjusted p-values, the verdict, decoys, lists and shares)"
    )


def _recomputed(asked: Recompute) -> tuple[Recomputed, Sequence[str]]:
    """Compute a report of whatever kind anew, and name the keys on record that this key can't test."""
    _, record = read_report(asked.report)
    kind = kind_of(record)
    if isinstance(kind.recompute, str):
        raise DyetraceError(kind.recompute)
    loaded = load_key(asked.key)
    request = Request(
        report=asked.report,
        key=absolute_source(asked.key),
        tokenizer=asked.tokenizer,
        inputs=asked.inputs,
        default_tokenizer=lambda: str(model_folder(None)),
        doing=doing,
        note=say,
        progress=StageProgress(),
    )
    anew = kind.recompute(record, request)
    left = [name for name in anew.keys if name not in anew.held]
    found = Recomputed(
        path=str(asked.report),
        report=anew.report,
        holds=not anew.differences,
        differences=list(anew.differences),
        unit=anew.unit,
        count=anew.count,
        account=loaded.tenant if isinstance(loaded, TenantKey) else None,
        keys_unchecked=len(left),
    )
    return found, left
