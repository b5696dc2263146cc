"""Recompute a report: the same inputs, spec and keys again, and every number compared."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from detect.detection import Settings, detect
from detect.document import tested_keys
from detect.evidence import Document, Record
from detect.inputs import from_text_alone, read_suspects
from detect.recorded_inputs import recorded_path
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys import KeyRing

# Totals are integers and must agree exactly; log10 p comes from floating point that libraries round differently.
_RELATIVE = 1e-6


def recompute(record: Record, ring: KeyRing, tokenizer: Any, report: Path, folder: Path | None = None) -> list[str]:
    """Run the blind tests of ``record`` again and list every difference; an empty list means that it holds.

    A ring that lacks some of the report's keys, as an account's own does, tests those that it has: what follows from
    all keys together is left out then.

    Parameters
    ----------
    record
        The report.
    ring
        The keys, which the report names but does not hold.
    tokenizer
        The tokenizer of the spec.
    report, folder
        The report's path, and the folder with its inputs, for `detect.recorded_inputs.recorded_path`.

    Raises
    ------
    DyetraceError
        An input is missing, came from standard input, or its bytes are not those of the report.
    """
    arguments: dict[str, Any] = dict(record.arguments)
    suspects = []
    for before in record.inputs:
        if before.name == "-":
            raise DyetraceError("the report's input was standard input; save it to a file and detect again")
        path = recorded_path(before.name, folder, report, {before.sha256})
        found, now = read_suspects(str(path), arguments["format"], arguments["text_field"])
        if now.sha256 != before.sha256:
            raise EvidenceError(
                f"{before.name} is not the file of the report: SHA-256 {now.sha256}, not {before.sha256}"
            )
        suspects += found[: arguments["limit"]]
    if arguments["from_text"]:
        suspects = [from_text_alone(suspect) for suspect in suspects]
    settings = Settings(alpha=record.alpha, decoy_count=record.decoy_count, decoy_seed=record.decoy_seed, view=False)
    again = detect(suspects, record.inputs, record.spec, ring, tokenizer, settings)
    named = {h.key for document in record.documents for h in document.hypotheses}
    mine = own_part(named, tested_keys(record.spec, ring))
    return list(_differences(record.documents, again.documents, mine))


def own_part(keys: Collection[str], held: Collection[str]) -> set[str] | None:
    """Names of the keys of a report that a ring holds; None where it holds all, so that everything can be compared.

    Raises
    ------
    DyetraceError
        It holds none.
    """
    mine = set(keys) & set(held)
    if keys and not mine:
        raise DyetraceError(
            f"the report does not concern this key: it tests {', '.join(sorted(keys)[:5])}, and not {', '.join(held)}"
        )
    return mine if mine < set(keys) else None


def _differences(before: Sequence[Document], after: Sequence[Document], mine: set[str] | None) -> Iterator[str]:
    if len(before) != len(after):
        yield f"the report has {len(before)} documents, the inputs {len(after)}"
    for a, b in zip(before, after, strict=False):
        if (a.sha256, a.tokens, a.tuples) != (b.sha256, b.tokens, b.tuples):
            yield f"{a.name}: other tokens or tuples ({a.tokens} and {a.tuples}; now {b.tokens} and {b.tuples})"
        own = [[h for h in d.hypotheses if mine is None or h.key in mine] for d in (a, b)]
        totals = [[(h.key, h.tuples, s.subkey, s.total) for h in part for s in h.subkeys] for part in own]
        if totals[0] != totals[1]:
            yield f"{a.name}: other sums of statistics"
        if mine is not None:
            tails = [[h.log10_pvalue for h in part] for part in own]
            if len(tails[0]) != len(tails[1]) or not all(map(close, *tails)):
                yield f"{a.name}: other p-values"
            continue
        numbers = [
            [d.log10_pvalue, d.log10_pvalue_corpus, *(d.decoys.log10_pvalues if d.decoys else [])] for d in (a, b)
        ]
        if len(numbers[0]) != len(numbers[1]) or not all(map(close, *numbers)):
            yield f"{a.name}: other p-values (log10 p {a.log10_pvalue}, now {b.log10_pvalue})"


def close(a: float | None, b: float | None) -> bool:
    """Whether two log10 values agree up to what libraries round differently."""
    return a == b or (a is not None and b is not None and abs(a - b) <= _RELATIVE * max(1.0, abs(a)))
