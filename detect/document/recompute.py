"""Recompute a report: the same inputs, spec and keys again, and every number compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from detect.document.detection import Settings, adjust, detect
from detect.keyed.held import held_keys, own_part
from detect.laws.agreement import agree, all_agree, slack
from detect.readers.suspects import Format, Suspect, from_text_alone, read_suspects
from detect.records.detection import DecoyRun, Document, Hypothesis, Record, TokenView
from detect.records.key_name import GLOBAL, KeyName
from detect.records.recorded_inputs import recorded_path, recorded_request
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys import KeyRing

_SHOWN = 2e-3  # of a token's p-value, which is on record with four digits
_PLACES = ("line ", "row ", "element ", "record ")  # how documents of a file with several are called


class _Request(msgspec.Struct, frozen=True):
    """How a detection read its inputs."""

    format: Format = "auto"
    text_field: str = "text"
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    from_text: bool = False


def recompute(record: Record, ring: KeyRing, tokenizer: Any, report: Path, folder: Path | None = None) -> list[str]:
    """Run the blind tests of ``record`` again and list every difference; an empty list means that it holds.

    A ring that lacks some of the report's keys, as an account's own does, tests those that it has: what follows from
    all keys together is left out then. Differences stand in the record's order.

    Parameters
    ----------
    record
        The report.
    ring
        Keys of the report and no others (`ring_on_record`), which the report names but does not hold.
    tokenizer
        The tokenizer of the spec.
    report, folder
        The report's path, and the folder with its inputs, for `detect.records.recorded_inputs.recorded_path`.

    Raises
    ------
    DyetraceError
        An input is missing, came from standard input, or its bytes are not those of the report.
    """
    request = recorded_request(record.arguments, _Request)
    if record.documents and not record.inputs:
        raise DyetraceError("the report names no file that its documents stood in: the program that made it has them")
    suspects: list[Suspect] = []
    for before in record.inputs:
        if before.name == "-":
            raise DyetraceError("the report's input was standard input; save it to a file and detect again")
        path = recorded_path(before.name, folder, report, {before.sha256})
        found, now = read_suspects(str(path), request.format, request.text_field)
        if now.sha256 != before.sha256:
            raise EvidenceError(
                f"{before.name} is not the file of the report: SHA-256 {now.sha256}, not {before.sha256}"
            )
        suspects += found[: request.limit]
    if request.from_text:
        suspects = [from_text_alone(suspect) for suspect in suspects]
    names = keys_on_record(record)
    mine = own_part(names, held_keys(record.spec, ring))
    viewed = frozenset(number for number, document in enumerate(record.documents) if document.view is not None)
    settings = Settings(
        alpha=record.alpha,
        decoy_count=record.decoy_count if mine is None else 0,
        decoy_seed=record.decoy_seed,
        decoy_accounts=len(ring.tenants) if record.decoy_accounts is None else record.decoy_accounts,
        key_sums=record.keys is not None,
        view=mine is None,
        viewed=viewed,
        quotes=record.quotes,
    )
    held = record.unlike_text is not None  # earlier releases took token ids as they stand
    again = detect(suspects, record.inputs, record.spec, ring, tokenizer, settings, held=held)
    if len(record.documents) != len(again.documents):
        return [f"the report has {len(record.documents)} documents, the inputs {len(again.documents)}"]
    pairs = list(zip(record.documents, again.documents, strict=True))
    if mine is not None:
        lines = [line for a, b in pairs for line in _own_differences(a, b, mine)]
    else:
        # The model-aware test is not run again: what follows from both is judged by its numbers on record.
        aware = [msgspec.structs.replace(b, aware=a.aware) for a, b in pairs]
        judged = adjust(aware, record.alpha)
        lines = [line for a, b in zip(record.documents, judged, strict=True) for line in _differences(a, b)]
    if again.unlike_text != record.unlike_text:
        lines.append(
            f"documents whose token ids spell other text than their own: {record.unlike_text}; now {again.unlike_text}"
        )
    return [*lines, *_other_sums(record, again)]


def keys_on_record(record: Record) -> list[str]:
    """Names of all keys that a report tests, in the order of the record."""
    if record.keys is not None:
        return [key.key for key in record.keys]
    named = list(dict.fromkeys(h.key for document in record.documents for h in document.hypotheses))
    if named:
        return named
    accounts: Any = record.arguments.get("tenants") or ()
    tenants = [str(KeyName(name)) for name in accounts]
    alone = any(document.keys_tested == len(tenants) for document in record.documents)
    return tenants if alone else [str(GLOBAL), *tenants]


def _tokens(a: Document, b: Document) -> Iterator[str]:
    if (a.sha256, a.tokens, a.prompt_tokens, a.tuples) != (b.sha256, b.tokens, b.prompt_tokens, b.tuples):
        yield f"{a.name}: other tokens or tuples ({a.tokens} and {a.tuples}; now {b.tokens} and {b.tuples})"


def _differences(a: Document, b: Document) -> Iterator[str]:
    """Of a document under all keys, in the record's order."""
    if a.name != b.name and b.name.startswith(_PLACES):  # a file's name goes by where it lies
        yield f"{a.name}: the file calls it {b.name}"
    yield from _tokens(a, b)
    if (a.refused is None) != (b.refused is None):
        yield f"{a.name}: it is {'' if a.refused else 'not '}refused, and would {'not ' if a.refused else ''}be now"
        return
    if [h.key for h in a.hypotheses] != [h.key for h in b.hypotheses]:
        yield f"{a.name}: other keys"
    yield from _hypotheses(a, [*a.hypotheses], {h.key: h for h in b.hypotheses}, adjusted=True)
    if a.tested != b.tested:
        yield f"{a.name}: {a.tested:,} keys tested, now {b.tested:,}"
    decoys = [d.decoys.log10_pvalues if d.decoys else [] for d in (a, b)]
    numbers = [[d.log10_pvalue, d.log10_pvalue_corpus, *more] for d, more in zip((a, b), decoys, strict=True)]
    if not all_agree(*numbers):
        yield f"{a.name}: other p-values (log10 p {a.log10_pvalue}, now {b.log10_pvalue})"
    if a.decoys is not None and b.decoys is not None:
        if not _same_rank(a.decoys, b) or not agree(a.decoys.log10_agreement, b.decoys.log10_agreement):
            yield f"{a.name}: another rank or agreement of decoys"
    if a.found != b.found:
        yield f"{a.name}: it is {'' if a.found else 'not '}found, and would {'not ' if a.found else ''}be now"
    if a.points_to is not None and a.points_to != b.points_to:
        yield f"{a.name}: it points to other keys"
    if a.view is not None:
        yield from _quoted(a, a.view, b)


