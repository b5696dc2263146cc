"""How often contexts were served: by the served answers themselves, or by the ledger that a server kept of them.

A trace names the file by its SHA-256, and what it looks up must be what stands there: a ledger that a server still
writes to is refused, and one that was changed during the trace as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from detect.models.reading import ReadingDocument, context_fingerprints, read_text, served_subkeys
from detect.records.scan import FileHash
from detect.student.texts.marked import check_unmarked, not_carried
from detect.student.verdict.weights import Served
from detect.text.encode import Encoder
from watermark.errors import DyetraceError
from watermark.generate import Answer
from watermark.keys import KeyRing
from watermark.ledger import Ledger
from watermark.ledger_file import describe, is_ledger, is_written
from watermark.prf import U32
from watermark.spec import WatermarkSpec

ServedOf = Callable[[Sequence[U32]], Served]
"""What was served of the contexts that stand in some token sequences; it may tell of other contexts too."""


@dataclass(frozen=True, eq=False)
class ServedContexts:
    """An open source of served counts.

    Attributes
    ----------
    file
        What was read.
    of
        Looks up counts.
    marked
        Whether the answers were marked with the spec's key, as those of a server's ledger are. Then counts are the
        key's own work, and `detect.student.verdict.weights.gathered_served` uses only what it may.
    not_carried
        Why these answers allow no acquittal (`detect.student.texts.marked.not_carried`).
    """

    file: FileHash
    of: ServedOf
    marked: bool
    not_carried: str | None = None

    def in_documents(self, documents: Sequence[ReadingDocument], width: int) -> Served:
        """What was served of the contexts in which the documents' own tokens stand."""
        return self.of([document.sequence[max(0, document.lead - width) :] for document in documents])


@contextmanager
def open_served(
    source: str | None, spec: WatermarkSpec, ring: KeyRing, encoder: Encoder, tenant: str | None = None
) -> Iterator[ServedContexts | None]:
    """Open served answers or a ledger; None where there is no source.

    Parameters
    ----------
    source
        A ledger, which is known by how it begins whatever its name is; or any file that
        `detect.models.reading.read_text` reads.
    spec, ring, encoder
        The watermark, the keys, and the encoder of the spec's tokenizer.
    tenant
        Count only this account's answers (`counted_account`).

    Raises
    ------
    DyetraceError
        The file cannot be read; the ledger is of another spec or key, is open for writing, or was changed before the
        block ended; the ring lacks the key of the counts that are asked for.
    """
    if source is None:
        yield None
        return
    file = served_file(source)
    if not is_ledger(Path(source)):
        answers = read_text(source, spec, encoder, tenant=tenant)
        if not answers.marked:
            check_unmarked(answers, spec, ring)
        counts = served_subkeys(answers.documents, spec.context_width)
        lacking = not_carried(answers, spec, ring) if answers.marked else None
        yield ServedContexts(file, lambda _: counts, answers.marked, lacking)
        return
    account = counted_account(source, spec, ring, tenant)
    with Ledger.open(Path(source), spec, ring) as ledger:
        yield ServedContexts(file, lambda sequences: _looked_up(ledger, account, sequences, spec.context_width), True)
    if served_file(source).sha256 != file.sha256:
        raise DyetraceError(
            f"ledger {source} was changed while it was read; trace with a copy of it that no server writes to"
        )


def served_file(source: str) -> FileHash:
    """The file's name, SHA-256 and size; DyetraceError where it cannot be read or a server writes to it."""
    path = Path(source)
    try:
        if is_ledger(path) and is_written(path):
            raise DyetraceError(
                f"ledger {source} is open for writing, so its SHA-256 would soon be that of no file; give a copy of "
                "it, or what `dyetrace ledger merge` makes of several servers' ledgers"
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return FileHash(name=source, sha256=digest.hexdigest(), bytes=file.tell())
    except OSError as error:
        raise DyetraceError(f"cannot read {source}: {error.strerror}") from None


def counted_account(source: str | None, spec: WatermarkSpec, ring: KeyRing, tenant: str | None) -> str | None:
    """The account whose answers are counted, None for all: with a tenant's key a ledger tells that tenant's alone.

    Raises
    ------
    DyetraceError
        The ledger is of another spec or key, or tells nothing of the account to these keys.
    """
    if source is None or not is_ledger(Path(source)):
        return tenant
    Ledger.open(Path(source), spec, ring).close()
    if tenant is None and ring.global_key is None:
        return next(iter(ring.tenants), None)
    if tenant is not None and tenant not in ring.tenants:
        raise DyetraceError(
            f"ledger {source} tells the counts of tenant {tenant!r} to that tenant's key only, which was not loaded; "
            "name the account with --tenant and give its key or the owner's"
        )
    return tenant


def crowding(source: str | None) -> str | None:
    """What to say of a ledger that counted more than its table holds; None where there is nothing to say.

    Nothing is subtracted from its counts: as they stand they leave a trace valid (`watermark.ledger`), and by how much
    one of them is too high nobody knows.
    """
    if source is None or not is_ledger(Path(source)):
        return None
    found = describe(Path(source))
    if found.noise_median <= 0:
        return None
    return (
        f"ledger {source} is crowded: half of the contexts that were never served read {found.noise_median:g} or more, "
        "so nearly all count as served; the trace is valid, but weaker (make the next ledger larger)"
    )


def read_answers(path: Path) -> Iterator[Answer]:
    """Read the owner's served answers, one a line as `dyetrace generate` writes them; other fields are ignored.

    Raises
    ------
    DyetraceError
        The file cannot be read, or a line is broken (its number is named).
    """
    decoder = msgspec.json.Decoder(Answer)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise DyetraceError(f"{path}, line {number}: {error}; mend or remove the line") from None
    except OSError as error:
        raise DyetraceError(f"cannot read served answers {path}: {error.strerror}") from None


def _looked_up(ledger: Ledger, tenant: str | None, sequences: Sequence[U32], width: int) -> dict[int, dict[int, int]]:
    """Fingerprint -> sub-key -> count, for all contexts that stand in the sequences and read more than 0."""
    long = [sequence for sequence in sequences if len(sequence) >= width]
    if not long:
        return {}
    prints = np.concatenate([context_fingerprints(sequence, width) for sequence in long])
    contexts = np.concatenate([sliding_window_view(sequence, width) for sequence in long])
    distinct, first = np.unique(prints, return_index=True)
    counts = ledger.counts_by_subkey(contexts[first], tenant)
    row, subkey = np.nonzero(counts)
    found: dict[int, dict[int, int]] = {}
    for value, index, count in zip(distinct[row].tolist(), subkey.tolist(), counts[row, subkey].tolist(), strict=True):
        found.setdefault(value, {})[index] = count
    return found
