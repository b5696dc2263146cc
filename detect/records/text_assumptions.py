"""What the verdicts of `dyetrace detect`, `scan` and `serve-check` assume, and what of it a run looked at.

A p-value is the chance of such scores over the draw of the key, the text being held fixed. Each sentence here is a way
in which the key may have had a say in the text or in its choice, or in which the finding may be read for more than it
is. A sentence is ASCII and holds no string of a suspect's.
"""

from __future__ import annotations

from detect.records.assumptions import Assumption
from detect.records.detection import Record
from detect.records.scan import ScanRecord
from detect.records.written import counted
from watermark.commitment import Commitment

_LONG = 32  # characters a record from which on a field is more than a name or number


def of_detection(record: Record, opened: bool, with_ids: int) -> list[Assumption]:
    """What a detection's answers assume.

    Parameters
    ----------
    record
        The rest of it.
    opened
        Whether its commitment was opened with this key.
    with_ids
        Documents of which the token ids were read.
    """
    documents = len(record.documents)
    given = f"{counted(len(record.inputs), 'file')} with {counted(documents, 'document')}"
    limit = record.arguments.get("limit")
    first = "" if limit is None else f" (of each file only the first {limit:,}, by place)"
    known = sum(document.prompt_tokens is not None for document in record.documents)
    found = [
        _drawn(),
        _fixed(record.commitment, opened),
        _chosen(f"All that was given to this run is counted: {given}{first}; nothing was left out after scoring."),
        _quoted("document"),
        _once_in_each(record),
        _tokenizer(documents - with_ids, with_ids, record.unlike_text),
        Assumption(
            says="Prompts are not evidence: what stands before a document gives contexts and is not scored itself.",
            checked=True,
            how=f"{counted(known, 'document')} of {documents:,} came with the token ids of a prompt. A prompt that "
            "stands in the document's own text is scored as text.",
        ),
    ]
    return [*found, _untaught()] if "model-aware" in record.tests else found


def of_scan(record: ScanRecord, unreadable: int, opened: bool) -> list[Assumption]:
    """What a scan's answer assumes.

    Parameters
    ----------
    record
        The rest of it.
    unreadable
        Files that could not be read and were skipped.
    opened
        Whether its commitment was opened with this key.
    """
    tokens = sum(source.documents for source in record.inputs if source.kind == "tokens")
    chats = any(source.kind == "messages" for source in record.inputs)
    turns = "Of chats only the turns of the roles on record were read. " if chats else ""
    return [
        _drawn(),
        _fixed(record.commitment, opened),
        _chosen(_all_counted(record, unreadable)),
        _quoted("corpus"),
        Assumption(
            says="Repeated text is one piece of evidence, wherever in the corpus it stands.",
            checked=True,
            how=f"Of {record.tuples:,} positions the {record.distinct_tuples:,} distinct ones were scored, each once "
            "in the whole corpus, and which these are was settled without any key. Nearly alike documents share what "
            "is alike.",
        ),
        _tokenizer(record.documents - tokens, tokens),
        Assumption(
            says="Prompts are not evidence: what others wrote before an answer is not scored.",
            checked=False,
            how=turns
            + "A prompt that stands in the text of a document can't be told from the answer, and is scored as "
            "text.",
        ),
        _controlled(record),
    ]


def of_serve_check(prompts: int, answers: int) -> list[Assumption]:
    """What the check of a server assumes: it is for the one who runs both, and accuses nobody."""
    return [
        Assumption(
            says="Nobody put marked text into the prompts: an answer that repeats marked text is marked text.",
            checked=False,
            how=f"The {counted(answers, 'answer')} to {counted(prompts, 'prompt')} are tested whole, and every one "
            "that could be had is counted.",
        ),
        Assumption(
            says="A round is one look: of many rounds, some fail or pass by chance.",
            checked=True,
            how="The level is that of one key in one round; keys and rounds are not paid for together, since nobody is "
            "accused. For evidence about a text use `dyetrace detect` or `dyetrace scan`.",
        ),
    ]


def _drawn() -> Assumption:
    return Assumption(
        says="The key was drawn at random and kept secret: nobody who wrote or chose the text knew it, but for the "
        "generator.",
        checked=False,
        how="Who held the key, and since when, is for its owner to show.",
    )