def _quoted(a: Document, view: TokenView, b: Document) -> Iterator[str]:
    """Of what the page shows of a document's tokens."""
    if b.view is None or view.texts != b.view.texts:
        yield f"{a.name}: what is quoted of it is not its text"
        return
    if (view.hypothesis, view.subkey) != (b.view.hypothesis, b.view.subkey):
        yield f"{a.name}: its tokens are shown under another key"
        return
    pairs = [(x, y) for x, y in zip(view.pvalues, b.view.pvalues, strict=False) if x != y]
    alike = all(x is not None and y is not None and abs(x - y) <= _SHOWN * y for x, y in pairs)
    if len(view.pvalues) != len(b.view.pvalues) or not alike:
        yield f"{a.name}: other p-values of its tokens"


def _same_rank(before: DecoyRun, after: Document) -> bool:
    """Whether a rank is one that rounding leaves open: a decoy as extreme as the key may have been counted or not."""
    now = after.decoys
    if now is None or before.drawn != now.drawn:
        return False
    if now.drawn is not None or after.log10_pvalue is None:
        return now.drawn is None or before.rank == now.rank
    tie = slack(after.log10_pvalue)
    least, most = (sum(p <= after.log10_pvalue + d for p in now.log10_pvalues) for d in (-tie, tie))
    return least < before.rank <= most + 1


def _own_differences(a: Document, b: Document, mine: set[str]) -> Iterator[str]:
    """Of a document under some of the keys alone; what follows from all keys together is left out."""
    yield from _tokens(a, b)
    if a.refused is None:
        own = [h for h in a.hypotheses if h.key in mine]
        yield from _hypotheses(a, own, {h.key: h for h in b.hypotheses}, adjusted=False)


def _hypotheses(
    document: Document, before: Sequence[Hypothesis], after: Mapping[str, Hypothesis], *, adjusted: bool
) -> Iterator[str]:
    for a in before:
        b = after.get(a.key)
        if b is None:
            continue
        totals = [(h.tuples, [(s.subkey, s.total) for s in h.subkeys]) for h in (a, b)]
        if totals[0] != totals[1]:
            yield f"{document.name}: other sums of statistics under {a.key}"
        paid = [[h.log10_pvalue_adjusted] if adjusted else [] for h in (a, b)]
        numbers = [
            [*(s.log10_pvalue for s in h.subkeys), h.log10_pvalue, *more] for h, more in zip((a, b), paid, strict=True)
        ]
        if not all_agree(*numbers):
            yield f"{document.name}: other p-values under {a.key}"


def _other_sums(before: Record, after: Record) -> Iterator[str]:
    """Keys of a large family whose sums, of whatever document, are not those of the record."""
    now = {key.key: key.sha256 for key in after.keys or ()}
    for key in before.keys or ():
        if now.get(key.key, key.sha256) != key.sha256:
            yield f"other sums of statistics under {key.key} in some document"
