"""What a test gives back to a program: its record, with the few things that nearly everybody asks of one.

A result draws itself in a notebook, prints itself in a terminal, and is saved as the report that the command line
writes, from which another party can recompute it.
"""

from __future__ import annotations

import hashlib
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from rich.console import Console

from detect.folders.published import REPORT, check_folder, replace_report
from detect.laws.multiplicity import holm_log10
from detect.race import evidence as race_evidence
from detect.race.conclude import chances_said
from detect.records.detection import Document, Record
from detect.records.power_plan import PowerPlan
from detect.records.race import RaceRecord
from detect.records.reading import encode_record
from detect.records.reading import read_report as read_any
from detect.records.report import Report
from detect.records.scan import Hit, ScanRecord
from detect.records.server_check import ServeCheck
from detect.records.trace import TraceRecord
from detect.records.twins import TwinRecord
from detect.report.kinds import story_of
from detect.report.paper.notebook import fragment
from detect.report.paper.page import page
from detect.report.paper.terminal import print_story
from detect.twins.evidence import EVIDENCE_FILE, read_evidence
from watermark.errors import DyetraceError, MachineError
from watermark.files.writing import make_folder, write_atomically

_R = TypeVar("_R", bound=Report)
_Answer = TypeVar("_Answer", ScanRecord, TraceRecord, TwinRecord, RaceRecord)
DOCUMENTS = "documents.jsonl"
"""The file that keeps the texts of a saved detection, from which another party recomputes it."""

_WIDTH = 100  # of a summary, in columns


