"""`dyetrace detect`: documents one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detect.cli.models import load_model, model_folder
from detect.cli.options.detection import Detect
from detect.cli.publishing import check_pdf, end_by_verdict, publish
from detect.cli.reading import read_commitment, tested_ring
from detect.cli.unused import refuse_seed_of_no_decoys, refuse_unused
from detect.cli.working import doing, note
from detect.corpus.chosen import turns_lines
from detect.document.blind import NOTHING
from detect.document.detection import VIEWED_DOCUMENTS, Model, Settings
from detect.document.detection import detect as run
from detect.folders.published import DETECTION_FORMAT, check_folder
from detect.keyed.opening import is_opened
from detect.readers.batch import Tally
from detect.readers.suspects import Suspect, from_text_alone, read_suspects
from detect.records.detection import Record
from detect.records.made import made_by
from detect.records.written import clean, counted
from detect.text.artefacts import check_text
from watermark.errors import MachineError
from watermark.spec import WatermarkSpec, load_spec


def detect(asked: Detect) -> None:
    """Test the documents, write the report and show it."""
    output, source, maker = asked.output, asked.source, made_by(asked.examiner, asked.case)
    refuse_seed_of_no_decoys(asked.decoys)
    refuse_unused("model", not asked.aware, "it is for --aware; a tokenizer is given with --tokenizer")
    refuse_unused("force", output is None, "no report is written without -o")
    refuse_unused("pdf", output is None, "no report is written without -o")
    silent = output is None and not asked.as_json
    refuse_unused("no_quotes", silent, "what is printed without -o or --json quotes no text")
    settings = Settings(
        alpha=asked.alpha, decoy_count=asked.decoys, decoy_seed=asked.decoy_seed, quotes=not asked.no_quotes
    )
    made = load_spec(asked.spec_path)
    commitment = read_commitment(asked.commitment_path)
    ring = tested_ring(asked, made)
    if output is not None:
        check_folder(output, DETECTION_FORMAT, inputs=[] if source == "-" else [source], force=asked.force)
    with_pdf = _makes_pdf(asked.pdf, output)
    check_text(source, "FILE")
    doing("reading the documents")
    tally = Tally()
    suspects, read = read_suspects(source, asked.format, asked.text_field, tally)
    plain = not suspects[0].place  # of JSONL it is a line
    refuse_unused("text_field", plain, "FILE is plain text, which has no fields")
    _tell_of_fields(source, suspects, asked.text_field)
    if unread := [one for one in tally.counts() if not one.read]:
        note([*turns_lines(unread)][-1])
    nowhere = all(suspect.text is None for suspect in suspects)
    refuse_unused("text_field", nowhere, f"no record has a field {asked.text_field!r}")
    refuse_unused("from_text", plain, "FILE is plain text, which holds no token ids")
    refuse_unused("limit", plain, "FILE is plain text, which is one document")
    suspects = suspects[: asked.limit]
    if asked.from_text:
        suspects = [from_text_alone(suspect) for suspect in suspects]
    if settings.quotes:
        _tell_of_quotes(len(suspects), output, asked.as_json)
    tokenizer = asked.tokenizer or model_folder(asked.model)
    model = _owners_model(asked.model, made) if asked.aware else None
    arguments = asked.on_record(
        "source", "tenants", "format", "text_field", "from_text", "aware", "model", "tokenizer", "limit"
    )
    doing("testing", 0, len(suspects), "documents")
    record = run(
        suspects,
        [read],
        made,
        ring,
        tokenizer,
        settings,
        model=model,
        commitment=commitment,
        opened=is_opened(asked.commitment_path, commitment, [made], asked.key),
        arguments=arguments | {"tenants": list(ring.tenants)},
        made=maker,
        progress=_show_testing,
    )
    _tell_of_nothing(record)
    publish(record, output, asked.as_json, pdf=with_pdf)
    if asked.fail:
        end_by_verdict(bool(record.found), _withheld(record))


def _owners_model(folder: str | None, made: WatermarkSpec) -> Model:
    """The model for the second test, found sound."""
    from detect.models.soundness import check_sound

    doing("loading the model")
    network, _ = load_model(folder, "bfloat16")
    doing("testing the model itself")
    check_sound(network, folder or "the demo model", made.vocabulary_size)
    return Model(folder or "demo model SmolLM2-135M-Instruct", network)


def _show_testing(done: int, of: int) -> None:
    if done < of:
        doing("testing", done, of, "documents")
    else:
        doing("putting the documents' results together")


def _tell_of_fields(source: str, suspects: Sequence[Suspect], asked: str) -> None:
    """Say which fields are read where the usual one is missing."""
    chosen = dict.fromkeys(repr(clean(one.field)) for one in suspects if one.field not in ("", asked))
    if chosen:
        where = "standard input" if source == "-" else source
        note(f"{where} has no field {asked!r}: {' and '.join(chosen)} is read; name another with --text-field")


def _tell_of_quotes(documents: int, output: Path | None, as_json: bool) -> None:
    """Say before any work which files will hold texts of the suspect's."""
    where = [
        *(["report.json and report.html"] if output is not None else []),
        *(["standard output"] if as_json else []),
    ]
    if where:
        most = min(documents, VIEWED_DOCUMENTS)
        passages = "1 passage" if most == 1 else f"{most:,} passages"
        note(
            f"{' and '.join(where)} will quote up to {passages} of the suspect's texts; add --no-quotes to leave them "
            "out"
        )


def _tell_of_nothing(record: Record) -> None:
    """Say how many documents hold nothing to test or other ids than their text's, also where no person reads it."""
    if record.unlike_text:
        note(
            f"the token ids of {counted(record.unlike_text, 'document')} spell other text than the one beside them "
            "(ids of another tokenizer?); the text was read"
        )
    empty = [document for document in record.documents if (document.refused or "").startswith(NOTHING)]
    if empty:
        first = f"{empty[0].name}: {empty[0].refused}"
        of = "1 document holds" if len(record.documents) == 1 else f"{len(record.documents):,} documents hold"
        note(f"{len(empty):,} of {of} nothing to test; {first}")


def _withheld(record: Record) -> str | None:
    """Of which documents nothing could be said that had something to test, or that none had, and why."""
    refused = [document for document in record.documents if document.refused is not None]
    if len(refused) < len(record.documents):
        refused = [document for document in refused if not (document.refused or "").startswith(NOTHING)]
    if not refused:
        return None
    more = "" if len(refused) == 1 else f" (and {len(refused) - 1:,} documents more)"
    return f"{refused[0].name}: {refused[0].refused}{more}"


def _makes_pdf(wanted: bool | None, output: Path | None) -> bool:
    """Whether there will be a PDF, before any work is done for it; said where it is left out unasked."""
    if output is None or wanted is False:
        return False
    try:
        check_pdf()
    except MachineError:
        if wanted:
            raise
        note("no report.pdf will be written: it needs typst (pip install 'dyetrace[scan]')")
        return False
    return True
