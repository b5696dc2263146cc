"""What a suspect is made to read: documents as token ids of the spec's tokenizer, and the positions that count.

A student copies from its own window. Where the text is itself marked, a context that stood there before was followed by
a token that the key chose, and a copying student that never saw the mark would repeat it. So in each document only the
first occurrence of a context counts; and of marked text only the first in all documents, so that each weight is decided
by words of earlier contexts alone. A context whose text stands in the document's prompt does not count at all, whatever
tokens it is made of there: line "shown text" of `docs/validity.md`.

Marked documents are bet on in the order in which they were served: what a later one says, and what it was asked, may
depend on earlier ones. The file must be in that order; ids that are numbers, or a list of hashes, must not contradict
it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detect import readers
from detect.models.shown import context_texts, stands_in
from detect.readers import ReadOptions, Source, sha256_of
from detect.readers.batch import Tally
from detect.readers.rows import Record, documents_of, has_usual_fields, records_of, sources_of
from detect.text.distinct import first_occurrences, tuple_fingerprints
from detect.text.encode import Encoder
from detect.text.spelling import Speller
from watermark.errors import DyetraceError
from watermark.generate import SamplingUsed
from watermark.prf import U32
from watermark.spec import WatermarkSpec

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

NO_SUBKEY = -1
WINDOW = 1024
"""Tokens that are read at a time; a longer document is cut, and each piece counts as a document of its own."""


@dataclass(frozen=True, slots=True)
class ReadingDocument:
    """One document.

    Attributes
    ----------
    name
        "FILE, line N", with the number of its piece where it was cut.
    sequence
        Token ids, the prompt's first, shape (n,).
    lead
        How many of them are the prompt's.
    subkey
        The sub-key that marked it where that is on record, else `NO_SUBKEY`.
    text, prompt
        As text, for models with another tokenizer; None where only ids are known.
    told
        The whole prompt's token ids, shape (m,); more than ``lead`` where it was cut, none where none is known.
    barred
        Fingerprints of contexts that don't count here, as their text stands in the prompt.
    before
        The last h ids of the piece before this one, where the document was cut, shape (h,) or (0,).
    tenant
        The account that it was served to; None where that is not on record.
    sampling
        How its words were drawn, of a marked document; None where that is not on record.
    """

    name: str
    sequence: U32
    lead: int
    subkey: int = NO_SUBKEY
    text: str | None = None
    prompt: str | None = None
    told: U32 = field(default_factory=lambda: np.empty(0, dtype=np.uint32))
    barred: frozenset[int] = frozenset()
    before: U32 = field(default_factory=lambda: np.empty(0, dtype=np.uint32))
    tenant: str | None = None
    sampling: SamplingUsed | None = None


@dataclass(frozen=True, eq=False)
class ReadingText:
    """A file of documents.

    Attributes
    ----------
    name, sha256
        The file's.
    documents
        In their order in the file; marked ones were served in that order.
    marked
        Whether they are marked with the spec's key.
    unlike
        Records whose token ids spell other text than the one beside them; None where none has both.
    """

    name: str
    sha256: str
    documents: Sequence[ReadingDocument]
    marked: bool
    unlike: int | None = None


_NOTHING = msgspec.Raw(b"null")


class _Line(msgspec.Struct, frozen=True):
    """The fields of a record that matter: `watermark.generate.Answer` and any JSONL with a text have them."""

    text: str | None = None
    prompt: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    spec_id: str | None = None
    subkey: int | None = None
    tenant: str | None = None
    id: str | int | None = None
    sampling: msgspec.Raw = _NOTHING


def read_text(
    source: str,
    spec: WatermarkSpec,
    encoder: Encoder,
    *,
    tenant: str | None = None,
    order: Mapping[str, int] | None = None,
) -> ReadingText:
    """Read the documents of a JSONL file or of a plain text file.

    Parameters
    ----------
    source
        Records of any form with ``text`` (or ``token_ids``), and perhaps ``prompt``, ``spec_id`` and ``subkey`` as
        `dyetrace generate` writes them; records without these, of which the fields are read that a scan reads; or one
        plain text.
    spec
        The watermark; a record with its ``spec_id`` is marked text.
    encoder
        Of the spec's tokenizer.
    tenant
        Only records of this account.
    order
        Place at which each answer was served, by its hash (`line_hash`).

    Raises
    ------
    DyetraceError
        The file cannot be read or a line is broken (its number is named); marked and unmarked records are mixed; an id
        or sub-key is outside the spec's range; nothing to read.
    """
    sources = sources_of(source, ReadOptions())
    sha256 = sha256_of(sources[0])
    lines = [(place, line) for place, line in _records(sources) if tenant in (None, line.tenant)]
    marks = {line.spec_id == spec.spec_id for _, line in lines}
    if marks == {True}:
        _check_order(source, [line for _, line in lines], order)
    lines, unlike = _held(lines, marks == {True}, Speller(encoder.tokenizer, spec.vocabulary_size))
    found = [document for place, line in lines for document in _pieces(place, line, spec, encoder)]
    if len(marks) > 1:
        raise DyetraceError(
            f"{source} mixes answers marked under this spec with other text; put them into files of their own"
        )
    if not any(len(document.sequence) > max(document.lead, spec.context_width) for document in found):
        of = "" if tenant is None else f" of tenant {tenant!r}"
        raise DyetraceError(f"{source} holds no text{of} to read; give JSONL with 'text', or plain text")
    return ReadingText(source, sha256, found, marks == {True}, unlike)


def _held(
    lines: Sequence[tuple[str, _Line]], marked: bool, speller: Speller
) -> tuple[list[tuple[str, _Line]], int | None]:
    """Records without ids that spell other text than their own, and how many these were; None where none has both.

    Of marked answers the key had a say in each, and so in whether its ids spell it. Which form is read must not follow
    from that one by one: where any is of another tokenizer, the text of all that have one is read.
    """
    both = {number for number, (_, line) in enumerate(lines) if line.text is not None and line.token_ids is not None}
    unlike = {
        number for number in both if not speller.spells(lines[number][1].token_ids or (), lines[number][1].text or "")
    }
    by_text = both if unlike and marked else unlike
    held = []
    for number, (place, line) in enumerate(lines):
        if number in by_text and (line.text or "").strip():
            told = line.prompt_token_ids
            known = told is not None and line.prompt is not None and speller.holds(told, line.prompt)
            line = msgspec.structs.replace(line, token_ids=None, prompt_token_ids=told if known else None)
        held.append((place, line))
    return held, len(unlike) if both else None


def _records(sources: Sequence[Source]) -> Iterator[tuple[str, _Line]]:
    """Records with the usual fields as they are; of other files each text of the fields that a scan would read."""
    first, tally = sources[0], Tally()
    found = list(records_of(first))
    usual = first.form != "text" and has_usual_fields(found)
    for number, record in found:
        where = readers.place(first, number)
        if usual:
            line = _line(record, where)
            if line.text is None and line.token_ids is None:
                raise DyetraceError(f"{where} has neither a 'text' nor a 'token_ids' field")
            yield where, line
        elif first.form == "text":
            yield where, _Line(text=record["text"])
        else:
            for one in sources:
                for within, document in documents_of(record, one, number, tally):
                    line = _Line(text=document) if isinstance(document, str) else _Line(token_ids=document)
                    yield where + within, line


def _line(record: Record, where: str) -> _Line:
    try:
        return msgspec.json.decode(msgspec.json.encode(record), type=_Line)
    except msgspec.MsgspecError as error:
        raise DyetraceError(f"{where}: {error}; mend or remove the line") from None


_NUMBERED = re.compile(r"(\d{1,18})(?:\.(\d{1,18}))?")


def _check_order(source: str, lines: Sequence[_Line], order: Mapping[str, int] | None) -> None:
    """Refuse marked records that stand in another order than their numbers, or a list of hashes, say."""
    numbers = [_NUMBERED.fullmatch(str(line.id)) for line in lines]
    counted = [(int(match[1]), int(match[2] or 0)) for match in numbers if match is not None]
    if len(set(counted)) == len(lines) and counted != sorted(counted):
        raise DyetraceError(
            f"{source} holds its answers in another order than their ids number them: put them into the order in which "
            "they were served (sort them by id, or take the ids out), for later answers may depend on earlier ones"
        )
    if order is not None:
        listed = [order.get(line_hash(line), -1) for line in lines]
        if -1 not in listed and listed != sorted(listed):
            raise DyetraceError(
                f"{source} holds its answers in another order than the list of their hashes: one of the two is not the "
                "order in which they were served; put both into that order"
            )


def line_hash(line: Any) -> str:
    """SHA-256 (hex) of a served answer: prompt and answer as ids, spec, account and sub-key; none of its text."""
    fields = [line.prompt_token_ids, line.token_ids, line.spec_id, line.tenant, line.subkey]
    return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()


def _pieces(place: str, line: _Line, spec: WatermarkSpec, encoder: Encoder) -> Iterator[ReadingDocument]:
    ids = _checked(line.token_ids, spec, place)
    if ids is None:
        ids = encoder.encode(line.text or "")
    before = _checked(line.prompt_token_ids, spec, place)
    lead = np.empty(0, dtype=np.uint32) if before is None else before[-(WINDOW // 2) :]
    subkey = NO_SUBKEY
    if line.subkey is not None and line.spec_id == spec.spec_id:
        if not 0 <= line.subkey < spec.subkeys:
            raise DyetraceError(f"{place} has sub-key {line.subkey}, but the spec has {spec.subkeys} of them")
        subkey = line.subkey
    known: dict[str, Any] = {"tenant": line.tenant, "sampling": _sampling(line, spec, place)}
    room = WINDOW - len(lead)
    if len(ids) <= room:
        sequence = np.concatenate([lead, ids])
        whole = ReadingDocument(place, sequence, len(lead), subkey, line.text, line.prompt, **known)
        yield _told(whole, before, line.prompt, spec.context_width, encoder)
        return
    # A piece after the first is read without what came before, as any text is.
    cuts = [0, *range(room, len(ids), WINDOW)]
    for number, start in enumerate(cuts):
        stop = cuts[number + 1] if number + 1 < len(cuts) else len(ids)
        first = lead if number == 0 else lead[:0]
        sequence = np.concatenate([first, ids[start:stop]])
        cut = ids[max(0, start - spec.context_width) : start]
        name = f"{place}, piece {number + 1}"
        # The first piece is shown after its prompt as a short answer is: how long an answer is must change nothing.
        prompt = None if number else line.prompt
        piece = ReadingDocument(name, sequence, len(first), subkey, None, prompt, before=cut, **known)
        yield _told(piece, before, line.prompt, spec.context_width, encoder) if number == 0 else piece


def _sampling(line: _Line, spec: WatermarkSpec, place: str) -> SamplingUsed | None:
    """The settings on record; of other text than the spec's the field may be anything."""
    if line.spec_id != spec.spec_id:
        return None
    try:
        return msgspec.json.decode(line.sampling, type=SamplingUsed | None)
    except msgspec.MsgspecError as error:
        raise DyetraceError(f"{place}: field 'sampling': {error}; mend or remove it") from None