@dataclass(frozen=True, repr=False)
class Result(ABC, Generic[_R]):
    """What came of a test.

    Attributes
    ----------
    record
        All numbers, as `report.json` holds them; nothing secret stands in it.
    folder
        Where its report lies with the files that belong to it; None before `save`.
    """

    record: _R
    folder: Path | None = None

    @property
    @abstractmethod
    def log10_pvalue(self) -> float | None:
        """Log10 of the p-value that ``found`` rests on, every choice paid for; None where no answer is given."""

    @property
    @abstractmethod
    def found(self) -> bool:
        """Whether the mark was found, at the level of the test (``record.alpha``)."""

    @property
    @abstractmethod
    def refused(self) -> str | None:
        """Why no answer is given, or None."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `to_frame`."""

    def summary(self) -> str:
        """The answer and what stands behind it, as the command line prints them."""
        text = io.StringIO()
        print_story(story_of(self.record), Console(file=text, width=_WIDTH))
        return text.getvalue()

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the report to a folder: report.json, the page, and the files that belong to it.

        Parameters
        ----------
        folder
            It is made if it isn't there; a folder holds one report.
        force
            Replace a report there that is signed, or of another kind.

        Returns
        -------
        Path
            Of report.json.

        Raises
        ------
        DyetraceError
            The folder holds what must not be replaced, or can't be written.
        """
        output = Path(folder)
        check_folder(output, self.record.format, force=force)
        data = encode_record(self.record)
        drawn = page(story_of(self.record)).encode()
        replace_report(output, {**self._files(), "report.html": drawn, "report.json": data})
        return output / "report.json"

    def to_frame(self) -> Any:
        """A row for each document, key of a trace, pair of twins or place of a race readout.

        A `pandas.DataFrame`, or where pandas is not installed a `pyarrow.Table`.

        Raises
        ------
        MachineError
            Neither is installed.
        """
        rows = self.rows()
        try:
            import pandas
        except ImportError:
            try:
                import pyarrow
            except ImportError:
                raise MachineError("a table needs pandas or pyarrow: pip install 'dyetrace[scan]'") from None
            return pyarrow.Table.from_pylist(rows)
        return pandas.DataFrame(rows)

    def _files(self) -> Mapping[str, bytes]:
        """What belongs to the report beside its record."""
        return {file.name: self._file(file.name) for file in getattr(self.record, "files", ())}

    def _file(self, name: str) -> bytes:
        if self.folder is None:
            raise DyetraceError("the files of this report are not at hand: read it with `detect.read_report`")
        try:
            return self.folder.joinpath(name).read_bytes()
        except OSError as error:
            raise DyetraceError(
                f"cannot read {error.filename}, which belongs to this report: {error.strerror}; restore it"
            ) from None

    def __repr__(self) -> str:
        p = "refused" if self.log10_pvalue is None else f"log10_pvalue={self.log10_pvalue:.2f}"
        return f"<{type(self).__name__} found={self.found} {p} {self._counts()}>"

    def _counts(self) -> str:
        return ""

    def _repr_html_(self) -> str:
        return fragment(story_of(self.record))


@dataclass(frozen=True, repr=False)
class DetectionResult(Result[Record]):
    """What came of testing documents: one p-value that pays for all of them, and each document's own numbers.

    Attributes
    ----------
    texts
        The bytes of `DOCUMENTS`, where a program gave the texts; None where files were read.
    """

    texts: bytes | None = None

    @property
    def documents(self) -> Sequence[Document]:
        """The documents, in the order in which they were given."""
        return self.record.documents

    @property
    def log10_pvalue(self) -> float | None:
        """Of the strongest document: keys, documents, and the second test where there is a model are paid for."""
        given = [document for document in self.documents if document.refused is None]
        if not given:
            return None
        blind = min(document.log10_pvalue_corpus or 0.0 for document in given)
        if all(document.aware is None for document in self.documents):
            return blind
        aware = holm_log10([0.0 if d.aware is None else d.aware.log10_pvalue for d in self.documents])
        return min(0.0, float(min(blind, *aware)) + math.log10(2))

    @property
    def found(self) -> bool:
        """Whether any document is marked."""
        return any(document.found for document in self.documents)

    @property
    def refused(self) -> str | None:
        """Why no document has an answer, or None."""
        reasons = [document.refused for document in self.documents]
        return reasons[0] if reasons and all(reasons) else None

    @property
    def points_to(self) -> list[str]:
        """The keys that marked documents point to: "global" or "tenant:NAME"."""
        return list(dict.fromkeys(key for document in self.documents for key in document.points_to or ()))

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """As `Result.save`; texts that a program gave go into `DOCUMENTS`, unless none may be quoted."""
        if self.texts is not None and self.record.quotes:
            path = Path(folder) / DOCUMENTS
            if path.exists() and not _is_of_report(path):
                raise DyetraceError(f"{path} is there already and no part of a report; give another folder")
            check_folder(path.parent, self.record.format, force=force)
            make_folder(path.parent)
            write_atomically(path, self.texts)
        return super().save(folder, force=force)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each document."""
        names = ("name", "tokens", "tuples", "found", "log10_pvalue", "log10_pvalue_corpus", "points_to", "refused")
        return [{name: getattr(document, name) for name in names} for document in self.documents]

    def _counts(self) -> str:
        return f"documents={len(self.documents)}"


def _is_of_report(path: Path) -> bool:
    """Whether a file holds the texts of the detection whose report lies beside it."""
    report = path.with_name(REPORT)
    if not report.exists():
        return False
    record = read_any(report)[1]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return isinstance(record, Record) and any(given.sha256 == sha256 for given in record.inputs)


class _Answered(Result[_Answer]):
    """Whose record says itself what the answer is."""

    @property
    def log10_pvalue(self) -> float | None:
        """Of the whole test, every choice paid for."""
        return self.record.log10_pvalue

    @property
    def found(self) -> bool:
        """Whether the mark was found; of twins, whether the suspect prefers the answers that were served."""
        return self.record.found

    @property
    def refused(self) -> str | None:
        """Why there is no answer, or None."""
        return self.record.refused


class ScanResult(_Answered[ScanRecord]):
    """What came of a scan: one p-value for the corpus, and the documents that it lists."""

    @property
    def hits(self) -> Sequence[Hit]:
        """The strongest documents of the list, at the stated false-discovery rate."""
        return self.record.hits

    def rows(self) -> list[dict[str, Any]]:
        """A row for each document of the corpus, as `documents.parquet` has them."""
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(self._file("documents.parquet"))).to_pylist()
        return rows

    def _counts(self) -> str:
        return f"documents={self.record.documents} listed={self.record.discoveries.benjamini_hochberg}"


