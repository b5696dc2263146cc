"""What the type of a detection's record allows and no detection writes."""

from __future__ import annotations

from collections.abc import Iterator

from detect.records.detection import Document, Record


def contradictions(record: Record) -> Iterator[str]:
    """Yield them, a few words each."""
    if not 0 < record.alpha < 1:
        yield f"alpha must lie in (0, 1) (got {record.alpha})"
    for i, document in enumerate(record.documents):
        yield from _of_document(document, f"documents[{i}]", record.quotes)


def _of_document(document: Document, where: str, quotes: bool) -> Iterator[str]:
    log10_ps = [document.log10_pvalue, document.log10_pvalue_corpus]
    log10_ps.append(document.aware.log10_pvalue if document.aware else None)
    if any(log10_p is not None and log10_p > 0 for log10_p in log10_ps):
        yield f"log10 p-values of {where} must be 0 or less (got {log10_ps})"
    decoys = [] if document.decoys is None else [*document.decoys.log10_pvalues, document.decoys.log10_agreement]
    if any(log10_p > 0 for log10_p in decoys):
        yield f"log10 p-values of the decoys of {where} must be 0 or less (got {max(decoys)})"
    if document.found and document.log10_pvalue is None:
        yield f"{where} is found, but has no p-value"
    view = document.view
    if view is None:
        return
    if len(view.texts) != len(view.pvalues):
        yield f"{where}.view has {len(view.texts)} texts but {len(view.pvalues)} pvalues"
    if not quotes and any(view.texts):
        yield f"it quotes nothing, and yet {where}.view has texts"
    if not all(p is None or 0 <= p <= 1 for p in view.pvalues):
        yield f"{where}.view.pvalues must lie in 0 .. 1"