def _told(
    document: ReadingDocument, before: U32 | None, prompt: str | None, width: int, encoder: Encoder
) -> ReadingDocument:
    """The document with what it was told, and the contexts that don't count for it."""
    told = encoder.encode(prompt or "") if before is None else before
    if not len(told):
        return document

    def spelled(ids: U32) -> str:
        return encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    shown = f"{prompt or ''}\n{spelled(told)}"
    prints = context_fingerprints(document.sequence, width)
    starts = np.arange(max(0, document.lead - width), len(prints))
    texts = context_texts(encoder.tokenizer, document.sequence[starts[:, None] + np.arange(width)])
    barred = {int(prints[start]) for start, text in zip(starts, texts, strict=True) if stands_in(text, shown)}
    if document.lead >= width and len(starts) and not stands_in(texts[0], spelled(told[:-1])):
        barred.discard(int(prints[starts[0]]))  # the prompt's own end: nothing has followed it yet
    return replace(document, told=told, barred=frozenset(barred))


def _checked(ids: list[int] | None, spec: WatermarkSpec, place: str) -> U32 | None:
    if ids is None:
        return None
    array = np.array(ids, dtype=np.int64)
    if len(array) and not (0 <= array.min() and array.max() < spec.vocabulary_size):
        raise DyetraceError(
            f"{place} has a token id outside the spec's vocabulary of {spec.vocabulary_size}; "
            "its ids come from another tokenizer"
        )
    return array.astype(np.uint32)


