"""Edits of reports: every number of a record in turn, changed as a forger would change it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from detect.records.reading import written
from detect.records.scan import FileHash
from detect.report.verification import verify_report

Where = tuple[Any, ...]


def leaves(value: Any, where: Where = ()) -> Iterator[tuple[Where, Any]]:
    """All numbers and truth values, with where they stand."""
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*where, name))
    elif isinstance(value, bool | int | float):
        yield where, value


def edited(value: Any) -> Any:
    """Another value: totals are so fine that their last digits change no p-value."""
    if isinstance(value, bool):
        return not value
    return value + value // 9 + 1 if isinstance(value, int) else 1.25 * value - 0.3


def changed(plain: Any, where: Where, value: Any) -> bytes:
    """The report with one value changed, written as dyetrace would write it."""
    again = json.loads(json.dumps(plain))
    holder = again
    for name in where[:-1]:
        holder = holder[name]
    holder[where[-1]] = value
    return msgspec.json.format(msgspec.json.encode(again, order="sorted"), indent=2) + b"\n"


def unseen(path: Path, known: Iterable[str]) -> list[str]:
    """Where a number of a report can be edited and it still holds, beside the places that are known for it."""
    data = path.read_bytes()
    plain, patterns = json.loads(data), [re.compile(one) for one in known]
    found = []
    for where, value in leaves(plain):
        name = ".".join(map(str, where))
        if any(one.fullmatch(name) for one in patterns):
            continue
        path.write_bytes(changed(plain, where, edited(value)))
        if verify_report(path).holds:
            found.append(name)
    path.write_bytes(data)
    return found


def put(*where: Any, value: Any) -> Callable[[Any], None]:
    """A change of a report: one value in another's place."""

    def change(plain: Any) -> None:
        for name in where[:-1]:
            plain = plain[name]
        plain[where[-1]] = value

    return change


def edited_copy(report: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a report's folder in which something of the report is changed; the path of its report.json."""
    shutil.copytree(report, folder / report.name)
    path = folder / report.name / "report.json"
    plain = json.loads(path.read_bytes())
    change(plain)
    path.write_bytes(written(plain))
    return path


def failed(path: Path) -> dict[str, str]:
    """The checks that fail, and what they say."""
    return {check.name: check.line for check in verify_report(path).failed}


def forge_file(folder: Path, name: str, data: bytes) -> None:
    """Another file under a report, with its hash in it."""
    (folder / name).write_bytes(data)
    plain = json.loads((folder / "report.json").read_bytes())
    plain["files"] = [msgspec.to_builtins(FileHash.of(name, data))]
    (folder / "report.json").write_bytes(written(plain))
