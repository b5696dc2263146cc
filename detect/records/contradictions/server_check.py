"""What the type of a check of a server's record allows and no run writes."""

from __future__ import annotations

from collections.abc import Iterator

from detect.records.server_check import ServeCheck


def contradictions(record: ServeCheck) -> Iterator[str]:
    """Yield them, a few words each."""
    if not 0 < record.alpha < 1:
        yield f"alpha must lie in (0, 1) (got {record.alpha})"
    if not record.keys:
        yield "it looks for no key"
    for where, log10_p in [
        *((f"key {found.key!r}", found.log10_pvalue) for found in record.keys),
        *((f"answers[{i}]", found.log10_pvalue) for i, found in enumerate(record.answers)),
        *((f"others[{name!r}]", log10_p) for name, log10_p in record.others.items()),
    ]:
        if log10_p > 0:
            yield f"the log10 p-value of {where} must be 0 or less (got {log10_p})"
    for i, answer in enumerate(record.answers):
        if not 0 <= answer.tuples <= answer.tokens or answer.prompt < 0:
            yield f"answers[{i}] has {answer.tuples:,} tuples of {answer.tokens:,} tokens, to prompt {answer.prompt}"