def context_fingerprints(sequence: U32, width: int) -> U64:
    """Fingerprint of the context of each position from ``width`` on to one past the end: (n,) -> (n - width + 1,)."""
    return tuple_fingerprints(sequence, width - 1, width - 1)


@dataclass(frozen=True, eq=False)
class Positions:
    """The positions that count, in reading order.

    Attributes
    ----------
    document
        Index of the document, shape (n,).
    position
        Index in its sequence of the token that follows the context, shape (n,); it may be one past the end.
    fingerprint
        Of the context, together with the sub-key where that is known, shape (n,).
    """

    document: I64
    position: I64
    fingerprint: U64

    def __len__(self) -> int:
        return len(self.document)


def positions(
    text: ReadingText,
    width: int,
    most_contexts: int,
    prefixes: int = 4,
    taken: AbstractSet[int] = frozenset(),
    among: Container[int] | None = None,
    apart: Callable[[ReadingDocument, U32], U64] | None = None,
) -> Positions:
    """Choose the positions that count.

    Parameters
    ----------
    text
        The documents.
    width
        h, the context width, at least 1.
    most_contexts
        Stop when so many distinct contexts were seen. Those that are not in ``among`` count as well: which ones those
        are may be the key's work, and must not decide where reading ends.
    prefixes
        How many documents may serve one context of unmarked text; of marked text only the first may.
    taken
        Fingerprints of contexts (without sub-key) that another text has given already: they are left out.
    among
        Fingerprints of the only contexts that are of use; None reads all.
    apart
        Of a document and a sequence of its tokens, n of them: a number for each context in it, shape (n - width + 1,).
        Contexts with different numbers are different ones (an account's own key chooses for its answers alone).
    """
    seen: dict[int, int] = {}
    chosen = 0
    limit = 1 if text.marked else prefixes
    # Under another sub-key a context has other words and counts for itself, if all sub-keys are known: where one is
    # not, its context stands for all of them.
    by_subkey = all(document.subkey >= 0 for document in text.documents)
    documents, places, prints = [], [], []
    for number, document in enumerate(text.documents):
        prints_here = context_fingerprints(document.sequence, width)
        if not len(prints_here):
            continue
        first = first_occurrences(prints_here)
        at = np.flatnonzero(first)
        at = at[at + width >= max(document.lead, width)]
        for closed in (taken, document.barred):
            if closed:
                at = at[[value not in closed for value in prints_here[at].tolist()]]
        salt = np.uint64((document.subkey + 1) * 0x9E3779B97F4A7C15 % 2**64 if by_subkey else 0)
        salted = prints_here ^ salt
        if apart is not None:
            salted ^= apart(document, document.sequence)
        kept = []
        for place, bare, value in zip(at.tolist(), prints_here[at].tolist(), salted[at].tolist(), strict=True):
            before = seen.get(value, 0)
            if before < limit and (before or chosen < most_contexts):
                chosen += not before
                seen[value] = before + 1
                if among is None or bare in among:
                    kept.append((place + width, value))
        if text.marked:
            # Its words chose what follows a context here, so they are no longer fresh in later documents.
            across = _straddling(document, width)
            answered = context_fingerprints(across, width) ^ salt if len(across) else prints_here[:0]
            if apart is not None and len(across):
                answered ^= apart(document, across)
            own = salted[max(0, document.lead - width) :]
            seen.update(dict.fromkeys([*answered.tolist(), *own.tolist()], limit))
        documents.append(np.full(len(kept), number, dtype=np.int64))
        places.append(np.array([place for place, _ in kept], dtype=np.int64))
        prints.append(np.array([value for _, value in kept], dtype=np.uint64))
    return Positions(
        np.concatenate([*documents, np.empty(0, dtype=np.int64)]),
        np.concatenate([*places, np.empty(0, dtype=np.int64)]),
        np.concatenate([*prints, np.empty(0, dtype=np.uint64)]),
    )