class TraceResult(_Answered[TraceRecord]):
    """What came of tracing a student."""

    def rows(self) -> list[dict[str, Any]]:
        """A row for each key that was tested."""
        return [msgspec.to_builtins(hypothesis) for hypothesis in self.record.hypotheses]

    def _counts(self) -> str:
        return f"keys={len(self.record.hypotheses)}"


class TwinResult(_Answered[TwinRecord]):
    """What came of a test by twins."""

    def rows(self) -> list[dict[str, Any]]:
        """A row for each pair that was bet on, in that order, as `twins.npz` has them."""
        self._file(EVIDENCE_FILE)
        assert self.folder is not None
        found = read_evidence(self.folder / EVIDENCE_FILE)
        rows = zip(found.ids, found.made, found.signs.tolist(), found.differences.tolist(), strict=True)
        return [
            {"id": ident, "made": made, "sign": sign, **dict(zip(found.columns, numbers, strict=True))}
            for ident, made, sign, numbers in rows
        ]

    def _counts(self) -> str:
        return f"pairs={self.record.pairs.asked}"


class RaceResult(_Answered[RaceRecord]):
    """What came of a race readout: whether the suspect says what the key chose."""

    def rows(self) -> list[dict[str, Any]]:
        """A row for each place that was bet on, in that order, as `race.npz` has them; no key is needed."""
        self._file(race_evidence.EVIDENCE_FILE)
        assert self.folder is not None
        found = race_evidence.read_evidence(self.folder / race_evidence.EVIDENCE_FILE)
        said = found.said.tolist()
        chances = chances_said(found).tolist()
        return [
            {
                "answer": found.names[document],
                "position": position,
                "said": None if column == race_evidence.NOT_SAID else int(found.tokens[row, column]),
                "chance": None if column == race_evidence.NOT_SAID else chances[row],
            }
            for row, (document, position, column) in enumerate(
                zip(found.documents.tolist(), found.positions.tolist(), said, strict=True)
            )
        ]

    def _counts(self) -> str:
        return f"places={self.record.counts.asked}"


class CheckResult(Result[ServeCheck]):
    """What came of checking a server."""

    @property
    def log10_pvalue(self) -> float | None:
        """Of the weakest key that should show, in all answers together."""
        return max((key.log10_pvalue for key in self.record.keys), default=None)

    @property
    def found(self) -> bool:
        """Whether all that the server said is marked as it should be."""
        return self.record.verdict.startswith("MARKED")

    @property
    def refused(self) -> str | None:
        """Why the answers don't tell, or None."""
        open_checks = [check.reason for check in self.record.checks if check.status == "OPEN"]
        return open_checks[0] if open_checks and not self.found else None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each line of the verdict."""
        return [msgspec.to_builtins(check) for check in self.record.checks]


class PlanResult(Result[PowerPlan]):
    """What a trace could show: a forecast, in which nothing is tested and nothing found."""

    log10_pvalue = None
    found = False
    refused = None

    def rows(self) -> list[dict[str, Any]]:
        """A row for what was asked, then for other looks and context widths."""
        plan = self.record
        return [msgspec.to_builtins(row) for row in (plan.asked, *plan.looks, *plan.widths)]


_RESULTS: dict[type[Report], type[Result[Any]]] = {
    Record: DetectionResult,
    ScanRecord: ScanResult,
    TraceRecord: TraceResult,
    ServeCheck: CheckResult,
    PowerPlan: PlanResult,
    TwinRecord: TwinResult,
    RaceRecord: RaceResult,
}


def result_of(record: Report, folder: Path | None = None) -> Result[Any]:
    """The result of a record."""
    return _RESULTS[type(record)](record, folder)


def read_report(path: str | Path) -> Result[Any]:
    """Read a report that dyetrace wrote.

    Parameters
    ----------
    path
        Of report.json, or of the folder that holds it.

    Raises
    ------
    DyetraceError
        It isn't there, isn't a report, was written by a newer release, or contradicts itself.

    Examples
    --------
    >>> import detect
    >>> detect.read_report("tests/golden/scan")
    <ScanResult found=True log10_pvalue=-92.69 documents=12 listed=6>
    """
    given = Path(path)
    file = given / "report.json" if given.is_dir() else given
    return result_of(read_any(file)[1], file.parent)