def _fixed(commitment: Commitment | None, opened: bool) -> Assumption:
    how = (
        "A commitment that names this spec and key is on record. It was not opened here, for its opening was not "
        "beside it or the key is an account's; its owner opens it: `dyetrace verify-commitment`."
    )
    if commitment is None:
        how = "No commitment was given. One that was published before the text existed would show it."
    elif opened:
        how = (
            f"The commitment was opened: it holds this spec and this key. Its date, {commitment.created}, is what "
            "its file says, which nothing covers and anybody can edit: what shows when it was made is where and when "
            "its SHA-256 was published."
        )
    says = "The key was fixed before the text was written, and before it was chosen for this test."
    return Assumption(says=says, checked=False, how=how)


def _chosen(counted: str) -> Assumption:
    return Assumption(
        says="The text was not chosen with the key, or by anything that depends on it: no detector, filter, retriever "
        "or ranking under this key picked it, cut it, or left other text out.",
        checked=False,
        how=f"{counted} How it was picked before that is not seen here: the most marked of many unmarked texts looks "
        "marked.",
    )


def _quoted(whole: str) -> Assumption:
    return Assumption(
        says=f"Text that quotes marked text is marked text: a finding says that marked text stands in the {whole}, and "
        "not who put it there.",
        checked=False,
        how="Read the marked places, and ask where they come from.",
    )


def _once_in_each(record: Record) -> Assumption:
    names = [document.sha256 for document in record.documents]
    equal = len(names) - len(set(names))
    return Assumption(
        says="Repeated text is one piece of evidence: documents that share text are not independent, and that several "
        "of them are marked may say no more than that one is.",
        checked=True,
        how="Each pair of a context and a token counts once within its document. Of the documents, "
        f"{equal:,} {'has' if equal == 1 else 'have'} the same tokens as an earlier one; nearly alike ones were not "
        "looked for. `dyetrace scan` counts repeated text once over all documents.",
    )


def _tokenizer(texts: int, ids: int, unlike: int | None = None) -> Assumption:
    """Of so many documents that were read as text or as ids, and those whose ids were held against their text."""
    says = "The text was cut into tokens as the generator cuts them: the tokenizer is the spec's."
    held = (
        ""
        if unlike is None
        else f" Token ids were held against the text beside them: those of {counted(unlike, 'document')} spell other "
        "text, as another tokenizer's do, and there the text was read."
    )
    if not ids:
        return Assumption(says=says, checked=True, how=f"The tokenizer's fingerprint is that of the spec.{held}")
    stand = "which were taken as they stand" if unlike is None else "which were read"
    some = f"{counted(ids, 'document')} came as token ids, {stand}."
    if texts:
        some += f" For the other {texts:,}, the tokenizer's fingerprint is that of the spec."
    some += held
    return Assumption(says=says, checked=False, how=f"{some} A wrong tokenizer hides marks, and makes none.")


def _all_counted(record: ScanRecord, unreadable: int) -> str:
    files, documents = counted(len(record.files_read), "file"), counted(record.documents, "document")
    skipped = sum(source.skipped for source in record.inputs)
    limit, sample = record.arguments.get("limit"), record.arguments.get("sample")
    parts = [f"All that was given to this run is counted: {files} with {documents}"]
    if skipped or unreadable:
        parts.append(f"{counted(skipped, 'broken record')} and {counted(unreadable, 'unreadable file')} were skipped")
    fields = [one for source in record.inputs for one in source.columns if one.characters >= _LONG * one.records]
    seen = [one.read for one in fields] + [one.read for source in record.inputs for one in source.turns]
    if not all(seen):
        parts.append("which of their fields and turns were read was settled without any key, and is on record")
    if limit is not None:
        parts.append(f"of each file only the first {limit:,}, by place")
    if isinstance(sample, float | int) and sample < 1:
        parts.append(f"a sample of {100 * sample:g}%, by place")
    return "; ".join(parts) + "; nothing was left out after scoring."


def _controlled(record: ScanRecord) -> Assumption:
    controls = record.controls
    says = "The test gives no mark where there is none."
    if controls.null_corpus is None:
        return Assumption(
            says=says,
            checked=False,
            how="There was no control corpus. Decoy keys test the arithmetic, and not how text or key were chosen.",
        )
    return Assumption(
        says=says,
        checked=True,
        how=f"A control corpus of {counted(controls.null_corpus_documents, 'document')} was tested under the true "
        "keys; marked, it would have withheld the answer. That it holds no mark is its giver's word.",
    )


def _untaught() -> Assumption:
    return Assumption(
        says="The model that judged the text never learnt from text that is marked with this key.",
        checked=False,
        how="Its guesses may be bad, or depend on the text in any way, without harm. A model that was trained on "
        "marked text has weights that depend on the key, and then the e-value promises nothing.",
    )