def _straddling(document: ReadingDocument, width: int) -> U32:
    """The tokens of the contexts between a piece and the one before it: they count nowhere, but chose a token."""
    across = np.concatenate([document.before, document.sequence[: width - 1]])
    return across if len(document.before) and len(across) >= width else document.before[:0]


def contexts_of(text: ReadingText, width: int) -> set[int]:
    """Fingerprints of all contexts that stand in a text."""
    found: set[int] = set()
    for document in text.documents:
        found.update(context_fingerprints(document.sequence, width).tolist())
    return found


def context_at(documents: Sequence[ReadingDocument], where: Positions, width: int) -> U32:
    """The contexts themselves, shape (n, width), oldest token first."""
    out = np.empty((len(where), width), dtype=np.uint32)
    for row, (document, place) in enumerate(zip(where.document.tolist(), where.position.tolist(), strict=True)):
        out[row] = documents[document].sequence[place - width : place]
    return out


def served_subkeys(source: Sequence[ReadingDocument], width: int) -> dict[int, dict[int, int]]:
    """In how many documents each context stands under each sub-key: fingerprint -> sub-key -> count.

    Documents are counted, not occurrences: whether a context comes up in a document was decided before its own words
    were first used there, while how often it comes back depends on them. Of marked documents only some of these counts
    may have a say in a context's weight (`verdict.weights.gathered_served`). Where one of a context's documents
    names no sub-key, all of them are in question: `NO_SUBKEY` alone.
    """
    counts: dict[int, dict[int, int]] = {}
    for document in source:
        prints = context_fingerprints(document.sequence, width)
        for value in np.unique(prints[max(0, document.lead - width) :]).tolist():
            mine = counts.setdefault(value, {})
            mine[document.subkey] = mine.get(document.subkey, 0) + 1
    return {value: {NO_SUBKEY: sum(mine.values())} if NO_SUBKEY in mine else mine for value, mine in counts.items()}
